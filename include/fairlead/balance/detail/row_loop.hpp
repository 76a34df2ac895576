// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Run a row function over the valid rows in blocks that do not depend on the number of threads.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/routing.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Rows of a block: enough work for a thread, few enough to share 1000 rows among 8 threads.
inline constexpr index_t loss_block = 64;

[[nodiscard]] constexpr index_t loss_blocks(index_t tokens) noexcept { return (tokens + loss_block - 1) / loss_block; }

[[nodiscard]] inline bool is_valid_token(route_context const& context, index_t token) noexcept {
  return context.token_mask.empty() || context.token_mask[static_cast<std::size_t>(token)] != 0;
}
[[nodiscard]] inline index_t allowed_experts(route_context const& context, index_t experts) noexcept {
  if (context.expert_mask.empty()) { return experts; }
  index_t allowed = 0;
  for (std::uint8_t const flag : context.expert_mask) { allowed += flag != 0 ? 1 : 0; }
  return allowed;
}

/// Scratch of `sum_over_rows`.
[[nodiscard]] constexpr std::size_t row_loop_bytes(index_t tokens, index_t experts) noexcept {
  return workspace_bytes<double>(loss_blocks(tokens)) + workspace_bytes<float>(loss_blocks(tokens) * experts);
}

/// One block: rows in order, one sum, one row of scratch.
template <class RowTerm>
struct loss_block_task {
  RowTerm term;
  route_context const* context;
  index_t tokens;
  index_t experts;
  double* sums;
  float* scratch;
  void operator()(index_t block) const {
    double sum = 0.0;
    index_t const end = std::min(tokens, (block + 1) * loss_block);
    for (index_t token = block * loss_block; token < end; ++token) {
      if (is_valid_token(*context, token)) { sum += term(token, scratch + block * experts); }
    }
    sums[block] = sum;
  }
};

/// Sum term(token, scratch row) over the valid rows: blocks in parallel, their sums added in order.
template <host_backend Backend, class RowTerm>
double sum_over_rows(Backend const& on, index_t tokens, index_t experts, route_context const& context, RowTerm term,
                     workspace& ws) {
  workspace::scope const give_back(ws);
  index_t const blocks = loss_blocks(tokens);
  std::span<double> const sums = ws.take<double>(blocks);
  std::span<float> const scratch = ws.take<float>(blocks * experts);
  on.for_each(blocks, loss_block_task<RowTerm>{term, &context, tokens, experts, sums.data(), scratch.data()});
  on.wait();
  double total = 0.0;
  for (double const sum : sums) { total += sum; }
  return total;
}

/// Shapes of a loss on logits with at least `columns` columns, of which the first `experts` are one an expert.
inline void expect_column_shapes(matrix_view<float const> logits, const_routing_view routing,
                                 route_context const& context, matrix_view<float const> grad_logits, index_t experts,
                                 index_t columns) {
  FAIRLEAD_EXPECTS(routing.tokens() == logits.rows(), "logits and routing must have the same tokens", routing.tokens(),
                   logits.rows());
  FAIRLEAD_EXPECTS(logits.cols() >= columns, "the logits have too few columns for this loss", logits.cols(), columns);
  FAIRLEAD_EXPECTS(grad_logits.rows() == logits.rows() && grad_logits.cols() == logits.cols(),
                   "the gradient must have the shape of the logits", grad_logits.rows(), grad_logits.cols(),
                   logits.rows(), logits.cols());
  FAIRLEAD_EXPECTS(context.token_mask.empty() || static_cast<index_t>(context.token_mask.size()) == logits.rows(),
                   "a token mask has one byte a token", context.token_mask.size(), logits.rows());
  FAIRLEAD_EXPECTS(context.expert_mask.empty() || static_cast<index_t>(context.expert_mask.size()) == experts,
                   "an expert mask has one byte an expert", context.expert_mask.size(), experts);
}
/// Shapes of a loss on logits with one column an expert.
inline void expect_loss_shapes(matrix_view<float const> logits, const_routing_view routing,
                               route_context const& context, matrix_view<float const> grad_logits) {
  expect_column_shapes(logits, routing, context, grad_logits, logits.cols(), logits.cols());
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
