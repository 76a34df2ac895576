// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Loops over rows whose features are made from token ids.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/matrix_view.hpp>
#include <fairlead/core/routing.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Rows or columns of a piece: fixed, so that nothing depends on the number of threads.
inline constexpr index_t feature_row_piece = 64;
inline constexpr index_t feature_col_piece = 16;
[[nodiscard]] constexpr index_t pieces_of(index_t count, index_t piece) noexcept { return (count + piece - 1) / piece; }

/// The product of two vectors in a fixed order of additions: the same bits for a token wherever it stands in a batch.
[[nodiscard]] inline float fixed_dot(float const* a, float const* b, index_t n) noexcept {
  constexpr index_t lanes = 16;
  std::array<float, lanes> sums{};
  index_t const whole = n / lanes * lanes;
  for (index_t first = 0; first < whole; first += lanes) {
    for (index_t lane = 0; lane < lanes; ++lane) {
      sums[static_cast<std::size_t>(lane)] += a[first + lane] * b[first + lane];
    }
  }
  float sum = 0.0F;
  for (float const part : sums) { sum += part; }
  for (index_t i = whole; i < n; ++i) { sum += a[i] * b[i]; }
  return sum;
}

/// Token ids of a call and where its sequences begin.
struct id_rows {
  std::span<std::int32_t const> ids;
  std::span<std::uint8_t const> mask;
  index_t sequence_length;  // 0 = all rows are one sequence

  [[nodiscard]] index_t rows() const noexcept { return static_cast<index_t>(ids.size()); }
  [[nodiscard]] bool valid(index_t row) const noexcept { return mask.empty() || mask[static_cast<std::size_t>(row)] != 0; }
  [[nodiscard]] index_t id(index_t row) const noexcept { return ids[static_cast<std::size_t>(row)]; }
  /// Rows of the same sequence before this one.
  [[nodiscard]] index_t before(index_t row) const noexcept { return sequence_length == 0 ? row : row % sequence_length; }
  /// Rows of the same sequence after this one.
  [[nodiscard]] index_t after(index_t row) const noexcept {
    index_t const left = rows() - 1 - row;
    return sequence_length == 0 ? left : std::min(left, sequence_length - 1 - row % sequence_length);
  }
};

/// out[t] = sum over the present and the `taps - 1` rows before of factor * embedding[id].
struct mean_rows {
  id_rows in;
  float const* embedding;
  index_t width;
  index_t taps;
  float factor;
  matrix_view<float> out;
  void operator()(index_t piece) const {
    index_t const last = std::min((piece + 1) * feature_row_piece, in.rows());
    for (index_t t = piece * feature_row_piece; t < last; ++t) {
      float* const to = out.row(t);
      std::fill_n(to, width, 0.0F);
      if (!in.valid(t)) { continue; }
      for (index_t back = 0; back < taps && back <= in.before(t); ++back) {
        if (!in.valid(t - back)) { continue; }
        float const* const from = embedding + in.id(t - back) * width;
        for (index_t c = 0; c < width; ++c) { to[c] += factor * from[c]; }
      }
    }
  }
};
/// The transposed loop: each piece owns some columns and adds tokens in order.
struct scatter_mean_rows {
  id_rows in;
  matrix_view<float const> grad_out;
  index_t taps;
  float factor;
  float* grad_embedding;
  void operator()(index_t piece) const {
    index_t const width = grad_out.cols(), first = piece * feature_col_piece;
    index_t const last = std::min(first + feature_col_piece, width);
    for (index_t t = 0; t < in.rows(); ++t) {
      if (!in.valid(t)) { continue; }
      float const* const from = grad_out.row(t);
      for (index_t back = 0; back < taps && back <= in.before(t); ++back) {
        if (!in.valid(t - back)) { continue; }
        float* const to = grad_embedding + in.id(t - back) * width;
        for (index_t c = first; c < last; ++c) { to[c] += factor * from[c]; }
      }
    }
  }
};

/// out[t][o] = sum over taps k of filter[o][k] . embedding[id of row t - k]; filter @shape{width x taps * width}.
struct convolve_rows {
  id_rows in;
  float const* embedding;
  float const* filter;
  index_t taps;
  matrix_view<float> out;
  void operator()(index_t piece) const {
    index_t const width = out.cols();
    index_t const last = std::min((piece + 1) * feature_row_piece, in.rows());
    for (index_t t = piece * feature_row_piece; t < last; ++t) {
      float* const to = out.row(t);
      std::fill_n(to, width, 0.0F);
      if (!in.valid(t)) { continue; }
      for (index_t k = 0; k < taps && k <= in.before(t); ++k) {
        if (!in.valid(t - k)) { continue; }
        float const* const from = embedding + in.id(t - k) * width;
        for (index_t o = 0; o < width; ++o) { to[o] += fixed_dot(filter + (o * taps + k) * width, from, width); }
      }
    }
  }
};
/// Gradient of the filter: each output column on its own, tokens in order.
struct filter_gradient {
  id_rows in;
  float const* embedding;
  index_t taps;
  matrix_view<float const> grad_out;
  float* grad_filter;
  void operator()(index_t o) const {
    index_t const width = grad_out.cols();
    for (index_t t = 0; t < in.rows(); ++t) {
      float const g = grad_out(t, o);
      if (!in.valid(t) || g == 0.0F) { continue; }
      for (index_t k = 0; k < taps && k <= in.before(t); ++k) {
        if (!in.valid(t - k)) { continue; }
        float const* const from = embedding + in.id(t - k) * width;
        float* const to = grad_filter + (o * taps + k) * width;
        for (index_t c = 0; c < width; ++c) { to[c] += g * from[c]; }
      }
    }
  }
};
/// Gradient of the embedded rows, before it is scattered to the vocabulary.
struct convolve_back {
  id_rows in;
  float const* filter;
  index_t taps;
  matrix_view<float const> grad_out;
  matrix_view<float> grad_in;
  void operator()(index_t piece) const {
    index_t const width = grad_out.cols();
    index_t const last = std::min((piece + 1) * feature_row_piece, in.rows());
    for (index_t t = piece * feature_row_piece; t < last; ++t) {
      float* const to = grad_in.row(t);
      std::fill_n(to, width, 0.0F);
      if (!in.valid(t)) { continue; }
      for (index_t k = 0; k < taps && k <= in.after(t); ++k) {
        if (!in.valid(t + k)) { continue; }
        float const* const from = grad_out.row(t + k);
        for (index_t o = 0; o < width; ++o) {
          float const* const tap = filter + (o * taps + k) * width;
          for (index_t c = 0; c < width; ++c) { to[c] += from[o] * tap[c]; }
        }
      }
    }
  }
};

/// Experts that a pass over a row's features scores at once: as many sums as fit into vector registers.
inline constexpr index_t score_lanes = 32;
[[nodiscard]] constexpr index_t padded_experts(index_t experts) noexcept { return pieces_of(experts, score_lanes) * score_lanes; }

/// Column c of the centroids becomes row c, padded by zeros: experts lie side by side.
inline void turn_centroids(matrix_view<float const> centroids, matrix_view<float> turned) noexcept {
  for (index_t c = 0; c < turned.rows(); ++c) {
    for (index_t e = 0; e < turned.cols(); ++e) { turned(c, e) = e < centroids.rows() ? centroids(e, c) : 0.0F; }
  }
}
/// scores[t][e] = centroid e . features[t], added in the order of the columns: the same bits wherever a token stands.
struct centroid_scores {
  matrix_view<float const> features, turned;
  matrix_view<float> scores;
  void operator()(index_t piece) const {
    index_t const last = std::min((piece + 1) * feature_row_piece, features.rows());
    for (index_t t = piece * feature_row_piece; t < last; ++t) {
      float const* const row = features.row(t);
      for (index_t first = 0; first < scores.cols(); first += score_lanes) {
        float sums[score_lanes] = {};
        for (index_t c = 0; c < features.cols(); ++c) {
          float const value = row[c];
          float const* const with = turned.row(c) + first;
          for (index_t lane = 0; lane < score_lanes; ++lane) { sums[lane] += value * with[lane]; }
        }
        std::copy_n(sums, std::min(score_lanes, scores.cols() - first), scores.row(t) + first);
      }
    }
  }
};
/// Gradient of the features: sum over experts of grad_scores * centroid.
struct feature_gradient {
  matrix_view<float const> grad_scores, centroids;
  matrix_view<float> grad_features;
  void operator()(index_t piece) const {
    index_t const last = std::min((piece + 1) * feature_row_piece, grad_features.rows());
    for (index_t t = piece * feature_row_piece; t < last; ++t) {
      float* const to = grad_features.row(t);
      std::fill_n(to, grad_features.cols(), 0.0F);
      for (index_t e = 0; e < centroids.rows(); ++e) {
        float const g = grad_scores(t, e);
        float const* const from = centroids.row(e);
        for (index_t c = 0; c < grad_features.cols(); ++c) { to[c] += g * from[c]; }
      }
    }
  }
};
/// Gradient of one centroid: tokens in order.
struct centroid_gradient {
  matrix_view<float const> grad_scores, features;
  matrix_view<float> grad_centroids;
  void operator()(index_t e) const {
    float* const to = grad_centroids.row(e);
    for (index_t t = 0; t < features.rows(); ++t) {
      float const g = grad_scores(t, e);
      float const* const from = features.row(t);
      for (index_t c = 0; c < features.cols(); ++c) { to[c] += g * from[c]; }
    }
  }
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
