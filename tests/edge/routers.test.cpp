// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/buffer.hpp>
#include <fairlead/edge/frozen_routers.hpp>
#include <fairlead/edge/lyapunov_exact.hpp>
#include <fairlead/edge/sequential_routers.hpp>
#include <fairlead/edge/speed_rules.hpp>
#include <fairlead/edge/unmetered.hpp>
#include <fairlead/laws/slot_router.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "edge/slots.hpp"
#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

namespace {

// A slot that owns what its view shows.
struct small_slot {
  small_slot(index_t tokens, index_t servers, index_t fan_out, std::uint64_t seed, bool equal_rows = false)
      : scores(slots::softmax_scores(tokens, servers, 1.0, seed, 0)) {
    auto const draw = [&](std::uint64_t i) { return static_cast<double>(fl::philox::uniform(seed, 77, i)); };
    std::vector<fl::server_limits> limits;
    for (index_t j = 0; j < servers; ++j) {
      auto const i = static_cast<std::uint64_t>(j);
      backlog.push_back(std::floor(draw(4 * i) * 6.0) + (seed % 2 == 0 ? 0.0 : draw(4 * i + 1)));
      debt.push_back(seed % 3 == 0 ? 0.0 : draw(4 * i + 2) * 4.0);
      limits.push_back({.energy_cap_j = 1.0 + 20.0 * draw(4 * i + 3), .energy_budget_j = 1.0, .max_frequency_hz = 100.0,
                        .cycles_per_copy = 1.0, .capacitance = 1.0 / 3.0});
    }
    if (equal_rows) {
      for (index_t t = 1; t < tokens; ++t) { std::copy_n(scores.view().row(0), servers, scores.view().row(t)); }
    }
    servers_model = fl::cubic_energy(limits);
    view = {.scores = scores.view(), .backlog = backlog, .energy_debt = debt,
            .weights = {.utility = 1.0 + 8.0 * draw(1000), .gate = 2.0 * draw(1001), .energy = 0.5 + draw(1002)},
            .fan_out = fan_out, .serves_arrivals = seed % 5 != 4};
  }
  small_slot(small_slot const&) = delete;
  fl::matrix<float> scores;
  std::vector<double> backlog, debt;
  fl::cubic_energy servers_model;
  fl::slot_view view;
};

struct outcome {
  std::vector<fl::expert_id> choice;
  std::vector<index_t> counts;
  index_t fan_out = 1;
  fl::matrix_view<fl::expert_id const> rows() const {
    return {choice.data(), static_cast<index_t>(choice.size()) / fan_out, fan_out};
  }
  std::set<index_t> row(index_t t) const {
    std::set<index_t> all;
    for (index_t k = 0; k < fan_out; ++k) { all.insert(fl::to_index(rows()(t, k))); }
    return all;
  }
};

template <class Router, class Model, class Ties = fl::ties_by_id>
outcome routed(Router const& router, fl::slot_view const& view, Model const& servers, Ties const& ties = {}) {
  outcome result{std::vector<fl::expert_id>(static_cast<std::size_t>(view.tokens() * view.fan_out)),
                 std::vector<index_t>(static_cast<std::size_t>(view.servers())), view.fan_out};
  fl::arena<> memory(router.workspace_bytes(view.tokens(), view.servers(), view.fan_out));
  fl::workspace ws = memory.view();
  router.route(view, servers, ties, {result.choice.data(), view.tokens(), view.fan_out}, result.counts, ws);
  return result;
}

template <class Function>
void each_router(Function f) {
  f("lyapunov_linear", fl::lyapunov_linear{});
  f("lyapunov_convex", fl::lyapunov_convex{});
  f("exact_drift", fl::exact_drift{});
  f("score_first", fl::score_first{});
  f("random_servers", fl::random_servers{});
  f("queue_first", fl::queue_first{});
  f("energy_first", fl::energy_first{});
  f("max_weight", fl::max_weight{});
  f("join_shortest_queue", fl::join_shortest_queue{});
  f("shortest_delay", fl::shortest_delay{});
}

// Chooses the first servers and counts one of them wrong.
struct counts_wrong {
  std::size_t workspace_bytes(index_t, index_t, index_t) const { return 0; }
  template <fl::energy_model Model, fl::tie_break Ties>
  void route(fl::slot_view const& view, Model const&, Ties const&, fl::matrix_view<fl::expert_id> choice,
             std::span<index_t> counts, fl::workspace&) const {
    std::fill(counts.begin(), counts.end(), index_t{0});
    for (index_t t = 0; t < view.tokens(); ++t) {
      for (index_t k = 0; k < view.fan_out; ++k) { choice(t, k) = static_cast<fl::expert_id>(k); }
    }
    counts[0] = view.tokens();
  }
};
// A user's own rule, with a field: the gate, and what the server saves against the others' caps.
struct gate_and_caps : fl::keyed_router<gate_and_caps, fl::token_keys> {
  double weight = 0.0;
  template <fl::energy_model Model>
  auto keys(fl::slot_view const& view, Model const& servers, std::span<double> numbers) const {
    for (std::size_t j = 0; j < numbers.size(); ++j) { numbers[j] = weight * servers.cap(static_cast<index_t>(j)); }
    return [&view, numbers](index_t token, index_t server) {
      return static_cast<double>(view.scores(token, server)) + numbers[static_cast<std::size_t>(server)];
    };
  }
};
struct repeats_a_server : counts_wrong {
  template <fl::energy_model Model, fl::tie_break Ties>
  void route(fl::slot_view const& view, Model const&, Ties const&, fl::matrix_view<fl::expert_id> choice,
             std::span<index_t> counts, fl::workspace&) const {
    std::fill(counts.begin(), counts.end(), index_t{0});
    for (index_t t = 0; t < view.tokens(); ++t) {
      for (index_t k = 0; k < view.fan_out; ++k) { choice(t, k) = fl::expert_id{0}; }
    }
    counts[0] = view.tokens() * view.fan_out;
  }
};
struct remembers : fl::score_first {
  mutable index_t calls = 0;
  template <fl::energy_model Model, fl::tie_break Ties>
  void route(fl::slot_view const& view, Model const&, Ties const&, fl::matrix_view<fl::expert_id> choice,
             std::span<index_t> counts, fl::workspace&) const {
    ++calls;
    std::fill(counts.begin(), counts.end(), index_t{0});
    for (index_t t = 0; t < view.tokens(); ++t) {
      for (index_t k = 0; k < view.fan_out; ++k) {
        index_t const j = (k + calls) % view.servers();
        choice(t, k) = static_cast<fl::expert_id>(j);
        ++counts[static_cast<std::size_t>(j)];
      }
    }
  }
};

}  // namespace

TEST_CASE("every slot router keeps the laws, with every tie policy and energy model", "[edge]") {
  fl::cubic_energy const cubic(slots::paper_limits(5));
  fl::unmetered const rates(std::vector<double>{3.0, 8.0, 1.5, 20.0});
  each_router([&](char const* name, auto const& router) {
    INFO(name);
    CHECK(fl::laws::check_slot_router(router, cubic, fl::ties_by_id{}));
    CHECK(fl::laws::check_slot_router(router, cubic, fl::ties_rotating{}, {.tokens = 9, .seed = 2}));
    CHECK(fl::laws::check_slot_router(router, cubic, fl::ties_seeded{}, {.tokens = 9, .seed = 3}));
    CHECK(fl::laws::check_slot_router(router, rates, fl::ties_by_id{}, {.tokens = 7, .seed = 4}));
    CHECK(fl::laws::check_slot_router(router, slots::square_energy{}, fl::ties_by_id{}, {.tokens = 6, .seed = 5}));
  });
}

TEST_CASE("a rule that only says its keys is a slot router, fields included", "[edge]") {
  small_slot slot(9, 5, 2, 7);
  gate_and_caps rule;
  rule.weight = 100.0;
  CHECK(fl::laws::check_slot_router(rule, slot.servers_model, fl::ties_seeded{}));
  CHECK(fl::laws::check_slot_router(gate_and_caps{}, slots::square_energy{}, fl::ties_by_id{}));
  outcome const gate = routed(fl::score_first{}, slot.view, slot.servers_model);
  CHECK(routed(gate_and_caps{}, slot.view, slot.servers_model).choice == gate.choice);
  // Caps that far outweigh the gate send everything to the two largest.
  std::vector<index_t> by_cap(5);
  std::iota(by_cap.begin(), by_cap.end(), index_t{0});
  std::sort(by_cap.begin(), by_cap.end(), [&](index_t a, index_t b) { return slot.servers_model.cap(a) > slot.servers_model.cap(b); });
  outcome const caps = routed(rule, slot.view, slot.servers_model);
  for (index_t t = 0; t < 9; ++t) { CHECK(caps.row(t) == std::set<index_t>{by_cap[0], by_cap[1]}); }
}

TEST_CASE("the laws notice routers that break them", "[edge]") {
  fl::cubic_energy const servers(slots::paper_limits(4));
  auto const reason = [&](auto const& router) { return fl::laws::check_slot_router(router, servers, fl::ties_by_id{}).reason(); };
  CHECK(reason(counts_wrong{}).find("counts say") != std::string::npos);
  CHECK(reason(repeats_a_server{}).find("distinct") != std::string::npos);
  CHECK(reason(remembers{}).find("equal arguments") != std::string::npos);
}

TEST_CASE("the exact routers equal brute force, with equal rows and zero energy queues too", "[edge]") {
  int coupled_wins = 0;
  for (std::uint64_t seed = 0; seed < 240; ++seed) {
    index_t const servers = 2 + static_cast<index_t>(seed % 3);
    index_t const fan_out = 1 + static_cast<index_t>(seed / 3) % servers;
    index_t const tokens = 1 + static_cast<index_t>(seed / 7) % (servers == 4 ? 4 : 5);
    small_slot const slot(tokens, servers, fan_out, seed, seed % 4 == 3);
    fl::coupled_cost<fl::cubic_energy> const coupled{&slot.view, &slot.servers_model};
    fl::exact_drift_cost<fl::cubic_energy> const drift{&slot.view, &slot.servers_model};
    double best_coupled = std::numeric_limits<double>::infinity();
    double best_drift = best_coupled;
    slots::each_choice(tokens, servers, fan_out, [&](auto rows, auto const& counts) {
      best_coupled = std::min(best_coupled, fl::slot_value(coupled, rows, counts));
      best_drift = std::min(best_drift, fl::slot_value(drift, rows, counts));
    });
    INFO("seed " << seed << ", " << servers << " servers, fan_out " << fan_out << ", " << tokens << " tokens");
    outcome const convex = routed(fl::lyapunov_convex{}, slot.view, slot.servers_model);
    outcome const squared = routed(fl::exact_drift{}, slot.view, slot.servers_model, fl::ties_rotating{});
    double const reached = fl::slot_value(coupled, convex.rows(), convex.counts);
    CHECK(reached == Approx(best_coupled).epsilon(1e-9).margin(1e-9));
    CHECK(fl::slot_value(drift, squared.rows(), squared.counts) == Approx(best_drift).epsilon(1e-9).margin(1e-9));
    outcome const linear = routed(fl::lyapunov_linear{}, slot.view, slot.servers_model);
    coupled_wins += fl::slot_value(coupled, linear.rows(), linear.counts) > reached + 1e-6 ? 1 : 0;
  }
  CHECK(coupled_wins > 10);  // of 240: the cases are such that exactness shows
}

TEST_CASE("the costs of a server are convex, and their closed forms are the best services", "[edge]") {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    small_slot const slot(1, 3, 1, seed);
    fl::coupled_cost<fl::cubic_energy> const coupled{&slot.view, &slot.servers_model};
    fl::exact_drift_cost<fl::cubic_energy> const drift{&slot.view, &slot.servers_model};
    for (index_t j = 0; j < 3; ++j) {
      auto const at = static_cast<std::size_t>(j);
      double const price = slot.view.weights.energy * slot.debt[at];
      double const v = slot.view.weights.utility;
      for (index_t n = 0; n < 8; ++n) {
        CHECK(coupled.marginal(j, n + 1) >= coupled.marginal(j, n) - 1e-12);
        CHECK(drift.marginal(j, n + 1) >= drift.marginal(j, n) - 1e-12);
        double const limit = std::min(slot.servers_model.cap(j), slot.view.servable(j, n));
        for (int part = 0; part <= 50; ++part) {
          double const d = limit * part / 50.0;
          double const spent = price * slot.servers_model.energy(j, d);
          double const rest = slot.backlog[at] + static_cast<double>(n) - d;
          CHECK(coupled(j, n) <= slot.backlog[at] * static_cast<double>(n) - (slot.backlog[at] + v) * d + spent + 1e-9);
          CHECK(drift(j, n) <= 0.5 * rest * rest - v * d + spent + 1e-9);
        }
      }
    }
  }
}

TEST_CASE("a model without the closed form gets the same service by bisection", "[edge]") {
  slots::square_energy const own;
  for (double const target : {-1.0, 0.0, 0.5, 3.0, 50.0}) {
    for (double const price : {0.0, 0.1, 2.0}) {
      // d + 2 price d = target.
      double const expected = std::min(std::max(target, 0.0) / (1.0 + 2.0 * price), own.cap(1));
      CHECK(fl::nearest_service(own, 1, target, price) == Approx(expected).margin(1e-12));
    }
  }
}

TEST_CASE("the convex router's value is at most that of every other router", "[edge]") {
  fl::cubic_energy const servers(slots::paper_limits());
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    fl::matrix<float> const scores = slots::softmax_scores(120, 10, 0.7, seed, 3);
    std::vector<double> backlog, debt;
    for (std::uint64_t j = 0; j < 10; ++j) {
      backlog.push_back(300.0 * static_cast<double>(fl::philox::uniform(seed, 9, j)));
      debt.push_back(seed == 0 ? 0.0 : 40.0 * static_cast<double>(fl::philox::uniform(seed, 10, j)));
    }
    fl::slot_view const view{.scores = scores.view(), .backlog = backlog, .energy_debt = debt, .weights = {}, .fan_out = 3};
    fl::coupled_cost<fl::cubic_energy> const coupled{&view, &servers};
    fl::exact_drift_cost<fl::cubic_energy> const drift{&view, &servers};
    outcome const best = routed(fl::lyapunov_convex{}, view, servers);
    outcome const squared = routed(fl::exact_drift{}, view, servers);
    double const least = fl::slot_value(coupled, best.rows(), best.counts);
    double const least_drift = fl::slot_value(drift, squared.rows(), squared.counts);
    each_router([&](char const* name, auto const& router) {
      INFO(name << ", seed " << seed);
      outcome const other = routed(router, view, servers);
      CHECK(least <= fl::slot_value(coupled, other.rows(), other.counts) + 1e-6);
      CHECK(least_drift <= fl::slot_value(drift, other.rows(), other.counts) + 1e-6);
    });
    // The certificate says the same without other routers.
    std::vector<fl::expert_id> choice(360);
    std::vector<index_t> counts(10);
    fl::lyapunov_convex const router;
    fl::arena<> memory(router.workspace_bytes(120, 10, 3));
    fl::workspace ws = memory.view();
    auto const report = router.solve(view, servers, fl::ties_by_id{}, {choice.data(), 120, 3}, counts, ws);
    CHECK(report.status == fl::status::ok);
    CHECK(report.gap() <= 1e-6 * std::abs(report.value));
  }
}

TEST_CASE("a heavy gate makes its own choice, and V mu = 0 is least loaded, of one and the same rule", "[edge]") {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    small_slot slot(30, 5, 2, seed);
    slot.view.weights.gate = 1.0;
    slot.view.weights.utility = 1e12;
    outcome const gate = routed(fl::score_first{}, slot.view, slot.servers_model);
    CHECK(routed(fl::lyapunov_linear{}, slot.view, slot.servers_model).choice == gate.choice);
    // The coupled form also counts what the routing lets servers serve, with the same V: there the limit is that of mu.
    slot.view.weights = {.utility = 1.0, .gate = 1e12, .energy = 1.0};
    outcome const convex = routed(fl::lyapunov_convex{}, slot.view, slot.servers_model);
    outcome const squared = routed(fl::exact_drift{}, slot.view, slot.servers_model);
    for (index_t t = 0; t < 30; ++t) {
      CHECK(convex.row(t) == gate.row(t));
      CHECK(squared.row(t) == gate.row(t));
    }

    for (auto const& [v, mu] : {std::pair{5.0, 0.0}, std::pair{0.0, 1.0}}) {
      slot.view.weights.utility = v;
      slot.view.weights.gate = mu;
      CHECK(routed(fl::lyapunov_linear{}, slot.view, slot.servers_model).choice ==
            routed(fl::queue_first{}, slot.view, slot.servers_model).choice);
    }
  }
}

TEST_CASE("without gate, equal servers and energy queues: the exact drift levels the queues as well as the sequential rule", "[edge]") {
  std::vector<fl::server_limits> const equal(5, fl::server_limits{.energy_cap_j = 1e-3, .energy_budget_j = 1e-3});
  fl::cubic_energy const servers(equal);  // caps of about 8 copies
  std::vector<double> const backlog{30.0, 12.0, 25.0, 12.0, 18.0};
  std::vector<double> const debt(5, 1.0);
  std::vector<float> const scores(40 * 5, 0.2F);
  fl::slot_view const view{.scores = {scores.data(), 40, 5}, .backlog = backlog, .energy_debt = debt,
                           .weights = {.utility = 3.0, .gate = 0.0, .energy = 1.0}, .fan_out = 2};
  outcome const squared = routed(fl::exact_drift{}, view, servers);
  outcome const shortest = routed(fl::join_shortest_queue{}, view, servers);
  auto const levels = [&](outcome const& o) {
    std::vector<double> all;
    for (std::size_t j = 0; j < 5; ++j) { all.push_back(backlog[j] + static_cast<double>(o.counts[j])); }
    std::sort(all.begin(), all.end());
    return all;
  };
  CHECK(levels(squared) == levels(shortest));
  CHECK(levels(shortest).back() - levels(shortest).front() <= 5.0);
  CHECK(routed(fl::queue_first{}, view, servers).counts == std::vector<index_t>{0, 40, 0, 40, 0});
}

TEST_CASE("with numbers in general position, renaming the servers renames the choices", "[edge]") {
  std::vector<index_t> const renamed{3, 0, 4, 1, 2};  // new name of each server
  for (std::uint64_t seed = 1; seed < 30; seed += 2) {  // odd seeds: fractional backlogs
    small_slot const slot(12, 5, 2, seed);
    std::vector<double> backlog(5), debt(5);
    std::vector<fl::server_limits> limits(5);
    fl::matrix<float> scores(12, 5);
    for (index_t j = 0; j < 5; ++j) {
      auto const from = static_cast<std::size_t>(j);
      auto const to = static_cast<std::size_t>(renamed[from]);
      backlog[to] = slot.backlog[from];
      debt[to] = seed % 3 == 0 ? 0.1 * static_cast<double>(j + 1) : slot.debt[from];
      limits[to] = {.energy_cap_j = 1e6, .energy_budget_j = 1.0, .max_frequency_hz = slot.servers_model.cap(j),
                    .cycles_per_copy = 1.0, .capacitance = 1.0 / 3.0};
      for (index_t t = 0; t < 12; ++t) { scores(t, renamed[from]) = slot.scores(t, j); }
    }
    std::vector<double> plain_debt(5);
    for (std::size_t j = 0; j < 5; ++j) { plain_debt[j] = debt[static_cast<std::size_t>(renamed[j])]; }
    fl::slot_view view = slot.view;
    view.energy_debt = plain_debt;
    fl::slot_view other = slot.view;
    other.scores = scores.view();
    other.backlog = backlog;
    other.energy_debt = debt;
    fl::cubic_energy const other_servers(limits);
    each_router([&](char const* name, auto const& router) {
      if (std::string(name) == "random_servers") { return; }
      INFO(name << ", seed " << seed);
      outcome const a = routed(router, view, slot.servers_model);
      outcome const b = routed(router, other, other_servers);
      for (index_t t = 0; t < 12; ++t) {
        std::set<index_t> expected;
        for (index_t const j : a.row(t)) { expected.insert(renamed[static_cast<std::size_t>(j)]); }
        CHECK(b.row(t) == expected);
      }
    });
  }
}

TEST_CASE("tie policies: ids, turns, chance", "[edge]") {
  fl::cubic_energy const servers(slots::paper_limits(5));
  std::vector<double> const zeros(5, 0.0);
  std::vector<float> const scores(2000 * 5, 0.2F);
  fl::slot_view view{.scores = {scores.data(), 2000, 5}, .backlog = zeros, .energy_debt = zeros, .weights = {}, .fan_out = 2};
  CHECK(routed(fl::queue_first{}, view, servers).counts == std::vector<index_t>{2000, 2000, 0, 0, 0});
  CHECK(routed(fl::energy_first{}, view, servers, fl::ties_rotating{}).counts == std::vector<index_t>(5, 800));
  outcome const chance = routed(fl::queue_first{}, view, servers, fl::ties_seeded{7});
  for (index_t const own : chance.counts) { CHECK(std::abs(own - 800) < 120); }
  CHECK(chance.choice != routed(fl::queue_first{}, view, servers, fl::ties_seeded{8}).choice);
  // A later slot goes on where this one ended.
  view.first_token = 3;
  CHECK(routed(fl::queue_first{}, view, servers, fl::ties_rotating{}).row(0) == std::set<index_t>{3, 4});
  // A policy never overrules a key.
  std::vector<double> const queues{0.0, 3.0, 1.0, 2.0, 9.0};
  view.backlog = queues;
  CHECK(routed(fl::lyapunov_linear{}, view, servers, fl::ties_seeded{7}).row(17) == std::set<index_t>{0, 2});
}

TEST_CASE("chance picks each set of servers equally often, and the seed says which", "[edge]") {
  fl::cubic_energy const servers(slots::paper_limits(4));
  std::vector<double> const zeros(4, 0.0);
  std::vector<float> const scores(6000 * 4, 0.0F);
  fl::slot_view view{.scores = {scores.data(), 6000, 4}, .backlog = zeros, .energy_debt = zeros, .weights = {}, .fan_out = 2, .seed = 4};
  outcome const one = routed(fl::random_servers{}, view, servers);
  std::vector<int> sets(16, 0);
  for (index_t t = 0; t < 6000; ++t) {
    unsigned mask = 0;
    for (index_t const j : one.row(t)) { mask |= 1U << static_cast<unsigned>(j); }
    ++sets[mask];
  }
  for (unsigned const mask : {3U, 5U, 9U, 6U, 10U, 12U}) { CHECK(std::abs(sets[mask] - 1000) < 130); }
  view.seed = 5;
  CHECK(routed(fl::random_servers{}, view, servers).choice != one.choice);
}

TEST_CASE("the sequential rules equal their definitions", "[edge]") {
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    small_slot const slot(25, 5, 1 + static_cast<index_t>(seed % 4), seed);
    for (bool const by_delay : {false, true}) {
      std::vector<index_t> counts(5, 0);
      std::vector<std::set<index_t>> expected;
      for (index_t t = 0; t < 25; ++t) {
        std::vector<index_t> order(5);
        std::iota(order.begin(), order.end(), index_t{0});
        auto const key = [&](index_t j) {
          auto const at = static_cast<std::size_t>(j);
          double const length = slot.backlog[at] + static_cast<double>(counts[at]);
          return by_delay ? (length + 1.0) / slot.servers_model.sustained(j) : length;
        };
        std::sort(order.begin(), order.end(), [&](index_t a, index_t b) { return key(a) != key(b) ? key(a) < key(b) : a < b; });
        order.resize(static_cast<std::size_t>(slot.view.fan_out));
        expected.emplace_back(order.begin(), order.end());
        for (index_t const j : order) { ++counts[static_cast<std::size_t>(j)]; }
      }
      outcome const got = by_delay ? routed(fl::shortest_delay{}, slot.view, slot.servers_model)
                                   : routed(fl::join_shortest_queue{}, slot.view, slot.servers_model);
      CHECK(got.counts == counts);
      for (index_t t = 0; t < 25; ++t) { CHECK(got.row(t) == expected[static_cast<std::size_t>(t)]); }
    }
  }
}

TEST_CASE("the servers of a token are its best ones in order, also where keys are equal", "[edge]") {
  fl::cubic_energy const servers(slots::paper_limits(7));
  std::vector<double> const zeros(7, 0.0);
  std::vector<float> scores(7 * 300);
  for (std::size_t i = 0; i < scores.size(); ++i) {
    scores[i] = static_cast<float>(fl::philox::below(fl::philox::draw(3, 1, i)[0], 3));  // few values, many ties
  }
  for (index_t fan_out = 1; fan_out <= 7; ++fan_out) {
    fl::slot_view const view{.scores = {scores.data(), 300, 7}, .backlog = zeros, .energy_debt = zeros, .weights = {}, .fan_out = fan_out};
    for (bool const turns : {false, true}) {
      outcome const got = turns ? routed(fl::score_first{}, view, servers, fl::ties_rotating{}) : routed(fl::score_first{}, view, servers);
      for (index_t t = 0; t < 300; ++t) {
        std::vector<index_t> order(7);
        std::iota(order.begin(), order.end(), index_t{0});
        auto const rank = [&](index_t j) { return turns ? fl::ties_rotating{}.rank(view, t, j) : fl::ties_by_id{}.rank(view, t, j); };
        std::sort(order.begin(), order.end(), [&](index_t a, index_t b) {
          return view.scores(t, a) != view.scores(t, b) ? view.scores(t, a) > view.scores(t, b) : rank(a) < rank(b);
        });
        for (index_t k = 0; k < fan_out; ++k) { CHECK(fl::to_index(got.rows()(t, k)) == order[static_cast<std::size_t>(k)]); }
      }
    }
  }
}

TEST_CASE("back-pressure weighs the difference of the queues with the rate", "[edge]") {
  fl::unmetered const servers(std::vector<double>{1.0, 4.0, 2.0});
  std::vector<double> const backlog{0.0, 8.0, 3.0};
  std::vector<double> const zeros(3, 0.0);
  std::vector<float> const scores(30, 0.0F);
  // 10 copies at the router: weights 10, 8, 14.
  fl::slot_view const view{.scores = {scores.data(), 10, 3}, .backlog = backlog, .energy_debt = zeros, .weights = {}, .fan_out = 1};
  CHECK(routed(fl::max_weight{}, view, servers).counts == std::vector<index_t>{0, 0, 10});
}

TEST_CASE("bad parameters say what to do", "[edge]") {
  auto const with = [](auto change) {
    std::vector<fl::server_limits> limits = slots::paper_limits(3);
    change(limits[1]);
    return [limits] { (void)fl::cubic_energy(limits); };
  };
  CHECK(slots::violation(with([](auto& s) { s.energy_budget_j = 0.0; })).find("positive energy budget") != std::string::npos);
  CHECK(slots::violation(with([](auto& s) { s.energy_cap_j = -1.0; })).find("positive energy cap") != std::string::npos);
  CHECK(slots::violation(with([](auto& s) { s.max_frequency_hz = 0.0; })).find("frequency") != std::string::npos);
  CHECK(slots::violation(with([](auto& s) { s.cycles_per_copy = -3.0; })).find("cycles") != std::string::npos);
  CHECK(slots::violation(with([](auto& s) { s.capacitance = 0.0; })).find("unmetered") != std::string::npos);
  CHECK(slots::violation(with([](auto& s) { s.energy_budget_j = std::numeric_limits<double>::quiet_NaN(); })).find("budget") != std::string::npos);
  CHECK(slots::violation([] { (void)fl::cubic_energy(slots::paper_limits(3), 0.0); }).find("positive time") != std::string::npos);
  CHECK(slots::violation([] { (void)fl::unmetered(std::vector<double>{1.0, -2.0}); }).find("rate of a server") != std::string::npos);
  fl::unmetered rates(std::vector<double>{1.0, 2.0});
  CHECK(slots::violation([&] { rates.set_rate(0, 0.0); }).find("rate of a server") != std::string::npos);
  CHECK(slots::violation([&] { rates.set_rate(2, 1.0); }).find("no such server") != std::string::npos);

  small_slot slot(3, 3, 1, 1);
  slot.view.fan_out = 4;
  CHECK(slots::violation([&] { (void)routed(fl::lyapunov_linear{}, slot.view, slot.servers_model); }).find("distinct servers") != std::string::npos);
  CHECK(slots::violation([&] { (void)routed(fl::exact_drift{}, slot.view, slot.servers_model); }).find("distinct servers") != std::string::npos);
  slot.view.fan_out = 1;
  slot.view.weights.utility = -1.0;
  CHECK(slots::violation([&] { (void)routed(fl::lyapunov_convex{}, slot.view, slot.servers_model); }).find("negative") != std::string::npos);
  slot.view.weights.utility = 1.0;
  slot.scores(1, 1) = std::numeric_limits<float>::quiet_NaN();
  CHECK(slots::violation([&] { (void)routed(fl::queue_first{}, slot.view, slot.servers_model); }).find("finite") != std::string::npos);
}

namespace {
// A user's rule that excludes servers.
struct only_short_queues : fl::keyed_router<only_short_queues, fl::server_keys> {
  template <fl::energy_model Model>
  [[nodiscard]] auto keys(fl::slot_view const& view, Model const&, std::span<double>) const {
    return [&view](index_t j) {
      double const waiting = view.backlog[static_cast<std::size_t>(j)];
      return waiting > 50.0 ? -std::numeric_limits<double>::infinity() : -waiting;
    };
  }
};
struct scores_or_nothing : fl::keyed_router<scores_or_nothing, fl::token_keys> {
  template <fl::energy_model Model>
  [[nodiscard]] auto keys(fl::slot_view const& view, Model const&, std::span<double>) const {
    return [&view](index_t t, index_t j) {
      auto const score = static_cast<double>(view.scores(t, j));
      return score < 0.5 ? (j % 2 == 0 ? std::numeric_limits<double>::quiet_NaN() : -std::numeric_limits<double>::infinity()) : score;
    };
  }
};
}  // namespace

TEST_CASE("keys of NaN and -inf come last, and every token still gets distinct servers", "[edge]") {
  std::vector<double> const rates{1.0, 2.0, 3.0, 4.0, 5.0};
  fl::unmetered const servers(rates);
  std::vector<double> const waiting{100.0, 100.0, 7.0, 100.0, 3.0};
  std::vector<double> const none(5, 0.0);
  auto const scores = slots::softmax_scores(67, 5, 2.0, 9, 0);
  for (index_t fan_out = 1; fan_out <= 5; ++fan_out) {
    fl::slot_view const view{.scores = scores.view(), .backlog = waiting, .energy_debt = none, .weights = {}, .fan_out = fan_out};
    outcome const queues = routed(only_short_queues{}, view, servers);
    outcome const gate = routed(scores_or_nothing{}, view, servers);
    for (index_t t = 0; t < 67; ++t) {
      CHECK(fl::to_index(queues.rows()(t, 0)) == 4);
      if (fan_out > 1) { CHECK(fl::to_index(queues.rows()(t, 1)) == 2); }
      for (outcome const* one : {&queues, &gate}) {
        std::vector<index_t> ids;
        for (index_t k = 0; k < fan_out; ++k) { ids.push_back(fl::to_index(one->rows()(t, k))); }
        std::sort(ids.begin(), ids.end());
        CHECK(std::adjacent_find(ids.begin(), ids.end()) == ids.end());
        CHECK(ids.front() >= 0);
        CHECK(ids.back() < 5);
      }
    }
  }
}

namespace {
struct worth_from_third : fl::keyed_router<worth_from_third, fl::token_keys> {
  template <fl::energy_model Model>
  [[nodiscard]] auto keys(fl::slot_view const&, Model const&, std::span<double>) const {
    return [](index_t, index_t j) { return j < 2 ? std::numeric_limits<double>::quiet_NaN() : static_cast<double>(j % 2); };
  }
};
}  // namespace

TEST_CASE("a key of NaN does not keep its place before better ones, whatever ties and fan_out", "[edge]") {
  fl::unmetered const servers(std::vector<double>(8, 1.0));
  std::vector<double> const none(8, 0.0);
  auto const scores = slots::softmax_scores(3, 8, 0.0, 9, 0);
  auto const first = [&](index_t fan_out, auto const& ties) {
    fl::slot_view const view{.scores = scores.view(), .backlog = none, .energy_debt = none, .weights = {}, .fan_out = fan_out};
    fl::matrix<fl::expert_id> choice(3, fan_out);
    std::vector<index_t> counts(8);
    fl::arena<> memory(worth_from_third{}.workspace_bytes(3, 8, fan_out));
    fl::workspace ws = memory.view();
    worth_from_third{}.route(view, servers, ties, choice.view(), counts, ws);
    std::vector<index_t> ids;
    for (index_t k = 0; k < fan_out; ++k) { ids.push_back(fl::to_index(choice(0, k))); }
    return ids;
  };
  CHECK(first(3, fl::ties_by_id{}) == std::vector<index_t>{3, 5, 7});
  CHECK(first(6, fl::ties_by_id{}) == std::vector<index_t>{3, 5, 7, 2, 4, 6});
  CHECK(first(7, fl::ties_by_id{}) == std::vector<index_t>{3, 5, 7, 2, 4, 6, 0});
  auto ids = first(6, fl::ties_seeded{.seed = 4});
  std::sort(ids.begin(), ids.end());
  CHECK(ids == std::vector<index_t>{2, 3, 4, 5, 6, 7});
}

namespace {
struct drawn_keys : fl::keyed_router<drawn_keys, fl::token_keys> {
  std::vector<double> const* table = nullptr;
  template <fl::energy_model Model>
  [[nodiscard]] auto keys(fl::slot_view const& view, Model const&, std::span<double>) const {
    return [this, servers = view.servers()](index_t t, index_t j) { return (*table)[static_cast<std::size_t>(t * servers + j)]; };
  }
};

template <class Ties>
std::vector<index_t> sorted_servers(fl::slot_view const& view, std::vector<double> const& table, Ties const& ties, index_t token) {
  index_t const servers = view.servers();
  std::vector<index_t> ids(static_cast<std::size_t>(servers));
  std::iota(ids.begin(), ids.end(), index_t{0});
  auto const key = [&](index_t j) {
    double const given = table[static_cast<std::size_t>(token * servers + j)];
    return std::isnan(given) ? -std::numeric_limits<double>::infinity() : given;
  };
  std::sort(ids.begin(), ids.end(), [&](index_t a, index_t b) {
    if (key(a) != key(b)) { return key(a) > key(b); }
    return ties.rank(view, token, a) != ties.rank(view, token, b) ? ties.rank(view, token, a) < ties.rank(view, token, b) : a < b;
  });
  ids.resize(static_cast<std::size_t>(view.fan_out));
  return ids;
}
}  // namespace

TEST_CASE("selection by keys is that of a sort, for any number of tokens, servers and copies", "[edge]") {
  index_t wrong = 0, checked = 0;
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    auto const words = fl::philox::draw(seed, 9, 0);
    auto const servers = static_cast<index_t>(1 + words[0] % 20);
    auto const tokens = static_cast<index_t>(words[1] % 71);
    index_t const fan_out = 1 + static_cast<index_t>(words[2] % 8) % servers;
    std::vector<double> table(static_cast<std::size_t>(tokens * servers));
    for (std::size_t i = 0; i < table.size(); ++i) {
      std::uint32_t const word = fl::philox::draw(seed, 10, i)[0] % 24;
      bool const odd = words[3] % 3 == 0;  // a third of the cases have numbers that are none
      table[i] = odd && word < 4   ? std::numeric_limits<double>::quiet_NaN()
                 : odd && word < 8 ? -std::numeric_limits<double>::infinity()
                 : word == 8       ? std::numeric_limits<double>::infinity()
                                   : static_cast<double>(word % (words[3] % 2 == 0 ? 3U : 24U));
    }
    fl::unmetered const rates(std::vector<double>(static_cast<std::size_t>(servers), 1.0));
    std::vector<double> const none(static_cast<std::size_t>(servers), 0.0);
    fl::matrix<float> const scores(tokens, servers);
    fl::slot_view const view{.scores = scores.view(), .backlog = none, .energy_debt = none, .weights = {}, .fan_out = fan_out,
                             .first_token = seed, .seed = 1};
    auto const check = [&](auto const& ties) {
      drawn_keys router;
      router.table = &table;
      fl::matrix<fl::expert_id> choice(tokens, fan_out);
      std::vector<index_t> counts(static_cast<std::size_t>(servers), -1), expected(counts.size(), 0);
      fl::arena<> memory(router.workspace_bytes(tokens, servers, fan_out));
      fl::workspace ws = memory.view();
      router.route(view, rates, ties, choice.view(), counts, ws);
      for (index_t t = 0; t < tokens; ++t) {
        auto const ids = sorted_servers(view, table, ties, t);
        for (index_t k = 0; k < fan_out; ++k) {
          wrong += fl::to_index(choice(t, k)) == ids[static_cast<std::size_t>(k)] ? 0 : 1;
          ++expected[static_cast<std::size_t>(ids[static_cast<std::size_t>(k)])];
          ++checked;
        }
      }
      wrong += counts == expected ? 0 : 1;
    };
    check(fl::ties_by_id{});
    check(fl::ties_rotating{});
  }
  CHECK(checked > 50000);
  CHECK(wrong == 0);
}

TEST_CASE("back-pressure does not prefer the slow server once more waits there than at the router", "[edge]") {
  std::vector<double> const rates{1.0, 10.0};
  fl::unmetered const servers(rates);
  std::vector<double> const none(2, 0.0);
  auto const scores = slots::softmax_scores(10, 2, 0.0, 9, 0);
  auto const first = [&](double slow, double quick) {
    std::vector<double> const waiting{slow, quick};
    fl::slot_view const view{.scores = scores.view(), .backlog = waiting, .energy_debt = none, .weights = {}, .fan_out = 1};
    return routed(fl::max_weight{}, view, servers).counts;
  };
  CHECK(first(101.0, 100.0) == std::vector<index_t>{0, 10});
  CHECK(first(100.0, 101.0) == std::vector<index_t>{10, 0});
  CHECK(first(9.0, 100.0) == std::vector<index_t>{10, 0});
  CHECK(first(5.0, 9.0) == std::vector<index_t>{0, 10});  // 5 x 1 against 1 x 10
}
