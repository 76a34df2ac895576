#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# The trace replay: wrong input gets exit code 2 and a message that says what to do, and a CSV trace gives the numbers
# that follow from it by hand.
# usage: plan_trace.sh PROGRAM SCRATCH_FOLDER
set -u
. "$(dirname "${BASH_SOURCE[0]}")/wrong_input.sh"
: >"$scratch/empty.csv"
printf 'record,layer,rank,expert,copies\n0,0,0,0,5\n0,0,0,1\n' >"$scratch/short.csv"
printf '0,0,0,0,-5\n' >"$scratch/negative.csv"
printf '0,0,0,0,5\n0,0,0,one,5\n' >"$scratch/word.csv"
printf '0,0,0,0,5,6\n' >"$scratch/long.csv"
printf '2000000000,0,2000000000,0,5\n' >"$scratch/huge.csv"
printf '0,0,0,1,5\n0,0,0,0,1\n0,0,0,1,6\n' >"$scratch/twice.csv"
printf '0,0,0,1,2147483647\n0,0,1,1,1\n' >"$scratch/many.csv"
printf 'not NumPy' >"$scratch/wrong.npy"
expect "missing.csv: cannot be opened" --trace "$scratch/missing.csv"
expect "missing.npy" --trace "$scratch/missing.npy"
expect "wrong.npy" --trace "$scratch/wrong.npy"
expect "holds no loads" --trace "$scratch/empty.csv"
expect "short.csv:3: expected record,layer,rank,expert,copies, not '0,0,0,1'" --trace "$scratch/short.csv"
expect "negative.csv:1: expected" --trace "$scratch/negative.csv"
expect "word.csv:2: expected" --trace "$scratch/word.csv"
expect "long.csv:1: expected" --trace "$scratch/long.csv"
expect "are the columns in order?" --trace "$scratch/huge.csv"
expect "two lines begin with 0,0,0,1" --trace "$scratch/twice.csv"
expect "record 0, layer 0: expert 1 has 2147483648 copies; schedules count below 2^31" --trace "$scratch/many.csv"
expect "--slots-per-rank is too small: 16 experts need a slot each" --quick --slots-per-rank 1
expect "--first and --lag must be below that" --quick --records 5 --first 5
expect "--first and --lag must be below that" --quick --records 5 --first 0 --lag 5
expect "--only names no composition" --quick --only nothing_of_that_name
expect "--lag needs a number >= 0, not '-1'" --quick --lag -1
expect "--stride needs a number >= 1, not '0'" --quick --stride 0
expect "--slots-per-rank needs a number >= 1, not 'four'" --quick --slots-per-rank four
expect "--rank-gbps needs a number >= 0.001, not '0'" --quick --rank-gbps 0
expect "--trace needs a value" --quick --trace
expect "unknown option '--slot'" --quick --slot 4
"$program" --help | grep -q -- "--slots-per-rank" || fail "--help"

# Two records of two layers, two ranks, four experts; a rank without copies has no lines. Plain expert parallelism has
# experts 0 and 1 on rank 0. Record 1, layer 0: 30 + 10 copies on rank 0 of 60, largest / mean 4/3; layer 1: 20 of 20: 2.
cat >"$scratch/loads.csv" <<'CSV'
record,layer,rank,expert,copies
0,0,0,0,1
0,1,1,3,1
1,0,0,0,30
1,0,1,1,10
1,0,0,2,15
1,0,1,3,5
1,1,0,0,20
CSV
run() { "$program" --plain --trace "$scratch/loads.csv" --ranks-per-node 1 --slots-per-rank 3 --out "$scratch/$1" "${@:2}" >"$scratch/$1.txt" 2>&1; }
run static --lag 1 --first 1 --only static || fail "a CSV trace: $(cat "$scratch/static.txt")"
[[ $(wc -l <"$scratch/static/summary.csv") -eq 2 && $(wc -l <"$scratch/static/series.csv") -eq 2 ]] || fail "one composition and one record"
awk -F, 'NR == 2 { exit !($4 > 1.6666 && $4 < 1.6667) }' "$scratch/static/series.csv" || fail "mean over the layers of record 1 must be 5/3"
awk -F, 'NR == 2 { exit !($3 > 1.6666 && $3 < 1.6667 && $5 == 2 && $12 == 2) }' "$scratch/static/summary.csv" || fail "mean 5/3, worst 2, two loads judged"

# The same loads with lines in another order, a Windows line end and no heading give the same files.
tail -n +2 "$scratch/loads.csv" | sort -r | sed 's/$/\r/' >"$scratch/sorted.csv"
"$program" --plain --trace "$scratch/sorted.csv" --ranks-per-node 1 --slots-per-rank 3 --out "$scratch/sorted" --lag 1 --first 1 --only static >/dev/null ||
  fail "a sorted CSV trace"
cmp "$scratch/static/series.csv" "$scratch/sorted/series.csv" || fail "the order of lines must not matter"

# Every line of every file has the columns of its heading: names that hold commas are in quotes.
run all --lag 0 --first 0 || fail "all compositions on a tiny trace: $(cat "$scratch/all.txt")"
for file in summary series; do
  sed 's/"[^"]*"/name/g' "$scratch/all/$file.csv" | awk -F, 'NR == 1 { columns = NF } NF != columns { print; bad = 1 } END { exit bad || NR < 40 }' ||
    fail "$file.csv has ragged lines"
done

# Ctrl-C ends it with code 130 and the files of what was done. The trace is long enough that the signal always meets it.
mkfifo "$scratch/pipe"
"$program" --plain --made-ranks 8 --made-experts 16 --made-copies 64 --records 20000 --layers 1 --out "$scratch/stopped" >"$scratch/pipe" 2>&1 &
pid=$!
while IFS= read -r line; do
  [[ $line == *" static "*" s" ]] && kill -INT "$pid"
done <"$scratch/pipe"
wait "$pid"
code=$?
[[ $code -eq 130 ]] || fail "Ctrl-C gave code $code instead of 130"
[[ $(wc -l <"$scratch/stopped/summary.csv") -ge 2 ]] || fail "Ctrl-C left no results"
[[ $failures -eq 0 ]] && echo "all messages and numbers are right"
exit $((failures > 0))
