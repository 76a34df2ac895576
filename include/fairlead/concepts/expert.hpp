// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of what computes the tokens of a group of local experts.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/matrix_view.hpp>
#include <fairlead/core/parameters.hpp>
#include <fairlead/core/row_groups.hpp>
#include <fairlead/core/workspace.hpp>

#include <concepts>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Says its element type, widths and parameters.
template <class Expert>
concept has_expert_shape = requires(Expert const& expert) {
  typename Expert::value_type;
  { expert.input_width() } -> std::convertible_to<index_t>;
  { expert.output_width() } -> std::convertible_to<index_t>;
  { expert.kept_width() } -> std::convertible_to<index_t>;
  { expert.parameter_layout() } -> std::same_as<parameter_layout>;
  { expert.workspace_bytes(index_t{1}, index_t{1}) } -> std::convertible_to<std::size_t>;
};
/// @brief Computes outputs of a whole bank of experts at once.
template <class Expert, class Backend, class Value = typename Expert::value_type>
concept has_expert_forward =
    requires(Expert const& expert, Backend const& on, std::span<Value const* const> parameters, row_groups groups,
             matrix_view<Value const> in, matrix_view<Value> kept, matrix_view<Value> out, workspace& ws) {
      { expert.forward(on, parameters, groups, in, kept, out, ws) } -> std::same_as<void>;
    };

/// @brief A stateless description of an expert, called on a whole bank: one group of rows a local slot.
///
/// Required of a model `expert` with element type `Value`:
/// - `expert.forward(on, parameters, groups, in, kept, out, ws)`: parameters[g] points to the parameters of group g in
///   the memory space of `on` (the array of pointers itself is host memory); in @shape{rows x input_width()}, out
///   @shape{rows x output_width()}, kept @shape{rows x kept_width()}. `kept` receives what `backward` needs; a view
///   with zero columns says that nothing is to be kept. Rows of `out` in use are overwritten; a row of output depends
///   on that row of input and its group only, and no bit of it on how rows are grouped into calls or threads.
/// - `expert.parameter_layout()`: blocks of one expert.
/// - `expert.workspace_bytes(rows, concurrency)`: scratch for forward and backward on up to `rows` rows (padding
///   included) and a backend of that concurrency.
/// Empty groups and zero groups are legal.
template <class Expert, class Backend>
concept expert_on = has_expert_shape<Expert> && execution_backend<Backend> && has_expert_forward<Expert, Backend>;

/// @brief Opt-in: `backward(on, parameters, gradients, groups, in, kept, grad_out, grad_in, ws)` overwrites the used
/// rows of grad_in and *adds* to the parameter gradients; an expert without rows adds zero.
template <class Expert, class Backend, class Value = typename Expert::value_type>
concept trainable_on =
    expert_on<Expert, Backend> &&
    requires(Expert const& expert, Backend const& on, std::span<Value const* const> parameters,
             std::span<Value* const> gradients, row_groups groups, matrix_view<Value const> in,
             matrix_view<Value const> kept, matrix_view<Value const> grad_out, matrix_view<Value> grad_in,
             workspace& ws) {
      { expert.backward(on, parameters, gradients, groups, in, kept, grad_out, grad_in, ws) } -> std::same_as<void>;
    };

FAIRLEAD_NAMESPACE_END
