// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Sums over tokens for each expert, and the squared coefficient of variation of such sums.
#include <fairlead/balance/detail/row_loop.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// What losses on sums over this rank's tokens carry.
struct expert_sums_state {
  index_t experts = 0;       ///< number of experts
  index_t batch_tokens = 0;  ///< valid tokens of this micro-batch over all ranks
};

[[nodiscard]] inline expert_sums_state make_expert_sums_state(index_t experts) {
  FAIRLEAD_EXPECTS(experts >= 1, "a balance loss needs experts", experts);
  return {experts, 0};
}
inline void take_in_tokens(index_t tokens, expert_sums_state& state) {
  FAIRLEAD_EXPECTS(tokens >= 0, "the number of tokens must not be negative", tokens);
  state.batch_tokens = tokens;
}

[[nodiscard]] inline bool is_allowed(route_context const& context, index_t expert) noexcept {
  return context.expert_mask.empty() || context.expert_mask[static_cast<std::size_t>(expert)] != 0;
}
[[nodiscard]] inline index_t valid_tokens(route_context const& context, index_t tokens) noexcept {
  index_t valid = 0;
  for (index_t t = 0; t < tokens; ++t) { valid += is_valid_token(context, t) ? 1 : 0; }
  return valid;
}

/// Scratch of `sum_experts` and of loops by blocks: `floats` a block besides the sums.
[[nodiscard]] constexpr std::size_t expert_sums_bytes(index_t tokens, index_t experts, index_t floats) noexcept {
  return 2 * workspace_bytes<double>(experts) + workspace_bytes<double>(loss_blocks(tokens) * experts) +
         workspace_bytes<float>(loss_blocks(tokens) * floats);
}

/// One block of rows: term(token, sums of the block, scratch of the block).
template <class RowTerm>
struct expert_sums_task {
  RowTerm term;
  route_context const* context;
  index_t tokens;
  index_t experts;
  index_t floats;
  double* sums;  // null: the term adds no sums
  float* scratch;
  void operator()(index_t block) const {
    double* const mine = sums == nullptr ? nullptr : sums + block * experts;
    if (mine != nullptr) { std::fill_n(mine, experts, 0.0); }
    index_t const end = std::min(tokens, (block + 1) * loss_block);
    for (index_t token = block * loss_block; token < end; ++token) {
      if (is_valid_token(*context, token)) { term(token, mine, scratch + block * floats); }
    }
  }
};

/// totals[e] = sum over the valid rows of what `term` adds: blocks in parallel, added in order.
template <host_backend Backend, class RowTerm>
void sum_experts(Backend const& on, index_t tokens, index_t floats, route_context const& context, RowTerm term,
                 std::span<double> totals, workspace& ws) {
  workspace::scope const give_back(ws);
  auto const experts = static_cast<index_t>(totals.size());
  index_t const blocks = loss_blocks(tokens);
  auto const sums = ws.take<double>(blocks * experts);
  auto const scratch = ws.take<float>(blocks * floats);
  on.for_each(blocks, expert_sums_task<RowTerm>{term, &context, tokens, experts, floats, sums.data(), scratch.data()});
  on.wait();
  std::fill(totals.begin(), totals.end(), 0.0);
  for (index_t block = 0; block < blocks; ++block) {
    for (index_t e = 0; e < experts; ++e) {
      totals[static_cast<std::size_t>(e)] += sums[static_cast<std::size_t>(block * experts + e)];
    }
  }
}
/// term(token, null, scratch) for the valid rows.
template <host_backend Backend, class RowTerm>
void for_valid_rows(Backend const& on, index_t tokens, index_t floats, route_context const& context, RowTerm term,
                    workspace& ws) {
  workspace::scope const give_back(ws);
  auto const scratch = ws.take<float>(loss_blocks(tokens) * floats);
  on.for_each(loss_blocks(tokens),
              expert_sums_task<RowTerm>{term, &context, tokens, 0, floats, nullptr, scratch.data()});
  on.wait();
}

/// Variance over (squared mean + 1e-10) of the sums of allowed experts, and its derivatives (population variance).
/// @source{tensor2tensor code, cv_squared}
inline double squared_variation(std::span<double const> sums, route_context const& context, std::span<double> slopes) {
  constexpr double epsilon = 1e-10;
  double count = 0.0;
  double mean = 0.0;
  for (std::size_t e = 0; e < sums.size(); ++e) {
    if (is_allowed(context, static_cast<index_t>(e))) {
      count += 1.0;
      mean += sums[e];
    }
  }
  std::fill(slopes.begin(), slopes.end(), 0.0);
  if (count == 0.0) { return 0.0; }
  mean /= count;
  double variance = 0.0;
  for (std::size_t e = 0; e < sums.size(); ++e) {
    if (is_allowed(context, static_cast<index_t>(e))) { variance += (sums[e] - mean) * (sums[e] - mean); }
  }
  variance /= count;
  double const square = mean * mean + epsilon;
  for (std::size_t e = 0; e < sums.size(); ++e) {
    if (is_allowed(context, static_cast<index_t>(e))) {
      slopes[e] = 2.0 / (count * square) * (sums[e] - mean - variance * mean / square);
    }
  }
  return variance / square;
}

/// Preconditions: the experts' columns come first, a router may read more of them.
inline void expect_expert_columns(matrix_view<float const> logits, const_routing_view routing,
                                  route_context const& context, matrix_view<float const> grad_logits, index_t experts) {
  FAIRLEAD_EXPECTS(routing.tokens() == logits.rows(), "logits and routing must have the same tokens", routing.tokens(),
                   logits.rows());
  FAIRLEAD_EXPECTS(grad_logits.rows() == logits.rows() && grad_logits.cols() == logits.cols(),
                   "the gradient must have the shape of the logits", grad_logits.rows(), grad_logits.cols(),
                   logits.rows(), logits.cols());
  FAIRLEAD_EXPECTS(experts >= 1 && logits.cols() >= experts, "the state is for another number of experts", experts,
                   logits.cols());
  FAIRLEAD_EXPECTS(context.token_mask.empty() || static_cast<index_t>(context.token_mask.size()) == logits.rows(),
                   "a token mask has one byte a token", context.token_mask.size(), logits.rows());
  FAIRLEAD_EXPECTS(context.expert_mask.empty() || static_cast<index_t>(context.expert_mask.size()) == experts,
                   "an expert mask has one byte an expert", context.expert_mask.size(), experts);
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
