#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Draw the results of bench/run.sh --json FILE: bench/plot.py FILE [PNG] [--counter NAME]

Without --counter: time of each bench. The title carries the conditions of the run."""
import argparse
import json
import os

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", help="what bench/run.sh --json wrote")
    parser.add_argument("png", nargs="?", help="output; default: beside the JSON file")
    parser.add_argument("--counter", help="draw this counter instead of the time")
    arguments = parser.parse_args()
    with open(arguments.json) as file:
        run = json.load(file)
    rows = {}
    has_median = any(row.get("aggregate_name") == "median" for row in run["benchmarks"])
    for row in run["benchmarks"]:
        if row.get("error_occurred") or has_median != (row.get("aggregate_name") == "median"):
            continue
        name = row.get("run_name", row["name"])
        if arguments.counter is None:
            unit = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3}[row["time_unit"]]
            rows[name] = row["real_time"] * unit
        elif arguments.counter in row:
            rows[name] = row[arguments.counter]
    if not rows:
        raise SystemExit(f"{arguments.json}: no bench has the counter {arguments.counter!r}")
    names = list(rows)[::-1]
    figure, axes = plt.subplots(figsize=(10, 1.6 + 0.28 * len(names)))
    axes.barh(names, [rows[name] for name in names], color="#4878a8")
    axes.set_xlabel(arguments.counter or "time of one iteration [ms]")
    if arguments.counter is None:
        axes.set_xscale("log")
    elif arguments.counter.startswith("fraction_"):
        axes.axvline(1.0, color="black", linewidth=0.8)
    context = run["context"]
    axes.set_title(
        f"{context.get('machine')}, {context.get('num_cpus')} cores; {context.get('compiler')} {context.get('flags')}\n"
        f"commit {context.get('commit')}, OPENBLAS_NUM_THREADS={context.get('OPENBLAS_NUM_THREADS')}, "
        f"quick: {context.get('quick')}, {context.get('date')}",
        fontsize=8,
    )
    axes.tick_params(labelsize=7)
    figure.tight_layout()
    png = arguments.png or os.path.splitext(arguments.json)[0] + ".png"
    figure.savefig(png, dpi=130)
    print(f"wrote {png}")


if __name__ == "__main__":
    main()
