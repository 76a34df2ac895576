// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The exact choice under convex costs against exhaustive search and LEMON's network simplex, on grids of integers where
// optima are equal to the last bit; ties, closed servers, extreme scales, and what is refused.
#include <fairlead/core/matrix.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/flow/convex_choice.hpp>

#include "support/catch.hpp"
#include "support/count_allocations.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

#if __has_include(<lemon/network_simplex.h>)
#  ifndef LEMON_ONLY_TEMPLATES
#    define LEMON_ONLY_TEMPLATES
#  endif
#  if defined(__GNUC__) && !defined(__clang__)
#    pragma GCC diagnostic push
#    pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#    pragma GCC diagnostic ignored "-Wconversion"
#    pragma GCC diagnostic ignored "-Wshadow"
#  endif
#  include <lemon/network_simplex.h>
#  include <lemon/smart_graph.h>
#  if defined(__GNUC__) && !defined(__clang__)
#    pragma GCC diagnostic pop
#  endif
#endif

namespace fl = fairlead;
using fl::index_t;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr float forbidden = -std::numeric_limits<float>::infinity();

// Marginal costs from a table. @shape{servers x tokens}
struct table_cost {
  std::vector<std::vector<double>> steps;
  double operator()(index_t server, index_t copies) const {
    return steps.at(static_cast<std::size_t>(server)).at(static_cast<std::size_t>(copies));
  }
};

struct answer {
  fl::convex_choice_report report;
  fl::matrix<fl::expert_id> choices;
  std::vector<index_t> counts;
  std::vector<double> prices;
  [[nodiscard]] std::vector<int> list() const {
    std::vector<int> all;
    for (index_t t = 0; t < choices.rows(); ++t) {
      for (index_t k = 0; k < choices.cols(); ++k) { all.push_back(static_cast<int>(choices(t, k))); }
    }
    return all;
  }
};

template <class Cost>
answer solve(fl::convex_choice_problem const& problem, Cost const& cost) {
  fl::convex_choice const solver;
  index_t const tokens = problem.scores.rows();
  index_t const servers = problem.scores.cols();
  answer out{{}, fl::matrix<fl::expert_id>(tokens, problem.fan_out), std::vector<index_t>(static_cast<std::size_t>(servers), -1),
             std::vector<double>(static_cast<std::size_t>(servers), -1.0)};
  fl::arena<> memory(solver.workspace_bytes(tokens, servers, problem.fan_out));
  fl::workspace ws = memory.view();
  out.report = solver.solve(fl::serial{}, problem, cost, {.choices = out.choices.view(), .counts = out.counts, .prices = out.prices}, ws);
  REQUIRE(ws.used() == 0);
  return out;
}

// The cost of a complete choice, straight from the definition; also checks that it is one.
template <class Cost>
double cost_of(fl::convex_choice_problem const& problem, Cost const& cost, answer const& got) {
  std::vector<index_t> counts(static_cast<std::size_t>(problem.scores.cols()), 0);
  double score = 0.0;
  for (index_t t = 0; t < problem.scores.rows(); ++t) {
    std::vector<bool> taken(counts.size(), false);
    for (index_t k = 0; k < problem.fan_out; ++k) {
      auto const j = static_cast<std::size_t>(fl::to_index(got.choices(t, k)));
      REQUIRE(j < counts.size());
      REQUIRE_FALSE(taken[j]);
      taken[j] = true;
      ++counts[j];
      REQUIRE(fl::assignable(problem.scores(t, static_cast<index_t>(j))) > -infinity);
      score += fl::assignable(problem.scores(t, static_cast<index_t>(j)));
    }
  }
  REQUIRE(counts == got.counts);
  double sum = 0.0;
  for (std::size_t j = 0; j < counts.size(); ++j) {
    for (index_t n = 0; n < counts[j]; ++n) { sum += cost(static_cast<index_t>(j), n); }
  }
  return sum - problem.scale * score;
}

// What the prices prove, with full sorts and full sums.
template <class Cost>
double proved(fl::convex_choice_problem const& problem, Cost const& cost, std::vector<double> const& prices) {
  double bound = 0.0;
  for (index_t t = 0; t < problem.scores.rows(); ++t) {
    std::vector<double> keys;
    for (index_t j = 0; j < problem.scores.cols(); ++j) {
      double const score = fl::assignable(problem.scores(t, j));
      if (score > -infinity) { keys.push_back(problem.scale * score - prices[static_cast<std::size_t>(j)]); }
    }
    std::sort(keys.begin(), keys.end(), std::greater<>{});
    for (index_t k = 0; k < problem.fan_out; ++k) { bound -= keys[static_cast<std::size_t>(k)]; }
  }
  for (index_t j = 0; j < problem.scores.cols(); ++j) {
    double least = 0.0;
    double sum = 0.0;
    for (index_t n = 0; n < problem.scores.rows(); ++n) {
      sum += cost(j, n) - prices[static_cast<std::size_t>(j)];
      least = std::min(least, sum);
    }
    bound += least;
  }
  return bound;
}

template <class Cost>
double brute_force(fl::convex_choice_problem const& problem, Cost const& cost) {
  auto const servers = static_cast<std::size_t>(problem.scores.cols());
  std::vector<index_t> counts(servers, 0);
  double best = infinity;
  std::function<void(index_t, double)> const place = [&](index_t t, double sum) {
    if (t == problem.scores.rows()) {
      for (std::size_t j = 0; j < servers; ++j) {
        for (index_t n = 0; n < counts[j]; ++n) { sum += cost(static_cast<index_t>(j), n); }
      }
      best = std::min(best, sum);
      return;
    }
    for (unsigned set = 0; set < (1U << servers); ++set) {
      if (__builtin_popcount(set) != problem.fan_out) { continue; }
      double score = 0.0;
      for (std::size_t j = 0; j < servers; ++j) {
        if ((set >> j & 1U) != 0) {
          score += fl::assignable(problem.scores(t, static_cast<index_t>(j)));
          ++counts[j];
        }
      }
      if (score > -infinity) { place(t + 1, sum - problem.scale * score); }
      for (std::size_t j = 0; j < servers; ++j) { counts[j] -= static_cast<index_t>(set >> j & 1U); }
    }
  };
  place(0, 0.0);
  return best;
}

// Numbers one after the other, from a seed.
struct draws {
  std::uint64_t seed;
  std::uint64_t next = 0;
  std::uint64_t operator()(std::uint64_t below) {
    std::uint64_t z = (seed << 32U) + ++next * 0x9E3779B97F4A7C15ULL;
    z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27U)) * 0x94D049BB133111EBULL;
    return (z ^ (z >> 31U)) % below;
  }
  double unit() { return static_cast<double>((*this)(1U << 24U)) * 0x1p-24; }
};

// Integers of a few values: rich in ties. `most_step` 0 gives flat costs.
table_cost integer_costs(draws& draw, index_t servers, index_t tokens, std::uint64_t most_step, bool closing) {
  table_cost cost;
  for (index_t j = 0; j < servers; ++j) {
    double step = static_cast<double>(draw(7)) - 3.0;
    index_t const closes = closing && draw(2) == 0 ? static_cast<index_t>(draw(static_cast<std::uint64_t>(tokens) + 1)) : tokens;
    std::vector<double> row;
    for (index_t n = 0; n < tokens; ++n) {
      row.push_back(n < closes ? step : infinity);
      step += static_cast<double>(draw(most_step + 1));
    }
    cost.steps.push_back(row);
  }
  return cost;
}
fl::matrix<float> integer_scores(draws& draw, index_t tokens, index_t servers, std::uint64_t values, std::uint64_t forbid) {
  fl::matrix<float> scores(tokens, servers);
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t j = 0; j < servers; ++j) {
      scores(t, j) = forbid != 0 && draw(forbid) == 0 ? (draw(2) == 0 ? forbidden : std::nanf("")) : static_cast<float>(draw(values));
    }
  }
  return scores;
}

// Queue length, service and a cubic energy: the cost of n arrivals at the best speed.
struct queue_cost {
  std::vector<double> queue, energy;
  double weight = 20.0;
  [[nodiscard]] double whole(index_t server, double n) const {
    auto const j = static_cast<std::size_t>(server);
    double served = energy[j] > 0.0 ? std::sqrt((queue[j] + weight) / (3.0 * energy[j])) : infinity;
    served = std::min({served, queue[j] + n, 60.0});
    return queue[j] * n - (queue[j] + weight) * served + energy[j] * served * served * served;
  }
  double operator()(index_t server, index_t n) const {
    return whole(server, static_cast<double>(n) + 1.0) - whole(server, static_cast<double>(n));
  }
};

}  // namespace

TEST_CASE("convex_choice equals exhaustive search, with ties, forbidden pairs and closed servers") {
  int infeasible = 0;
  for (std::uint64_t seed = 0; seed < 1500; ++seed) {
    draws draw{seed};
    auto const servers = static_cast<index_t>(1 + draw(4));
    auto const tokens = static_cast<index_t>(1 + draw(5));
    auto const fan_out = static_cast<index_t>(1 + draw(static_cast<std::uint64_t>(servers)));
    auto const scores = integer_scores(draw, tokens, servers, 2 + draw(6), seed % 3 == 0 ? 4 : 0);
    table_cost const cost = integer_costs(draw, servers, tokens, draw(4), seed % 4 == 1);
    fl::convex_choice_problem const problem{.scores = scores.view(), .fan_out = fan_out, .scale = static_cast<double>(draw(4)), .warm_prices = {}, .priority = {}};
    answer const got = solve(problem, cost);
    double const best = brute_force(problem, cost);
    CAPTURE(seed);
    if (best == infinity) {
      ++infeasible;
      REQUIRE(got.report.status == fl::status::infeasible);
      REQUIRE(std::count(got.counts.begin(), got.counts.end(), 0) == servers);
      for (int const id : got.list()) { REQUIRE(id == -1); }
      continue;
    }
    REQUIRE(got.report.status == fl::status::ok);
    REQUIRE(got.report.value == best);
    REQUIRE(cost_of(problem, cost, got) == best);
    REQUIRE(got.report.bound == Approx(best).margin(1e-9));
    REQUIRE(proved(problem, cost, got.prices) == Approx(best).margin(1e-9));
  }
  REQUIRE(infeasible > 50);
}

TEST_CASE("convex_choice equals exhaustive search for queues with energy, any numbers") {
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    draws draw{seed + 9000};
    auto const servers = static_cast<index_t>(2 + draw(3));
    auto const tokens = static_cast<index_t>(1 + draw(5));
    auto const fan_out = static_cast<index_t>(1 + draw(static_cast<std::uint64_t>(servers)));
    fl::matrix<float> scores(tokens, servers);
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t j = 0; j < servers; ++j) { scores(t, j) = seed % 5 == 0 && t > 0 ? scores(0, j) : static_cast<float>(draw.unit()); }
    }
    queue_cost cost;
    for (index_t j = 0; j < servers; ++j) {
      cost.queue.push_back(100.0 * draw.unit());
      cost.energy.push_back(draw(3) == 0 ? 0.0 : draw.unit());
    }
    fl::convex_choice_problem const problem{.scores = scores.view(), .fan_out = fan_out, .scale = 50.0, .warm_prices = {}, .priority = {}};
    answer const got = solve(problem, cost);
    CAPTURE(seed);
    REQUIRE(got.report.status == fl::status::ok);
    double const best = brute_force(problem, cost);
    REQUIRE(cost_of(problem, cost, got) == Approx(best).margin(1e-8));
    REQUIRE(got.report.value == Approx(best).margin(1e-8));
    REQUIRE(std::fabs(got.report.gap()) < 1e-8);
  }
}

#if __has_include(<lemon/network_simplex.h>)
namespace {
// Source tokens, unit arcs token -> server, unit arcs server -> sink at rising cost; integers throughout.
std::int64_t lemon_value(fl::convex_choice_problem const& problem, table_cost const& cost) {
  using graph = lemon::SmartDigraph;
  graph g;
  auto const tokens = static_cast<int>(problem.scores.rows());
  auto const servers = static_cast<int>(problem.scores.cols());
  std::vector<int> costs;
  for (int v = 0; v < tokens + servers + 1; ++v) { g.addNode(); }
  auto const node = [&](int v) { return graph::nodeFromId(v); };
  for (int t = 0; t < tokens; ++t) {
    for (int j = 0; j < servers; ++j) {
      if (!(problem.scores(t, j) > forbidden)) { continue; }
      g.addArc(node(t), node(tokens + j));
      costs.push_back(-static_cast<int>(problem.scale * static_cast<double>(problem.scores(t, j))));
    }
  }
  for (int j = 0; j < servers; ++j) {
    for (int n = 0; n < tokens && cost(j, n) < infinity; ++n) {
      g.addArc(node(tokens + j), node(tokens + servers));
      costs.push_back(static_cast<int>(cost(j, n)));
    }
  }
  graph::ArcMap<int> cost_map(g);
  graph::ArcMap<int> most(g, 1);
  for (int a = 0; a < static_cast<int>(costs.size()); ++a) { cost_map[graph::arcFromId(a)] = costs[static_cast<std::size_t>(a)]; }
  graph::NodeMap<int> supply(g, 0);
  for (int t = 0; t < tokens; ++t) { supply[node(t)] = static_cast<int>(problem.fan_out); }
  supply[node(tokens + servers)] = -tokens * static_cast<int>(problem.fan_out);
  lemon::NetworkSimplex<graph, int, int> simplex(g);
  simplex.costMap(cost_map).supplyMap(supply).upperMap(most);
  REQUIRE(simplex.run() == decltype(simplex)::OPTIMAL);
  return simplex.totalCost<std::int64_t>();
}
}  // namespace

TEST_CASE("convex_choice equals LEMON's network simplex on a grid of integers") {
  struct shape {
    index_t tokens, servers, fan_out;
  };
  std::uint64_t seed = 70000;
  // The last three have servers with long lists of tokens, of which only the near ones are looked at.
  for (shape const s : {shape{390, 10, 3}, shape{200, 40, 1}, shape{150, 33, 8}, shape{700, 17, 2}, shape{60, 20, 20},
                        shape{1500, 3, 1}, shape{1200, 4, 2}, shape{800, 3, 2}}) {
    for (int kind = 0; kind < 6; ++kind) {
      draws draw{++seed};
      // Many values; few; duplicated rows; flat costs; forbidden pairs; costs that dwarf the scores.
      auto scores = integer_scores(draw, s.tokens, s.servers, kind == 1 ? 3 : 1000, kind == 4 && s.fan_out + 6 <= s.servers ? 5 : 0);
      for (index_t t = 0; t < s.tokens && kind == 2; ++t) { std::copy_n(scores.view().row(t / 50 * 50), s.servers, scores.view().row(t)); }
      table_cost cost = integer_costs(draw, s.servers, s.tokens, kind == 3 ? 0 : kind == 1 ? 1 : 40, false);
      for (auto& row : cost.steps) {
        for (double& step : row) { step *= kind == 5 ? 500.0 : 1.0; }
      }
      fl::convex_choice_problem const problem{.scores = scores.view(), .fan_out = s.fan_out, .scale = 3.0, .warm_prices = {}, .priority = {}};
      answer const got = solve(problem, cost);
      CAPTURE(s.tokens, s.servers, kind);
      REQUIRE(got.report.status == fl::status::ok);
      REQUIRE(got.report.value == static_cast<double>(lemon_value(problem, cost)));
      REQUIRE(cost_of(problem, cost, got) == got.report.value);
      REQUIRE(std::fabs(got.report.gap()) < 1e-12 * std::max(1.0, std::fabs(got.report.value)) * 1e3);
    }
  }
}
#endif

TEST_CASE("convex_choice shares out equal rows as the costs alone would") {
  // All scores equal: the counts are those of the cheapest copies, whatever the scores are.
  draws draw{5};
  index_t const tokens = 500;
  index_t const servers = 12;
  fl::matrix<float> scores(tokens, servers);
  std::fill_n(scores.data(), tokens * servers, 0.25F);
  table_cost cost = integer_costs(draw, servers, tokens, 3, false);
  for (double const scale : {0.0, 1.0, 1e12, 1e-12}) {
    fl::convex_choice_problem const problem{.scores = scores.view(), .fan_out = 2, .scale = scale, .warm_prices = {}, .priority = {}};
    answer const got = solve(problem, cost);
    CAPTURE(scale);
    REQUIRE(got.report.status == fl::status::ok);
    std::vector<double> all;
    for (auto const& row : cost.steps) { all.insert(all.end(), row.begin(), row.end()); }
    std::sort(all.begin(), all.end());
    double const cheapest = std::accumulate(all.begin(), all.begin() + 2 * tokens, 0.0);
    REQUIRE(cost_of(problem, cost, got) + scale * 0.25 * 2.0 * static_cast<double>(tokens) == Approx(cheapest).epsilon(1e-12).margin(scale * 1e-10));
  }
}

TEST_CASE("without costs every token takes its best servers") {
  draws draw{6};
  auto const scores = integer_scores(draw, 300, 9, 4, 0);
  auto const nothing = [](index_t, index_t) { return 0.0; };
  fl::convex_choice_problem const problem{.scores = scores.view(), .fan_out = 3, .scale = 2.0, .warm_prices = {}, .priority = {}};
  answer const got = solve(problem, nothing);
  double best = 0.0;
  for (index_t t = 0; t < 300; ++t) {
    std::vector<float> row(scores.view().row(t), scores.view().row(t) + 9);
    std::sort(row.begin(), row.end(), std::greater<>{});
    best -= 2.0 * static_cast<double>(row[0] + row[1] + row[2]);
  }
  REQUIRE(got.report.value == best);
  REQUIRE(got.report.bound == best);
  for (double const price : got.prices) { REQUIRE(price == 0.0); }
}

TEST_CASE("convex_choice keeps to scores and costs that are orders of magnitude apart") {
  for (double const scale : {1e-200, 1e-30, 1e-9, 1e-3, 1e6, 1e20}) {
    for (double const size : {1e-12, 1.0, 1e12}) {
      draws draw{11};
      auto const scores = integer_scores(draw, 5, 3, 50, 0);
      table_cost cost = integer_costs(draw, 3, 5, 3, false);
      for (auto& row : cost.steps) {
        for (double& step : row) { step *= size; }
      }
      fl::convex_choice_problem const problem{.scores = scores.view(), .fan_out = 2, .scale = scale, .warm_prices = {}, .priority = {}};
      answer const got = solve(problem, cost);
      CAPTURE(scale, size);
      REQUIRE(got.report.status == fl::status::ok);
      double const best = brute_force(problem, cost);
      double const rounding = 1e-12 * (scale * 500.0 + size * 200.0);
      REQUIRE(std::fabs(cost_of(problem, cost, got) - best) <= rounding);
      REQUIRE(got.report.gap() <= rounding);
      REQUIRE(got.report.bound <= best + rounding);
    }
  }
}

TEST_CASE("a closed server takes no more, and too little room is infeasible") {
  fl::matrix<float> scores(6, 3);
  for (index_t t = 0; t < 6; ++t) {
    for (index_t j = 0; j < 3; ++j) { scores(t, j) = j == 0 ? 10.0F : static_cast<float>(j); }
  }
  auto const with_room = [](index_t room) {
    return [=](index_t server, index_t copies) { return server == 0 && copies >= room ? infinity : 0.0; };
  };
  fl::convex_choice_problem problem{.scores = scores.view(), .fan_out = 1, .scale = 1.0, .warm_prices = {}, .priority = {}};
  for (index_t const room : {0, 2, 6}) {
    answer const got = solve(problem, with_room(room));
    REQUIRE(got.report.status == fl::status::ok);
    REQUIRE(got.counts == std::vector<index_t>{room, 0, 6 - room});
    REQUIRE(got.report.value == -static_cast<double>(10 * room + 2 * (6 - room)));
  }
  problem.fan_out = 3;
  REQUIRE(solve(problem, with_room(5)).report.status == fl::status::infeasible);
  REQUIRE(solve(problem, with_room(6)).report.status == fl::status::ok);
}

TEST_CASE("convex_choice handles no tokens, no choices, all servers, and too few of them") {
  auto const cost = [](index_t server, index_t copies) { return static_cast<double>(server + copies) - 1.0; };
  fl::matrix<float> scores(4, 3);
  std::fill_n(scores.data(), 12, 1.0F);
  auto const ask = [&](index_t tokens, index_t fan_out) {
    return solve({.scores = scores.view().rows(0, tokens), .fan_out = fan_out, .scale = 1.0, .warm_prices = {}, .priority = {}}, cost);
  };
  REQUIRE(ask(0, 2).report.status == fl::status::ok);
  REQUIRE(ask(0, 2).report.value == 0.0);
  REQUIRE(ask(0, 5).report.status == fl::status::ok);
  answer const none = ask(4, 0);
  REQUIRE(none.report.status == fl::status::ok);
  REQUIRE(none.counts == std::vector<index_t>{0, 0, 0});
  answer const all = ask(4, 3);
  REQUIRE(all.counts == std::vector<index_t>{4, 4, 4});
  REQUIRE(all.report.value == (2.0 + 6.0 + 10.0) - 12.0);
  REQUIRE(all.report.bound == Approx(all.report.value));
  answer const more = ask(4, 4);
  REQUIRE(more.report.status == fl::status::infeasible);
  REQUIRE(more.report.bound == infinity);
}

TEST_CASE("answers repeat bit by bit, from strided scores, warm prices and other priorities too") {
  draws draw{21};
  index_t const tokens = 390;
  index_t const servers = 10;
  fl::matrix<float> wide(tokens, servers + 5);
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t j = 0; j < servers + 5; ++j) { wide(t, j) = static_cast<float>(draw(64)) / 64.0F; }
  }
  fl::matrix<float> scores(tokens, servers);
  for (index_t t = 0; t < tokens; ++t) { std::copy_n(wide.view().row(t), servers, scores.view().row(t)); }
  auto const cost = [](index_t server, index_t copies) { return static_cast<double>(server % 3 + copies); };
  fl::convex_choice_problem problem{.scores = scores.view(), .fan_out = 3, .scale = 64.0, .warm_prices = {}, .priority = {}};
  answer const first = solve(problem, cost);
  answer const again = solve(problem, cost);
  REQUIRE(first.list() == again.list());
  REQUIRE(first.prices == again.prices);
  problem.scores = {wide.data(), tokens, servers, servers + 5};
  answer const strided = solve(problem, cost);
  REQUIRE(first.list() == strided.list());
  std::vector<double> const warm = first.prices;
  problem.warm_prices = warm;
  answer const warmed = solve(problem, cost);
  REQUIRE(warmed.report.value == first.report.value);
  REQUIRE(warmed.report.augmentations <= first.report.augmentations);
  std::vector<double> const wild{1e300, -1e300, infinity, std::nan(""), 0.0, 5.0, -7.0, 1e-300, 3.0, 2.0};
  problem.warm_prices = wild;
  REQUIRE(solve(problem, cost).report.value == first.report.value);
  problem.warm_prices = {};
  std::vector<fl::expert_id> order(static_cast<std::size_t>(servers));
  for (std::size_t j = 0; j < order.size(); ++j) { order[j] = static_cast<fl::expert_id>((j * 7 + 3) % order.size()); }
  problem.priority = order;
  answer const ordered = solve(problem, cost);
  REQUIRE(ordered.report.value == first.report.value);
  REQUIRE(cost_of(problem, cost, ordered) == first.report.value);
  REQUIRE(proved(problem, cost, ordered.prices) == Approx(first.report.value));
}

TEST_CASE("a priority decides where nothing else does") {
  fl::matrix<float> scores(1, 4);
  std::fill_n(scores.data(), 4, 1.0F);
  auto const cost = [](index_t, index_t copies) { return static_cast<double>(copies); };
  REQUIRE(solve({.scores = scores.view(), .fan_out = 2, .scale = 1.0, .warm_prices = {}, .priority = {}}, cost).list() == std::vector<int>{0, 1});
  std::vector<fl::expert_id> const order{fl::expert_id{2}, fl::expert_id{3}, fl::expert_id{0}, fl::expert_id{1}};
  REQUIRE(solve({.scores = scores.view(), .fan_out = 2, .scale = 1.0, .warm_prices = {}, .priority = order}, cost).list() == std::vector<int>{2, 3});
}

TEST_CASE("costs that fall by rounding do no harm") {
  draws draw{31};
  fl::matrix<float> scores(200, 8);
  for (index_t i = 0; i < 1600; ++i) { scores.data()[i] = static_cast<float>(draw.unit()); }
  table_cost cost;
  for (index_t j = 0; j < 8; ++j) {
    std::vector<double> row;
    for (index_t n = 0; n < 200; ++n) { row.push_back(0.1 * static_cast<double>(j) * (1.0 + 1e-15 * (draw.unit() - 0.5)) + (n > 60 ? 3.0 : 0.0)); }
    cost.steps.push_back(row);
  }
  fl::convex_choice_problem const problem{.scores = scores.view(), .fan_out = 2, .scale = 1.0, .warm_prices = {}, .priority = {}};
  answer const got = solve(problem, cost);
  REQUIRE(got.report.status == fl::status::ok);
  REQUIRE(cost_of(problem, cost, got) == got.report.value);
  REQUIRE(got.report.gap() < 1e-11);
}

TEST_CASE("steps of the size of rounding do not hide those of other servers") {
  fl::matrix<float> scores(1, 5);
  std::fill_n(scores.data(), 5, 0.25F);
  table_cost const cost{{{0.0}, {1e-33}, {2e-33}, {5.0}, {3.0}}};
  for (double const scale : {0.0, 1e-300}) {
    CAPTURE(scale);
    fl::convex_choice_problem const problem{.scores = scores.view(), .fan_out = 4, .scale = scale, .warm_prices = {}, .priority = {}};
    answer const got = solve(problem, cost);
    REQUIRE(got.report.status == fl::status::ok);
    REQUIRE(got.report.value == 3.0);
    REQUIRE(got.counts == std::vector<index_t>{1, 1, 1, 0, 1});
  }
  // What is optimal up to such steps is proved, not called unfinished.
  table_cost const tiny{{{6e-33}, {1.2e-32}, {-6e-33}, {0.0}, {0.0}}};
  fl::convex_choice_problem const problem{.scores = scores.view(), .fan_out = 3, .scale = 0.0, .warm_prices = {}, .priority = {}};
  REQUIRE(solve(problem, tiny).report.status == fl::status::ok);
  // A finite cost stays finite, however small the scale.
  table_cost const far{{{-1e25}, {1e25}, {2e25}, {3e25}, {4e25}}};
  answer const all = solve({.scores = scores.view(), .fan_out = 5, .scale = 1e-300, .warm_prices = {}, .priority = {}}, far);
  REQUIRE(all.report.status == fl::status::ok);
  REQUIRE(all.report.value == Approx(9e25));
}

TEST_CASE("many tokens and few servers: every answer is proved, with equal rows, few values and forbidden pairs") {
  for (std::uint64_t seed = 0; seed < 24; ++seed) {
    draws draw{90000 + seed};
    index_t const servers = 2 + static_cast<index_t>(seed % 4);
    index_t const tokens = 4000;
    index_t const fan_out = seed % 3 == 0 ? 2 : 1;
    fl::matrix<float> scores(tokens, servers);
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t j = 0; j < servers; ++j) {
        double const drawn = draw.unit();
        scores(t, j) = static_cast<float>(seed % 4 == 1 ? std::floor(drawn * 8.0) / 8.0 : drawn);
        if (seed % 4 == 2 && t % 32 != 0) { scores(t, j) = scores(t - 1, j); }
        if (seed % 4 == 3 && j >= fan_out && drawn < 0.2) { scores(t, j) = forbidden; }
      }
    }
    std::vector<double> slope;
    for (index_t j = 0; j < servers; ++j) { slope.push_back(draw.unit() < 0.3 ? 0.0 : std::exp(-10.0 * draw.unit())); }
    auto const cost = [&](index_t j, index_t n) {
      auto const at = static_cast<std::size_t>(j);
      return 0.3 * static_cast<double>(j) + slope[at] * static_cast<double>(n) + (n > tokens / 3 ? 1.0 : 0.0);
    };
    fl::convex_choice const solver;
    fl::arena<> memory(solver.workspace_bytes(tokens, servers, fan_out));
    fl::workspace ws = memory.view();
    fl::matrix<fl::expert_id> choices(tokens, fan_out);
    std::vector<index_t> counts(static_cast<std::size_t>(servers));
    auto const report = solver.solve(fl::serial{}, {.scores = scores.view(), .fan_out = fan_out, .scale = 2.0, .warm_prices = {}, .priority = {}},
                                     cost, {.choices = choices.view(), .counts = counts, .prices = {}}, ws);
    CAPTURE(seed);
    REQUIRE(report.status == fl::status::ok);
    REQUIRE(report.gap() <= 1e-11 * std::max(1.0, std::fabs(report.value)));
    REQUIRE(std::accumulate(counts.begin(), counts.end(), index_t{0}) == tokens * fan_out);
  }
}

TEST_CASE("penalties in place of capacities do not drown small differences") {
  draws draw{123};
  fl::matrix<float> scores(420, 9);
  for (index_t i = 0; i < 420 * 9; ++i) { scores.data()[i] = static_cast<float>(draw.unit()); }
  std::vector<double> first;
  for (index_t j = 0; j < 9; ++j) { first.push_back(3.0 * draw.unit()); }
  table_cost cost;
  for (index_t j = 0; j < 9; ++j) {
    std::vector<double> row;
    for (index_t n = 0; n < 420; ++n) { row.push_back(n < (j < 2 ? 420 : 60) ? first[static_cast<std::size_t>(j)] : 1e9); }
    cost.steps.push_back(row);
  }
  answer const got = solve({.scores = scores.view(), .fan_out = 2, .scale = 0.05, .warm_prices = {}, .priority = {}}, cost);
  REQUIRE(got.report.status == fl::status::ok);
  REQUIRE(got.report.gap() < 1e-11);
}

TEST_CASE("warm prices without sense never pass for a proof") {
  draws draw{77};
  for (int trial = 0; trial < 300; ++trial) {
    index_t const tokens = 1 + trial % 9;
    fl::matrix<float> scores(tokens, 4);
    for (index_t i = 0; i < tokens * 4; ++i) { scores.data()[i] = static_cast<float>(draw.unit()); }
    table_cost cost;
    for (index_t j = 0; j < 4; ++j) {
      std::vector<double> row;
      double at = draw.unit();
      for (index_t n = 0; n < tokens; ++n) { row.push_back(at += draw.unit()); }
      cost.steps.push_back(row);
    }
    std::vector<double> prices(4);
    for (double& price : prices) { price = (draw.unit() - 0.5) * std::pow(10.0, 40.0 * draw.unit()); }
    fl::convex_choice_problem problem{.scores = scores.view(), .fan_out = 2, .scale = 1.0, .warm_prices = {}, .priority = {}};
    answer const cold = solve(problem, cost);
    problem.warm_prices = prices;
    answer const warm = solve(problem, cost);
    CAPTURE(trial);
    REQUIRE(cold.report.status == fl::status::ok);
    REQUIRE(warm.report.status == fl::status::ok);
    REQUIRE(warm.report.gap() < 1e-9);
    REQUIRE(std::abs(warm.report.value - cold.report.value) < 1e-9);
  }
}

TEST_CASE("a cost that knows its sums gives the same answer with fewer calls") {
  struct steps {
    index_t* calls;
    double operator()(index_t server, index_t copies) const {
      ++*calls;
      return static_cast<double>(3 * server + copies);
    }
  };
  struct sums : steps {
    double total(index_t server, index_t copies) const {
      return static_cast<double>(3 * server * copies + copies * (copies - 1) / 2);
    }
  };
  draws draw{51};
  auto const scores = integer_scores(draw, 390, 10, 100, 0);
  fl::convex_choice_problem const problem{.scores = scores.view(), .fan_out = 3, .scale = 1.0, .warm_prices = {}, .priority = {}};
  index_t one_by_one = 0;
  index_t at_once = 0;
  answer const stepped = solve(problem, steps{&one_by_one});
  answer const summed = solve(problem, sums{{&at_once}});
  REQUIRE(stepped.report.value == summed.report.value);
  REQUIRE(stepped.report.bound == summed.report.bound);
  REQUIRE(stepped.list() == summed.list());
  REQUIRE(at_once + 1000 < one_by_one);
}

TEST_CASE("convex_choice allocates nothing and needs no more than it says") {
  draws draw{41};
  auto const scores = integer_scores(draw, 390, 10, 100, 0);
  auto const cost = [](index_t, index_t copies) { return static_cast<double>(copies); };
  fl::convex_choice const solver;
  fl::arena<> memory(solver.workspace_bytes(390, 10, 3));
  fl::matrix<fl::expert_id> choices(390, 3);
  std::vector<index_t> counts(10);
  std::vector<fl::expert_id> order(10);
  for (int j = 0; j < 10; ++j) { order[static_cast<std::size_t>(j)] = static_cast<fl::expert_id>(9 - j); }
  fl::workspace ws = memory.view();
  counting = true;
  auto const report = solver.solve(fl::serial{}, {.scores = scores.view(), .fan_out = 3, .scale = 1.0, .warm_prices = {}, .priority = order}, cost,
                                   {.choices = choices.view(), .counts = counts, .prices = {}}, ws);
  counting = false;
  REQUIRE(allocations.load() == 0);
  REQUIRE(report.status == fl::status::ok);
  REQUIRE(report.gap() < 1e-9);
}

TEST_CASE("convex_choice refuses what makes no sense") {
  fl::matrix<float> scores(2, 3);
  std::fill_n(scores.data(), 6, 0.0F);
  auto const cost = [](index_t, index_t) { return 0.0; };
  auto const ask = [&](double scale, index_t fan_out, std::vector<fl::expert_id> const& order, std::size_t counted) {
    fl::convex_choice const solver;
    fl::arena<> memory(solver.workspace_bytes(2, 3, 1));
    fl::workspace ws = memory.view();
    fl::matrix<fl::expert_id> choices(2, 1);
    std::vector<index_t> counts(counted);
    return solver.solve(fl::serial{}, {.scores = scores.view(), .fan_out = fan_out, .scale = scale, .warm_prices = {}, .priority = order}, cost,
                        {.choices = choices.view(), .counts = counts, .prices = {}}, ws).status;
  };
  using id = fl::expert_id;
  REQUIRE(ask(1.0, 1, {}, 3) == fl::status::ok);
  REQUIRE_THROWS_AS(ask(-1.0, 1, {}, 3), fl::contract_violation);
  REQUIRE_THROWS_AS(ask(infinity, 1, {}, 3), fl::contract_violation);
  REQUIRE_THROWS_AS(ask(std::nan(""), 1, {}, 3), fl::contract_violation);
  REQUIRE_THROWS_AS(ask(1.0, 2, {}, 3), fl::contract_violation);
  REQUIRE_THROWS_AS(ask(1.0, -1, {}, 3), fl::contract_violation);
  REQUIRE_THROWS_AS(ask(1.0, 1, {}, 2), fl::contract_violation);
  REQUIRE_THROWS_AS(ask(1.0, 1, {id{0}, id{1}}, 3), fl::contract_violation);
#if FAIRLEAD_CONTRACT_LEVEL >= 2
  REQUIRE_THROWS_AS(ask(1.0, 1, {id{0}, id{1}, id{1}}, 3), fl::contract_violation);
#endif
}
