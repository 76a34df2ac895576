// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Check that a type keeps the promises of the concept `balance_signal_on`.
#include <fairlead/concepts/balance_signal.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/order.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/laws/verdict.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief The problem that `check_balance_signal` makes.
struct balance_signal_problem {
  index_t tokens = 12;       ///< rows, >= 2
  index_t experts = 6;       ///< columns, >= 2
  index_t fan_out = 2;       ///< experts a token, 1 <= fan_out < experts
  index_t columns = 0;       ///< columns of the logits, the experts' own first; 0 = one an expert
  std::uint64_t seed = 1;    ///< names the logits
  double tolerance = 2e-3;   ///< error of a gradient entry allowed, in units of the largest
  bool even_is_best = false; ///< whether collapsed routing must cost more than even routing (losses on the load)
};

namespace detail {

// A batch with its routing (the k largest logits of each valid row) and its counts.
struct signal_case {
  matrix<float> logits;
  routing<> routed;
  std::vector<std::uint8_t> mask;
  std::vector<index_t> counts;
  index_t valid = 0;

  signal_case(index_t tokens, index_t experts, index_t fan_out, index_t columns = 0)
      : logits(tokens, columns > 0 ? columns : experts), routed(tokens, fan_out) {
    counts.assign(static_cast<std::size_t>(experts), 0);
  }
  void route() {
    std::fill(counts.begin(), counts.end(), index_t{0});
    valid = 0;
    routing_view const out = routed.view();
    for (index_t t = 0; t < logits.rows(); ++t) {
      bool const padded = !mask.empty() && mask[static_cast<std::size_t>(t)] == 0;
      valid += padded ? 0 : 1;
      std::vector<std::int32_t> ids(counts.size());
      for (std::size_t e = 0; e < ids.size(); ++e) { ids[e] = static_cast<std::int32_t>(e); }
      float const* const row = logits.view().row(t);
      std::sort(ids.begin(), ids.end(),
                [row](std::int32_t a, std::int32_t b) { return comes_before(row[a], a, row[b], b); });
      for (index_t j = 0; j < out.fan_out(); ++j) {
        std::int32_t const id = ids[static_cast<std::size_t>(j)];
        out.experts(t, j) = padded ? expert_id::none : static_cast<expert_id>(id);
        out.weights(t, j) = padded ? 0.0F : 1.0F / static_cast<float>(out.fan_out());
        if (!padded) { ++counts[static_cast<std::size_t>(id)]; }
      }
    }
  }
};

struct signal_result {
  double loss = 0.0;
  matrix<float> grad;
};

template <class Signal, class Backend>
signal_result evaluate_signal(Backend const& on, Signal const& signal, signal_state_t<Signal>& state,
                              signal_case const& batch, double scale, float start) {
  signal_result result;
  result.grad = matrix<float>(batch.logits.rows(), batch.logits.cols());
  for (float& value : result.grad.span()) { value = start; }
  arena memory(signal.workspace_bytes(batch.logits.rows(), static_cast<index_t>(batch.counts.size())));
  workspace ws = memory.view();
  route_context context;
  context.token_mask = batch.mask;
  signal.accumulate(batch.counts, batch.valid, state);
  result.loss = signal.add_gradient(on, batch.logits.view(), batch.routed.view(), context, std::as_const(state), scale,
                                    result.grad.view(), ws);
  return result;
}

[[nodiscard]] inline bool same_bits(signal_result const& a, signal_result const& b) {
  return std::memcmp(&a.loss, &b.loss, sizeof a.loss) == 0 &&
         std::memcmp(a.grad.data(), b.grad.data(), a.grad.span().size_bytes()) == 0;
}

}  // namespace detail

/// @brief Check a signal on a small batch.
///
/// Laws: the gradient equals differences of the returned loss, with the routing held constant; it is added, not
/// assigned, and follows `scale`, while the loss does not; equal calls give equal bits; padded rows change nothing
/// whatever they hold and get no gradient; zero tokens give 0; `end_global_batch` forgets. With
/// `problem.even_is_best`: a batch whose rows all prefer the same experts costs more than one that loads all alike.
/// @tparam Signal a model of `balance_signal_on<Signal, Backend>`
/// @tparam Backend a host backend
/// @param signal the signal
/// @param problem sizes, seed, tolerance
/// @param on the backend
/// @returns the first broken law
template <class Signal, host_backend Backend = serial>
  requires balance_signal_on<Signal, Backend>
[[nodiscard]] verdict check_balance_signal(Signal const& signal, balance_signal_problem const& problem = {},
                                           Backend const& on = {}) {
  using detail::evaluate_signal;
  using detail::signal_case;
  index_t const tokens = problem.tokens;
  index_t const experts = problem.experts;
  index_t const columns = problem.columns > 0 ? problem.columns : experts;
  auto const broken = [&](char const* law, auto const&... more) {
    return verdict::broken("balance signal: ", law, " (", tokens, " tokens, ", experts, " experts, fan-out ",
                           problem.fan_out, ", seed ", problem.seed, ")", more...);
  };
  auto const fresh = [&](signal_case const& batch, double scale, float start) {
    auto state = signal.make_state(experts);
    return evaluate_signal(on, signal, state, batch, scale, start);
  };

  signal_case batch(tokens, experts, problem.fan_out, columns);
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t e = 0; e < columns; ++e) {
      // Earlier experts are favoured, so that loads are uneven and their gradients are not zero.
      double const tilt = 0.3 * static_cast<double>(experts - e) / static_cast<double>(experts);
      batch.logits(t, e) = static_cast<float>(
          tilt + philox::normal(problem.seed, static_cast<std::uint64_t>(t), static_cast<std::uint64_t>(e)));
    }
    if (columns > experts) {
      // A loss may take the best of the experts' own columns as its target: differences must not change which one it is.
      *std::max_element(batch.logits.view().row(t), batch.logits.view().row(t) + experts) += 0.5F;
    }
  }
  batch.route();
  auto const base = fresh(batch, 1.0, 0.0F);
  if (!std::isfinite(base.loss)) { return broken("the loss of finite logits is finite"); }
  if (!same_bits(base, fresh(batch, 1.0, 0.0F))) { return broken("equal calls give equal bits"); }
  float largest = 0.0F;
  for (float const value : base.grad.span()) { largest = std::max(largest, std::fabs(value)); }
  double const allowed = problem.tolerance * static_cast<double>(largest) + 1e-7 * std::fabs(base.loss) + 1e-12;

  auto const doubled = fresh(batch, 2.0, 0.0F);
  if (doubled.loss != base.loss) { return broken("the loss does not depend on scale"); }
  auto const added = fresh(batch, 1.0, 1.0F);
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t e = 0; e < columns; ++e) {
      double const value = static_cast<double>(base.grad(t, e));
      if (std::fabs(static_cast<double>(doubled.grad(t, e)) - 2.0 * value) > allowed) {
        return broken("the gradient follows scale", " at ", t, ", ", e);
      }
      if (std::fabs(static_cast<double>(added.grad(t, e)) - 1.0 - value) > allowed + 1e-6) {
        return broken("the gradient is added to what is there", " at ", t, ", ", e);
      }
    }
  }

  // Fourth-order central differences: fp32 noise asks for a wide step, which a low order would not forgive.
  constexpr double step = 0.0625;
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t e = 0; e < columns; ++e) {
      float const centre = batch.logits(t, e);
      auto const at = [&](double offset) {
        batch.logits(t, e) = static_cast<float>(static_cast<double>(centre) + offset);
        double const loss = fresh(batch, 1.0, 0.0F).loss;
        batch.logits(t, e) = centre;
        return loss;
      };
      double const slope = (8.0 * (at(step) - at(-step)) - (at(2.0 * step) - at(-2.0 * step))) / (12.0 * step);
      if (std::fabs(slope - static_cast<double>(base.grad(t, e))) > allowed) {
        return broken("the gradient equals differences of the loss", " at ", t, ", ", e, ": gradient ",
                      base.grad(t, e), ", differences ", slope);
      }
    }
  }

  // Padding: two fillings of the padded rows must be told apart by nothing.
  signal_case padded(tokens, experts, problem.fan_out, columns);
  padded.mask.assign(static_cast<std::size_t>(tokens), 1);
  for (index_t t = 0; t < tokens; t += 3) { padded.mask[static_cast<std::size_t>(t)] = 0; }
  auto const fill = [&](float value) {
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t e = 0; e < columns; ++e) {
        bool const padding = padded.mask[static_cast<std::size_t>(t)] == 0;
        padded.logits(t, e) = padding ? (e == 0 ? value : 0.0F) : batch.logits(t, e);
      }
    }
    padded.route();
    return fresh(padded, 1.0, 0.0F);
  };
  auto const one = fill(50.0F);
  if (!same_bits(one, fill(std::numeric_limits<float>::quiet_NaN()))) { return broken("padded rows change nothing"); }
  for (index_t t = 0; t < tokens; t += 3) {
    for (index_t e = 0; e < columns; ++e) {
      if (one.grad(t, e) != 0.0F) { return broken("padded rows get no gradient", " at ", t, ", ", e); }
    }
  }

  signal_case none(0, experts, problem.fan_out, columns);
  none.route();
  if (fresh(none, 1.0, 0.0F).loss != 0.0) { return broken("no token, no loss"); }

  auto state = signal.make_state(experts);
  signal_case skewed(tokens, experts, problem.fan_out, columns);
  for (index_t t = 0; t < tokens; ++t) { skewed.logits(t, experts - 1) = 3.0F; }
  skewed.route();
  (void)evaluate_signal(on, signal, state, skewed, 1.0, 0.0F);
  signal.end_global_batch(state);
  if (!same_bits(base, evaluate_signal(on, signal, state, batch, 1.0, 0.0F))) {
    return broken("end_global_batch forgets the batch");
  }

  if (problem.even_is_best) {
    signal_case collapsed(experts * 2, experts, problem.fan_out, columns);
    signal_case even(experts * 2, experts, problem.fan_out, columns);
    for (index_t t = 0; t < experts * 2; ++t) {
      for (index_t e = 0; e < experts; ++e) {
        auto const score = static_cast<float>(e) * 0.5F;
        collapsed.logits(t, e) = score;
        even.logits(t, (e + t) % experts) = score;
      }
    }
    collapsed.route();
    even.route();
    double const high = fresh(collapsed, 1.0, 0.0F).loss;
    double const low = fresh(even, 1.0, 0.0F).loss;
    if (!(high > low * (1.0 + 1e-6))) {
      return broken("even routing costs less than collapsed routing", ": ", low, " against ", high);
    }
  }
  return {};
}

}  // namespace laws
FAIRLEAD_NAMESPACE_END
