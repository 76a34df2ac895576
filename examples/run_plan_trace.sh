#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Replay expert loads through every planner with every scheduler that understands its replicas, and plot the result.
# usage: examples/run_plan_trace.sh [OPTION OF THE PROGRAM...]     --help shows those options
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../tests/support/setup.sh"
. "$root/examples/common/run_program.sh"

out=$root/build/examples/plan_out
for ((i = 1; i <= $#; ++i)); do
  if [ "${!i}" = --out ]; then
    next=$((i + 1))
    out=${!next:-}
  fi
done

build_example plan_trace

say "replaying"
run_example plan_trace --out "$out" "$@"
plot_example plot_plan.py "$out"
say "done"
printf '%s\n' "table: $out/summary.csv" "lines: $out/series.csv" "plots: $out/imbalance.png, $out/over_time.png, $out/cost.png"
exit "$code"
