// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/edge/frozen_routers.hpp>
#include <fairlead/edge/lyapunov_controller.hpp>
#include <fairlead/edge/lyapunov_exact.hpp>
#include <fairlead/edge/sequential_routers.hpp>
#include <fairlead/edge/stability.hpp>
#include <fairlead/edge/unmetered.hpp>
#include <fairlead/edge/utility_bound.hpp>
#include <fairlead/exec/serial.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "edge/slots.hpp"
#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

struct answer {
  fl::utility_bound_report report;
  std::vector<double> prices;
};

template <class Model>
answer bound_of(fl::matrix_view<float const> scores, index_t slots, Model const& servers, index_t fan_out, double gate) {
  fl::utility_bound const bound;
  answer result{{}, std::vector<double>(static_cast<std::size_t>(servers.servers()), -1.0)};
  fl::arena<> memory(bound.workspace_bytes(scores.rows(), servers.servers(), fan_out));
  fl::workspace ws = memory.view();
  result.report = bound.solve(fl::serial{}, scores, slots, servers, fan_out, {.gate = gate}, ws, result.prices);
  return result;
}

// The arrivals of some slots, one below the other: what the bound looks at.
struct arrivals {
  std::vector<fl::matrix<float>> slot;
  std::vector<float> all;
  arrivals(index_t slots, index_t servers, double rate, std::uint64_t seed) {
    for (index_t t = 0; t < slots; ++t) {
      auto const number = static_cast<std::uint64_t>(t);
      slot.push_back(slots::softmax_scores(slots::poisson(rate, seed, number), servers, 0.5, seed, number));
      for (index_t i = 0; i < slot.back().rows(); ++i) {
        float const* const row = slot.back().view().row(i);
        all.insert(all.end(), row, row + servers);
      }
    }
  }
  [[nodiscard]] fl::matrix_view<float const> rows(index_t servers) const {
    return {all.data(), static_cast<index_t>(all.size()) / servers, servers};
  }
};

struct path {
  double utility = 0.0;  // per slot
  std::vector<double> backlog, debt;
  [[nodiscard]] double queues() const {
    return std::accumulate(backlog.begin(), backlog.end(), std::accumulate(debt.begin(), debt.end(), 0.0));
  }
};

template <class Controller>
path walk(Controller const& controller, arrivals const& given) {
  auto state = controller.make_state({.max_arrivals = 900, .max_waiting = 200000});
  fl::arena<> memory(controller.workspace_bytes(900));
  path result;
  for (fl::matrix<float> const& scores : given.slot) {
    fl::workspace ws = memory.view();
    result.utility += controller.step(scores.view(), state, ws).utility;
  }
  result.utility /= static_cast<double>(given.slot.size());
  result.backlog = state.backlog;
  result.debt = state.energy_debt;
  return result;
}

}  // namespace

TEST_CASE("the whole copies below the bound are the best by exhaustive search", "[edge]") {
  int fractions_only = 0, infeasible = 0, solved = 0;
  for (std::uint64_t seed = 0; seed < 120; ++seed) {
    auto const draw = [&](std::uint64_t i) { return static_cast<double>(fl::philox::uniform(seed, 5, i)); };
    auto const servers = static_cast<index_t>(1.0 + 4.0 * draw(0));
    auto const fan_out = static_cast<index_t>(1.0 + static_cast<double>(servers) * draw(1));
    auto const tokens = static_cast<index_t>(1.0 + 4.0 * draw(2));
    auto const slots_count = static_cast<index_t>(1.0 + 3.0 * draw(3));
    double const gate = seed % 7 == 0 ? 0.0 : 3.0 * draw(4);
    std::vector<double> rates;
    for (std::uint64_t j = 0; j < static_cast<std::uint64_t>(servers); ++j) {
      double const rate = 0.3 + 1.6 * static_cast<double>(tokens * fan_out) / static_cast<double>(servers * slots_count) * draw(10 + j);
      rates.push_back(seed % 3 == 0 ? std::ceil(rate) : rate);
    }
    fl::matrix<float> const scores = slots::softmax_scores(tokens, servers, 1.0, seed, 0);
    double best = -infinity;
    slots::each_choice(tokens, servers, fan_out, [&](auto rows, auto const& counts) {
      for (std::size_t j = 0; j < rates.size(); ++j) {
        if (static_cast<double>(counts[j]) > rates[j] * static_cast<double>(slots_count)) { return; }
      }
      double sum = static_cast<double>(tokens * fan_out);
      for (index_t t = 0; t < tokens; ++t) {
        for (index_t k = 0; k < fan_out; ++k) { sum += gate * static_cast<double>(scores(t, fl::to_index(rows(t, k)))); }
      }
      best = std::max(best, sum / static_cast<double>(slots_count));
    });
    auto const [report, prices] = bound_of(scores.view(), slots_count, fl::unmetered(rates), fan_out, gate);
    INFO("seed " << seed << ", " << tokens << " tokens, " << servers << " servers, fan_out " << fan_out);
    if (report.status == fl::status::infeasible) {
      CHECK(best == -infinity);
      CHECK(report.bound == -infinity);
      CHECK(report.gap() == 0.0);
      ++infeasible;
      continue;
    }
    CHECK(report.status == fl::status::ok);
    if (best == -infinity) {
      CHECK(report.value == -infinity);
      CHECK(std::isfinite(report.bound));
      CHECK(report.gap() == infinity);
      ++fractions_only;
      continue;
    }
    CHECK(report.value == Approx(best));
    CHECK(report.bound >= best - 1e-9);
    CHECK(report.value == Approx(report.copies + gate * report.gate_mass));
    double cut = 0.0;  // what cannot be used of the capacities, at its price
    for (std::size_t j = 0; j < prices.size(); ++j) {
      double const capacity = std::min(rates[j] * static_cast<double>(slots_count), static_cast<double>(tokens));
      CHECK(prices[j] >= 0.0);
      cut += (capacity - std::floor(capacity)) * prices[j] / static_cast<double>(slots_count);
    }
    CHECK(report.gap() == Approx(cut).margin(1e-9));
    if (seed % 3 == 0) { CHECK(report.gap() <= 1e-9); }
    ++solved;
  }
  CHECK(solved > 50);
  CHECK(infeasible > 10);
  CHECK(fractions_only > 0);
}

TEST_CASE("the bound exists up to the largest rate that can be carried, and not above", "[edge]") {
  fl::cubic_energy const servers(slots::paper_limits(10));
  fl::arena<> memory(fl::workspace_bytes<double>(10));
  fl::workspace ws = memory.view();
  double const most = fl::stable_arrivals(servers, 3, ws);
  constexpr index_t slots_count = 3;
  auto const at_rate = [&](double rate) {
    fl::matrix<float> const scores = slots::softmax_scores(static_cast<index_t>(rate * slots_count), 10, 0.5, 1, 0);
    return bound_of(scores.view(), slots_count, servers, 3, 1.0);
  };
  answer const below = at_rate(most - 1.0);
  CHECK(below.report.status == fl::status::ok);
  CHECK(below.report.gap() < 0.5);
  CHECK(below.report.copies == Approx(std::floor((most - 1.0) * slots_count) * 3.0 / slots_count));
  answer const above = at_rate(most + 1.0);
  CHECK(above.report.status == fl::status::infeasible);
  CHECK(above.report.value == -infinity);
  CHECK(above.prices == std::vector<double>(10, 0.0));
}

TEST_CASE("no tokens, no utility; and bad parameters say what to do", "[edge]") {
  fl::unmetered const servers(std::vector<double>{1.0, 2.0});
  answer const none = bound_of({nullptr, 0, 2}, 5, servers, 2, 1.0);
  CHECK(none.report.status == fl::status::ok);
  CHECK(none.report.bound == 0.0);
  CHECK(none.report.value == 0.0);
  CHECK(none.prices == std::vector<double>{0.0, 0.0});
  std::vector<float> scores{0.5F, 0.25F};
  CHECK(bound_of({scores.data(), 1, 2}, 1, servers, 2, 2.0).report.bound == 3.5);
  CHECK_THROWS_AS(bound_of({scores.data(), 1, 2}, 0, servers, 2, 1.0), fl::contract_violation);
  CHECK_THROWS_AS(bound_of({scores.data(), 1, 2}, 1, servers, 3, 1.0), fl::contract_violation);
  CHECK_THROWS_AS(bound_of({scores.data(), 1, 2}, 1, servers, 0, 1.0), fl::contract_violation);
  CHECK_THROWS_AS(bound_of({scores.data(), 1, 2}, 1, servers, 1, -1.0), fl::contract_violation);
  CHECK_THROWS_AS(bound_of({scores.data(), 2, 1}, 1, servers, 1, 1.0), fl::contract_violation);
  scores[1] = std::numeric_limits<float>::infinity();
  CHECK_THROWS_AS(bound_of({scores.data(), 1, 2}, 1, servers, 1, 1.0), fl::contract_violation);
  std::vector<double> const one(1, 0.0), two(2, 0.0);
  CHECK_THROWS_AS(fl::utility_allowance(servers, 1, one, two, two), fl::contract_violation);
  CHECK_THROWS_AS(fl::utility_allowance(servers, 0, two, two, two), fl::contract_violation);
}

TEST_CASE("what is left at the end of a path is allowed for at its price", "[edge]") {
  // One server owes 7 J after 2 slots: 1 + 3.5 J a slot are 4.5^(1/3) copies, 0.65 more than the budget's one; another's
  // cap of 2 copies comes first; a third has a backlog that is worth less than the service that it lacks.
  std::vector<fl::server_limits> limits(3, {.energy_cap_j = 8.0, .energy_budget_j = 1.0, .max_frequency_hz = 100.0,
                                            .cycles_per_copy = 1.0, .capacitance = 1.0});
  fl::cubic_energy const servers(limits);
  std::vector<double> const none(3, 0.0);
  CHECK(fl::utility_allowance(servers, 2, std::vector<double>{2.0, 0.0, 0.0}, none, std::vector<double>{7.0, 7.0, 0.0}) ==
        Approx(2.0 * (std::cbrt(4.5) - 1.0)));
  CHECK(fl::utility_allowance(servers, 2, std::vector<double>{0.0, 3.0, 0.0}, none, std::vector<double>{0.0, 99.0, 0.0}) == Approx(3.0));
  CHECK(fl::utility_allowance(servers, 2, std::vector<double>{0.0, 0.0, 0.25}, std::vector<double>{0.0, 0.0, 8.0}, none) == Approx(-3.0));
  CHECK(fl::utility_allowance(servers, 2, std::vector<double>{0.0, 0.0, 1.5}, std::vector<double>{0.0, 0.0, 8.0}, none) == Approx(2.0));
}

TEST_CASE("no path exceeds the bound by more than its allowance, whatever router, speed and order", "[edge]") {
  fl::cubic_energy const servers(slots::paper_limits(10));
  arrivals const given(25, 10, 390.0, 8);
  int above_plain_bound = 0;
  for (double const gate : {1.0, 20.0}) {
    auto const [report, prices] = bound_of(given.rows(10), 25, servers, 3, gate);
    REQUIRE(report.status == fl::status::ok);
    REQUIRE(report.gap() < 0.05 * gate);
    auto const check = [&, gate, &bound = report, &price = prices](double utility, auto router, auto speed, auto order) {
      path const walked = walk(fl::lyapunov_controller{.servers = servers, .fan_out = 3, .weights = {.utility = utility, .gate = gate},
                                                       .router = router, .speed = speed, .order = order, .seed = 4}, given);
      double const allowance = fl::utility_allowance(servers, 25, price, walked.backlog, walked.debt);
      INFO("utility " << walked.utility << ", bound " << bound.bound << ", allowance " << allowance);
      CHECK(walked.utility <= bound.bound + allowance + 1e-9 * bound.bound);
      above_plain_bound += walked.utility > bound.bound ? 1 : 0;
    };
    fl::closed_form_speed const closed;
    fl::serve_same_slot const same;
    check(1.0, fl::lyapunov_convex{}, closed, same);
    check(300.0, fl::lyapunov_convex{}, closed, same);
    check(30.0, fl::lyapunov_convex{}, closed, fl::serve_next_slot{});
    check(300.0, fl::lyapunov_linear{}, closed, same);
    check(100.0, fl::score_first{}, closed, same);
    check(100.0, fl::score_first{}, fl::fixed_speed{1.0}, same);
    check(100.0, fl::score_first{}, fl::average_budget_speed{}, fl::serve_next_slot{});
    check(100.0, fl::random_servers{}, closed, same);
    check(100.0, fl::queue_first{}, closed, same);
    check(100.0, fl::join_shortest_queue{}, closed, same);
    check(100.0, fl::shortest_delay{}, fl::average_budget_speed{}, same);
  }
  CHECK(above_plain_bound >= 2);  // so the allowance is no decoration
}

TEST_CASE("utility rises with V towards the bound no slower than 1 / V, and queues grow no faster than V", "[edge]") {
  constexpr index_t slots_count = 60;
  fl::cubic_energy const servers(slots::paper_limits(10));
  arrivals const given(slots_count, 10, 390.0, 8);
  auto const [report, prices] = bound_of(given.rows(10), slots_count, servers, 3, 1.0);
  REQUIRE(report.status == fl::status::ok);
  double const constant = fl::drift_constant(servers, 3, 390.0).total();
  double last_utility = 0.0, last_lack = infinity, last_queues = infinity, nearest = infinity;
  for (double const utility : {1.0, 3.0, 10.0, 30.0, 100.0}) {
    path const walked = walk(fl::lyapunov_controller{.servers = servers, .fan_out = 3, .weights = {.utility = utility},
                                                     .router = fl::lyapunov_convex{}}, given);
    double const lack = report.bound - walked.utility;
    INFO("V " << utility << ", utility " << walked.utility << ", bound " << report.bound);
    CHECK(walked.utility > last_utility);
    CHECK(lack <= constant / utility);
    CHECK(lack * utility <= last_lack);               // on a line 1 / V, the product would stay
    CHECK(walked.queues() / utility <= last_queues);  // on a line V, the quotient would
    last_utility = walked.utility;
    last_lack = std::max(lack * utility, 0.0);
    last_queues = walked.queues() / utility;
    nearest = std::min(nearest, report.bound + fl::utility_allowance(servers, slots_count, prices, walked.backlog, walked.debt) - walked.utility);
  }
  // The best of these paths is within a thousandth of what any strategy could have reached from there.
  CHECK(nearest < 0.001 * report.bound);
}
