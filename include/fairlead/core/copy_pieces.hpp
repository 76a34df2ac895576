// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief For one source rank: where its copies of each expert go, in the order in which they are dealt.
#include <fairlead/core/load.hpp>

#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Lists of (how many so far, where to), one list an expert; the memory may be a device's.
///
/// The q-th copy of expert e, counted in service order, goes to `targets[i]` of the first i in [offsets[e], offsets[e + 1])
/// with q < ends[i]. A target is a rank, a replica's column or a slot, as whoever fills the lists says.
struct copy_pieces {
  std::span<std::int32_t> offsets;  ///< first piece of each expert, and the end. @shape{experts + 1}
  std::span<count_t> ends;          ///< copies up to and with this piece, ascending in a list
  std::span<std::int32_t> targets;  ///< where they go

  /// @returns number of experts
  [[nodiscard]] index_t experts() const noexcept { return static_cast<index_t>(offsets.size()) - 1; }
};

/// @brief Find where a copy goes.
/// @param offsets see `copy_pieces`
/// @param ends see `copy_pieces`
/// @param targets see `copy_pieces`
/// @param expert expert of the copy, or -1
/// @param place how many copies of that expert were dealt before
/// @returns its target; -1 for no expert, and for a copy beyond the last piece
/// @complexity O(log pieces), no allocation
[[nodiscard]] FAIRLEAD_HD constexpr std::int32_t target_of(std::int32_t const* offsets, count_t const* ends,
                                                           std::int32_t const* targets, std::int32_t expert,
                                                           std::int32_t place) noexcept {
  if (expert < 0) { return -1; }
  std::int32_t first = offsets[expert];
  std::int32_t const end = offsets[expert + 1];
  std::int32_t size = end - first;
  while (size > 0) {
    std::int32_t const half = size / 2;
    bool const beyond = ends[first + half] <= place;
    first = beyond ? first + half + 1 : first;
    size = beyond ? size - half - 1 : half;
  }
  return first < end ? targets[first] : -1;
}

/// @brief Deal out copies on the host: the twin of the device's `deal_copies`.
/// @param copies expert of each copy in service order, or none. @shape{copies}
/// @param pieces where they go
/// @param[out] targets target of each copy, -1 for none. @shape{copies}
/// @param dealt scratch. @shape{experts}
/// @throws contract_violation (level 1) on a shape mismatch
/// @complexity O(copies log pieces + experts), no allocation
/// @determinism integers
inline void deal_copies(std::span<expert_id const> copies, copy_pieces const& pieces, std::span<std::int32_t> targets,
                        std::span<std::int32_t> dealt) {
  FAIRLEAD_EXPECTS(copies.size() == targets.size(), "one target a copy", copies.size(), targets.size());
  FAIRLEAD_EXPECTS(static_cast<index_t>(dealt.size()) >= pieces.experts(), "one counter an expert", dealt.size(), pieces.experts());
  for (std::int32_t& count : dealt) { count = 0; }
  for (std::size_t i = 0; i < copies.size(); ++i) {
    auto const expert = static_cast<std::int32_t>(copies[i]);
    std::int32_t const place = expert < 0 ? 0 : dealt[static_cast<std::size_t>(expert)]++;
    targets[i] = target_of(pieces.offsets.data(), pieces.ends.data(), pieces.targets.data(), expert, place);
  }
}

FAIRLEAD_NAMESPACE_END
