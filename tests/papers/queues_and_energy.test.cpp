// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Golden vectors of the queue- and energy-aware routing (arXiv 2512.06784, reconstructed): constants of the reported
// parameters, the speed rule, two small slots, and the stability law of random routing.
#include <fairlead/edge/cubic_energy.hpp>
#include <fairlead/edge/frozen_routers.hpp>
#include <fairlead/edge/lyapunov_controller.hpp>
#include <fairlead/edge/lyapunov_exact.hpp>
#include <fairlead/edge/stability.hpp>

#include <limits>
#include <set>
#include <vector>

#include "edge/slots.hpp"
#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

namespace {

// Servers with a = 1/3, so that d* = sqrt((Q + V) / Z), and a cap of its own each.
fl::cubic_energy third_servers(std::vector<double> const& caps) {
  std::vector<fl::server_limits> limits;
  for (double const cap : caps) {
    limits.push_back({.energy_cap_j = 1e6, .energy_budget_j = 1.0, .max_frequency_hz = cap, .cycles_per_copy = 1.0, .capacitance = 1.0 / 3.0});
  }
  return fl::cubic_energy(limits);
}

template <class Router>
struct routed {
  routed(Router const& router, fl::slot_view const& view, fl::cubic_energy const& servers)
      : choice(static_cast<std::size_t>(view.tokens() * view.fan_out)), counts(static_cast<std::size_t>(view.servers())) {
    fl::arena<> memory(router.workspace_bytes(view.tokens(), view.servers(), view.fan_out));
    fl::workspace ws = memory.view();
    router.route(view, servers, fl::ties_by_id{}, {choice.data(), view.tokens(), view.fan_out}, counts, ws);
    rows = {choice.data(), view.tokens(), view.fan_out};
  }
  std::vector<fl::expert_id> choice;
  std::vector<index_t> counts;
  fl::matrix_view<fl::expert_id const> rows;
};

}  // namespace

TEST_CASE("the reported parameters give the constants of the queueing system", "[papers]") {
  auto const limits = slots::paper_limits();
  fl::cubic_energy const servers(limits);
  std::vector<double> const caps{114.471, 129.399, 141.503, 151.829, 160.915, 169.076, 176.517, 183.379, 189.763, 195.743};
  std::vector<double> const sustained{90.856, 106.102, 117.901, 127.718, 136.222, 143.778, 150.615, 156.881, 162.683, 168.099};
  for (index_t j = 0; j < 10; ++j) {
    CHECK(servers.coefficient(j) == Approx(2e-6));
    CHECK(servers.cap(j) == Approx(caps[static_cast<std::size_t>(j)]).margin(5e-4));
    CHECK(servers.sustained(j) == Approx(sustained[static_cast<std::size_t>(j)]).margin(5e-4));
    CHECK(servers.energy(j, servers.cap(j)) == Approx(limits[static_cast<std::size_t>(j)].energy_cap_j));
  }
  fl::arena<> memory(fl::workspace_bytes<double>(10));
  fl::workspace ws = memory.view();
  CHECK(fl::stable_arrivals(servers, 3, ws) == Approx(453.618).margin(5e-4));
  CHECK(fl::evenly_stable_arrivals(servers, 3) == Approx(302.853).margin(5e-4));
  fl::drift_bound const bound = fl::drift_constant(servers, 3, 390.0);
  CHECK(bound.arrivals == Approx(228735.0));
  CHECK(bound.service == Approx(133257.56).margin(5e-3));
  CHECK(bound.energy == Approx(183.84).margin(5e-3));
  CHECK(bound.total() == Approx(362176.4).margin(5e-2));
  CHECK_THROWS_AS(fl::drift_constant(servers, 11, 390.0), fl::contract_violation);
  CHECK_THROWS_AS(fl::drift_constant(servers, 3, -1.0), fl::contract_violation);
  CHECK_THROWS_AS(fl::drift_constant(servers, 3, 390.0, std::numeric_limits<double>::quiet_NaN()), fl::contract_violation);
}

TEST_CASE("the closed-form speed of a worked server", "[papers]") {
  fl::cubic_energy const servers(std::vector<fl::server_limits>{{.energy_cap_j = 9.0, .energy_budget_j = 5.0}});
  double const d = servers.best_service(0, 50.0 + 100.0, 1000.0);
  CHECK(d == Approx(158.1139).margin(5e-5));
  CHECK(servers.energy(0, d) == Approx(7.9057).margin(5e-5));
  CHECK(d * 1e7 == Approx(1.5811e9).epsilon(1e-4));
  CHECK(servers.best_service(0, 150.0, 0.0) == servers.cap(0));
  CHECK(servers.best_service(0, 0.0, 0.0) == servers.cap(0));
}

TEST_CASE("four equal tokens, two servers: the linear rule herds, the exact ones do not", "[papers]") {
  fl::cubic_energy const servers = third_servers({3.0, 3.0});
  std::vector<double> const backlog{0.0, 1.0};
  std::vector<double> const debt{1.0, 1.0};
  std::vector<float> const scores(8, 0.5F);
  fl::slot_view const view{.scores = {scores.data(), 4, 2}, .backlog = backlog, .energy_debt = debt,
                           .weights = {.utility = 5.0, .gate = 0.0, .energy = 1.0}, .fan_out = 1};
  fl::coupled_cost<fl::cubic_energy> const coupled{&view, &servers};
  fl::exact_drift_cost<fl::cubic_energy> const drift{&view, &servers};
  std::vector<double> const h0{0.0, -4.666667, -7.333333, -7.453560, -7.453560};
  std::vector<double> const h1{-5.666667, -8.333333, -7.797959, -6.797959, -5.797959};
  for (index_t n = 0; n <= 4; ++n) {
    CHECK(coupled(0, n) == Approx(h0[static_cast<std::size_t>(n)]).margin(1e-6));
    CHECK(coupled(1, n) == Approx(h1[static_cast<std::size_t>(n)]).margin(1e-6));
    if (n == 4) { continue; }
    CHECK(coupled.marginal(0, n) == Approx(coupled(0, n + 1) - coupled(0, n)).margin(1e-12));
    CHECK(drift.marginal(1, n) == Approx(drift(1, n + 1) - drift(1, n)).margin(1e-12));
  }

  routed const linear(fl::lyapunov_linear{}, view, servers);
  CHECK(linear.counts == std::vector<index_t>{4, 0});
  CHECK(fl::slot_value(coupled, linear.rows, linear.counts) == Approx(-13.120227).margin(1e-6));

  routed const convex(fl::lyapunov_convex{}, view, servers);
  CHECK(convex.counts == std::vector<index_t>{3, 1});
  CHECK(coupled.service(0, 3) == Approx(2.236068).margin(1e-6));
  CHECK(coupled.service(1, 1) == Approx(2.0));
  CHECK(fl::slot_value(coupled, convex.rows, convex.counts) == Approx(-15.786893).margin(1e-6));

  // (2, 2) ties with (3, 1): the value is what is right.
  routed const squared(fl::exact_drift{}, view, servers);
  CHECK(fl::slot_value(drift, squared.rows, squared.counts) == Approx(-14.547547).margin(1e-6));
  CHECK(drift.service(0, 3) == Approx(2.372281).margin(1e-6));
  CHECK(drift.service(1, 1) == Approx(2.0));
}

TEST_CASE("three tokens with two servers each: values and best choices", "[papers]") {
  fl::cubic_energy const servers = third_servers({3.0, 2.0, 3.0});
  std::vector<double> const backlog{2.0, 0.0, 5.0};
  std::vector<double> const debt{1.0, 4.0, 0.0};
  std::vector<float> const scores{0.6F, 0.3F, 0.1F, 0.5F, 0.1F, 0.4F, 0.2F, 0.2F, 0.6F};
  fl::slot_view const view{.scores = {scores.data(), 3, 3}, .backlog = backlog, .energy_debt = debt,
                           .weights = {.utility = 4.0, .gate = 1.0, .energy = 1.0}, .fan_out = 2};
  fl::coupled_cost<fl::cubic_energy> const coupled{&view, &servers};
  fl::exact_drift_cost<fl::cubic_energy> const drift{&view, &servers};
  auto const sorted = [](auto const& r, index_t t) {
    return std::set<index_t>{fl::to_index(r.rows(t, 0)), fl::to_index(r.rows(t, 1))};
  };
  std::set<index_t> const low{0, 1};
  std::set<index_t> const high{1, 2};

  routed const linear(fl::lyapunov_linear{}, view, servers);
  routed const convex(fl::lyapunov_convex{}, view, servers);
  CHECK(fl::slot_value(coupled, linear.rows, linear.counts) == Approx(-41.064626).margin(2e-6));
  CHECK(fl::slot_value(coupled, convex.rows, convex.counts) == Approx(-41.064626).margin(2e-6));
  for (index_t t = 0; t < 3; ++t) {
    CHECK(sorted(linear, t) == low);
    CHECK(sorted(convex, t) == low);
  }
  CHECK(convex.counts == std::vector<index_t>{3, 3, 0});
  CHECK(coupled.service(0, 3) == Approx(2.449490).margin(1e-6));
  CHECK(coupled.service(1, 3) == Approx(1.0));
  CHECK(coupled.service(2, 0) == Approx(3.0));

  routed const squared(fl::exact_drift{}, view, servers);
  CHECK(fl::slot_value(drift, squared.rows, squared.counts) == Approx(-21.290289).margin(2e-6));
  CHECK(squared.counts == std::vector<index_t>{2, 3, 1});
  CHECK(sorted(squared, 0) == low);
  CHECK(sorted(squared, 1) == low);
  CHECK(sorted(squared, 2) == high);
  CHECK(drift.service(0, 2) == Approx(2.372281).margin(1e-6));
  CHECK(drift.service(1, 3) == Approx(1.203768).margin(1e-6));
  CHECK(drift.service(2, 1) == Approx(3.0));

  // The second best values, by trying everything.
  std::multiset<double> all_coupled;
  std::multiset<double> all_drift;
  slots::each_choice(3, 3, 2, [&](auto rows, auto const& counts) {
    all_coupled.insert(fl::slot_value(coupled, rows, counts));
    all_drift.insert(fl::slot_value(drift, rows, counts));
  });
  CHECK(all_coupled.size() == 27);
  CHECK(*all_coupled.begin() == Approx(-41.064626).margin(2e-6));
  CHECK(*std::next(all_coupled.begin()) == Approx(-39.664626).margin(2e-6));
  CHECK(*all_drift.begin() == Approx(-21.290289).margin(2e-6));
  CHECK(*std::next(all_drift.begin()) == Approx(-20.592368).margin(2e-6));
}

TEST_CASE("random routing is stable at 300 tokens a slot and not at 310", "[papers]") {
  // With the speed of the budget the weakest server gains lambda K / J - d_avg copies a slot.
  fl::lyapunov_controller const controller{.servers = fl::cubic_energy(slots::paper_limits()), .fan_out = 3,
                                           .router = fl::random_servers{}, .speed = fl::average_budget_speed{}};
  auto const weakest_after = [&](double rate, std::uint64_t all) {
    auto state = controller.make_state({.max_arrivals = 500, .max_waiting = 40000});
    fl::arena<> memory(controller.workspace_bytes(500));
    fl::matrix<float> const scores(500, 10);
    for (std::uint64_t slot = 0; slot < all; ++slot) {
      fl::workspace ws = memory.view();
      (void)controller.step({scores.view().data(), slots::poisson(rate, 5, slot), 10}, state, ws);
    }
    return state.backlog[0];
  };
  constexpr std::uint64_t slots_passed = 3000;
  double const growth = weakest_after(310.0, slots_passed) / static_cast<double>(slots_passed);
  CHECK(growth == Approx(93.0 - 90.856).epsilon(0.25));
  CHECK(weakest_after(300.0, slots_passed) / static_cast<double>(slots_passed) < 0.4);
}
