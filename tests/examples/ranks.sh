#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# The loss curve does not depend on the number of ranks, but for rounding: what data and expert parallelism promise.
# And a run repeats bit for bit.
# (The switch composition has a capacity and a loss for each rank, so it may differ.)
# usage: ranks.sh PROGRAM OUT RANKS...
set -eu
program=$1 out=$2
shift 2
common=(--quick --compositions deepseek,mixtral --steps 15 --seconds 0)
rm -rf "$out"
run() { "$program" "${common[@]}" --ranks "$1" --out "$out/$1" >/dev/null || [ -s "$out/$1/curves.csv" ]; }
run 1
for ranks in "$@"; do
  run "$ranks"
  paste -d, "$out/1/curves.csv" "$out/$ranks/curves.csv" | awk -F, -v ranks="$ranks" '
    NR == 1 { next }
    {
      difference = ($5 - $12) / $5
      if (difference < 0) difference = -difference
      if (difference > largest) largest = difference
      if ($1 != $8 || $2 != $9) mismatch = 1
      rows++
    }
    END {
      printf "%d ranks: %d losses, largest relative difference %g\n", ranks, rows, largest
      exit !(rows == 30 && !mismatch && largest < 5e-4)
    }'
done

# Everything but the clock (column 4), all digits that are written.
"$program" "${common[@]}" --ranks "$1" --out "$out/again" >/dev/null || [ -s "$out/again/curves.csv" ]
cut -d, -f1-3,5- "$out/$1/curves.csv" >"$out/first.csv"
cut -d, -f1-3,5- "$out/again/curves.csv" >"$out/second.csv"
cmp "$out/first.csv" "$out/second.csv"
echo "$1 ranks: a second run is the same"
