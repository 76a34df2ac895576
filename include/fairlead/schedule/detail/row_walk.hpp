// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Walk sources and replicas of all experts together, one source at a time, so that memory is met row by row.
#include <fairlead/core/topology.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/schedule/detail/shares.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// The staircase of one expert goes down the sources; all staircases go down together here.
class row_walk {
 public:
  row_walk(placement const& where, workspace& ws)
      : columns_(where.replicas()), left_(ws.take<count_t>(where.replicas())), room_(ws.take<count_t>(where.experts())),
        first_(ws.take<std::int32_t>(where.experts() + 1)), cursor_(ws.take<std::int32_t>(where.experts())),
        stop_(ws.take<std::int32_t>(where.experts())), list_(ws.take<std::int32_t>(where.experts())),
        rest_(ws.take<count_t>(where.ranks() * where.experts()).data(), where.ranks(), where.experts()) {
    for (std::size_t e = 0; e < cursor_.size(); ++e) { first_[e] = static_cast<std::int32_t>(where.replica_offset(static_cast<expert_id>(e))); }
    first_[cursor_.size()] = static_cast<std::int32_t>(where.replicas());
  }
  [[nodiscard]] static std::size_t bytes(placement const& where) noexcept {
    return workspace_bytes<count_t>(where.replicas()) + workspace_bytes<count_t>(where.experts()) +
           workspace_bytes<std::int32_t>(where.experts() + 1) + 3 * workspace_bytes<std::int32_t>(where.experts()) +
           workspace_bytes<count_t>(where.ranks() * where.experts());
  }

  // Starts with all of load and shares; `out` becomes zero.
  void begin(load_view load, std::span<count_t const> shares, token_schedule_view out) noexcept {
    clear(out);
    std::copy(shares.begin(), shares.end(), left_.begin());
    for (index_t source = 0; source < rest_.rows(); ++source) { std::copy_n(load.row(source), rest_.cols(), rest_.row(source)); }
  }

  // Each replica takes what its own rank has. Returns how many copies.
  index_t keep_local(placement const& where, token_schedule_view out) noexcept {
    index_t local = 0;
    for (index_t r = 0; r < where.ranks(); ++r) {
      auto const rank = static_cast<rank_id>(r);
      auto const experts = where.experts_on(rank);
      for (std::size_t slot = 0; slot < experts.size(); ++slot) {
        if (experts[slot] == expert_id::none) { continue; }
        count_t& rest = rest_(r, to_index(experts[slot]));
        index_t const column = where.replica_at(rank, static_cast<local_slot_id>(slot));
        count_t& left = left_[static_cast<std::size_t>(column)];
        count_t const amount = std::min(rest, left);
        out(r, column) = amount;
        rest -= amount;
        left -= amount;
        local += amount;
      }
    }
    return local;
  }

  // Sources feed replicas on their node. Replicas are sorted by rank and nodes are consecutive ranks.
  void keep_on_node(placement const& where, topology const& cluster, token_schedule_view out) noexcept {
    std::copy(first_.begin(), first_.end() - 1, stop_.begin());
    auto const nodes = cluster.node_offsets();
    for (std::size_t node = 0; node + 1 < nodes.size(); ++node) {
      std::size_t count = 0;
      for (std::size_t e = 0; e < stop_.size(); ++e) {
        auto const replicas = where.replicas(static_cast<expert_id>(e));
        std::int32_t const begin = stop_[e];
        std::int32_t stop = begin;
        while (stop < first_[e + 1] && to_index(replicas[static_cast<std::size_t>(stop - first_[e])].rank) < nodes[node + 1]) { ++stop; }
        if (stop == begin) { continue; }
        stop_[e] = stop;
        cursor_[e] = begin;
        room_[e] = left_[static_cast<std::size_t>(begin)];
        list_[count++] = static_cast<std::int32_t>(e);
      }
      auto const listed = list_.first(count);
      for (index_t source = nodes[node]; source < nodes[node + 1]; ++source) {
        count_t* const row = out.row(source);
        count_t* const rest = rest_.row(source);
        for (std::int32_t const expert : listed) {
          auto const e = static_cast<std::size_t>(expert);
          rest[e] = descend(row, e, rest[e], stop_[e]);
        }
      }
      for (std::int32_t const expert : listed) {
        auto const e = static_cast<std::size_t>(expert);
        left_[static_cast<std::size_t>(cursor_[e])] = room_[e];
      }
    }
  }

  // Everything that is left; with `rotate`, expert e begins at source e mod ranks.
  void fill(token_schedule_view out, bool rotate) noexcept {
    if (columns_ == 0) { return; }
    for (std::size_t e = 0; e < cursor_.size(); ++e) {
      bool const hosted = first_[e] < first_[e + 1];
      cursor_[e] = hosted ? first_[e] : 0;  // nothing is ever added there
      room_[e] = hosted ? left_[static_cast<std::size_t>(first_[e])] : 0;
    }
    if (rotate) {
      fill_round<true>(out, 0);
      fill_round<true>(out, 1);
    } else {
      fill_round<false>(out, 0);
    }
  }

 private:
  template <bool rotate>
  void fill_round(token_schedule_view out, int round) noexcept {
    index_t const sources = rest_.rows();
    for (index_t source = 0; source < sources; ++source) {
      count_t const* const rest = rest_.row(source);
      count_t* const row = out.row(source);
      [[maybe_unused]] index_t start = 0;
      for (std::size_t e = 0; e < cursor_.size(); ++e) {
        if constexpr (rotate) {
          bool const turn = (source >= start) == (round == 0);
          start = start + 1 == sources ? 0 : start + 1;
          if (!turn) { continue; }
        }
        count_t const amount = rest[e];
        if (amount <= room_[e]) [[likely]] {
          row[cursor_[e]] += amount;
          room_[e] -= amount;
        } else {
          (void)descend(row, e, amount, first_[e + 1]);
        }
      }
    }
  }
  // A source's copies of an expert go to the next replicas that have room. Returns how many are left.
  count_t descend(count_t* row, std::size_t e, count_t amount, std::int32_t stop) noexcept {
    while (amount > 0) {
      count_t const here = std::min(amount, room_[e]);
      auto const column = static_cast<std::size_t>(cursor_[e]);
      row[column] += here;
      room_[e] -= here;
      amount -= here;
      if (amount == 0 || cursor_[e] + 1 >= stop) { break; }
      left_[column] = 0;
      room_[e] = left_[static_cast<std::size_t>(++cursor_[e])];
    }
    return amount;
  }

  index_t columns_;
  std::span<count_t> left_, room_;
  std::span<std::int32_t> first_, cursor_, stop_, list_;
  matrix_view<count_t> rest_;
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
