// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Read a row of scores, subtract prices, find what is near the best (host).
///
/// NaN and -inf become -inf (forbidden), +inf the largest finite number.
#include <fairlead/flow/detail/vectors.hpp>
#include <fairlead/core/assignment.hpp>
#include <fairlead/core/ids.hpp>

#include <algorithm>
#include <limits>
#include <type_traits>

#if defined(__AVX512F__) && !defined(__CUDACC__)
#  include <immintrin.h>
#  define FAIRLEAD_DETAIL_FLOW_MASKS 512
#elif defined(__AVX2__) && !defined(__CUDACC__)
#  include <immintrin.h>
#  define FAIRLEAD_DETAIL_FLOW_MASKS 256
#else
#  define FAIRLEAD_DETAIL_FLOW_MASKS 0
#endif

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

inline constexpr float greatest_float = std::numeric_limits<float>::max();

#if FAIRLEAD_DETAIL_FLOW_MASKS == 512
// With a mask of ones: g++ 12 warns about the forms without one (GCC bug 105593).
inline constexpr __mmask16 every_lane = 0xFFFF;
#endif

/// A score as the solver reads it, in fp32: nothing is rounded.
template <class Score>
[[nodiscard]] inline float clean_score(Score score) noexcept {
  return static_cast<float>(assignable(score));
}

/// to[e] = clean score of e, padded with -inf to `stride`; returns how many are allowed.
template <class Score>
inline int read_row(Score const* from, int experts, int stride, float* to) noexcept {
  int allowed = 0;
  int e = 0;
#if FAIRLEAD_DETAIL_FLOW_MASKS == 512
  if constexpr (std::is_same_v<Score, float>) {
    __m512 const low = _mm512_set1_ps(-infinite<float>);
    __m512 const high = _mm512_set1_ps(greatest_float);
    for (; e + 16 <= experts; e += 16) {
      // Both return their second operand for NaN: it stays, then becomes -inf.
      __m512 const x = _mm512_maskz_max_ps(every_lane, _mm512_maskz_min_ps(every_lane, high, _mm512_loadu_ps(from + e)), low);
      _mm512_storeu_ps(to + e, x);
      allowed += __builtin_popcount(_mm512_cmp_ps_mask(x, low, _CMP_GT_OQ));
    }
    if (e < experts) {
      auto const rest = static_cast<__mmask16>((1U << static_cast<unsigned>(experts - e)) - 1U);
      __m512 const some = _mm512_mask_loadu_ps(low, rest, from + e);
      __m512 const x = _mm512_maskz_max_ps(every_lane, _mm512_maskz_min_ps(every_lane, high, some), low);
      _mm512_storeu_ps(to + e, x);
      allowed += __builtin_popcount(_mm512_cmp_ps_mask(x, low, _CMP_GT_OQ));
      e += 16;
    }
  }
#endif
  for (; e < experts; ++e) {
    to[e] = clean_score(from[e]);
    allowed += to[e] > -infinite<float> ? 1 : 0;
  }
  for (; e < stride; ++e) { to[e] = -infinite<float>; }
  return allowed;
}

#if FAIRLEAD_DETAIL_VECTORS
[[gnu::always_inline]] inline float largest_lane(float_vector const& v) noexcept {
#  if FAIRLEAD_DETAIL_FLOW_MASKS == 512
  return fold(v, pick_greater{});
#  else
  float best = v[0];
  for (int lane = 1; lane < vector_of<float>::lanes; ++lane) { best = v[lane] > best ? v[lane] : best; }
  return best;
#  endif
}
#endif

/// worth[e] = clean score - price, -inf in the padding (its prices do not matter); returns the largest.
template <class Score>
inline float price_row(Score const* from, int experts, int stride, float const* prices, float* worth) noexcept {
#if FAIRLEAD_DETAIL_VECTORS
  if constexpr (std::is_same_v<Score, float>) {
    constexpr int lanes = vector_of<float>::lanes;
    float_vector const zero = {};
    float_vector const low = zero - infinite<float>;
    float_vector const high = zero + greatest_float;
    float_vector best = low;
    int e = 0;
    for (; e + lanes <= experts; e += lanes) {
      float_vector x = load_lanes<float_vector>(from + e);
#  if FAIRLEAD_DETAIL_FLOW_MASKS == 512
      // Both return their second operand for NaN: it stays, then becomes -inf.
      __m512 const finite = _mm512_maskz_min_ps(every_lane, reinterpret_cast<__m512>(high), reinterpret_cast<__m512>(x));
      __m512 const rest = _mm512_sub_ps(finite, _mm512_loadu_ps(prices + e));
      x = reinterpret_cast<float_vector>(_mm512_maskz_max_ps(every_lane, rest, reinterpret_cast<__m512>(low)));
#  else
      x = x > high ? high : x;  // NaN stays
      x -= load_lanes<float_vector>(prices + e);
      x = x > low ? x : low;
#  endif
      store_lanes(worth + e, x);
      best = x > best ? x : best;
    }
#  if FAIRLEAD_DETAIL_FLOW_MASKS == 512
    if (e < experts) {
      auto const rest = static_cast<__mmask16>((1U << static_cast<unsigned>(experts - e)) - 1U);
      __m512 const lowest = reinterpret_cast<__m512>(low);
      __m512 const some = _mm512_mask_loadu_ps(lowest, rest, from + e);
      __m512 const finite = _mm512_maskz_min_ps(every_lane, reinterpret_cast<__m512>(high), some);
      __m512 const less = _mm512_mask_sub_ps(lowest, rest, finite, _mm512_maskz_loadu_ps(rest, prices + e));
      auto const x = reinterpret_cast<float_vector>(_mm512_maskz_max_ps(every_lane, less, lowest));
      store_lanes(worth + e, x);
      best = x > best ? x : best;
      e += lanes;
    }
#  endif
    float top = largest_lane(best);
    for (; e < experts; ++e) {
      worth[e] = clean_score(from[e]) - prices[e];
      top = worth[e] > top ? worth[e] : top;
    }
    for (; e < stride; ++e) { worth[e] = -infinite<float>; }
    return top;
  }
#endif
  (void)read_row(from, experts, stride, worth);
  float top = -infinite<float>;
  for (int e = 0; e < experts; ++e) {
    worth[e] -= prices[e];
    top = worth[e] > top ? worth[e] : top;
  }
  return top;
}

/// Writes the ids, ascending, of what is at least `threshold`; returns how many. `ids` has room for `stride` + 16.
inline int collect_at_least(float const* worth, int stride, float threshold, std::int32_t* ids) noexcept {
  int count = 0;
#if FAIRLEAD_DETAIL_FLOW_MASKS == 512
  __m512 const limit = _mm512_set1_ps(threshold);
  __m512i const step = _mm512_set1_epi32(16);
  __m512i lane_ids = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int e = 0; e < stride; e += 16) {
    __mmask16 const hit = _mm512_cmp_ps_mask(_mm512_loadu_ps(worth + e), limit, _CMP_GE_OQ);
    if (hit != 0) {
      _mm512_storeu_si512(ids + count, _mm512_maskz_compress_epi32(hit, lane_ids));
      count += __builtin_popcount(hit);
    }
    lane_ids = _mm512_add_epi32(lane_ids, step);
  }
#elif FAIRLEAD_DETAIL_FLOW_MASKS == 256
  __m256 const limit = _mm256_set1_ps(threshold);
  for (int e = 0; e < stride; e += 8) {
    unsigned hit = static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(worth + e), limit, _CMP_GE_OQ)));
    for (; hit != 0; hit &= hit - 1) { ids[count++] = e + __builtin_ctz(hit); }
  }
#else
  for (int e = 0; e < stride; ++e) {
    if (worth[e] >= threshold) { ids[count++] = e; }
  }
#endif
  return count;
}

#if FAIRLEAD_DETAIL_VECTORS && FAIRLEAD_DETAIL_FLOW_MASKS == 512
/// `largest_values` for a few: the largest of each lane first, then the best of the lanes' best.
template <int count>
inline void largest_of_lanes(float const* worth, int stride, float* top) noexcept {
  float_vector const low = float_vector{} - infinite<float>;
  float_vector lane_top[count];
  for (auto& one : lane_top) { one = low; }
  for (int e = 0; e < stride; e += vector_of<float>::lanes) {
    auto value = load_lanes<float_vector>(worth + e);
    for (auto& one : lane_top) {
      float_vector const greater = value > one ? value : one;
      value = value > one ? one : value;
      one = greater;
    }
  }
  for (int i = 0; i < count; ++i) {
    top[i] = fold(lane_top[0], pick_greater{});
    auto const hits = static_cast<unsigned>(_mm512_cmp_ps_mask(reinterpret_cast<__m512>(lane_top[0]), _mm512_set1_ps(top[i]), _CMP_EQ_OQ));
    auto const first = static_cast<__mmask16>(hits & (~hits + 1U));
    for (int deep = 0; deep < count; ++deep) {
      __m512 const next = deep + 1 < count ? reinterpret_cast<__m512>(lane_top[deep + 1]) : reinterpret_cast<__m512>(low);
      lane_top[deep] = reinterpret_cast<float_vector>(_mm512_mask_mov_ps(reinterpret_cast<__m512>(lane_top[deep]), first, next));
    }
  }
}
#endif

/// top[0] >= top[1] >= ...: the `count` largest of worth[0, experts), -inf where there are fewer. Equal values count
/// separately. `worth` is padded with -inf.
inline void largest_values(float const* worth, int experts, int count, float* top) noexcept {
#if FAIRLEAD_DETAIL_VECTORS && FAIRLEAD_DETAIL_FLOW_MASKS == 512
  switch (count) {
    case 2: return largest_of_lanes<2>(worth, padded(experts), top);
    case 3: return largest_of_lanes<3>(worth, padded(experts), top);
    case 4: return largest_of_lanes<4>(worth, padded(experts), top);
    default: break;
  }
#endif
  for (int i = 0; i < count; ++i) { top[i] = -infinite<float>; }
  float* const last = top + count - 1;
  for (int e = 0; e < experts; e += flow_padding) {
    int const end = std::min(e + flow_padding, experts);
    float highest = worth[e];
    for (int i = e + 1; i < end; ++i) { highest = worth[i] > highest ? worth[i] : highest; }
    if (!(highest > *last)) { continue; }
    for (int i = e; i < end; ++i) {
      float const value = worth[i];
      if (!(value > *last)) { continue; }
      float* slot = last;
      for (; slot != top && *(slot - 1) < value; --slot) { *slot = *(slot - 1); }
      *slot = value;
    }
  }
}

/// How far `score - price` in fp32 may be off, on both sides of a comparison with the best of the row.
[[nodiscard]] inline float rounding_slack(float best, float largest_price) noexcept {
  float const size = std::abs(best) + largest_price;
  return size * 0x1p-21F;
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END

#undef FAIRLEAD_DETAIL_FLOW_MASKS
