#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""Draw what plan_trace measured: imbalance of the best and of the published compositions, over time, and what it costs.

usage: plot_plan.py FOLDER [--best N] [--lines PLANNER+SCHEDULER,...]
reads summary.csv and series.csv there and writes imbalance.png, over_time.png, cost.png
  --best N      planners of the best compositions to show, each with its best scheduler (6)
  --lines LIST  compositions of over_time.png (static, three published ones, pq (LAER) with the exact split, the best)
"""
import csv
import sys
from pathlib import Path

try:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
except ImportError:
    sys.exit("plot_plan.py needs matplotlib: apt-get install python3-matplotlib, then run it with /usr/bin/python3")

# The scheduler that each system publishes with its planner.
PUBLISHED = [
    ("static", "sole_replica"),
    ("permutation (SmartMoE)", "equal_split"),
    ("in order (SYMI)", "equal_split"),
    ("transfer (FlexMoE)", "equal_split"),
    ("quota, spread (Lazarus)", "equal_split"),
    ("shadow (FasterMoE)", "nearest_copy"),
    ("subset (Prophet)", "nearest_copy"),
    ("sparse (Hecate)", "nearest_copy"),
    ("tuner (LAER)", "local_node_even"),
    ("pq (LAER)", "local_node_even"),
    ("global (EPLB)", "equal_split"),
    ("hierarchy (EPLB)", "equal_split"),
    ("joint (FlashLB)", "equal_split"),
    ("swaps (SwiftBalancer)", "equal_split"),
    ("rows (MicroMoE)", "min_max_flow"),
    ("cayley (MicroMoE)", "min_max_flow"),
    ("least_loaded (LLEP)", "its own map"),
]


def read(path, numbers):
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for name in numbers:
            row[name] = float(row[name])
        row["key"] = (row["planner"], row["scheduler"])
    return rows


def label(key):
    return f"{key[0]} + {key[1]}"


def best_of_each_planner(summary):
    """One composition a planner: the least mean; the shorter step among equals. Best first."""
    chosen = {}
    for row in summary:
        other = chosen.get(row["planner"])
        if other is None or (round(row["mean"], 6), row["step_ms"]) < (round(other["mean"], 6), other["step_ms"]):
            chosen[row["planner"]] = row
    return sorted(chosen.values(), key=lambda row: row["mean"])


def finish(figure, axes, path):
    for axis in axes:
        axis.grid(alpha=0.3, which="both")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def draw_bars(summary, best, path):
    rows = {row["key"]: row for row in best + [row for row in summary if row["key"] in PUBLISHED]}
    order = sorted(rows.values(), key=lambda row: -row["mean"])
    figure, axis = plt.subplots(figsize=(9, 1.2 + 0.42 * len(order)))
    # Excess over the mean on a logarithmic axis: 1.002 and 6 fit one plot.
    least = 1e-4
    for i, row in enumerate(order):
        for offset, (name, colour) in enumerate((("worst", "C3"), ("p99", "C1"), ("mean", "C0"))):
            axis.barh(i + 0.27 * (offset - 1), max(row[name] - 1.0, least), height=0.25, color=colour,
                      label=name if i == 0 else None)
    axis.set_yticks(range(len(order)))
    axis.set_yticklabels([label(row["key"]) + ("" if row["key"] in PUBLISHED else "  *") for row in order], fontsize=8)
    axis.set_xscale("log")
    axis.set_xlim(left=least)
    axis.set_xlabel("largest / mean load of a rank - 1          * = not a published pair")
    axis.legend(loc="upper right")
    axis.margins(y=0.01)
    finish(figure, [axis], path)


def draw_lines(series, lines, path):
    figure, axis = plt.subplots(figsize=(9, 4.5))
    for i, key in enumerate(lines):
        points = [(row["record"], row["imbalance"]) for row in series if row["key"] == key]
        if points:
            axis.plot(*zip(*points), label=label(key), color=f"C{i}", linewidth=1.0)
    axis.set_yscale("log")
    axis.set_yticks([1, 1.1, 1.5, 2, 4, 8])
    axis.set_yticklabels(["1", "1.1", "1.5", "2", "4", "8"])
    axis.minorticks_off()
    axis.set_xlabel("record")
    axis.set_ylabel("largest / mean load of a rank,\nmean over layers")
    axis.legend(fontsize=8)
    finish(figure, [axis], path)


def draw_cost(summary, path):
    """What a plan fetches, and how long the modelled step is, against the imbalance: one point a composition."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 5))
    planners = sorted({row["planner"] for row in summary})
    markers = "osD^v<>Ph*Xpd"
    for column, axis in zip(("fetched_mb", "step_ms"), axes):
        for i, planner in enumerate(planners):
            rows = [row for row in summary if row["planner"] == planner]
            axis.scatter([row[column] for row in rows], [row["mean"] for row in rows], label=planner, s=22, alpha=0.8,
                         color=f"C{i % 10}", marker=markers[i % len(markers)])
        axis.set_yscale("log")
        axis.set_yticks([1, 1.1, 1.5, 2, 4, 6])
        axis.set_yticklabels(["1", "1.1", "1.5", "2", "4", "6"])
        axis.minorticks_off()
        axis.set_ylabel("largest / mean load of a rank")
    axes[0].set_xscale("symlog", linthresh=100.0)
    axes[0].set_xlim(left=-10.0)
    axes[0].set_xlabel("weights fetched a plan (MB)")
    axes[1].set_xlabel("modelled time of a layer (ms)")
    axes[1].legend(fontsize=6, ncol=2, loc="lower right")
    finish(figure, axes, path)


def main():
    words = sys.argv[1:]
    options = {"--best": "6", "--lines": ""}
    folders = []
    while words:
        word = words.pop(0)
        if word in options and words:
            options[word] = words.pop(0)
        else:
            folders.append(word)
    if len(folders) != 1 or folders[0].startswith("-") or not options["--best"].isdigit():
        sys.exit(__doc__)
    folder = Path(folders[0])
    summary = read(folder / "summary.csv", ("mean", "p99", "worst", "step_ms", "fetched_mb"))
    series = read(folder / "series.csv", ("record", "imbalance"))
    if not summary:
        sys.exit(f"{folder} has no results: nothing to draw")
    # Rules that know the very load they serve are no planners to compare with at a lag.
    best = [row for row in best_of_each_planner(summary) if row["scheduler"] not in ("nearest_copy", "its own map")]
    best = best[: int(options["--best"])]
    known = {row["key"] for row in summary}
    if options["--lines"]:
        lines = [tuple(part.strip() for part in item.rsplit("+", 1)) for item in options["--lines"].split(",")]
        unknown = [item for item in lines if item not in known]
        if unknown:
            sys.exit(f"--lines: {unknown[0]} is not in {folder / 'summary.csv'}")
    else:
        lines = [("static", "sole_replica"), ("transfer (FlexMoE)", "equal_split"), ("pq (LAER)", "local_node_even")]
        lines += [("global (EPLB)", "equal_split"), ("pq (LAER)", "min_max_flow")]
        lines = [key for key in lines if key in known] + [row["key"] for row in best[:1] if row["key"] not in lines]
    draw_bars(summary, best, folder / "imbalance.png")
    draw_lines(series, lines, folder / "over_time.png")
    draw_cost(summary, folder / "cost.png")


if __name__ == "__main__":
    main()
