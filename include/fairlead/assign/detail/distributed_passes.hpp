// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Passes over the rows of one rank, as `distributed_flow` needs them.
#include <fairlead/core/assignment.hpp>
#include <fairlead/core/ids.hpp>
#include <fairlead/core/matrix_view.hpp>
#include <fairlead/flow/token_runs.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// One copy in the integers that soft loads are summed in: 2^32, so that 2^31 copies fit.
inline constexpr double soft_unit = 4294967296.0;

/// What all passes share. Scratch is by run of tokens, so that results do not depend on threads.
template <class Score>
struct distributed_pass {
  matrix_view<Score const> scores{};
  std::span<std::uint8_t const> mask{};
  matrix_view<expert_id> owner{};
  index_t fan_out = 1;
  double const* prices = nullptr;
  double* keys = nullptr;         // experts + fan_out + 1 a run
  std::int64_t* sums = nullptr;   // experts a run
  std::int64_t* found = nullptr;  // 4 a run

  static constexpr double none = -std::numeric_limits<double>::infinity();

  [[nodiscard]] bool valid(index_t token) const noexcept {
    return mask.empty() || mask[static_cast<std::size_t>(token)] != 0;
  }
  [[nodiscard]] index_t first(index_t run) const noexcept { return token_runs{scores.rows()}.first(run); }
  [[nodiscard]] double* keys_of(index_t run) const noexcept { return keys + run * (scores.cols() + fan_out + 1); }
  /// The fan_out + 1 best keys of a row, descending; -inf where there are fewer.
  void best_keys(double const* key, double* best) const noexcept {
    std::fill_n(best, fan_out + 1, none);
    for (index_t e = 0; e < scores.cols(); ++e) {
      if (!(key[e] > best[fan_out])) { continue; }
      index_t place = fan_out;
      for (; place > 0 && best[place - 1] < key[e]; --place) { best[place] = best[place - 1]; }
      best[place] = key[e];
    }
  }
  void keys_of_row(index_t token, double* key) const noexcept {
    Score const* const row = scores.row(token);
    for (index_t e = 0; e < scores.cols(); ++e) { key[e] = assignable(row[e]) - prices[e]; }
  }
};

/// Valid tokens, tokens with too few experts, and the range of the scores.
template <class Score>
struct survey_run {
  distributed_pass<Score> pass;
  void operator()(index_t run) const {
    std::int64_t valid = 0, poor = 0;
    double lowest = pass.none, highest = pass.none;  // of -score and of score
    for (index_t t = pass.first(run); t < pass.first(run + 1); ++t) {
      if (!pass.valid(t)) { continue; }
      ++valid;
      index_t usable = 0;
      Score const* const row = pass.scores.row(t);
      for (index_t e = 0; e < pass.scores.cols(); ++e) {
        double const score = assignable(row[e]);
        if (!(score > pass.none)) { continue; }
        ++usable;
        lowest = std::max(lowest, -score);
        highest = std::max(highest, score);
      }
      poor += usable < pass.fan_out ? 1 : 0;
    }
    std::int64_t* const out = pass.found + 4 * run;
    out[0] = valid;
    out[1] = poor;
    out[2] = std::bit_cast<std::int64_t>(lowest);
    out[3] = std::bit_cast<std::int64_t>(highest);
  }
};

/// Each expert gets a share of a token that falls from 1 to 0 around the worth at which the token would leave it.
template <class Score>
struct soft_run {
  distributed_pass<Score> pass;
  double inverse_temperature;
  void operator()(index_t run) const {
    index_t const experts = pass.scores.cols();
    double* const key = pass.keys_of(run);
    double* const best = key + experts;
    std::int64_t* const sums = pass.sums + run * experts;
    std::fill_n(sums, experts, 0);
    for (index_t t = pass.first(run); t < pass.first(run + 1); ++t) {
      if (!pass.valid(t)) { continue; }
      pass.keys_of_row(t, key);
      pass.best_keys(key, best);
      double const next = best[pass.fan_out];
      constexpr double everything = std::numeric_limits<double>::lowest();
      double const edge = next > pass.none ? 0.5 * (best[pass.fan_out - 1] + next) : everything;
      for (index_t e = 0; e < experts; ++e) {
        double const far = (key[e] - edge) * inverse_temperature;
        if (!(far > -22.0)) { continue; }  // below the unit
        sums[e] += far > 22.0 ? static_cast<std::int64_t>(soft_unit) : std::llrint(soft_unit / (1.0 + std::exp(-far)));
      }
    }
  }
};

/// The best experts of each token by (score - price descending, id ascending), and how many copies each expert gets.
template <class Score>
struct choose_run {
  distributed_pass<Score> pass;
  void operator()(index_t run) const {
    index_t const experts = pass.scores.cols();
    double* const key = pass.keys_of(run);
    double* const best = key + experts;
    std::int64_t* const sums = pass.sums + run * experts;
    std::fill_n(sums, experts, 0);
    for (index_t t = pass.first(run); t < pass.first(run + 1); ++t) {
      expert_id* const owner = pass.owner.row(t);
      std::fill_n(owner, pass.fan_out, expert_id::none);
      if (!pass.valid(t)) { continue; }
      pass.keys_of_row(t, key);
      std::fill_n(best, pass.fan_out, pass.none);
      for (index_t e = 0; e < experts; ++e) {
        if (!(key[e] > best[pass.fan_out - 1])) { continue; }
        index_t place = pass.fan_out - 1;
        for (; place > 0 && best[place - 1] < key[e]; --place) {
          best[place] = best[place - 1];
          owner[place] = owner[place - 1];
        }
        best[place] = key[e];
        owner[place] = static_cast<expert_id>(e);
      }
      for (index_t j = 0; j < pass.fan_out; ++j) { ++sums[to_index(owner[j])]; }
    }
  }
};

/// What the cheapest copy of one expert loses by moving to each other one; +inf where none may. Without `best`, 0.
template <class Score>
struct losses_of_expert {
  distributed_pass<Score> pass;
  std::int32_t const* list;
  double* packet;
  bool best;
  void operator()(index_t i) const {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    index_t const experts = pass.scores.cols();
    auto const expert = static_cast<expert_id>(list[i]);
    double* const out = packet + i * experts;
    std::fill_n(out, experts, infinity);
    for (index_t t = 0; t < pass.scores.rows(); ++t) {
      expert_id const* const owner = pass.owner.row(t);
      index_t held = 0;
      while (held < pass.fan_out && owner[held] != expert) { ++held; }
      if (held == pass.fan_out) { continue; }
      Score const* const row = pass.scores.row(t);
      double const own = assignable(row[to_index(expert)]);
      for (index_t f = 0; f < experts; ++f) {
        // Experts that the token holds are no targets; a token of one expert is stopped by the line after the loop.
        if (pass.fan_out > 1 && holds(owner, static_cast<expert_id>(f))) { continue; }
        double const score = assignable(row[f]);
        double const loss = best ? own - score : (score > pass.none ? 0.0 : infinity);
        out[f] = loss < out[f] ? loss : out[f];
      }
    }
    out[to_index(expert)] = infinity;
  }
  [[nodiscard]] bool holds(expert_id const* owner, expert_id expert) const noexcept {
    return std::find(owner, owner + pass.fan_out, expert) != owner + pass.fan_out;
  }
};

/// Copies that lose no more than the cheapest on the arcs of the chosen paths. Each expert is the tail of one arc at
/// most and the head of one at most, and a token is judged by what it held before any of its copies moved.
template <class Score>
struct tied_copies {
  distributed_pass<Score> pass;
  double const* rows;
  std::int32_t const* next;  // head of the arc that leaves an expert, -1 = none
  std::int32_t const* tail;  // number of that arc
  expert_id* before;         // fan_out
  bool best;

  [[nodiscard]] bool tied(index_t token, expert_id held) const noexcept {
    index_t const from = to_index(held);
    std::int32_t const to = next[from];
    if (to < 0) { return false; }
    for (index_t j = 0; j < pass.fan_out; ++j) {
      if (before[j] == static_cast<expert_id>(to)) { return false; }
    }
    double const score = assignable(pass.scores(token, to));
    if (!best) { return score > pass.none; }
    return assignable(pass.scores(token, from)) - score == rows[from * pass.scores.cols() + to];
  }
  /// Calls `visit(place, owner)` for every tied copy, in token order.
  template <class Visitor>
  void for_each(Visitor visit) const {
    for (index_t t = 0; t < pass.scores.rows(); ++t) {
      expert_id* const owner = pass.owner.row(t);
      if (!pass.valid(t)) { continue; }
      std::copy_n(owner, pass.fan_out, before);
      for (index_t j = 0; j < pass.fan_out; ++j) {
        if (tied(t, before[j])) { visit(owner, j); }
      }
    }
  }
  void count(std::int64_t* counts) const {
    for_each([&](expert_id const*, index_t j) { ++counts[tail[to_index(before[j])]]; });
  }
  /// Moves the first `take[expert]` copies of each arc; marks the experts of every token that moved.
  void move(std::int64_t* take, std::int32_t* dirty) const {
    for_each([&](expert_id* owner, index_t j) {
      index_t const from = to_index(before[j]);
      if (take[from] == 0) { return; }
      --take[from];
      owner[j] = static_cast<expert_id>(next[from]);
      for (index_t i = 0; i < pass.fan_out; ++i) { dirty[to_index(owner[i])] = 1; }
    });
  }
};

/// Orders the owners by (score - price descending, id ascending); sums their scores, and the best keys of every token.
template <class Score>
struct certify_run {
  distributed_pass<Score> pass;
  void operator()(index_t run) const {
    index_t const experts = pass.scores.cols();
    double* const key = pass.keys_of(run);
    double* const best = key + experts;
    double value = 0.0, bound = 0.0;
    for (index_t t = pass.first(run); t < pass.first(run + 1); ++t) {
      expert_id* const owner = pass.owner.row(t);
      if (!pass.valid(t)) {
        std::fill_n(owner, pass.fan_out, expert_id::none);
        continue;
      }
      pass.keys_of_row(t, key);
      pass.best_keys(key, best);
      for (index_t j = 0; j < pass.fan_out; ++j) {
        bound += best[j];
        expert_id const one = owner[j];
        index_t place = j;
        for (; place > 0 && ranks_before(key, one, owner[place - 1]); --place) { owner[place] = owner[place - 1]; }
        owner[place] = one;
      }
      for (index_t j = 0; j < pass.fan_out; ++j) { value += assignable(pass.scores(t, to_index(owner[j]))); }
    }
    pass.found[4 * run] = std::bit_cast<std::int64_t>(value);
    pass.found[4 * run + 1] = std::bit_cast<std::int64_t>(bound);
  }
  [[nodiscard]] static bool ranks_before(double const* key, expert_id a, expert_id b) noexcept {
    double const left = key[to_index(a)], right = key[to_index(b)];
    return left > right || (left == right && a < b);
  }
};

template <class Score>
struct clear_owners {
  distributed_pass<Score> pass;
  void operator()(index_t run) const {
    for (index_t t = pass.first(run); t < pass.first(run + 1); ++t) {
      std::fill_n(pass.owner.row(t), pass.fan_out, expert_id::none);
    }
  }
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
