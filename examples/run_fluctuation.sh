#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Train one small language model with eight rules of routing and three seeds, and follow where tokens are routed.
# usage: examples/run_fluctuation.sh [OPTION OF THE PROGRAM...]     --help shows those options
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../tests/support/setup.sh"
. "$root/examples/common/king_james.sh"

folder=$root/build/examples
out=$folder/fluctuation_out
given_text=no
arguments=("$@")
for ((i = 0; i < $#; ++i)); do
  case ${arguments[i]} in
    --text | --quick | --help) given_text=yes ;;
    --out) out=${arguments[i + 1]:-} ;;
  esac
done

need "${build_packages[@]}" python3-matplotlib
[ "$given_text" = yes ] || need bible-kjv bible-kjv-text
# This machine's instructions: the program runs where it is built.
configure "$folder" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS=-march=native -DFAIRLEAD_BUILD_TESTS=OFF \
  -DFAIRLEAD_BUILD_BENCH=OFF -DFAIRLEAD_BUILD_DOCS=OFF -DFAIRLEAD_ENABLE_CUDA=OFF
build "$folder" routing_fluctuation

if [ "$given_text" = no ]; then
  write_king_james "$folder/king_james.txt" || exit 2
  arguments=(--text "$folder/king_james.txt" "${arguments[@]}")
fi

say "training"
trap : INT # Ctrl-C is for the program: it ends with the runs it has, and the plot is still drawn
code=0
"$folder/examples/routing_fluctuation" --out "$out" "${arguments[@]}" || code=$?
trap - INT
case " ${arguments[*]} " in *" --help "*) exit "$code" ;; esac
[ "$code" = 0 ] || [ "$code" = 130 ] || exit "$code"

# Debian's Python holds Debian's matplotlib; another python3 may come first in PATH.
python=/usr/bin/python3
[ -x "$python" ] || python=python3
"$python" "$root/examples/plot_fluctuation.py" "$out"
say "done"
printf '%s\n' "table: $out/summary.csv" "runs:  $out/runs.csv" "plots: $out/settled.png, $out/loads.png, $out/perplexity.png"
exit "$code"
