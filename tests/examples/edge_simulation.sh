#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# The edge simulation: wrong input gets exit code 2 and a message that says what to do, all files have the lines they must have,
# runs repeat whatever the number of threads, and Ctrl-C ends with what there is.
# usage: edge_simulation.sh PROGRAM SCRATCH_FOLDER
set -u
. "$(dirname "${BASH_SOURCE[0]}")/wrong_input.sh"
expect "--fan-out 11: a token needs distinct servers, and --servers gives 10" --quick --fan-out 11
expect "--servers needs a number >= 1, not '0'" --quick --servers 0
expect "--loads needs numbers >= 0, not '-3'" --quick --loads 390,-3
expect "--loads needs numbers >= 0, not 'inf'" --quick --loads inf
expect "--loads needs numbers" --quick --loads ""
expect "--skews needs numbers >= 0, not 'much'" --quick --skews much
expect "--budgets needs two energies above zero" --quick --budgets 0,9.5
expect "--budgets needs two energies above zero" --quick --budgets 1.5
expect "--caps needs two energies above zero" --quick --caps 3,0
expect "--v needs a number >= 0, not '-1'" --quick --v -1
expect "--mu needs a number >= 0, not 'nan'" --quick --mu nan
expect "--w needs a finite number" --quick --w inf
expect "unknown strategy 'greedy'; there are random top_k" --quick --strategies convex,greedy
expect "--ties needs one of id rotating seeded, not 'coin'" --quick --ties coin
expect "--baseline-speed needs one of closed_form average fixed full_frequency, not 'fast'" --quick --baseline-speed fast
expect "--sweep-v needs numbers >= 0, not 'many'" --quick --sweep-v many
expect "too many copies for one run" --quick --loads 1e9
expect "too many copies for one run" --quick --slots 100000000
expect "--slots needs a number >= 1, not '0'" --quick --slots 0
expect "--slots needs a value" --quick --slots
expect "--servers must be at most 1000" --quick --servers 1000000000
expect "--seeds must be at most 100000" --quick --seeds 1000000000000
expect "--skews must be at most 1e30" --quick --skews 1e300
expect "V times mu is too large" --quick --v 1e200 --mu 1e200
expect "V times mu is too large" --quick --sweep-v 1e200 --mu 1e200
expect "unknown option '--load'" --quick --load 4
: >"$scratch/file"
printed=$("$program" --quick --plain --out "$scratch/file/out" 2>&1) && fail "a folder inside a file"
mkdir -p "$scratch/taken/tables.md"
printed=$("$program" --quick --plain --out "$scratch/taken" 2>&1) && fail "a folder in the place of a file"
[[ $printed == *"tables.md cannot be written there"* && $printed != *" of "*" runs"* ]] || fail "files must be tried before the runs: $printed"
[[ -e $scratch/out ]] && fail "results were written"
"$program" --help | grep -q -- "--baseline-speed" || fail "--help"

# Two strategies over two settings and two seeds; the sweep has one of them with two values of V.
small=(--plain --slots 40 --seeds 2 --loads 200,500 --skews 0.5 --sweep-v 1,50 --strategies random,convex)
"$program" "${small[@]}" --threads 1 --out "$scratch/one" >"$scratch/one.txt" 2>&1 || fail "a small run: $(cat "$scratch/one.txt")"
"$program" "${small[@]}" --threads 3 --out "$scratch/three" >"$scratch/three.txt" 2>&1 || fail "three threads: $(cat "$scratch/three.txt")"
[[ $(wc -l <"$scratch/one/summary.csv") -eq 13 ]] || fail "summary.csv must have a line a run and strategy"
[[ $(wc -l <"$scratch/one/series.csv") -eq 481 ]] || fail "series.csv must have a line a slot of these short runs"
for file in summary series; do
  awk -F, 'NR == 1 { columns = NF } NF != columns { print; bad = 1 } END { exit bad }' "$scratch/one/$file.csv" || fail "$file.csv has ragged lines"
done
# All but the times must be equal.
cmp "$scratch/one/series.csv" "$scratch/three/series.csv" || fail "the number of threads must not matter"
cut -d, -f1-22 "$scratch/one/summary.csv" >"$scratch/one.csv"
cut -d, -f1-22 "$scratch/three/summary.csv" >"$scratch/three.csv"
cmp "$scratch/one.csv" "$scratch/three.csv" || fail "the number of threads must not matter"
# Both strategies see the same arrivals; a bound is there below the load that anything carries (453.6), and not beyond.
awk -F, 'NR > 1 { key = $1 "," $2 "," $3 "," $4; if (key in seen && seen[key] != $9) bad = 1; seen[key] = $9 }
         NR > 1 && (($1 < 453) != ($19 != "")) { bad = 1 } END { exit bad }' "$scratch/one/summary.csv" || fail "arrivals or bounds"
grep -q "beyond the 453.6 tokens" "$scratch/one.txt" || fail "the table must say why there is no bound"
# Baselines whose servers run at the highest frequency serve E_max / 0.18 J copies: 500 a slot in all.
"$program" --plain --slots 300 --seeds 1 --loads 390 --skews 0 --sweep-v none --strategies random,convex --baseline-speed full_frequency --out "$scratch/full" >/dev/null ||
  fail "the highest frequency"
awk -F, '$5 == "random" { exit !($10 / $8 < 500.001 && $10 / $8 > 490) }' "$scratch/full/summary.csv" || fail "copies a slot at the highest frequency"
# No arrivals, one server.
"$program" --plain --slots 20 --seeds 1 --loads 0 --skews 0 --sweep-v none --out "$scratch/none" >/dev/null || fail "no arrivals"
"$program" --plain --slots 20 --seeds 1 --loads 50 --skews 0 --sweep-v none --servers 1 --fan-out 1 --out "$scratch/alone" >/dev/null || fail "one server"

# Ctrl-C: short runs are through, all of them would take days.
mkfifo "$scratch/pipe"
"$program" --plain --slots 100 --loads 50 --skews 0 --sweep-v none --seeds 100000 --threads 2 --out "$scratch/stopped" >"$scratch/pipe" 2>&1 &
pid=$!
printed=""
signalled=no
while IFS= read -r line; do
  printed+="$line"$'\n'
  [[ $signalled == no && $line == *" of 100000 runs"* ]] && kill -INT "$pid" && signalled=yes
done <"$scratch/pipe"
wait "$pid"
code=$?
[[ $code -eq 130 ]] || fail "Ctrl-C gave code $code instead of 130: $printed"
[[ $printed == *"load 50, skew 0.00"* ]] || fail "Ctrl-C left no table: $printed"
[[ $(wc -l <"$scratch/stopped/summary.csv") -ge 11 ]] || fail "Ctrl-C left no results"
[[ $failures -eq 0 ]] && echo "all messages and numbers are right"
exit $((failures > 0))
