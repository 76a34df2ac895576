// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Check that a dispatcher carries every row where it belongs, and its gradient back.
#include <fairlead/concepts/dispatcher.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/laws/verdict.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief Sizes of a dispatcher check; equal on every rank except `tokens`.
struct dispatcher_options {
  index_t tokens = 40;          ///< rows of this rank, may be 0
  index_t experts = 6;          ///< logical experts
  index_t fan_out = 2;          ///< copies a token, <= experts
  index_t width = 5;            ///< columns of a row
  index_t replicas = 1;         ///< replicas of each expert, on consecutive ranks
  bool drops = false;           ///< whether the dispatcher may drop copies
  bool renormalises = false;    ///< whether it divides the weights of survivors by their sum
  bool returns_tokens = false;  ///< whether a dropped copy returns its token
  std::uint64_t seed = 3;       ///< seed of routing and rows
};

namespace detail {

/// Experts in contiguous blocks, further replicas on the next ranks.
inline placement replicated_placement(index_t ranks, index_t experts, index_t replicas) {
  std::vector<std::vector<expert_id>> on(static_cast<std::size_t>(ranks));
  for (index_t e = 0; e < experts; ++e) {
    index_t const home = e * ranks / experts;
    for (index_t i = 0; i < replicas; ++i) {
      on[static_cast<std::size_t>((home + i) % ranks)].push_back(static_cast<expert_id>(e));
    }
  }
  std::vector<index_t> offsets{0};
  std::vector<expert_id> slots;
  for (auto const& mine : on) {
    slots.insert(slots.end(), mine.begin(), mine.end());
    offsets.push_back(static_cast<index_t>(slots.size()));
  }
  return {experts, offsets, slots};
}

/// Source rank r gives its copies to the replicas in proportion r, r + 1, ...: uneven, and conserving.
inline void uneven_split(load_view load, placement const& where, token_schedule_view out) {
  for (index_t source = 0; source < load.rows(); ++source) {
    for (index_t e = 0; e < load.cols(); ++e) {
      auto const expert = static_cast<expert_id>(e);
      index_t const first = where.replica_offset(expert);
      auto const count = static_cast<index_t>(where.replicas(expert).size());
      count_t left = load(source, e);
      for (index_t i = 0; i < count; ++i) {
        count_t const take = i + 1 == count ? left : static_cast<count_t>(left * ((source + i) % 3) / 3);
        out(source, first + i) = take;
        left -= take;
      }
    }
  }
}

template <class Backend, class Comm>
double global_sum(Backend const& on, Comm& comm, double mine) {
  std::array<double, 1> value{mine};
  comm.all_reduce(on, std::span<double>(value), reduction::sum).wait();
  return value[0];
}

inline double inner_product(matrix<float> const& a, matrix<float> const& b) {
  double sum = 0.0;
  for (index_t i = 0; i < a.rows() * a.cols(); ++i) { sum += static_cast<double>(a.data()[i]) * static_cast<double>(b.data()[i]); }
  return sum;
}

inline matrix<float> noise(index_t rows, index_t cols, std::uint64_t seed, std::uint64_t stream) {
  matrix<float> result(rows, cols);
  for (index_t i = 0; i < rows * cols; ++i) {
    result.data()[i] = static_cast<float>(philox::normal(seed, stream, static_cast<std::uint64_t>(i)));
  }
  return result;
}

inline bool close(double a, double b, double scale) { return std::abs(a - b) <= 1e-4 * (1.0 + std::abs(scale)); }

}  // namespace detail

/// @brief Check the laws of `dispatcher_on` on host memory.
///
/// Nothing is lost but what capacity drops; with identity experts the output is the weight-summed input; combine and
/// its backward, dispatch and its backward are transposes of each other; the weights' gradients are the dot products.
/// @param dispatcher the model
/// @param on host backend
/// @param comm communicator with all_to_all_v, all_gather and all_reduce
/// @param options sizes and what the dispatcher is allowed to do
/// @returns the first broken law, with its numbers
/// @collective all ranks; ranks may return different verdicts
template <class Dispatcher, host_backend Backend, class Comm>
  requires dispatcher_on<Dispatcher, Comm, Backend, float>
[[nodiscard]] verdict check_dispatcher(Dispatcher const& dispatcher, Backend const& on, Comm& comm, dispatcher_options options) {
  index_t const ranks = comm.size();
  index_t const rank = comm.rank();
  index_t const experts = options.experts;
  index_t const k = options.fan_out;
  auto const stream = static_cast<std::uint64_t>(rank);
  placement const where = detail::replicated_placement(ranks, experts, std::min(options.replicas, ranks));

  routing<> routed(options.tokens, k);
  double offered = 0.0;
  for (index_t t = 0; t < options.tokens; ++t) {
    for (index_t j = 0; j < k; ++j) {
      auto const draw = philox::draw(options.seed, stream, static_cast<std::uint64_t>(t * k + j));
      bool const none = draw[0] % 8 == 0;
      // Skewed towards low experts; distinct by construction because choices start from different experts.
      index_t const expert = (static_cast<index_t>(philox::below(draw[1], 3)) * k + j) % experts;
      bool taken = none;
      for (index_t i = 0; i < j; ++i) { taken = taken || to_index(routed.view().experts(t, i)) == expert; }
      routed.view().experts(t, j) = taken ? expert_id::none : static_cast<expert_id>(expert);
      routed.view().weights(t, j) = taken ? 0.0F : philox::to_uniform(draw[2]);
      offered += taken ? 0.0 : 1.0;
    }
  }
  auto const view = std::as_const(routed).view();

  plan_of<Dispatcher, Backend> plan;
  wire_of<Dispatcher, Backend, float> wire;
  arena<> memory(dispatcher.workspace_bytes(options.tokens * k, experts, on.concurrency()));
  auto ws = memory.view();
  plan.ranks = ranks;
  plan.rank = rank;
  dispatcher.admit(on, view, route_context{.seed = options.seed}, experts, plan, ws);
  matrix<count_t> gathered(ranks, 2 * experts + 1), kept(ranks, experts), schedule(ranks, where.replicas());
  comm.all_gather(on, std::as_const(plan.count_row).span(), gathered.span()).wait();
  dispatcher.limit(std::as_const(gathered).view(), where, k, kept.view());
  detail::uneven_split(std::as_const(kept).view(), where, schedule.view());
  dispatcher.plan(on, comm, view, where, std::as_const(schedule).view(), plan, ws);

  auto const fail = [&](auto const&... parts) {
    return verdict::broken("dispatcher (rank ", rank, " of ", ranks, ", seed ", options.seed, "): ", parts...);
  };
  auto const groups = plan.groups();
  double const computed = detail::global_sum(on, comm, static_cast<double>(groups.used()));
  double scheduled = 0.0;
  for (count_t const copies : std::as_const(kept).span()) { scheduled += copies; }
  double const all_offered = detail::global_sum(on, comm, offered);
  bool broken_group = groups.size() != where.slots(static_cast<rank_id>(rank));
  for (index_t g = 0; g + 1 < groups.size() && !broken_group; ++g) { broken_group = groups.first(g) + groups.count(g) > groups.first(g + 1); }

  using pending_type = pending_of<Dispatcher, Backend, Comm, float>;
  auto const through = [&](matrix<float> const& tokens, matrix<float>& rows) {
    pending_type pending = dispatcher.start_dispatch(on, comm, plan, tokens.view(), wire);
    dispatcher.finish_dispatch(on, plan, pending, tokens.view(), wire, rows.view());
  };
  auto const back = [&](matrix<float> const& rows, matrix<float> const& tokens, matrix<float>& out) {
    pending_type pending = dispatcher.start_combine(on, comm, plan, rows.view(), wire);
    dispatcher.finish_combine(on, plan, pending, rows.view(), tokens.view(), wire, out.view());
  };

  // Identity experts: what a token gets back is a multiple of itself, and the multiple is what ones get back.
  index_t const tokens = options.tokens;
  matrix<float> ones(tokens, options.width), rows(groups.rows(), options.width), share(tokens, options.width), out(tokens, options.width);
  std::fill(ones.span().begin(), ones.span().end(), 1.0F);
  through(ones, rows);
  back(rows, ones, share);
  auto const in = detail::noise(tokens, options.width, options.seed, 100 + stream);
  through(in, rows);
  std::vector<bool> used(static_cast<std::size_t>(groups.rows()), false);
  for (index_t g = 0; g < groups.size(); ++g) {
    for (index_t i = 0; i < groups.count(g); ++i) { used[static_cast<std::size_t>(groups.first(g) + i)] = true; }
  }
  bool dirty_padding = false;
  for (index_t r = 0; r < groups.rows(); ++r) {
    for (index_t c = 0; c < options.width && !used[static_cast<std::size_t>(r)]; ++c) { dirty_padding = dirty_padding || rows(r, c) != 0.0F; }
  }
  back(rows, in, out);

  // Transposes. All collectives run on every rank before any verdict.
  auto const g = detail::noise(tokens, options.width, options.seed, 200 + stream);
  auto const y = detail::noise(groups.rows(), options.width, options.seed, 300 + stream);
  matrix<float> zero_tokens(tokens, options.width), grad_rows(groups.rows(), options.width), grad_weights(tokens, k), combined(tokens, options.width), grad_tokens(tokens, options.width);
  std::copy(y.span().begin(), y.span().end(), grad_rows.span().begin());
  back(y, zero_tokens, combined);
  {
    pending_type pending = dispatcher.start_combine_backward(on, comm, plan, g.view(), std::as_const(zero_tokens).view(), grad_rows.view(), wire, grad_weights.view());
    dispatcher.finish_combine_backward(on, plan, pending, wire, grad_rows.view());
  }
  for (index_t r = 0; r < groups.rows(); ++r) {
    for (index_t c = 0; c < options.width && !used[static_cast<std::size_t>(r)]; ++c) { dirty_padding = dirty_padding || grad_rows(r, c) != 0.0F; }
  }
  double const forward_side = detail::global_sum(on, comm, detail::inner_product(combined, g));
  double const backward_side = detail::global_sum(on, comm, detail::inner_product(y, grad_rows));
  {
    pending_type pending = dispatcher.start_dispatch_backward(on, comm, plan, y.view(), wire);
    dispatcher.finish_dispatch_backward(on, plan, pending, y.view(), std::as_const(zero_tokens).view(), wire, grad_weights.view(), grad_tokens.view());
  }
  through(in, rows);
  double const sent = detail::global_sum(on, comm, detail::inner_product(rows, y));
  double const returned = detail::global_sum(on, comm, detail::inner_product(in, grad_tokens));
  double euler = 0.0;
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t j = 0; j < k; ++j) { euler += static_cast<double>(view.weights(t, j)) * static_cast<double>(grad_weights(t, j)); }
  }
  euler = detail::global_sum(on, comm, euler);

  if (broken_group) { return fail("groups overlap, or there is not one for each local slot (", groups.size(), ")"); }
  if (computed != scheduled) { return fail("rows reach experts ", computed, " but the schedule says ", scheduled); }
  if (!options.drops && scheduled != all_offered) { return fail("copies are lost: ", all_offered, " offered, ", scheduled, " kept"); }
  if (scheduled > all_offered) { return fail("copies appear from nowhere: ", all_offered, " offered, ", scheduled, " kept"); }
  if (dirty_padding) { return fail("alignment padding must be zero rows, in gradients too"); }
  for (index_t t = 0; t < tokens; ++t) {
    double want = 0.0;
    for (index_t j = 0; j < k; ++j) { want += static_cast<double>(view.weights(t, j)); }
    double const got = static_cast<double>(share(t, 0));
    if ((!options.drops || options.returns_tokens) && !detail::close(got, want, want)) { return fail("token ", t, " gets ", got, " of itself back, its weights sum to ", want); }
    if (!options.renormalises && got > want * (1 + 1e-5)) { return fail("token ", t, " gets more back (", got, ") than its weights sum to (", want, ")"); }
    if (options.renormalises && got != 0.0 && !detail::close(got, 1.0, 1.0)) { return fail("renormalised weights of token ", t, " sum to ", got); }
    for (index_t c = 0; c < options.width; ++c) {
      if (!detail::close(out(t, c), got * static_cast<double>(in(t, c)), in(t, c))) { return fail("token ", t, " does not get its own row back: ", out(t, c), " instead of ", got * static_cast<double>(in(t, c))); }
    }
  }
  if (!detail::close(forward_side, backward_side, forward_side)) { return fail("combine and its backward are not transposes: ", forward_side, " and ", backward_side); }
  if (!detail::close(sent, returned, sent)) { return fail("dispatch and its backward are not transposes: ", sent, " and ", returned); }
  double const want_euler = options.renormalises ? 0.0 : forward_side;  // degree of homogeneity in the weights
  if (!detail::close(euler, want_euler, forward_side)) { return fail("the weights' gradients are not the dot products: ", euler, " instead of ", want_euler); }
  return {};
}

}  // namespace laws
FAIRLEAD_NAMESPACE_END
