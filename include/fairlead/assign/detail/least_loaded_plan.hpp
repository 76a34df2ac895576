// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The body of `least_loaded`: one pass over the experts of overloaded ranks.
#include <fairlead/assign/detail/load_sort.hpp>
#include <fairlead/assign/rerouting_policies.hpp>
#include <fairlead/core/rerouting.hpp>
#include <fairlead/core/topology.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

// The run-time choices of `least_loaded`, without its policies.
struct least_loaded_rules {
  index_t least_chunk;
  index_t most_imports;
  tail_rule tail;
  recipient_order recipients;
  forced_rule forced;
  recipient_scan scan;
  bool residents_first;
  bool forced_shed;
  bool coalesce;
};

// What one call works on. A rank's expected load is what it computes as far as decided, plus all undecided copies of its
// own experts: so the room for an expert is what is left after all smaller ones of its rank have theirs.
class least_loaded_pass {
 public:
  struct chunk {
    std::int32_t rank;
    index_t amount;
  };

  [[nodiscard]] static std::size_t workspace_bytes(index_t experts, index_t ranks) noexcept {
    return 3 * fairlead::workspace_bytes<std::int32_t>(experts) + 2 * fairlead::workspace_bytes<load_key>(experts) +
           fairlead::workspace_bytes<chunk>(rerouting::most_segments(experts, ranks)) +
           3 * fairlead::workspace_bytes<std::int32_t>(ranks) + fairlead::workspace_bytes<std::uint8_t>(ranks);
  }

  least_loaded_pass(least_loaded_rules const& rules, topology const* cluster, std::span<index_t const> totals,
                    placement const& where, rerouting& out, workspace& ws)
      : rules_(rules), cluster_(cluster), totals_(totals), where_(where), out_(out), expected_(out.rank_load) {
    auto const experts = static_cast<index_t>(totals.size());
    auto const ranks = static_cast<index_t>(expected_.size());
    native_ = ws.take<std::int32_t>(experts);
    first_ = ws.take<std::int32_t>(experts);
    count_ = ws.take<std::int32_t>(experts);
    keys_ = ws.take<load_key>(experts);
    other_keys_ = ws.take<load_key>(experts);
    chunks_ = ws.take<chunk>(rerouting::most_segments(experts, ranks));
    latest_ = ws.take<std::int32_t>(ranks);
    imports_ = ws.take<std::int32_t>(ranks);
    list_ = ws.take<std::int32_t>(ranks);
    listed_ = ws.take<std::uint8_t>(ranks);
  }

  // Loads without rerouting. Returns false if an expert with copies has no replica.
  [[nodiscard]] bool count_native_loads() {
    std::fill(expected_.begin(), expected_.end(), index_t{0});
    for (std::size_t e = 0; e < totals_.size(); ++e) {
      auto const replicas = where_.replicas(static_cast<expert_id>(e));
      native_[e] = replicas.empty() ? -1 : static_cast<std::int32_t>(replicas.front().rank);
      total_ += totals_[e];
      if (replicas.empty()) {
        if (totals_[e] > 0) { return false; }
        continue;
      }
      expected_[static_cast<std::size_t>(native_[e])] += totals_[e];
    }
    for (index_t rank = 0; rank < where_.ranks(); ++rank) { hosting_ += where_.slots(static_cast<rank_id>(rank)) > 0 ? 1 : 0; }
    return true;
  }
  [[nodiscard]] index_t total() const noexcept { return total_; }
  [[nodiscard]] index_t hosting() const noexcept { return hosting_; }

  void keep_all() {
    std::fill(first_.begin(), first_.end(), -1);
    publish();
  }

  void reroute(index_t capacity) {
    capacity_ = capacity;
    std::fill(first_.begin(), first_.end(), -1);
    std::fill(latest_.begin(), latest_.end(), -1);
    std::fill(imports_.begin(), imports_.end(), 0);
    std::size_t const ranks = expected_.size();
    for (std::size_t rank = 0; rank < ranks; ++rank) {
      listed_[rank] = expected_[rank] > capacity ? 1 : 0;
      // A rank without slots computes nothing: as if it were full.
      if (where_.slots(static_cast<rank_id>(rank)) == 0) { expected_[rank] = closed; }
    }
    std::span<load_key> order = collect(std::numeric_limits<index_t>::max(), -1);
    for (std::size_t at = 0; at < order.size(); ++at) {
      auto const e = static_cast<std::size_t>(order[at].expert);
      auto const rank = static_cast<std::size_t>(native_[e]);
      if (expected_[rank] <= capacity) { continue; }  // has shed enough: all that is left stays
      give_away(e, rank);
      if (joined_) {  // a forced remainder overloaded a rank whose experts were not looked at
        joined_ = false;
        order = collect(totals_[e], static_cast<std::int32_t>(e));
        at = static_cast<std::size_t>(-1);
      }
    }
    for (index_t& load : expected_) { load = load == closed ? 0 : load; }
    publish();
  }

 private:
  static constexpr index_t closed = std::numeric_limits<index_t>::max();

  // The experts of listed ranks that come after (load, expert), in the order of the pass.
  [[nodiscard]] std::span<load_key> collect(index_t load, std::int32_t expert) {
    std::size_t found = 0;
    for (std::size_t e = 0; e < totals_.size(); ++e) {
      index_t const mine = totals_[e];
      auto const id = static_cast<std::int32_t>(e);
      if (mine == 0) { continue; }
      keys_[found] = {static_cast<std::uint64_t>(mine), id};
      bool const wanted = listed_[static_cast<std::size_t>(native_[e])] != 0 && (mine < load || (mine == load && id > expert));
      found += wanted ? 1 : 0;
    }
    return sort_by_load(keys_.first(found), other_keys_.first(found));
  }

  void give_away(std::size_t e, std::size_t rank) {
    first_[e] = chunk_count_;
    index_t left = totals_[e];
    index_t const room = capacity_ - expected_[rank] + left;  // after all smaller experts of this rank
    expected_[rank] -= left;
    if (room > 0) {
      add(e, rank, room);
      left -= room;
    }
    replicas_ = where_.replicas(static_cast<expert_id>(e));
    if (rules_.scan == recipient_scan::one_list && room <= 0) { left = from_one_list(e, rank, left); }
    while (left > 0) {
      if (left < rules_.least_chunk && rules_.tail != tail_rule::spill) {
        add(e, rules_.tail == tail_rule::absorb_native ? rank : least_excess(e, rank), left);
        break;
      }
      index_t const taker = recipient(e, rank, left);
      if (taker < 0) {
        ++out_.forced;
        add(e, forced_rank(e, rank), left);
        break;
      }
      auto const to = static_cast<std::size_t>(taker);
      index_t const amount = std::min(left, capacity_ - expected_[to]);
      add(e, to, amount);
      left -= amount;
    }
    count_[e] = chunk_count_ - first_[e];
  }

  void add(std::size_t e, std::size_t rank, index_t amount) {
    if (rules_.coalesce && holds(e, rank)) {
      chunks_[static_cast<std::size_t>(latest_[rank])].amount += amount;
    } else {
      if (!has_weights(e, rank)) { ++imports_[rank]; }
      latest_[rank] = chunk_count_;
      chunks_[static_cast<std::size_t>(chunk_count_++)] = {static_cast<std::int32_t>(rank), amount};
    }
    expected_[rank] += amount;
    if (expected_[rank] > capacity_ && listed_[rank] == 0 && rules_.forced_shed) {
      listed_[rank] = 1;
      joined_ = true;
    }
  }

  [[nodiscard]] bool holds(std::size_t e, std::size_t rank) const { return latest_[rank] >= first_[e]; }
  [[nodiscard]] bool resident(std::size_t e, std::size_t rank) const {
    for (replica const& r : where_.replicas(static_cast<expert_id>(e))) {
      if (to_index(r.rank) == static_cast<index_t>(rank)) { return true; }
    }
    return false;
  }
  // Whether the rank needs no (further) transfer to compute the expert.
  [[nodiscard]] bool has_weights(std::size_t e, std::size_t rank) const { return holds(e, rank) || resident(e, rank); }
  [[nodiscard]] bool may_take(std::size_t e, std::size_t rank) const {
    return expected_[rank] != closed &&
           (rules_.most_imports < 0 || imports_[rank] < rules_.most_imports || has_weights(e, rank));
  }

  // The rank that takes the next piece, or -1 if none has room. A piece must fill at least `least_chunk` places or end the
  // expert; the ranks that can are those with at least min(left, least_chunk) places.
  [[nodiscard]] index_t recipient(std::size_t e, std::size_t rank, index_t left) const {
    index_t const least_room = std::min(left, rules_.least_chunk);
    if (rules_.recipients == recipient_order::by_load && rules_.most_imports < 0 && (replicas_.size() == 1 || !rules_.residents_first)) {
      std::size_t best = 0;  // never the expert's own rank: that one is full
      for (std::size_t h = 1; h < expected_.size(); ++h) { best = expected_[h] < expected_[best] ? h : best; }
      return capacity_ - expected_[best] >= least_room ? static_cast<index_t>(best) : -1;
    }
    index_t best = -1;
    for (std::size_t h = 0; h < expected_.size(); ++h) {
      if (h == rank || !may_take(e, h) || capacity_ - expected_[h] < least_room) { continue; }
      if (best < 0 || preferred(e, rank, h, static_cast<std::size_t>(best))) { best = static_cast<index_t>(h); }
    }
    return best;
  }
  // Whether rank a (> b) comes before b.
  [[nodiscard]] bool preferred(std::size_t e, std::size_t rank, std::size_t a, std::size_t b) const {
    if (rules_.residents_first) {
      bool const has_a = resident(e, a);
      if (has_a != resident(e, b)) { return has_a; }
    }
    auto const near = [&](std::size_t h) {
      return cluster_ == nullptr || cluster_->node_of(static_cast<index_t>(h)) == cluster_->node_of(static_cast<index_t>(rank));
    };
    if (rules_.recipients == recipient_order::by_node_then_load && near(a) != near(b)) { return near(a); }
    if (expected_[a] != expected_[b]) { return expected_[a] < expected_[b]; }
    return rules_.recipients == recipient_order::by_load_then_node && near(a) && !near(b);
  }

  // The rank with the least load among those that have the weights.
  [[nodiscard]] std::size_t least_excess(std::size_t e, std::size_t rank) const {
    std::size_t best = rank;
    for (std::size_t h = 0; h < expected_.size(); ++h) {
      if (expected_[h] == closed || !has_weights(e, h)) { continue; }
      if (expected_[h] < expected_[best] || (expected_[h] == expected_[best] && h < best)) { best = h; }
    }
    return best;
  }

  // Who takes what fits nowhere; the expert's own rank if nobody else may.
  [[nodiscard]] std::size_t forced_rank(std::size_t e, std::size_t rank) const {
    index_t best = rules_.forced == forced_rule::least_loaded_any ? static_cast<index_t>(rank) : -1;
    for (std::size_t h = 0; h < expected_.size(); ++h) {
      if (h == rank || !may_take(e, h)) { continue; }
      auto const b = static_cast<std::size_t>(best);
      if (best < 0 || expected_[h] < expected_[b] || (expected_[h] == expected_[b] && h < b)) { best = static_cast<index_t>(h); }
    }
    return best < 0 ? rank : static_cast<std::size_t>(best);
  }

  // The released code's way to give a whole expert away: one look at the other ranks in the order of now, the remainder to
  // the first of them. Returns what it could not give away, if there is no other rank.
  [[nodiscard]] index_t from_one_list(std::size_t e, std::size_t rank, index_t left) {
    std::size_t size = 0;
    for (std::size_t h = 0; h < expected_.size(); ++h) {
      if (h == rank || !may_take(e, h)) { continue; }
      std::size_t at = size++;
      for (; at > 0 && expected_[static_cast<std::size_t>(list_[at - 1])] > expected_[h]; --at) { list_[at] = list_[at - 1]; }
      list_[at] = static_cast<std::int32_t>(h);
    }
    for (std::size_t at = 0; at < size && left > 0; ++at) {
      auto const h = static_cast<std::size_t>(list_[at]);
      index_t const amount = std::min(left, capacity_ - expected_[h]);
      if (amount <= 0 || (amount < rules_.least_chunk && left > amount)) { continue; }
      add(e, h, amount);
      left -= amount;
    }
    if (left > 0 && size > 0) {
      ++out_.forced;
      add(e, static_cast<std::size_t>(list_[0]), left);
      return 0;
    }
    return left;
  }

  // Segments by expert, transfers in the same order.
  void publish() {
    std::fill(imports_.begin(), imports_.end(), 0);
    index_t segments = 0;
    for (std::size_t e = 0; e < totals_.size(); ++e) {
      out_.offsets[e] = segments;
      if (first_[e] < 0) {
        out_.segment_storage[static_cast<std::size_t>(segments)] = {static_cast<rank_id>(native_[e]), 0, totals_[e]};
        segments += totals_[e] > 0 ? 1 : 0;
        continue;
      }
      index_t position = 0;
      auto const native = static_cast<std::size_t>(native_[e]);
      for (std::int32_t c = first_[e]; c < first_[e] + count_[e]; ++c) {
        chunk const& piece = chunks_[static_cast<std::size_t>(c)];
        auto const to = static_cast<std::size_t>(piece.rank);
        out_.segment_storage[static_cast<std::size_t>(segments++)] = {static_cast<rank_id>(to), position, position + piece.amount};
        position += piece.amount;
        if (to == native || resident(e, to)) { continue; }
        index_t const slot = where_.slots(static_cast<rank_id>(to)) + imports_[to]++;
        out_.transfer_storage[static_cast<std::size_t>(out_.transfer_count++)] = {
            static_cast<expert_id>(e), static_cast<rank_id>(native), static_cast<rank_id>(to), static_cast<local_slot_id>(slot)};
      }
    }
    out_.offsets[totals_.size()] = segments;
  }

  least_loaded_rules const& rules_;
  topology const* cluster_;
  std::span<index_t const> totals_;
  placement const& where_;
  rerouting& out_;
  std::span<index_t> expected_;
  std::span<replica const> replicas_;
  std::span<std::int32_t> native_, first_, count_;
  std::span<load_key> keys_, other_keys_;
  std::span<chunk> chunks_;
  std::span<std::int32_t> latest_, imports_, list_;
  std::span<std::uint8_t> listed_;
  index_t total_ = 0;
  index_t hosting_ = 0;
  index_t capacity_ = 0;
  std::int32_t chunk_count_ = 0;
  bool joined_ = false;
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
