#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Train a small Mixture-of-Experts language model on the King James text, with three different MoE layers.
# usage: examples/run.sh [--mpi N] [OPTION OF THE PROGRAM...]     examples/run.sh --help shows those options
#   --mpi N   ranks are N processes under mpiexec instead of threads of one process
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../tests/support/setup.sh"
. "$root/examples/common/king_james.sh"

launcher=()
program=language_model
if [ "${1:-}" = --mpi ]; then
  # After Ctrl-C Open MPI waits this long, asks its processes to end, and waits as long again before it kills them;
  # the last validation does not fit into the second that is its default.
  launcher=(mpiexec --allow-run-as-root --oversubscribe --mca odls_base_sigkill_timeout 5 -n "${2:?--mpi needs a number}")
  program=language_model_mpi
  shift 2
  [ -t 1 ] || set -- --plain "$@" # mpiexec shows its processes a terminal whatever its own output is
fi
folder=$root/build/examples
out=$folder/language_model_out
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
build "$folder" "$program"

if [ "$given_text" = no ]; then
  text=$folder/king_james.txt
  write_king_james "$text" || exit 2
  arguments=(--text "$text" "${arguments[@]}")
fi

say "training"
touch "$folder/training_started"
interrupted=no
trap 'interrupted=yes' INT # Ctrl-C is for the program: it ends with what it has, and the plot is still drawn
code=0
"${launcher[@]}" "$folder/examples/$program" --out "$out" "${arguments[@]}" || code=$?
trap - INT
[ "$interrupted" = no ] || [ "$code" = 0 ] || [ ! "$out/summary.csv" -nt "$folder/training_started" ] || code=130 # mpiexec has a code of its own
case " ${arguments[*]} " in *" --help "*) exit "$code" ;; esac
[ "$code" = 0 ] || [ "$code" = 130 ] || exit "$code"

# Debian's Python holds Debian's matplotlib; another python3 may come first in PATH.
python=/usr/bin/python3
[ -x "$python" ] || python=python3
"$python" "$root/examples/plot.py" "$out/curves.csv" "$out/curves.png"
say "done"
printf '%s\n' "table:  $out/summary.csv" "curves: $out/curves.csv" "plot:   $out/curves.png"
exit "$code"
