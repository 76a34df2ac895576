// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Bandwidth as a function of the size of a message.
#include <fairlead/core/config.hpp>

#include <array>
#include <concepts>
#include <cstddef>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Something that says how fast a message of a given size travels.
template <class Curve>
concept bandwidth_curve = requires(Curve const& curve, double bytes) {
  { curve.bytes_per_s(bytes) } -> std::convertible_to<double>;
};

/// @brief The same bandwidth for every message.
struct flat_bandwidth {
  double rate = 0.0;  ///< > 0. @unit{B/s}
  /// @returns `rate`, whatever the size. @unit{B/s}
  [[nodiscard]] constexpr double bytes_per_s(double) const noexcept { return rate; }
};
static_assert(bandwidth_curve<flat_bandwidth>);

/// @brief A bandwidth that steps up with the size of the message.
///
/// The time of a message is then not monotone in its size: one just above a step is faster than one just below.
struct step_bandwidth {
  std::array<double, 3> limits{};  ///< largest size of the first three steps, ascending. @unit{B}
  std::array<double, 4> rates{};   ///< bandwidth of each step, > 0. @unit{B/s}
  /// @param bytes size of the message. @unit{B}
  /// @returns the bandwidth of its step. @unit{B/s}
  [[nodiscard]] constexpr double bytes_per_s(double bytes) const noexcept {
    std::size_t step = 0;
    while (step < limits.size() && bytes > limits[step]) { ++step; }
    return rates[step];
  }
};
static_assert(bandwidth_curve<step_bandwidth>);

FAIRLEAD_NAMESPACE_END
