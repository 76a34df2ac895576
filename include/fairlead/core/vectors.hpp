// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Vector types for inner loops that compare and select (host).
///
/// GCC's vector extensions; without them (or under nvcc's front end) the loops run one element at a time, with the same
/// result: additions, comparisons and selections only.
#include <fairlead/core/config.hpp>

#include <cstdint>
#include <cstring>
#include <limits>

#if defined(__AVX512F__) && !defined(__CUDACC__)
#  include <immintrin.h>
#endif

#if defined(__GNUC__) && !defined(__CUDACC__)
#  define FAIRLEAD_DETAIL_VECTORS 1
#else
#  define FAIRLEAD_DETAIL_VECTORS 0
#endif

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Of the widest vector register that the user compiles for.
#if defined(__AVX512F__)
inline constexpr int vector_bytes = 64;
#elif defined(__AVX__)
inline constexpr int vector_bytes = 32;
#else
inline constexpr int vector_bytes = 16;
#endif

template <class Value>
struct lane_of;
template <>
struct lane_of<float> {
  using integer = std::int32_t;
};
template <>
struct lane_of<double> {
  using integer = std::int64_t;
};

/// An integer as wide as `Value`, so that one comparison selects values and integers alike.
template <class Value>
using lane_integer = typename lane_of<Value>::integer;

template <class Value>
inline constexpr Value infinite = std::numeric_limits<Value>::infinity();

#if FAIRLEAD_DETAIL_VECTORS
typedef float float_vector __attribute__((vector_size(vector_bytes)));
typedef double double_vector __attribute__((vector_size(vector_bytes)));
typedef std::int32_t int_vector __attribute__((vector_size(vector_bytes)));
typedef std::int64_t long_vector __attribute__((vector_size(vector_bytes)));
typedef float half_float_vector __attribute__((vector_size(vector_bytes / 2)));

template <class Value>
struct vector_of;
template <>
struct vector_of<float> {
  using type = float_vector;
  using mask = int_vector;
  static constexpr int lanes = vector_bytes / 4;
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
  static constexpr int lanes = vector_bytes / 8;
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

#  if defined(__AVX512F__)
// Not _mm512_reduce_*: g++ 12 warns about them wherever they are inlined (GCC bug 105593).
template <class Pick>
[[gnu::always_inline]] inline float fold(float_vector v, Pick const& pick) noexcept {
  v = pick(v, __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  v = pick(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
  v = pick(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
  v = pick(v, __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
  return v[0];
}
template <class Pick>
[[gnu::always_inline]] inline double fold(double_vector v, Pick const& pick) noexcept {
  v = pick(v, __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3));
  v = pick(v, __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5));
  v = pick(v, __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6));
  return v[0];
}
struct pick_less {
  template <class Vector>
  [[gnu::always_inline]] Vector operator()(Vector const& a, Vector const& b) const noexcept { return a < b ? a : b; }
};
struct pick_greater {
  template <class Vector>
  [[gnu::always_inline]] Vector operator()(Vector const& a, Vector const& b) const noexcept { return a > b ? a : b; }
};
#  endif

/// The least lane, and a bit for each lane that equals it.
template <class Vector, class Value>
[[gnu::always_inline]] inline unsigned equals_least(Vector const& v, Value& least) noexcept {
#  if defined(__AVX512F__)
  least = fold(v, pick_less{});
  if constexpr (sizeof(Value) == sizeof(float)) {
    return _mm512_cmp_ps_mask(reinterpret_cast<__m512>(v), _mm512_set1_ps(least), _CMP_EQ_OQ);
  } else {
    return _mm512_cmp_pd_mask(reinterpret_cast<__m512d>(v), _mm512_set1_pd(least), _CMP_EQ_OQ);
  }
#  else
  constexpr int lanes = vector_of<Value>::lanes;
  least = v[0];
  for (int i = 1; i < lanes; ++i) { least = v[i] < least ? v[i] : least; }
  unsigned bits = 0;
  for (int i = 0; i < lanes; ++i) { bits |= (v[i] == least ? 1U : 0U) << static_cast<unsigned>(i); }
  return bits;
#  endif
}
#endif

}  // namespace detail
FAIRLEAD_NAMESPACE_END
