// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of something that knows the noise a router added, for losses that need its distribution.
#include <fairlead/core/routing.hpp>

#include <concepts>
#include <cstddef>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Tells the noisy logits of a row, their deviations, and how both depend on the logits (host memory).
///
/// A router selects on `noisy = clean + deviation x standard normal number`. A loss on the probability that an expert is
/// selected needs all three, again, in the backward pass. Routers and losses do not know each other: they meet here.
///
/// Required of a model `source`:
/// - `source.experts()`, `source.fan_out()` and `source.logit_columns()`: sizes; the clean logits are the first
///   `experts()` columns.
/// - `source.noisy_logits(context, row, logits, noisy, deviation)`: for one row of `logit_columns()` logits the noisy
///   logits and their standard deviations @shape{experts()}; -inf for masked experts. Returns whether there is noise at
///   all: in evaluation, or with deviation 0, it is false and the noisy logits are the clean ones.
/// - `source.noisy_logits_backward(context, row, logits, grad_noisy, grad_deviation, grad_logits)` adds to one row of
///   gradients @shape{logit_columns()} what reaches the logits through the noisy logits and through the deviations.
template <class Source>
concept noisy_logits_source =
    requires(Source const& source, route_context const& context, index_t row, float const* logits, float* out) {
      { source.experts() } -> std::convertible_to<index_t>;
      { source.fan_out() } -> std::convertible_to<index_t>;
      { source.logit_columns() } -> std::convertible_to<index_t>;
      { source.noisy_logits(context, row, logits, out, out) } -> std::same_as<bool>;
      { source.noisy_logits_backward(context, row, logits, logits, logits, out) } -> std::same_as<void>;
    };

FAIRLEAD_NAMESPACE_END
