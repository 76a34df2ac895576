// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/saved_state.hpp>
#include <fairlead/edge/frozen_routers.hpp>
#include <fairlead/edge/lyapunov_controller.hpp>
#include <fairlead/edge/lyapunov_exact.hpp>
#include <fairlead/edge/sequential_routers.hpp>
#include <fairlead/edge/unmetered.hpp>
#include <fairlead/edge/utility_bound.hpp>
#include <fairlead/exec/serial.hpp>

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "edge/slots.hpp"
#include "support/catch.hpp"
#include "support/count_allocations.hpp"

namespace fl = fairlead;
using fl::index_t;

namespace {

constexpr index_t servers = 10;
constexpr index_t fan_out = 3;

template <class Router, class Speed = fl::closed_form_speed, class Order = fl::serve_same_slot, class Admission = fl::accept_all>
auto paper_controller(double utility, Router router = {}, Speed speed = {}, Order order = {}, Admission admission = {}) {
  return fl::lyapunov_controller{.servers = fl::cubic_energy(slots::paper_limits(servers)), .fan_out = fan_out,
                                 .weights = {.utility = utility, .gate = 1.0, .energy = 0.7}, .router = router, .speed = speed,
                                 .order = order, .ties = fl::ties_by_id{}, .admission = admission, .seed = 11};
}

// What a copy meets, by deques: whole copies in order, the served part of the first one, tokens that are done when their
// last copy is.
struct plain_queues {
  std::vector<std::deque<index_t>> queue = std::vector<std::deque<index_t>>(servers);
  std::vector<double> progress = std::vector<double>(servers, 0.0);
  std::map<index_t, index_t> left;
  std::vector<index_t> done;
  void arrive(fl::slot_report const& report) {
    for (index_t t = 0; t < report.admitted; ++t) {
      left[report.first_token + t] = fan_out;
      for (index_t k = 0; k < fan_out; ++k) { queue[static_cast<std::size_t>(report.choice(t, k))].push_back(report.first_token + t); }
    }
  }
  void serve(fl::slot_report const& report) {
    done.clear();
    for (std::size_t j = 0; j < servers; ++j) {
      progress[j] += report.served[j];
      while (!queue[j].empty() && progress[j] > 1.0 - 1e-7) {
        progress[j] = std::max(progress[j] - 1.0, 0.0);
        if (--left[queue[j].front()] == 0) { done.push_back(queue[j].front()); }
        queue[j].pop_front();
      }
      if (queue[j].empty()) { progress[j] = 0.0; }
    }
  }
};

template <class Controller>
void check_path(Controller const& controller, double rate, bool same_slot) {
  constexpr std::uint64_t all_slots = 60;
  auto state = controller.make_state({.max_arrivals = 900, .max_waiting = 60000});
  fl::arena<> memory(controller.workspace_bytes(900));
  plain_queues deques;
  std::vector<double> spent(servers, 0.0);
  double const w = controller.weights.energy;
  for (std::uint64_t slot = 0; slot < all_slots; ++slot) {
    index_t const tokens = slot == 7 ? 0 : slots::poisson(rate, 1, slot);
    fl::matrix<float> const scores = slots::softmax_scores(tokens, servers, 0.5, 2, slot);
    std::vector<double> const q = state.backlog;
    std::vector<double> const z = state.energy_debt;
    double const before = state.lyapunov(w);
    fl::workspace ws = memory.view();
    fl::slot_report const report = controller.step(scores.view(), state, ws);
    INFO("slot " << slot);

    // Conservation, in copies and server by server.
    CHECK(report.arrivals == tokens);
    CHECK(report.admitted + report.dropped == tokens);
    index_t sent = 0;
    double mass = 0.0;
    double drift_bound = 0.0;
    double weighted = 0.0;
    for (std::size_t j = 0; j < servers; ++j) {
      auto const server = static_cast<index_t>(j);
      auto const a = static_cast<double>(report.sent[j]);
      double const d = report.served[j];
      double const e = report.energy[j];
      double const budget = controller.servers.budget(server);
      sent += report.sent[j];
      CHECK(state.backlog[j] == Approx(q[j] + a - d).margin(1e-7));
      CHECK(state.backlog[j] >= 0.0);
      CHECK(state.energy_debt[j] >= 0.0);
      CHECK(d >= 0.0);
      CHECK(d <= controller.servers.cap(server));
      CHECK(d <= (same_slot ? q[j] + a : q[j]));
      CHECK(e <= slots::paper_limits(servers)[j].energy_cap_j * (1.0 + 1e-12));
      spent[j] += e;
      CHECK(spent[j] / static_cast<double>(slot + 1) <= budget + state.energy_debt[j] / static_cast<double>(slot + 1) + 1e-9);
      drift_bound += 0.5 * (a * a + d * d + w * (e - budget) * (e - budget));
      weighted += q[j] * (a - d) + w * z[j] * (e - budget);
    }
    CHECK(sent == report.admitted * fan_out);
    for (index_t t = 0; t < report.admitted; ++t) {
      for (index_t k = 0; k < fan_out; ++k) { mass += static_cast<double>(scores(t, fl::to_index(report.choice(t, k)))); }
    }
    CHECK(report.gate_mass == Approx(mass));
    CHECK(report.utility == Approx(report.copies + controller.weights.gate * mass));
    CHECK(report.drift == Approx(state.lyapunov(w) - before).margin(1e-6));

    // The drift's bound, on this very path: realised numbers instead of expectations and of the constant B.
    CHECK(report.drift <= drift_bound + weighted + 1e-6 * (1.0 + std::abs(weighted)));

    // First in, first out; a token is done with its last copy.
    if (same_slot) { deques.arrive(report); }
    deques.serve(report);
    if (!same_slot) { deques.arrive(report); }
    CHECK(std::vector<index_t>(report.completed.begin(), report.completed.end()) == deques.done);
    for (index_t const delay : report.delays) { CHECK((delay >= (same_slot ? 0 : 1) && delay <= static_cast<index_t>(slot))); }
    CHECK(report.copies / 3.0 == Approx(report.tokens_served()));
  }
  CHECK(state.slot == static_cast<index_t>(all_slots));
}

}  // namespace

TEST_CASE("queues, energy and drift obey their laws on every path", "[edge]") {
  check_path(paper_controller(100.0, fl::lyapunov_linear{}), 390.0, true);
  check_path(paper_controller(100.0, fl::lyapunov_convex{}), 390.0, true);
  check_path(paper_controller(30.0, fl::exact_drift{}, fl::exact_drift_speed{}), 440.0, true);
  check_path(paper_controller(10.0, fl::score_first{}), 520.0, true);
  check_path(paper_controller(10.0, fl::queue_first{}, fl::fixed_speed{0.5}), 390.0, true);
  check_path(paper_controller(10.0, fl::join_shortest_queue{}, fl::average_budget_speed{}, fl::serve_next_slot{}), 390.0, false);
  check_path(paper_controller(100.0, fl::lyapunov_convex{}, fl::closed_form_speed{}, fl::serve_next_slot{}), 390.0, false);
  check_path(paper_controller(0.0, fl::lyapunov_linear{}), 200.0, true);
}

TEST_CASE("a slot allocates nothing", "[edge]") {
  auto const no_allocation = [](auto const& controller) {
    auto state = controller.make_state({.max_arrivals = 700, .max_waiting = 20000});
    fl::arena<> memory(controller.workspace_bytes(700));
    std::vector<fl::matrix<float>> scores;
    for (std::uint64_t slot = 0; slot < 20; ++slot) {
      scores.push_back(slots::softmax_scores(slots::poisson(400.0, 3, slot), servers, slot < 10 ? 0.0 : 2.0, 4, slot));
    }
    allocations = 0;
    double copies = 0.0;
    counting = true;
    for (fl::matrix<float> const& slot : scores) {
      fl::workspace ws = memory.view();
      copies += controller.step(slot.view(), state, ws).copies;
    }
    counting = false;
    CHECK(allocations == 0);
    CHECK(copies > 1000.0);
  };
  no_allocation(paper_controller(100.0, fl::lyapunov_linear{}));
  no_allocation(paper_controller(100.0, fl::lyapunov_convex{}));
  no_allocation(paper_controller(100.0, fl::exact_drift{}, fl::exact_drift_speed{}));
  no_allocation(paper_controller(100.0, fl::shortest_delay{}, fl::closed_form_speed{}, fl::serve_next_slot{}));
}

TEST_CASE("the bound on the utility allocates nothing", "[edge]") {
  fl::utility_bound const bound;
  fl::cubic_energy const model(slots::paper_limits(servers));
  fl::matrix<float> const scores = slots::softmax_scores(1300, servers, 1.0, 4, 0);
  std::vector<double> prices(servers);
  fl::arena<> memory(bound.workspace_bytes(1300, servers, fan_out));
  fl::workspace ws = memory.view();
  allocations = 0;
  counting = true;
  auto const few = bound.solve(fl::serial{}, scores.view(), 3, model, fan_out, {}, ws, prices);
  auto const many = bound.solve(fl::serial{}, scores.view(), 2, model, fan_out, {}, ws, prices);
  counting = false;
  CHECK(allocations == 0);
  CHECK(few.bound > few.copies);
  CHECK(many.status == fl::status::infeasible);
}

TEST_CASE("a saved state goes on as if it had stayed", "[edge]") {
  auto const controller = paper_controller(100.0, fl::lyapunov_linear{});
  auto state = controller.make_state({.max_arrivals = 700, .max_waiting = 20000});
  auto other = controller.make_state({.max_arrivals = 700, .max_waiting = 20000});
  fl::arena<> memory(controller.workspace_bytes(700));
  auto const step = [&](fl::queue_state& to, std::uint64_t slot) {
    fl::matrix<float> const scores = slots::softmax_scores(slots::poisson(480.0, 3, slot), servers, 1.0, 4, slot);
    fl::workspace ws = memory.view();
    fl::slot_report const report = controller.step(scores.view(), to, ws);
    return std::vector<index_t>(report.completed.begin(), report.completed.end());
  };
  for (std::uint64_t slot = 0; slot < 10; ++slot) { (void)step(state, slot); }
  std::vector<std::byte> saved(fl::saved_bytes(state));
  fl::save_state(state, saved);
  fl::load_state(other, saved);
  for (std::uint64_t slot = 10; slot < 20; ++slot) { CHECK(step(state, slot) == step(other, slot)); }
  CHECK(state.backlog == other.backlog);
  CHECK(state.energy_debt == other.energy_debt);
}

TEST_CASE("what is dropped is bounded, counted and named", "[edge]") {
  auto const controller = paper_controller(100.0, fl::score_first{}, fl::closed_form_speed{}, fl::serve_same_slot{},
                                           fl::bounded_backlog{.max_copies = 3000});
  auto state = controller.make_state({.max_arrivals = 1200, .max_waiting = 1500});
  fl::arena<> memory(controller.workspace_bytes(1200));
  index_t admitted = 0, dropped = 0, arrived = 0, completed = 0;
  for (std::uint64_t slot = 0; slot < 80; ++slot) {
    fl::matrix<float> const scores = slots::softmax_scores(600, servers, 0.5, 4, slot);
    fl::workspace ws = memory.view();
    fl::slot_report const report = controller.step(scores.view(), state, ws);
    CHECK(report.first_token == arrived);
    CHECK(report.first_dropped() == arrived + report.admitted);
    arrived += report.arrivals;
    admitted += report.admitted;
    dropped += report.dropped;
    completed += static_cast<index_t>(report.completed.size());
    CHECK(state.total_backlog() <= 3000.0);
  }
  CHECK(dropped > 0);
  CHECK(admitted + dropped == arrived);
  CHECK(completed + state.under_way == admitted);
  // No bound, nothing dropped, and a state that is too small says so instead of losing tokens.
  auto const open = paper_controller(100.0, fl::score_first{});
  auto small = open.make_state({.max_arrivals = 600, .max_waiting = 700});
  fl::matrix<float> const scores = slots::softmax_scores(600, servers, 0.5, 4, 0);
  std::string message;
  try {
    for (int slot = 0; slot < 3; ++slot) {
      fl::workspace ws = memory.view();
      index_t const lost = open.step(scores.view(), small, ws).dropped;
      CHECK(lost == 0);
    }
  } catch (fl::contract_violation const& violation) {
    message = violation.what();
  }
  CHECK(message.find("bounded_backlog") != std::string::npos);
}

TEST_CASE("a server that takes several slots for a copy carries the fraction over", "[edge]") {
  // 0.375 copies a slot: the first copy is whole in slot 3 (1.125), the second in slot 6 (2.25), the third in slot 8 (3).
  fl::lyapunov_controller const controller{.servers = fl::unmetered(std::vector<double>{0.375}), .fan_out = 1};
  auto state = controller.make_state({.max_arrivals = 3, .max_waiting = 3});
  fl::arena<> memory(controller.workspace_bytes(3));
  std::vector<float> const scores(3, 1.0F);
  std::vector<index_t> when;
  for (index_t slot = 1; slot <= 12; ++slot) {
    fl::workspace ws = memory.view();
    fl::slot_report const report = controller.step({scores.data(), slot == 1 ? 3 : 0, 1}, state, ws);
    for (std::size_t i = 0; i < report.completed.size(); ++i) {
      when.push_back(slot);
      CHECK(report.completed[i] == static_cast<index_t>(when.size()) - 1);
      CHECK(report.delays[i] == slot - 1);
    }
  }
  CHECK(when == std::vector<index_t>{3, 6, 8});
  CHECK(state.total_backlog() == 0.0);
  CHECK(state.energy_debt[0] == 0.0);
}

TEST_CASE("ten slots of a tenth are a copy, though tenths do not add up to one in binary", "[edge]") {
  for (index_t const parts : {3, 7, 10, 49, 1000}) {
    fl::lyapunov_controller const controller{.servers = fl::unmetered(std::vector<double>{1.0 / static_cast<double>(parts)}), .fan_out = 1};
    auto state = controller.make_state({.max_arrivals = 4, .max_waiting = 4});
    fl::arena<> memory(controller.workspace_bytes(4));
    std::vector<float> const scores(4, 1.0F);
    std::vector<index_t> when;
    for (index_t slot = 1; slot <= 4 * parts; ++slot) {
      fl::workspace ws = memory.view();
      fl::slot_report const report = controller.step({scores.data(), slot == 1 ? 4 : 0, 1}, state, ws);
      for (std::size_t i = 0; i < report.completed.size(); ++i) { when.push_back(slot); }
      CHECK(state.progress[0] >= 0.0);
      CHECK(state.progress[0] < 1.0);
      CHECK(state.backlog[0] == static_cast<double>(state.waiting[0]) - state.progress[0]);
    }
    CHECK(when == std::vector<index_t>{parts, 2 * parts, 3 * parts, 4 * parts});
    CHECK(state.total_backlog() == 0.0);
  }
}

TEST_CASE("no service without copies: empty queues cost no energy, however large V is", "[edge]") {
  auto const controller = paper_controller(1e9, fl::lyapunov_linear{});
  auto state = controller.make_state({.max_arrivals = 1, .max_waiting = 1});
  fl::arena<> memory(controller.workspace_bytes(1));
  for (int slot = 0; slot < 5; ++slot) {
    fl::workspace ws = memory.view();
    fl::slot_report const report = controller.step({}, state, ws);
    CHECK(report.total_energy == 0.0);
    CHECK(report.copies == 0.0);
  }
}

TEST_CASE("every strategy sees the same arrivals, and the future changes no choice", "[edge]") {
  auto const choices = [](auto const& controller, std::uint64_t all, std::uint64_t other_from, std::vector<index_t>& arrivals) {
    auto state = controller.make_state({.max_arrivals = 900, .max_waiting = 30000});
    fl::arena<> memory(controller.workspace_bytes(900));
    std::vector<std::vector<fl::expert_id>> all_choices;
    for (std::uint64_t slot = 0; slot < all; ++slot) {
      std::uint64_t const seed = slot < other_from ? 8 : 9;
      fl::matrix<float> const scores = slots::softmax_scores(slots::poisson(300.0, seed, slot), servers, 0.5, seed, slot);
      fl::workspace ws = memory.view();
      fl::slot_report const report = controller.step(scores.view(), state, ws);
      arrivals.push_back(report.arrivals);
      all_choices.emplace_back(report.choice.data(), report.choice.data() + report.admitted * fan_out);
    }
    return all_choices;
  };
  std::vector<index_t> first;
  (void)choices(paper_controller(100.0, fl::lyapunov_linear{}), 12, 99, first);
  auto const check = [&](auto const& controller) {
    std::vector<index_t> same, other;
    auto const whole = choices(controller, 12, 99, same);
    auto const cut = choices(controller, 12, 6, other);
    CHECK(same == first);
    CHECK(other != first);
    for (std::size_t slot = 0; slot < 6; ++slot) { CHECK(whole[slot] == cut[slot]); }
  };
  check(paper_controller(100.0, fl::lyapunov_convex{}));
  check(paper_controller(100.0, fl::random_servers{}));
  check(paper_controller(100.0, fl::queue_first{}));
  check(paper_controller(100.0, fl::join_shortest_queue{}));
}

TEST_CASE("a larger V buys utility with energy debt, and queues stay bounded below the limit", "[edge]") {
  struct totals {
    double mass = 0.0, debt = 0.0, backlog = 0.0;
  };
  auto const run = [](double utility) {
    auto const controller = paper_controller(utility, fl::lyapunov_convex{});
    auto state = controller.make_state({.max_arrivals = 900, .max_waiting = 60000});
    fl::arena<> memory(controller.workspace_bytes(900));
    totals sums;
    double tokens = 0.0;
    for (std::uint64_t slot = 0; slot < 200; ++slot) {
      fl::matrix<float> const scores = slots::softmax_scores(slots::poisson(390.0, 8, slot), servers, 0.5, 8, slot);
      fl::workspace ws = memory.view();
      fl::slot_report const report = controller.step(scores.view(), state, ws);
      sums.mass += report.gate_mass;
      tokens += static_cast<double>(report.arrivals);
    }
    sums.mass /= tokens;
    for (double const own : state.energy_debt) { sums.debt += own; }
    sums.backlog = state.total_backlog();
    return sums;
  };
  totals const low = run(1.0);
  totals const middle = run(30.0);
  totals const high = run(1000.0);
  CHECK(low.mass < middle.mass);
  CHECK(middle.mass < high.mass);
  CHECK(low.debt < middle.debt);
  CHECK(middle.debt < high.debt);
  CHECK(low.backlog < 1000.0);
  CHECK(middle.backlog < 1000.0);
}

TEST_CASE("a slot that is refused leaves the queues as they were", "[edge]") {
  auto const controller = paper_controller(100.0, fl::lyapunov_linear{});
  auto state = controller.make_state({.max_arrivals = 500, .max_waiting = 6000});
  fl::arena<> memory(controller.workspace_bytes(500));
  fl::matrix<float> scores = slots::softmax_scores(480, servers, 1.0, 4, 0);
  for (int slot = 0; slot < 3; ++slot) {
    fl::workspace ws = memory.view();
    (void)controller.step(scores.view(), state, ws);
  }
  std::vector<std::byte> before(fl::saved_bytes(state)), after(before.size());
  fl::save_state(state, before);
  auto const refused = [&](auto const& by, fl::matrix_view<float const> with, fl::workspace ws) {
    CHECK_THROWS_AS(by.step(with, state, ws), fl::contract_violation);
    fl::save_state(state, after);
    CHECK(after == before);
  };
  struct negative_speed {
    void speeds(fl::slot_view const&, fl::cubic_energy const&, std::span<index_t const>, std::span<double> service) const {
      std::fill(service.begin(), service.end(), -1.0);
    }
  };
  refused(controller, scores.view(), fl::workspace{});
  refused(paper_controller(1.0, fl::lyapunov_linear{}, negative_speed{}), scores.view(), memory.view());
  refused(paper_controller(1.0, fl::lyapunov_linear{}, fl::fixed_speed{2.0}), scores.view(), memory.view());
  fl::matrix<float> const too_many(501, servers);
  refused(controller, too_many.view(), memory.view());
  scores(5, 2) = std::numeric_limits<float>::quiet_NaN();
  refused(controller, scores.view(), memory.view());
}

TEST_CASE("a controller with bad fields says what to do", "[edge]") {
  auto const message = [](auto change) -> std::string {
    auto controller = paper_controller(100.0, fl::lyapunov_linear{});
    change(controller);
    try {
      (void)controller.make_state({.max_arrivals = 10, .max_waiting = 10});
    } catch (fl::contract_violation const& violation) {
      return violation.what();
    }
    return "";
  };
  CHECK(message([](auto& c) { c.fan_out = 11; }).find("distinct servers") != std::string::npos);
  CHECK(message([](auto& c) { c.fan_out = 0; }).find("distinct servers") != std::string::npos);
  CHECK(message([](auto& c) { c.weights.utility = -1.0; }).find("must not be negative") != std::string::npos);
  CHECK(message([](auto& c) { c.weights.energy = -1.0; }).find("must not be negative") != std::string::npos);
  // An infinite weight made keys that are no numbers, and no server.
  CHECK(message([](auto& c) { c.weights.utility = std::numeric_limits<double>::infinity(); }).find("must be finite") != std::string::npos);
  CHECK(message([](auto& c) { c.weights.gate = 1e308; }).find("must be finite") != std::string::npos);
  CHECK(message([](auto&) {}).empty());
  auto const controller = paper_controller(100.0, fl::lyapunov_linear{});
  CHECK_THROWS_AS(controller.make_state({.max_arrivals = -1, .max_waiting = 10}), fl::contract_violation);
  CHECK_THROWS_AS(controller.make_state({.max_arrivals = 1, .max_waiting = index_t{1} << 32U}), fl::contract_violation);
  auto state = controller.make_state({.max_arrivals = 4, .max_waiting = 10});
  fl::workspace none;
  fl::matrix<float> const wide(2, 11);
  CHECK_THROWS_AS(controller.step(wide.view(), state, none), fl::contract_violation);
  fl::queue_state other(9, 3, {.max_arrivals = 4, .max_waiting = 10});
  CHECK_THROWS_AS(controller.step({}, other, none), fl::contract_violation);
  fl::bounded_backlog const negative{.max_copies = -5};
  CHECK_THROWS_AS(negative.admit({}), fl::contract_violation);
  CHECK_THROWS_AS(paper_controller(1.0, fl::score_first{}, fl::fixed_speed{1.5}).step({}, state, none), fl::contract_violation);
}
