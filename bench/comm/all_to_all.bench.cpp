// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// all_to_all_v between rank threads: comm/all_to_all_v/<ranks>x<bytes a message>, beside one memcpy of the same bytes.
#include <fairlead/comm/inproc.hpp>
#include <fairlead/exec/serial.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

namespace fl = fairlead;
using fl::index_t;

namespace {

// The ranks live as long as the benchmark: only exchanges are timed, by rank 0, between barriers.
void all_to_all(benchmark::State& state, index_t ranks, index_t bytes) {
  fl::inproc::world world{ranks};
  // Starting threads costs far more than an exchange: many exchanges an iteration, few iterations.
  auto const repeats =
      static_cast<int>(std::clamp((index_t{1} << 27) / (ranks * ranks * bytes), index_t{5}, index_t{2000}));
  for (auto _ : state) {
    auto const seconds = world.run([&](fl::inproc::communicator comm) {
      fl::serial const on;
      std::vector<std::byte> send(static_cast<std::size_t>(ranks * bytes)), receive(send.size());
      std::vector<index_t> offsets;
      for (index_t r = 0; r <= ranks; ++r) { offsets.push_back(r * bytes); }
      comm.all_to_all_v(on, send.data(), offsets, receive.data(), offsets).wait();  // touches the pages
      comm.barrier();
      auto const begin = std::chrono::steady_clock::now();
      for (int i = 0; i < repeats; ++i) {
        comm.all_to_all_v(on, send.data(), offsets, receive.data(), offsets).wait();
      }
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    });
    state.SetIterationTime(seconds[0] / repeats);
  }
  auto const moved = static_cast<double>(ranks * ranks * bytes);
  state.counters["GB/s"] = benchmark::Counter(moved * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["messages/s"] =
      benchmark::Counter(static_cast<double>(ranks * ranks), benchmark::Counter::kIsIterationInvariantRate);
}

void copy(benchmark::State& state, index_t bytes) {
  std::vector<std::byte> from(static_cast<std::size_t>(bytes)), to(from.size());
  for (auto _ : state) {
    std::memcpy(to.data(), from.data(), from.size());
    benchmark::ClobberMemory();
  }
  state.counters["GB/s"] =
      benchmark::Counter(static_cast<double>(bytes) * 1e-9, benchmark::Counter::kIsIterationInvariantRate);
}

int const registered = [] {
  for (index_t const bytes : {index_t{64}, index_t{4096}, index_t{1} << 18, index_t{1} << 22}) {
    for (index_t const ranks : {1, 2, 4, 8}) {
      std::string const name = "comm/all_to_all_v/" + std::to_string(ranks) + "x" + std::to_string(bytes);
      benchmark::RegisterBenchmark(name.c_str(), all_to_all, ranks, bytes)->UseManualTime()->Iterations(5);
    }
    benchmark::RegisterBenchmark(("comm/memcpy/" + std::to_string(bytes)).c_str(), copy, bytes);
  }
  return 0;
}();

}  // namespace
