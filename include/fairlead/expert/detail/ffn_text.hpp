// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The host text of dense and gated feed-forward experts.
#include <fairlead/concepts/activation.hpp>
#include <fairlead/concepts/expert.hpp>
#include <fairlead/concepts/gemm.hpp>
#include <fairlead/expert/detail/ffn_rows.hpp>
#include <fairlead/expert/detail/row_blocks.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Sizes of the pieces that the text works on; see docs/design/expert_bank.md for how they were chosen.
struct ffn_tuning {
  static constexpr index_t rows = 1024;     ///< rows of a piece
  static constexpr index_t columns = 2048;  ///< hidden units that are computed, activated and consumed together
};

/// @brief Forward and backward of y = W2 f(W1 x + b1) + b2, and of its gated form.
/// @tparam Streams 1: hidden = f(first); 2: hidden = f(gate) * up, first holds gate rows, then up rows
template <index_t Streams, class Value, class Activation, class Gemm>
struct ffn_text {
  using rows_text = ffn_rows<Streams, Value, Activation>;

  index_t width;      ///< columns of input and output
  index_t hidden;     ///< hidden units
  bool bias;          ///< whether b1 and b2 exist
  Gemm product = {};  ///< matrix products

  /// Where the matrices of one expert start.
  template <class Element>
  struct parts {
    Element* first;        // [Streams * hidden x width]
    Element* first_bias;   // [Streams * hidden]
    Element* second;       // [width x hidden]
    Element* second_bias;  // [width]
  };
  template <class Element>
  [[nodiscard]] parts<Element> split(Element* values) const noexcept {
    Element* const first_bias = values + Streams * hidden * width;
    Element* const second = first_bias + (bias ? Streams * hidden : 0);
    return {values, first_bias, second, second + width * hidden};
  }

  [[nodiscard]] index_t chunks() const noexcept { return blocks_of(hidden, ffn_tuning::columns); }
  [[nodiscard]] index_t chunk_begin(index_t c) const noexcept { return block_begin(hidden, chunks(), c); }
  [[nodiscard]] index_t widest_chunk() const noexcept { return largest_block(hidden, ffn_tuning::columns); }

  /// Scratch for forward and backward; `rows` bounds the rows and thereby the number of pieces.
  [[nodiscard]] std::size_t workspace_bytes(index_t rows, index_t concurrency) const noexcept {
    index_t const workers = std::max<index_t>(concurrency, 1);
    index_t const piece = largest_block(rows, ffn_tuning::rows) * widest_chunk();
    return 2 * fairlead::workspace_bytes<row_block>(rows) +
           static_cast<std::size_t>(workers) * fairlead::workspace_bytes<Value>((Streams + 1) * piece) +
           fairlead::workspace_bytes<Value>(rows * Streams * hidden);
  }

  void check(std::size_t parameters, row_groups groups, matrix_view<Value const> const& in, index_t out_rows,
             index_t out_cols) const {
    FAIRLEAD_EXPECTS(width >= 0 && hidden >= 0, "width and hidden must not be negative", width, hidden);
    FAIRLEAD_EXPECTS(static_cast<index_t>(parameters) == groups.size(), "one pointer to parameters a group", parameters,
                     groups.size());
    FAIRLEAD_EXPECTS(groups.size() == 0 || groups.offsets.size() == groups.counts.size() + 1,
                     "offsets need one entry more than there are groups", groups.offsets.size(), groups.counts.size());
    FAIRLEAD_EXPECTS(in.cols() == width && in.rows() >= groups.rows(), "in must be rows x width", in.rows(), in.cols(),
                     groups.rows(), width);
    FAIRLEAD_EXPECTS(out_cols == width && out_rows >= groups.rows(), "out must be rows x width", out_rows, out_cols,
                     groups.rows(), width);
#if FAIRLEAD_CONTRACT_LEVEL >= 2
    for (index_t g = 0; g < groups.size(); ++g) {
      FAIRLEAD_EXPECTS_2(groups.count(g) >= 0 && groups.first(g) + groups.count(g) <=
                                                     groups.offsets[static_cast<std::size_t>(g) + 1],
                         "a group must end before the next begins", g, groups.first(g), groups.count(g));
    }
#endif
  }

  template <class Backend>
  void forward(Backend const& on, std::span<Value const* const> parameters, row_groups groups,
               matrix_view<Value const> in, matrix_view<Value> kept, matrix_view<Value> out, workspace& ws) const {
    check(parameters.size(), groups, in, out.rows(), out.cols());
    bool const keep = kept.cols() > 0;
    FAIRLEAD_EXPECTS(!keep || (kept.cols() == Streams * hidden && kept.rows() >= groups.rows()),
                     "kept must be rows x kept_width(), or have no columns", kept.rows(), kept.cols());
    workspace::scope const scope(ws);
    std::span<row_block> const blocks = cut_rows(groups, ffn_tuning::rows, ws);
    if (blocks.empty() || width == 0) { return; }
    index_t const pieces = static_cast<index_t>(blocks.size());
    index_t const workers = std::clamp<index_t>(on.concurrency(), 1, pieces);
    index_t const most_rows = blocks.front().rows;
    index_t const stream_size = most_rows * widest_chunk();
    std::span<Value> const scratch = ws.take<Value>(workers * (Streams + 1) * stream_size);
    run_pieces(on, workers, pieces, [&](index_t worker, index_t piece) {
      row_block const block = blocks[static_cast<std::size_t>(piece)];
      parts<Value const> const w = split(parameters[static_cast<std::size_t>(block.group)]);
      matrix_view<Value const> const x = in.rows(block.first, block.rows);
      matrix_view<Value> const y = out.rows(block.first, block.rows);
      Value* const own = scratch.data() + worker * (Streams + 1) * stream_size;
      if (bias) { rows_text::fill_rows(y, w.second_bias); }
      if (hidden == 0) {
        if (!bias) { rows_text::clear(y); }
        return;
      }
      for (index_t c = 0; c < chunks(); ++c) {
        index_t const begin = chunk_begin(c), columns = chunk_begin(c + 1) - begin;
        matrix_view<Value> pre[Streams];
        for (index_t s = 0; s < Streams; ++s) {
          index_t const unit = s * hidden + begin;
          pre[s] = keep ? matrix_view<Value>(kept.row(block.first) + unit, block.rows, columns, kept.stride())
                        : matrix_view<Value>(own + (s + 1) * stream_size, block.rows, columns);
          product.multiply(on, transpose::no, transpose::yes, Value{1}, x, rows_of(w.first, unit, columns), Value{0},
                           pre[s]);
        }
        matrix_view<Value> const h(own, block.rows, columns);
        matrix_view<Value const> products[Streams];
        for (index_t s = 0; s < Streams; ++s) { products[s] = pre[s]; }
        rows_text::activate(products, bias ? w.first_bias + begin : nullptr, hidden, h);
        product.multiply(on, transpose::no, transpose::yes, Value{1}, matrix_view<Value const>(h),
                         columns_of(w.second, begin, columns), c == 0 && !bias ? Value{0} : Value{1}, y);
      }
    });
  }

  template <class Backend>
  void backward(Backend const& on, std::span<Value const* const> parameters, std::span<Value* const> gradients,
                row_groups groups, matrix_view<Value const> in, matrix_view<Value const> kept,
                matrix_view<Value const> grad_out, matrix_view<Value> grad_in, workspace& ws) const {
    check(parameters.size(), groups, in, grad_in.rows(), grad_in.cols());
    check(gradients.size(), groups, grad_out, grad_in.rows(), grad_in.cols());
    FAIRLEAD_EXPECTS(kept.cols() == Streams * hidden && kept.rows() >= groups.rows(),
                     "backward needs what forward kept: rows x kept_width()", kept.rows(), kept.cols());
    workspace::scope const scope(ws);
    std::span<row_block> const whole = cut_rows(groups, 0, ws);
    std::span<row_block> const blocks = cut_rows(groups, ffn_tuning::rows, ws);
    if (blocks.empty() || width == 0) { return; }
    index_t const row_pieces = static_cast<index_t>(blocks.size());
    index_t const unit_pieces = static_cast<index_t>(whole.size()) * std::max<index_t>(chunks(), 1);
    index_t const workers = std::clamp<index_t>(on.concurrency(), 1, std::max(row_pieces, unit_pieces));
    index_t const scratch_size = blocks.front().rows * widest_chunk();
    std::span<Value> const scratch = ws.take<Value>(workers * 2 * scratch_size);
    // Derivatives of the pre-activations, chunk after chunk, each a dense rows x columns matrix.
    std::span<Value> const slopes = ws.take<Value>(groups.rows() * Streams * hidden);

    // Pieces of hidden units: all rows of a group in a fixed order, so that a weight gradient is one sum.
    run_pieces(on, workers, unit_pieces, [&](index_t worker, index_t piece) {
      index_t const parts_of_group = std::max<index_t>(chunks(), 1);
      row_block const group = whole[static_cast<std::size_t>(piece / parts_of_group)];
      index_t const c = piece % parts_of_group;
      parts<Value const> const w = split(parameters[static_cast<std::size_t>(group.group)]);
      parts<Value> const g = split(gradients[static_cast<std::size_t>(group.group)]);
      if (c == 0 && bias) { rows_text::add_rows(grad_out.rows(group.first, group.rows), g.second_bias); }
      if (hidden == 0) { return; }
      index_t const begin = chunk_begin(c), columns = chunk_begin(c + 1) - begin;
      Value* const own = scratch.data() + worker * 2 * scratch_size;
      index_t const cuts = blocks_of(group.rows, ffn_tuning::rows);
      for (index_t b = 0; b < cuts; ++b) {
        index_t const first = group.first + block_begin(group.rows, cuts, b);
        index_t const rows = group.first + block_begin(group.rows, cuts, b + 1) - first;
        matrix_view<Value const> const x = in.rows(first, rows);
        matrix_view<Value const> const dy = grad_out.rows(first, rows);
        matrix_view<Value> const dh(own, rows, columns), h(own + scratch_size, rows, columns);
        product.multiply(on, transpose::no, transpose::no, Value{1}, dy, columns_of(w.second, begin, columns), Value{0},
                         dh);
        matrix_view<Value const> pre[Streams];
        matrix_view<Value> slope[Streams];
        for (index_t s = 0; s < Streams; ++s) {
          pre[s] = {kept.row(first) + s * hidden + begin, rows, columns, kept.stride()};
          slope[s] = slopes_of(slopes, groups.rows(), s, c, first, rows);
        }
        rows_text::differentiate(pre, bias ? w.first_bias + begin : nullptr, dh, h, slope,
                                 bias ? g.first_bias + begin : nullptr, hidden);
        product.multiply(on, transpose::yes, transpose::no, Value{1}, dy, matrix_view<Value const>(h), Value{1},
                         columns_of(g.second, begin, columns));
        for (index_t s = 0; s < Streams; ++s) {
          product.multiply(on, transpose::yes, transpose::no, Value{1}, matrix_view<Value const>(slope[s]), x, Value{1},
                           rows_of(g.first, s * hidden + begin, columns));
        }
      }
    });

    // Pieces of rows: the gradient of the input.
    run_pieces(on, workers, row_pieces, [&](index_t, index_t piece) {
      row_block const block = blocks[static_cast<std::size_t>(piece)];
      parts<Value const> const w = split(parameters[static_cast<std::size_t>(block.group)]);
      matrix_view<Value> const dx = grad_in.rows(block.first, block.rows);
      if (hidden == 0) { rows_text::clear(dx); }
      for (index_t s = 0; s < Streams; ++s) {
        for (index_t c = 0; hidden > 0 && c < chunks(); ++c) {
          index_t const begin = chunk_begin(c), columns = chunk_begin(c + 1) - begin;
          product.multiply(on, transpose::no, transpose::no, Value{1},
                           matrix_view<Value const>(slopes_of(slopes, groups.rows(), s, c, block.first, block.rows)),
                           rows_of(w.first, s * hidden + begin, columns), s == 0 && c == 0 ? Value{0} : Value{1}, dx);
        }
      }
    });
  }

 private:
  /// Hidden units [unit, unit + count) of the first matrix: whole rows.
  template <class Element>
  [[nodiscard]] matrix_view<Element> rows_of(Element* first, index_t unit, index_t count) const {
    return {first + unit * width, count, width};
  }
  /// Hidden units [unit, unit + count) of the second matrix: some columns.
  template <class Element>
  [[nodiscard]] matrix_view<Element> columns_of(Element* second, index_t unit, index_t count) const {
    return {second + unit, width, count, hidden};
  }
  /// Chunk c of stream s of the slopes: chunks are stored apart, so that products read dense rows whose distance is
  /// not a large power of two.
  [[nodiscard]] matrix_view<Value> slopes_of(std::span<Value> slopes, index_t all_rows, index_t s, index_t c,
                                             index_t first, index_t rows) const {
    index_t const begin = chunk_begin(c), columns = chunk_begin(c + 1) - begin;
    return {slopes.data() + (s * hidden + begin) * all_rows + first * columns, rows, columns};
  }
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
