// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How many replicas each expert gets: time of one decision over many different loads.
#include "support/axes.hpp"

#include <fairlead/place/contiguous.hpp>

#include <benchmark/benchmark.h>

namespace {

namespace fl = fairlead;

void one_replica_each(benchmark::State& state) {
  for (auto _ : state) { benchmark::DoNotOptimize(fl::contiguous_placement{}.initial(64, 64).fingerprint()); }
}
BENCHMARK(one_replica_each)->Name("place/contiguous_placement/64x64")->Unit(benchmark::kMicrosecond);

}  // namespace
