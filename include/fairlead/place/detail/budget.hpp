// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief A slot table that is changed step by step towards another one, with loads and fetches kept up to date.
#include <fairlead/place/detail/slot_mapping.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// Loads in fixed point: an expert's share of one replica is (load << shift) / replicas, the same integer on every rank.
class budget_state {
 public:
  __extension__ typedef __int128 wide;  // NOLINT(modernize-use-using): in a class nvcc takes the marker before typedef only

  // How uneven a table is: the largest load of a rank, then the sum of squares.
  struct unevenness {
    std::int64_t largest = 0;
    wide squares = 0;
    [[nodiscard]] bool operator<(unevenness const& other) const noexcept {
      return largest != other.largest ? largest < other.largest : squares < other.squares;
    }
  };

  [[nodiscard]] static std::size_t bytes(topology const& cluster, index_t experts) noexcept {
    return 2 * workspace_bytes<std::int32_t>(experts) + 2 * workspace_bytes<std::int32_t>(cluster.slots()) +
           3 * workspace_bytes<std::int64_t>(cluster.ranks()) + 2 * workspace_bytes<std::int32_t>(cluster.ranks());
  }

  budget_state(topology const& cluster, std::span<index_t const> load, std::span<expert_id const> now,
               std::span<expert_id> table, workspace& ws)
      : cluster_(cluster),
        load_(load),
        now_(now),
        table_(table),
        replicas_(ws.take<std::int32_t>(static_cast<index_t>(load.size()))),
        head_(ws.take<std::int32_t>(static_cast<index_t>(load.size()))),
        after_(ws.take<std::int32_t>(cluster.slots())),
        rank_of_(ws.take<std::int32_t>(cluster.slots())),
        loads_(ws.take<std::int64_t>(cluster.ranks())),
        change_(ws.take<std::int64_t>(cluster.ranks())),
        place_(ws.take<std::int64_t>(cluster.ranks())),
        fetches_(ws.take<std::int32_t>(cluster.ranks())),
        touched_(ws.take<std::int32_t>(cluster.ranks())) {
    std::uint64_t total = 0;
    for (index_t const one : load) { total += static_cast<std::uint64_t>(one); }
    // Sums stay below 2^62; squares of 2^62 fit into the wide type.
    shift_ = std::min(40, 61 - static_cast<int>(std::bit_width(total)));
    shift_ = std::max(shift_, 0);
    for (index_t rank = 0; rank < cluster.ranks(); ++rank) {
      for (index_t slot = cluster.slot_offsets()[static_cast<std::size_t>(rank)];
           slot < cluster.slot_offsets()[static_cast<std::size_t>(rank) + 1]; ++slot) {
        rank_of_[static_cast<std::size_t>(slot)] = static_cast<std::int32_t>(rank);
      }
    }
    rebuild();
  }

  // Read the table again.
  void rebuild() noexcept {
    std::fill(replicas_.begin(), replicas_.end(), 0);
    std::fill(head_.begin(), head_.end(), -1);
    std::fill(loads_.begin(), loads_.end(), std::int64_t{0});
    std::fill(change_.begin(), change_.end(), std::int64_t{0});
    std::fill(place_.begin(), place_.end(), std::int64_t{0});
    for (std::size_t slot = table_.size(); slot-- > 0;) {
      if (table_[slot] != expert_id::none) { link(slot, table_[slot]); }
    }
    for (std::size_t slot = 0; slot < table_.size(); ++slot) {
      if (table_[slot] != expert_id::none) {
        loads_[static_cast<std::size_t>(rank_of_[slot])] += share(table_[slot], 0);
      }
    }
    largest_ = measure().largest;
    fetched_ = 0;
    for (index_t rank = 0; rank < cluster_.ranks(); ++rank) {
      fetched_ += fetches_[static_cast<std::size_t>(rank)] = static_cast<std::int32_t>(fetches(rank));
    }
  }

  [[nodiscard]] unevenness measure() const noexcept {
    unevenness result;
    for (std::int64_t const load : loads_) {
      result.largest = std::max(result.largest, load);
      result.squares += static_cast<wide>(load) * load;
    }
    return result;
  }
  [[nodiscard]] double to_copies(std::int64_t load) const noexcept {
    return static_cast<double>(load) / static_cast<double>(std::int64_t{1} << shift_);
  }
  [[nodiscard]] std::int32_t replicas(expert_id expert) const noexcept {
    return replicas_[static_cast<std::size_t>(expert)];
  }
  [[nodiscard]] index_t fetched() const noexcept { return fetched_; }
  [[nodiscard]] std::int32_t first_slot(expert_id expert) const noexcept {
    return head_[static_cast<std::size_t>(expert)];
  }
  [[nodiscard]] std::int32_t next_slot(std::int32_t slot) const noexcept {
    return after_[static_cast<std::size_t>(slot)];
  }
  [[nodiscard]] std::int32_t rank_of(std::size_t slot) const noexcept { return rank_of_[slot]; }
  [[nodiscard]] std::int64_t load_of(std::int32_t rank) const noexcept {
    return loads_[static_cast<std::size_t>(rank)];
  }
  // Copies of one replica when there are `more` of them.
  [[nodiscard]] std::int64_t share(expert_id expert, std::int32_t more) const noexcept {
    auto const e = static_cast<std::size_t>(expert);
    std::int32_t const count = replicas_[e] + more;
    return count <= 0 ? 0 : (static_cast<std::int64_t>(load_[e]) << shift_) / count;
  }

  // By how much the sum of squares falls if `slot` takes `expert` instead of what it holds; 0 if a rank would get more
  // than the largest load now.
  [[nodiscard]] wide gain_of_replacing(std::size_t slot, expert_id expert) noexcept {
    expert_id const old = table_[slot];
    std::size_t count = 0;
    auto const add = [&](std::int32_t rank, std::int64_t by) {
      std::int64_t& change = change_[static_cast<std::size_t>(rank)];
      if (!listed(rank, count)) { touched_[count++] = rank; }
      change += by;
    };
    if (old != expert_id::none) {
      std::int64_t const step = share(old, -1) - share(old, 0);
      for (std::int32_t at = first_slot(old); at >= 0; at = next_slot(at)) {
        add(rank_of_[static_cast<std::size_t>(at)], step);
      }
      add(rank_of_[slot], -share(old, -1));
    }
    std::int64_t const step = share(expert, 1) - share(expert, 0);
    for (std::int32_t at = first_slot(expert); at >= 0; at = next_slot(at)) {
      add(rank_of_[static_cast<std::size_t>(at)], step);
    }
    add(rank_of_[slot], share(expert, 1));
    wide gain = 0;
    bool higher = false;
    for (std::size_t i = 0; i < count; ++i) {
      auto const rank = static_cast<std::size_t>(touched_[i]);
      higher = higher || loads_[rank] + change_[rank] > largest_;
      gain -= static_cast<wide>(change_[rank]) * (2 * static_cast<wide>(loads_[rank]) + change_[rank]);
      change_[rank] = 0;
      place_[rank] = 0;
    }
    return higher ? 0 : gain;
  }
  // The same if two slots on different ranks change places.
  [[nodiscard]] wide gain_of_swapping(std::size_t a, std::size_t b) const noexcept {
    std::int64_t const mine = table_[a] == expert_id::none ? 0 : share(table_[a], 0);
    std::int64_t const theirs = table_[b] == expert_id::none ? 0 : share(table_[b], 0);
    wide const change = theirs - mine;
    wide const here = loads_[static_cast<std::size_t>(rank_of_[a])];
    wide const there = loads_[static_cast<std::size_t>(rank_of_[b])];
    if (here + change > largest_ || there - change > largest_) { return 0; }
    return -(change * (2 * here + change)) - (-change * (2 * there - change));
  }
  // Fetches in all if slot a took x and slot b (if any) took y.
  [[nodiscard]] index_t fetched_after(std::size_t a, expert_id x, std::ptrdiff_t b, expert_id y) noexcept {
    expert_id const old_a = table_[a];
    table_[a] = x;
    auto const ra = static_cast<std::size_t>(rank_of_[a]);
    index_t result = fetched_ - fetches_[ra];
    if (b < 0) {
      result += fetches(static_cast<index_t>(ra));
    } else {
      auto const slot = static_cast<std::size_t>(b);
      expert_id const old_b = table_[slot];
      table_[slot] = y;
      auto const rb = static_cast<std::size_t>(rank_of_[slot]);
      result += fetches(static_cast<index_t>(ra)) + fetches(static_cast<index_t>(rb)) - fetches_[rb];
      table_[slot] = old_b;
    }
    table_[a] = old_a;
    return result;
  }
  void put(std::size_t slot, expert_id expert) noexcept {
    table_[slot] = expert;
    rebuild();
  }
  void swap(std::size_t a, std::size_t b) noexcept {
    std::swap(table_[a], table_[b]);
    rebuild();
  }

 private:
  // Whether a rank is in the list of touched ones; `place_` holds its place plus one, and is zero otherwise.
  [[nodiscard]] bool listed(std::int32_t rank, std::size_t count) noexcept {
    std::int64_t& place = place_[static_cast<std::size_t>(rank)];
    bool const known =
        place > 0 && place <= static_cast<std::int64_t>(count) && touched_[static_cast<std::size_t>(place - 1)] == rank;
    if (!known) { place = static_cast<std::int64_t>(count) + 1; }
    return known;
  }
  void link(std::size_t slot, expert_id expert) noexcept {
    auto const e = static_cast<std::size_t>(expert);
    after_[slot] = head_[e];
    head_[e] = static_cast<std::int32_t>(slot);
    ++replicas_[e];
  }
  // Distinct experts of a rank that it does not have now; ranks have few slots.
  [[nodiscard]] index_t fetches(index_t rank) const noexcept {
    auto const row = row_of(cluster_, table_, rank);
    auto const old = row_of(cluster_, now_, rank);
    index_t count = 0;
    for (std::size_t slot = 0; slot < row.size(); ++slot) {
      bool const known = row[slot] == expert_id::none || std::find(old.begin(), old.end(), row[slot]) != old.end() ||
                         std::find(row.begin(), row.begin() + static_cast<std::ptrdiff_t>(slot), row[slot]) !=
                             row.begin() + static_cast<std::ptrdiff_t>(slot);
      count += known ? 0 : 1;
    }
    return count;
  }

  topology const& cluster_;
  std::span<index_t const> load_;
  std::span<expert_id const> now_;
  std::span<expert_id> table_;
  std::span<std::int32_t> replicas_;
  std::span<std::int32_t> head_;
  std::span<std::int32_t> after_;
  std::span<std::int32_t> rank_of_;
  std::span<std::int64_t> loads_;
  std::span<std::int64_t> change_;
  std::span<std::int64_t> place_;
  std::span<std::int32_t> fetches_;
  std::span<std::int32_t> touched_;
  index_t fetched_ = 0;
  std::int64_t largest_ = 0;
  int shift_ = 0;
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
