// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of an elementwise non-linearity with its derivative.
#include <fairlead/core/config.hpp>

#include <concepts>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief An activation and its derivative at one point.
/// @tparam Value element type
template <class Value>
struct activation_result {
  Value value;       ///< f(x)
  Value derivative;  ///< f'(x)
};

/// @brief A stateless function of one number, with its derivative.
///
/// Required of a model: `Activation::value(x)` and `Activation::value_and_derivative(x)`, static, without branches that
/// stop a compiler from vectorising a loop over them, callable on host and device (`FAIRLEAD_HD`). Both give the same
/// value for the same x.
template <class Activation, class Value>
concept activation_function = requires(Value x) {
  { Activation::value(x) } -> std::same_as<Value>;
  { Activation::value_and_derivative(x) } -> std::same_as<activation_result<Value>>;
};

FAIRLEAD_NAMESPACE_END
