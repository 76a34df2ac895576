// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The K servers with the largest keys, and the checks that all slot routers share.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/vectors.hpp>
#include <fairlead/edge/ties.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// K registers instead of K places in memory, and selects instead of branches: which key wins cannot be predicted.
// False if fewer than K keys are above -inf.
template <int fan_out, class Key>
[[nodiscard]] bool select_by_id(Key const& key, index_t servers, expert_id* row) {
  constexpr auto size = static_cast<std::size_t>(fan_out);
  double best[size];
  std::int32_t ids[size];
  for (std::size_t s = 0; s < size; ++s) {
    best[s] = -std::numeric_limits<double>::infinity();
    ids[s] = -1;
  }
  for (index_t j = 0; j < servers; ++j) {
    double const own = key(j);
    auto const id = static_cast<std::int32_t>(j);
    // Keys that the new one beats move down by one, from the end, so that equal ones keep their order.
    for (std::size_t s = size; s-- > 1;) {
      bool const here = own > best[s - 1];
      bool const below = own > best[s];
      best[s] = here ? best[s - 1] : below ? own : best[s];
      ids[s] = here ? ids[s - 1] : below ? id : ids[s];
    }
    bool const first = own > best[0];
    best[0] = first ? own : best[0];
    ids[0] = first ? id : ids[0];
  }
  for (std::size_t s = 0; s < size; ++s) { row[s] = static_cast<expert_id>(ids[s]); }
  return ids[size - 1] >= 0;
}

/// `select_servers` for any keys, ties and fan_out.
template <class Key, tie_break Ties>
void select_one_by_one(slot_view const& view, index_t token, Ties const& ties, Key const& key, std::span<double> best,
                       expert_id* row) {
  index_t const servers = view.servers();
  index_t const fan_out = view.fan_out;
  index_t found = 0;
  for (index_t j = 0; j < servers; ++j) {
    double const given = key(j);
    // NaN compares with nothing: in its place, no better key could pass it.
    double const own = given == given ? given : -std::numeric_limits<double>::infinity();
    auto const before = [&](index_t place) {
      double const other = best[static_cast<std::size_t>(place)];
      if (own != other) { return own > other; }
      if constexpr (breaks_ties_by_id<Ties>) { return false; }
      return ties.rank(view, token, j) < ties.rank(view, token, to_index(row[place]));
    };
    if (found == fan_out && !before(fan_out - 1)) { continue; }
    index_t place = found == fan_out ? fan_out - 1 : found++;
    for (; place > 0 && before(place - 1); --place) {
      best[static_cast<std::size_t>(place)] = best[static_cast<std::size_t>(place - 1)];
      row[place] = row[place - 1];
    }
    best[static_cast<std::size_t>(place)] = own;
    row[place] = static_cast<expert_id>(j);
  }
}

inline bool finite_scores(matrix_view<float const> scores) {
  for (index_t t = 0; t < scores.rows(); ++t) {
    float const* const row = scores.row(t);
    for (index_t j = 0; j < scores.cols(); ++j) {
      if (!std::isfinite(row[j])) { return false; }
    }
  }
  return true;
}

/// What every slot router checks.
inline void check_slot(slot_view const& view, index_t servers, matrix_view<expert_id> choice, std::span<index_t> counts) {
  FAIRLEAD_EXPECTS(servers == view.servers() && view.energy_debt.size() == view.backlog.size() &&
                       static_cast<index_t>(counts.size()) == servers,
                   "one backlog, one energy queue and one count a server", servers, view.backlog.size(),
                   view.energy_debt.size(), counts.size());
  FAIRLEAD_EXPECTS(view.tokens() == 0 || view.scores.cols() == servers, "one score a server", view.scores.cols(), servers);
  FAIRLEAD_EXPECTS(view.fan_out >= 1 && view.fan_out <= servers,
                   "a token needs fan_out distinct servers: fan_out must be between 1 and the number of servers", view.fan_out,
                   servers);
  FAIRLEAD_EXPECTS(choice.rows() == view.tokens() && (view.tokens() == 0 || choice.cols() == view.fan_out),
                   "choice must be tokens x fan_out", choice.rows(), choice.cols(), view.tokens(), view.fan_out);
  FAIRLEAD_EXPECTS(view.weights.utility >= 0.0 && view.weights.gate >= 0.0 && view.weights.energy >= 0.0 &&
                       std::isfinite(view.weights.energy) && std::isfinite(view.weights.utility) &&
                       std::isfinite(view.weights.utility * view.weights.gate),
                   "the weights of a slot must be finite and not negative, and so must V mu", view.weights.utility,
                   view.weights.gate, view.weights.energy);
  FAIRLEAD_EXPECTS_2(finite_scores(view.scores), "gate scores must be finite");
  (void)servers;
  (void)choice;
}

inline void add_counts(expert_id const* row, index_t fan_out, std::span<index_t> counts) {
  for (index_t k = 0; k < fan_out; ++k) { ++counts[static_cast<std::size_t>(row[k])]; }
}

/// Write the `fan_out` servers with the largest keys, best first; `best` is scratch for as many keys. NaN and -inf come last.
template <class Key, tie_break Ties>
void select_servers(slot_view const& view, index_t token, Ties const& ties, Key const& key, std::span<double> best,
                    expert_id* row) {
  if constexpr (breaks_ties_by_id<Ties>) {
    bool done = false;
    switch (view.fan_out) {
      case 1: done = select_by_id<1>(key, view.servers(), row); break;
      case 2: done = select_by_id<2>(key, view.servers(), row); break;
      case 3: done = select_by_id<3>(key, view.servers(), row); break;
      case 4: done = select_by_id<4>(key, view.servers(), row); break;
      default: break;
    }
    if (done) { return; }
  }
  select_one_by_one(view, token, ties, key, best, row);
}

#if FAIRLEAD_DETAIL_VECTORS
/// Tokens side by side in the lanes of a few vectors.
inline constexpr int token_vectors = 4;
inline constexpr index_t token_block = index_t{token_vectors} * vector_of<double>::lanes;

/// As `select_by_id` for the rows of a block at once. Where fewer than K keys are above -inf, the last id is -1.
template <int fan_out, class Key>
void select_block_by_id(Key const& key, index_t first, index_t tokens, index_t servers, matrix_view<expert_id> choice) {
  constexpr auto size = static_cast<std::size_t>(fan_out);
  constexpr auto lanes = static_cast<std::size_t>(vector_of<double>::lanes);
  double_vector const zero = {};
  // Ids are doubles too, so that one comparison selects both.
  double_vector best[token_vectors][size];
  double_vector ids[token_vectors][size];
  for (std::size_t v = 0; v < token_vectors; ++v) {
    for (std::size_t s = 0; s < size; ++s) {
      best[v][s] = zero - infinite<double>;
      ids[v][s] = zero - 1.0;
    }
  }
  double keys[token_block];
  for (index_t j = 0; j < servers; ++j) {
    // The last block repeats its last token: one loop for all.
    for (index_t t = 0; t < token_block; ++t) { keys[t] = key(first + std::min(t, tokens - 1), j); }
    double_vector const id = zero + static_cast<double>(j);
    for (std::size_t v = 0; v < token_vectors; ++v) {
      auto const own = load_lanes<double_vector>(keys + v * lanes);
      for (std::size_t s = size; s-- > 1;) {
        auto const here = own > best[v][s - 1];
        auto const below = own > best[v][s];
        double_vector const own_or_same = below ? own : best[v][s];
        double_vector const id_or_same = below ? id : ids[v][s];
        best[v][s] = here ? best[v][s - 1] : own_or_same;
        ids[v][s] = here ? ids[v][s - 1] : id_or_same;
      }
      auto const top = own > best[v][0];
      best[v][0] = top ? own : best[v][0];
      ids[v][0] = top ? id : ids[v][0];
    }
  }
  for (index_t t = 0; t < tokens; ++t) {
    expert_id* const row = choice.row(first + t);
    auto const v = static_cast<std::size_t>(t) / lanes;
    auto const lane = static_cast<std::size_t>(t) % lanes;
    for (std::size_t s = 0; s < size; ++s) { row[s] = static_cast<expert_id>(static_cast<std::int32_t>(ids[v][s][lane])); }
  }
}

/// Whether it could: `fan_out` is one of those that have code of their own.
template <class Key>
bool select_blocks_by_id(slot_view const& view, Key const& key, matrix_view<expert_id> choice) {
  auto const all = [&](auto width) {
    for (index_t first = 0; first < view.tokens(); first += token_block) {
      select_block_by_id<width()>(key, first, std::min(token_block, view.tokens() - first), view.servers(), choice);
    }
    return true;
  };
  switch (view.fan_out) {
    case 1: return all(std::integral_constant<int, 1>{});
    case 2: return all(std::integral_constant<int, 2>{});
    case 3: return all(std::integral_constant<int, 3>{});
    case 4: return all(std::integral_constant<int, 4>{});
    default: return false;
  }
}
#endif

/// Route each token by keys that depend on the token: `key(token, server)`.
template <tie_break Ties, class Key>
void route_by_keys(slot_view const& view, Ties const& ties, Key const& key, matrix_view<expert_id> choice,
                   std::span<index_t> counts, workspace& ws) {
  workspace::scope const scope(ws);
  auto const best = ws.take<double>(view.fan_out);
  std::fill(counts.begin(), counts.end(), index_t{0});
#if FAIRLEAD_DETAIL_VECTORS
  if constexpr (breaks_ties_by_id<Ties>) {
    if (select_blocks_by_id(view, key, choice)) {
      for (index_t t = 0; t < view.tokens(); ++t) {
        if (to_index(choice(t, view.fan_out - 1)) < 0) {  // keys of NaN or -inf
          select_one_by_one(view, t, ties, [&](index_t j) { return key(t, j); }, best, choice.row(t));
        }
        add_counts(choice.row(t), view.fan_out, counts);
      }
      return;
    }
  }
#endif
  for (index_t t = 0; t < view.tokens(); ++t) {
    select_servers(view, t, ties, [&](index_t j) { return key(t, j); }, best, choice.row(t));
    add_counts(choice.row(t), view.fan_out, counts);
  }
}

/// Route all tokens by keys of the servers: `key(server)`. Only ties tell the tokens apart.
template <tie_break Ties, class Key>
void route_by_server_keys(slot_view const& view, Ties const& ties, Key const& key, matrix_view<expert_id> choice,
                          std::span<index_t> counts, workspace& ws) {
  if constexpr (breaks_ties_by_id<Ties>) {
    workspace::scope const scope(ws);
    auto const best = ws.take<double>(view.fan_out);
    std::fill(counts.begin(), counts.end(), index_t{0});
    if (view.tokens() == 0) { return; }
    select_servers(view, 0, ties, key, best, choice.row(0));
    for (index_t t = 1; t < view.tokens(); ++t) { std::copy_n(choice.row(0), view.fan_out, choice.row(t)); }
    for (index_t k = 0; k < view.fan_out; ++k) { counts[static_cast<std::size_t>(choice(0, k))] = view.tokens(); }
  } else {
    route_by_keys(view, ties, [&](index_t, index_t j) { return key(j); }, choice, counts, ws);
  }
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
