// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Slots as a controller meets them: a network at a given load, run from empty queues, its states kept.
#include "support/assignment.hpp"
#include "support/axes.hpp"
#include "support/ceilings.hpp"

#include <fairlead/core/matrix.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/edge/lyapunov_controller.hpp>
#include <fairlead/edge/lyapunov_exact.hpp>
#include <fairlead/edge/speed_rules.hpp>
#include <fairlead/edge/stability.hpp>
#include <fairlead/workload/gate_scores.hpp>
#include <fairlead/workload/poisson_arrivals.hpp>
#include <fairlead/workload/zipf.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <type_traits>
#include <utility>
#include <vector>

namespace edge_bench {

namespace fl = fairlead;
namespace wl = fairlead::workload;
using fl::index_t;
using fl_bench::axes::choice_case;

/// @brief A network of any size, similar to the one with the parameters reported for the paper (10 servers, 390 tokens).
///
/// The cycles of a copy are such that the mean arrivals are a given share of what any routing can carry. V grows with the
/// copies that a server gets, and the weight of energy with their square: slots of all sizes are the same problem but for
/// their size.
struct network {
  /// @param sizes_ servers, mean arrivals, servers a token
  /// @param load arrivals over the most that any routing carries
  explicit network(choice_case const& sizes_, double load = fl_bench::axes::slot_load) : sizes(sizes_) {
    double const copies = static_cast<double>(sizes.tokens * sizes.fan_out) / static_cast<double>(sizes.servers);
    double const scale = copies / 117.0;
    weights = {.utility = 100.0 * scale, .gate = 1.0, .energy = scale * scale};
    arrivals = {.mean = static_cast<double>(sizes.tokens), .seed = fl_bench::axes::seed};
    gate = {.servers = sizes.servers,
            .skew = fl_bench::axes::slot_skew,
            .seed = fl_bench::axes::seed + 1,
            .popularity_seed = fl_bench::axes::seed + 2};
    fl::arena<> memory(fl::workspace_bytes<double>(sizes.servers));
    fl::workspace ws = memory.view();
    double const carried = fl::stable_arrivals(model(1e7), sizes.fan_out, ws);
    servers = model(1e7 * carried * load / arrivals.mean);
  }
  /// @param slot number
  /// @returns scores of its arrivals
  [[nodiscard]] fl::matrix<float> scores(index_t slot) const {
    auto const number = static_cast<std::uint64_t>(slot);
    fl::matrix<float> result(std::min(arrivals.at(number), most_arrivals()), sizes.servers);
    gate.fill(number, result.view());
    return result;
  }
  /// @returns more than ever arrive
  [[nodiscard]] index_t most_arrivals() const {
    return sizes.tokens + static_cast<index_t>(10.0 * std::sqrt(arrivals.mean)) + 20;
  }

  choice_case sizes;             ///< servers, mean arrivals, servers a token
  fl::cubic_energy servers;      ///< energy
  fl::slot_weights weights;      ///< V, mu, w
  wl::poisson_arrivals arrivals; ///< arrivals
  wl::gate_scores gate;          ///< scores

 private:
  // Caps of 3 to 15 J, budgets of 1.5 to 9.5 J, shuffled.
  [[nodiscard]] fl::cubic_energy model(double cycles) const {
    std::vector<fl::server_limits> limits(static_cast<std::size_t>(sizes.servers));
    auto const order = wl::shuffled_ids(sizes.servers, fl_bench::axes::seed);
    for (index_t i = 0; i < sizes.servers; ++i) {
      double const part = sizes.servers == 1 ? 0.0 : static_cast<double>(i) / static_cast<double>(sizes.servers - 1);
      limits[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])] = {
          .energy_cap_j = 3.0 + 12.0 * part, .energy_budget_j = 1.5 + 8.0 * part, .cycles_per_copy = cycles};
    }
    return fl::cubic_energy(limits);
  }
};

/// One slot before its routing.
struct recorded_slot {
  fl::matrix<float> scores;         ///< of the arrivals
  std::vector<double> backlog;      ///< Q
  std::vector<double> energy_debt;  ///< Z
  index_t slot = 0;                 ///< number
  index_t first_token = 0;          ///< number of the first arrival

  /// @param of where it was recorded
  /// @returns what routers see
  [[nodiscard]] fl::slot_view view(network const& of) const {
    return {.scores = scores.view(),
            .backlog = backlog,
            .energy_debt = energy_debt,
            .weights = of.weights,
            .fan_out = of.sizes.fan_out,
            .slot = static_cast<std::uint64_t>(slot),
            .first_token = static_cast<std::uint64_t>(first_token),
            .seed = fl_bench::axes::seed};
  }
};

/// Slots to run, and how many of them to keep.
struct run_length {
  index_t slots;  ///< run
  index_t kept;   ///< kept, evenly spread
};
/// @param sizes of a slot
/// @returns as many as time allows
inline run_length length_of(choice_case const& sizes) {
  bool const quick = fl_bench::axes::quick();
  index_t const budget = index_t{1} << (quick ? 22 : 25);
  index_t const slots = std::clamp<index_t>(budget / (sizes.servers * sizes.tokens), quick ? 8 : 20, 400);
  return {slots, std::clamp<index_t>(slots / 4, 4, 100)};
}

/// The speed rule that belongs to a router.
template <class Router>
using speed_of = std::conditional_t<std::same_as<Router, fl::exact_drift>, fl::exact_drift_speed, fl::closed_form_speed>;

/// A controller, its state and scratch.
template <class Router>
struct running {
  /// @param of the network
  /// @param slots how long it will run
  running(network const& of, index_t slots)
      : controller{.servers = of.servers, .fan_out = of.sizes.fan_out, .weights = of.weights, .seed = fl_bench::axes::seed},
        state(controller.make_state({.max_arrivals = of.most_arrivals(),
                                     .max_waiting = of.most_arrivals() * std::min(slots + 1, (index_t{1} << 22) / of.sizes.tokens + 2)})),
        memory(controller.workspace_bytes(of.most_arrivals())) {}
  /// @param scores of the arrivals
  /// @returns report
  fl::slot_report step(fl::matrix<float> const& scores) {
    fl::workspace ws = memory.view();
    return controller.step(scores.view(), state, ws);
  }

  fl::lyapunov_controller<Router, speed_of<Router>> controller;  ///< controller
  fl::queue_state state;                                         ///< state
  fl::arena<> memory;                                            ///< scratch
};

/// @brief Run a controller from empty queues.
/// @tparam Router its router
/// @param of the network
/// @param length how many slots
/// @returns the kept slots
template <class Router>
std::vector<recorded_slot> record(network const& of, run_length length) {
  running<Router> run(of, length.slots);
  std::vector<recorded_slot> kept;
  for (index_t slot = 0; slot < length.slots; ++slot) {
    fl::matrix<float> scores = of.scores(slot);
    bool const keep = slot == static_cast<index_t>(kept.size() + 1) * length.slots / length.kept - 1;
    if (keep) { kept.push_back({{}, run.state.backlog, run.state.energy_debt, slot, run.state.next_token}); }
    run.step(scores);
    if (keep) { kept.back().scores = std::move(scores); }
  }
  return kept;
}

/// @returns @unit{seconds} what asking the clock twice takes
inline double clock_seconds() {
  static double const known = [] {
    std::vector<double> pairs;
    for (int i = 0; i < 2001; ++i) {
      double const start = fl_bench::thread_seconds();
      pairs.push_back(fl_bench::thread_seconds() - start);
    }
    return fl_bench::median_of(pairs);
  }();
  return known;
}
/// @param work callable
/// @returns @unit{seconds} of processor time, without the clock's own
template <class Work>
double seconds_of(Work&& work) {
  double const start = fl_bench::thread_seconds();
  work();
  return std::max(fl_bench::thread_seconds() - start - clock_seconds(), 0.0);
}

/// @param sorted numbers, ascending
/// @param part 0 to 1
/// @returns the number that this part does not exceed
inline double quantile(std::vector<double> const& sorted, double part) {
  return sorted.empty() ? 0.0 : sorted[static_cast<std::size_t>(part * static_cast<double>(sorted.size() - 1) + 0.5)];
}

}  // namespace edge_bench
