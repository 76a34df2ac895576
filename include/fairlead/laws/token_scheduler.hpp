// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Check that a type keeps the promises of the concept `token_scheduler`.
#include <fairlead/concepts/token_scheduler.hpp>
#include <fairlead/core/buffer.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/laws/verdict.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief The problems that `check_token_scheduler` makes.
struct token_scheduler_problem {
  index_t ranks = 4;          ///< number of ranks
  index_t experts = 8;        ///< number of experts
  index_t extra_slots = 5;    ///< slots beyond one an expert: second replicas, or empty
  count_t largest_load = 40;  ///< copies per (source, expert), 0 to this
  std::uint64_t seed = 1;     ///< seed of loads and placements
  int cases = 16;             ///< number of placements tried
};

namespace detail {

// A random placement: every expert at least once, extra slots random or empty, slots of ranks ragged.
[[nodiscard]] inline placement random_placement(token_scheduler_problem const& problem, std::uint64_t number) {
  std::vector<expert_id> slots;
  for (index_t e = 0; e < problem.experts; ++e) { slots.push_back(static_cast<expert_id>(e)); }
  std::uint64_t index = 0;
  auto const below = [&](index_t bound) {
    auto const word = philox::draw(problem.seed, 2 * number, index++)[0];
    return static_cast<index_t>(philox::below(word, static_cast<std::uint32_t>(bound)));
  };
  for (index_t extra = 0; extra < problem.extra_slots; ++extra) {
    slots.push_back(static_cast<expert_id>(below(problem.experts + 1) - 1));
  }
  for (std::size_t i = slots.size(); i > 1; --i) {
    std::swap(slots[i - 1], slots[static_cast<std::size_t>(below(static_cast<index_t>(i)))]);
  }
  std::vector<index_t> offsets(static_cast<std::size_t>(problem.ranks) + 1, 0);
  for (std::size_t rank = 1; rank + 1 < offsets.size(); ++rank) {
    offsets[rank] = below(static_cast<index_t>(slots.size()) + 1);
  }
  offsets.back() = static_cast<index_t>(slots.size());
  std::sort(offsets.begin(), offsets.end());
  return {problem.experts, offsets, slots};
}

// The same placement with all slots of one expert empty.
[[nodiscard]] inline placement without_expert(placement const& where, index_t lost) {
  std::vector<index_t> offsets{0};
  std::vector<expert_id> slots;
  for (index_t r = 0; r < where.ranks(); ++r) {
    for (expert_id const expert : where.experts_on(static_cast<rank_id>(r))) {
      slots.push_back(to_index(expert) == lost ? expert_id::none : expert);
    }
    offsets.push_back(static_cast<index_t>(slots.size()));
  }
  return {where.experts(), offsets, slots, where.meaning(), where.version()};
}

}  // namespace detail

/// @brief Check a token scheduler on random loads and placements.
///
/// Laws: the report is ok; each copy is sent exactly once, to a replica of its expert (`conserves`); the result depends
/// neither on old content of `out` nor on scratch nor on its row stride; equal arguments give the equal result; the
/// call takes no more scratch than `workspace_bytes`; a lost expert with load gives `status::lost_expert` and a zero
/// schedule; a lost expert without load does not matter; no load at all is legal.
/// @tparam Scheduler a model of `token_scheduler`
/// @param scheduler the scheduler
/// @param problem sizes and seed
/// @returns the first broken law
/// @pre at least one rank and one expert (level 1)
template <token_scheduler Scheduler>
[[nodiscard]] verdict check_token_scheduler(Scheduler const& scheduler, token_scheduler_problem const& problem = {}) {
  FAIRLEAD_EXPECTS(problem.ranks >= 1 && problem.experts >= 1, "the check needs a rank and an expert", problem.ranks,
                   problem.experts);
  for (int number = 0; number < problem.cases; ++number) {
    auto const stream = static_cast<std::uint64_t>(number);
    placement const where = detail::random_placement(problem, stream);
    matrix<count_t> load(problem.ranks, problem.experts);
    for (std::size_t i = 0; i < load.span().size() && number != 0; ++i) {  // case 0: no load at all
      auto const word = philox::draw(problem.seed, 2 * stream + 1, i)[0];
      load.span()[i] = static_cast<count_t>(philox::below(word, static_cast<std::uint32_t>(problem.largest_load + 1)));
    }
    auto const where_text = [&](char const* law) {
      return verdict::broken("token_scheduler: ", law, " (case ", number, ", seed ", problem.seed, ", ", problem.ranks,
                             " ranks, ", problem.experts, " experts, ", where.replicas(), " replicas)");
    };
    std::size_t const bytes = scheduler.workspace_bytes(where);
    buffer<std::byte> scratch(static_cast<index_t>(bytes));  // exactly as much as asked for
    index_t const columns = where.replicas();
    // The second run meets other old content, other scratch content and a wider row stride.
    matrix<count_t> first(problem.ranks, columns);
    matrix<count_t> wide(problem.ranks, columns + 3);
    std::fill_n(wide.data(), wide.span().size(), count_t{-7});
    token_schedule_view const second(wide.data(), problem.ranks, columns, columns + 3);
    try {
      workspace ws(scratch.span());
      report const ended = scheduler.schedule(load.view(), where, first.view(), ws);
      if (ended.status != status::ok) { return where_text("ends well when no expert is lost"); }
      std::fill(scratch.span().begin(), scratch.span().end(), std::byte{0x5A});
      workspace again(scratch.span());
      if (scheduler.schedule(load.view(), where, second, again).status != status::ok) {
        return where_text("ends well a second time");
      }
    } catch (contract_violation const& violation) {
      return verdict::broken("token_scheduler: workspace_bytes() suffices and legal input is accepted: ",
                             violation.what());
    }
    if (!conserves(load.view(), where, first.view())) { return where_text("each copy goes to exactly one replica"); }
    for (index_t source = 0; source < problem.ranks; ++source) {
      for (index_t column = 0; column < columns; ++column) {
        if (first(source, column) != second(source, column)) {
          return where_text("equal arguments give the equal schedule, whatever out and scratch held");
        }
      }
      for (index_t column = columns; column < columns + 3; ++column) {
        if (wide(source, column) != -7) { return where_text("nothing outside of out is written"); }
      }
    }

    // Lose one expert: all of its slots become empty.
    index_t const lost = number % problem.experts;
    placement const crippled = detail::without_expert(where, lost);
    arena<> less(scheduler.workspace_bytes(crippled));
    matrix<count_t> out(problem.ranks, crippled.replicas());
    for (bool const loaded : {false, true}) {
      for (index_t source = 0; source < problem.ranks; ++source) { load(source, lost) = 0; }
      load(problem.ranks - 1, lost) = loaded ? 1 : 0;
      std::fill_n(out.data(), out.span().size(), count_t{-7});
      workspace ws = less.view();
      report ended;
      try {
        ended = scheduler.schedule(load.view(), crippled, out.view(), ws);
      } catch (contract_violation const& violation) {
        return verdict::broken("token_scheduler: a lost expert is reported, not thrown: ", violation.what());
      }
      if (!loaded) {
        if (ended.status != status::ok || !conserves(load.view(), crippled, out.view())) {
          return where_text("a lost expert without load does not matter");
        }
        continue;
      }
      if (ended.status != status::lost_expert) { return where_text("a lost expert with load is reported"); }
      if (std::any_of(out.span().begin(), out.span().end(), [](count_t count) { return count != 0; })) {
        return where_text("the schedule is zero when an expert is lost");
      }
    }
  }
  return {};
}

}  // namespace laws
FAIRLEAD_NAMESPACE_END
