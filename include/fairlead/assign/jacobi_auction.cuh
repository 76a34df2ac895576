// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The device text of `jacobi_auction`: rounds over a whole grid, their tail in one block a problem.
#include <fairlead/assign/detail/auction_device.cuh>
#include <fairlead/assign/jacobi_auction.hpp>
#include <fairlead/exec/cuda_stream.cuh>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Device text of `jacobi_auction`. Scores, mask, warm prices, owners and prices are device memory; capacities and
/// reports host memory.
///
/// A round is three launches for all problems of the batch: a warp a bidding token, a block an expert, and a block a
/// problem that opens phases and runs rounds with at most 256 bidders by itself. The host looks every eight rounds
/// whether all problems are done.
/// @determinism owners, prices and reports are the bits of the host text
template <cuda_backend Backend>
struct implementation<jacobi_auction, Backend> {
  /// See `jacobi_auction::solve_batch`.
  template <class Score>
  static void solve(jacobi_auction const& policy, Backend const& on, assignment_batch<Score> const& batch,
                    matrix_view<expert_id> owner, std::span<double> prices, std::span<assignment_report> reports,
                    workspace& ws) {
    index_t const problems = batch.problems;
    index_t const tokens = batch.tokens();
    index_t const experts = batch.experts();
    FAIRLEAD_EXPECTS(problems <= 65535, "a device solves at most 65535 problems at once", problems);
    workspace::scope const scope(ws);
    auto const memory = detail::auction_memory::take(ws, problems, tokens, experts);
    auto const capacity = ws.take<index_t>(problems * experts);
    auto const device_reports = ws.take<assignment_report>(problems);
    on.from_host(capacity.data(), batch.capacity.data(), batch.capacity.size_bytes());
    bool const warm = !batch.warm_prices.empty();
    detail::device_auction<Score> const a{
        .scores = batch.scores,
        .capacity = capacity.data(),
        .capacity_step = static_cast<index_t>(batch.capacity.size()) == experts ? 0 : experts,
        .mask = batch.token_mask.empty() ? nullptr : batch.token_mask.data(),
        .warm = warm ? batch.warm_prices.data() : nullptr,
        .owner = owner,
        .prices = prices.empty() ? nullptr : prices.data(),
        .memory = memory,
        // The reports are written at the end: until then their memory counts the problems that are done.
        .finished = reinterpret_cast<std::uint32_t*>(device_reports.data()),
        .divisor = policy.divisor,
        .first_divisor = warm ? policy.warm_divisor : policy.first_divisor,
        .most_rounds = policy.most_rounds};
    on.fill_zero(a.finished, sizeof(std::uint32_t));
    run(on, a, problems, device_reports);
    on.to_host(reports.data(), device_reports.data(), device_reports.size_bytes());
    on.wait();
  }
  /// Owners of a problem that is not solved.
  static void clear(Backend const& on, matrix_view<expert_id> owner) { on.for_each(owner.rows(), detail::no_owners{owner}); }

 private:
  template <class Score>
  static void run(Backend const& on, detail::device_auction<Score> const& a, index_t problems,
                  std::span<assignment_report> reports) {
    cudaStream_t const stream = on.native();
    constexpr int row_threads = detail::auction_row_threads;
    constexpr int tail_threads = detail::auction_tail_threads;
    auto const one_each = static_cast<unsigned>(problems);
    // Rows are looped over, so that about eight blocks a multiprocessor are enough for all problems together.
    index_t const blocks = std::max<index_t>(on.concurrency() * 8 / problems, 1);
    dim3 const rows(kernels::grid_size(a.memory.tokens, row_threads / 32, blocks), one_each);
    dim3 const experts(static_cast<unsigned>(std::max<index_t>(a.memory.experts, 1)), one_each);
    detail::auction_setup<<<one_each, tail_threads, 0, stream>>>(a);
    detail::auction_measure<<<rows, row_threads, 0, stream>>>(a);
    detail::auction_quantise<<<rows, row_threads, 0, stream>>>(a);
    detail::auction_begin<<<one_each, tail_threads, 0, stream>>>(a);
    detail::auction_advance<<<one_each, tail_threads, 0, stream>>>(a);
    kernels::check_launch("auction");
    for (std::uint32_t finished = 0; finished < one_each;) {
      for (int round = 0; round < rounds_between_looks; ++round) {
        detail::auction_bids<<<rows, row_threads, 0, stream>>>(a);
        detail::auction_settle_all<<<experts, detail::auction_settle_threads, 0, stream>>>(a);
        detail::auction_advance<<<one_each, tail_threads, 0, stream>>>(a);
      }
      kernels::check_launch("auction rounds");
      on.to_host(&finished, a.finished, sizeof(finished));
      on.wait();
    }
    detail::auction_publish<<<one_each, tail_threads, 0, stream>>>(a);
    detail::auction_surplus<<<rows, row_threads, 0, stream>>>(a);
    detail::auction_reports<<<one_each, static_cast<unsigned>(detail::sum_lanes), 0, stream>>>(a, reports.data());
    kernels::check_launch("auction reports");
  }
  static constexpr int rounds_between_looks = 8;
};
static_assert(assignment_solver_on<jacobi_auction, cuda_stream>);

FAIRLEAD_NAMESPACE_END
