// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The auction: the device must find the host's owners, prices and reports, bit for bit; and they must be the best ones.
#include <fairlead/assign/jacobi_auction.cuh>
#include <fairlead/exec/serial.hpp>

#include "cuda/support.cuh"

#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>
#include <type_traits>
#include <vector>

namespace {
namespace fl = fairlead;
using fl::index_t;
using fairlead_test::download;
using fairlead_test::upload;
constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

struct problem_case {
  index_t problems, tokens, experts;
  std::vector<float> scores;
  std::vector<index_t> capacity;       // experts, or problems x experts
  std::vector<std::uint8_t> mask;      // or none
  std::vector<double> warm;            // or none
};

struct outcome {
  std::vector<fl::expert_id> owner;
  std::vector<double> prices;
  std::vector<fl::assignment_report> reports;
};

template <class Score = float, class Backend>
outcome run(fl::jacobi_auction const& solver, problem_case const& p, Backend const& on) {
  using space = typename Backend::memory_space;
  std::vector<Score> scores(p.scores.size());
  std::transform(p.scores.begin(), p.scores.end(), scores.begin(), [](float x) { return static_cast<Score>(x); });
  auto const score_memory = upload(on, scores);
  auto const mask = upload(on, p.mask);
  auto const warm = upload(on, p.warm);
  index_t const rows = p.problems * p.tokens;
  fl::buffer<fl::expert_id, space> owner(rows);
  fl::buffer<double, space> prices(p.problems * p.experts);
  fl::arena<space> memory(solver.batch_workspace_bytes(p.problems, p.tokens, p.experts));
  fl::workspace ws = memory.view();
  outcome result;
  result.reports.resize(static_cast<std::size_t>(p.problems));
  fl::assignment_batch<Score> const batch{{score_memory.data(), rows, p.experts}, p.problems, p.capacity, mask.span(), warm.span()};
  solver.solve_batch(on, batch, {owner.data(), rows, 1}, prices.span(), result.reports, ws);
  REQUIRE(ws.used() == 0);
  result.owner = download(on, owner);
  result.prices = download(on, prices);
  return result;
}

bool same(fl::assignment_report const& a, fl::assignment_report const& b) {
  return a.status == b.status && a.iterations == b.iterations && a.augmentations == b.augmentations &&
         a.scans == b.scans && a.value == b.value && a.bound == b.bound;
}

template <class Score = float>
outcome compare(char const* name, problem_case const& p, fl::jacobi_auction const& solver = {}) {
  fl::cuda_stream_owner const stream;
  auto const device = run<Score>(solver, p, stream.get());
  auto const host = run<Score>(solver, p, fl::serial{});
  INFO(name << ": " << p.problems << " x " << p.tokens << " x " << p.experts);
  REQUIRE(device.owner == host.owner);
  REQUIRE(std::memcmp(device.prices.data(), host.prices.data(), host.prices.size() * sizeof(double)) == 0);
  for (std::size_t i = 0; i < host.reports.size(); ++i) {
    INFO("problem " << i << ", rounds " << device.reports[i].iterations << " and " << host.reports[i].iterations);
    REQUIRE(same(device.reports[i], host.reports[i]));
  }
  return device;
}

// The best value by trying everything; -infinity if nothing is allowed.
double brute_force(problem_case const& p, index_t problem) {
  std::vector<index_t> left(static_cast<std::size_t>(p.experts));
  bool const shared = static_cast<index_t>(p.capacity.size()) == p.experts;
  for (std::size_t e = 0; e < left.size(); ++e) {
    left[e] = p.capacity[e + (shared ? 0 : static_cast<std::size_t>(problem * p.experts))];
  }
  double best = -std::numeric_limits<double>::infinity();
  std::function<void(index_t, double)> const place = [&](index_t t, double value) {
    if (t == p.tokens) {
      if (std::all_of(left.begin(), left.end(), [](index_t c) { return c == 0; })) { best = std::max(best, value); }
      return;
    }
    auto const row = static_cast<std::size_t>(problem * p.tokens + t);
    if (!p.mask.empty() && p.mask[row] == 0) { return place(t + 1, value); }
    for (std::size_t e = 0; e < left.size(); ++e) {
      float const score = p.scores[row * left.size() + e];
      if (left[e] == 0 || !(score > -infinity)) { continue; }
      --left[e];
      place(t + 1, value + static_cast<double>(score));
      ++left[e];
    }
  };
  place(0, 0.0);
  return best;
}

// Scores of one problem of a catalogue of kinds.
void fill(std::vector<float>& scores, index_t tokens, index_t experts, index_t kind, std::uint64_t stream) {
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t e = 0; e < experts; ++e) {
      auto const i = static_cast<std::uint64_t>(t * experts + e);
      auto const x = static_cast<float>(fl::philox::normal(21, stream, i));
      auto const word = fl::philox::draw(22, stream, i)[0];
      float const same_row = static_cast<float>(fl::philox::normal(23, stream, static_cast<std::uint64_t>(t % 5 * experts + e)));
      float value = x;
      switch (kind) {
        case 1: value = 1.5F; break;                                    // all equal
        case 2: value = same_row; break;                                // few distinct rows: prices cannot split them
        case 3: value = static_cast<float>(word % 3U); break;           // few levels
        case 4: value = static_cast<float>(fl::bfloat16(x)); break;     // quantised
        case 5: value = x - 1000.0F; break;                             // shifted
        case 6: value = e == 0 ? x + 5.0F : x; break;                   // one expert is wanted by all
        case 7: value = word % 7U == 0U ? -infinity : word % 7U == 1U ? nan_value : x; break;
        case 8: value = t == 0 && e == 0 ? 1000.0F : x; break;          // one outlier
        case 9: value = x * 1e-42F; break;                              // subnormal
        case 10: value = static_cast<float>(fl::philox::normal(21, stream, static_cast<std::uint64_t>(t))); break;  // equal columns
        case 11: value = word % 11U == 0U ? infinity : x; break;
        default: break;
      }
      scores.push_back(value);
    }
  }
}
constexpr index_t kinds = 12;

problem_case make(index_t problems, index_t tokens, index_t experts, index_t kind, std::uint64_t stream) {
  problem_case p{problems, tokens, experts, {}, std::vector<index_t>(static_cast<std::size_t>(experts)), {}, {}};
  for (index_t i = 0; i < problems; ++i) {
    fill(p.scores, tokens, experts, kind >= 0 ? kind : i % kinds, stream + static_cast<std::uint64_t>(i));
  }
  fl::even_capacity(tokens, p.capacity);
  return p;
}

}  // namespace

TEST_CASE("batches of small problems have the host's owners and the value of the best assignment") {
  FAIRLEAD_NEEDS_DEVICES(1);
  std::uint64_t stream = 100;
  for (auto const& [tokens, experts] : std::vector<std::pair<index_t, index_t>>{{1, 1}, {5, 1}, {6, 2}, {7, 3}, {2, 5}, {5, 4}}) {
    index_t const problems = 3 * kinds;
    auto p = make(problems, tokens, experts, -1, stream += 100);
    // Own capacities: uneven, some zero, and now and then one slot too many.
    p.capacity.assign(static_cast<std::size_t>(problems * experts), 0);
    for (index_t i = 0; i < problems; ++i) {
      auto* const own = p.capacity.data() + i * experts;
      for (index_t t = 0; t < tokens; ++t) { ++own[i % 3 == 0 ? t % experts : fl::philox::draw(3, stream, static_cast<std::uint64_t>(i * 100 + t))[0] % experts]; }
      if (i % 17 == 16) { ++own[0]; }
    }
    auto const found = compare("small", p);
    index_t feasible = 0;
    for (index_t i = 0; i < problems; ++i) {
      auto const& report = found.reports[static_cast<std::size_t>(i)];
      double const best = brute_force(p, i);
      INFO("problem " << i);
      if (best == -infinity) {
        REQUIRE(report.status == fl::status::infeasible);
        continue;
      }
      REQUIRE(report.status == fl::status::ok);
      if (i % kinds == 11) { continue; }  // infinities count as the largest number
      ++feasible;
      REQUIRE(std::abs(report.value - best) <= 1e-8 * (1e-30 + std::abs(best)));
      REQUIRE(report.gap() <= 1e-7);
    }
    REQUIRE(feasible > kinds);
  }
}

TEST_CASE("one batch holds layers of every kind, each as if it were alone") {
  FAIRLEAD_NEEDS_DEVICES(1);
  auto const p = make(kinds, 61, 7, -1, 1);
  auto const together = compare("kinds", p);
  for (index_t i = 0; i < kinds; i += 5) {
    problem_case single = make(1, 61, 7, i, 1 + static_cast<std::uint64_t>(i));
    auto const alone = compare("alone", single);
    REQUIRE(std::equal(alone.owner.begin(), alone.owner.end(), together.owner.begin() + i * 61));
    REQUIRE(same(alone.reports[0], together.reports[static_cast<std::size_t>(i)]));
  }
}

TEST_CASE("rounds with many bidders run on the whole grid and end where the host ends") {
  FAIRLEAD_NEEDS_DEVICES(1);
  for (index_t const kind : {0, 1, 3, 7}) { compare("grid", make(2, 500, 6, kind, 40)); }
  compare("equal rows", make(1, 300, 4, 2, 40));
  compare("experts that do not divide tokens, long rows", make(1, 301, 70, 0, 50));
  compare<fl::bfloat16>("bfloat16", make(1, 400, 8, 6, 60));
}

TEST_CASE("masked tokens own nothing, and warm prices give the same value in fewer bids") {
  FAIRLEAD_NEEDS_DEVICES(1);
  auto p = make(2, 300, 5, 0, 70);
  p.mask.resize(600);
  index_t valid = 0;
  for (std::size_t t = 0; t < 600; ++t) {
    p.mask[t] = t % 300 % 4 != 1 ? 1 : 0;
    valid += t < 300 ? p.mask[t] : 0;
  }
  fl::even_capacity(valid, p.capacity);
  auto const cold = compare("masked", p);
  for (std::size_t t = 0; t < 600; ++t) { REQUIRE((cold.owner[t] == fl::expert_id::none) == (p.mask[t] == 0)); }
  p.warm = cold.prices;
  auto const warm = compare("warm", p);
  for (std::size_t i = 0; i < 2; ++i) {
    REQUIRE(cold.reports[i].status == fl::status::ok);
    REQUIRE(std::abs(warm.reports[i].value - cold.reports[i].value) <= 1e-9 * cold.reports[i].value);
    REQUIRE(warm.reports[i].augmentations < cold.reports[i].augmentations);
  }
  for (std::size_t e = 0; e < p.warm.size(); ++e) { p.warm[e] = e % 3 == 0 ? 1e300 : e % 3 == 1 ? -1e300 : nan_value; }
  auto const wild = compare("wild prices", p);
  REQUIRE(std::abs(wild.reports[0].value - cold.reports[0].value) <= 1e-9 * cold.reports[0].value);
}

TEST_CASE("a cap of rounds leaves a complete assignment on the device, too") {
  FAIRLEAD_NEEDS_DEVICES(1);
  auto const p = make(2, 300, 3, 0, 80);
  auto const best = compare("no cap", p);
  for (index_t const cap : {0, 3, 12}) {
    auto const found = compare("cap", p, {.most_rounds = cap});
    for (std::size_t i = 0; i < 2; ++i) {
      REQUIRE(found.reports[i].status == fl::status::iteration_limit);
      REQUIRE(found.reports[i].value <= best.reports[i].value * (1 + 1e-12));
      REQUIRE(found.reports[i].bound >= best.reports[i].value * (1 - 1e-12));
      std::vector<index_t> loads(3);
      for (std::size_t t = 0; t < 300; ++t) { ++loads[static_cast<std::size_t>(found.owner[i * 300 + t])]; }
      REQUIRE(loads == p.capacity);
    }
  }
}

TEST_CASE("what the solver does not state is refused on the device, owners cleared") {
  FAIRLEAD_NEEDS_DEVICES(1);
  fl::cuda_stream_owner const stream;
  auto const on = stream.get();
  fl::jacobi_auction const solver;
  auto const scores = upload(on, fairlead_test::normals(4 * 3, 1));
  fl::buffer<fl::expert_id, fl::device_space> owner(8);
  fl::buffer<double, fl::device_space> prices(3);
  fl::arena<fl::device_space> memory(solver.workspace_bytes(4, 3, 2));
  fl::workspace ws = memory.view();
  std::vector<index_t> const lower{1, 1, 1}, upper{2, 2, 2};
  fl::assignment_problem<float> problem{.scores = {scores.data(), 4, 3}, .fan_out = 1, .lower = lower, .upper = upper};
  REQUIRE(solver.solve(on, problem, {{owner.data(), 4, 1}, prices.span()}, ws).status == fl::status::unsupported);
  REQUIRE(download(on, owner.data(), 4) == std::vector<fl::expert_id>(4, fl::expert_id::none));
  problem.fan_out = 2;
  REQUIRE(solver.solve(on, problem, {{owner.data(), 4, 2}, {}}, ws).status == fl::status::unsupported);
  REQUIRE(download(on, owner) == std::vector<fl::expert_id>(8, fl::expert_id::none));
  problem = {.scores = {scores.data(), 0, 3}, .fan_out = 1, .lower = std::span(lower).first(0), .upper = {}};
  std::vector<index_t> const none(3);
  problem.lower = problem.upper = none;
  REQUIRE(solver.solve(on, problem, {{owner.data(), 0, 1}, prices.span()}, ws).status == fl::status::ok);
  REQUIRE(download(on, prices) == std::vector<double>(3, 0.0));
}
