#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Draw what edge_training measured: accuracy and backlog over the slots, and the sweep over V.

usage: plot_edge_training.py FOLDER
reads summary.csv and curves.csv there and writes accuracy.png, backlog.png, and sweep.png if there was a sweep
lines are means over seeds, bands reach from the least to the largest seed
"""
import csv
import sys
from pathlib import Path

try:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
except ImportError:
    sys.exit("plot_edge_training.py needs matplotlib: apt-get install python3-matplotlib, then run it with /usr/bin/python3")


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def over_seeds(rows, column):
    """{slot: values of the seeds} for the slots that have them, in order."""
    values = {}
    for row in rows:
        if row[column]:
            values.setdefault(int(row["slot"]), []).append(float(row[column]))
    return dict(sorted(values.items()))


def draw(axis, values, label, colour, style, factor=1.0):
    slots = list(values)
    axis.plot(slots, [factor * sum(v) / len(v) for v in values.values()], label=label, color=colour, linestyle=style)
    axis.fill_between(slots, [factor * min(v) for v in values.values()], [factor * max(v) for v in values.values()],
                      color=colour, alpha=0.15, linewidth=0)


def finish(figure, axes, path):
    for axis in axes:
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def over_slots(order, chosen, column, label, path, factor=1.0, logarithmic=False):
    figure, axis = plt.subplots(figsize=(8, 5))
    for i, name in enumerate(order):
        # The last one may lie on another one: broken lines show both.
        draw(axis, over_seeds(chosen[name], column), name, f"C{i % 10}", (0, (4, 4)) if name == "exact_drift" else "-", factor)
    if logarithmic:
        axis.set_yscale("symlog", linthresh=1.0)
        axis.set_ylim(bottom=0.0)
    axis.set_xlabel("slot")
    axis.set_ylabel(label)
    axis.legend(ncol=2)
    finish(figure, [axis], path)


def sweep(rows, path):
    figure, axes = plt.subplots(1, 3, figsize=(12, 4))
    columns = (("accuracy", "test accuracy (%)", 100.0), ("energy_debt_j", "sum of Z at the end (J)", 1.0),
               ("gate_share", "gate scores of the choice,\nof the gate's own (%)", 100.0))
    for axis, (column, label, factor) in zip(axes, columns):
        for i, name in enumerate(dict.fromkeys(row["strategy"] for row in rows)):
            own = sorted((row for row in rows if row["strategy"] == name), key=lambda row: float(row["v"]))
            axis.errorbar([float(row["v"]) for row in own], [factor * float(row[column]) for row in own],
                          yerr=[factor * float(row[column + "_half_width"]) for row in own], label=name, color=f"C{i}",
                          marker="o", capsize=3)
        axis.set_xscale("log")
        axis.set_xlabel("V (copies)")
        axis.set_ylabel(label)
    axes[1].set_yscale("log")
    axes[0].legend()
    finish(figure, axes, path)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    summary, curves = read(folder / "summary.csv"), read(folder / "curves.csv")
    if not summary:
        sys.exit(f"{folder} has no finished runs: nothing to draw")
    # Each strategy is drawn at the V of the table, which comes first.
    order = {}
    for row in summary:
        order.setdefault(row["strategy"], row["v"])
    chosen = {name: [row for row in curves if row["strategy"] == name and row["v"] == v] for name, v in order.items()}
    over_slots(order, chosen, "accuracy", "test accuracy (%), plain top-3", folder / "accuracy.png", factor=100.0)
    over_slots(order, chosen, "backlog", "copies that wait", folder / "backlog.png", logarithmic=True)
    swept = [name for name in order if len({row["v"] for row in summary if row["strategy"] == name}) > 1]
    (folder / "sweep.png").unlink(missing_ok=True)
    if swept:
        sweep([row for row in summary if row["strategy"] in swept], folder / "sweep.png")


if __name__ == "__main__":
    main()
