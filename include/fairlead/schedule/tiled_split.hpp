// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Split in whole tiles of a grouped product, so that ranks are even in tiles and not only in copies.
#include <fairlead/concepts/composition.hpp>
#include <fairlead/concepts/replica_split.hpp>
#include <fairlead/schedule/detail/shares.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Let another split count tiles instead of copies: every share but one of an expert is a multiple of the tile.
///
/// A grouped product computes whole tiles of rows, so a share of 129 rows costs as much as one of 256 when a tile has 128.
/// The loads are rounded up to tiles, split, and turned back; what an expert has less than its tiles is taken from its last
/// replica with a share. No expert then has more tiles in all than it needs on one rank, and with an exact inner split the
/// largest number of tiles of a rank is the least possible under that condition.
/// Base loads of the inner split, if it has any, count tiles.
/// @tparam Split what splits the tiles (`replica_split`)
/// @source{2511.16947, MicroMoE} - the objective there counts tokens; tiles are this library's
template <class Split>
struct tiled_split {
  Split split_tiles{};  ///< splits numbers of tiles
  index_t tile = 128;   ///< rows of a tile, >= 1

  /// @brief Split.
  /// @param totals copies an expert, in [0, 2^31). @shape{experts}
  /// @param where the placement
  /// @param[out] shares copies a replica. @shape{where.replicas()}
  /// @param ws scratch
  /// @returns the report of the inner split, with `value` the largest number of copies of a rank and no `bound`
  /// @throws contract_violation (level 1) on a bad tile or a shape mismatch, (level 2) on a load out of range
  /// @complexity that of the inner split, plus O(experts + replicas); no allocation
  /// @determinism that of the inner split
  report split(std::span<index_t const> totals, placement const& where, std::span<count_t> shares, workspace& ws) const {
    static_assert(replica_split<Split>, ".split_tiles must model fairlead::replica_split (concepts/replica_split.hpp), e.g. fairlead::min_max_flow");
    FAIRLEAD_EXPECTS(tile >= 1 && tile < (index_t{1} << 30), "a tile has at least one row", tile);
    detail::check_split(totals, where, shares);
    workspace::scope const scope(ws);
    auto const tiles = ws.take<index_t>(where.experts());
    for (std::size_t e = 0; e < totals.size(); ++e) {
      tiles[e] = (totals[e] + tile - 1) / tile;
    }
    report ended = split_tiles.split(tiles, where, shares, ws);
    auto const load = ws.take<index_t>(where.ranks());
    std::fill(load.begin(), load.end(), index_t{0});
    for (std::size_t e = 0; e < totals.size(); ++e) {
      auto const first = static_cast<std::size_t>(where.replica_offset(static_cast<expert_id>(e)));
      auto const replicas = where.replicas(static_cast<expert_id>(e));
      index_t missing = tiles[e] * tile - totals[e];
      for (std::size_t c = replicas.size(); c-- > 0;) {
        index_t const rows = shares[first + c] * tile;
        index_t const less = std::min(missing, rows);
        shares[first + c] = static_cast<count_t>(rows - less);
        missing -= less;
        load[static_cast<std::size_t>(replicas[c].rank)] += rows - less;
      }
    }
    ended.value = load.empty() ? 0.0 : static_cast<double>(*std::max_element(load.begin(), load.end()));
    ended.bound = 0.0;
    return ended;
  }
  /// @param where the placement
  /// @returns bytes of scratch
  [[nodiscard]] std::size_t workspace_bytes(placement const& where) const {
    return fairlead::workspace_bytes<index_t>(where.experts()) + fairlead::workspace_bytes<index_t>(where.ranks()) + split_tiles.workspace_bytes(where);
  }
};

/// It makes the sense of replicas that its inner split makes.
template <class Split, replica_meaning Meaning>
inline constexpr bool schedules_meaning<tiled_split<Split>, Meaning> = schedules_meaning<Split, Meaning>;

FAIRLEAD_NAMESPACE_END
