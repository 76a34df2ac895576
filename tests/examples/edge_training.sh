#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Training under queues: wrong input gets exit code 2 and a message that says what to do, IDX files are read, results do
# not depend on the number of threads, and Ctrl-C ends it with the finished runs.
# usage: edge_training.sh PROGRAM SCRATCH_FOLDER
set -u
. "$(dirname "${BASH_SOURCE[0]}")/wrong_input.sh"
mkdir "$scratch/empty" "$scratch/packed" "$scratch/data"
printf '\037\213\010' >"$scratch/packed/train-images-idx3-ubyte"
expect "--data DIR is missing" --slots 10
expect "--data and --synthetic exclude each other" --synthetic --data "$scratch"
expect "empty/train-images-idx3-ubyte: No such file" --data "$scratch/empty"
expect "is compressed; unpack it with gunzip" --data "$scratch/packed"
expect "unknown strategy 'none'; known: random, top_k" --quick --strategies none
expect "--strategies names 'convex' twice" --quick --strategies convex,linear,convex
expect "--strategies needs a name" --quick --strategies ""
expect "--slots needs a number >= 1, not '0'" --quick --slots 0
expect "--slots needs a number >= 1, not 'many'" --quick --slots many
expect "--seeds needs a number >= 1, not '-1'" --quick --seeds -1
expect "--test needs a number >= 1, not 'some'" --quick --test some
expect "--rate needs a number >= 0, not '-0.1'" --quick --rate -0.1
expect "--v needs a finite number" --quick --v inf
expect "--mu needs a number >= 0, not 'nan'" --quick --mu nan
expect "at most 100 million tokens" --quick --slots 1000000000
expect "--hidden must be at most" --quick --hidden 100000000
expect "V times mu is too large" --quick --v 1e200 --mu 1e200
expect "--threads needs a value" --quick --threads
expect "unknown option '--slot'" --quick --slot 4
[[ -e $scratch/out ]] && fail "results were written"
"$program" --help | grep -q -- "--sweep-v" || fail "--help"
mkdir -p "$scratch/taken/runs.csv"
for folder in "$scratch/taken" "$scratch/packed/train-images-idx3-ubyte/out"; do
  printed=$("$program" --quick --plain --out "$folder" 2>&1)
  code=$?
  [[ $code -eq 2 && $printed == *"--out $folder: "* && $printed != *"training images"* ]] || fail "$folder must be tried before training: code $code, $printed"
done

# IDX files: 60 black 4 x 4 images of class 7. The biases learn the class.
idx() {
  head -c "$2" /dev/zero >"$scratch/zeros"
  tr '\000' "$3" <"$scratch/zeros"
}
for set in train t10k; do
  { printf '\000\000\010\003\000\000\000\074\000\000\000\004\000\000\000\004' && idx pixels 960 '\000'; } >"$scratch/data/$set-images-idx3-ubyte"
  { printf '\000\000\010\001\000\000\000\074' && idx labels 60 '\007'; } >"$scratch/data/$set-labels-idx1-ubyte"
done
small=(--plain --data "$scratch/data" --slots 8 --arrivals 20 --hidden 4 --every 3 --seeds 2)
run() { "$program" "${small[@]}" --out "$scratch/$1" "${@:2}" >"$scratch/$1.txt" 2>&1 || fail "$1: $(cat "$scratch/$1.txt")"; }
run one --threads 1 --strategies all --sweep-v --test all
run two --threads 3 --strategies all --sweep-v
awk -F, 'NR == 1 { columns = NF } NF != columns { bad = 1 } ($1 == "top_k" || $1 == "convex") && $5 != 1 { bad = 1 } END { exit bad || NR != 1 + 2 * (10 + 6) }' "$scratch/one/runs.csv" ||
  fail "runs that follow the gate must learn the only class: $(cat "$scratch/one/runs.csv")"
awk -F, 'NR == 1 { columns = NF } NF != columns { bad = 1 } $8 != "" && NR > 1 && $1 != 3 && $1 != 6 && $1 != 8 { bad = 1 } END { exit bad || NR != 1 + 8 * 32 }' "$scratch/one/curves.csv" ||
  fail "curves.csv must have a row a slot, and accuracies in slots 3, 6 and 8"
[[ $(wc -l <"$scratch/one/summary.csv") -eq 17 ]] || fail "summary.csv must have a row for each strategy and V"
# Everything but the processor time, the last column.
cmp <(sed 's/,[^,]*$//' "$scratch/one/runs.csv") <(sed 's/,[^,]*$//' "$scratch/two/runs.csv") || fail "runs.csv depends on the threads"
cmp "$scratch/one/curves.csv" "$scratch/two/curves.csv" || fail "curves.csv depends on the threads"
# No arrivals at all are legal.
run nothing --arrivals 0 --strategies convex,top_k --threads 1
awk -F, 'NR > 1 && ($4 != 0 || $6 != 0) { exit 1 }' "$scratch/nothing/runs.csv" || fail "no arrivals, nothing completed"

# Without convex there is nothing to compare with, and one run has no interval.
run alone --strategies top_k --seeds 1
grep -q '^top_k,.*,,$' "$scratch/alone/summary.csv" || fail "no difference to runs that were not made: $(cat "$scratch/alone/summary.csv")"
grep -Eq '^top_k +1 +100\.00 +- ' "$scratch/alone.txt" || fail "no interval of one run: $(cat "$scratch/alone.txt")"

# Ctrl-C: the first runs are long, so that the signal always meets them.
mkfifo "$scratch/pipe"
"$program" --quick --plain --slots 200000 --test 1 --every 200000 --strategies random,convex --threads 2 --out "$scratch/stopped" >"$scratch/pipe" 2>&1 &
pid=$!
printed=""
while IFS= read -r line; do
  printed+="$line"$'\n'
  [[ $line == *"training images"* ]] && kill -INT "$pid"
done <"$scratch/pipe"
wait "$pid"
code=$?
[[ $code -eq 130 ]] || fail "Ctrl-C gave code $code instead of 130: $printed"
for file in summary runs curves; do
  [[ $(wc -l <"$scratch/stopped/$file.csv") -eq 1 ]] || fail "$file.csv must hold its head and no unfinished run"
done
[[ $failures -eq 0 ]] && echo "all messages and numbers are right"
exit $((failures > 0))
