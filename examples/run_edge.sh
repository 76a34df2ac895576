#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Simulate servers with queues and energy budgets under every routing strategy, and plot the result.
# usage: examples/run_edge.sh [OPTION OF THE PROGRAM...]     --help shows those options
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../tests/support/setup.sh"

folder=$root/build/examples
out=$folder/edge_out
for ((i = 1; i <= $#; ++i)); do
  if [ "${!i}" = --out ]; then
    next=$((i + 1))
    out=${!next:-}
  fi
done

need "${build_packages[@]}" python3-matplotlib
# This machine's instructions: the program runs where it is built.
configure "$folder" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS=-march=native -DFAIRLEAD_BUILD_TESTS=OFF \
  -DFAIRLEAD_BUILD_BENCH=OFF -DFAIRLEAD_BUILD_DOCS=OFF -DFAIRLEAD_ENABLE_CUDA=OFF
build "$folder" edge_simulation

say "simulating"
trap : INT # Ctrl-C is for the program: it ends with what it has, and the plot is still drawn
code=0
"$folder/examples/edge_simulation" --out "$out" "$@" || code=$?
trap - INT
case " $* " in *" --help "* | *" -h "*) exit "$code" ;; esac
[ "$code" = 0 ] || [ "$code" = 130 ] || exit "$code"

# Debian's Python holds Debian's matplotlib; another python3 may come first in PATH.
python=/usr/bin/python3
[ -x "$python" ] || python=python3
"$python" "$root/examples/plot_edge.py" "$out" || [ "$code" = 130 ] # so early that there is nothing to draw
say "done"
printf '%s\n' "tables: $out/tables.md" "runs: $out/summary.csv" "lines: $out/series.csv" \
  "plots: backlog.png, pareto.png and (after a sweep) sweep.png in $out"
exit "$code"
