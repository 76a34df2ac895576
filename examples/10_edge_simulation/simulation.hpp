// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief One run: a seed of a setting, one pass over its slots that feeds every strategy.
#include "policies.hpp"

#include <fairlead/core/matrix.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/edge/lyapunov_controller.hpp>
#include <fairlead/edge/stability.hpp>
#include <fairlead/edge/utility_bound.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/workload/gate_scores.hpp>
#include <fairlead/workload/poisson_arrivals.hpp>

#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace edge_simulation {

/// @brief What is simulated: a load and a skew.
struct setting {
  double load = 390.0;  ///< mean arrivals of a slot
  double skew = 0.0;    ///< of the gate
  bool sweep = false;   ///< whether strategies run with several V
};

/// @brief A strategy of a setting.
struct entry {
  std::string strategy;  ///< its name
  double v = 100.0;      ///< V
};

/// @param given the command line
/// @param of the setting
/// @returns its strategies, in the order of the tables
inline std::vector<entry> entries_of(options const& given, setting const& of) {
  std::vector<entry> made;
  examples::each_strategy([&](std::string const& name, auto const&) {
    if (!given.strategies.empty() && std::find(given.strategies.begin(), given.strategies.end(), name) == given.strategies.end()) { return; }
    if (!of.sweep) { made.push_back({name, given.weights.utility}); }
    if (of.sweep && (name == "linear" || name == "convex" || name == "exact_drift")) {
      for (double const v : given.sweep) { made.push_back({name, v}); }
    }
  });
  return made;
}

/// @brief A moment of a run.
struct moment {
  index_t slot = 0;        ///< slots passed
  double backlog = 0.0;    ///< copies that wait
  double debt = 0.0;       ///< sum of Z. @unit{J}
  double completed = 0.0;  ///< tokens so far
};

/// @brief What a strategy did in a run, so far.
struct tally {
  index_t slots = 0;          ///< slots passed
  double arrivals = 0.0;      ///< tokens
  double copies = 0.0;        ///< served
  double completed = 0.0;     ///< tokens with all copies served
  double delay = 0.0;         ///< slots from arrival to completion, summed
  double mass = 0.0;          ///< scores of what was chosen, summed
  double top_mass = 0.0;      ///< the same for the best scores of each token
  double utility = 0.0;       ///< summed
  double seconds = 0.0;       ///< processor time of the controller
  double backlog = 0.0;       ///< copies that wait
  double debt = 0.0;          ///< sum of Z. @unit{J}
  double overshoot = 0.0;     ///< largest average energy - budget of a server. @unit{J}
  double bound = std::numeric_limits<double>::quiet_NaN();      ///< on the utility of a slot; NaN = none
  double allowance = std::numeric_limits<double>::quiet_NaN();  ///< by how much this path may exceed it
  std::string wrong;          ///< what is not as it must be; empty = nothing

  /// @returns copies served of those sent. @unit{%}
  [[nodiscard]] double served_percent(index_t fan_out) const { return 100.0 * copies / std::max(arrivals * static_cast<double>(fan_out), 1.0); }
  /// @returns tokens completed of those that arrived. @unit{%}
  [[nodiscard]] double completed_percent() const { return 100.0 * completed / std::max(arrivals, 1.0); }
  /// @returns gate mass against that of the best scores
  [[nodiscard]] double relative_mass() const { return top_mass > 0.0 ? mass / top_mass : 1.0; }
  /// @returns utility of a slot
  [[nodiscard]] double mean_utility() const { return utility / static_cast<double>(std::max<index_t>(slots, 1)); }
  /// @returns utility against its bound. @unit{%}
  [[nodiscard]] double bound_percent() const { return 100.0 * mean_utility() / bound; }
  /// @returns slots from arrival to completion, of completed tokens
  [[nodiscard]] double mean_delay() const { return delay / std::max(completed, 1.0); }
  /// @returns time of the controller for a slot. @unit{us}
  [[nodiscard]] double microseconds() const { return 1e6 * seconds / static_cast<double>(std::max<index_t>(slots, 1)); }
};

/// @returns processor time of this thread: waiting for a processor that others use does not count. @unit{s}
inline double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// @brief A strategy at work: router and energy model are behind one indirect call a slot.
class lane {
 public:
  virtual ~lane() = default;
  /// @brief Let a slot pass.
  /// @param scores of the arrivals
  /// @param top_mass sum of the best scores
  virtual void step(fl::matrix_view<float const> scores, double top_mass) = 0;
  /// @brief Compare with the bound.
  /// @param bound of the utility
  /// @param prices of the servers
  virtual void judge(double bound, std::span<double const> prices) = 0;
  /// @returns what it did
  [[nodiscard]] tally const& done() const { return done_; }

 protected:
  tally done_;
};

/// @brief A lane with its controller.
/// @tparam Controller a `fairlead::lyapunov_controller`
template <class Controller>
class lane_of final : public lane {
 public:
  /// @param controller the strategy
  /// @param limits sizes
  lane_of(Controller controller, fl::queue_limits const& limits)
      : controller_(std::move(controller)), state_(controller_.make_state(limits)), memory_(controller_.workspace_bytes(limits.max_arrivals)),
        energy_(state_.energy.size(), 0.0) {}

  void step(fl::matrix_view<float const> scores, double top_mass) override {
    fl::workspace ws = memory_.view();
    double const begin = processor_seconds();
    fl::slot_report const report = controller_.step(scores, state_, ws);
    done_.seconds += processor_seconds() - begin;
    ++done_.slots;
    done_.arrivals += static_cast<double>(report.arrivals);
    done_.copies += report.copies;
    done_.completed += static_cast<double>(report.completed.size());
    for (index_t const delay : report.delays) { done_.delay += static_cast<double>(delay); }
    done_.mass += report.gate_mass;
    done_.top_mass += top_mass;
    done_.utility += report.utility;
    done_.backlog = state_.total_backlog();
    done_.debt = 0.0;
    done_.overshoot = 0.0;
    auto const time = static_cast<double>(done_.slots);
    for (std::size_t j = 0; j < energy_.size(); ++j) {
      energy_[j] += report.energy[j];
      double const over = energy_[j] / time - controller_.servers.budget(static_cast<index_t>(j));
      done_.debt += state_.energy_debt[j];
      done_.overshoot = std::max(done_.overshoot, over);
      if (over > state_.energy_debt[j] / time + 1e-9) { done_.wrong = "a server spent more than its budget and its debt"; }
    }
    if (std::fabs(done_.arrivals * static_cast<double>(report.fan_out) - done_.copies - done_.backlog) > 1e-6 * (1.0 + done_.copies)) {
      done_.wrong = "copies got lost";
    }
  }
  void judge(double bound, std::span<double const> prices) override {
    done_.bound = bound;
    done_.allowance = fl::utility_allowance(controller_.servers, done_.slots, prices, state_.backlog, state_.energy_debt);
    if (done_.mean_utility() > (bound + done_.allowance) * (1.0 + 1e-9)) { done_.wrong = "the utility exceeds its bound"; }
  }

 private:
  Controller controller_;
  fl::queue_state state_;
  fl::arena<> memory_;
  std::vector<double> energy_;
};

/// @brief A run and what came of it.
struct run_result {
  std::vector<tally> strategies;            ///< as `entries_of`
  std::vector<std::vector<moment>> series;  ///< some moments of each
  double bound_seconds = 0.0;               ///< time of the bound
  bool complete = false;                    ///< whether all slots passed
};

/// @param given the command line
/// @param of the setting
/// @param seed of the run
/// @param arrivals most tokens of a slot
/// @param total tokens of all slots
/// @returns a lane for each entry
inline std::vector<std::unique_ptr<lane>> lanes_of(options const& given, setting const& of, std::uint64_t seed, index_t arrivals, index_t total) {
  std::vector<std::unique_ptr<lane>> lanes;
  auto const limits = examples::edge_servers(given.servers, seed, given.energies);
  auto const entries = entries_of(given, of);
  examples::each_strategy([&](std::string const& name, auto const& router) {
    for (entry const& one : entries) {
      if (one.strategy != name) { continue; }
      fl::slot_weights weights = given.weights;
      weights.utility = one.v;
      auto const add = [&](auto const& servers, baseline_speed speed) {
        fl::lyapunov_controller<std::decay_t<decltype(router)>, chosen_speed, std::decay_t<decltype(servers)>, fl::serve_same_slot, chosen_ties> controller{
            .servers = servers, .fan_out = given.fan_out, .weights = weights, .router = router, .speed = {speed},
            .ties = {given.ties, seed}, .seed = seed};
        lanes.push_back(std::make_unique<lane_of<decltype(controller)>>(std::move(controller), fl::queue_limits{arrivals, total}));
      };
      if (is_baseline(name) && given.baselines == baseline_speed::full_frequency) {
        add(full_frequency(limits), baseline_speed::fixed);
      } else {
        add(fl::cubic_energy(limits), is_baseline(name) ? given.baselines : baseline_speed::closed_form);
      }
    }
  });
  return lanes;
}

/// @param scores of a slot
/// @param fan_out K
/// @returns the sum of the K best scores of each token
inline double best_mass(fl::matrix_view<float const> scores, index_t fan_out) {
  std::vector<float> row(static_cast<std::size_t>(scores.cols()));
  double sum = 0.0;
  for (index_t t = 0; t < scores.rows(); ++t) {
    std::copy_n(scores.row(t), scores.cols(), row.begin());
    std::partial_sort(row.begin(), row.begin() + fan_out, row.end(), std::greater<>{});
    for (index_t k = 0; k < fan_out; ++k) { sum += static_cast<double>(row[static_cast<std::size_t>(k)]); }
  }
  return sum;
}

/// @brief Simulate.
/// @param given the command line
/// @param of the setting
/// @param seed names arrivals, scores, servers, ties and random choices, each in a stream of its own
/// @param stop whether to end before the next slot
/// @param look called after each slot with the lanes
/// @returns what every strategy did
template <class Stop, class Look>
run_result simulate(options const& given, setting const& of, std::uint64_t seed, Stop stop, Look look) {
  fl::workload::poisson_arrivals const arrivals{.mean = of.load, .seed = seed};
  fl::workload::gate_scores const gate{.servers = given.servers, .skew = of.skew, .seed = seed, .popularity_seed = seed};
  index_t most = 0;
  index_t total = 0;
  for (index_t slot = 0; slot < given.slots; ++slot) {
    index_t const n = arrivals.at(static_cast<std::uint64_t>(slot));
    most = std::max(most, n);
    total += n;
  }
  auto const lanes = lanes_of(given, of, seed, most, total);
  fl::cubic_energy const servers(examples::edge_servers(given.servers, seed, given.energies));
  fl::arena<> memory(fl::workspace_bytes<double>(given.servers));
  fl::workspace small = memory.view();
  bool const bounded = given.bound && of.load < fl::stable_arrivals(servers, given.fan_out, small);
  fl::matrix<float> scores(bounded ? total : most, given.servers);  // a bound looks at all slots at once

  run_result made;
  made.series.resize(lanes.size());
  index_t const every = std::max<index_t>(given.slots / 100, 1);
  index_t first = 0;
  index_t slot = 0;
  for (; slot < given.slots && !stop(); ++slot) {
    index_t const n = arrivals.at(static_cast<std::uint64_t>(slot));
    auto const now = scores.view().rows(bounded ? first : 0, n);
    first += n;
    gate.fill(static_cast<std::uint64_t>(slot), now);
    double const best = best_mass(now, given.fan_out);
    for (auto const& one : lanes) { one->step(now, best); }
    if ((slot + 1) % every == 0 || slot + 1 == given.slots) {
      for (std::size_t i = 0; i < lanes.size(); ++i) {
        tally const& done = lanes[i]->done();
        made.series[i].push_back({done.slots, done.backlog, done.debt, done.completed});
      }
    }
    look(lanes);
  }
  made.complete = slot == given.slots;
  if (bounded && made.complete) {
    double const begin = processor_seconds();
    fl::utility_bound const bound;
    memory.reserve(bound.workspace_bytes(total, given.servers, given.fan_out));
    fl::workspace ws = memory.view();
    std::vector<double> prices(static_cast<std::size_t>(given.servers));
    auto const report = bound.solve(fl::serial{}, scores.view(), given.slots, servers, given.fan_out, given.weights, ws, prices);
    made.bound_seconds = processor_seconds() - begin;
    if (report.status == fl::status::ok) {
      for (auto const& one : lanes) { one->judge(report.bound, prices); }
    }
  }
  for (auto const& one : lanes) { made.strategies.push_back(one->done()); }
  return made;
}

}  // namespace edge_simulation
