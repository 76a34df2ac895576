#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Train a mixture of experts on Fashion-MNIST images that arrive at servers with queues and energy budgets, once with each
# strategy of routing, and plot the result.
# usage: examples/run_edge_training.sh [OPTION OF THE PROGRAM...]     --help shows those options
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../tests/support/setup.sh"
. "$root/examples/common/run_program.sh"

out=$root/build/examples/edge_training_out
given_data=no
arguments=("$@")
for ((i = 0; i < $#; ++i)); do
  case ${arguments[i]} in
    --data | --synthetic | --quick | --help | -h) given_data=yes ;;
    --out) out=${arguments[i + 1]:-} ;;
  esac
done

[ "$given_data" = yes ] || need dataset-fashion-mnist
build_example edge_training

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
run_example edge_training --out "$out" "${arguments[@]}"
plot_example plot_edge_training.py "$out"
say "done"
printf '%s\n' "table: $out/summary.csv" "runs:  $out/runs.csv" "plots: $out/accuracy.png, $out/backlog.png"
[ ! -f "$out/sweep.png" ] || echo "       $out/sweep.png"
exit "$code"
