// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The first stage of a dispatch: number the copies of each expert, and say which of all ranks' copies are kept.
#include <fairlead/concepts/capacity_policy.hpp>
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/exchange_plan.hpp>
#include <fairlead/core/implementation.hpp>
#include <fairlead/core/placement.hpp>
#include <fairlead/core/routing.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/dispatch/detail/count_copies.hpp>
#include <fairlead/dispatch/overflow.hpp>
#include <fairlead/dispatch/service_order.hpp>

#include <algorithm>
#include <limits>
#include <span>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Combine a capacity, a service order and an overflow action.
///
/// @tparam Capacity how many copies an expert takes (`dispatch/capacity.hpp`)
/// @tparam Order who is served first (`dispatch/service_order.hpp`)
/// @tparam Overflow what becomes of the others (`dispatch/overflow.hpp`)
template <class Capacity, class Order, class Overflow>
struct admission {
  static_assert(capacity_policy<Capacity>, "the capacity must model fairlead::capacity_policy (dispatch/capacity.hpp)");
  static_assert(service_order<Order>, "the order must model fairlead::service_order (dispatch/service_order.hpp)");
  static_assert(overflow_policy<Overflow>, "the overflow action must model fairlead::overflow_policy (dispatch/overflow.hpp)");
  static_assert(!Overflow::reassigns || Capacity::scope == capacity_scope::rank || Capacity::scope == capacity_scope::none,
                "an overflow action that reassigns copies decides on the source rank: use a capacity of scope rank");
  static_assert(!Overflow::reassigns || !closes_experts<Capacity>,
                "an overflow action that reassigns copies does not know closed experts: use identity or drop");

  static_assert(!(Overflow::keeps_own_row && Overflow::renormalises),
                "an overflow action either returns the token or renormalises the other weights, not both");

  Capacity capacity{};  ///< places per expert
  Order order{};        ///< who is served first
  Overflow overflow{};  ///< what becomes of copies without a place

  /// @brief Number this rank's copies and fill the row of counts that the others need.
  /// @param on backend
  /// @param routed what the router wrote. @shape{tokens x fan_out}
  /// @param context its context; masked tokens have no expert
  /// @param experts number of logical experts
  /// @param[out] plan tokens, fan_out, experts, chosen, positions, count_row; `ranks` must be set
  /// @param ws scratch of `workspace_bytes`
  /// @complexity O(copies + experts) for `token_order`; sorts cost what they say
  template <execution_backend Backend, class Space>
  void admit(Backend const& on, const_routing_view routed, route_context const& context, index_t experts,
             exchange_plan<Space>& plan, workspace& ws) const {
    FAIRLEAD_EXPECTS(routed.experts.contiguous() && routed.weights.contiguous(), "routing rows must be contiguous");
    plan.tokens = routed.tokens();
    plan.fan_out = routed.fan_out();
    plan.experts = experts;
    index_t const copies = plan.tokens * plan.fan_out;
    FAIRLEAD_EXPECTS(copies <= std::numeric_limits<std::int32_t>::max(), "a rank handles at most 2^31 - 1 copies at once", copies);
    plan.chosen.resize(copies);
    plan.weights.resize(copies);
    plan.positions.resize(copies);
    plan.copy_to_outer.resize(copies);
    plan.count_row.resize(2 * experts + 1);
    implementation<admission, Backend>::run(on, *this, routed, context, plan, ws);
  }

  /// @brief Say how many copies of each (source rank, expert) are kept, from everybody's counts.
  /// @param gathered the count rows of all ranks, host memory. @shape{ranks x (2 experts + 1)}
  /// @param where the placement in force
  /// @param fan_out copies a token
  /// @param[out] kept the load to be scheduled. @shape{ranks x experts}
  /// @complexity O(ranks x experts), no allocation
  /// @determinism integers; equal on every rank
  void limit(matrix_view<count_t const> gathered, placement const& where, index_t fan_out,
             matrix_view<count_t> kept) const {
    index_t const ranks = kept.rows();
    index_t const experts = kept.cols();
    FAIRLEAD_EXPECTS(where.ranks() == ranks && where.experts() == experts, "the placement is for other sizes", where.ranks(), where.experts(), ranks, experts);
    FAIRLEAD_EXPECTS(gathered.rows() == ranks && gathered.cols() == 2 * experts + 1, "one count row a rank",
                     gathered.rows(), gathered.cols(), ranks, experts);
    if constexpr (Capacity::scope == capacity_scope::none) {
      for (index_t rank = 0; rank < ranks; ++rank) { std::copy_n(gathered.row(rank), experts, kept.row(rank)); }
    } else if constexpr (Capacity::scope == capacity_scope::rank) {
      for (index_t rank = 0; rank < ranks; ++rank) {
        index_t const places = capacity.places(gathered(rank, 2 * experts), experts, fan_out, ranks);
        for (index_t e = 0; e < experts; ++e) {
          kept(rank, e) = static_cast<count_t>(std::min<index_t>(gathered(rank, e), places));
        }
      }
    } else {
      index_t all_tokens = 0;
      for (index_t rank = 0; rank < ranks; ++rank) { all_tokens += gathered(rank, 2 * experts); }
      for (index_t e = 0; e < experts; ++e) {
        index_t tokens = all_tokens;
        if constexpr (Capacity::scope == capacity_scope::receiver) {
          auto const replicas = where.replicas(static_cast<expert_id>(e));
          tokens = replicas.empty() ? 0 : gathered(to_index(replicas.front().rank), 2 * experts);
        }
        index_t places = capacity.places(tokens, experts, fan_out, ranks);
        for (index_t rank = 0; rank < ranks; ++rank) {  // arrival order: lower source ranks first
          index_t const taken = std::min<index_t>(gathered(rank, e), places);
          kept(rank, e) = static_cast<count_t>(taken);
          if (places != unlimited_places) { places -= taken; }
        }
      }
    }
    if constexpr (closes_experts<Capacity>) {
      for (index_t e = 0; e < experts; ++e) {
        for (index_t rank = 0; rank < ranks && capacity.closes(e); ++rank) { kept(rank, e) = 0; }
      }
    }
  }

  /// @param copies most copies of a call
  /// @param experts number of logical experts
  /// @param concurrency of the backend
  /// @returns bytes of scratch for `admit`
  [[nodiscard]] std::size_t workspace_bytes(index_t copies, index_t experts, index_t concurrency) const {
    std::size_t bytes = detail::count_workspace_bytes(experts, concurrency);
    if constexpr (!std::is_same_v<Order, token_order> || Overflow::reassigns) {
      bytes += fairlead::workspace_bytes<std::int32_t>(copies) + order.workspace_bytes(copies) + fairlead::workspace_bytes<count_t>(experts);
    }
    return bytes;
  }
};

/// @brief The host text of `admission`.
template <class Capacity, class Order, class Overflow, host_backend Backend>
struct implementation<admission<Capacity, Order, Overflow>, Backend> {
  /// @brief See `admission::admit`.
  static void run(Backend const& on, admission<Capacity, Order, Overflow> const& policy, const_routing_view routed,
                  route_context const& context, exchange_plan<host_space>& plan, workspace& ws) {
    index_t const experts = plan.experts;
    index_t const copies = plan.tokens * plan.fan_out;
    std::copy_n(routed.experts.data(), copies, plan.chosen.data());
    for (index_t copy = 0; copy < copies && FAIRLEAD_CONTRACT_LEVEL >= 2; ++copy) {
      FAIRLEAD_EXPECTS_2(to_index(plan.chosen[copy]) >= -1 && to_index(plan.chosen[copy]) < experts,
                         "the router chose an expert that does not exist", plan.chosen[copy], experts);
    }
    auto const admitted = plan.count_row.span().first(static_cast<std::size_t>(experts));
    auto const raw = plan.count_row.span().subspan(static_cast<std::size_t>(experts), static_cast<std::size_t>(experts));
    index_t valid = plan.tokens;
    if (!context.token_mask.empty()) { valid = plan.tokens - std::count(context.token_mask.begin(), context.token_mask.end(), 0); }
    plan.count_row[2 * experts] = static_cast<count_t>(valid);
    plan.dropped_copies = 0;
    if constexpr (std::is_same_v<Order, token_order> && !Overflow::reassigns) {
      detail::count_copies(on, plan.chosen.span(), admitted, plan.positions.span(), ws);
      std::copy(admitted.begin(), admitted.end(), raw.begin());
    } else {
      workspace::scope const scope(ws);
      auto const sequence = ws.take<std::int32_t>(copies);
      policy.order.sequence(routed, context, sequence, ws);
      if constexpr (Overflow::reassigns) {
        auto const counts = ws.take<count_t>(experts);
        std::fill(raw.begin(), raw.end(), 0);
        for (expert_id const expert : plan.chosen.span()) {
          if (expert != expert_id::none) { ++raw[static_cast<std::size_t>(expert)]; }
        }
        std::fill(counts.begin(), counts.end(), 0);
        index_t const places = policy.capacity.places(valid, experts, plan.fan_out, plan.ranks);
        plan.dropped_copies = policy.overflow.reassign(plan.fan_out, places, sequence, context.expert_mask, plan.chosen.span(), counts);
        detail::count_sequence(sequence, plan.chosen.span(), admitted, plan.positions.span());
      } else {
        detail::count_sequence(sequence, plan.chosen.span(), admitted, plan.positions.span());
        std::copy(admitted.begin(), admitted.end(), raw.begin());
      }
    }
  }
};

FAIRLEAD_NAMESPACE_END
