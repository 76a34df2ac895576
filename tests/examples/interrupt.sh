#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Ctrl-C ends the example cleanly: table, CSV files, exit code 130.
# usage: interrupt.sh PROGRAM OUT
set -u
program=$1 out=$2
fail() { echo "FAILED: $*"; exit 1; }

rm -rf "$out"
mkdir -p "$out"
mkfifo "$out/pipe"
# All compositions are asked for; the first one would take days, so the signal always meets it.
"$program" --quick --plain --steps 1000000000 --seconds 0 --out "$out" >"$out/pipe" 2>&1 &
pid=$!
printed=""
signalled=no
while IFS= read -r line; do
  printed+="$line"$'\n'
  if [[ $signalled == no && $line == *"step 1/"* ]]; then
    kill -INT "$pid"
    signalled=yes
  fi
done <"$out/pipe"
wait "$pid"
code=$?

echo "$printed"
[[ $signalled == yes ]] || fail "training did not start"
[[ $code -eq 130 ]] || fail "exit code $code instead of 130"
[[ $printed == *"validation"*"(interrupted)"* ]] || fail "no table of what is done"
[[ $(wc -l <"$out/curves.csv") -ge 2 ]] || fail "curves.csv has no step"
[[ $(wc -l <"$out/summary.csv") -eq 2 ]] || fail "summary.csv does not hold exactly the interrupted composition"
[[ $(tail -n 1 "$out/summary.csv") == *,1 ]] || fail "summary.csv does not say that it was interrupted"
echo "ended cleanly"
