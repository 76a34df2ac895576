// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Vector types for the inner loops of the exact solver (host).
///
/// GCC's vector extensions; without them (or under nvcc's front end) the loops run one element at a time, with the same
/// result: additions, comparisons and selections only.
#include <fairlead/core/config.hpp>

#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__GNUC__) && !defined(__CUDACC__)
#  define FAIRLEAD_DETAIL_ASSIGN_VECTORS 1
#else
#  define FAIRLEAD_DETAIL_ASSIGN_VECTORS 0
#endif

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

#if defined(__AVX512F__)
inline constexpr int flow_vector_bytes = 64;
#elif defined(__AVX__)
inline constexpr int flow_vector_bytes = 32;
#else
inline constexpr int flow_vector_bytes = 16;
#endif

/// Rows of all tables of the solver are padded to a multiple of this many elements, for vectors of every width.
inline constexpr int flow_padding = 16;

[[nodiscard]] constexpr int padded(int n) noexcept { return (n + flow_padding - 1) / flow_padding * flow_padding; }

template <class Value>
struct flow_lanes;
template <>
struct flow_lanes<float> {
  using integer = std::int32_t;
};
template <>
struct flow_lanes<double> {
  using integer = std::int64_t;
};

/// An integer as wide as `Value`, so that one comparison selects values and integers alike.
template <class Value>
using lane_integer = typename flow_lanes<Value>::integer;

template <class Value>
inline constexpr Value infinite = std::numeric_limits<Value>::infinity();

#if FAIRLEAD_DETAIL_ASSIGN_VECTORS
typedef float float_vector __attribute__((vector_size(flow_vector_bytes)));
typedef double double_vector __attribute__((vector_size(flow_vector_bytes)));
typedef std::int32_t int_vector __attribute__((vector_size(flow_vector_bytes)));
typedef std::int64_t long_vector __attribute__((vector_size(flow_vector_bytes)));
typedef float half_float_vector __attribute__((vector_size(flow_vector_bytes / 2)));

template <class Value>
struct vector_of;
template <>
struct vector_of<float> {
  using type = float_vector;
  using mask = int_vector;
  static constexpr int lanes = flow_vector_bytes / 4;
  /// The next `lanes` scores.
  [[gnu::always_inline]] static type load_scores(float const* from) noexcept {
    type v;
    std::memcpy(&v, from, sizeof v);
    return v;
  }
};
template <>
struct vector_of<double> {
  using type = double_vector;
  using mask = long_vector;
  static constexpr int lanes = flow_vector_bytes / 8;
  [[gnu::always_inline]] static type load_scores(float const* from) noexcept {
    half_float_vector v;
    std::memcpy(&v, from, sizeof v);
    return __builtin_convertvector(v, type);
  }
};

template <class Vector, class Value>
[[gnu::always_inline]] inline Vector load_lanes(Value const* from) noexcept {
  Vector v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
template <class Vector, class Value>
[[gnu::always_inline]] inline void store_lanes(Value* to, Vector const& v) noexcept {
  std::memcpy(to, &v, sizeof v);
}
#endif

}  // namespace detail
FAIRLEAD_NAMESPACE_END
