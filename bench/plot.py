#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Draw the results of bench/run.sh --json FILE: bench/plot.py FILE [PNG] [--counter NAME] [--growth PREFIX [--sizes A,B]]

Without --counter: time of each bench. With --growth: lines over the size that varies in the names that start with
PREFIX/ and end in AxB (tokens and experts, or what --sizes says), both axes logarithmic, with the fitted exponent, which is
printed too. The title carries the conditions of the run."""
import argparse
import json
import math
import os
import re

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def draw_growth(rows, prefix, sizes_named, axes, label):
    lines = {}
    for name, value in rows.items():
        match = re.match(re.escape(prefix.rstrip("/")) + r"/([^/]+)/(\d+)x(\d+)(/|$)", name)
        if match:
            lines.setdefault(match.group(1), []).append((int(match.group(2)), int(match.group(3)), value))
    if not lines:
        raise SystemExit(f"no bench is named {prefix}/.../AxB")
    sizes = [point for points in lines.values() for point in points]
    varies = 0 if len({point[0] for point in sizes}) > 1 else 1
    fixed = sorted({point[1 - varies] for point in sizes})
    for kind, points in lines.items():
        points.sort(key=lambda point: point[varies])
        x = [math.log(point[varies]) for point in points]
        y = [math.log(point[2]) for point in points]
        mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
        square = sum((a - mean_x) ** 2 for a in x)
        exponent = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / square if square > 0 else float("nan")
        print(f"{prefix} {kind}: time ~ {sizes_named[varies]}^{exponent:.2f} ({points[0][varies]} to {points[-1][varies]})")
        axes.plot([point[varies] for point in points], [point[2] for point in points], marker="o", markersize=3,
                  linewidth=1, label=f"{kind}, exponent {exponent:.2f}")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel(sizes_named[varies] + f"; {sizes_named[1 - varies]}: {', '.join(map(str, fixed))}")
    axes.set_ylabel(label)
    axes.grid(True, which="major", linewidth=0.3)
    axes.legend(fontsize=7)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", help="what bench/run.sh --json wrote")
    parser.add_argument("png", nargs="?", help="output; default: beside the JSON file")
    parser.add_argument("--counter", help="draw this counter instead of the time")
    parser.add_argument("--growth", metavar="PREFIX", help="draw growth, for instance assign/growth_tokens")
    parser.add_argument("--sizes", metavar="A,B", default="tokens,experts", help="what the two sizes are (tokens,experts)")
    arguments = parser.parse_args()
    with open(arguments.json) as file:
        run = json.load(file)
    rows = {}
    has_median = any(row.get("aggregate_name") == "median" for row in run["benchmarks"])
    for row in run["benchmarks"]:
        if row.get("error_occurred") or has_median != (row.get("aggregate_name") == "median"):
            continue
        name = re.sub(r"/(iterations:\d+|manual_time|real_time)", "", row.get("run_name", row["name"]))
        if arguments.counter is None:
            unit = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "s": 1e3}[row["time_unit"]]
            rows[name] = row["real_time"] * unit
        elif arguments.counter in row:
            rows[name] = row[arguments.counter]
    if not rows:
        raise SystemExit(f"{arguments.json}: no bench has the counter {arguments.counter!r}")
    label = arguments.counter or "time of one iteration [ms]"
    if arguments.growth:
        figure, axes = plt.subplots(figsize=(7, 4.5))
        draw_growth(rows, arguments.growth, arguments.sizes.split(","), axes, label)
    else:
        names = list(rows)[::-1]
        figure, axes = plt.subplots(figsize=(10, 1.6 + 0.28 * len(names)))
        axes.barh(names, [rows[name] for name in names], color="#4878a8")
        axes.set_xlabel(label)
        if arguments.counter is None:
            axes.set_xscale("log")
        elif arguments.counter.startswith("fraction_"):
            axes.axvline(1.0, color="black", linewidth=0.8)
    context = run["context"]
    axes.set_title(
        f"{context.get('machine')}, {context.get('num_cpus')} cores; {context.get('compiler')} {context.get('flags')}\n"
        f"commit {context.get('commit')}, OPENBLAS_NUM_THREADS={context.get('OPENBLAS_NUM_THREADS')}, "
        f"quick: {context.get('quick')}, {context.get('date')}",
        fontsize=6 if arguments.growth else 8,
    )
    axes.tick_params(labelsize=7)
    figure.tight_layout()
    png = arguments.png or os.path.splitext(arguments.json)[0] + ".png"
    figure.savefig(png, dpi=100 if arguments.growth else 130)
    print(f"wrote {png}")


if __name__ == "__main__":
    main()
