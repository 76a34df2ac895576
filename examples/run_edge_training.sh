#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Train a mixture of experts on Fashion-MNIST images that arrive at servers with queues and energy budgets, once with each
# strategy of routing, and plot the result.
# usage: examples/run_edge_training.sh [OPTION OF THE PROGRAM...]     --help shows those options
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../tests/support/setup.sh"

folder=$root/build/examples
out=$folder/edge_training_out
given_data=no
arguments=("$@")
for ((i = 0; i < $#; ++i)); do
  case ${arguments[i]} in
    --data | --synthetic | --quick | --help | -h) given_data=yes ;;
    --out) out=${arguments[i + 1]:-} ;;
  esac
done

need "${build_packages[@]}" python3-matplotlib
[ "$given_data" = yes ] || need dataset-fashion-mnist
# This machine's instructions: the program runs where it is built.
configure "$folder" -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS=-march=native -DFAIRLEAD_BUILD_TESTS=OFF \
  -DFAIRLEAD_BUILD_BENCH=OFF -DFAIRLEAD_BUILD_DOCS=OFF -DFAIRLEAD_ENABLE_CUDA=OFF
build "$folder" edge_training

if [ "$given_data" = no ]; then
  source=/usr/share/datasets/fashion-mnist
  data=$folder/fashion_mnist
  [ -d "$source" ] || { echo "error: $source is missing: install dataset-fashion-mnist, or use --data DIR" >&2; exit 2; }
  mkdir -p "$data"
  for file in {train,t10k}-{images-idx3,labels-idx1}-ubyte; do
    [ -f "$data/$file" ] && continue
    gunzip -c "$source/$file.gz" >"$data/$file.part"
    mv "$data/$file.part" "$data/$file"
  done
  arguments=(--data "$data" "${arguments[@]}")
fi

say "training"
trap : INT # Ctrl-C is for the program: it ends with the runs it has, and the plot is still drawn
code=0
"$folder/examples/edge_training" --out "$out" "${arguments[@]}" || code=$?
trap - INT
case " ${arguments[*]} " in *" --help "* | *" -h "*) exit "$code" ;; esac
[ "$code" = 0 ] || [ "$code" = 130 ] || exit "$code"

# Debian's Python holds Debian's matplotlib; another python3 may come first in PATH.
python=/usr/bin/python3
[ -x "$python" ] || python=python3
"$python" "$root/examples/plot_edge_training.py" "$out" || [ "$code" = 130 ] # so early that there is nothing to draw
say "done"
printf '%s\n' "table: $out/summary.csv" "runs:  $out/runs.csv" "plots: $out/accuracy.png, $out/backlog.png"
[ ! -f "$out/sweep.png" ] || echo "       $out/sweep.png"
exit "$code"
