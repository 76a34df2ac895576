// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The activations of feed-forward experts: ReLU, GELU in two forms, SiLU.
#include <fairlead/concepts/activation.hpp>
#include <fairlead/expert/detail/fast_exp.hpp>

#include <cmath>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief max(0, x); the derivative at 0 is 0.
/// @source{nair2010, Rectified linear units improve restricted Boltzmann machines}
struct relu {
  /// @param x argument
  /// @returns f(x)
  template <class Value>
  [[nodiscard]] FAIRLEAD_HD static Value value(Value x) noexcept {
    return x < Value{0} ? Value{0} : x;
  }
  /// @param x argument
  /// @returns f(x) and f'(x)
  template <class Value>
  [[nodiscard]] FAIRLEAD_HD static activation_result<Value> value_and_derivative(Value x) noexcept {
    return {value(x), x > Value{0} ? Value{1} : Value{0}};
  }
};

/// @brief x times the normal distribution function: the exact form, by the error function.
///
/// In fp32 on the host within a relative error of 2e-6 for x > -5, and an absolute error of 1e-6 for all finite x.
/// @source{hendrycks2016, Gaussian error linear units, section 2}
struct gelu {
  /// @param x argument
  /// @returns f(x)
  template <class Value>
  [[nodiscard]] FAIRLEAD_HD static Value value(Value x) noexcept {
    return value_and_derivative(x).value;
  }
  /// @param x argument
  /// @returns f(x) and f'(x)
  template <class Value>
  [[nodiscard]] FAIRLEAD_HD static activation_result<Value> value_and_derivative(Value x) noexcept {
    constexpr Value inverse_root_of_two_pi{static_cast<Value>(0.39894228040143267794)};
    if constexpr (std::is_same_v<Value, float>) {
      // With a = |x| the lower tail is exp(-a^2 / 2) R(t) t, t = 1 / (1 + a / 3), R fitted on a in [0, 13.5] with a
      // relative error of 2e-7. One exponential serves value and derivative.
      float const a = detail::magnitude(x);
      float const t = 1.0F / (1.0F + a * 0.333333333F);
      float const density = detail::fast_exp(x * x * -0.5F);
      float r = -0.0252920811477F;
      r = r * t + 0.141375545125F;
      r = r * t + -0.294468163316F;
      r = r * t + 0.244049721629F;
      r = r * t + -0.069637909933F;
      r = r * t + 0.126358637944F;
      r = r * t + 0.110900794345F;
      r = r * t + 0.133768823324F;
      r = r * t + 0.132944630284F;
      float const tail = density * r * t;
      float const below = 0.5F + detail::with_sign_of(0.5F - tail, x);  // tail, or 1 - tail
      // max(0, x) - |x| tail, with a maximum that is never a branch.
      // Beyond 16 the tail is 0; the bound keeps infinity times 0 out.
      return {0.5F * x + 0.5F * a - detail::bounded_magnitude(x, 16.0F) * tail, below + x * (density * inverse_root_of_two_pi)};
    } else {
      using std::erfc;
      using std::exp;
      Value const below = Value{0.5} * erfc(-x * static_cast<Value>(0.70710678118654752440));
      return {x * below, below + x * inverse_root_of_two_pi * exp(Value{-0.5} * x * x)};
    }
  }
};

/// @brief The approximation of GELU by a hyperbolic tangent, for weights that were trained with it.
/// @source{hendrycks2016, Gaussian error linear units, section 2}
struct gelu_tanh {
  /// @param x argument
  /// @returns f(x)
  template <class Value>
  [[nodiscard]] FAIRLEAD_HD static Value value(Value x) noexcept {
    return value_and_derivative(x).value;
  }
  /// @param x argument
  /// @returns f(x) and f'(x)
  template <class Value>
  [[nodiscard]] FAIRLEAD_HD static activation_result<Value> value_and_derivative(Value x) noexcept {
    // (1 + tanh u) / 2 is the logistic function of 2u; the cubic term is bounded so that large x stay finite.
    constexpr Value twice_root{static_cast<Value>(1.5957691216057307117)};  // 2 sqrt(2 / pi)
    constexpr Value cubic{static_cast<Value>(0.044715)};
    Value const b = detail::bound_magnitude(x, Value{16});
    Value const s = Value{1} / (Value{1} + detail::fast_exp(-twice_root * b * (Value{1} + cubic * b * b)));
    Value const slope = twice_root * (Value{1} + Value{3} * cubic * b * b);
    return {x * s, s + b * s * (Value{1} - s) * slope};
  }
};

/// @brief x times the logistic function of x (also called swish).
/// @source{elfwing2018, Sigmoid-weighted linear units, section 2}
struct silu {
  /// @param x argument
  /// @returns f(x)
  template <class Value>
  [[nodiscard]] FAIRLEAD_HD static Value value(Value x) noexcept {
    return x / (Value{1} + detail::fast_exp(-x));
  }
  /// @param x argument
  /// @returns f(x) and f'(x)
  template <class Value>
  [[nodiscard]] FAIRLEAD_HD static activation_result<Value> value_and_derivative(Value x) noexcept {
    Value const d = Value{1} + detail::fast_exp(-x);
    Value const s = Value{1} / d;
    Value const f = x / d;
    return {f, s + f * (Value{1} - s)};
  }
};

static_assert(activation_function<relu, float> && activation_function<relu, double>);
static_assert(activation_function<gelu, float> && activation_function<gelu, double>);
static_assert(activation_function<gelu_tanh, float> && activation_function<gelu_tanh, double>);
static_assert(activation_function<silu, float> && activation_function<silu, double>);

FAIRLEAD_NAMESPACE_END
