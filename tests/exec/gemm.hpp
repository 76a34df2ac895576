// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <fairlead/concepts/gemm.hpp>
#include <fairlead/core/philox.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace exec_test {

using fairlead::index_t;
using fairlead::transpose;

// One product against a double triple loop: strides wider than the matrices, nothing written between the rows.
template <class Value, class Gemm, class Backend>
std::string product(Gemm const& gemm, Backend const& on, transpose op_a, transpose op_b, index_t m, index_t n, index_t k,
                    double alpha, double beta) {
  index_t const a_rows = op_a == transpose::no ? m : k, a_cols = op_a == transpose::no ? k : m, a_stride = a_cols + 3;
  index_t const b_rows = op_b == transpose::no ? k : n, b_cols = op_b == transpose::no ? n : k, b_stride = b_cols + 1;
  index_t const c_stride = n + 2;
  auto const random = [](index_t size, std::uint64_t stream) {
    std::vector<Value> values(static_cast<std::size_t>(size) + 1);
    for (std::size_t i = 0; i < values.size(); ++i) { values[i] = static_cast<Value>(fairlead::philox::normal(3, stream, i)); }
    return values;
  };
  std::vector<Value> const a = random(a_rows * a_stride, 1), b = random(b_rows * b_stride, 2);
  std::vector<Value> c = random(m * c_stride, 3);
  std::vector<Value> const before = c;
  if (beta == 0.0) {  // what is not to be read
    for (index_t i = 0; i < m; ++i) {
      std::fill_n(c.begin() + i * c_stride, n, std::numeric_limits<Value>::quiet_NaN());
    }
  }
  gemm.multiply(on, op_a, op_b, static_cast<Value>(alpha), {a.data(), a_rows, a_cols, a_stride},
                {b.data(), b_rows, b_cols, b_stride}, static_cast<Value>(beta),
                fairlead::matrix_view<Value>{c.data(), m, n, c_stride});
  double const unit = static_cast<double>(std::numeric_limits<Value>::epsilon());
  for (index_t i = 0; i < m; ++i) {
    for (index_t j = 0; j < c_stride; ++j) {
      auto const at = static_cast<std::size_t>(i * c_stride + j);
      if (j >= n) {
        if (c[at] != before[at]) { return "wrote between rows"; }
        continue;
      }
      double sum = 0.0, size = 1.0;
      for (index_t p = 0; p < k; ++p) {
        index_t const left = op_a == transpose::no ? i * a_stride + p : p * a_stride + i;
        index_t const right = op_b == transpose::no ? p * b_stride + j : j * b_stride + p;
        double const term = static_cast<double>(a[static_cast<std::size_t>(left)]) *
                            static_cast<double>(b[static_cast<std::size_t>(right)]);
        sum += term;
        size += std::abs(term);
      }
      double const exact = alpha * sum + (beta == 0.0 ? 0.0 : beta * static_cast<double>(before[at]));
      double const bound = 4.0 * unit * static_cast<double>(k + 4) * (std::abs(alpha) * size + std::abs(beta) * 8.0);
      if (!(std::abs(static_cast<double>(c[at]) - exact) <= bound)) {
        return "element (" + std::to_string(i) + ", " + std::to_string(j) + ") differs";
      }
    }
  }
  return "equal";
}

// Every combination of transposes, of sizes around the tile and of factors.
template <class Value, class Gemm, class Backend>
std::string all_products(Gemm const& gemm, Backend const& on) {
  std::array<std::array<index_t, 3>, 14> const shapes{{{0, 3, 4}, {3, 0, 4}, {3, 4, 0}, {1, 1, 1}, {1, 40, 3}, {5, 1, 9}, {6, 16, 8},
                                                       {12, 32, 7}, {13, 33, 257}, {11, 31, 255}, {25, 100, 20},
                                                       {2, 700, 3}, {70, 9, 600}, {7, 5, 513}}};
  for (transpose const op_a : {transpose::no, transpose::yes}) {
    for (transpose const op_b : {transpose::no, transpose::yes}) {
      for (auto const [m, n, k] : shapes) {
        for (auto const [alpha, beta] : {std::array<double, 2>{1.0, 0.0}, {1.0, 1.0}, {-0.5, 2.0}, {0.0, 0.5}}) {
          std::string const result = product<Value>(gemm, on, op_a, op_b, m, n, k, alpha, beta);
          if (result != "equal") {
            return result + " in " + std::to_string(m) + " x " + std::to_string(n) + " x " + std::to_string(k) +
                   " alpha " + std::to_string(alpha) + " beta " + std::to_string(beta);
          }
        }
      }
    }
  }
  return "equal";
}

}  // namespace exec_test
