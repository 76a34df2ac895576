// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Record the experts of tokens and take the same ones again: in recomputation, or in another run.
#include <fairlead/exec/serial.hpp>
#include <fairlead/route/biased_token_choice.hpp>
#include <fairlead/route/detail/weigh_ids.hpp>
#include <fairlead/route/top_k.hpp>

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Keep the routings of the last micro-batches of one layer, found again by (step, first token).
///
/// A second micro-batch with the same key takes the place of the first: give each its own step or first token (the
/// contexts a layer makes for evaluation all have the step of the next training pass).
/// Also the way in for routings that another engine made: reinforcement learning replays the experts of the sampler.
/// Memory is taken once; when it is full the oldest entry makes room. One layer, one log; calls must not overlap.
class routing_log {
 public:
  /// A log that holds nothing.
  routing_log() = default;
  /// @param entries micro-batches to keep, >= 1
  /// @param tokens most tokens of one, >= 0
  /// @param fan_out experts a token, >= 1
  /// @throws std::bad_alloc; contract_violation (level 1) on bad sizes
  routing_log(index_t entries, index_t tokens, index_t fan_out) : tokens_(tokens), fan_out_(fan_out) {
    FAIRLEAD_EXPECTS(entries >= 1 && tokens >= 0 && fan_out >= 1, "a log needs entries >= 1, tokens >= 0, fan_out >= 1",
                     entries, tokens, fan_out);
    keys_.resize(static_cast<std::size_t>(entries));
    ids_.resize(static_cast<std::size_t>(entries * tokens * fan_out));
    weights_.resize(ids_.size());
  }
  /// @brief Keep a routing; one with the same key is replaced.
  /// @param step training step
  /// @param first_token global number of row 0
  /// @param routing experts and weights, host memory. @shape{at most tokens x fan_out}
  /// @throws contract_violation (level 1) if it does not fit
  /// @complexity O(entries + tokens x fan_out), no allocation
  void write(std::uint64_t step, index_t first_token, const_routing_view routing) {
    FAIRLEAD_EXPECTS(!keys_.empty() && routing.tokens() <= tokens_ && routing.fan_out() == fan_out_,
                     "make the log for the layer's max_tokens and fan_out", routing.tokens(), routing.fan_out(),
                     tokens_, fan_out_);
    index_t at = find(step, first_token);
    if (at < 0) {
      at = next_;
      next_ = (next_ + 1) % static_cast<index_t>(keys_.size());
      overwritten_ += keys_[static_cast<std::size_t>(at)].tokens >= 0 ? 1 : 0;
    }
    keys_[static_cast<std::size_t>(at)] = {step, first_token, routing.tokens()};
    routing_view const to = place(at, routing.tokens());
    for (index_t t = 0; t < routing.tokens(); ++t) {
      std::copy_n(routing.experts.row(t), fan_out_, to.experts.row(t));
      std::copy_n(routing.weights.row(t), fan_out_, to.weights.row(t));
    }
  }
  /// @param step training step
  /// @param first_token global number of row 0
  /// @returns whether a routing was kept for them
  [[nodiscard]] bool holds(std::uint64_t step, index_t first_token) const noexcept {
    return find(step, first_token) >= 0;
  }
  /// @param step training step
  /// @param first_token global number of row 0
  /// @returns experts and weights as they were written, valid until the next write
  /// @throws contract_violation (level 1) if nothing was kept for them
  /// @complexity O(entries)
  [[nodiscard]] const_routing_view read(std::uint64_t step, index_t first_token) const {
    index_t const at = find(step, first_token);
    FAIRLEAD_EXPECTS(at >= 0, "no routing was recorded for this step and first token: record first, keep more entries",
                     step, first_token);
    index_t const begin = at * tokens_ * fan_out_, tokens = keys_[static_cast<std::size_t>(at)].tokens;
    return {{ids_.data() + begin, tokens, fan_out_}, {weights_.data() + begin, tokens, fan_out_}};
  }
  /// @returns entries that were pushed out by newer ones
  [[nodiscard]] index_t overwritten() const noexcept { return overwritten_; }
  /// @brief Forget everything, keep the memory.
  void clear() noexcept {
    std::fill(keys_.begin(), keys_.end(), key{});
    next_ = overwritten_ = 0;
  }

 private:
  struct key {
    std::uint64_t step = 0;
    index_t first_token = 0;
    index_t tokens = -1;  // unused
  };
  [[nodiscard]] index_t find(std::uint64_t step, index_t first_token) const noexcept {
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      key const& k = keys_[i];
      if (k.tokens >= 0 && k.step == step && k.first_token == first_token) { return static_cast<index_t>(i); }
    }
    return -1;
  }
  [[nodiscard]] routing_view place(index_t at, index_t tokens) {
    index_t const begin = at * tokens_ * fan_out_;
    return {{ids_.data() + begin, tokens, fan_out_}, {weights_.data() + begin, tokens, fan_out_}};
  }
  index_t tokens_ = 0;
  index_t fan_out_ = 1;
  index_t next_ = 0;
  index_t overwritten_ = 0;
  std::vector<key> keys_;
  std::vector<expert_id> ids_;
  std::vector<float> weights_;
};

/// @brief What a `replay` router does with its log.
enum class replay_mode {
  off,            ///< route, leave the log alone
  record,         ///< route in training and evaluation and write to the log
  play,           ///< take experts from the log, in every phase (Megatron: replay forward)
  play_recompute  ///< route and write in training, take experts from the log in recomputation (replay backward)
};

/// @brief Route, or take the experts of an earlier routing; weights always come from the logits at hand.
///
/// Replay makes a second pass follow the first even if the logits differ in the last bits (other kernels, other
/// engines, other parameters). An id that is masked now, or whose logit is NaN or -inf, gives none. Gradients flow through
/// the weights as in the router. State and learning are the router's own.
/// @tparam Router a `token_choice` or `biased_token_choice`
/// @source{Megatron-core code, router_replay}
template <class Router>
struct replay {
  /// What weighs the experts of the log.
  using choice_type = token_choice<typename Router::score_type, plain_selection, typename Router::renormalisation_type,
                                   typename Router::noise_type>;

  Router router{};                      ///< who routes when nothing is played
  routing_log* log = nullptr;           ///< where routings are kept; the caller's
  replay_mode mode = replay_mode::off;  ///< what to do with it

  /// @returns number of experts
  [[nodiscard]] constexpr index_t experts() const noexcept { return router.experts(); }
  /// @returns experts a token
  [[nodiscard]] constexpr index_t fan_out() const noexcept { return router.fan_out(); }
  /// @param tokens number of tokens
  /// @returns scratch bytes of `route` and `backward`
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t tokens) const {
    return std::max(router.workspace_bytes(tokens), detail::route_workspace_bytes(tokens, experts()));
  }
  /// @returns the router's state
  [[nodiscard]] auto make_state() const
    requires has_state<Router>
  {
    return router.make_state();
  }
  /// @brief Let the router update its state; see its `observe`.
  /// @param on execution backend
  /// @param comm communicator
  /// @param counts copies per expert of the global batch. @shape{experts}
  /// @param[in,out] state the router's state
  /// @collective as the router says
  template <execution_backend Backend, class Comm, class State>
    requires has_collective_observe<Router, Backend, Comm>
  void observe(Backend const& on, Comm& comm, std::span<index_t const> counts, State& state) const {
    router.observe(on, comm, counts, state);
  }
  /// @brief Route or replay.
  /// @param on host backend
  /// @param logits @shape{tokens x experts}
  /// @param context phase, step, number of the first token, masks
  /// @param[out] out @shape{tokens x fan_out}; replayed experts keep their slots
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on wrong shapes, without a log, or if the log holds another shape or nothing
  /// for this step and first token, (level 2) if a logged id is no expert
  /// @complexity that of the router and O(tokens x fan_out); no allocation
  template <host_backend Backend>
    requires has_route<Router, Backend>
  void route(Backend const& on, matrix_view<float const> logits, route_context const& context, routing_view out,
             workspace& ws) const {
    if (plays(context)) { return play(on, logits, context, out, ws); }
    router.route(on, logits, context, out, ws);
    record(context, out);
  }
  /// @brief Route or replay under a state; see above.
  /// @param on host backend
  /// @param logits @shape{tokens x experts}
  /// @param context phase, step, number of the first token, masks
  /// @param state the router's state, only read
  /// @param[out] out @shape{tokens x fan_out}
  /// @param ws at least `workspace_bytes(tokens)`
  template <host_backend Backend, class State>
    requires has_stateful_route<Router, Backend>
  void route(Backend const& on, matrix_view<float const> logits, route_context const& context, State const& state,
             routing_view out, workspace& ws) const {
    if (plays(context)) { return play(on, logits, context, out, ws); }
    router.route(on, logits, context, state, out, ws);
    record(context, out);
  }
  /// @brief Route or replay, and show the scores to the router's controller; see `biased_token_choice::route_and_learn`.
  /// @param on host backend
  /// @param logits @shape{tokens x experts}
  /// @param context phase, step, number of the first token, masks
  /// @param[in,out] state the router's state
  /// @param[out] out @shape{tokens x fan_out}
  /// @param ws at least `workspace_bytes(tokens)`
  template <host_backend Backend, class State>
    requires has_learning_route<Router, Backend>
  void route_and_learn(Backend const& on, matrix_view<float const> logits, route_context const& context, State& state,
                       routing_view out, workspace& ws) const {
    router.route_and_learn(on, logits, context, state, out, ws);
    if (plays(context)) { return play(on, logits, context, out, ws); }
    record(context, out);
  }
  /// @brief Derive the loss by the logits; see `token_choice::backward`.
  /// @param on host backend
  /// @param logits what `route` saw
  /// @param context what `route` saw
  /// @param out what `route` wrote
  /// @param grad_weights @shape{tokens x fan_out}
  /// @param[out] grad_logits overwritten. @shape{tokens x experts}
  /// @param ws at least `workspace_bytes(tokens)`
  template <host_backend Backend>
    requires has_route<Router, Backend>
  void backward(Backend const& on, matrix_view<float const> logits, route_context const& context,
                const_routing_view out, matrix_view<float const> grad_weights, matrix_view<float> grad_logits,
                workspace& ws) const {
    choice().backward(on, logits, context, out, grad_weights, grad_logits, ws);
  }
  /// @brief Derive the loss by the logits under a state; see above.
  /// @param on host backend
  /// @param logits what `route` saw
  /// @param context what `route` saw
  /// @param state what `route` saw
  /// @param out what `route` wrote
  /// @param grad_weights @shape{tokens x fan_out}
  /// @param[out] grad_logits overwritten. @shape{tokens x experts}
  /// @param ws at least `workspace_bytes(tokens)`
  template <host_backend Backend, class State>
    requires has_stateful_route<Router, Backend>
  void backward(Backend const& on, matrix_view<float const> logits, route_context const& context,
                [[maybe_unused]] State const& state, const_routing_view out, matrix_view<float const> grad_weights,
                matrix_view<float> grad_logits, workspace& ws) const {
    choice().backward(on, logits, context, out, grad_weights, grad_logits, ws);
  }

 private:
  [[nodiscard]] constexpr choice_type choice() const noexcept {
    return {.experts = router.experts, .k = router.k, .scale = router.scale, .selection = {}, .noise = router.noise};
  }
  [[nodiscard]] bool plays(route_context const& context) const noexcept {
    return mode == replay_mode::play || (mode == replay_mode::play_recompute && context.phase == phase::recompute);
  }
  void record(route_context const& context, const_routing_view out) const {
    bool const records = (mode == replay_mode::record && context.phase != phase::recompute) ||
                         (mode == replay_mode::play_recompute && context.phase == phase::train);
    if (!records) { return; }
    FAIRLEAD_EXPECTS(log != nullptr, "give the replay router a log");
    log->write(context.step, context.first_token, out);
  }
  template <class Backend>
  void play(Backend const& on, matrix_view<float const> logits, route_context const& context, routing_view out,
            workspace& ws) const {
    detail::check_route(context, experts(), fan_out(), router.scale, logits, out);
    if (logits.rows() == 0) { return; }
    FAIRLEAD_EXPECTS(log != nullptr, "give the replay router a log");
    const_routing_view const kept = log->read(context.step, context.first_token);
    FAIRLEAD_EXPECTS(kept.tokens() == logits.rows() && kept.fan_out() == fan_out(),
                     "the recorded routing must have the tokens and fan_out of this one", kept.tokens(), kept.fan_out(),
                     logits.rows(), fan_out());
    for (index_t t = 0; t < kept.tokens(); ++t) {
      for (index_t j = 0; j < kept.fan_out(); ++j) {
        [[maybe_unused]] index_t const id = to_index(kept.experts(t, j));
        FAIRLEAD_EXPECTS_2(id >= -1 && id < experts(), "each recorded id must be an expert or -1 for none", id, t, j,
                           experts());
        out.experts(t, j) = kept.experts(t, j);
      }
    }
    detail::weigh_ids(choice(), on, logits, context, out, ws);
  }
};

static_assert(router_on<replay<top_k>, serial> && has_gradient_on<replay<top_k>, serial>);
static_assert(router_on<replay<sigmoid_bias_top_k>, serial> && has_gradient_on<replay<sigmoid_bias_top_k>, serial>);

FAIRLEAD_NAMESPACE_END
