#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Draw loss and expert load over the training steps from curves.csv.

usage: plot.py curves.csv plot.png
"""
import csv
import sys

try:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
except ImportError:
    sys.exit("plot.py needs matplotlib: apt-get install python3-matplotlib, then run it with /usr/bin/python3")


def read(path):
    """Columns of each composition, in the order of the file."""
    curves = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            curve = curves.setdefault(row["composition"], {"step": [], "loss": [], "load": []})
            curve["step"].append(int(row["step"]))
            curve["loss"].append(float(row["loss"]))
            curve["load"].append(float(row["load_max_over_mean"]))
    return curves


def smooth(values, window):
    """Mean over the last `window` values."""
    means, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - window] if i >= window else 0.0)
        means.append(total / min(i + 1, window))
    return means


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    curves = read(sys.argv[1])
    if not curves:
        sys.exit(f"{sys.argv[1]} has no rows: nothing to draw")
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 8), sharex=True)
    for name, curve in curves.items():
        window = max(1, len(curve["step"]) // 40)
        top.plot(curve["step"], smooth(curve["loss"], window), label=name)
        bottom.plot(curve["step"], smooth(curve["load"], window), label=name)
    top.set_ylabel("training loss (nats a word)")
    bottom.set_ylabel("busiest expert / mean")
    bottom.set_xlabel("step (running means)")
    bottom.axhline(1.0, color="grey", linewidth=0.8, linestyle="--")
    for axis in (top, bottom):
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(sys.argv[2], dpi=120)


if __name__ == "__main__":
    main()
