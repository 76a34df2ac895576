// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The random exchange of rows between ranks: its plan, and the two ways.
#include <fairlead/concepts/communicator.hpp>
#include <fairlead/core/buffer.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/core/routing.hpp>
#include <fairlead/dispatch/rows.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief A permutation of this rank's rows and the shares that go to each rank.
struct shuffle_plan {
  buffer<std::int32_t> order{};       ///< row that is sent at each place. @shape{tokens}
  buffer<std::int32_t> place{};       ///< place that each row is sent at: the inverse. @shape{tokens}
  std::vector<index_t> send{};        ///< first place for each rank. @shape{ranks + 1}
  std::vector<index_t> receive{};     ///< first row from each rank. @shape{ranks + 1}
  std::vector<index_t> send_elements{};     ///< `send` in elements of the exchange under way
  std::vector<index_t> receive_elements{};  ///< `receive` in elements of the exchange under way
  std::vector<std::int64_t> gathered{};  ///< what each rank said: tokens, first token, what it has. @shape{3 ranks}
  index_t received = 0;               ///< rows that arrive here
  /// @returns rows of this rank
  [[nodiscard]] index_t tokens() const noexcept { return order.size(); }
};

namespace detail {

// What a rank has besides rows.
inline constexpr std::int64_t has_mask = 1, has_ids = 2;
// Parts the draws of permutations from those of routers under the same seed.
inline constexpr std::uint64_t shuffle_seed = 0x73687566666c6564U;

/// Numbers i in [first, first + count) with i mod ranks == rank.
[[nodiscard]] constexpr index_t share_of(index_t first, index_t count, index_t ranks, index_t rank) noexcept {
  index_t const skip = ((rank - first) % ranks + ranks) % ranks;
  return count > skip ? (count - skip - 1) / ranks + 1 : 0;
}

template <class Layer, class State, class Record>
void reserve_shuffle(Layer const& layer, State const& state, Record& record) {
  index_t const tokens = state.inner.limits.max_tokens;  // what arrives is an even share, so no more than the largest
  index_t const in = layer.expert.input_width(), out = layer.expert.output_width();
  auto const ranks = static_cast<std::size_t>(state.inner.comm.size());
  record.plan.order.resize(tokens);
  record.plan.place.resize(tokens);
  for (auto* offsets : {&record.plan.send, &record.plan.receive, &record.plan.send_elements, &record.plan.receive_elements}) {
    offsets->assign(ranks + 1, 0);
  }
  record.plan.gathered.assign(3 * ranks, 0);
  record.own.resize(tokens * std::max(in, out));
  record.tokens.resize(tokens * in);
  record.outputs.resize(tokens * out);
  record.grad_tokens.resize(tokens * in);
  record.own_mask.resize(tokens);
  record.token_mask.resize(tokens);
  record.own_ids.resize(tokens);
  record.token_ids.resize(tokens);
}

template <class State, class Value>
void exchange_values(State& state, shuffle_plan& plan, std::vector<index_t> const& from, std::vector<index_t> const& to,
                     index_t width, Value const* out, Value* in) {
  for (std::size_t r = 0; r < from.size(); ++r) {
    plan.send_elements[r] = from[r] * width;
    plan.receive_elements[r] = to[r] * width;
  }
  state.comm.all_to_all_v(state.on, out, std::span<index_t const>(plan.send_elements), in,
                          std::span<index_t const>(plan.receive_elements)).wait();
}

/// One value a token from its rank to the rank that will see it.
template <class State, class Value>
[[nodiscard]] std::span<Value const> exchange_column(State& state, shuffle_plan& plan, std::span<Value const> values,
                                                     buffer<Value>& own, buffer<Value>& seen) {
  own.resize(plan.tokens());
  seen.resize(plan.received);
  for (index_t i = 0; i < plan.tokens(); ++i) { own[i] = values[static_cast<std::size_t>(plan.order[i])]; }
  exchange_values(state, plan, plan.send, plan.receive, 1, static_cast<Value const*>(own.data()), seen.data());
  return std::as_const(seen).span();
}

/// Agrees on who sends what, draws the permutation, and sends ids and masks.
/// @returns the context in which the layer sees the rows that arrive
template <class State, class Record>
[[nodiscard]] route_context plan_shuffle(State& state, index_t tokens, route_context const& context, Record& record) {
  shuffle_plan& plan = record.plan;
  index_t const ranks = state.comm.size(), rank = state.comm.rank();
  auto const rank_tokens = static_cast<std::size_t>(tokens);
  FAIRLEAD_EXPECTS(context.token_mask.empty() || context.token_mask.size() == rank_tokens,
                   "token_mask must be empty or one byte a token", context.token_mask.size(), tokens);
  FAIRLEAD_EXPECTS(context.token_ids.empty() || context.token_ids.size() == rank_tokens,
                   "token_ids must be empty or one a token", context.token_ids.size(), tokens);
  std::array<std::int64_t, 3> const mine{
      tokens, context.first_token, (context.token_mask.empty() ? 0 : has_mask) | (context.token_ids.empty() ? 0 : has_ids)};
  state.comm.all_gather(state.on, std::span<std::int64_t const>(mine), std::span<std::int64_t>(plan.gathered)).wait();

  index_t base = 0, seen_before = 0, my_base = 0;
  std::int64_t has = 0, all_have = has_mask | has_ids, first = -1;
  plan.receive[0] = 0;
  for (index_t r = 0; r < ranks; ++r) {
    auto const at = static_cast<std::size_t>(r);
    index_t const count = plan.gathered[3 * at];
    plan.receive[at + 1] = plan.receive[at] + share_of(base, count, ranks, rank);
    my_base = r == rank ? base : my_base;
    base += count;
    if (count == 0) { continue; }  // a rank without tokens has no ids and no mask to give
    has |= plan.gathered[3 * at + 2];
    all_have &= plan.gathered[3 * at + 2];
    first = first < 0 ? plan.gathered[3 * at + 1] : std::min(first, plan.gathered[3 * at + 1]);
  }
  FAIRLEAD_EXPECTS(base == 0 || has == all_have, "token ids and masks must be given on every rank with tokens, or on none",
                   has, all_have);
  plan.received = plan.receive.back();
  plan.send[0] = 0;
  for (index_t r = 0; r < ranks; ++r) {
    plan.send[static_cast<std::size_t>(r) + 1] = plan.send[static_cast<std::size_t>(r)] + share_of(my_base, tokens, ranks, r);
  }
  for (index_t r = 0; r < rank; ++r) { seen_before += share_of(0, base, ranks, r); }

  plan.order.resize(tokens);
  plan.place.resize(tokens);
  std::uint64_t const stream = (static_cast<std::uint64_t>(rank) << 40U) + static_cast<std::uint64_t>(context.first_token);
  for (index_t i = 0; i < tokens; ++i) {  // Fisher and Yates, growing from the left
    auto const word = philox::draw(context.seed ^ shuffle_seed, context.step, stream + static_cast<std::uint64_t>(i))[0];
    auto const j = static_cast<index_t>(philox::below(word, static_cast<std::uint32_t>(i + 1)));
    plan.order[i] = plan.order[j];
    plan.order[j] = static_cast<std::int32_t>(i);
  }
  for (index_t i = 0; i < tokens; ++i) { plan.place[plan.order[i]] = static_cast<std::int32_t>(i); }

  route_context inside = context;
  inside.first_token = std::max<std::int64_t>(first, 0) + seen_before;  // numbers of tokens stay apart over the ranks
  inside.token_mask = {};
  inside.token_ids = {};
  if ((has & has_mask) != 0) {
    inside.token_mask = exchange_column(state, plan, context.token_mask, record.own_mask, record.token_mask);
  }
  if ((has & has_ids) != 0) {
    inside.token_ids = exchange_column(state, plan, context.token_ids, record.own_ids, record.token_ids);
  }
  return inside;
}

/// Sends each row where the plan says.
template <class State, class Record, class Value>
[[nodiscard]] matrix_view<Value> send_away(State& state, matrix_view<Value const> rows, Record& record, buffer<Value>& seen) {
  index_t const width = rows.cols();
  record.own.resize(rows.rows() * width);
  seen.resize(record.plan.received * width);
  gather_rows{}(state.on, rows, std::as_const(record.plan.order).span(), record.own.as_matrix(rows.rows(), width));
  exchange_values(state, record.plan, record.plan.send, record.plan.receive, width,
                  static_cast<Value const*>(record.own.data()), seen.data());
  return seen.as_matrix(record.plan.received, width);
}

/// Sends each row back to where it came from.
template <class State, class Record, class Value>
void send_home(State& state, matrix_view<Value const> seen, Record& record, matrix_view<Value> rows) {
  index_t const width = rows.cols();
  record.own.resize(rows.rows() * width);
  exchange_values(state, record.plan, record.plan.receive, record.plan.send, width, seen.data(), record.own.data());
  gather_rows{}(state.on, std::as_const(record.own).as_matrix(rows.rows(), width),
                std::as_const(record.plan.place).span(), rows);
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
