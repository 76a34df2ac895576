#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Ctrl-C ends the example of many runs cleanly: files of what is finished, exit code 130.
# usage: interrupt_runs.sh PROGRAM OUT
set -u
program=$1 out=$2
fail() { echo "FAILED: $*"; exit 1; }

rm -rf "$out"
mkdir -p "$out"
mkfifo "$out/pipe"
# The runs would take days, so the signal always meets them.
"$program" --quick --plain --steps 1000000000 --out "$out" >"$out/pipe" 2>&1 &
pid=$!
printed=""
while IFS= read -r line; do
  printed+="$line"$'\n'
  [[ $line == *"training words"* ]] && kill -INT "$pid"
done <"$out/pipe"
wait "$pid"
code=$?

echo "$printed"
[[ $code -eq 130 ]] || fail "exit code $code instead of 130"
[[ $printed == *"perplexity"* ]] || fail "no table"
for file in summary runs distribution curves; do
  [[ $(wc -l <"$out/$file.csv") -eq 1 ]] || fail "$file.csv must hold its head and no unfinished run"
done
echo "ended cleanly"
