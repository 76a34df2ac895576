// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Check that a type keeps the promises of the concept `slot_router`.
#include <fairlead/concepts/slot_router.hpp>
#include <fairlead/core/buffer.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/laws/verdict.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief The slots that `check_slot_router` makes.
struct slot_router_problem {
  index_t tokens = 23;         ///< tokens of a slot, >= 1
  double largest_queue = 200;  ///< backlogs and energy queues are 0 to this
  std::uint64_t seed = 1;      ///< seed of everything
  int cases = 24;              ///< slots tried; each fan_out from 1 to the number of servers is met in turn
};

namespace detail {

// Scores, backlogs and weights of one slot, with ties, empty queues and zero weights now and then.
struct slot_case {
  std::vector<float> scores;
  std::vector<double> backlog;
  std::vector<double> debt;
  slot_view view;

  slot_case(slot_router_problem const& problem, index_t servers, int number) {
    std::uint64_t drawn = 0;
    auto const draw = [&] { return philox::uniform(problem.seed, static_cast<std::uint64_t>(number), drawn++); };
    for (index_t i = 0; i < problem.tokens * servers; ++i) {
      scores.push_back(number % 5 == 4 ? 0.25F : number % 3 == 1 ? static_cast<float>(static_cast<int>(draw() * 4.0F)) * 0.25F : draw());
    }
    for (index_t j = 0; j < servers; ++j) {
      auto const scale = static_cast<float>(problem.largest_queue);
      backlog.push_back(number % 4 == 0 ? 0.0 : static_cast<double>(draw() * scale));
      debt.push_back(number % 4 <= 1 ? 0.0 : static_cast<double>(draw() * scale));
    }
    view.backlog = backlog;
    view.energy_debt = debt;
    view.scores = {scores.data(), problem.tokens, servers};
    view.weights.utility = number % 6 == 5 ? 0.0 : number % 2 == 0 ? 10.0 : 1000.0;
    view.weights.gate = number % 7 == 6 ? 0.0 : 1.0;
    view.serves_arrivals = number % 2 == 0;
    view.fan_out = 1 + number % servers;
    view.slot = static_cast<std::uint64_t>(number);
    view.first_token = 1000 * static_cast<std::uint64_t>(number);
    view.seed = problem.seed;
  }
};

}  // namespace detail

/// @brief Check a slot router on random slots.
///
/// Laws: fan_out distinct servers for each token, and counts that say how often each was chosen; a function of its
/// arguments: old content of the results and of scratch, the stride of the scores, and what was routed in between change
/// nothing; nothing is written beside the results; no more scratch than `workspace_bytes`, which does not grow when tokens get
/// fewer; a slot without tokens, equal scores, empty queues and weights of 0 are legal; with fan_out = servers everybody gets every token.
/// @tparam Router a model of `slot_router`
/// @param router the router
/// @param servers the energy model
/// @param ties the tie policy
/// @param problem sizes and seed
/// @returns the first broken law
/// @pre at least one token and one server (level 1)
template <class Router, energy_model Model, tie_break Ties>
  requires slot_router<Router, Model, Ties>
[[nodiscard]] verdict check_slot_router(Router const& router, Model const& servers, Ties const& ties,
                                        slot_router_problem const& problem = {}) {
  index_t const count = servers.servers();
  FAIRLEAD_EXPECTS(problem.tokens >= 1 && count >= 1, "the check needs a token and a server", problem.tokens, count);
  constexpr auto stale = static_cast<expert_id>(0x5EA1);
  constexpr index_t guard = 0x5EA1;
  struct outcome {
    std::vector<expert_id> choice;
    std::vector<index_t> counts;
    bool guarded = false;
  };
  auto const run = [&](slot_view const& view, std::byte dirt, expert_id old) {
    auto const cells = static_cast<std::size_t>(view.tokens() * view.fan_out);
    outcome result{std::vector<expert_id>(cells + 2, old), std::vector<index_t>(static_cast<std::size_t>(count) + 2, guard)};
    result.choice.front() = result.choice.back() = stale;
    buffer<std::byte> scratch(static_cast<index_t>(router.workspace_bytes(view.tokens(), count, view.fan_out)));
    std::fill(scratch.span().begin(), scratch.span().end(), dirt);
    workspace ws(scratch.span());
    router.route(view, servers, ties, {result.choice.data() + 1, view.tokens(), view.fan_out},
                 std::span(result.counts).subspan(1, static_cast<std::size_t>(count)), ws);
    result.guarded = result.choice.front() == stale && result.choice.back() == stale && result.counts.front() == guard &&
                     result.counts.back() == guard;
    result.choice = {result.choice.begin() + 1, result.choice.end() - 1};
    result.counts = {result.counts.begin() + 1, result.counts.end() - 1};
    return result;
  };
  for (int number = 0; number < problem.cases; ++number) {
    detail::slot_case const made(problem, count, number);
    slot_view const& view = made.view;
    auto const broken = [&](char const* law) {
      return verdict::broken("slot_router: ", law, " (case ", number, ", seed ", problem.seed, ", ", problem.tokens, " tokens, ",
                             count, " servers, fan_out ", view.fan_out, ')');
    };
    try {
      outcome const first = run(view, std::byte{0}, expert_id::none);
      if (!first.guarded) { return broken("nothing is written beside the results"); }
      std::vector<index_t> seen(static_cast<std::size_t>(count), 0);
      for (index_t t = 0; t < view.tokens(); ++t) {
        expert_id const* const row = first.choice.data() + t * view.fan_out;
        for (index_t k = 0; k < view.fan_out; ++k) {
          if (to_index(row[k]) < 0 || to_index(row[k]) >= count) { return broken("each choice is a server"); }
          if (std::find(row, row + k, row[k]) != row + k) { return broken("the servers of a token are distinct"); }
          ++seen[static_cast<std::size_t>(row[k])];
        }
      }
      if (seen != first.counts) { return broken("counts say how often each server was chosen"); }
      slot_view none = view;
      none.scores = {nullptr, 0, count};
      outcome const empty = run(none, std::byte{0x5A}, stale);
      if (std::count(empty.counts.begin(), empty.counts.end(), index_t{0}) != count) { return broken("no tokens, no copies"); }
      outcome const again = run(view, std::byte{0x5A}, stale);
      if (again.choice != first.choice || again.counts != first.counts) {
        return broken("equal arguments give equal choices, whatever results and scratch held and was routed in between");
      }
      std::vector<float> wide(static_cast<std::size_t>(view.tokens() * (count + 3)), -7.0F);
      for (index_t t = 0; t < view.tokens(); ++t) { std::copy_n(view.scores.row(t), count, wide.data() + t * (count + 3)); }
      slot_view strided = view;
      strided.scores = {wide.data(), view.tokens(), count, count + 3};
      if (run(strided, std::byte{0}, expert_id::none).choice != first.choice) { return broken("strided scores give the same choice"); }
      if (router.workspace_bytes(view.tokens() / 2, count, view.fan_out) > router.workspace_bytes(view.tokens(), count, view.fan_out)) {
        return broken("fewer tokens need no more scratch");
      }
    } catch (contract_violation const& violation) {
      return verdict::broken("slot_router: workspace_bytes() suffices and legal input is accepted: ", violation.what());
    }
  }
  return {};
}

}  // namespace laws
FAIRLEAD_NAMESPACE_END
