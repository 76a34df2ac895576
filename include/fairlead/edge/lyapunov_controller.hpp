// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Route the tokens of a time slot, choose speeds, serve, and keep queues and energy stable in the long run.
#include <fairlead/concepts/slot_router.hpp>
#include <fairlead/concepts/speed_rule.hpp>
#include <fairlead/edge/cubic_energy.hpp>
#include <fairlead/edge/detail/copy_queues.hpp>
#include <fairlead/edge/lyapunov_linear.hpp>
#include <fairlead/edge/queue_state.hpp>
#include <fairlead/edge/slot_orders.hpp>
#include <fairlead/edge/speed_rules.hpp>
#include <fairlead/edge/ties.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Slot by slot: admit, route, choose speeds, serve, account for energy.
///
/// Each server has a queue of copies Q and a virtual queue of energy Z, which grows by what a slot spends beyond the average
/// budget. Routers and speed rules that make the growth of (Q^2 + w Z^2) / 2 less V times the utility small keep both stable
/// wherever that is possible, without knowledge of the future. Baselines differ in the router alone: same arrivals, same speed
/// rule, same order inside a slot.
///
/// What holds on any path: time-average energy <= budget + Z(T) / T, so the budget is met in the long run, not in a
/// given slot. More than `stable_arrivals` tokens a slot cannot be carried: queues then grow, Z first.
///
/// The paper's own equations were not readable. The system model, the rules and the defaults of all fields are reconstructed
/// from its abstract, two summaries and the standard theory.
/// @tparam SlotRouter a model of `slot_router`
/// @tparam SpeedRule a model of `speed_rule`
/// @tparam EnergyModel a model of `energy_model`
/// @tparam SlotOrder `serve_same_slot` or `serve_next_slot`
/// @tparam TieBreak a model of `tie_break`
/// @tparam Admission a model of `slot_admission`
/// @source{2512.06784, abstract (reconstructed); neely2010, drift plus penalty}
template <class SlotRouter = lyapunov_linear, class SpeedRule = closed_form_speed, class EnergyModel = cubic_energy,
          class SlotOrder = serve_same_slot, class TieBreak = ties_by_id, class Admission = accept_all>
struct lyapunov_controller {
  static_assert(energy_model<EnergyModel>, "servers must model fairlead::energy_model (concepts/energy_model.hpp)");
  static_assert(tie_break<TieBreak>, "ties must model fairlead::tie_break (concepts/slot_router.hpp), e.g. ties_by_id");
  static_assert(slot_router<SlotRouter, EnergyModel, TieBreak>,
                "router must model fairlead::slot_router (concepts/slot_router.hpp), e.g. lyapunov_linear");
  static_assert(speed_rule<SpeedRule, EnergyModel>,
                "speed must model fairlead::speed_rule (concepts/speed_rule.hpp), e.g. closed_form_speed");
  static_assert(slot_order<SlotOrder>, "order must say serves_arrivals, e.g. serve_same_slot");
  static_assert(slot_admission<Admission>, "admission must model fairlead::slot_admission, e.g. accept_all");

  EnergyModel servers;          ///< what service costs
  index_t fan_out = 1;          ///< K, servers a token, 1 to their number
  slot_weights weights{};       ///< V, mu, w
  SlotRouter router{};          ///< who gets which token
  SpeedRule speed{};            ///< how much each server serves
  SlotOrder order{};            ///< whether arrivals can be served at once
  TieBreak ties{};              ///< who wins with equal keys
  Admission admission{};        ///< which tokens are let in
  std::uint64_t seed = 0;       ///< seed of random routers

  /// @brief Make empty queues.
  /// @param limits the largest sizes to serve
  /// @returns the state
  /// @throws contract_violation (level 1) on bad fields or sizes; std::bad_alloc
  [[nodiscard]] queue_state make_state(queue_limits const& limits) const {
    check();
    return {servers.servers(), fan_out, limits};
  }
  /// @param arrivals most tokens of a slot
  /// @returns scratch bytes of `step`
  [[nodiscard]] std::size_t workspace_bytes(index_t arrivals) const {
    return router.workspace_bytes(arrivals, servers.servers(), fan_out);
  }

  /// @brief Let one slot pass.
  /// @param scores gate scores of the arrivals, finite. @shape{arrivals x servers}
  /// @param[in,out] state what `make_state` returned
  /// @param ws at least `workspace_bytes(arrivals)`
  /// @returns what happened; its spans hold until the next slot of this state
  /// @throws contract_violation (level 1) on wrong shapes, fields or sizes, and if more tokens are let in than the state has
  /// room for; (level 2) if the router or the speed rule breaks its promises. The queues are then untouched: the slot can
  /// be tried again
  /// @complexity that of the router, and O(servers + copies sent + copies served); no allocation
  /// @determinism a function of arguments, state and seed
  slot_report step(matrix_view<float const> scores, queue_state& state, workspace& ws) const {
    check();
    index_t const count = servers.servers();
    FAIRLEAD_EXPECTS(state.servers() == count && state.fan_out == fan_out, "the state must come from make_state()",
                     state.servers(), count, state.fan_out, fan_out);
    FAIRLEAD_EXPECTS(scores.rows() == 0 || scores.cols() == count, "one score a server", scores.cols(), count);

    slot_report result;
    result.fan_out = fan_out;
    result.arrivals = scores.rows();
    result.first_token = state.next_token;
    result.admitted = admit(scores.rows(), state);
    result.dropped = result.arrivals - result.admitted;

    slot_view const view{.scores = {scores.data(), result.admitted, scores.cols(), scores.stride()},
                         .backlog = state.backlog,
                         .energy_debt = state.energy_debt,
                         .weights = weights,
                         .fan_out = fan_out,
                         .serves_arrivals = SlotOrder::serves_arrivals,
                         .slot = static_cast<std::uint64_t>(state.slot),
                         .first_token = static_cast<std::uint64_t>(state.next_token),
                         .seed = seed};
    matrix_view<expert_id> const choice(state.choice.data(), result.admitted, fan_out);
    router.route(view, servers, ties, choice, state.sent, ws);
    FAIRLEAD_EXPECTS_2(sound(choice, state.sent), "the slot router must choose distinct servers and count them");
    speed.speeds(view, servers, state.sent, state.served);
    limit(view, state);
    result.gate_mass = gate_mass(view.scores, choice);

    double const before = state.lyapunov(weights.energy);
    result.completed = {state.completed.data(), static_cast<std::size_t>(pass(choice, state))};
    result.delays = {state.delays.data(), result.completed.size()};
    for (std::size_t j = 0; j < state.served.size(); ++j) {
      result.copies += state.served[j];
      result.total_energy += state.energy[j];
    }
    result.choice = choice;
    result.sent = state.sent;
    result.served = state.served;
    result.energy = state.energy;
    result.utility = result.copies + weights.gate * result.gate_mass;
    result.lyapunov = state.lyapunov(weights.energy);
    result.drift = result.lyapunov - before;
    ++state.slot;
    state.next_token += result.arrivals;
    return result;
  }

 private:
  void check() const {
    FAIRLEAD_EXPECTS(fan_out >= 1 && fan_out <= servers.servers(),
                     "a token needs fan_out distinct servers: fan_out must be between 1 and the number of servers", fan_out,
                     servers.servers());
    FAIRLEAD_EXPECTS(weights.utility >= 0.0 && weights.gate >= 0.0 && weights.energy >= 0.0,
                     "the weights V, mu and w must not be negative", weights.utility, weights.gate, weights.energy);
    FAIRLEAD_EXPECTS(std::isfinite(weights.utility * weights.gate) && std::isfinite(weights.utility) &&
                         std::isfinite(weights.gate) && std::isfinite(weights.energy),
                     "the weights V, mu, w and V mu must be finite: for the limit of the gate's own choice take score_first",
                     weights.utility, weights.gate, weights.energy);
  }
  [[nodiscard]] index_t admit(index_t arrivals, queue_state const& state) const {
    index_t copies = 0;
    for (index_t const own : state.waiting) { copies += own; }
    index_t const room = std::min(state.max_waiting() - state.under_way, state.max_arrivals());
    slot_offer const offer{arrivals, fan_out, copies, state.under_way, room};
    auto const admitted = static_cast<index_t>(admission.admit(offer));
    FAIRLEAD_EXPECTS(admitted >= 0 && admitted <= arrivals, "an admission policy lets in between none and all", admitted, arrivals);
    FAIRLEAD_EXPECTS(admitted <= room,
                     "the state has no room for the tokens of this slot: raise max_arrivals or max_waiting, or take bounded_backlog",
                     admitted, state.max_arrivals(), state.under_way, state.max_waiting());
    return admitted;
  }
  // No server serves beyond its cap, nor copies that are not there.
  void limit(slot_view const& view, queue_state& state) const {
    for (std::size_t j = 0; j < state.served.size(); ++j) {
      FAIRLEAD_EXPECTS_2(state.served[j] >= 0.0, "a speed rule must not serve negative numbers of copies", j, state.served[j]);
      auto const server = static_cast<index_t>(j);
      state.served[j] = std::min({state.served[j], servers.cap(server), view.servable(server, state.sent[j])});
    }
  }
  [[nodiscard]] static double gate_mass(matrix_view<float const> scores, matrix_view<expert_id const> choice) {
    double sum = 0.0;
    for (index_t t = 0; t < choice.rows(); ++t) {
      for (index_t k = 0; k < choice.cols(); ++k) { sum += static_cast<double>(scores(t, to_index(choice(t, k)))); }
    }
    return sum;
  }
  // Returns the number of completed tokens.
  [[nodiscard]] index_t pass(matrix_view<expert_id const> choice, queue_state& state) const {
    index_t completed = 0;
    if constexpr (SlotOrder::serves_arrivals) { enqueue(choice, state); }
    for (std::size_t j = 0; j < state.served.size(); ++j) {
      double const available = SlotOrder::serves_arrivals ? state.backlog[j] + static_cast<double>(state.sent[j]) : state.backlog[j];
      completed = detail::serve_queue(state, j, state.served[j], available, completed);
      state.energy[j] = servers.energy(static_cast<index_t>(j), state.served[j]);
      state.energy_debt[j] = std::max(state.energy_debt[j] + state.energy[j] - servers.budget(static_cast<index_t>(j)), 0.0);
    }
    if constexpr (!SlotOrder::serves_arrivals) { enqueue(choice, state); }
    for (std::size_t j = 0; j < state.served.size(); ++j) {
      state.backlog[j] = static_cast<double>(state.waiting[j]) - state.progress[j];
    }
    return completed;
  }
  void enqueue(matrix_view<expert_id const> choice, queue_state& state) const {
    for (index_t t = 0; t < choice.rows(); ++t) { detail::enqueue_token(state, state.next_token + t, choice.row(t)); }
  }
  [[nodiscard]] static bool sound(matrix_view<expert_id const> choice, std::span<index_t const> counts) {
    index_t total = 0;
    for (index_t const own : counts) { total += own; }
    if (total != choice.rows() * choice.cols()) { return false; }
    auto const servers = static_cast<index_t>(counts.size());
    for (index_t t = 0; t < choice.rows(); ++t) {
      expert_id const* const row = choice.row(t);
      for (index_t k = 0; k < choice.cols(); ++k) {
        if (to_index(row[k]) < 0 || to_index(row[k]) >= servers || std::find(row, row + k, row[k]) != row + k) { return false; }
      }
    }
    return true;
  }
};

FAIRLEAD_NAMESPACE_END
