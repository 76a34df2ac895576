// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Loop bodies of the row operations on host memory.
#include <fairlead/core/exchange_plan.hpp>
#include <fairlead/core/matrix_view.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <type_traits>

// clang warns where it was told to vectorise and the flags (-O1, a sanitizer) keep it from doing so.
#if defined(__clang__)
#  pragma clang diagnostic push
#  pragma clang diagnostic ignored "-Wpass-failed"
#endif

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Rows a task of a row loop covers: large enough to hide the hand-out, small enough to balance two threads.
inline constexpr index_t rows_per_task = 32;

template <class Body>
struct block_task {
  Body body;
  index_t rows;
  void operator()(index_t block) const {
    index_t const end = std::min(rows, (block + 1) * rows_per_task);
    for (index_t row = block * rows_per_task; row < end; ++row) { body(row); }
  }
};

/// Runs `body(row)` for each row, a block of rows a task.
template <class Backend, class Body>
void for_blocks(Backend const& on, index_t rows, Body body) {
  on.for_each((rows + rows_per_task - 1) / rows_per_task, block_task<Body>{body, rows});
}

template <class Value>
using row_sum_t = std::conditional_t<std::is_same_v<Value, double>, double, float>;

template <class Value>
struct gather_body {
  index_t divisor;
  matrix_view<Value const> in;
  std::int32_t const* index;
  matrix_view<Value> out;
  void operator()(index_t row) const {
    auto const bytes = static_cast<std::size_t>(out.cols()) * sizeof(Value);
    std::int32_t const source = index[row];
    if (source >= 0) {
      std::memcpy(out.row(row), in.row(divisor == 1 ? source : source / divisor), bytes);
    } else {
      std::memset(static_cast<void*>(out.row(row)), 0, bytes);
    }
  }
};

// The sum over a compile-time number of rows: one pass over the output, terms added in order.
template <int Count, class Value>
inline void weighted_sum(Value const* const* rows, row_sum_t<Value> const* weights, index_t width, Value* out) {
  using sum_t = row_sum_t<Value>;
  std::array<Value const*, Count> row;
  std::array<sum_t, Count> weight;
  for (std::size_t j = 0; j < Count; ++j) {
    row[j] = rows[j];
    weight[j] = weights[j];
  }
#if defined(__clang__)
#  pragma clang loop vectorize(assume_safety)
#else
#  pragma GCC ivdep
#endif
  for (index_t i = 0; i < width; ++i) {
    sum_t sum = weight[0] * static_cast<sum_t>(row[0][i]);
    for (std::size_t j = 1; j < Count; ++j) { sum += weight[j] * static_cast<sum_t>(row[j][i]); }
    out[i] = static_cast<Value>(sum);
  }
}

// More terms than the unrolled versions take: sums of a strip of columns stay in registers or L1.
template <class Value>
struct many_terms {
  static constexpr index_t strip = 64;
  template <class Term>
  static void run(index_t terms, Term term, index_t width, Value* out) {
    using sum_t = row_sum_t<Value>;
    for (index_t first = 0; first < width; first += strip) {
      index_t const count = std::min(strip, width - first);
      std::array<sum_t, strip> sum{};
      for (index_t j = 0; j < terms; ++j) {
        auto const [row, weight] = term(j);
        if (row == nullptr) { continue; }
        for (index_t i = 0; i < count; ++i) { sum[static_cast<std::size_t>(i)] += weight * static_cast<sum_t>(row[first + i]); }
      }
      for (index_t i = 0; i < count; ++i) { out[first + i] = static_cast<Value>(sum[static_cast<std::size_t>(i)]); }
    }
  }
};

template <class Value>
struct combine_body {
  matrix_view<Value const> rows;
  matrix_view<std::int32_t const> index;
  matrix_view<float const> weights;
  matrix_view<Value const> own;
  matrix_view<Value> out;

  struct term {
    Value const* row;
    row_sum_t<Value> weight;
  };
  [[nodiscard]] term at(index_t token, index_t j) const {
    std::int32_t const row = index(token, j);
    if (row == no_row || (row == own_row && own.empty())) { return {nullptr, {}}; }
    return {row == own_row ? own.row(token) : rows.row(row),
            weights.empty() ? row_sum_t<Value>{1} : static_cast<row_sum_t<Value>>(weights(token, j))};
  }

  void operator()(index_t token) const {
    constexpr std::size_t unrolled = 8;
    index_t const width = out.cols();
    Value* const to = out.row(token);
    std::array<Value const*, unrolled> source;
    std::array<row_sum_t<Value>, unrolled> weight;
    std::size_t terms = 0;
    for (index_t j = 0; j < index.cols(); ++j) {
      term const next = at(token, j);
      if (next.row == nullptr) { continue; }
      if (terms == unrolled) {
        many_terms<Value>::run(index.cols(), [this, token](index_t i) { return at(token, i); }, width, to);
        return;
      }
      source[terms] = next.row;
      weight[terms] = next.weight;
      ++terms;
    }
    switch (terms) {
      case 0: std::memset(static_cast<void*>(to), 0, static_cast<std::size_t>(width) * sizeof(Value)); break;
      case 1: weighted_sum<1>(source.data(), weight.data(), width, to); break;
      case 2: weighted_sum<2>(source.data(), weight.data(), width, to); break;
      case 3: weighted_sum<3>(source.data(), weight.data(), width, to); break;
      case 4: weighted_sum<4>(source.data(), weight.data(), width, to); break;
      case 5: weighted_sum<5>(source.data(), weight.data(), width, to); break;
      case 6: weighted_sum<6>(source.data(), weight.data(), width, to); break;
      case 7: weighted_sum<7>(source.data(), weight.data(), width, to); break;
      default: weighted_sum<8>(source.data(), weight.data(), width, to); break;
    }
  }
};

// Lanes of partial sums in a fixed order: vectorisable without reassociation by the compiler, equal bits everywhere.
template <class Value>
[[nodiscard]] inline row_sum_t<Value> ordered_dot(Value const* a, Value const* b, index_t width) {
  using sum_t = row_sum_t<Value>;
  constexpr index_t lanes = 32;
  std::array<sum_t, lanes> partial{};
  index_t i = 0;
  for (; i + lanes <= width; i += lanes) {
    for (index_t l = 0; l < lanes; ++l) {
      partial[static_cast<std::size_t>(l)] += static_cast<sum_t>(a[i + l]) * static_cast<sum_t>(b[i + l]);
    }
  }
  for (index_t l = 0; i < width; ++i, ++l) {
    partial[static_cast<std::size_t>(l)] += static_cast<sum_t>(a[i]) * static_cast<sum_t>(b[i]);
  }
  for (index_t half = lanes / 2; half > 0; half /= 2) {
    for (index_t l = 0; l < half; ++l) { partial[static_cast<std::size_t>(l)] += partial[static_cast<std::size_t>(l + half)]; }
  }
  return partial[0];
}

template <class Value>
struct combine_backward_body {
  matrix_view<Value const> grad_out;
  matrix_view<std::int32_t const> index;
  matrix_view<float const> weights;
  matrix_view<Value const> own;
  matrix_view<Value> rows;
  matrix_view<float> grad_weights;
  void operator()(index_t token) const {
    using sum_t = row_sum_t<Value>;
    index_t const width = grad_out.cols();
    Value const* const grad = grad_out.row(token);
    for (index_t j = 0; j < index.cols(); ++j) {
      std::int32_t const at = index(token, j);
      float dot = 0.0F;
      if (at >= 0) {
        Value* const row = rows.row(at);
        dot = static_cast<float>(ordered_dot<Value>(grad, row, width));
        auto const weight = static_cast<sum_t>(weights(token, j));
#if defined(__clang__)
#  pragma clang loop vectorize(assume_safety)
#else
#  pragma GCC ivdep
#endif
        for (index_t i = 0; i < width; ++i) { row[i] = static_cast<Value>(weight * static_cast<sum_t>(grad[i])); }
      } else if (at == own_row) {
        dot = static_cast<float>(ordered_dot<Value>(grad, own.row(token), width));
      }
      grad_weights(token, j) = dot;
    }
  }
};

template <class Value>
struct add_own_body {
  matrix_view<Value const> grad_out;
  matrix_view<std::int32_t const> index;
  matrix_view<float const> weights;
  matrix_view<Value> out;
  void operator()(index_t token) const {
    using sum_t = row_sum_t<Value>;
    sum_t weight{0};
    for (index_t j = 0; j < index.cols(); ++j) {
      if (index(token, j) == own_row) { weight += static_cast<sum_t>(weights(token, j)); }
    }
    if (weight == sum_t{0}) { return; }
    Value const* const grad = grad_out.row(token);
    Value* const to = out.row(token);
    for (index_t i = 0; i < out.cols(); ++i) {
      to[i] = static_cast<Value>(static_cast<sum_t>(to[i]) + weight * static_cast<sum_t>(grad[i]));
    }
  }
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END

#if defined(__clang__)
#  pragma clang diagnostic pop
#endif
