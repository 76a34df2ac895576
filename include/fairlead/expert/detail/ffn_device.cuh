// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The device text of dense and gated feed-forward experts.
#include <fairlead/cuda/ffn.cuh>
#include <fairlead/cuda/memory.cuh>
#include <fairlead/expert/detail/ffn_text.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// @brief Queues the products and the kernels between them, group after group. A group is cut into pieces of as many
/// rows as the workspace holds, so that any workspace the host text accepts will do; sums over the rows of a group run
/// piece after piece.
template <index_t Streams, class Value, class Activation, class Gemm>
struct ffn_device {
  ffn_text<Streams, Value, Activation, Gemm> text;

  template <class Backend>
  void forward(Backend const& on, std::span<Value const* const> parameters, row_groups groups,
               matrix_view<Value const> in, matrix_view<Value> kept, matrix_view<Value> out, workspace& ws) const {
    text.check(parameters.size(), groups, in, out.rows(), out.cols());
    bool const keep = kept.cols() > 0;
    FAIRLEAD_EXPECTS(!keep || (kept.cols() == Streams * text.hidden && kept.rows() >= groups.rows()),
                     "kept must be rows x kept_width(), or have no columns", kept.rows(), kept.cols());
    workspace::scope const scope(ws);
    index_t const streams = Streams * text.hidden;
    index_t const piece = rows_of_piece(groups, text.hidden + (keep ? 0 : streams), ws);
    auto const hidden_memory = ws.take<Value>(piece * text.hidden);
    auto const pre_memory = ws.take<Value>(keep ? 0 : piece * streams);
    for_pieces(groups, piece, [&](std::size_t group, index_t first, index_t rows) {
      auto const w = text.split(parameters[group]);
      matrix_view<Value> const y = out.rows(first, rows);
      matrix_view<Value> const pre = keep ? kept.rows(first, rows) : matrix_view<Value>(pre_memory.data(), rows, streams);
      matrix_view<Value> const h(hidden_memory.data(), rows, text.hidden);
      text.product.multiply(on, transpose::no, transpose::yes, Value{1}, in.rows(first, rows), first_matrix(w.first),
                            Value{0}, pre);
      if (!h.empty()) {
        kernels::activate<static_cast<int>(Streams), Activation>
            <<<kernels::ffn_grid(rows), kernels::ffn_threads, 0, on.native()>>>(
                pre, text.bias ? w.first_bias : nullptr, h);
        kernels::check_launch("activate");
      }
      if (text.bias) {
        kernels::fill_rows<<<kernels::ffn_grid(rows), kernels::ffn_threads, 0, on.native()>>>(w.second_bias, y);
        kernels::check_launch("fill_rows");
      }
      text.product.multiply(on, transpose::no, transpose::yes, Value{1}, matrix_view<Value const>(h),
                            second_matrix(w.second), text.bias ? Value{1} : Value{0}, y);
    });
  }

  template <class Backend>
  void backward(Backend const& on, std::span<Value const* const> parameters, std::span<Value* const> gradients,
                row_groups groups, matrix_view<Value const> in, matrix_view<Value const> kept,
                matrix_view<Value const> grad_out, matrix_view<Value> grad_in, workspace& ws) const {
    text.check(parameters.size(), groups, in, grad_in.rows(), grad_in.cols());
    text.check(gradients.size(), groups, grad_out, grad_in.rows(), grad_in.cols());
    FAIRLEAD_EXPECTS(kept.cols() == Streams * text.hidden && kept.rows() >= groups.rows(),
                     "backward needs what forward kept: rows x kept_width()", kept.rows(), kept.cols());
    workspace::scope const scope(ws);
    index_t const streams = Streams * text.hidden;
    index_t const piece = rows_of_piece(groups, text.hidden + streams, ws);
    auto const hidden_memory = ws.take<Value>(piece * text.hidden);
    auto const slope_memory = ws.take<Value>(piece * streams);
    for_pieces(groups, piece, [&](std::size_t group, index_t first, index_t rows) {
      auto const w = text.split(parameters[group]);
      auto const g = text.split(gradients[group]);
      matrix_view<Value const> const x = in.rows(first, rows);
      matrix_view<Value const> const dy = grad_out.rows(first, rows);
      matrix_view<Value> const h(hidden_memory.data(), rows, text.hidden);
      matrix_view<Value> const slope(slope_memory.data(), rows, streams);
      matrix_view<Value> const dh(slope_memory.data(), rows, text.hidden, streams);
      text.product.multiply(on, transpose::no, transpose::no, Value{1}, dy, second_matrix(w.second), Value{0}, dh);
      if (!h.empty()) {
        kernels::differentiate<static_cast<int>(Streams), Activation>
            <<<kernels::ffn_grid(rows), kernels::ffn_threads, 0, on.native()>>>(kept.rows(first, rows), slope, h);
        kernels::check_launch("differentiate");
      }
      text.product.multiply(on, transpose::yes, transpose::no, Value{1}, dy, matrix_view<Value const>(h), Value{1},
                            second_matrix(g.second));
      text.product.multiply(on, transpose::yes, transpose::no, Value{1}, matrix_view<Value const>(slope), x, Value{1},
                            first_matrix(g.first));
      text.product.multiply(on, transpose::no, transpose::no, Value{1}, matrix_view<Value const>(slope),
                            first_matrix(w.first), Value{0}, grad_in.rows(first, rows));
      if (text.bias) {
        add_sums(on, matrix_view<Value const>(slope), g.first_bias);
        add_sums(on, dy, g.second_bias);
      }
    });
  }

 private:
  template <class Element>
  [[nodiscard]] matrix_view<Element> first_matrix(Element* values) const {
    return {values, Streams * text.hidden, text.width};
  }
  template <class Element>
  [[nodiscard]] matrix_view<Element> second_matrix(Element* values) const {
    return {values, text.width, text.hidden};
  }
  template <class Backend>
  static void add_sums(Backend const& on, matrix_view<Value const> from, Value* sums) {
    if (from.empty()) { return; }
    kernels::add_column_sums<<<kernels::grid_size(from.cols(), kernels::sum_columns), dim3(kernels::sum_columns, kernels::sum_rows),
                               0, on.native()>>>(from, sums);
    kernels::check_launch("add_column_sums");
  }
  /// Rows for which `values_each` values fit into the workspace, two arrays' alignment included.
  [[nodiscard]] static index_t rows_of_piece(row_groups groups, index_t values_each, workspace const& ws) {
    index_t largest = 0;
    for (index_t const rows : groups.counts) { largest = std::max(largest, rows); }
    auto const free = static_cast<index_t>((ws.size() - ws.used()) / sizeof(Value)) -
                      static_cast<index_t>(2 * buffer_alignment / sizeof(Value));
    index_t const fit = values_each == 0 ? largest : std::max<index_t>(free, 0) / values_each;
    FAIRLEAD_EXPECTS(fit > 0 || largest == 0, "the workspace is too small: reserve what workspace_bytes() of the expert says",
                     ws.size(), ws.used());
    return std::min(largest, fit);
  }
  template <class Work>
  static void for_pieces(row_groups groups, index_t piece, Work const& work) {
    for (index_t group = 0; group < groups.size(); ++group) {
      for (index_t done = 0; done < groups.count(group); done += piece) {
        work(static_cast<std::size_t>(group), groups.first(group) + done, std::min(piece, groups.count(group) - done));
      }
    }
  }
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
