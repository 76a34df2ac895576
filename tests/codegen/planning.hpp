// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief One cluster with its loads for the programs whose hot functions are read and counted.
#include <fairlead/core/load.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/plan.hpp>
#include <fairlead/core/workspace.hpp>

#include <cstdio>
#include <cstring>
#include <vector>

#include "support/count_allocations.hpp"

namespace fl = fairlead;
using fl::index_t;

namespace {

// 16 ranks on four nodes, 4 slots each, 24 experts; skewed loads, with samples and sources.
struct problem {
  static constexpr index_t ranks = 16, experts = 24, records = 6;
  fl::topology cluster{ranks, 4, 4};
  fl::matrix<fl::count_t> load{ranks, experts};
  fl::matrix<index_t> by_source{ranks, experts};
  fl::matrix<index_t> samples{records, experts};
  std::vector<index_t> totals = std::vector<index_t>(experts);
  std::vector<fl::expert_id> now, next;

  problem() {
    for (index_t e = 0; e < experts; ++e) {
      index_t const hot = 7 * (e * 11 % experts) * (e * 11 % experts);
      for (index_t rank = 0; rank < ranks; ++rank) {
        load(rank, e) = static_cast<fl::count_t>(hot + (rank * 5 + e * 3) % 17);
        by_source(rank, e) = load(rank, e);
        totals[static_cast<std::size_t>(e)] += load(rank, e);
      }
      for (index_t k = 0; k < records; ++k) { samples(k, e) = totals[static_cast<std::size_t>(e)] * (8 + (k * 7 + e) % 5) / 8; }
    }
    for (index_t slot = 0; slot < cluster.slots(); ++slot) { now.push_back(static_cast<fl::expert_id>(slot % experts)); }
    next = now;
  }
  [[nodiscard]] fl::load_estimate estimate() const {
    return {.totals = totals, .by_source = by_source.view(), .samples = samples.view()};
  }
  [[nodiscard]] fl::placement where() const { return fl::make_placement(cluster, experts, now); }
};

// Adds up what calls return and allocate; each call is made twice.
struct tally {
  double sum = 0.0;
  long failed = 0;

  template <class Call>
  void run(char const* name, std::size_t bytes, Call const& call) {
    fl::arena<> memory(bytes);
    fl::workspace ws = memory.view();
    for (int turn = 0; turn < 2; ++turn) {
      allocations = 0;
      counting = true;
      fl::report const ended = call(ws);
      counting = false;
      sum += ended.value;
      if (allocations != 0) {
        ++failed;
        std::printf("%s: %ld allocations\n", name, allocations.load());
      }
      if (ended.status == fl::status::infeasible || ended.status == fl::status::unsupported) {
        ++failed;
        std::printf("%s: found nothing\n", name);
      }
    }
  }
  // With the argument "planted" an allocation is planted, to see that it is found.
  [[nodiscard]] int finish(int count, char** arguments) {
    if (count > 1 && std::strcmp(arguments[1], "planted") == 0) {
      run("planted", 0, [](fl::workspace&) {
        std::vector<double> const block(100, 1.0);
        return fl::report{.value = block[7]};
      });
    }
    std::printf("%f, %ld failed\n", sum, failed);
    return failed == 0 ? 0 : 1;
  }
};

}  // namespace
