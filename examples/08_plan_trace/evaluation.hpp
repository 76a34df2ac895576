// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Plan, schedule and judge: one composition over all layers and records.
#include "options.hpp"
#include "recorded.hpp"

#include <fairlead/assign/least_loaded.hpp>
#include <fairlead/assign/rerouting_map.hpp>
#include <fairlead/cluster/layer_time.hpp>
#include <fairlead/concepts/composition.hpp>
#include <fairlead/concepts/copy_planner.hpp>
#include <fairlead/concepts/planner.hpp>
#include <fairlead/concepts/token_scheduler.hpp>
#include <fairlead/core/buffer.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/plan.hpp>
#include <fairlead/metrics/traffic.hpp>
#include <fairlead/place/contiguous.hpp>
#include <fairlead/place/slot_mapping.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <functional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace plan_trace {

/// @brief What one composition did, by judged record and layer.
struct outcome {
  std::string planner;            ///< its name
  std::string scheduler;          ///< its name
  std::vector<double> imbalance;  ///< largest over mean load of a rank; records outer, layers inner
  double step_s = 0.0;            ///< modelled time of a layer, summed. @unit{s}
  double remote_copies = 0.0;     ///< copies that cross nodes, summed
  double remote_rows = 0.0;       ///< rows that cross nodes when a token is sent to a node once, expected, summed
  double fetched = 0.0;           ///< experts that ranks have to fetch, summed over plans (or reroutings)
  double plans = 0.0;             ///< plans made
  double plan_s = 0.0;            ///< time of planning, summed. @unit{s}
  double schedule_s = 0.0;        ///< time of scheduling, summed. @unit{s}
  bool conserves = true;          ///< whether every copy was sent once
  bool interrupted = false;       ///< whether it ended early
  bool refused = false;           ///< whether the planner found no table for this cluster; nothing was judged

  /// @param share of the judged loads
  /// @returns the imbalance that this share stays below
  [[nodiscard]] double quantile(double share) const {
    std::vector<double> sorted = imbalance;
    std::sort(sorted.begin(), sorted.end());
    return sorted.empty() ? 0.0 : sorted[static_cast<std::size_t>(share * static_cast<double>(sorted.size() - 1))];
  }
  /// @returns mean imbalance
  [[nodiscard]] double mean() const {
    double sum = 0.0;
    for (double const one : imbalance) { sum += one; }
    return imbalance.empty() ? 0.0 : sum / static_cast<double>(imbalance.size());
  }
};

/// @brief What all compositions share.
struct setting {
  options const& given;                  ///< the command line
  recorded const& loads;                 ///< the loads
  fl::topology cluster;                  ///< ranks, nodes, slots
  fl::layer_time time;                   ///< the time model
  std::function<bool()> interrupted;     ///< whether to end
  std::function<void(double)> advance;   ///< tells how much of a composition is done, in [0, 1]

  /// @returns the records that are judged
  [[nodiscard]] std::vector<index_t> judged() const {
    std::vector<index_t> records;
    for (index_t record = given.first; record < loads.records; record += given.stride) { records.push_back(record); }
    return records;
  }
};

inline double seconds_now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// @brief The numbers that a planner sees: a record's counts, and those before it.
class estimate {
 public:
  /// @param loads the loads
  /// @param layer a layer
  /// @param newest the last record that it may see
  /// @param window how many records
  estimate(recorded const& loads, index_t layer, index_t newest, index_t window)
      : totals_(static_cast<std::size_t>(loads.experts)), by_source_(loads.ranks, loads.experts) {
    index_t const count = std::min(window, newest + 1);
    samples_ = fl::matrix<index_t>(count, loads.experts);
    for (index_t i = 0; i < count; ++i) {
      fl::sum_over_ranks(loads.load(newest - count + 1 + i, layer), {samples_.view().row(i), static_cast<std::size_t>(loads.experts)});
    }
    auto const last = loads.load(newest, layer);
    fl::sum_over_ranks(last, totals_);
    for (index_t r = 0; r < loads.ranks; ++r) {
      for (index_t e = 0; e < loads.experts; ++e) { by_source_(r, e) = last(r, e); }
    }
  }
  /// @returns views of the numbers
  [[nodiscard]] fl::load_estimate view() const {
    fl::matrix_view<index_t const> const by_source(by_source_.data(), by_source_.rows(), by_source_.cols());
    fl::matrix_view<index_t const> const samples(samples_.data(), samples_.rows(), samples_.cols());
    return {.totals = totals_, .by_source = by_source, .samples = samples};
  }

 private:
  std::vector<index_t> totals_;
  fl::matrix<index_t> by_source_;
  fl::matrix<index_t> samples_;
};

/// @brief Judge one schedule.
/// @param now the setting
/// @param load the load
/// @param where the placement
/// @param schedule the schedule
/// @param memory scratch, grows
/// @param[in,out] result where the numbers go
inline void judge(setting const& now, fl::load_view load, fl::placement const& where, fl::const_token_schedule_view schedule, fl::arena<>& memory,
                  outcome& result) {
  result.conserves = result.conserves && fl::conserves(load, where, schedule);
  std::vector<index_t> busy(static_cast<std::size_t>(where.ranks()), 0);
  fl::matrix<index_t> to_node(where.ranks(), now.cluster.nodes());
  std::fill(to_node.span().begin(), to_node.span().end(), index_t{0});
  index_t all = 0;
  for (index_t e = 0; e < where.experts(); ++e) {
    index_t column = where.replica_offset(static_cast<fl::expert_id>(e));
    for (fl::replica const& copy : where.replicas(static_cast<fl::expert_id>(e))) {
      for (index_t source = 0; source < where.ranks(); ++source) {
        index_t const copies = schedule(source, column);
        busy[static_cast<std::size_t>(copy.rank)] += copies;
        to_node(source, now.cluster.node_of(fl::to_index(copy.rank))) += copies;
        all += copies;
      }
      ++column;
    }
  }
  index_t const largest = *std::max_element(busy.begin(), busy.end());
  result.imbalance.push_back(all == 0 ? 1.0 : static_cast<double>(largest) * static_cast<double>(busy.size()) / static_cast<double>(all));
  // A token has fan_out copies; counts do not say which, so that they are taken for independent.
  auto const fan_out = static_cast<double>(now.given.fan_out);
  for (index_t source = 0; source < where.ranks(); ++source) {
    double copies = 0.0;
    for (index_t node = 0; node < now.cluster.nodes(); ++node) { copies += static_cast<double>(to_node(source, node)); }
    for (index_t node = 0; node < now.cluster.nodes() && copies > 0.0; ++node) {
      if (node == now.cluster.node_of(source)) { continue; }
      auto const sent = static_cast<double>(to_node(source, node));
      result.remote_copies += sent;
      result.remote_rows += copies / fan_out * (1.0 - std::pow(1.0 - sent / copies, fan_out));
    }
  }
  memory.reserve(now.time.workspace_bytes(now.cluster, where.experts()));
  fl::workspace ws = memory.view();
  result.step_s += now.time.cost(now.cluster, where, schedule, ws).total_s();
}

/// @brief A planner or scheduler with the name that the table shows.
template <class Policy>
struct named {
  std::string name;  ///< what the table shows
  Policy policy;     ///< the policy
  fl::exchange_scope swaps = fl::exchange_scope::cluster;  ///< ranks that a planner's tables may be renamed in: `node` if it looks at nodes
  index_t more_history = 0;  ///< records that it is shown beyond --window
};
template <class Policy>
named(std::string, Policy) -> named<Policy>;
template <class Policy>
named(std::string, Policy, fl::exchange_scope) -> named<Policy>;

/// @brief Run one planner with every scheduler that understands its replicas.
/// @param now the setting
/// @param planner a load_planner
/// @param schedulers token schedulers, in a tuple
/// @param wanted whether a composition is to be run, by its name
/// @param[out] results one outcome a composition
template <class Planner, class... Schedulers>
void run_planner(setting const& now, named<Planner> const& planner, std::tuple<named<Schedulers>...> const& schedulers,
                 std::function<bool(std::string const&)> const& wanted, std::vector<outcome>& results) {
  static_assert(fl::load_planner<Planner>);
  std::vector<outcome> mine(sizeof...(Schedulers));
  std::vector<bool> runs(sizeof...(Schedulers), false);
  bool any = false;
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    ((mine[I].planner = planner.name, mine[I].scheduler = std::get<I>(schedulers).name,
      runs[I] = fl::planner_fits_scheduler<Planner, Schedulers> && wanted(planner.name + " + " + std::get<I>(schedulers).name), any = any || runs[I]),
     ...);
  }(std::index_sequence_for<Schedulers...>{});
  if (!any) { return; }

  auto const slots = static_cast<std::size_t>(now.cluster.slots());
  index_t const experts = now.loads.experts;
  std::vector<fl::expert_id> const nothing;
  std::vector<std::vector<fl::expert_id>> tables(static_cast<std::size_t>(now.loads.layers));
  std::vector<fl::placement> placements(static_cast<std::size_t>(now.loads.layers));
  std::vector<index_t> planned(static_cast<std::size_t>(now.loads.layers), -1);
  fl::min_cost_mapping const mapping{.scope = planner.swaps};
  fl::arena<> memory(std::max({planner.policy.workspace_bytes(now.cluster, experts), mapping.workspace_bytes(now.cluster, experts)}));
  fl::arena<> judging;
  auto const records = now.judged();
  double plan_s = 0.0, plans = 0.0, fetched = 0.0;
  bool stopped = false;
  for (std::size_t i = 0; i < records.size() && !stopped; ++i) {
    for (index_t layer = 0; layer < now.loads.layers; ++layer) {
      auto const l = static_cast<std::size_t>(layer);
      if (planned[l] < 0 || records[i] - planned[l] >= now.given.replan_every) {
        estimate const known(now.loads, layer, records[i] - now.given.lag, now.given.window + planner.more_history);
        std::vector<fl::expert_id> next(slots);
        fl::workspace ws = memory.view();
        double const begin = seconds_now();
        fl::report const report = planner.policy.plan(now.cluster, known.view(), tables[l].empty() ? nothing : tables[l], next, ws);
        plan_s += seconds_now() - begin;
        if (report.status == fl::status::infeasible || report.status == fl::status::unsupported) {
          mine.front().refused = true;  // this cluster is nothing for the planner: a line says so
          mine.front().scheduler = "";
          results.push_back(std::move(mine.front()));
          return;
        }
        if (!tables[l].empty()) {
          // Rename ranks to keep weights where they are, unless the planner's order of ranks means something.
          if constexpr (!fl::hosts_are_intervals<Planner> && !fl::replicas_share_local_slot<Planner>) {
            fl::workspace again = memory.view();
            fetched += mapping.map(now.cluster, tables[l], next, again).value;
          } else {
            std::vector<fl::expert_id> same = next;
            fl::workspace again = memory.view();
            fetched += fl::identity_mapping{}.map(now.cluster, tables[l], same, again).value;
          }
          plans += 1.0;
        }
        tables[l] = std::move(next);
        placements[l] = fl::make_placement(now.cluster, experts, tables[l], Planner::meaning);
        planned[l] = records[i];
      }
      auto const load = now.loads.load(records[i], layer);
      fl::placement const& where = placements[l];
      [&]<std::size_t... I>(std::index_sequence<I...>) {
        auto const one = [&](auto const& scheduler, std::size_t index) {
          if (!runs[index]) { return; }
          fl::matrix<fl::count_t> schedule(now.loads.ranks, where.replicas());
          memory.reserve(scheduler.policy.workspace_bytes(where));
          fl::workspace ws = memory.view();
          double const begin = seconds_now();
          fl::report const report = scheduler.policy.schedule(load, where, schedule.view(), ws);
          mine[index].schedule_s += seconds_now() - begin;
          mine[index].conserves = mine[index].conserves && report.status != fl::status::lost_expert;
          judge(now, load, where, schedule.view(), judging, mine[index]);
        };
        (one(std::get<I>(schedulers), I), ...);
      }(std::index_sequence_for<Schedulers...>{});
    }
    now.advance(static_cast<double>(i + 1) / static_cast<double>(records.size()));
    stopped = now.interrupted();
  }
  for (std::size_t i = 0; i < mine.size(); ++i) {
    if (!runs[i]) { continue; }
    mine[i].plan_s = plan_s, mine[i].plans = plans, mine[i].fetched = fetched, mine[i].interrupted = stopped;
    results.push_back(std::move(mine[i]));
  }
}

/// @brief Run something that decides anew for every micro-batch on top of plain expert parallelism.
/// @param now the setting
/// @param name what the table shows
/// @param act called with (load, estimate of this very load, base, schedule out) and returns the placement in use
/// @param wanted whether a composition is to be run
/// @param[out] results one outcome
template <class Act>
void run_on_base(setting const& now, std::pair<std::string, std::string> const& name, Act const& act,
                 std::function<bool(std::string const&)> const& wanted, std::vector<outcome>& results) {
  if (!wanted(name.first + " + " + name.second)) { return; }
  outcome result;
  result.planner = name.first, result.scheduler = name.second;
  fl::placement const base = fl::contiguous_placement{}.initial(now.loads.ranks, now.loads.experts);
  fl::arena<> judging;
  auto const records = now.judged();
  for (std::size_t i = 0; i < records.size() && !result.interrupted; ++i) {
    for (index_t layer = 0; layer < now.loads.layers; ++layer) {
      auto const load = now.loads.load(records[i], layer);
      fl::matrix<fl::count_t> schedule;
      fl::placement const where = act(load, estimate(now.loads, layer, records[i], 1).view(), base, schedule, result);
      result.plans += 1.0;
      judge(now, load, where, schedule.view(), judging, result);
    }
    now.advance(static_cast<double>(i + 1) / static_cast<double>(records.size()));
    result.interrupted = now.interrupted();
  }
  results.push_back(std::move(result));
}

}  // namespace plan_trace
