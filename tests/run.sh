#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Install what is missing, build the tests and run them, then the core suite under the sanitizers.
# usage: tests/run.sh [--no-sanitizers] [CTEST ARGUMENT...]      for instance: tests/run.sh -R route
#   With arguments for ctest the sanitizers are left out. JOBS: compilers at a time, TEST_JOBS: tests at a time.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/support/setup.sh"
sanitizers=yes
if [ "${1:-}" = --no-sanitizers ]; then
  sanitizers=no
  shift
fi
[ $# = 0 ] || sanitizers=no
parallel=${TEST_JOBS:-$jobs}

need "${build_packages[@]}" catch2 libbenchmark-dev
need_optional liblemon-dev coinor-libclp-dev libglpk-dev # oracles of solvers and schedulers
need_optional doxygen clang-19 libclang-rt-19-dev libomp-19-dev # -rt: the sanitizers, which clang-19 only recommends

# A stand-in for the CUDA driver, when it lies beside the project and nvcc is there.
simulator=
simulator_source=$root/../shared/cudasim
if [ -x "$simulator_source/build.sh" ] && command -v nvcc >/dev/null; then
  say "building the CUDA simulator"
  "$simulator_source/build.sh" "$root/build/cudasim"
  simulator=$root/build/cudasim
elif ! command -v nvcc >/dev/null; then
  echo "no nvcc: device code is neither compiled nor run"
else
  echo "no CUDA simulator: device code is compiled, and runs only where there is a GPU"
fi

# -O1 without debug information: the build is the longest part.
configure "$root/build/tests" -DCMAKE_BUILD_TYPE=None -DFAIRLEAD_BUILD_BENCH=OFF -DFAIRLEAD_BUILD_DOCS=OFF \
  "-DFAIRLEAD_CUDA_SIMULATOR=$simulator"
build "$root/build/tests"
status=0
summary=()

# run_ctest NAME FOLDER ARGUMENT...
run_ctest() {
  local name=$1 folder=$2 code=0
  shift 2
  say "running $name"
  ctest --test-dir "$folder" -j"$parallel" --output-on-failure --no-tests=error "$@" 2>&1 | tee "$folder/ctest.log" ||
    code=$?
  summary+=("$name: $(grep -E 'tests passed' "$folder/ctest.log" || echo 'no result')")
  [ "$code" = 0 ] || status=1
}

run_ctest tests "$root/build/tests" "$@"
say "skipped tests"
grep -E '\(Skipped\)' "$root/build/tests/ctest.log" | sort -u || echo none

# The modules whose tests hold threads, views and arenas: everything but what only looks at the tree or at the compiler.
core_modules="core;concepts;exec;comm;ranks;cluster;workload;metrics;flow;route;balance;assign;place;schedule;dispatch;expert;optim;edge;layer"
sanitize() {  # NAME FLAGS LABEL FLAGS_OF_QUICK_TESTS
  local folder=$root/build/$1
  configure "$folder" -DCMAKE_BUILD_TYPE=None "-DCMAKE_CXX_FLAGS=$2" "-DFAIRLEAD_TEST_MODULES=$core_modules" \
    -DFAIRLEAD_ENABLE_CUDA=OFF -DFAIRLEAD_BUILD_BENCH=OFF -DFAIRLEAD_BUILD_EXAMPLES=OFF -DFAIRLEAD_BUILD_DOCS=OFF \
    "-DFAIRLEAD_TEST_LABEL=$3" "-DFAIRLEAD_QUICK_TEST_FLAGS=${4:-}"
  build "$folder"
  run_ctest "$1" "$folder" -L "$3"
}
if [ "$sanitizers" = yes ]; then
  export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS=halt_on_error=1
  sanitize asan "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1" '^core$' -O0
  # libgomp is not built for the thread sanitizer and gives false reports: OpenMP runs there under clang, whose libomp
  # tells the sanitizer what it does (archer), or not at all.
  sanitize tsan "-fsanitize=thread -g1" '^tsan$'
  archer=/usr/lib/llvm-19/lib/libarcher.so
  clang_has_tsan() { [ -e "$(clang++-19 -print-resource-dir)/lib/linux/libclang_rt.tsan-$(uname -m).a" ]; }
  if command -v clang++-19 >/dev/null && [ -e "$archer" ] && clang_has_tsan; then
    export CXX=clang++-19 OMP_TOOL_LIBRARIES=$archer TSAN_OPTIONS="$TSAN_OPTIONS ignore_noninstrumented_modules=1"
    sanitize tsan_openmp "-fsanitize=thread -g1" '^tsan_openmp$'
  else
    echo "no clang++-19 with its sanitizers, libomp and archer: OpenMP is left out of the thread sanitizer"
  fi
fi

say "summary"
printf '%s\n' "${summary[@]}"
exit "$status"
