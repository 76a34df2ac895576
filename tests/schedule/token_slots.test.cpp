// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/comm/alone.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/dispatch/exchange.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/laws/token_scheduler.hpp>
#include <fairlead/schedule/local_node_even.hpp>
#include <fairlead/schedule/token_slots.hpp>

#include <algorithm>
#include <map>
#include <numeric>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::count_t;
using fl::expert_id;
using fl::index_t;

namespace {

// Distinct random experts a token.
fl::routing<> random_routing(index_t tokens, index_t fan_out, index_t experts, std::uint64_t seed) {
  fl::routing<> routing(tokens, fan_out);
  std::uint64_t index = 0;
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t k = 0; k < fan_out;) {
      auto const expert = static_cast<expert_id>(fl::philox::below(fl::philox::draw(seed, 1, index++)[0], static_cast<std::uint32_t>(experts)));
      bool taken = false;
      for (index_t j = 0; j < k; ++j) { taken = taken || routing.view().experts(t, j) == expert; }
      if (!taken) { routing.view().experts(t, k++) = expert; }
    }
  }
  return routing;
}

}  // namespace

TEST_CASE("tokens take the slots that the schedule says, in service order", "[schedule]") {
  index_t const ranks = 4, experts = 6, tokens = 150, fan_out = 2;
  fl::topology const cluster(ranks, 0, 2);
  for (std::uint64_t number = 1; number < 30; ++number) {
    fl::placement const where = fl::laws::detail::random_placement({.ranks = ranks, .experts = experts, .extra_slots = 10, .seed = 4}, number);
    fl::routing<> routing = random_routing(tokens, fan_out, experts, number);
    std::vector<count_t> counts(static_cast<std::size_t>(experts), 0), quota(static_cast<std::size_t>(where.replicas()));
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t k = 0; k < fan_out; ++k) { ++counts[static_cast<std::size_t>(routing.view().experts(t, k))]; }
    }
    REQUIRE(fl::local_node_even{cluster}.row(counts, fl::rank_id{2}, where, quota));

    std::vector<fl::slot_id> slots(static_cast<std::size_t>(tokens * fan_out), static_cast<fl::slot_id>(-9)), slot_of(quota.size());
    std::vector<expert_id> expert_of(static_cast<std::size_t>(where.slots()));
    fl::token_slots::experts_of_slots(where, expert_of);
    fl::token_slots::slots_of_replicas(where, slot_of);
    fl::arena<> memory(fl::token_slots{}.workspace_bytes(where));
    auto ws = memory.view();
    bool const reverse = number % 2 == 0;
    std::vector<std::int32_t> sequence(slots.size());
    std::iota(sequence.begin(), sequence.end(), 0);
    if (reverse) { std::reverse(sequence.begin(), sequence.end()); }
    fl::report const ended = fl::token_slots{}.assign(std::as_const(routing).view(), reverse ? std::span<std::int32_t const>(sequence) : std::span<std::int32_t const>{},
                                                      where, quota, slots, ws);
    REQUIRE(ended);
    CHECK(ended.value == static_cast<double>(tokens * fan_out));

    std::map<std::int32_t, index_t> used;
    std::vector<index_t> last(static_cast<std::size_t>(experts), -1);
    for (std::int32_t const copy : sequence) {
      fl::slot_id const slot = slots[static_cast<std::size_t>(copy)];
      expert_id const expert = routing.view().experts(copy / fan_out, copy % fan_out);
      REQUIRE(fl::to_index(slot) >= 0);
      CHECK(expert_of[static_cast<std::size_t>(slot)] == expert);
      ++used[static_cast<std::int32_t>(slot)];
      // First copies go to the first replica: the number of the replica never falls along the service order.
      auto const column = static_cast<index_t>(std::find(slot_of.begin(), slot_of.end(), slot) - slot_of.begin());
      CHECK(column >= last[static_cast<std::size_t>(expert)]);
      last[static_cast<std::size_t>(expert)] = column;
    }
    for (std::size_t r = 0; r < quota.size(); ++r) { CHECK(used[static_cast<std::int32_t>(slot_of[r])] == quota[r]); }
    for (index_t t = 0; t < tokens; ++t) { CHECK(slots[static_cast<std::size_t>(2 * t)] != slots[static_cast<std::size_t>(2 * t + 1)]); }
  }
}

TEST_CASE("copies without expert and beyond all quotas get no slot", "[schedule]") {
  std::vector<index_t> const offsets{0, 2, 4};
  std::vector<expert_id> const table{expert_id::none, expert_id{0}, expert_id{0}, expert_id{1}};
  fl::placement const where(3, offsets, table);
  fl::routing<> routing(6, 1);
  for (index_t t = 0; t < 6; ++t) { routing.view().experts(t, 0) = expert_id{0}; }
  routing.view().experts(1, 0) = expert_id::none;
  routing.view().experts(4, 0) = expert_id{2};  // has no replica
  std::vector<count_t> const quota{1, 2, 0};
  std::vector<fl::slot_id> slots(6);
  fl::arena<> memory(fl::token_slots{}.workspace_bytes(where));
  auto ws = memory.view();
  fl::report const ended = fl::token_slots{}.assign(std::as_const(routing).view(), {}, where, quota, slots, ws);
  CHECK(ended.value == 3.0);
  CHECK(slots == std::vector<fl::slot_id>{fl::slot_id{1}, fl::slot_id::none, fl::slot_id{2}, fl::slot_id{2}, fl::slot_id::none, fl::slot_id::none});
  std::vector<expert_id> back(4);
  fl::token_slots::experts_of_slots(where, back);
  CHECK(back == table);
}

TEST_CASE("token_slots names wrong shapes", "[schedule][contract]") {
  fl::placement const where = fl::laws::detail::random_placement({.ranks = 2, .experts = 3, .extra_slots = 1}, 1);
  fl::routing<> routing(2, 1);
  std::vector<count_t> quota(static_cast<std::size_t>(where.replicas())), few(1);
  std::vector<fl::slot_id> slots(2), one(1);
  std::vector<std::int32_t> sequence(1);
  fl::arena<> memory(fl::token_slots{}.workspace_bytes(where));
  auto ws = memory.view();
  auto const view = std::as_const(routing).view();
  CHECK_THROWS_AS(fl::token_slots{}.assign(view, {}, where, quota, one, ws), fl::contract_violation);
  CHECK_THROWS_AS(fl::token_slots{}.assign(view, {}, where, few, slots, ws), fl::contract_violation);
  CHECK_THROWS_AS(fl::token_slots{}.assign(view, sequence, where, quota, slots, ws), fl::contract_violation);
}

TEST_CASE("token_slots names the slots whose groups dispatch puts the copies in", "[schedule]") {
  index_t const experts = 5, tokens = 60, fan_out = 2;
  for (std::uint64_t number = 1; number < 20; ++number) {
    fl::placement const where = fl::laws::detail::random_placement({.ranks = 1, .experts = experts, .extra_slots = 9, .seed = 14}, number);
    fl::routing<> const routing = random_routing(tokens, fan_out, experts, number);
    fl::exchange<fl::dropless, fl::choice_major_order> const dispatcher;
    fl::serial const on;
    fl::alone const comm;
    fl::exchange_plan<fl::host_space> plan;
    fl::arena<> memory(dispatcher.workspace_bytes(tokens * fan_out, experts, 1) + fl::token_slots{}.workspace_bytes(where));
    auto ws = memory.view();
    fl::route_context const context{};
    dispatcher.admit(on, routing.view(), context, experts, plan, ws);
    std::vector<count_t> quota(static_cast<std::size_t>(where.replicas()));
    std::vector<count_t> counts(plan.count_row.span().begin(), plan.count_row.span().begin() + experts);
    REQUIRE(fl::local_node_even{fl::topology(1, 0)}.row(counts, fl::rank_id{0}, where, quota));
    dispatcher.plan(on, comm, routing.view(), where, fl::const_token_schedule_view(quota.data(), 1, where.replicas()), plan, ws);

    std::vector<std::int32_t> sequence(static_cast<std::size_t>(tokens * fan_out));
    fl::choice_major_order{}.sequence(routing.view(), context, sequence, ws);
    std::vector<fl::slot_id> slots(sequence.size());
    auto again = memory.view();
    REQUIRE(fl::token_slots{}.assign(routing.view(), sequence, where, quota, slots, again));
    index_t seen = 0;
    for (index_t slot = 0; slot < where.slots(); ++slot) {
      for (index_t row = plan.slot_offsets[slot]; row < plan.slot_offsets[slot] + plan.slot_counts[slot]; ++row, ++seen) {
        CHECK(fl::to_index(slots[static_cast<std::size_t>(plan.outer_to_copy[row])]) == slot);
      }
    }
    CHECK(seen == tokens * fan_out);
  }
}
