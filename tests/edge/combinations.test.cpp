// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The controller with every router, speed rule, order, tie policy and energy model, on ragged slots of small systems.
#include <fairlead/edge/frozen_routers.hpp>
#include <fairlead/edge/lyapunov_controller.hpp>
#include <fairlead/edge/lyapunov_exact.hpp>
#include <fairlead/edge/sequential_routers.hpp>
#include <fairlead/edge/unmetered.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "edge/slots.hpp"
#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

namespace {

// Routers and speed rules meet at run time, so that 720 combinations are 18 types.
struct any_router {
  using kinds = std::variant<fl::lyapunov_linear, fl::lyapunov_convex, fl::exact_drift, fl::score_first, fl::random_servers, fl::queue_first,
                             fl::energy_first, fl::max_weight, fl::join_shortest_queue, fl::shortest_delay>;
  kinds own;
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens, index_t servers, index_t fan_out) const {
    return std::visit([&](auto const& router) { return router.workspace_bytes(tokens, servers, fan_out); }, own);
  }
  template <fl::energy_model Model, fl::tie_break Ties>
  void route(fl::slot_view const& view, Model const& servers, Ties const& ties, fl::matrix_view<fl::expert_id> choice,
             std::span<index_t> counts, fl::workspace& ws) const {
    std::visit([&](auto const& router) { router.route(view, servers, ties, choice, counts, ws); }, own);
  }
};
struct any_speed {
  using kinds = std::variant<fl::closed_form_speed, fl::exact_drift_speed, fl::fixed_speed, fl::average_budget_speed>;
  kinds own;
  template <fl::energy_model Model>
  void speeds(fl::slot_view const& view, Model const& servers, std::span<index_t const> counts, std::span<double> service) const {
    std::visit([&](auto const& rule) { rule.speeds(view, servers, counts, service); }, own);
  }
};
template <class Kinds, class Function>
void each_kind(Function f) {
  [&]<std::size_t... kind>(std::index_sequence<kind...>) {
    (f(Kinds(std::in_place_index<kind>)), ...);
  }(std::make_index_sequence<std::variant_size_v<Kinds>>{});
}

fl::cubic_energy cubic(index_t servers) {
  std::vector<fl::server_limits> limits;
  for (index_t j = 0; j < servers; ++j) {
    limits.push_back({.energy_cap_j = 4.0 + static_cast<double>(j), .energy_budget_j = 2.0, .max_frequency_hz = 3.0,
                      .cycles_per_copy = 1.0, .capacitance = 1.0});
  }
  return fl::cubic_energy(limits);
}
fl::unmetered rates(index_t servers) {
  std::vector<double> each;
  for (index_t j = 0; j < servers; ++j) { each.push_back(0.6 + static_cast<double>(j)); }
  return fl::unmetered(each);
}

constexpr std::array<index_t, 8> ragged{0, 5, 1, 0, 9, 3, 0, 2};

// The first law that a path breaks; empty if none.
template <class Model, class Order, class Ties>
std::string broken_law(Model const& servers, index_t fan_out, any_router const& router, any_speed const& speed, Order order, Ties const& ties) {
  fl::lyapunov_controller const controller{.servers = servers, .fan_out = fan_out, .weights = {.utility = 5.0, .gate = 2.0, .energy = 0.7},
                                           .router = router, .speed = speed, .order = order, .ties = ties, .seed = 3};
  index_t const count = servers.servers();
  auto state = controller.make_state({.max_arrivals = 9, .max_waiting = 20});
  fl::arena<> memory(controller.workspace_bytes(9));
  std::vector<double> spent(static_cast<std::size_t>(count), 0.0);
  index_t arrived = 0, completed = 0;
  double copies = 0.0;
  for (std::size_t slot = 0; slot < ragged.size(); ++slot) {
    fl::matrix<float> const scores = slots::softmax_scores(ragged[slot], count, 1.0, 5, slot);
    std::vector<double> const before = state.backlog;
    fl::workspace ws = memory.view();
    fl::slot_report const report = controller.step(scores.view(), state, ws);
    arrived += report.arrivals;
    completed += static_cast<index_t>(report.completed.size());
    copies += report.copies;
    if (report.arrivals != ragged[slot] || report.dropped != 0) { return "everybody is let in"; }
    for (index_t t = 0; t < report.admitted; ++t) {
      std::set<index_t> distinct;
      for (index_t k = 0; k < fan_out; ++k) { distinct.insert(fl::to_index(report.choice(t, k))); }
      if (static_cast<index_t>(distinct.size()) != fan_out || *distinct.begin() < 0 || *distinct.rbegin() >= count) { return "distinct servers"; }
    }
    index_t sent = 0;
    for (index_t j = 0; j < count; ++j) {
      auto const i = static_cast<std::size_t>(j);
      auto const own = static_cast<double>(report.sent[i]);
      double const there = Order::serves_arrivals ? before[i] + own : before[i];
      sent += report.sent[i];
      spent[i] += report.energy[i];
      if (!(report.served[i] >= 0.0 && report.served[i] <= std::min(servers.cap(j), there))) { return "service within cap and copies"; }
      if (!(std::abs(before[i] + own - report.served[i] - state.backlog[i]) < 1e-9 && state.backlog[i] >= 0.0)) { return "copies are conserved"; }
      double const time = static_cast<double>(slot) + 1.0;
      if (!(state.energy_debt[i] >= 0.0 && spent[i] / time <= servers.budget(j) + state.energy_debt[i] / time + 1e-9)) { return "energy within budget and debt"; }
      if (fan_out == count && report.sent[i] != report.admitted) { return "all servers get every token"; }
    }
    if (sent != report.admitted * fan_out) { return "fan_out copies a token"; }
    if (report.admitted == 0 && report.gate_mass != 0.0) { return "no tokens, no gate mass"; }
  }
  if (arrived != 20 || completed + state.under_way != arrived) { return "tokens are conserved"; }
  if (!(copies > 0.0 && std::abs(copies + state.total_backlog() - 20.0 * static_cast<double>(fan_out)) < 1e-6)) { return "all copies are served or wait"; }
  return {};
}

template <class Model>
int try_all(char const* name, Model const& servers, index_t fan_out) {
  int tried = 0;
  each_kind<any_router::kinds>([&](any_router::kinds const& router) {
    each_kind<any_speed::kinds>([&](any_speed::kinds const& speed) {
      auto const with = [&](char const* what, auto order, auto const& ties) {
        INFO(name << ", " << servers.servers() << " servers, fan_out " << fan_out << ", router " << router.index() << ", speed "
                  << speed.index() << ", " << what);
        CHECK(broken_law(servers, fan_out, any_router{router}, any_speed{speed}, order, ties) == "");
        ++tried;
      };
      auto const both = [&](char const* what, auto const& ties) {
        with(what, fl::serve_same_slot{}, ties);
        with(what, fl::serve_next_slot{}, ties);
      };
      both("by id", fl::ties_by_id{});
      both("rotating", fl::ties_rotating{});
      both("seeded", fl::ties_seeded{.seed = 8});
    });
  });
  return tried;
}

}  // namespace

TEST_CASE("every combination of router, speed rule, order, ties and energy keeps the laws of a slot", "[edge]") {
  int tried = 0;
  for (auto const& [servers, fan_out] : {std::array<index_t, 2>{1, 1}, {3, 3}, {5, 2}}) {
    tried += try_all("cubic", cubic(servers), fan_out);
    tried += try_all("unmetered", rates(servers), fan_out);
    tried += try_all("square", slots::square_energy{servers}, fan_out);
  }
  CHECK(tried == 3 * 720);
}
