// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Features of a token that come from token ids alone: what a light router looks at.
#include <fairlead/core/parameters.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/route/detail/feature_rows.hpp>

#include <cmath>
#include <concepts>
#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Makes one row of features a token from the ids of `route_context::token_ids`.
///
/// Required of a model `features`:
/// - `features.width` columns, `features.parameter_layout()`, `features.workspace_bytes(tokens)`;
/// - `features.forward(on, parameters, context, out, ws)` overwrites out @shape{tokens x width};
/// - `features.backward(on, parameters, context, grad_out, grad_parameters, ws)` adds to grad_parameters.
/// A row depends on ids at and before it in its sequence only, and has the same bits wherever the sequence stands.
template <class Features, class Backend>
concept token_features_on =
    host_backend<Backend> &&
    requires(Features const& features, Backend const& on, std::span<float const> parameters,
             route_context const& context, matrix_view<float> out, std::span<float> gradients, workspace& ws) {
      { features.width } -> std::convertible_to<index_t>;
      { features.parameter_layout() } -> std::same_as<parameter_layout>;
      { features.workspace_bytes(index_t{}) } -> std::convertible_to<std::size_t>;
      { features.forward(on, parameters, context, out, ws) } -> std::same_as<void>;
      { features.backward(on, parameters, context, out, gradients, ws) } -> std::same_as<void>;
    };

namespace detail {
/// What all features of this header have: an embedding of the vocabulary.
inline void add_embedding(parameter_layout& layout, index_t vocabulary, index_t width, double deviation) {
  FAIRLEAD_EXPECTS(vocabulary >= 1 && width >= 1, "features need a vocabulary and a width", vocabulary, width);
  layout.add("token_embedding", vocabulary, width,
             deviation > 0.0 ? deviation : 1.0 / std::sqrt(static_cast<double>(width)));
}
[[nodiscard]] inline id_rows ids_of(route_context const& context, [[maybe_unused]] index_t vocabulary, index_t length,
                                    matrix_view<float const> rows, index_t width) {
  FAIRLEAD_EXPECTS(static_cast<index_t>(context.token_ids.size()) == rows.rows(),
                   "set route_context::token_ids, one a token", context.token_ids.size(), rows.rows());
  FAIRLEAD_EXPECTS(context.token_mask.empty() || static_cast<index_t>(context.token_mask.size()) == rows.rows(),
                   "a token mask has one byte a token", context.token_mask.size(), rows.rows());
  FAIRLEAD_EXPECTS(rows.cols() == width, "features are as wide as their width", rows.cols(), width);
  FAIRLEAD_EXPECTS(length >= 0, "sequence_length must not be negative", length);
  id_rows const in{context.token_ids, context.token_mask, length};
  for (index_t t = 0; t < in.rows(); ++t) {
    FAIRLEAD_EXPECTS_2(!in.valid(t) || (in.id(t) >= 0 && in.id(t) < vocabulary), "token ids must be below the vocabulary",
                       in.id(t), t, vocabulary);
  }
  return in;
}
}  // namespace detail

/// @brief The row of the token's id in a table (the light router of the paper).
///
/// The features of padding are zero.
/// @source{StableMoE, section 3.2: word embeddings of dimension 50}
struct token_embedding {
  index_t vocabulary = 0;  ///< ids are below it
  index_t width = 50;      ///< columns
  double deviation = 0.0;  ///< standard deviation of initial embeddings; 0 = 1 / sqrt(width)

  /// @returns "token_embedding" @shape{vocabulary x width}
  [[nodiscard]] fairlead::parameter_layout parameter_layout() const {
    fairlead::parameter_layout layout;
    detail::add_embedding(layout, vocabulary, width, deviation);
    return layout;
  }
  /// @returns 0
  [[nodiscard]] std::size_t workspace_bytes(index_t) const noexcept { return 0; }
  /// @brief Look up the rows.
  /// @param on host backend
  /// @param parameters @shape{vocabulary * width}
  /// @param context token ids and mask
  /// @param[out] out overwritten. @shape{tokens x width}
  /// @throws contract_violation (level 1) on wrong shapes, (level 2) on an id outside the vocabulary
  /// @complexity O(tokens x width), no allocation
  template <host_backend Backend>
  void forward(Backend const& on, std::span<float const> parameters, route_context const& context,
               matrix_view<float> out, workspace&) const {
    auto const in = detail::ids_of(context, vocabulary, 0, out, width);
    on.for_each(detail::pieces_of(in.rows(), detail::feature_row_piece),
                detail::mean_rows{in, parameters.data(), width, 1, 1.0F, out});
  }
  /// @brief Add the gradients to the rows of the table, in token order.
  /// @param on host backend
  /// @param context token ids and mask
  /// @param grad_out @shape{tokens x width}
  /// @param[in,out] grad_parameters added to. @shape{vocabulary * width}
  /// @complexity O(tokens x width), no allocation
  /// @determinism the same bits at any number of threads
  template <host_backend Backend>
  void backward(Backend const& on, std::span<float const>, route_context const& context,
                matrix_view<float const> grad_out, std::span<float> grad_parameters, workspace&) const {
    auto const in = detail::ids_of(context, vocabulary, 0, grad_out, width);
    on.for_each(detail::pieces_of(width, detail::feature_col_piece),
                detail::scatter_mean_rows{in, grad_out, 1, 1.0F, grad_parameters.data()});
  }
};
static_assert(token_features_on<token_embedding, serial>);

/// @brief The mean of the embeddings of the token and of the one before it.
///
/// The first token of a sequence has a zero vector before it, and so has one after padding. Sequences are consecutive
/// rows: the row before row t is t - 1 unless t is a multiple of `sequence_length`.
/// @source{StableMoE code, bigram variant of the distilled router}
struct bigram_embedding {
  /// Rows before a token's own count, so that rows must stand in the order of the text.
  static constexpr bool reads_neighbours = true;

  index_t vocabulary = 0;       ///< ids are below it
  index_t width = 50;           ///< columns
  index_t sequence_length = 0;  ///< rows of a sequence; 0 = the rows of a call are one sequence
  double deviation = 0.0;       ///< standard deviation of initial embeddings; 0 = 1 / sqrt(width)

  /// @returns "token_embedding" @shape{vocabulary x width}
  [[nodiscard]] fairlead::parameter_layout parameter_layout() const {
    fairlead::parameter_layout layout;
    detail::add_embedding(layout, vocabulary, width, deviation);
    return layout;
  }
  /// @returns 0
  [[nodiscard]] std::size_t workspace_bytes(index_t) const noexcept { return 0; }
  /// @brief Add up pairs of rows.
  /// @param on host backend
  /// @param parameters @shape{vocabulary * width}
  /// @param context token ids and mask
  /// @param[out] out overwritten. @shape{tokens x width}
  /// @throws contract_violation (level 1) on wrong shapes, (level 2) on an id outside the vocabulary
  /// @complexity O(tokens x width), no allocation
  template <host_backend Backend>
  void forward(Backend const& on, std::span<float const> parameters, route_context const& context,
               matrix_view<float> out, workspace&) const {
    auto const in = detail::ids_of(context, vocabulary, sequence_length, out, width);
    on.for_each(detail::pieces_of(in.rows(), detail::feature_row_piece),
                detail::mean_rows{in, parameters.data(), width, 2, 0.5F, out});
  }
  /// @brief Add half of each gradient to both rows of the table, in token order.
  /// @param on host backend
  /// @param context token ids and mask
  /// @param grad_out @shape{tokens x width}
  /// @param[in,out] grad_parameters added to. @shape{vocabulary * width}
  /// @complexity O(tokens x width), no allocation
  /// @determinism the same bits at any number of threads
  template <host_backend Backend>
  void backward(Backend const& on, std::span<float const>, route_context const& context,
                matrix_view<float const> grad_out, std::span<float> grad_parameters, workspace&) const {
    auto const in = detail::ids_of(context, vocabulary, sequence_length, grad_out, width);
    on.for_each(detail::pieces_of(width, detail::feature_col_piece),
                detail::scatter_mean_rows{in, grad_out, 2, 0.5F, grad_parameters.data()});
  }
};
static_assert(token_features_on<bigram_embedding, serial>);

/// @brief A causal convolution over the embeddings of the token and the `taps - 1` ones before it.
///
/// out[t] = sum over k of F_k e(t - k), F_k @shape{width x width}, zero vectors before the sequence begins and where
/// there is padding. No bias and no nonlinearity.
/// @source{StableMoE, table 7 and code: 5 taps, padded by 4}
struct convolution_embedding {
  /// Rows before a token's own count, so that rows must stand in the order of the text.
  static constexpr bool reads_neighbours = true;

  index_t vocabulary = 0;       ///< ids are below it
  index_t width = 50;           ///< columns
  index_t taps = 5;             ///< rows that a feature sees, >= 1
  index_t sequence_length = 0;  ///< rows of a sequence; 0 = the rows of a call are one sequence
  double deviation = 0.0;       ///< standard deviation of initial embeddings; 0 = 1 / sqrt(width)
  double tap_deviation = 0.0;   ///< of the initial filter; 0 = 1 / sqrt(taps * width)

  /// @returns "token_embedding" @shape{vocabulary x width}, "taps" @shape{width x taps * width}: the present row first
  [[nodiscard]] fairlead::parameter_layout parameter_layout() const {
    FAIRLEAD_EXPECTS(taps >= 1, "a convolution needs a tap", taps);
    fairlead::parameter_layout layout;
    detail::add_embedding(layout, vocabulary, width, deviation);
    layout.add("taps", width, taps * width,
               tap_deviation > 0.0 ? tap_deviation : 1.0 / std::sqrt(static_cast<double>(taps * width)));
    return layout;
  }
  /// @param tokens number of tokens
  /// @returns scratch of `backward`
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens) const noexcept {
    return fairlead::workspace_bytes<float>(tokens * width);
  }
  /// @brief Convolve the embedded rows.
  /// @param on host backend
  /// @param parameters embedding and taps
  /// @param context token ids and mask
  /// @param[out] out overwritten. @shape{tokens x width}
  /// @throws contract_violation (level 1) on wrong shapes, (level 2) on an id outside the vocabulary
  /// @complexity O(tokens x taps x width^2), no allocation
  template <host_backend Backend>
  void forward(Backend const& on, std::span<float const> parameters, route_context const& context,
               matrix_view<float> out, workspace&) const {
    auto const in = detail::ids_of(context, vocabulary, sequence_length, out, width);
    on.for_each(detail::pieces_of(in.rows(), detail::feature_row_piece),
                detail::convolve_rows{in, parameters.data(), parameters.data() + vocabulary * width, taps, out});
  }
  /// @brief Add the gradients of filter and embedding, in token order.
  /// @param on host backend
  /// @param parameters embedding and taps
  /// @param context token ids and mask
  /// @param grad_out @shape{tokens x width}
  /// @param[in,out] grad_parameters added to
  /// @param ws at least `workspace_bytes(tokens)`
  /// @complexity O(tokens x taps x width^2), no allocation
  /// @determinism the same bits at any number of threads
  template <host_backend Backend>
  void backward(Backend const& on, std::span<float const> parameters, route_context const& context,
                matrix_view<float const> grad_out, std::span<float> grad_parameters, workspace& ws) const {
    auto const in = detail::ids_of(context, vocabulary, sequence_length, grad_out, width);
    index_t const filter = vocabulary * width;
    workspace::scope const give_back(ws);
    auto const scratch = ws.take<float>(in.rows() * width);
    matrix_view<float> const grad_in(scratch.data(), in.rows(), width);
    on.for_each(width, detail::filter_gradient{in, parameters.data(), taps, grad_out, grad_parameters.data() + filter});
    on.for_each(detail::pieces_of(in.rows(), detail::feature_row_piece),
                detail::convolve_back{in, parameters.data() + filter, taps, grad_out, grad_in});
    on.wait();
    on.for_each(detail::pieces_of(width, detail::feature_col_piece),
                detail::scatter_mean_rows{in, grad_in, 1, 1.0F, grad_parameters.data()});
  }
};
static_assert(token_features_on<convolution_embedding, serial>);

FAIRLEAD_NAMESPACE_END
