#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Wrong input gets exit code 2 and a message that says what to do.
# usage: errors.sh PROGRAM SCRATCH_FOLDER
set -u
program=$1 scratch=$2
rm -rf "$scratch"
mkdir -p "$scratch"
: >"$scratch/empty.txt"
printf 'too short\n' >"$scratch/short.txt"

failures=0
# expect TEXT arguments...
expect() {
  local text=$1 printed code
  shift
  printed=$("$program" --out "$scratch/out" "$@" 2>&1)
  code=$?
  if [[ $code -ne 2 || $printed != *"$text"* ]]; then
    echo "FAILED: '$*' gave code $code and '$printed'; expected code 2 and '$text'"
    failures=$((failures + 1))
  fi
}
expect "No such file" --text "$scratch/missing.txt"
expect "is empty" --text "$scratch/empty.txt"
expect "it is a folder" --text "$scratch"
expect "only 3 words" --text "$scratch/short.txt"
expect "--text FILE is missing" --steps 10
expect "--steps needs a number >= 1, not 'many'" --quick --steps many
expect "--steps needs a number >= 1, not '0'" --quick --steps 0
expect "--experts needs a value" --quick --experts
expect "unknown option '--rnaks'" --quick --rnaks 4
expect "unknown composition 'none'" --quick --compositions none
[[ -e $scratch/out ]] && { echo "FAILED: results were written"; failures=$((failures + 1)); }
"$program" --help | grep -q -- "--compositions" || { echo "FAILED: --help"; failures=$((failures + 1)); }
[[ $failures -eq 0 ]] && echo "all messages are right"
exit $((failures > 0))
