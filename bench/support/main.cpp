// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The main function of every bench: Google Benchmark's own, plus the conditions of the run in the output's context.
// It sets nothing: thread counts of a BLAS or of OpenMP belong to whoever starts the binary (bench/run.sh does).
#include <fairlead/core/config.hpp>

#include <benchmark/benchmark.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

#ifndef FAIRLEAD_BENCH_FLAGS
#  define FAIRLEAD_BENCH_FLAGS "unknown"
#endif

namespace {

std::string machine() {
  std::ifstream info("/proc/cpuinfo");
  std::string line;
  while (std::getline(info, line)) {
    if (line.rfind("model name", 0) == 0) { return line.substr(line.find(':') + 2); }
  }
  return "unknown";
}

std::string variable(char const* name) {
  char const* const value = std::getenv(name);
  return value == nullptr ? "unset" : value;
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) { return 1; }
  benchmark::AddCustomContext("machine", machine());
  benchmark::AddCustomContext("cores", std::to_string(std::thread::hardware_concurrency()));
#if defined(__clang__)
  benchmark::AddCustomContext("compiler", "clang " __clang_version__);
#else
  benchmark::AddCustomContext("compiler", "g++ " __VERSION__);
#endif
  benchmark::AddCustomContext("flags", FAIRLEAD_BENCH_FLAGS);
  benchmark::AddCustomContext("contract_level", std::to_string(FAIRLEAD_CONTRACT_LEVEL));
  benchmark::AddCustomContext("commit", variable("FAIRLEAD_BENCH_COMMIT"));
  benchmark::AddCustomContext("OPENBLAS_NUM_THREADS", variable("OPENBLAS_NUM_THREADS"));
  benchmark::AddCustomContext("OMP_NUM_THREADS", variable("OMP_NUM_THREADS"));
  benchmark::AddCustomContext("quick", std::getenv("FAIRLEAD_BENCH_QUICK") != nullptr ? "yes" : "no");
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
