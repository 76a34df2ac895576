// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Private: local search over slot tables for several samples of loads at once, with seeded moves and a cap on
/// evaluations.
// A step draws a sample in proportion to how far it is from the best possible, asks the objective which slots are to
// blame, and tries to change one of them with a slot of a rank that is not to blame. The first move that lowers the sum
// is kept.
#include <fairlead/core/philox.hpp>
#include <fairlead/core/report.hpp>
#include <fairlead/place/detail/slot_table.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

struct slot_search_rules {
  index_t evaluations = 0;  // cap on tables looked at
  index_t patience = 0;     // moves without gain before a kick, or the end
  index_t kick = 0;         // random moves of a kick; 0 = end instead
  index_t donor_keeps = 1;  // a slot may change its expert only if the old one keeps this many replicas
  int replace_percent = 0;  // moves that change how many replicas experts have; the others swap
  index_t tail = 0;         // how many of the worst samples count; 0 = all
  std::uint64_t seed = 0;
};

struct slot_search_result {
  index_t cost = 0;     // sum over the samples that count, units of 1 / slot_cost_unit
  index_t counted = 1;  // samples that count
  index_t evaluations = 0;
  bool perfect = false;  // every sample at the objective's least cost
};

template <class Objective>
class slot_search {
 public:
  static std::size_t bytes(Objective const& objective, topology const& cluster, index_t experts, index_t samples) {
    return 3 * workspace_bytes<index_t>(samples) + workspace_bytes<std::int32_t>(samples) +
           3 * workspace_bytes<std::int32_t>(cluster.slots()) + workspace_bytes<expert_id>(cluster.slots()) +
           workspace_bytes<std::uint8_t>(cluster.slots()) + workspace_bytes<std::uint8_t>(cluster.ranks()) +
           workspace_bytes<std::int32_t>(experts) + objective.workspace_bytes(cluster, experts);
  }

  // `table` holds every expert; it is changed in place.
  slot_search(Objective const& objective, topology const& cluster, matrix_view<index_t const> samples,
              std::span<expert_id> table, slot_search_rules const& rules, workspace& ws)
      : objective_(objective),
        cluster_(cluster),
        samples_(samples),
        table_(table),
        rules_(rules),
        ws_(ws),
        costs_(ws.take<index_t>(samples.rows())),
        trial_(ws.take<index_t>(samples.rows())),
        sorted_(ws.take<index_t>(samples.rows())),
        order_(ws.take<std::int32_t>(samples.rows())),
        rank_of_(ws.take<std::int32_t>(cluster.slots())),
        guilty_(ws.take<std::int32_t>(cluster.slots())),
        free_(ws.take<std::int32_t>(cluster.slots())),
        best_(ws.take<expert_id>(cluster.slots())),
        blamed_(ws.take<std::uint8_t>(cluster.slots())),
        crowded_(ws.take<std::uint8_t>(cluster.ranks())),
        replicas_(ws.take<std::int32_t>(samples.cols())) {
    fill_rank_of_slot(cluster, rank_of_);
    count_replicas(table, replicas_);
    for (std::size_t k = 0; k < order_.size(); ++k) { order_[k] = static_cast<std::int32_t>(k); }
  }

  slot_search_result run() {
    slot_search_result result;
    result.counted = rules_.tail > 0 ? std::min(rules_.tail, samples_.rows()) : samples_.rows();
    if (samples_.rows() == 0) { return {0, 1, 0, true}; }
    constexpr index_t unlimited = std::numeric_limits<index_t>::max();
    index_t now = evaluate(unlimited, result);
    std::swap(costs_, trial_);
    index_t best = now;
    std::copy(table_.begin(), table_.end(), best_.begin());
    index_t failures = 0;
    // Draws that allow no move cost less than an evaluation, but must end too.
    index_t const draws = rules_.evaluations > unlimited / 8 ? unlimited : rules_.evaluations * 8;
    for (index_t draw = 0; draw < draws && result.evaluations < rules_.evaluations; ++draw) {
      if (now <= least() * result.counted) { break; }
      if (failures >= rules_.patience) {
        if (rules_.kick == 0) { break; }
        std::copy(best_.begin(), best_.end(), table_.begin());
        count_replicas(table_, replicas_);
        for (index_t k = 0; k < rules_.kick; ++k) { kick(); }
        now = evaluate(unlimited, result);
        std::swap(costs_, trial_);
        stale_ = true;
        failures = 0;
      } else if (stale_ && !blame()) {
        break;
      } else if (move const change = propose(); !change.legal) {
        ++failures;
        continue;
      } else {
        apply(change);
        index_t const cost = evaluate(now, result);
        if (cost >= now) {
          revert(change);
          // Another sample may offer better moves.
          stale_ = ++failures % 8 == 0;
          continue;
        }
        now = cost;
        std::swap(costs_, trial_);
        stale_ = true;
        failures = 0;
      }
      if (now < best) {
        best = now;
        std::copy(table_.begin(), table_.end(), best_.begin());
      }
    }
    std::copy(best_.begin(), best_.end(), table_.begin());
    result.cost = best;
    result.perfect = best <= least() * result.counted;
    return result;
  }

 private:
  struct move {
    bool legal = false;
    std::size_t first = 0;
    std::size_t second = 0;
    expert_id first_old = expert_id::none;
    expert_id second_old = expert_id::none;
    expert_id first_new = expert_id::none;
    expert_id second_new = expert_id::none;
  };

  [[nodiscard]] index_t least() const { return objective_.least_cost(); }

  std::uint32_t draw(std::uint32_t bound) {
    if (word_ == 4) {
      words_ = philox::draw(rules_.seed, 0x51075EA6, counter_++);
      word_ = 0;
    }
    return philox::below(words_[word_++], bound);
  }

  // Sum over the samples that count; at least `limit` as soon as it cannot come out below.
  index_t evaluate(index_t limit, slot_search_result& result) {
    ++result.evaluations;
    auto const n = static_cast<index_t>(order_.size());
    bool const all = result.counted == n;
    index_t sum = 0;
    for (std::size_t i = 0; i < order_.size(); ++i) {
      auto const k = static_cast<std::size_t>(order_[i]);
      trial_[k] =
          objective_.cost(cluster_, {samples_.row(static_cast<index_t>(k)), static_cast<std::size_t>(samples_.cols())},
                          table_, {}, ws_);
      sum += trial_[k];
      if (all && sum >= limit - least() * (n - 1 - static_cast<index_t>(i))) {
        // The sample that decided is likely to decide again: ask it first.
        std::rotate(order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(i),
                    order_.begin() + static_cast<std::ptrdiff_t>(i) + 1);
        return limit;
      }
    }
    if (all) { return sum; }
    std::copy(trial_.begin(), trial_.end(), sorted_.begin());
    std::nth_element(sorted_.begin(), sorted_.begin() + (result.counted - 1), sorted_.end(),
                     [](index_t a, index_t b) { return a > b; });
    sum = 0;
    for (index_t k = 0; k < result.counted; ++k) { sum += sorted_[static_cast<std::size_t>(k)]; }
    return sum;
  }

  // Choose a sample in proportion to its distance from the least cost; list the slots to blame and those of other
  // ranks.
  bool blame() {
    index_t sum = 0;
    for (index_t const cost : costs_) { sum += (cost - least()) >> 8U; }
    std::size_t chosen = 0;
    if (sum > 0) {
      index_t at = static_cast<index_t>((static_cast<slot_wide>(sum) * draw(1U << 30U)) >> 30U);
      while (at >= (costs_[chosen] - least()) >> 8U) { at -= (costs_[chosen++] - least()) >> 8U; }
    } else {
      chosen = static_cast<std::size_t>(std::max_element(costs_.begin(), costs_.end()) - costs_.begin());
    }
    (void)objective_.cost(cluster_,
                          {samples_.row(static_cast<index_t>(chosen)), static_cast<std::size_t>(samples_.cols())},
                          table_, blamed_, ws_);
    std::fill(crowded_.begin(), crowded_.end(), std::uint8_t{0});
    guilty_count_ = 0;
    for (std::size_t slot = 0; slot < table_.size(); ++slot) {
      if (blamed_[slot] == 0) { continue; }
      guilty_[guilty_count_++] = static_cast<std::int32_t>(slot);
      crowded_[static_cast<std::size_t>(rank_of_[slot])] = 1;
    }
    free_count_ = 0;
    for (std::size_t slot = 0; slot < table_.size(); ++slot) {
      if (crowded_[static_cast<std::size_t>(rank_of_[slot])] == 0) {
        free_[free_count_++] = static_cast<std::int32_t>(slot);
      }
    }
    stale_ = false;
    return guilty_count_ > 0 && free_count_ > 0;
  }

  [[nodiscard]] bool on_rank(std::size_t slot, expert_id expert) const {
    return hosts_expert(cluster_, table_, rank_of_[slot], expert);
  }
  [[nodiscard]] bool can_give(expert_id expert) const {
    return expert == expert_id::none || replicas_[static_cast<std::size_t>(expert)] > rules_.donor_keeps;
  }

  move propose() {
    auto const from = static_cast<std::size_t>(guilty_[draw(static_cast<std::uint32_t>(guilty_count_))]);
    auto const to = static_cast<std::size_t>(free_[draw(static_cast<std::uint32_t>(free_count_))]);
    expert_id const mine = table_[from];
    expert_id const other = table_[to];
    move change{false, from, to, mine, other, mine, other};
    if (mine == expert_id::none || mine == other) { return change; }
    int const kind = static_cast<int>(draw(100));
    bool const mine_fits = !on_rank(to, mine);
    bool const other_fits = other == expert_id::none || !on_rank(from, other);
    bool const grows = kind < (rules_.replace_percent + 1) / 2;
    bool const sheds = !grows && kind < rules_.replace_percent;
    if (other == expert_id::none && !sheds) {  // an empty slot: a further replica, at times a move
      change.legal = mine_fits;
      change.second_new = mine;
      change.first_new = kind % 4 == 3 ? expert_id::none : mine;
    } else if (grows) {  // the expert to blame takes the place of another
      change.legal = mine_fits && can_give(other);
      change.second_new = mine;
    } else if (sheds) {  // another takes a place of the expert to blame
      change.legal = other != expert_id::none && other_fits && can_give(mine);
      change.first_new = other;
    } else {
      change.legal = mine_fits && other_fits;
      change.first_new = other;
      change.second_new = mine;
    }
    return change;
  }

  // A random swap or replacement anywhere.
  void kick() {
    auto const slots = static_cast<std::uint32_t>(table_.size());
    for (int attempt = 0; attempt < 16; ++attempt) {
      std::size_t const a = draw(slots);
      std::size_t const b = draw(slots);
      expert_id const x = table_[a];
      expert_id const y = table_[b];
      if (x == y || rank_of_[a] == rank_of_[b] || x == expert_id::none || on_rank(b, x)) { continue; }
      bool const replace = static_cast<int>(draw(100)) < rules_.replace_percent;
      if (replace ? !can_give(y) : (y != expert_id::none && on_rank(a, y))) { continue; }
      apply({true, a, b, x, y, replace ? x : y, x});
      return;
    }
  }

  void set(std::size_t slot, expert_id expert) {
    if (table_[slot] != expert_id::none) { --replicas_[static_cast<std::size_t>(table_[slot])]; }
    if (expert != expert_id::none) { ++replicas_[static_cast<std::size_t>(expert)]; }
    table_[slot] = expert;
  }
  void apply(move const& change) { set(change.first, change.first_new), set(change.second, change.second_new); }
  void revert(move const& change) { set(change.first, change.first_old), set(change.second, change.second_old); }

  Objective const& objective_;
  topology const& cluster_;
  matrix_view<index_t const> samples_;
  std::span<expert_id> table_;
  slot_search_rules rules_;
  workspace& ws_;
  std::span<index_t> costs_, trial_, sorted_;
  std::span<std::int32_t> order_, rank_of_, guilty_, free_;
  std::span<expert_id> best_;
  std::span<std::uint8_t> blamed_, crowded_;
  std::span<std::int32_t> replicas_;
  std::size_t guilty_count_ = 0;
  std::size_t free_count_ = 0;
  bool stale_ = true;
  std::array<std::uint32_t, 4> words_{};
  std::size_t word_ = 4;
  std::uint64_t counter_ = 0;
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
