// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What a router writes: for each token its experts and their weights; and the context it is asked in.
#include <fairlead/core/buffer.hpp>
#include <fairlead/core/ids.hpp>
#include <fairlead/core/matrix_view.hpp>

#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Why the layer runs. Never inferred: noise, what is kept for backward and state updates depend on it.
enum class phase {
  train,     ///< forward of a training step
  evaluate,  ///< inference or validation: no noise, no state change
  recompute  ///< forward repeated inside backward: same noise as `train`, but no state change
};

/// @brief Everything besides the logits that a router may look at.
struct route_context {
  fairlead::phase phase = fairlead::phase::train;  ///< why the router runs
  std::uint64_t seed = 0;                          ///< seed of all random choices
  std::uint64_t step = 0;                          ///< training step (stream of the random numbers)
  index_t first_token = 0;                         ///< global number of row 0, so that ranks draw different numbers
  /// One byte a token, zero = padding (routed nowhere, id none); empty = all valid. @shape{tokens or 0}
  std::span<std::uint8_t const> token_mask{};
  /// One byte an expert, zero = never chosen; empty = all allowed. @shape{experts or 0}
  std::span<std::uint8_t const> expert_mask{};
  /// Vocabulary ids of the tokens, for routers that look at them. @shape{tokens or 0}
  std::span<std::int32_t const> token_ids{};
};

/// @brief Refer to the experts and weights of some tokens.
/// @tparam Expert `expert_id` or `expert_id const`
/// @tparam Weight `float` or `float const`
template <class Expert, class Weight>
struct basic_routing_view {
  matrix_view<Expert> experts;  ///< chosen expert or none. @shape{tokens x fan_out}
  matrix_view<Weight> weights;  ///< combine weight, 0 where no expert. @shape{tokens x fan_out}

  /// @returns number of tokens
  [[nodiscard]] FAIRLEAD_HD constexpr index_t tokens() const noexcept { return experts.rows(); }
  /// @returns experts a token
  [[nodiscard]] FAIRLEAD_HD constexpr index_t fan_out() const noexcept { return experts.cols(); }
  /// @returns the same routing, read-only
  template <class Other = Expert>
    requires(!std::is_const_v<Expert> && std::is_same_v<Other, Expert>)
  [[nodiscard]] FAIRLEAD_HD constexpr operator basic_routing_view<Other const, std::add_const_t<Weight>>()  // NOLINT
      const noexcept {
    return {experts, weights};
  }
};
using routing_view = basic_routing_view<expert_id, float>;                    ///< routing to write
using const_routing_view = basic_routing_view<expert_id const, float const>;  ///< routing to read

/// @brief Own the experts and weights of up to `capacity` tokens.
/// @tparam Space where they live
template <memory_space Space = host_space>
class routing {
 public:
  /// An empty routing.
  routing() noexcept = default;
  /// @param tokens number of tokens
  /// @param fan_out experts a token
  routing(index_t tokens, index_t fan_out) { resize(tokens, fan_out); }
  /// @param other becomes empty
  routing(routing&& other) noexcept
      : experts_(std::move(other.experts_)),
        weights_(std::move(other.weights_)),
        tokens_(std::exchange(other.tokens_, 0)),
        fan_out_(std::exchange(other.fan_out_, 0)) {}
  /// @param other becomes empty
  /// @returns this routing
  routing& operator=(routing&& other) noexcept {
    if (this != &other) {
      experts_ = std::move(other.experts_);
      weights_ = std::move(other.weights_);
      tokens_ = std::exchange(other.tokens_, 0);
      fan_out_ = std::exchange(other.fan_out_, 0);
    }
    return *this;
  }
  /// @brief Change the shape; content is lost when memory grows.
  /// @param tokens number of tokens, >= 0
  /// @param fan_out experts a token, >= 0
  /// @returns whether memory was allocated
  /// @throws std::bad_alloc; contract_violation (level 1) on a negative size
  bool resize(index_t tokens, index_t fan_out) {
    FAIRLEAD_EXPECTS(tokens >= 0 && fan_out >= 0, "sizes of a routing must not be negative", tokens, fan_out);
    tokens_ = fan_out_ = 0;  // empty, should memory run out
    bool const grew = experts_.resize(tokens * fan_out);
    bool const grew_too = weights_.resize(tokens * fan_out);
    tokens_ = tokens;
    fan_out_ = fan_out;
    return grew || grew_too;
  }
  /// @returns the routing, to write
  [[nodiscard]] routing_view view() {
    return {{experts_.data(), tokens_, fan_out_}, {weights_.data(), tokens_, fan_out_}};
  }
  /// @returns the routing, to read
  [[nodiscard]] const_routing_view view() const {
    return {{experts_.data(), tokens_, fan_out_}, {weights_.data(), tokens_, fan_out_}};
  }
  /// @returns number of tokens
  [[nodiscard]] index_t tokens() const noexcept { return tokens_; }
  /// @returns experts a token
  [[nodiscard]] index_t fan_out() const noexcept { return fan_out_; }

 private:
  buffer<expert_id, Space> experts_;
  buffer<float, Space> weights_;
  index_t tokens_ = 0;
  index_t fan_out_ = 0;
};

FAIRLEAD_NAMESPACE_END
