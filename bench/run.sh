#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Install what is missing, build and run the benches: bench/run.sh [FILTER] [--quick] [--json FILE] [--repetitions N]
#   FILTER   a module (route) or the start of a name (route/top_k); default: every module
#   --quick  under a minute a module: shorter measurements, largest cases left out
#   --json   write all results with their conditions to FILE; bench/plot.py draws it
set -euo pipefail

filter="" quick="" json="" repetitions=1
while (($#)); do
  case "$1" in
    --quick) quick=1 ;;
    --json) json=${2:?--json needs a file name}; shift ;;
    --repetitions) repetitions=${2:?--repetitions needs a number}; shift ;;
    -h | --help) sed -n '3,6s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
    -*) echo "unknown option $1 (try --help)" >&2; exit 2 ;;
    *) filter=$1 ;;
  esac
  shift
done
[[ -z "$json" ]] || json=$(realpath -m "$json")
module=${filter%%/*}

# Sets `root` and `jobs`, and one thread a BLAS call: the components divide the work themselves, and ceilings are
# stated for one thread.
. "$(dirname "${BASH_SOURCE[0]}")/../tests/support/setup.sh"
need "${build_packages[@]}" libbenchmark-dev
[[ -n "$module" && "$module" != assign ]] || need_optional liblemon-dev  # a peer of the assignment solvers
[[ -n "$module" && "$module" != edge ]] || need_optional liblemon-dev coinor-libclp-dev libglpk-dev  # peers of a slot's choice
[[ -n "$module" && "$module" != schedule ]] || need_optional liblemon-dev coinor-libclp-dev libglpk-dev  # peers of the splits
build="$root/build/bench"
export CMAKE_GENERATOR=${CMAKE_GENERATOR:-Ninja}  # of a new build folder
commit=$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown)
[[ -z "$(git -C "$root" status --porcelain --untracked-files=no 2>/dev/null)" ]] || commit="$commit with changes"
mkdir -p "$root/build"
export FAIRLEAD_BENCH_COMMIT=$commit
[[ -z "$quick" ]] || export FAIRLEAD_BENCH_QUICK=1

if ! cmake -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release -DFAIRLEAD_BUILD_BENCH=ON -DFAIRLEAD_BUILD_TESTS=OFF \
  -DFAIRLEAD_BUILD_EXAMPLES=OFF -DFAIRLEAD_BUILD_DOCS=OFF -DFAIRLEAD_ENABLE_CUDA=OFF >"$build.configure.log" 2>&1; then
  cat "$build.configure.log" >&2
  echo "configuring failed; the benches need CMake, a C++20 compiler and Google Benchmark (Debian: libbenchmark-dev)" >&2
  exit 1
fi
if ! grep -q "^benchmark_DIR:PATH=/" "$build/CMakeCache.txt"; then
  echo "Google Benchmark was not found (Debian: apt-get install libbenchmark-dev)" >&2
  exit 1
fi
cmake --build "$build" --target "${module:+fairlead_bench_}${module:-fairlead_benches}" --parallel "$jobs"

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
found=0
for binary in "$build"/bench/*/bench_*; do
  [[ -x "$binary" && -f "$binary" ]] || continue
  name=$(basename "$binary")
  name=${name#bench_}
  [[ -z "$module" || "$module" == "$name" ]] || continue
  found=1
  echo "== $name (commit $commit)"
  "$binary" ${filter:+"--benchmark_filter=^$filter"} --benchmark_repetitions="$repetitions" \
    ${quick:+--benchmark_min_time=0.02} --benchmark_counters_tabular=true \
    --benchmark_out="$results/$name.json" --benchmark_out_format=json
done
if [[ $found == 0 ]]; then
  echo "no bench module named '$module' was built" >&2
  exit 1
fi
if [[ -n "$json" ]]; then
  python3 - "$json" "$results"/*.json <<'PYTHON'
import json, os, sys

merged = None
for path in sys.argv[2:]:
    if os.path.getsize(path) == 0:  # the filter left nothing
        continue
    with open(path) as file:
        run = json.load(file)
    if merged is None:
        merged = run
    else:
        merged["benchmarks"] += run["benchmarks"]
with open(sys.argv[1], "w") as file:
    json.dump(merged or {"context": {}, "benchmarks": []}, file, indent=1)
PYTHON
  echo "wrote $json"
fi
