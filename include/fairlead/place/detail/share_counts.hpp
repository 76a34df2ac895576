// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Experts by descending load, and the numbers of replicas that make the largest load a replica smallest.
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail::packing {

__extension__ using wide = unsigned __int128;

// Whether load_a / replicas_a > load_b / replicas_b, exactly.
[[nodiscard]] inline bool larger_share(std::uint64_t load_a, std::uint32_t replicas_a, std::uint64_t load_b,
                                       std::uint32_t replicas_b) noexcept {
  return static_cast<wide>(load_a) * replicas_b > static_cast<wide>(load_b) * replicas_a;
}
[[nodiscard]] inline bool equal_share(std::uint64_t load_a, std::uint32_t replicas_a, std::uint64_t load_b,
                                      std::uint32_t replicas_b) noexcept {
  return static_cast<wide>(load_a) * replicas_b == static_cast<wide>(load_b) * replicas_a;
}

// Sorting by keys of 16 bits: enough to leave next to nothing to the exact comparison that follows.
struct sort_scratch {
  std::uint32_t* now;    // [n]
  std::uint32_t* then;   // [n]
  std::uint32_t* count;  // [512]
  static std::size_t bytes(index_t n) {
    return 2 * fairlead::workspace_bytes<std::uint32_t>(n) + fairlead::workspace_bytes<std::uint32_t>(512);
  }
  sort_scratch(index_t n, workspace& ws)
      : now(ws.take<std::uint32_t>(n).data()),
        then(ws.take<std::uint32_t>(n).data()),
        count(ws.take<std::uint32_t>(512).data()) {}
};

// Writes 0 ... n - 1 by (key descending, number ascending) into `order`.
inline void sort_descending(std::uint64_t const* keys, std::uint32_t n, std::uint32_t* order, sort_scratch const& s) {
  auto const before = [keys](std::uint32_t a, std::uint32_t b) {
    return keys[a] != keys[b] ? keys[a] > keys[b] : a < b;
  };
  std::uint64_t budget = std::uint64_t{8} * n + 64;  // moves of the insertion sort before something with a guarantee
  if (n >= 48 && n <= 0x10000U) {
    // As fp64 numbers, whose bits sort as they do: a 16-bit window that the range of the keys just fills.
    std::uint64_t top = 0;
    std::uint64_t low = ~std::uint64_t{0};
    for (std::uint32_t i = 0; i < n; ++i) {
      top = std::max(top, keys[i]);
      low = std::min(low, keys[i] - 1);  // 0 does not count: it wraps
    }
    auto const bits = [](std::uint64_t key) {
      return std::bit_cast<std::uint64_t>(static_cast<double>(static_cast<std::int64_t>(key)));
    };
    std::uint64_t const high = bits(top);
    std::uint64_t const range = top == 0 ? 0 : high - bits(low + 1);
    int const shift = std::max(0, static_cast<int>(std::bit_width(range)) - 16);
    std::memset(s.count, 0, 512 * sizeof(std::uint32_t));
    std::uint32_t* const count_low = s.count;
    std::uint32_t* const count_high = s.count + 256;
    for (std::uint32_t i = 0; i < n; ++i) {
      auto const key = static_cast<std::uint32_t>(std::min<std::uint64_t>((high - bits(keys[i])) >> shift, 0xFFFF));
      s.now[i] = key << 16U | i;
      ++count_low[key & 0xFFU];
      ++count_high[key >> 8U];
    }
    std::uint32_t sum_low = 0;
    std::uint32_t sum_high = 0;
    for (std::uint32_t b = 0; b < 256; ++b) {
      std::uint32_t const in_low = count_low[b];
      std::uint32_t const in_high = count_high[b];
      count_low[b] = sum_low;
      count_high[b] = sum_high;
      sum_low += in_low;
      sum_high += in_high;
    }
    for (std::uint32_t i = 0; i < n; ++i) {
      std::uint32_t const entry = s.now[i];
      s.then[count_low[entry >> 16U & 0xFFU]++] = entry;
    }
    for (std::uint32_t i = 0; i < n; ++i) {
      std::uint32_t const entry = s.then[i];
      order[count_high[entry >> 24U]++] = entry & 0xFFFFU;
    }
  } else {
    for (std::uint32_t i = 0; i < n; ++i) { order[i] = i; }
  }
  for (std::uint32_t i = 1; i < n; ++i) {  // equal keys are in order of their numbers by now and stay so
    std::uint32_t const entry = order[i];
    std::uint64_t const key = keys[entry];
    std::uint32_t at = i;
    for (; at > 0 && keys[order[at - 1]] < key; --at) { order[at] = order[at - 1]; }
    order[at] = entry;
    if (i - at > budget) { return std::sort(order, order + n, before); }
    budget -= i - at;
  }
}

// Numbers of replicas by repeatedly giving one more to the expert with the largest load a replica; ties to the lowest
// number. Experts come by descending load: those with several replicas are then a prefix.
struct share_counts {
  std::uint64_t const* load;    // [n] descending, with ties by ascending number
  std::uint32_t const* number;  // [n] number of the expert: decides ties
  std::uint32_t n;
  std::uint32_t* replicas;  // [n] out
  std::uint32_t* heap;      // [n] scratch
  std::uint32_t limit;      // replicas an expert may have, >= 1

  // Whether position a gets the next replica before position b.
  [[nodiscard]] bool before(std::uint32_t a, std::uint32_t b) const noexcept {
    wide const left = static_cast<wide>(load[a]) * replicas[b];
    wide const right = static_cast<wide>(load[b]) * replicas[a];
    return left != right ? left > right : number[a] < number[b];
  }
  void sift_down(std::uint32_t at, std::uint32_t size) const noexcept {
    std::uint32_t const entry = heap[at];
    for (std::uint32_t child = 2 * at + 1; child < size; child = 2 * at + 1) {
      if (child + 1 < size && before(heap[child + 1], heap[child])) { ++child; }
      if (!before(heap[child], entry)) { break; }
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = entry;
  }
  void sift_up(std::uint32_t at) const noexcept {
    std::uint32_t const entry = heap[at];
    for (; at > 0 && before(entry, heap[(at - 1) / 2]); at = (at - 1) / 2) { heap[at] = heap[(at - 1) / 2]; }
    heap[at] = entry;
  }

  // Most of the replicas at once, by a threshold on the load a replica; never one too many. Returns how many experts
  // got some.
  std::uint32_t leap(std::uint64_t& spare) const noexcept {
    // The threshold t at which sum of load / t is about what is wanted, halves rounded off: one walk down the loads.
    double sum = 0.0;
    double const wanted = static_cast<double>(spare);
    std::uint32_t active = 0;
    while (active < n && 2.0 * active<wanted&& static_cast<double>(load[active]) * (wanted - 0.5 * active)> sum) {
      sum += static_cast<double>(load[active++]);
    }
    for (int attempt = 0; attempt < 4; ++attempt, sum *= 1.0625) {
      double const factor = (wanted - 0.5 * active) / sum * (1.0 - 0x1p-40);
      std::uint64_t given = 0;
      for (std::uint32_t i = 0; i < active; ++i) {
        auto const count = static_cast<std::uint32_t>(static_cast<double>(load[i]) * factor);
        replicas[i] = 1 + count;
        given += count;
      }
      // One to spare for each of them: rounding at the threshold can then not matter.
      if (given + active <= spare && replicas[0] <= limit) {
        spare -= given;
        while (active > 0 && replicas[active - 1] == 1) { --active; }
        return active;
      }
    }
    std::fill_n(replicas, active, 1U);
    return 0;
  }

  // Gives out `spare` replicas beyond one each. Returns how many found no taker because of the limit, and in `prefix`
  // the number of experts with more than one.
  std::uint64_t give(std::uint64_t spare, std::uint32_t& prefix) const noexcept {
    std::fill_n(replicas, n, 1U);
    std::uint32_t active = spare >= 32 ? leap(spare) : 0;
    std::uint32_t size = 0;
    for (std::uint32_t i = 0; i < active; ++i) {
      if (replicas[i] < limit) { heap[size++] = i; }
    }
    for (std::uint32_t i = size / 2; i > 0; --i) { sift_down(i - 1, size); }
    for (; spare > 0; --spare) {
      if (active < n && limit > 1 && (size == 0 || before(active, heap[0]))) {
        ++replicas[active];
        if (replicas[active] < limit) {
          heap[size] = active;
          sift_up(size++);
        }
        ++active;
        continue;
      }
      if (size == 0) { break; }
      if (++replicas[heap[0]] == limit) { heap[0] = heap[--size]; }
      if (size > 0) { sift_down(0, size); }
    }
    prefix = active;
    return spare;
  }
};

}  // namespace detail::packing
FAIRLEAD_NAMESPACE_END
