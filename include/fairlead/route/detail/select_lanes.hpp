// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The k best keys of sixteen rows at once (host).
///
/// A lane of a vector register is a row: sixteen columns of sixteen rows are transposed, then each column is inserted
/// into k sorted registers of keys and k of ids. No branch depends on the scores. `docs/design/router_selection.md`
/// tells what else was tried.
#include <fairlead/route/detail/select.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

// GCC's vector extensions; without them (or under nvcc's front end) rows go one by one, with the same result.
#if defined(__GNUC__) && !defined(__CUDACC__)
#  define FAIRLEAD_DETAIL_LANES 1
#  if defined(__AVX512F__)
#    define FAIRLEAD_DETAIL_VECTOR_BYTES 64
#  elif defined(__AVX__)
#    define FAIRLEAD_DETAIL_VECTOR_BYTES 32
#  else
#    define FAIRLEAD_DETAIL_VECTOR_BYTES 16
#  endif
#else
#  define FAIRLEAD_DETAIL_LANES 0
#endif

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

#if FAIRLEAD_DETAIL_LANES
namespace lanes {

/// Column c of sixteen rows becomes `to + 16 c`; columns past the end are -inf.
inline void transpose(float const* const* rows, index_t first, index_t experts, float* to) noexcept {
  if (first + 16 <= experts) {
    for (int c = 0; c < 16; ++c) {
      for (int r = 0; r < 16; ++r) { to[c * 16 + r] = rows[r][first + c]; }
    }
    return;
  }
  for (int c = 0; c < 16; ++c) {
    for (int r = 0; r < 16; ++r) { to[c * 16 + r] = first + c < experts ? rows[r][first + c] : minus_infinity; }
  }
}

typedef float key_vector __attribute__((vector_size(FAIRLEAD_DETAIL_VECTOR_BYTES)));
typedef std::int32_t id_vector __attribute__((vector_size(FAIRLEAD_DETAIL_VECTOR_BYTES)));

/// Puts (x, e) into the descending lists; behind equal keys. J counts the slots but the first.
template <std::size_t... J>
[[gnu::always_inline]] inline void insert(key_vector x, id_vector e, key_vector* key, id_vector* id,
                                          std::index_sequence<J...>) noexcept {
  constexpr std::size_t last = sizeof...(J);
  id_vector const wins[last + 1] = {x > key[0], (x > key[J + 1])...};
  // From the last slot up: a slot takes its upper neighbour where x went above that, else x where x beats it.
  ((key[last - J] = wins[last - J - 1] ? key[last - J - 1] : (wins[last - J] ? x : key[last - J]),
    id[last - J] = wins[last - J - 1] ? id[last - J - 1] : (wins[last - J] ? e : id[last - J])),
   ...);
  key[0] = wins[0] ? x : key[0];
  id[0] = wins[0] ? e : id[0];
}

/// The `Kept` best of sixteen rows. Columns come in id order, so that "greater" alone keeps the lower id of equal keys,
/// and is false for NaN: floats and ids are enough.
template <int Kept>
[[gnu::noinline]] void select(float const* const* rows, index_t experts, chosen_block& out) noexcept {
  constexpr int width = sizeof(key_vector) / sizeof(float);
  constexpr int parts = route_lanes / width;
  constexpr auto slots = std::make_index_sequence<static_cast<std::size_t>(Kept) - 1>();
  alignas(64) float columns[16 * 16];
  key_vector const zero = {};
  id_vector const zero_id = {};
  key_vector keys[parts][Kept];
  id_vector ids[parts][Kept];
  for (int part = 0; part < parts; ++part) {
    for (int j = 0; j < Kept; ++j) {
      keys[part][j] = zero + minus_infinity;
      ids[part][j] = zero_id - 1;
    }
  }
  for (index_t first = 0; first < experts; first += 16) {
    transpose(rows, first, experts, columns);
    for (int part = 0; part < parts; ++part) {
      key_vector key[Kept];
      id_vector id[Kept];
      for (int j = 0; j < Kept; ++j) {
        key[j] = keys[part][j];
        id[j] = ids[part][j];
      }
#pragma GCC unroll 16
      for (int c = 0; c < 16; ++c) {
        key_vector x;
        std::memcpy(&x, columns + c * 16 + part * width, sizeof x);
        insert(x, zero_id + static_cast<std::int32_t>(first + c), key, id, slots);
      }
      for (int j = 0; j < Kept; ++j) {
        keys[part][j] = key[j];
        ids[part][j] = id[j];
      }
    }
  }
  for (int j = 0; j < Kept; ++j) {
    for (int part = 0; part < parts; ++part) {
      std::memcpy(out.keys + j * route_lanes + part * width, &keys[part][j], sizeof(key_vector));
      std::memcpy(out.ids + j * route_lanes + part * width, &ids[part][j], sizeof(id_vector));
    }
  }
}

template <int Kept>
void run(float const* const* rows, index_t blocks, index_t experts, chosen_block* out) noexcept {
  for (index_t b = 0; b < blocks; ++b) { select<Kept>(rows + b * route_lanes, experts, out[b]); }
}

}  // namespace lanes
#endif

/// `rows` are the first keys of `blocks * route_lanes` rows. The width is dispatched here, outside the loop over rows.
inline void select_blocks(float const* const* rows, index_t blocks, index_t experts, index_t fan_out,
                          chosen_block* out) noexcept {
#if FAIRLEAD_DETAIL_LANES
  switch (fan_out) {
    case 1: return lanes::run<1>(rows, blocks, experts, out);
    case 2: return lanes::run<2>(rows, blocks, experts, out);
    case 3: return lanes::run<3>(rows, blocks, experts, out);
    case 4: return lanes::run<4>(rows, blocks, experts, out);
    case 5: return lanes::run<5>(rows, blocks, experts, out);
    case 6: return lanes::run<6>(rows, blocks, experts, out);
    case 7: return lanes::run<7>(rows, blocks, experts, out);
    case 8: return lanes::run<8>(rows, blocks, experts, out);
    default: break;
  }
  // Wider ones share a kernel: slots past fan_out hold what came next and are not looked at.
  if (fan_out <= 16) { return lanes::run<16>(rows, blocks, experts, out); }
#endif
  for (index_t b = 0; b < blocks; ++b) {
    for (int i = 0; i < route_lanes; ++i) {
      select_row(rows[b * route_lanes + i], experts, fan_out, route_lanes, out[b].keys + i, out[b].ids + i);
    }
  }
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END

#undef FAIRLEAD_DETAIL_LANES
#undef FAIRLEAD_DETAIL_VECTOR_BYTES
