// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Turn any choice of experts into an assignment that keeps all capacities, or prove that none exists.
#include <fairlead/assign/detail/working.hpp>
#include <fairlead/core/assignment.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail::rounding {

/// Experts that have room, ascending.
struct open_experts {
  std::span<std::int32_t> list;
  index_t count = 0;
  void add(index_t expert) noexcept { list[static_cast<std::size_t>(count++)] = static_cast<std::int32_t>(expert); }
  void remove(index_t expert) noexcept {
    auto const end = list.begin() + count;
    auto const place = std::lower_bound(list.begin(), end, static_cast<std::int32_t>(expert));
    std::copy(place + 1, end, place);
    --count;
  }
  [[nodiscard]] std::span<std::int32_t const> view() const noexcept { return list.first(static_cast<std::size_t>(count)); }
};

/// Moves copies one by one: first by smallest loss of score - price to experts with room (a lazy heap: losses only grow
/// while experts fill up), then, where a copy has no expert to go to, along shortest chains of moves. Chains find a
/// place for a copy exactly if one exists, so that the end is complete or infeasible, never "stuck".
template <class Score>
class completion {
 public:
  [[nodiscard]] static constexpr std::size_t bytes(index_t tokens, index_t experts, index_t fan_out) noexcept {
    return workspace_bytes<index_t>(experts) + 4 * workspace_bytes<std::int32_t>(experts) +
           2 * workspace_bytes<std::uint8_t>(experts) + workspace_bytes<move>(tokens * fan_out);
  }

  /// `owner` holds distinct usable experts or none; its scratch lives as long as the workspace's scope.
  completion(assignment_problem<Score> const& problem, std::span<double const> prices, matrix_view<expert_id> owner,
             workspace& ws)
      : problem_(problem), prices_(prices), owner_(owner), counts_(ws.take<index_t>(problem.experts())),
        open_{ws.take<std::int32_t>(problem.experts()), 0}, from_expert_(ws.take<std::int32_t>(problem.experts())),
        from_token_(ws.take<std::int32_t>(problem.experts())), from_slot_(ws.take<std::int32_t>(problem.experts())),
        seen_(ws.take<std::uint8_t>(problem.experts())), frontier_(ws.take<std::uint8_t>(problem.experts())),
        heap_(ws.take<move>(problem.tokens() * problem.fan_out)) {
    std::fill(counts_.begin(), counts_.end(), index_t{0});
    for (index_t t = 0; t < problem_.tokens(); ++t) {
      if (!token_counts(problem_, t)) { continue; }
      for (index_t j = 0; j < problem_.fan_out; ++j) {
        expert_id const e = owner_(t, j);
        if (e == expert_id::none) {
          ++missing_;
        } else {
          ++counts_[static_cast<std::size_t>(e)];
        }
      }
    }
  }

  /// @returns whether the assignment is complete; false = no assignment exists
  [[nodiscard]] bool run() {
    if (!capacities_add_up(problem_)) { return false; }
    // First nobody above the upper capacity and no empty place, then nobody below the lower capacity.
    return relieve(problem_.upper, true) && relieve(problem_.lower, false);
  }
  /// Copies moved, in chains counted one by one.
  [[nodiscard]] index_t moved() const noexcept { return moved_; }

 private:
  struct move {
    double loss;
    std::int32_t token, slot, target;
    /// For the heap of the standard library, whose top is the largest: smallest loss, token, slot first.
    [[nodiscard]] friend bool operator<(move const& a, move const& b) noexcept {
      if (a.loss != b.loss) { return a.loss > b.loss; }
      return a.token != b.token ? a.token > b.token : a.slot > b.slot;
    }
  };

  [[nodiscard]] double key(index_t token, index_t expert) const noexcept {
    return assignable(problem_.scores(token, expert)) - prices_[static_cast<std::size_t>(expert)];
  }
  [[nodiscard]] bool over(index_t expert, std::span<index_t const> limit) const noexcept {
    return counts_[static_cast<std::size_t>(expert)] > limit[static_cast<std::size_t>(expert)];
  }
  [[nodiscard]] bool under(index_t expert, std::span<index_t const> limit) const noexcept {
    return counts_[static_cast<std::size_t>(expert)] < limit[static_cast<std::size_t>(expert)];
  }

  /// The cheapest move of a copy to an expert with room. @returns whether there is one
  [[nodiscard]] bool cheapest(index_t token, index_t slot, move& found) const noexcept {
    expert_id const* const row = owner_.row(token);
    double best = unusable;
    std::int32_t target = -1;
    for (std::int32_t const e : open_.view()) {
      double const candidate = key(token, e);
      if (candidate > best && !holds(row, problem_.fan_out, e)) {
        best = candidate;
        target = e;
      }
    }
    if (target < 0) { return false; }
    double held = unusable;
    if (row[slot] != expert_id::none) {
      held = key(token, to_index(row[slot]));
    } else {  // an empty place: regret against the best expert that the token does not hold
      for (index_t e = 0; e < problem_.experts(); ++e) {
        double const candidate = key(token, e);
        if (candidate > held && !holds(row, problem_.fan_out, e)) { held = candidate; }
      }
    }
    found = {held - best, static_cast<std::int32_t>(token), static_cast<std::int32_t>(slot), target};
    return true;
  }

  void put(index_t token, index_t slot, index_t expert) noexcept {
    expert_id& place = owner_(token, slot);
    if (place == expert_id::none) {
      --missing_;
    } else {
      --counts_[static_cast<std::size_t>(place)];
    }
    place = static_cast<expert_id>(expert);
    ++counts_[static_cast<std::size_t>(expert)];
    ++moved_;
  }

  [[nodiscard]] bool must_leave(index_t token, index_t slot, std::span<index_t const> limit) const noexcept {
    expert_id const e = owner_(token, slot);
    return e == expert_id::none || over(to_index(e), limit);
  }

  /// Bring every expert that is over the limit, and every empty place, to experts under it; or, if not `all`, fill the
  /// experts under the limit from those over it.
  [[nodiscard]] bool relieve(std::span<index_t const> limit, bool all) {
    if (settled(limit, all)) { return true; }
    open_.count = 0;
    for (index_t e = 0; e < problem_.experts(); ++e) {
      if (under(e, limit)) { open_.add(e); }
    }
    auto const first = heap_.begin();
    auto last = first;
    for (index_t t = 0; t < problem_.tokens(); ++t) {
      if (!token_counts(problem_, t)) { continue; }
      for (index_t j = 0; j < problem_.fan_out; ++j) {
        if (must_leave(t, j, limit) && cheapest(t, j, *last)) { ++last; }
      }
    }
    std::make_heap(first, last);
    while (first != last && open_.count > 0) {
      std::pop_heap(first, last);
      move const next = *--last;
      if (!must_leave(next.token, next.slot, limit)) { continue; }
      if (under(next.target, limit) && !holds(owner_.row(next.token), problem_.fan_out, next.target)) {
        put(next.token, next.slot, next.target);
        if (!under(next.target, limit)) { open_.remove(next.target); }
      } else if (cheapest(next.token, next.slot, *last)) {
        ++last;
        std::push_heap(first, last);
      }
    }
    while (!settled(limit, all)) {
      if (!chain(limit)) { return false; }
    }
    return true;
  }

  [[nodiscard]] bool settled(std::span<index_t const> limit, bool all) const noexcept {
    if (all && missing_ > 0) { return false; }
    for (index_t e = 0; e < problem_.experts(); ++e) {
      if (all ? over(e, limit) : under(e, limit)) { return false; }
    }
    return true;
  }

  /// One breadth-first search from all surplus to an expert with room, and the moves along its path.
  /// @returns false if there is no path: then no assignment exists
  [[nodiscard]] bool chain(std::span<index_t const> limit) {
    index_t const experts = problem_.experts();
    std::fill(seen_.begin(), seen_.end(), std::uint8_t{0});
    for (index_t e = 0; e < experts; ++e) {
      if (over(e, limit)) {
        seen_[static_cast<std::size_t>(e)] = 1;
        from_token_[static_cast<std::size_t>(e)] = -1;
      }
    }
    index_t reached = -1;
    // Empty places reach experts directly; then each layer scans the copies of the experts that the last one reached.
    std::copy(seen_.begin(), seen_.end(), frontier_.begin());
    if (missing_ > 0) { reached = layer(limit, true); }
    bool grew = true;
    while (reached < 0 && grew) {
      reached = layer(limit, false);
      grew = grew_;
    }
    if (reached < 0) { return false; }
    for (index_t e = reached;;) {
      auto const i = static_cast<std::size_t>(e);
      put(from_token_[i], from_slot_[i], e);
      e = from_expert_[i];
      if (e < 0 || from_token_[static_cast<std::size_t>(e)] < 0) { return true; }
    }
  }

  [[nodiscard]] index_t layer(std::span<index_t const> limit, bool from_empty) {
    grew_ = false;
    for (index_t t = 0; t < problem_.tokens(); ++t) {
      if (!token_counts(problem_, t)) { continue; }
      expert_id const* const row = owner_.row(t);
      for (index_t j = 0; j < problem_.fan_out; ++j) {
        bool const starts = from_empty ? row[j] == expert_id::none
                                       : row[j] != expert_id::none && frontier_[static_cast<std::size_t>(row[j])] == 1;
        if (!starts) { continue; }
        for (index_t e = 0; e < problem_.experts(); ++e) {
          auto const i = static_cast<std::size_t>(e);
          if (seen_[i] != 0 || !(key(t, e) > unusable) || holds(row, problem_.fan_out, e)) { continue; }
          seen_[i] = 1;
          from_expert_[i] = static_cast<std::int32_t>(row[j]);
          from_token_[i] = static_cast<std::int32_t>(t);
          from_slot_[i] = static_cast<std::int32_t>(j);
          grew_ = true;
          if (under(e, limit)) { return e; }
          frontier_[i] = from_empty ? 1 : 2;
        }
      }
    }
    if (!from_empty) {  // 1 = scanned in this layer, 2 = to be scanned in the next
      for (std::uint8_t& mark : frontier_) { mark = mark == 2 ? 1 : 0; }
    }
    return -1;
  }

  assignment_problem<Score> const& problem_;
  std::span<double const> prices_;
  matrix_view<expert_id> owner_;
  std::span<index_t> counts_;
  open_experts open_;
  std::span<std::int32_t> from_expert_, from_token_, from_slot_;
  std::span<std::uint8_t> seen_, frontier_;
  std::span<move> heap_;
  index_t missing_ = 0;
  index_t moved_ = 0;
  bool grew_ = false;
};

/// Makes the chosen owners complete and ends the solve, or says that no assignment exists.
template <host_backend Backend, class Score>
[[nodiscard]] assignment_report complete_with_prices(Backend const& on, assignment_problem<Score> const& problem,
                                                     std::span<double const> prices, assignment_result const& result,
                                                     assignment_report report, workspace& ws) {
  hand_out(prices, result);
  bool complete = false;
  {
    workspace::scope const scope(ws);
    completion<Score> repair(problem, prices, result.owner, ws);
    complete = repair.run();
    report.augmentations += repair.moved();
  }
  if (complete) {
    end_with_prices(on, problem, prices, result, report, ws);
  } else {
    end_without(report, status::infeasible, result);
  }
  return report;
}

/// Each token's best by score - price, made complete.
template <host_backend Backend, class Score>
[[nodiscard]] assignment_report assign_by_prices(Backend const& on, assignment_problem<Score> const& problem,
                                                 std::span<double const> prices, assignment_result const& result,
                                                 assignment_report report, workspace& ws) {
  choose_best(on, problem, prices, result.owner, ws);
  report.scans += 1;
  return complete_with_prices(on, problem, prices, result, report, ws);
}

}  // namespace detail::rounding
FAIRLEAD_NAMESPACE_END
