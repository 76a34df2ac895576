// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Which experts of a row may be chosen: all, or those of the best groups.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/ids.hpp>
#include <fairlead/core/order.hpp>

#include <cstdint>
#include <limits>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Choose the k best experts of the row.
struct plain_selection {
  /// Whether groups limit the choice.
  static constexpr bool limits_groups = false;
  /// @param experts number of experts
  /// @param fan_out choices a token
  /// @throws contract_violation (level 1) on bad fields
  void check(index_t experts, index_t fan_out) const { (void)experts, (void)fan_out; }
};

/// @brief A group is as good as its best expert.
struct group_maximum {
  /// Whether the rule gives the same groups on logits as on scores.
  static constexpr bool monotone = true;
  /// @returns how many of a group's best keys are added up
  [[nodiscard]] FAIRLEAD_HD static constexpr index_t terms(index_t, index_t) noexcept { return 1; }
};
/// @brief A group is as good as the sum of its two best experts (DeepSeek-V3).
struct group_top_two_sum {
  /// Whether the rule gives the same groups on logits as on scores.
  static constexpr bool monotone = false;
  /// @returns how many of a group's best keys are added up
  [[nodiscard]] FAIRLEAD_HD static constexpr index_t terms(index_t, index_t) noexcept { return 2; }
};
/// @brief A group is as good as the sum of its best k / kept_groups experts (Megatron, Transformer Engine).
struct group_top_share_sum {
  /// Whether the rule gives the same groups on logits as on scores.
  static constexpr bool monotone = false;
  /// @param fan_out choices a token
  /// @param kept_groups groups kept
  /// @returns how many of a group's best keys are added up
  [[nodiscard]] FAIRLEAD_HD static constexpr index_t terms(index_t fan_out, index_t kept_groups) noexcept {
    return fan_out > kept_groups ? fan_out / kept_groups : 1;
  }
};

namespace detail {
/// A group's score adds at most this many keys.
inline constexpr index_t most_group_terms = 16;
/// The score of a group with candidates. A sum below the range of fp32 counts as its lowest number: -inf would say that
/// the group has no candidates. +inf stays, so that no group with a key of +inf loses to finite keys.
[[nodiscard]] FAIRLEAD_HD inline float group_score(float sum) noexcept {
  constexpr float lowest = std::numeric_limits<float>::lowest();
  return sum < lowest ? lowest : sum;
}
}  // namespace detail

/// @brief Choose the k best experts inside the best groups of consecutive experts; bounds the ranks a token is sent to.
///
/// Keys outside the kept groups become -inf, never 0. A group's score adds the best keys that it has, fewer if it has
/// fewer candidates; a group without candidates is never kept. Ties between groups go to the lower group.
/// @tparam Rule how good a group is
/// @source{DeepSeek-V2 and DeepSeek-V3, group-limited gate}
template <class Rule>
struct group_limited {
  index_t groups = 1;       ///< number of groups, divides the number of experts, at most 64
  index_t kept_groups = 1;  ///< groups to choose from

  /// Whether groups limit the choice.
  static constexpr bool limits_groups = true;
  /// Whether group scores may be taken from logits instead of scores.
  static constexpr bool monotone = Rule::monotone;

  /// @param experts number of experts
  /// @param fan_out choices a token
  /// @throws contract_violation (level 1) on bad fields
  void check(index_t experts, index_t fan_out) const {
    FAIRLEAD_EXPECTS(groups >= 1 && groups <= 64 && experts % groups == 0,
                     "groups must be between 1 and 64 and divide experts", groups, experts);
    FAIRLEAD_EXPECTS(kept_groups >= 1 && kept_groups <= groups, "kept_groups must be between 1 and groups", kept_groups,
                     groups);
    FAIRLEAD_EXPECTS(fan_out <= kept_groups * (experts / groups), "k must fit into the kept groups", fan_out,
                     kept_groups, experts / groups);
    FAIRLEAD_EXPECTS(Rule::terms(fan_out, kept_groups) <= detail::most_group_terms,
                     "a group's score adds at most 16 keys: keep more groups or choose fewer experts",
                     Rule::terms(fan_out, kept_groups), fan_out, kept_groups);
  }

  /// @brief Find the kept groups of one row.
  /// @param keys group keys (biased scores, scores or logits); not candidates: NaN and -inf. @shape{experts}
  /// @param experts number of experts
  /// @param fan_out choices a token
  /// @returns bit g is set if group g is kept
  /// @complexity O(experts x terms + groups x kept_groups), no allocation
  [[nodiscard]] FAIRLEAD_HD std::uint64_t keep(float const* keys, index_t experts, index_t fan_out) const noexcept {
    index_t const size = experts / groups;
    // check() refuses more terms; the bound keeps programs without checks inside the array.
    index_t const wanted = Rule::terms(fan_out, kept_groups);
    index_t const terms = wanted < detail::most_group_terms ? wanted : detail::most_group_terms;
    float scores[64];
    for (index_t g = 0; g < groups; ++g) {
      float best[detail::most_group_terms];  // descending
      index_t found = 0;
      for (index_t i = 0; i < size; ++i) {
        float carry = keys[g * size + i];
        if (!is_candidate(carry)) { continue; }
        for (index_t j = 0; j < found; ++j) {
          float const upper = carry > best[j] ? carry : best[j];
          carry = carry > best[j] ? best[j] : carry;
          best[j] = upper;
        }
        if (found < terms) { best[found++] = carry; }
      }
      float sum = found > 0 ? best[0] : -std::numeric_limits<float>::infinity();
      for (index_t j = 1; j < found; ++j) { sum += best[j]; }
      scores[g] = found > 0 ? detail::group_score(sum) : sum;
    }
    std::uint64_t kept = 0;
    for (index_t n = 0; n < kept_groups; ++n) {
      index_t winner = -1;
      for (index_t g = 0; g < groups; ++g) {
        if (((kept >> static_cast<unsigned>(g)) & 1U) != 0 || !is_candidate(scores[g])) { continue; }
        if (winner < 0 || scores[g] > scores[winner]) { winner = g; }
      }
      if (winner >= 0) { kept |= std::uint64_t{1} << static_cast<unsigned>(winner); }
    }
    return kept;
  }
};

FAIRLEAD_NAMESPACE_END
