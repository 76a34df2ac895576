#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Draw what routing_fluctuation measured: when tokens settled, loads over training, perplexity with its confidence.

usage: plot_fluctuation.py FOLDER     reads the CSV files there and writes settled.png, loads.png, perplexity.png
"""
import csv
import sys
from pathlib import Path

try:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
except ImportError:
    sys.exit("plot_fluctuation.py needs matplotlib: apt-get install python3-matplotlib, then run it with /usr/bin/python3")


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def series(rows, x, y):
    """Mean over the seeds of y at each x, for each composition in the order of the file."""
    sums = {}
    for row in rows:
        if row[y] == "":
            continue
        at = sums.setdefault(row["composition"], {}).setdefault(float(row[x]), [0.0, 0])
        at[0] += float(row[y])
        at[1] += 1
    return {name: (sorted(points), [points[p][0] / points[p][1] for p in sorted(points)]) for name, points in sums.items()}


def smooth(values, window):
    """Mean over the last `window` values."""
    means, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - window] if i >= window else 0.0)
        means.append(total / min(i + 1, window))
    return means


def finish(figure, axes, path):
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    summary, distribution, curves = (read(folder / f"{name}.csv") for name in ("summary", "distribution", "curves"))
    if not summary:
        sys.exit(f"{folder} has no finished runs: nothing to draw")
    order = [row["composition"] for row in summary]
    colour = {name: f"C{i}" for i, name in enumerate(order)}

    figure, axis = plt.subplots(figsize=(8, 5))
    for name, (part, share) in series(distribution, "part_of_run", "share_settled").items():
        axis.step([100 * p for p in part], [100 * s for s in share], where="post", label=name, color=colour[name])
    axis.set_xlabel("part of the training (%)")
    axis.set_ylabel("tokens whose expert changed for the last time (%)")
    axis.legend(loc="lower right")
    finish(figure, [axis], folder / "settled.png")

    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 8), sharex=True)
    for name, (step, load) in series(curves, "step", "train_load").items():
        top.plot(step, smooth(load, max(1, len(step) // 40)), label=name, color=colour[name])
    for name, (step, load) in series(curves, "step", "evaluation_load").items():
        bottom.plot(step, load, label=name, color=colour[name])
    top.set_ylabel("training: busiest expert / mean")
    bottom.set_ylabel("evaluation: busiest expert / mean")
    bottom.set_xlabel("step")
    top.legend(ncol=2)
    finish(figure, [top, bottom], folder / "loads.png")

    figure, axis = plt.subplots(figsize=(8, 4))
    for row in summary:
        name = row["composition"]
        axis.errorbar([float(row["perplexity"])], [name], xerr=[float(row["perplexity_half_width"])], fmt="o", capsize=4,
                      color=colour[name])
    axis.invert_yaxis()
    axis.set_xlabel("validation perplexity, mean and 95 % confidence interval over seeds")
    finish(figure, [axis], folder / "perplexity.png")


if __name__ == "__main__":
    main()
