// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How often a fixed set of validation tokens changes experts during training, and how late it still does.
#include <fairlead/core/routing.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace metrics {

/// @brief Follow the experts of the same tokens over snapshots of a training run.
///
/// Route a fixed set of validation tokens, in evaluation, every so many steps and hand each routing to `observe`.
/// Snapshots count from 1 to `snapshots()`. A token's last change is the last snapshot whose experts differ from those
/// of the newest one, 0 if there is none; `share_after(0.2)` is the share of tokens whose last change lies in the last
/// 80 % of the run. Experts of a token are compared as sets: their order and their weights do not matter, none counts as
/// no expert. The whole history is not kept: the last change is one before the start of the newest run of equal sets.
/// @determinism integers, and sums in token order
/// @source{StableMoE, section 1 and figure 2; companions: this library}
class fluctuation_tracker {
 public:
  /// @brief Scratch that a tracker holds on to.
  /// @param tokens validation tokens
  /// @param fan_out experts a token
  /// @returns bytes to have in the workspace
  [[nodiscard]] static constexpr std::size_t memory_bytes(index_t tokens, index_t fan_out) noexcept {
    return workspace_bytes<expert_id>(tokens * fan_out) + workspace_bytes<index_t>(tokens);
  }
  /// @brief Start without a snapshot.
  /// @param tokens validation tokens, >= 0
  /// @param fan_out experts a token, >= 1
  /// @param memory gives `memory_bytes(tokens, fan_out)`; it must outlive the tracker and not be rewound before
  /// @throws contract_violation (level 1) on bad sizes or too little memory
  fluctuation_tracker(index_t tokens, index_t fan_out, workspace& memory) : tokens_(tokens), fan_out_(fan_out) {
    FAIRLEAD_EXPECTS(tokens >= 0 && fan_out >= 1, "a tracker needs tokens >= 0 and fan_out >= 1", tokens, fan_out);
    previous_ = memory.take<expert_id>(tokens * fan_out);
    last_change_ = memory.take<index_t>(tokens);
    restart();
  }
  /// @brief Forget all snapshots.
  void restart() noexcept {
    std::fill(last_change_.begin(), last_change_.end(), index_t{0});
    snapshots_ = flips_ = 0;
    similarity_ = moved_weight_ = weight_ = 0.0;
  }
  /// @brief Take the next snapshot.
  /// @param routing the same tokens in the same order each time, routed in evaluation. @shape{tokens x fan_out}
  /// @throws contract_violation (level 1) on another shape
  /// @complexity O(tokens x fan_out^2), no allocation
  void observe(const_routing_view routing) {
    FAIRLEAD_EXPECTS(routing.tokens() == tokens_ && routing.fan_out() == fan_out_,
                     "each snapshot must be the tracker's tokens x fan_out", routing.tokens(), routing.fan_out(),
                     tokens_, fan_out_);
    for (index_t t = 0; t < tokens_; ++t) {
      std::span<expert_id> const old = previous(t);
      std::span<expert_id const> const now(routing.experts.row(t), static_cast<std::size_t>(fan_out_));
      if (snapshots_ > 0) { compare(t, old, now, routing.weights.row(t)); }
      std::copy(now.begin(), now.end(), old.begin());
    }
    ++snapshots_;
  }

  /// @returns validation tokens
  [[nodiscard]] index_t tokens() const noexcept { return tokens_; }
  /// @returns snapshots seen
  [[nodiscard]] index_t snapshots() const noexcept { return snapshots_; }
  /// @brief When a token last had other experts than now.
  /// @param token number of the token
  /// @returns a snapshot in 1 ... snapshots() - 1, or 0 if its experts never changed
  [[nodiscard]] index_t last_change(index_t token) const noexcept {
    return last_change_[static_cast<std::size_t>(token)];
  }
  /// @brief Share of tokens that still changed after a part of the run.
  /// @param part part of the run, in [0, 1]
  /// @returns tokens with last_change > part x snapshots(), over tokens; 0 without tokens
  /// @complexity O(tokens)
  [[nodiscard]] double share_after(double part) const {
    FAIRLEAD_EXPECTS(part >= 0.0 && part <= 1.0, "a part of the run lies in [0, 1]", part);
    // Products such as 0.8 x 5 are a last bit off: a change exactly at the border is not after it.
    double const border = part * static_cast<double>(snapshots_) * (1.0 + 4.0 * std::numeric_limits<double>::epsilon());
    index_t count = 0;
    for (index_t const last : last_change_) { count += static_cast<double>(last) > border ? 1 : 0; }
    return per_token(static_cast<double>(count));
  }
  /// @brief Distribution of the last changes.
  /// @param[out] shares shares[s] = tokens with last_change <= s, over tokens; all 1 without tokens.
  /// @shape{snapshots() + 1}
  /// @throws contract_violation (level 1) on another length
  /// @complexity O(tokens + snapshots)
  void distribution(std::span<double> shares) const {
    FAIRLEAD_EXPECTS(static_cast<index_t>(shares.size()) == snapshots_ + 1, "give one share a snapshot and one for 0",
                     shares.size(), snapshots_ + 1);
    std::fill(shares.begin(), shares.end(), 0.0);
    for (index_t const last : last_change_) { shares[static_cast<std::size_t>(last)] += 1.0; }
    double sum = tokens_ == 0 ? 1.0 : 0.0;
    for (double& share : shares) {
      sum += share;
      share = tokens_ == 0 ? 1.0 : sum / static_cast<double>(tokens_);
    }
  }
  /// @returns changes of experts per token and pair of neighbouring snapshots, in [0, 1]; 0 without pairs
  [[nodiscard]] double flips() const noexcept { return per_transition(static_cast<double>(flips_), 0.0); }
  /// @returns mean of |common experts| / |experts of either| over tokens and neighbouring snapshots, in [0, 1]; two
  /// empty sets are equal; 1 without pairs. With one expert a token it is 1 - flips().
  [[nodiscard]] double jaccard() const noexcept { return per_transition(similarity_, 1.0); }
  /// @returns share of the gate weight (absolute values) that lies on experts which the token did not have in the
  /// snapshot before; tokens with large weights count more. 0 without pairs or weight
  [[nodiscard]] double churn() const noexcept { return weight_ > 0.0 ? moved_weight_ / weight_ : 0.0; }

 private:
  [[nodiscard]] std::span<expert_id> previous(index_t token) const noexcept {
    return previous_.subspan(static_cast<std::size_t>(token * fan_out_), static_cast<std::size_t>(fan_out_));
  }
  [[nodiscard]] double per_token(double sum) const noexcept {
    return tokens_ == 0 ? 0.0 : sum / static_cast<double>(tokens_);
  }
  [[nodiscard]] double per_transition(double sum, double without) const noexcept {
    if (snapshots_ < 2 || tokens_ == 0) { return without; }
    return sum / (static_cast<double>(snapshots_ - 1) * static_cast<double>(tokens_));
  }
  void compare(index_t token, std::span<expert_id const> old, std::span<expert_id const> now, float const* weights) {
    index_t before = 0, after = 0, common = 0;
    for (expert_id const id : old) { before += id != expert_id::none ? 1 : 0; }
    for (std::size_t j = 0; j < now.size(); ++j) {
      if (now[j] == expert_id::none) { continue; }
      bool const had = std::find(old.begin(), old.end(), now[j]) != old.end();
      double const weight = std::abs(static_cast<double>(weights[j]));
      ++after;
      common += had ? 1 : 0;
      weight_ += weight;
      moved_weight_ += had ? 0.0 : weight;
    }
    bool const same = common == before && common == after;
    // Snapshot `snapshots_` (from 1) was the last with other experts.
    if (!same) { last_change_[static_cast<std::size_t>(token)] = snapshots_; }
    flips_ += same ? 0 : 1;
    index_t const either = before + after - common;
    similarity_ += either == 0 ? 1.0 : static_cast<double>(common) / static_cast<double>(either);
  }

  index_t tokens_;
  index_t fan_out_;
  std::span<expert_id> previous_{};
  std::span<index_t> last_change_{};
  index_t snapshots_ = 0;
  index_t flips_ = 0;
  double similarity_ = 0.0;
  double moved_weight_ = 0.0;
  double weight_ = 0.0;
};

/// @brief Mean cross-entropy between the routing distributions (softmax of the logits) of two snapshots.
///
/// Catches drift that does not yet change a choice. The cross-entropy of a snapshot with itself is its entropy.
/// @param before logits of the earlier snapshot. @shape{tokens x experts}
/// @param after logits of the later snapshot. @shape{tokens x experts}
/// @returns mean over tokens of -sum p_before log p_after @unit{nat}; experts at -inf or NaN have no share, +inf if the
/// later one excludes an expert that the earlier one had; rows without any candidate count 0; 0 without tokens
/// @throws contract_violation (level 1) if the shapes differ
/// @complexity O(tokens x experts), no allocation
[[nodiscard]] inline double routing_cross_entropy(matrix_view<float const> before, matrix_view<float const> after) {
  FAIRLEAD_EXPECTS(before.rows() == after.rows() && before.cols() == after.cols(), "both logits must have one shape",
                   before.rows(), before.cols(), after.rows(), after.cols());
  constexpr double infinity = std::numeric_limits<double>::infinity();
  auto const value = [](float logit) {
    double const clean = logit > -std::numeric_limits<float>::infinity() ? static_cast<double>(logit) : -infinity;
    return std::min(clean, static_cast<double>(std::numeric_limits<float>::max()));
  };
  auto const log_sum = [&](float const* row, index_t experts) {
    double largest = -infinity, sum = 0.0;
    for (index_t e = 0; e < experts; ++e) { largest = std::max(largest, value(row[e])); }
    if (largest == -infinity) { return largest; }
    for (index_t e = 0; e < experts; ++e) { sum += std::exp(value(row[e]) - largest); }
    return largest + std::log(sum);
  };
  double total = 0.0;
  for (index_t t = 0; t < before.rows(); ++t) {
    double const whole = log_sum(before.row(t), before.cols());
    double const later = log_sum(after.row(t), after.cols());
    if (whole == -infinity) { continue; }
    for (index_t e = 0; e < before.cols(); ++e) {
      double const share = std::exp(value(before(t, e)) - whole);
      if (share > 0.0) { total += share * (value(after(t, e)) == -infinity ? infinity : later - value(after(t, e))); }
    }
  }
  return before.rows() == 0 ? 0.0 : total / static_cast<double>(before.rows());
}

}  // namespace metrics
FAIRLEAD_NAMESPACE_END
