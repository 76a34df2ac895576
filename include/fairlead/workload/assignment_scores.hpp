// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Scores that assignment solvers are timed and compared on: six kinds, all on a grid of 2^-16.
#include <fairlead/core/bfloat16.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/workload/zipf.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace workload {

/// @brief The kinds of scores.
enum class score_kind {
  normal,   ///< independent standard normal numbers: almost balanced from the start
  cluster,  ///< 64-d tokens around 4 x experts centres of Zipf-1.1 popularity, dotted with random expert embeddings
  ties,     ///< independent integers 0 ... 7: most tokens are indifferent between several experts
  same,     ///< every token ranks the experts alike: a_t (experts - e) / experts + 0.001 noise, a_t uniform in (0, 1)
  token,    ///< a row for each of 5000 token ids of Zipf-1 popularity: identical rows, which no prices can split
  rounded   ///< `cluster` rounded to bfloat16: near ties everywhere
};

/// Every kind, in order.
inline constexpr std::array<score_kind, 6> all_score_kinds = {score_kind::normal, score_kind::cluster,
                                                              score_kind::ties,   score_kind::same,
                                                              score_kind::token,  score_kind::rounded};

/// @brief The name of a kind, for messages and benches.
/// @param kind the kind
/// @returns its enumerator as text
[[nodiscard]] constexpr std::string_view name(score_kind kind) noexcept {
  constexpr std::array<std::string_view, 6> names = {"normal", "cluster", "ties", "same", "token", "rounded"};
  return names[static_cast<std::size_t>(kind)];
}

/// @brief Describe the scores of an assignment problem.
///
/// Every score is a multiple of 2^-16 below 2^7 in size, exact in fp32 (`rounded` in bfloat16 too: rounding to 8
/// significant bits keeps an integer multiple an integer multiple). A solver that works on integers, given
/// `score * score_scale`, therefore has the same optimum, not a near one.
struct assignment_scores {
  index_t tokens = 0;                    ///< number of rows, >= 0
  index_t experts = 0;                   ///< number of columns, >= 0
  score_kind kind = score_kind::normal;  ///< what the rows are like
  std::uint64_t seed = 0;                ///< names the numbers
  index_t first_token = 0;               ///< global number of row 0, >= 0: ranks hold parts of one whole

  /// Scores times this are integers.
  static constexpr double score_scale = 65536.0;

  /// @brief Draw the scores.
  /// @returns the matrix @shape{tokens x experts}
  /// @throws contract_violation (level 1) on a negative size; std::bad_alloc
  /// @complexity O(tokens x experts) time, `cluster` 64 times that; allocates
  /// @determinism a function of (kind, seed, experts, global row) for a given libm
  [[nodiscard]] matrix<float> make() const {
    FAIRLEAD_EXPECTS(tokens >= 0 && experts >= 0 && first_token >= 0, "sizes must not be negative", tokens, experts,
                     first_token);
    matrix<float> result(tokens, experts);
    drawer const rows(*this);
    for (index_t t = 0; t < tokens; ++t) { rows.draw(first_token + t, 0, result.view().row(t)); }
    return result;
  }

  /// @brief Draw some rows anew from the same distribution: what a training step later looks like to warm prices.
  /// @param[in,out] scores what `make()` returned, or anything of its shape. @shape{tokens x experts}
  /// @param fraction share of the rows to draw anew, 0 ... 1; their number is rounded to the nearest integer
  /// @param draw names the rows and their numbers; 0 is taken by `make()`
  /// @returns number of rows drawn
  /// @throws contract_violation (level 1) on a wrong shape, fraction or draw; std::bad_alloc
  /// @complexity O(tokens + rows drawn x experts), allocates
  /// @determinism as `make()`
  index_t redraw_rows(matrix_view<float> scores, double fraction, std::uint64_t draw) const {
    FAIRLEAD_EXPECTS(scores.rows() == tokens && scores.cols() == experts, "the scores must have the described shape",
                     scores.rows(), scores.cols());
    FAIRLEAD_EXPECTS(fraction >= 0.0 && fraction <= 1.0 && draw > 0, "a fraction in 0 ... 1 and a draw above 0",
                     fraction, draw);
    auto const order = shuffled_ids(tokens, seed ^ (draw << 20U));
    auto const count = static_cast<index_t>(std::lround(fraction * static_cast<double>(tokens)));
    drawer const rows(*this);
    for (index_t i = 0; i < count; ++i) {
      index_t const t = order[static_cast<std::size_t>(i)];
      rows.draw(first_token + t, draw, scores.row(t));
    }
    return count;
  }

 private:
  static constexpr index_t width = 64;
  static constexpr index_t vocabulary = 5000;
  static constexpr double noise = 0.5;

  /// What all rows share: the centres' popularity and places, the experts' embeddings.
  class drawer {
   public:
    explicit drawer(assignment_scores const& what) : what_(what) {
      bool const clusters = what.kind == score_kind::cluster || what.kind == score_kind::rounded;
      if (!clusters && what.kind != score_kind::token) { return; }
      index_t const ids = clusters ? 4 * what.experts : vocabulary;
      sums_ = zipf_shares(ids, clusters ? 1.1 : 1.0);
      for (std::size_t i = 1; i < sums_.size(); ++i) { sums_[i] += sums_[i - 1]; }
      if (!clusters) { return; }
      centres_.resize(static_cast<std::size_t>(ids * width));
      for (std::size_t i = 0; i < centres_.size(); ++i) { centres_[i] = normal(purpose::centre, 0, i); }
      embeddings_.resize(static_cast<std::size_t>(what.experts * width));
      for (std::size_t i = 0; i < embeddings_.size(); ++i) {
        embeddings_[i] = static_cast<std::int32_t>(std::lround(normal(purpose::embedding, 0, i) * 512.0));
      }
    }

    void draw(index_t token, std::uint64_t generation, float* row) const {
      auto const t = static_cast<std::uint64_t>(token) + (generation << 40U);
      index_t const columns = what_.experts;
      auto const count = static_cast<double>(columns);
      switch (what_.kind) {
        case score_kind::normal:
          for (index_t e = 0; e < columns; ++e) { row[e] = on_grid(normal(purpose::row, t, index(e))); }
          return;
        case score_kind::ties:
          for (index_t e = 0; e < columns; ++e) {
            row[e] = static_cast<float>(philox::below(word(purpose::row, t, index(e)), 8));
          }
          return;
        case score_kind::same: {
          double const strength = philox::to_uniform(word(purpose::choice, t, 0));
          for (index_t e = 0; e < columns; ++e) {
            row[e] = on_grid(strength * (count - static_cast<double>(e)) / count +
                             1e-3 * normal(purpose::row, t, index(e)));
          }
          return;
        }
        case score_kind::token: {
          auto const id = static_cast<std::uint64_t>(popular(t));
          for (index_t e = 0; e < columns; ++e) { row[e] = on_grid(normal(purpose::embedding, id, index(e))); }
          return;
        }
        case score_kind::cluster:
        case score_kind::rounded: dotted(t, row); return;
      }
    }

   private:
    enum class purpose : std::uint64_t { row = 1, choice, centre, embedding };

    [[nodiscard]] static std::uint64_t index(index_t e) noexcept { return static_cast<std::uint64_t>(e); }
    [[nodiscard]] static float on_grid(double value) noexcept {
      return static_cast<float>(std::nearbyint(value * score_scale) / score_scale);
    }
    /// Kinds share no numbers, except that `rounded` is `cluster`, rounded.
    [[nodiscard]] std::uint64_t place_of(purpose use, std::uint64_t i) const noexcept {
      score_kind const family = what_.kind == score_kind::rounded ? score_kind::cluster : what_.kind;
      return i + (static_cast<std::uint64_t>(use) << 40U) + (static_cast<std::uint64_t>(family) << 48U);
    }
    [[nodiscard]] std::uint32_t word(purpose use, std::uint64_t stream, std::uint64_t i) const noexcept {
      return philox::draw(what_.seed, stream, place_of(use, i))[0];
    }
    [[nodiscard]] double normal(purpose use, std::uint64_t stream, std::uint64_t i) const noexcept {
      return philox::normal(what_.seed, stream, place_of(use, i));
    }
    [[nodiscard]] index_t popular(std::uint64_t t) const noexcept {
      double const target = (static_cast<double>(word(purpose::choice, t, 0)) + 0.5) * 0x1p-32 * sums_.back();
      auto const place = std::upper_bound(sums_.begin(), sums_.end(), target) - sums_.begin();
      return std::min<index_t>(place, static_cast<index_t>(sums_.size()) - 1);
    }
    /// Coordinates are rounded to 2^-9, so that the products add up exactly, in any order.
    void dotted(std::uint64_t t, float* row) const {
      index_t const columns = what_.experts;
      if (columns == 0) { return; }
      std::array<std::int32_t, width> place{};
      index_t const centre = popular(t);
      for (index_t i = 0; i < width; ++i) {
        auto const at = static_cast<std::size_t>(centre * width + i);
        double const x = centres_[at] + noise * normal(purpose::row, t, index(i));
        place[static_cast<std::size_t>(i)] = static_cast<std::int32_t>(std::lround(x * 512.0));
      }
      for (index_t e = 0; e < columns; ++e) {
        std::int32_t const* const embedding = embeddings_.data() + e * width;
        // At most 64 x (9 x 512) x (7 x 512): far inside 31 bits.
        std::int32_t sum = 0;
        for (std::size_t i = 0; i < place.size(); ++i) { sum += place[i] * embedding[i]; }
        // 2^-18 from the coordinates, 1/8 so that a row has about unit variance.
        float const score = on_grid(static_cast<double>(sum) * 0x1p-21);
        row[e] = what_.kind == score_kind::rounded ? static_cast<float>(bfloat16(score)) : score;
      }
    }

    assignment_scores const& what_;
    std::vector<double> sums_;
    std::vector<double> centres_;
    std::vector<std::int32_t> embeddings_;
  };
};

}  // namespace workload
FAIRLEAD_NAMESPACE_END
