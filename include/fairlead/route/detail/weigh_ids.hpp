// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Weights for experts that something else than the logits chose, and keys of whole rows.
#include <fairlead/route/token_choice.hpp>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Weighs the experts that are in `out`, rows of one part. An expert whose effective logit is no candidate becomes none,
/// so does every expert of a masked token.
/// @tparam Choice a token_choice: score, renormalisation and noise count, its selection does not
template <class Choice>
struct weigh_part {
  using weights = weighting<typename Choice::score_type, typename Choice::renormalisation_type>;
  Choice choice;
  matrix_view<float const> logits;
  route_context context;
  routing_view out;
  float* scratch;
  index_t rows_per_part;

  void operator()(index_t part) const {
    index_t const experts = choice.experts();
    index_t const last = std::min((part + 1) * rows_per_part, logits.rows());
    float* const row_scratch = scratch + part * route_scratch(experts);
    float chosen[max_fan_out];
    for (index_t t = part * rows_per_part; t < last; ++t) {
      expert_id* const ids = out.experts.row(t);
      for (index_t j = 0; j < choice.k; ++j) {
        bool const none = ids[j] == expert_id::none || !is_valid(context, t);
        index_t const e = none ? 0 : to_index(ids[j]);
        chosen[j] = none ? minus_infinity : effective_logit(choice.noise, context, t, e, experts, logits(t, e));
        ids[j] = is_candidate(chosen[j]) ? ids[j] : expert_id::none;
      }
      softmax_row soft;
      if constexpr (weights::needs_row) {
        effective_row(choice.noise, context, t, experts, logits.row(t), row_scratch);
        soft = softmax_of(row_scratch, experts);
      }
      weights::template weights<1>(chosen, choice.k, choice.scale, &soft, out.weights.row(t));
    }
  }
};

/// Weighs the experts in `out`.
template <class Choice, host_backend Backend>
void weigh_ids(Choice const& choice, Backend const& on, matrix_view<float const> logits, route_context const& context,
               routing_view out, workspace& ws) {
  for_each_part(on, logits.rows(), choice.experts(), ws,
                weigh_part<Choice>{choice, logits, context, out, nullptr, 0});
}

/// Inserts a key into a descending list of the best; ties keep the earlier, so insert by ascending id.
inline void insert_best(float key, std::int32_t id, index_t length, float* best, std::int32_t* ids) noexcept {
  if (!(key > best[length - 1])) { return; }  // also NaN and -inf
  index_t j = length - 1;
  for (; j > 0 && key > best[j - 1]; --j) {
    best[j] = best[j - 1];
    ids[j] = ids[j - 1];
  }
  best[j] = key;
  ids[j] = id;
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
