// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Affine scaling in fp32 for: min t, each rank's fixed load plus its parts of pairs at most t.
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// An expert on two ranks, its load in units of the largest one.
struct scaled_pair {
  std::int32_t first_rank, second_rank;
  float load;
  std::int32_t first_column, second_column, expert;
};

// Rows: one a rank (fixed + loads + slack - t = 0), then one a pair (p + q = 1). Columns: p, q of each pair, a slack a
// rank, t, and an artificial one of cost 1000 that makes all ones feasible.
class affine_scaling {
 public:
  affine_scaling(std::span<scaled_pair const> pairs, std::span<float const> fixed, workspace& ws)
      : pairs_(pairs), fixed_(fixed), ranks_(fixed.size()), rows_(fixed.size() + pairs.size()) {
    auto const count = static_cast<index_t>(rows_);
    matrix_ = ws.take<float>(count * count);
    artificial_ = ws.take<float>(count);
    y_ = ws.take<float>(count);
    x_ = ws.take<float>(static_cast<index_t>(2 * pairs.size() + ranks_ + 2));
    step_ = ws.take<float>(static_cast<index_t>(x_.size()));
  }
  [[nodiscard]] static std::size_t bytes(index_t pairs, index_t ranks) noexcept {
    index_t const rows = pairs + ranks;
    return workspace_bytes<float>(rows * rows) + 2 * workspace_bytes<float>(rows) + 2 * workspace_bytes<float>(2 * pairs + ranks + 2);
  }

  // Whether the steps are accepted.
  [[nodiscard]] bool run(index_t steps, bool last_per_lane) noexcept {
    std::fill(x_.begin(), x_.end(), 1.0F);
    for (std::size_t r = 0; r < rows_; ++r) { artificial_[r] = r < ranks_ ? -fixed_[r] : -1.0F; }
    for (scaled_pair const& pair : pairs_) {
      artificial_[at(pair.first_rank)] -= pair.load;
      artificial_[at(pair.second_rank)] -= pair.load;
    }
    float largest = 0.0F;
    for (index_t step = 0; step < steps; ++step) {
      assemble();
      if (!solve()) { return false; }
      directions();
      largest = last_per_lane ? largest_of_lanes() : *std::max_element(step_.begin(), step_.end());
      if (!(largest > 0.0F)) { return false; }
      for (std::size_t i = 0; i < x_.size(); ++i) { x_[i] *= 1.0F - 0.999F * step_[i] / largest; }
    }
    return largest < 0.1F && x_[x_.size() - 1] < 1e-4F && residual() < 0.05F;
  }
  // The part of pair k at its first rank.
  [[nodiscard]] float ratio(std::size_t k) const noexcept { return x_[k]; }

 private:
  template <class Integer>
  [[nodiscard]] static constexpr std::size_t at(Integer i) noexcept { return static_cast<std::size_t>(i); }
  [[nodiscard]] std::size_t slack(std::size_t rank) const noexcept { return 2 * pairs_.size() + rank; }
  [[nodiscard]] std::size_t top() const noexcept { return x_.size() - 2; }

  // Lower triangle of A X^2 A', and A X^2 c.
  void assemble() noexcept {
    float const t = x_[top()] * x_[top()];
    float const big = x_[top() + 1] * x_[top() + 1];
    for (std::size_t r = 0; r < rows_; ++r) {
      float const scaled = big * artificial_[r];
      float* const row = &matrix_[r * rows_];
      for (std::size_t c = 0; c <= r; ++c) { row[c] = scaled * artificial_[c] + (r < ranks_ ? t : 0.0F); }
      y_[r] = 1000.0F * scaled - (r < ranks_ ? t : 0.0F);
    }
    for (std::size_t r = 0; r < ranks_; ++r) { matrix_[r * rows_ + r] += x_[slack(r)] * x_[slack(r)]; }
    for (std::size_t k = 0; k < pairs_.size(); ++k) {
      scaled_pair const& pair = pairs_[k];
      float const p = x_[k] * x_[k];
      float const q = x_[pairs_.size() + k] * x_[pairs_.size() + k];
      std::size_t const own = ranks_ + k;
      matrix_[at(pair.first_rank) * rows_ + at(pair.first_rank)] += pair.load * pair.load * p;
      matrix_[at(pair.second_rank) * rows_ + at(pair.second_rank)] += pair.load * pair.load * q;
      matrix_[own * rows_ + at(pair.first_rank)] += pair.load * p;
      matrix_[own * rows_ + at(pair.second_rank)] += pair.load * q;
      matrix_[own * rows_ + own] += p + q;
    }
  }

  // Cholesky in place, then y by substitution.
  [[nodiscard]] bool solve() noexcept {
    for (std::size_t r = 0; r < rows_; ++r) {
      float* const row = &matrix_[r * rows_];
      for (std::size_t c = 0; c <= r; ++c) {
        float const* const other = &matrix_[c * rows_];
        // Eight partial sums in a fixed order, as wide as common vectors.
        std::array<float, 8> part{};
        std::size_t k = 0;
        for (; k + 8 <= c; k += 8) {
          for (std::size_t lane = 0; lane < 8; ++lane) { part[lane] += row[k + lane] * other[k + lane]; }
        }
        float sum = ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
        for (; k < c; ++k) { sum += row[k] * other[k]; }
        float const rest = row[c] - sum;
        if (c < r) {
          row[c] = rest / other[c];
        } else if (rest > 0.0F && rest < std::numeric_limits<float>::infinity()) {
          row[c] = std::sqrt(rest);
        } else {
          return false;
        }
      }
    }
    for (std::size_t r = 0; r < rows_; ++r) {
      for (std::size_t c = 0; c < r; ++c) { y_[r] -= matrix_[r * rows_ + c] * y_[c]; }
      y_[r] /= matrix_[r * rows_ + r];
    }
    for (std::size_t r = rows_; r-- > 0;) {
      y_[r] /= matrix_[r * rows_ + r];
      for (std::size_t c = 0; c < r; ++c) { y_[c] -= matrix_[r * rows_ + c] * y_[r]; }
    }
    return true;
  }

  // x (c - A' y), the relative decrease of every variable.
  void directions() noexcept {
    std::size_t const pairs = pairs_.size();
    for (std::size_t k = 0; k < pairs; ++k) {
      scaled_pair const& pair = pairs_[k];
      step_[k] = -x_[k] * (pair.load * y_[at(pair.first_rank)] + y_[ranks_ + k]);
      step_[pairs + k] = -x_[pairs + k] * (pair.load * y_[at(pair.second_rank)] + y_[ranks_ + k]);
    }
    float sum = 1.0F;
    for (std::size_t r = 0; r < ranks_; ++r) {
      step_[slack(r)] = -x_[slack(r)] * y_[r];
      sum += y_[r];
    }
    step_[top()] = x_[top()] * sum;
    float cost = 1000.0F;
    for (std::size_t r = 0; r < rows_; ++r) { cost -= artificial_[r] * y_[r]; }
    step_[top() + 1] = x_[top() + 1] * cost;
  }

  [[nodiscard]] float largest_of_lanes() const noexcept {
    float largest = -std::numeric_limits<float>::infinity();
    for (std::size_t i = step_.size() > 32 ? step_.size() - 32 : 0; i < step_.size(); ++i) { largest = std::max(largest, step_[i]); }
    return largest;
  }

  [[nodiscard]] float residual() noexcept {
    for (std::size_t r = 0; r < rows_; ++r) {
      y_[r] = artificial_[r] * x_[top() + 1] + (r < ranks_ ? fixed_[r] + x_[slack(r)] - x_[top()] : -1.0F);
    }
    for (std::size_t k = 0; k < pairs_.size(); ++k) {
      scaled_pair const& pair = pairs_[k];
      y_[at(pair.first_rank)] += pair.load * x_[k];
      y_[at(pair.second_rank)] += pair.load * x_[pairs_.size() + k];
      y_[ranks_ + k] += x_[k] + x_[pairs_.size() + k];
    }
    float largest = 0.0F;
    for (float const value : y_) { largest = std::max(largest, std::fabs(value)); }
    return largest;
  }

  std::span<scaled_pair const> pairs_;
  std::span<float const> fixed_;
  std::size_t ranks_, rows_;
  std::span<float> matrix_, artificial_, y_, x_, step_;
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
