// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// One test body for every kind of rank: threads, processes.
#include <fairlead/comm/counted.hpp>
#include <fairlead/comm/throttled.hpp>
#include <fairlead/comm/traced.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/laws/communicator.hpp>

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace rank_tests {

struct outcome {
  int passed = 0;
  std::vector<std::string> failures;
  void note(char const* name, fairlead::laws::verdict const& verdict) {
    verdict ? static_cast<void>(++passed) : failures.push_back(std::string(name) + ": " + verdict.reason());
  }
};

// Sums of badly scaled numbers in rank order: a fingerprint that must not depend on the kind of communicator.
template <class Comm>
std::uint64_t fingerprint(Comm& comm, fairlead::index_t count) {
  fairlead::serial const on;
  std::vector<float> values;
  for (fairlead::index_t i = 0; i < count; ++i) {
    auto const words = fairlead::philox::draw(5, static_cast<std::uint64_t>(comm.rank()), static_cast<std::uint64_t>(i));
    values.push_back((fairlead::philox::to_uniform(words[0]) - 0.5F) * static_cast<float>(1U << (words[1] % 24U)));
  }
  auto operation = comm.all_reduce(on, std::span<float>(values), fairlead::reduction::sum);
  operation.wait();
  std::uint64_t hash = 1469598103934665603U;
  for (float const value : values) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, &value, sizeof bits);
    hash = (hash ^ bits) * 1099511628211U;
  }
  return hash;
}

// The fingerprint of `ranks` ranks, computed without any communicator.
inline std::uint64_t expected_fingerprint(fairlead::index_t ranks, fairlead::index_t count) {
  std::uint64_t hash = 1469598103934665603U;
  for (fairlead::index_t i = 0; i < count; ++i) {
    float sum = 0.0F;
    for (fairlead::index_t r = 0; r < ranks; ++r) {
      auto const words = fairlead::philox::draw(5, static_cast<std::uint64_t>(r), static_cast<std::uint64_t>(i));
      float const value =
          (fairlead::philox::to_uniform(words[0]) - 0.5F) * static_cast<float>(1U << (words[1] % 24U));
      sum = r == 0 ? value : sum + value;
    }
    std::uint32_t bits = 0;
    std::memcpy(&bits, &sum, sizeof bits);
    hash = (hash ^ bits) * 1099511628211U;
  }
  return hash;
}

template <class Comm>
outcome run(Comm comm) {
  using fairlead::laws::verdict;
  fairlead::serial const on;
  outcome result;
  for (std::uint64_t const seed : {1U, 2U, 3U}) {
    result.note("laws", fairlead::laws::check_communicator(comm, on, {.seed = seed}));
  }
  result.note("laws, long messages", fairlead::laws::check_communicator(comm, on, {.seed = 4, .longest = 9001}));
  fairlead::counted counted(comm);
  result.note("laws through counted", fairlead::laws::check_communicator(counted, on, {.seed = 5}));
  result.note("something was counted", comm.size() == 1 || counted.counters().total().bytes_out > 0
                                           ? verdict{}
                                           : verdict::broken("no bytes"));
  fairlead::throttled throttled(comm, {.alpha_s = 0.0, .beta_s_per_byte = 1e-12});
  result.note("laws through throttled", fairlead::laws::check_communicator(throttled, on, {.seed = 6}));
  fairlead::traced traced(comm);
  result.note("laws through traced", fairlead::laws::check_communicator(traced, on, {.seed = 7}));
  for (fairlead::index_t const count : {1, 100, 40000}) {
    std::uint64_t const found = fingerprint(comm, count);
    std::uint64_t const expected = expected_fingerprint(comm.size(), count);
    result.note("sums in rank order", found == expected ? verdict{} : verdict::broken(count, " floats"));
  }
  return result;
}

}  // namespace rank_tests
