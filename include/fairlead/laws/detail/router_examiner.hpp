// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The single checks behind `check_router`.
#include <fairlead/concepts/router.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/order.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/laws/verdict.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief The problems that `check_router` makes.
struct router_problem {
  index_t tokens = 64;      ///< tokens a batch
  double skew = 1.0;        ///< how much the means of the experts differ
  std::uint64_t seed = 1;   ///< seed of scores and masks
  std::int32_t vocabulary = 32;  ///< token ids are below this
  /// Whether the scores alone decide, so that of equal scores the lowest ids win (not for tables of token ids).
  bool by_score = true;
  /// With `by_score`: whether nothing but the logits decides in evaluation, so that the best of a token win and no slot
  /// stays empty (not under a group rule). The order of stateful routers is not compared: their state may move it.
  bool best_win = true;
};

namespace detail {

[[nodiscard]] inline matrix<float> skewed_scores(router_problem const& problem, index_t experts) {
  matrix<float> scores(problem.tokens, experts);
  std::uint64_t index = 0;
  for (index_t t = 0; t < problem.tokens; ++t) {
    for (index_t e = 0; e < experts; ++e) {
      double const mean = -problem.skew * std::log(1.0 + static_cast<double>(e));
      scores(t, e) = static_cast<float>(mean + philox::normal(problem.seed, 11, index++));
    }
  }
  return scores;
}

template <class Router>
struct state_holder {
  explicit state_holder(Router const&) {}
};
template <has_state Router>
struct state_holder<Router> {
  explicit state_holder(Router const& router) : state(router.make_state()) {}
  router_state_t<Router> state;
};

template <class Router, class Backend>
class router_examiner {
 public:
  router_examiner(Router const& router, Backend const& on, router_problem const& problem)
      : router_(router), on_(on), problem_(problem), state_(router), arena_(router.workspace_bytes(problem.tokens)) {
    for (index_t t = 0; t < problem.tokens; ++t) {
      auto const word = philox::draw(problem.seed, 12, static_cast<std::uint64_t>(t))[0];
      ids_.push_back(static_cast<std::int32_t>(philox::below(word, static_cast<std::uint32_t>(problem.vocabulary))));
    }
  }

  [[nodiscard]] verdict zero_tokens() {
    routing<> out(0, router_.fan_out());
    arena<> memory(router_.workspace_bytes(0));
    workspace ws = memory.view();
    call({nullptr, 0, logit_columns(router_)}, {}, out, ws);
    return {};
  }

  [[nodiscard]] verdict examine(matrix_view<float const> scores, phase when, std::string_view what) {
    index_t const tokens = scores.rows();
    route_context context = context_for(when);
    routing<> const out = ask(scores, context, 0);
    if (verdict const v = well_formed(scores, context, out, what); !v) { return v; }
    if (!equal(out, ask(scores, context, 7), tokens)) {
      return verdict::broken("equal calls give equal routing [", what, ", seed ", problem_.seed, ']');
    }
    if (when == phase::train) {
      route_context again = context;
      again.phase = phase::recompute;
      if (!equal(out, ask(scores, again, 0), tokens)) {
        return verdict::broken("recomputation repeats the routing of the forward pass [", what, ']');
      }
    }
    if (when == phase::evaluate && causal<Router>) {
      if (verdict const v = alone(scores, context, out, what); !v) { return v; }
    }
    // Masks: random, from the same seed; an expert stays allowed.
    std::vector<std::uint8_t> tokens_allowed, experts_allowed;
    for (index_t t = 0; t < tokens; ++t) { tokens_allowed.push_back(bit(13, t)); }
    for (index_t e = 0; e < router_.experts(); ++e) { experts_allowed.push_back(e == 0 ? 1 : bit(14, e)); }
    context.token_mask = tokens_allowed;
    context.expert_mask = experts_allowed;
    routing<> const masked = ask(scores, context, 0);
    return well_formed(scores, context, masked, what);
  }

  [[nodiscard]] verdict ties() {
    matrix<float> scores(problem_.tokens, logit_columns(router_));
    for (float& score : scores.span()) { score = 0.25F; }
    routing<> const out = ask(scores.view(), context_for(phase::evaluate), 0);
    for (index_t t = 0; t < problem_.tokens; ++t) {
      for (index_t j = 0; j < router_.fan_out(); ++j) {
        if (to_index(out.view().experts(t, j)) != j) {
          return verdict::broken("of equal scores the lowest ids win, in order [token ", t, ", slot ", j, ", expert ",
                                 to_index(out.view().experts(t, j)), ']');
        }
      }
    }
    return {};
  }

  [[nodiscard]] verdict gradient(matrix_view<float const> scores, phase when) {
    if constexpr (has_gradient_on<Router, Backend>) {
      index_t const tokens = scores.rows(), columns = scores.cols(), k = router_.fan_out();
      std::vector<std::uint8_t> allowed(static_cast<std::size_t>(tokens), 1);
      if (tokens > 1) { allowed.back() = 0; }
      route_context context = context_for(when);
      context.token_mask = allowed;
      routing<> const out = ask(scores, context, 0);
      matrix<float> grad_weights(tokens, k), grad_logits(tokens, columns);
      std::uint64_t index = 0;
      for (float& g : grad_weights.span()) { g = static_cast<float>(philox::normal(problem_.seed, 15, index++)); }
      for (float& g : grad_logits.span()) { g = 1e9F; }
      workspace ws = arena_.view();
      if constexpr (has_state<Router>) {
        router_.backward(on_, scores, context, std::as_const(state_.state), out.view(), grad_weights.view(),
                         grad_logits.view(), ws);
      } else {
        router_.backward(on_, scores, context, out.view(), grad_weights.view(), grad_logits.view(), ws);
      }
      on_.wait();
      if constexpr (batch_coupled<Router>) { return coupled_gradient(scores, context, out, grad_weights, grad_logits); }
      matrix<float> moved(tokens, columns);
      for (index_t e = 0; e < columns; ++e) {
        // All tokens at once: the weights of a row depend on its own logits.
        double const step = 1.0 / 64.0;
        std::vector<double> loss[2];
        routing<> sides[2];
        for (int side = 0; side < 2; ++side) {
          for (index_t t = 0; t < tokens; ++t) {
            for (index_t c = 0; c < columns; ++c) {
              moved(t, c) = scores(t, c) + (c == e ? static_cast<float>(side == 0 ? -step : step) : 0.0F);
            }
          }
          sides[side] = ask(moved.view(), context, 0);
          for (index_t t = 0; t < tokens; ++t) {
            double sum = 0.0;
            for (index_t j = 0; j < k; ++j) {
              sum += static_cast<double>(grad_weights(t, j)) * static_cast<double>(sides[side].view().weights(t, j));
            }
            loss[side].push_back(sum);
          }
        }
        for (index_t t = 0; t < tokens; ++t) {
          auto const at = static_cast<std::size_t>(t);
          auto const got = static_cast<double>(grad_logits(t, e));
          if (allowed[at] == 0 && got != 0.0) {
            return verdict::broken("a masked token has gradient zero [token ", t, ", column ", e, ", got ", got, ']');
          }
          if (!same_choice(sides[0], out, t) || !same_choice(sides[1], out, t)) { continue; }
          double const want = (loss[1][at] - loss[0][at]) / (2.0 * step);
          if (!(std::abs(got - want) <= 1e-3 * (1.0 + std::abs(want)))) {
            return verdict::broken("the gradient equals central differences [token ", t, ", column ", e, ", got ", got,
                                   ", differences ", want, ", seed ", problem_.seed, ']');
          }
        }
      }
    } else {
      (void)scores, (void)when;
    }
    return {};
  }

 private:
  // Weights may depend on the logits of other tokens: one logit at a time, and the loss of the whole batch.
  [[nodiscard]] verdict coupled_gradient(matrix_view<float const> scores, route_context const& context,
                                         routing<> const& out, matrix<float> const& grad_weights,
                                         matrix<float> const& grad_logits) {
    index_t const tokens = scores.rows(), columns = scores.cols();
    constexpr float step = 1.0F / 64.0F;
    matrix<float> moved(tokens, columns);
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t c = 0; c < columns; ++c) { moved(t, c) = scores(t, c); }
    }
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t e = 0; e < columns; ++e) {
        double loss[2] = {};
        bool same = true;
        for (int side = 0; side < 2; ++side) {
          moved(t, e) = scores(t, e) + (side == 0 ? -step : step);
          routing<> const there = ask(moved.view(), context, 0);
          for (index_t row = 0; row < tokens; ++row) {
            same = same && same_choice(there, out, row);
            for (index_t j = 0; j < out.fan_out(); ++j) {
              loss[side] +=
                  static_cast<double>(grad_weights(row, j)) * static_cast<double>(there.view().weights(row, j));
            }
          }
        }
        moved(t, e) = scores(t, e);
        auto const got = static_cast<double>(grad_logits(t, e));
        if (context.token_mask[static_cast<std::size_t>(t)] == 0 && got != 0.0) {
          return verdict::broken("a masked token has gradient zero [token ", t, ", column ", e, ", got ", got, ']');
        }
        double const want = (loss[1] - loss[0]) / (2.0 * static_cast<double>(step));
        if (same && !(std::abs(got - want) <= 1e-3 * (1.0 + std::abs(want)))) {
          return verdict::broken("the gradient equals central differences [token ", t, ", column ", e, ", got ", got,
                                 ", differences ", want, ", seed ", problem_.seed, ']');
        }
      }
    }
    return {};
  }
  [[nodiscard]] std::uint8_t bit(std::uint64_t stream, index_t index) const {
    return static_cast<std::uint8_t>(philox::draw(problem_.seed, stream, static_cast<std::uint64_t>(index))[0] & 1U);
  }
  [[nodiscard]] route_context context_for(phase when) const {
    return {.phase = when, .seed = problem_.seed, .step = 5, .first_token = 1000, .token_ids = ids_};
  }
  void call(matrix_view<float const> scores, route_context const& context, routing<>& out, workspace& ws) {
    if constexpr (has_state<Router>) {
      router_.route(on_, scores, context, std::as_const(state_.state), out.view(), ws);
    } else {
      router_.route(on_, scores, context, out.view(), ws);
    }
    on_.wait();
  }
  // Routes from a copy with `padding` more columns a row, into an output full of nonsense.
  [[nodiscard]] routing<> ask(matrix_view<float const> scores, route_context const& context, index_t padding) {
    index_t const tokens = scores.rows(), k = router_.fan_out();
    matrix<float> copy(tokens, scores.cols() + padding);
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t e = 0; e < copy.cols(); ++e) { copy(t, e) = e < scores.cols() ? scores(t, e) : 1e30F; }
    }
    routing<> out(tokens, k);
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t j = 0; j < k; ++j) {
        out.view().experts(t, j) = static_cast<expert_id>(padding + 12345);
        out.view().weights(t, j) = std::nanf("");
      }
    }
    workspace ws = arena_.view();
    call({copy.data(), tokens, scores.cols(), copy.cols()}, context, out, ws);
    return out;
  }
  [[nodiscard]] verdict well_formed(matrix_view<float const> scores, route_context const& context, routing<> const& out,
                                    std::string_view what) const {
    auto const view = out.view();
    for (index_t t = 0; t < view.tokens(); ++t) {
      bool const valid = context.token_mask.empty() || context.token_mask[static_cast<std::size_t>(t)] != 0;
      for (index_t j = 0; j < view.fan_out(); ++j) {
        index_t const e = to_index(view.experts(t, j));
        float const w = view.weights(t, j);
        auto const broken = [&](char const* law) {
          return verdict::broken(law, " [", what, ", token ", t, ", slot ", j, ", expert ", e, ", weight ", w,
                                 ", seed ", problem_.seed, ']');
        };
        if (e < -1 || e >= router_.experts()) { return broken("ids are experts or none"); }
        if (!std::isfinite(w)) { return broken("weights are finite"); }
        if (e < 0) {
          if (w != 0.0F) { return broken("a slot without expert has weight 0"); }
          continue;
        }
        if (!valid) { return broken("a masked token is routed nowhere"); }
        if (!context.expert_mask.empty() && context.expert_mask[static_cast<std::size_t>(e)] == 0) {
          return broken("a masked expert is never chosen");
        }
        if (e < scores.cols() && !is_candidate(scores(t, e))) { return broken("NaN and -inf are never chosen"); }
        for (index_t i = 0; i < j; ++i) {
          if (view.experts(t, i) == view.experts(t, j)) { return broken("the experts of a token are distinct"); }
        }
      }
      if (valid && problem_.by_score && context.phase == phase::evaluate) {
        if (char const* const law = best_of_token(scores, context, view, t); law != nullptr) {
          return verdict::broken(law, " [", what, ", token ", t, ", seed ", problem_.seed, ']');
        }
      }
    }
    return {};
  }
  // The law that the choice of a well-formed token breaks, or null.
  [[nodiscard]] char const* best_of_token(matrix_view<float const> scores, route_context const& context,
                                          const_routing_view out, index_t token) const {
    index_t chosen = 0, candidates = 0;
    float worst_chosen = std::numeric_limits<float>::infinity(), best_left = -std::numeric_limits<float>::infinity();
    for (index_t e = 0; e < router_.experts(); ++e) {
      bool const masked = !context.expert_mask.empty() && context.expert_mask[static_cast<std::size_t>(e)] == 0;
      float const score = scores(token, e);
      if (masked || !is_candidate(score)) { continue; }
      ++candidates;
      bool takes = false;
      for (index_t j = 0; j < out.fan_out(); ++j) { takes = takes || to_index(out.experts(token, j)) == e; }
      chosen += takes ? 1 : 0;
      float& side = takes ? worst_chosen : best_left;
      side = (score > side) == takes ? side : score;
    }
    if (candidates > 0 && chosen == 0) { return "a token with a candidate has an expert"; }
    if (!problem_.best_win) { return nullptr; }
    if (chosen < candidates && chosen < out.fan_out()) { return "no slot is none while candidates are left"; }
    if (!has_state<Router> && worst_chosen < best_left) { return "the best scores win"; }
    return nullptr;
  }
  [[nodiscard]] static bool same_row(routing<> const& a, index_t row_a, routing<> const& b, index_t row_b) {
    for (index_t j = 0; j < a.fan_out(); ++j) {
      if (a.view().experts(row_a, j) != b.view().experts(row_b, j)) { return false; }
      if (std::bit_cast<std::uint32_t>(a.view().weights(row_a, j)) !=
          std::bit_cast<std::uint32_t>(b.view().weights(row_b, j))) {
        return false;
      }
    }
    return true;
  }
  [[nodiscard]] static bool same_choice(routing<> const& a, routing<> const& b, index_t row) {
    for (index_t j = 0; j < a.fan_out(); ++j) {
      if (a.view().experts(row, j) != b.view().experts(row, j)) { return false; }
    }
    return true;
  }
  [[nodiscard]] static bool equal(routing<> const& a, routing<> const& b, index_t tokens) {
    for (index_t t = 0; t < tokens; ++t) {
      if (!same_row(a, t, b, t)) { return false; }
    }
    return true;
  }
  // A token alone, and in the reversed batch. In evaluation its number must not matter either.
  [[nodiscard]] verdict alone(matrix_view<float const> scores, route_context const& context, routing<> const& out,
                              std::string_view what) {
    index_t const tokens = scores.rows();
    matrix<float> reversed(tokens, scores.cols());
    std::vector<std::int32_t> ids(ids_.rbegin(), ids_.rend());
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t e = 0; e < scores.cols(); ++e) { reversed(t, e) = scores(tokens - 1 - t, e); }
    }
    route_context turned = context;
    turned.token_ids = ids;
    routing<> const backwards = ask(reversed.view(), turned, 0);
    for (index_t t = 0; t < tokens; ++t) {
      route_context single = context;
      single.first_token += t;
      single.token_ids = context.token_ids.subspan(static_cast<std::size_t>(t), 1);
      if (!same_row(out, t, ask(scores.rows(t, 1), single, 0), 0) || !same_row(out, t, backwards, tokens - 1 - t)) {
        return verdict::broken("a causal router does not see batch-mates [", what, ", token ", t, ", seed ",
                               problem_.seed, ']');
      }
    }
    return {};
  }

  Router router_;
  Backend on_;
  router_problem problem_;
  state_holder<Router> state_;
  arena<> arena_;
  std::vector<std::int32_t> ids_;
};

}  // namespace detail
}  // namespace laws
FAIRLEAD_NAMESPACE_END
