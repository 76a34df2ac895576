// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Exact solvers against LEMON's network simplex on instances too large for brute force.
#include <fairlead/assign/balanced_flow.hpp>
#include <fairlead/assign/distributed_flow.hpp>
#include <fairlead/comm/alone.hpp>
#include <fairlead/concepts/assignment_solver.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/workload/assignment_scores.hpp>

#include "support/catch.hpp"

#if __has_include(<lemon/network_simplex.h>)
#  include "support/peers/lemon_assignment.hpp"

#  include <algorithm>
#  include <array>
#  include <cmath>
#  include <cstdint>
#  include <limits>
#  include <string>
#  include <vector>

namespace fl = fairlead;
namespace wl = fairlead::workload;
using fl::index_t;

namespace {

constexpr double scale = wl::assignment_scores::score_scale;
constexpr float forbidden = -std::numeric_limits<float>::infinity();

struct instance {
  fl::matrix<float> scores;
  index_t fan_out = 1;
  std::vector<index_t> lower, upper;
  std::vector<std::uint8_t> mask;
  [[nodiscard]] fl::assignment_problem<float> problem() const {
    return {.scores = scores.view(), .fan_out = fan_out, .lower = lower, .upper = upper, .token_mask = mask,
            .warm_prices = {}};
  }
};

// A random small number below `bound`.
std::uint32_t draw(std::uint64_t seed, std::uint64_t stream, std::uint64_t i, std::uint32_t bound) {
  return fl::philox::below(fl::philox::draw(seed, stream, i)[0], bound);
}

instance make(wl::score_kind kind, index_t tokens, index_t experts, index_t fan_out, std::uint64_t seed) {
  instance made;
  made.scores = wl::assignment_scores{.tokens = tokens, .experts = experts, .kind = kind, .seed = seed}.make();
  made.fan_out = fan_out;
  made.lower.resize(static_cast<std::size_t>(experts));
  fl::even_capacity(tokens * fan_out, made.lower);
  made.upper = made.lower;
  return made;
}

// Some experts take anything from little to much, some an exact number.
void loosen(instance& made, std::uint64_t seed) {
  for (std::size_t e = 0; e < made.lower.size(); ++e) {
    index_t const even = made.lower[e];
    switch (draw(seed, 50, e, 3)) {
      case 0: made.lower[e] = 0, made.upper[e] = even + even / 4 + 1; break;
      case 1: made.lower[e] = even / 2, made.upper[e] = 4 * even; break;
      default: break;
    }
  }
}

void forbid(instance& made, std::uint64_t seed, std::uint32_t one_in) {
  for (index_t t = 0; t < made.scores.rows(); ++t) {
    for (index_t e = 0; e < made.scores.cols(); ++e) {
      auto const at = static_cast<std::uint64_t>(t * made.scores.cols() + e);
      if (draw(seed, 60, at, one_in) == 0) { made.scores(t, e) = forbidden; }
    }
  }
}

struct optimum {
  bool feasible = false;
  double value = 0.0;
  friend bool operator==(optimum const&, optimum const&) = default;
};

optimum of_lemon(instance const& made) {
  fl_bench::lemon_assignment lemon(made.scores.view(), made.fan_out, made.lower, made.upper, scale,
                                   fl_bench::lemon_assignment::order::by_token, made.mask);
  if (!lemon.solve()) { return {}; }
  return {true, static_cast<double>(lemon.scaled_value()) / scale};
}

// The distributed solver as a solver of one rank.
struct distributed_alone {
  fl::distributed_flow solver;
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens, index_t experts, index_t fan_out) const {
    return solver.workspace_bytes(tokens, experts, fan_out, 1);
  }
  fl::assignment_report solve(fl::serial on, fl::assignment_problem<float> const& problem,
                              fl::assignment_result const& result, fl::workspace& ws) const {
    fl::alone comm;
    return solver.solve(on, comm, problem, result, ws);
  }
};

// The value of what a solver says, added up from its owners; infeasible if it says so or breaks a capacity.
template <class Solver>
optimum of_solver(Solver const& solver, instance const& made, bool& honest) {
  index_t const tokens = made.scores.rows(), experts = made.scores.cols();
  fl::matrix<fl::expert_id> owner(tokens, made.fan_out);
  std::vector<double> prices(static_cast<std::size_t>(experts));
  fl::arena<> memory(solver.workspace_bytes(tokens, experts, made.fan_out));
  fl::workspace ws = memory.view();
  auto const report = solver.solve(fl::serial{}, made.problem(), {.owner = owner.view(), .prices = prices}, ws);
  if (report.status == fl::status::infeasible) { return {}; }
  honest = honest && report.status == fl::status::ok && report.gap() < 1e-9;
  std::vector<index_t> load(static_cast<std::size_t>(experts));
  optimum found{true, 0.0};
  for (index_t t = 0; t < tokens; ++t) {
    bool const valid = made.mask.empty() || made.mask[static_cast<std::size_t>(t)] != 0;
    for (index_t j = 0; j < made.fan_out; ++j) {
      index_t const e = fl::to_index(owner(t, j));
      honest = honest && (e >= 0) == valid;
      if (e < 0) { continue; }
      for (index_t i = 0; i < j; ++i) { honest = honest && owner(t, i) != owner(t, j); }
      ++load[static_cast<std::size_t>(e)];
      found.value += static_cast<double>(made.scores(t, e));
    }
  }
  for (std::size_t e = 0; e < load.size(); ++e) {
    honest = honest && made.lower[e] <= load[e] && load[e] <= made.upper[e];
  }
  honest = honest && std::fabs(found.value - report.value) <= 1e-9 * std::max(1.0, std::fabs(found.value));
  return found;
}

template <class Solver>
void compare(Solver const& solver, instance const& made, optimum const& expected) {
  bool honest = true;
  auto const found = of_solver(solver, made, honest);
  CHECK(honest);
  CHECK(found.feasible == expected.feasible);
  CHECK(found.value == expected.value);
}

void compare(instance const& made, std::string const& what) {
  auto const expected = of_lemon(made);
  {
    INFO("balanced_flow, " << what);
    compare(fl::balanced_flow{}, made, expected);
  }
  if (made.scores.rows() > 2048) { return; }
  INFO("distributed_flow, " << what);
  compare(distributed_alone{}, made, expected);
}

// All assignments of a small instance, token by token.
void search(instance const& made, index_t token, index_t next_expert, index_t left, std::vector<index_t>& load,
            double value, optimum& best) {
  if (left == 0) { return search(made, token + 1, 0, made.fan_out, load, value, best); }
  if (token == made.scores.rows()) {
    for (std::size_t e = 0; e < load.size(); ++e) {
      if (load[e] < made.lower[e]) { return; }
    }
    if (!best.feasible || value > best.value) { best = {true, value}; }
    return;
  }
  for (index_t e = next_expert; e < made.scores.cols(); ++e) {
    auto const at = static_cast<std::size_t>(e);
    if (load[at] == made.upper[at] || made.scores(token, e) == forbidden) { continue; }
    ++load[at];
    search(made, token, e + 1, left - 1, load, value + static_cast<double>(made.scores(token, e)), best);
    --load[at];
  }
}

}  // namespace

TEST_CASE("the LEMON oracle itself agrees with exhaustive search on small instances", "[assign]") {
  int feasible = 0, infeasible = 0;
  bool equal = true;
  for (std::uint64_t seed = 0; seed < 240; ++seed) {
    auto const kind = wl::all_score_kinds[seed % wl::all_score_kinds.size()];
    auto const experts = static_cast<index_t>(1 + draw(seed, 1, 0, 4));
    auto const most = static_cast<std::uint32_t>(std::min<index_t>(experts, 3));
    auto const fan_out = static_cast<index_t>(1 + draw(seed, 1, 1, most));
    auto made = make(kind, static_cast<index_t>(1 + draw(seed, 1, 2, 6)), experts, fan_out, seed);
    if (seed % 3 != 0) { loosen(made, seed); }
    if (seed % 4 == 1) { forbid(made, seed, 4); }
    optimum expected;
    std::vector<index_t> load(made.lower.size());
    search(made, 0, 0, made.fan_out, load, 0.0, expected);
    equal = equal && of_lemon(made) == expected;
    ++(expected.feasible ? feasible : infeasible);
  }
  CHECK(equal);
  CHECK(feasible > 100);
  CHECK(infeasible > 10);
}

TEST_CASE("the value of exact solvers is LEMON's on every kind of scores", "[assign]") {
  struct shape {
    index_t tokens, experts, fan_out;
  };
  constexpr std::array<shape, 5> shapes{{{300, 8, 1}, {1023, 16, 1}, {4096, 64, 1}, {300, 12, 3}, {2048, 32, 3}}};
  for (auto const kind : wl::all_score_kinds) {
    for (auto const [tokens, experts, fan_out] : shapes) {
      auto made = make(kind, tokens, experts, fan_out, 5);
      std::string const what = std::string(wl::name(kind)) + " " + std::to_string(tokens) + "x" +
                               std::to_string(experts) + " k " + std::to_string(fan_out);
      compare(made, what);
      if (tokens > 2048) { continue; }
      loosen(made, 6);
      compare(made, what + ", bounds");
      forbid(made, 7, 5);
      compare(made, what + ", bounds, forbidden pairs");
    }
  }
}

TEST_CASE("the value of exact solvers is LEMON's with forbidden pairs, padding and odd capacities", "[assign]") {
  for (auto const kind : wl::all_score_kinds) {
    for (index_t const fan_out : {1, 3}) {
      std::string const what = std::string(wl::name(kind)) + " k " + std::to_string(fan_out);
      auto made = make(kind, 700, 24, fan_out, 8);
      forbid(made, 9, 2);
      compare(made, what + ", half of the pairs forbidden");
      made.mask.assign(700, 1);
      for (std::size_t t = 0; t < 700; t += 7) { made.mask[t] = 0; }
      fl::even_capacity(600 * fan_out, made.lower);
      made.upper = made.lower;
      compare(made, what + ", padding");
      std::fill(made.lower.begin(), made.lower.end(), 0);
      made.upper[3] = 0;
      made.upper[4] = 1;
      made.upper[5] = 600;
      made.lower[6] = made.upper[6] = 40;
      compare(made, what + ", capacities of 0, 1 and everything");
      for (std::size_t e = 7; e < 24; ++e) { made.upper[e] = 1; }
      made.upper[5] = 500;
      compare(made, what + ", too few places");
    }
  }
}

#else

TEST_CASE("without LEMON (Debian: liblemon-dev) exact solvers are not compared with it") {
  WARN("no LEMON");
  SUCCEED();
}

#endif
