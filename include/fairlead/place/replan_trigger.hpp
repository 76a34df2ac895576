// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief When to plan anew: after an interval, or when ranks are, or cannot but be, too unequally loaded.
#include <fairlead/concepts/replan_trigger.hpp>
#include <fairlead/concepts/replica_split.hpp>
#include <fairlead/core/contract.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Plan anew every so many micro-batches.
/// @source{Lazarus: every 200 steps; SmartMoE: every 10 or 100; MicroMoE: every 50 early in training}
struct every_interval {
  index_t micro_batches = 50;  ///< from one plan to the next, >= 1

  /// What is carried on.
  struct state_type {
    index_t passed = 0;  ///< micro-batches since the last plan
    /// @brief Visit the arrays of the state.
    /// @param self the state
    /// @param f called with a span of each array
    template <class Self, class Function>
    static void each_array(Self& self, Function&& f) {
      f(std::span(&self.passed, 1));
    }
  };
  /// @returns no micro-batch passed
  [[nodiscard]] constexpr state_type make_state(index_t) const noexcept { return {}; }
  /// @brief Count a micro-batch.
  /// @param load not looked at
  /// @param[in,out] state the count
  void observe([[maybe_unused]] load_estimate const& load, state_type& state) const noexcept { ++state.passed; }
  /// @param where not looked at
  /// @param state the count
  /// @param ws not used
  /// @returns `replan_reason::interval` when enough have passed
  /// @throws contract_violation (level 1) if the interval is below 1
  [[nodiscard]] replan_reason should_replan([[maybe_unused]] placement const& where, state_type const& state,
                                            [[maybe_unused]] workspace& ws) const {
    FAIRLEAD_EXPECTS(micro_batches >= 1, "an interval is at least one micro-batch", micro_batches);
    return state.passed >= micro_batches ? replan_reason::interval : replan_reason::none;
  }
  /// @brief Count from 0 on.
  /// @param[in,out] state the count
  void replanned(state_type& state) const noexcept { state.passed = 0; }
  /// @returns 0
  [[nodiscard]] constexpr std::size_t workspace_bytes(placement const&) const noexcept { return 0; }
};
static_assert(replan_trigger<every_interval>);

/// @brief The largest load of a rank when the replicas of an expert share its load evenly.
struct equal_share_load {
  /// @param where the placement
  /// @param totals copies an expert. @shape{experts}
  /// @param ws at least `workspace_bytes(where)`
  /// @returns the largest sum of shares of a rank; an expert without a replica counts nothing
  /// @complexity O(experts + slots), no allocation
  [[nodiscard]] double operator()(placement const& where, std::span<index_t const> totals, workspace& ws) const {
    workspace::scope const scope(ws);
    auto const loads = ws.take<double>(where.ranks());
    std::fill(loads.begin(), loads.end(), 0.0);
    for (std::size_t e = 0; e < totals.size(); ++e) {
      auto const replicas = where.replicas(static_cast<expert_id>(e));
      double const share = static_cast<double>(totals[e]) / static_cast<double>(std::max<std::size_t>(replicas.size(), 1));
      for (replica const& one : replicas) { loads[static_cast<std::size_t>(one.rank)] += share; }
    }
    return loads.empty() ? 0.0 : *std::max_element(loads.begin(), loads.end());
  }
  /// @param where the placement
  /// @returns scratch bytes of the call
  [[nodiscard]] std::size_t workspace_bytes(placement const& where) const noexcept { return fairlead::workspace_bytes<double>(where.ranks()); }
};

/// @brief The largest load of a rank after a split of the load over replicas.
///
/// With an optimal split this is the least that any shares can reach: the largest density of a set of ranks, rounded up.
/// @tparam Split a model of `replica_split`
/// @source{MicroMoE, equation 3}
template <replica_split Split>
struct split_load {
  Split split{};  ///< how loads are split

  /// @param where the placement
  /// @param totals copies an expert, < 2^31 each. @shape{experts}
  /// @param ws at least `workspace_bytes(where)`
  /// @returns what the split says is the largest load of a rank
  /// @complexity that of the split, no allocation
  [[nodiscard]] double operator()(placement const& where, std::span<index_t const> totals, workspace& ws) const {
    workspace::scope const scope(ws);
    auto const shares = ws.take<count_t>(where.replicas());
    return split.split(totals, where, shares, ws).value;
  }
  /// @param where the placement
  /// @returns scratch bytes of the call
  [[nodiscard]] std::size_t workspace_bytes(placement const& where) const {
    return fairlead::workspace_bytes<count_t>(where.replicas()) + split.workspace_bytes(where);
  }
};

/// @brief Plan anew when the largest load of a rank is too far above the mean, and no better than it was.
///
/// Fires when largest / mean is above `above`, and above `worse` times the least value since the last plan: where planning
/// cannot reach the threshold it is not tried again for nothing, only after the load has drifted. Also fires when an
/// expert with load has no replica. Without load it never fires. The mean is over ranks that have slots.
/// @tparam Evaluator called with (placement, totals, workspace), returns the largest load of a rank; says its
/// `workspace_bytes(placement)`
/// @tparam Reason what it says when it fires
/// @source{MicroMoE, adaptive replacement; the paper gives no threshold, the values and the hysteresis are this library's
/// choice}
template <class Evaluator, replan_reason Reason>
struct load_threshold {
  static_assert(requires(Evaluator const& evaluator, placement const& where, std::span<index_t const> totals, workspace& ws) {
    { evaluator(where, totals, ws) } -> std::convertible_to<double>;
    { evaluator.workspace_bytes(where) } -> std::convertible_to<std::size_t>;
  }, "the evaluator is called with (placement, totals, workspace), returns the largest load of a rank, and has "
     "workspace_bytes(placement), e.g. fairlead::equal_share_load");

  double above = 1.2;     ///< largest / mean above which it fires, >= 1
  double worse = 1.1;     ///< and above this times the least since the last plan, >= 1; 1 = any worse
  Evaluator evaluator{};  ///< what says the largest load of a rank

  /// What is carried on.
  struct state_type {
    std::vector<index_t> totals;  ///< what is expected. @shape{experts}
    double least = 0.0;           ///< least largest / mean since the last plan, 0 if none was seen
    std::int64_t planned = 0;     ///< plans so far
    /// @brief Visit the arrays of the state.
    /// @param self the state
    /// @param f called with a span of each array
    template <class Self, class Function>
    static void each_array(Self& self, Function&& f) {
      f(std::span(self.totals));
      f(std::span(&self.least, 1));
      f(std::span(&self.planned, 1));
    }
  };
  /// @param experts number of experts
  /// @returns nothing expected
  /// @throws std::bad_alloc
  [[nodiscard]] state_type make_state(index_t experts) const {
    state_type state;
    state.totals.assign(static_cast<std::size_t>(experts), 0);
    return state;
  }
  /// @brief Remember what is expected.
  /// @param load its totals are copied. @shape{experts}
  /// @param[in,out] state what is carried on
  /// @throws contract_violation (level 1) on a shape mismatch
  void observe(load_estimate const& load, state_type& state) const {
    FAIRLEAD_EXPECTS(load.totals.size() == state.totals.size(), "one total an expert", load.totals.size(), state.totals.size());
    std::copy(load.totals.begin(), load.totals.end(), state.totals.begin());
  }
  /// @brief Judge the placement in use by what is expected.
  /// @param where the placement
  /// @param[in,out] state remembers the least value since the last plan
  /// @param ws at least `workspace_bytes(where)`
  /// @returns `Reason`, `replan_reason::lost_expert` or `replan_reason::none`
  /// @throws contract_violation (level 1) on a shape mismatch, or fields below 1
  /// @complexity that of the evaluator, no allocation
  [[nodiscard]] replan_reason should_replan(placement const& where, state_type& state, workspace& ws) const {
    FAIRLEAD_EXPECTS(above >= 1.0 && worse >= 1.0, "thresholds below 1 would always fire", above, worse);
    FAIRLEAD_EXPECTS(where.experts() == static_cast<index_t>(state.totals.size()), "the placement has other experts than the state",
                     where.experts(), state.totals.size());
    double total = 0.0;
    for (std::size_t e = 0; e < state.totals.size(); ++e) {
      if (state.totals[e] > 0 && where.replicas(static_cast<expert_id>(e)).empty()) { return replan_reason::lost_expert; }
      total += static_cast<double>(state.totals[e]);
    }
    index_t hosting = 0;
    for (index_t rank = 0; rank < where.ranks(); ++rank) { hosting += where.slots(static_cast<rank_id>(rank)) > 0 ? 1 : 0; }
    if (total == 0.0) { return replan_reason::none; }
    double const value = evaluator(where, state.totals, ws) * static_cast<double>(hosting) / total;
    if (state.planned > 0) { state.least = state.least == 0.0 ? value : std::min(state.least, value); }
    return value > above && value > (state.least == 0.0 ? above : state.least * worse) ? Reason : replan_reason::none;
  }
  /// @brief Forget how good the placement before was.
  /// @param[in,out] state what is carried on
  void replanned(state_type& state) const noexcept {
    state.least = 0.0;
    ++state.planned;
  }
  /// @param where the placement
  /// @returns scratch bytes of `should_replan`
  [[nodiscard]] std::size_t workspace_bytes(placement const& where) const { return evaluator.workspace_bytes(where); }
};

/// Plan anew when even shares load ranks too unequally.
using imbalance_threshold = load_threshold<equal_share_load, replan_reason::imbalance>;
static_assert(replan_trigger<imbalance_threshold>);

/// @brief Plan anew when no shares at all would load ranks equally enough.
/// @tparam Evaluator the least possible largest load of a rank, e.g. `split_load` of an optimal split
template <class Evaluator>
using density_threshold = load_threshold<Evaluator, replan_reason::density>;

/// @brief Plan anew when one of several triggers says so; the first one's reason counts.
/// @tparam Triggers models of `replan_trigger`
template <class... Triggers>
struct any_trigger {
  static_assert((replan_trigger<Triggers> && ...), "every part must model fairlead::replan_trigger (concepts/replan_trigger.hpp)");

  std::tuple<Triggers...> triggers{};  ///< the triggers

  /// What is carried on.
  struct state_type {
    std::tuple<typename Triggers::state_type...> states;  ///< one a trigger
    /// @brief Visit the arrays of the states.
    /// @param self the state
    /// @param f called with a span of each array
    template <class Self, class Function>
    static void each_array(Self& self, Function&& f) {
      std::apply([&](auto&... state) { (std::remove_cvref_t<decltype(state)>::each_array(state, f), ...); }, self.states);
    }
  };
  /// @param experts number of experts
  /// @returns a state of each trigger
  [[nodiscard]] state_type make_state(index_t experts) const {
    return {std::apply([&](auto const&... trigger) { return std::tuple{trigger.make_state(experts)...}; }, triggers)};
  }
  /// @brief Show a micro-batch to every trigger.
  /// @param load what is expected now
  /// @param[in,out] state their states
  void observe(load_estimate const& load, state_type& state) const {
    each(state, [&](auto const& trigger, auto& own) { trigger.observe(load, own); });
  }
  /// @brief Ask every trigger.
  /// @param where the placement
  /// @param[in,out] state their states
  /// @param ws at least `workspace_bytes(where)`
  /// @returns the first reason that is not none
  [[nodiscard]] replan_reason should_replan(placement const& where, state_type& state, workspace& ws) const {
    replan_reason first = replan_reason::none;
    each(state, [&](auto const& trigger, auto& own) {
      replan_reason const reason = trigger.should_replan(where, own, ws);
      if (first == replan_reason::none) { first = reason; }
    });
    return first;
  }
  /// @brief Tell every trigger.
  /// @param[in,out] state their states
  void replanned(state_type& state) const {
    each(state, [](auto const& trigger, auto& own) { trigger.replanned(own); });
  }
  /// @param where the placement
  /// @returns scratch bytes of `should_replan`
  [[nodiscard]] std::size_t workspace_bytes(placement const& where) const {
    return std::apply([&](auto const&... trigger) { return std::max({std::size_t{0}, static_cast<std::size_t>(trigger.workspace_bytes(where))...}); }, triggers);
  }

 private:
  template <class Function>
  void each(state_type& state, Function&& f) const {
    [&]<std::size_t... i>(std::index_sequence<i...>) { (f(std::get<i>(triggers), std::get<i>(state.states)), ...); }(std::index_sequence_for<Triggers...>{});
  }
};
static_assert(replan_trigger<any_trigger<every_interval, imbalance_threshold>>);

FAIRLEAD_NAMESPACE_END
