#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Draw what edge_simulation measured: queues over time, what each strategy gives up, utility against its bound over V.

usage: plot_edge.py FOLDER [--load X] [--skew X]
reads summary.csv and series.csv there and writes backlog.png, pareto.png, and sweep.png if there was a sweep
  --load X --skew X   the setting of backlog.png and pareto.png (390 and 0.5 if it is there, else the first one)
"""
import csv
import sys
from pathlib import Path

try:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
except ImportError:
    sys.exit("plot_edge.py needs matplotlib: apt-get install python3-matplotlib, then run it with /usr/bin/python3")

MARKERS = "osD^v<>PX*"


def read(path):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for name in row:
            if name != "strategy":
                row[name] = float(row[name]) if row[name] else None
    return rows


def mean(values):
    values = [value for value in values if value is not None]
    return sum(values) / len(values) if values else None


def in_order(rows, *names):
    """The distinct values of some columns, in order of appearance."""
    return list(dict.fromkeys(tuple(row[name] for name in names) for row in rows))


def finish(figure, axes, path):
    for axis in axes:
        axis.grid(alpha=0.3, which="both")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_backlog(series, strategies, title, path):
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5))
    for axis, column, name in zip(axes, ("backlog", "debt_j"), ("copies that wait", "energy debt, sum of Z (J)")):
        for i, strategy in enumerate(strategies):
            rows = [row for row in series if row["strategy"] == strategy]
            points = [(slot, mean(row[column] for row in rows if row["slot"] == slot)) for (slot,) in in_order(rows, "slot")]
            axis.plot(*zip(*points), label=strategy, color=f"C{i % 10}", linewidth=1.2)
        axis.set_yscale("symlog", linthresh=1.0)
        axis.set_ylim(bottom=0.0)
        axis.set_xlabel("slot")
        axis.set_ylabel(name)
    axes[0].set_title(title, fontsize=10)
    axes[1].legend(fontsize=7)
    finish(figure, axes, path)


def draw_pareto(summary, strategies, title, path):
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5))
    for axis, column, name in zip(axes, ("completed_percent", "overshoot_j"), ("tokens completed (%)", "worst average energy above budget (J)")):
        for i, strategy in enumerate(strategies):
            rows = [row for row in summary if row["strategy"] == strategy]
            axis.scatter([row[column] for row in rows], [row["gate_mass"] for row in rows], s=14, alpha=0.4, color=f"C{i % 10}",
                         marker=MARKERS[i % len(MARKERS)])
            axis.scatter([mean(row[column] for row in rows)], [mean(row["gate_mass"] for row in rows)], s=70, color=f"C{i % 10}",
                         marker=MARKERS[i % len(MARKERS)], label=strategy)
        axis.set_xlabel(name)
        axis.set_ylabel("gate mass against top-k")
    axes[0].set_title(title, fontsize=10)
    axes[1].legend(fontsize=7)
    finish(figure, axes, path)


def draw_sweep(summary, path):
    figure, axes = plt.subplots(1, 3, figsize=(13, 4.2))
    for i, (strategy,) in enumerate(in_order(summary, "strategy")):
        for axis, column in zip(axes, ("utility", "debt_j", "backlog")):
            rows = [row for row in summary if row["strategy"] == strategy]
            points = [(v, mean(row[column] for row in rows if row["v"] == v)) for (v,) in sorted(in_order(rows, "v"))]
            axis.plot(*zip(*points), marker="o", markersize=4, label=strategy, color=f"C{i}", linestyle=("-", "--", ":")[i % 3])
    bound = mean(row["bound"] for row in summary)
    if bound is not None:
        axes[0].axhline(bound, color="black", linewidth=1.0, label="bound")
    for axis, name in zip(axes, ("utility a slot", "energy debt at the end, sum of Z (J)", "copies that wait at the end")):
        axis.set_xscale("symlog" if any(row["v"] == 0.0 for row in summary) else "log")
        axis.set_xlabel("V")
        axis.set_ylabel(name)
    axes[1].set_yscale("log")
    axes[2].set_yscale("symlog", linthresh=1.0)
    axes[2].set_ylim(bottom=0.0)
    axes[0].legend(fontsize=8)
    finish(figure, axes, path)


def main():
    words = sys.argv[1:]
    options = {"--load": None, "--skew": None}
    folders = []
    while words:
        word = words.pop(0)
        if word in options and words:
            try:
                options[word] = float(words.pop(0))
            except ValueError:
                sys.exit(__doc__)
        else:
            folders.append(word)
    if len(folders) != 1 or folders[0].startswith("-"):
        sys.exit(__doc__)
    folder = Path(folders[0])
    summary = read(folder / "summary.csv")
    series = read(folder / "series.csv")
    # What was interrupted is drawn only if nothing else is there.
    if any(row["complete"] == 1.0 for row in summary):
        summary = [row for row in summary if row["complete"] == 1.0]
    if not summary:
        sys.exit(f"{folder} has no results: nothing to draw")
    swept = [row for row in summary if row["sweep"] == 1.0]
    plain = [row for row in summary if row["sweep"] == 0.0]
    if plain:
        settings = in_order(plain, "load", "skew")
        wanted = [one for one in settings if options["--load"] in (None, one[0]) and options["--skew"] in (None, one[1])]
        if not wanted:
            sys.exit(f"no such setting; there are (load, skew) {settings}")
        setting = (390.0, 0.5) if (390.0, 0.5) in wanted else wanted[0]
        rows = [row for row in plain if (row["load"], row["skew"]) == setting]
        seeds = {row["seed"] for row in rows}
        lines = [row for row in series if row["sweep"] == 0.0 and (row["load"], row["skew"]) == setting and row["seed"] in seeds]
        strategies = [one for (one,) in in_order(rows, "strategy")]
        title = f"load {setting[0]:g}, skew {setting[1]:g}, mean of {len(seeds)} seeds"
        if lines:
            draw_backlog(lines, strategies, title, folder / "backlog.png")
        draw_pareto(rows, strategies, title, folder / "pareto.png")
    if swept:
        draw_sweep(swept, folder / "sweep.png")


if __name__ == "__main__":
    main()
