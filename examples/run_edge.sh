#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Simulate servers with queues and energy budgets under every routing strategy, and plot the result.
# usage: examples/run_edge.sh [OPTION OF THE PROGRAM...]     --help shows those options
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../tests/support/setup.sh"
. "$root/examples/common/run_program.sh"

out=$root/build/examples/edge_out
for ((i = 1; i <= $#; ++i)); do
  if [ "${!i}" = --out ]; then
    next=$((i + 1))
    out=${!next:-}
  fi
done

build_example edge_simulation

say "simulating"
run_example edge_simulation --out "$out" "$@"
plot_example plot_edge.py "$out"
say "done"
printf '%s\n' "tables: $out/tables.md" "runs: $out/summary.csv" "lines: $out/series.csv" \
  "plots: backlog.png, pareto.png and (after a sweep) sweep.png in $out"
exit "$code"
