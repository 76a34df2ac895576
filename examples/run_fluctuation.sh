#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Train one small language model with eight rules of routing and three seeds, and follow where tokens are routed.
# usage: examples/run_fluctuation.sh [OPTION OF THE PROGRAM...]     --help shows those options
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../tests/support/setup.sh"
. "$root/examples/common/run_program.sh"
. "$root/examples/common/king_james.sh"

out=$root/build/examples/fluctuation_out
given_text=no
arguments=("$@")
for ((i = 0; i < $#; ++i)); do
  case ${arguments[i]} in
    --text | --quick | --help) given_text=yes ;;
    --out) out=${arguments[i + 1]:-} ;;
  esac
done

[ "$given_text" = yes ] || need bible-kjv bible-kjv-text
build_example routing_fluctuation

if [ "$given_text" = no ]; then
  write_king_james "$folder/king_james.txt" || exit 2
  arguments=(--text "$folder/king_james.txt" "${arguments[@]}")
fi

say "training"
run_example routing_fluctuation --out "$out" "${arguments[@]}"
plot_example plot_fluctuation.py "$out"
say "done"
printf '%s\n' "table: $out/summary.csv" "runs:  $out/runs.csv" "plots: $out/settled.png, $out/loads.png, $out/perplexity.png"
exit "$code"
