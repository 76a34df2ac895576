// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The law kits of slot assigners and load planners, on a model that keeps every law and on one for each broken law.
#include <fairlead/laws/load_planner.hpp>
#include <fairlead/laws/slot_assigner.hpp>

#include <algorithm>
#include <string>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::expert_id;
using fl::index_t;
using fl::report;
using fl::status;
using fl::topology;
using fl::workspace;

namespace {

enum class flaw {
  none,
  loses_one,
  doubles_one,
  keeps_old,
  reads_scratch,
  takes_more,
  value_off,
  bound_off,
  not_infeasible,
  dirty_infeasible,
  depends_on_scale,
  writes_beside,
  refuses_legal,
  unknown_expert,
  leaves_slot_empty
};

// Replicas in the order of experts into slots in their order.
template <flaw Flaw>
struct in_order {
  report assign(topology const& cluster, std::span<index_t const> load, std::span<index_t const> replicas,
                std::span<expert_id> slots, workspace& ws) const {
    index_t sum = 0;
    for (index_t const count : replicas) { sum += count; }
    auto const scratch = ws.take<index_t>(static_cast<index_t>(load.size()) + (Flaw == flaw::takes_more ? 100 : 0));
    if (sum > cluster.slots() && Flaw != flaw::not_infeasible) {
      if (Flaw != flaw::dirty_infeasible) { std::fill(slots.begin(), slots.end(), expert_id::none); }
      return {status::infeasible, 0, 0.0, 0.0};
    }
    if (Flaw == flaw::refuses_legal && load.empty()) {
      std::fill(slots.begin(), slots.end(), expert_id::none);
      return {status::infeasible, 0, 0.0, 0.0};
    }
    std::size_t at = 0;
    bool const backwards = Flaw == flaw::depends_on_scale && load.size() > 1 && load[0] > 500;
    for (std::size_t i = 0; i < replicas.size(); ++i) {
      std::size_t const e = backwards ? replicas.size() - 1 - i : i;
      index_t count = replicas[e];
      if (Flaw == flaw::loses_one && e == 2 && count > 0) { --count; }
      if (Flaw == flaw::doubles_one && e == 1 && count > 0 && sum < cluster.slots()) { ++count; }
      for (; count > 0 && at < slots.size(); --count) { slots[at++] = static_cast<expert_id>(e); }
    }
    if (Flaw == flaw::unknown_expert && at > 0) { slots[0] = static_cast<expert_id>(replicas.size()); }
    if (Flaw == flaw::reads_scratch && at > 1 && scratch.size() > 1 && scratch[1] != 0) {
      std::swap(slots[0], slots[at - 1]);
    }
    if (Flaw != flaw::keeps_old) {
      std::fill(slots.begin() + static_cast<std::ptrdiff_t>(at), slots.end(), expert_id::none);
    }
    if (Flaw == flaw::writes_beside) { *(slots.data() + slots.size()) = static_cast<expert_id>(0); }
    double value = 0.0;
    if constexpr (Flaw != flaw::unknown_expert && Flaw != flaw::keeps_old) {
      value = fl::laws::detail::largest_equal_share(cluster, load, slots);
    }
    return {status::ok, 0, Flaw == flaw::value_off ? value + 1.0 : value, Flaw == flaw::bound_off ? value + 1.0 : 0.0};
  }
  std::size_t workspace_bytes(topology const&, index_t experts) const { return fl::workspace_bytes<index_t>(experts); }
};
static_assert(fl::slot_assigner<in_order<flaw::none>>);

// The same with spare slots for the first expert.
template <flaw Flaw>
struct first_is_popular {
  static constexpr fl::replica_meaning meaning = fl::replica_meaning::equal_share;
  report plan(topology const& cluster, fl::load_estimate const& load, std::span<expert_id const>,
              std::span<expert_id> next, workspace& ws) const {
    std::vector<index_t> replicas(load.totals.size(), 1);
    index_t const spare = cluster.slots() - static_cast<index_t>(replicas.size());
    if (!replicas.empty() && spare > 0) { replicas[0] += Flaw == flaw::leaves_slot_empty ? spare - 1 : spare; }
    return in_order<Flaw>{}.assign(cluster, load.totals, replicas, next, ws);
  }
  std::size_t workspace_bytes(topology const& cluster, index_t experts) const {
    return in_order<Flaw>{}.workspace_bytes(cluster, experts);
  }
};
static_assert(fl::load_planner<first_is_popular<flaw::none>>);

template <flaw Flaw>
bool assigner_found(char const* law, fl::laws::slot_assigner_problem const& problem = {}) {
  auto const verdict = fl::laws::check_slot_assigner(in_order<Flaw>{}, problem);
  INFO(verdict.reason());
  CHECK(verdict.reason().find(law) != std::string::npos);
  return !verdict;
}
template <flaw Flaw>
bool planner_found(char const* law, fl::laws::load_planner_problem const& problem = {}) {
  auto const verdict = fl::laws::check_load_planner(first_is_popular<Flaw>{}, problem);
  INFO(verdict.reason());
  CHECK(verdict.reason().find(law) != std::string::npos);
  return !verdict;
}

}  // namespace

TEST_CASE("the laws of slot assigners hold for a plain model", "[place][laws]") {
  CHECK(fl::laws::check_slot_assigner(in_order<flaw::none>{}));
  CHECK(fl::laws::check_slot_assigner(in_order<flaw::none>{}, {.ranks = 1, .experts = 1, .extra_slots = 0}));
  CHECK(fl::laws::check_slot_assigner(in_order<flaw::none>{}, {.ranks = 9, .experts = 3, .extra_slots = 2, .seed = 5}));
}

TEST_CASE("the laws of slot assigners find one planted violation each", "[place][laws]") {
  CHECK(assigner_found<flaw::loses_one>("as many slots as replicas"));
  CHECK(assigner_found<flaw::doubles_one>("as many slots as replicas"));
  CHECK(assigner_found<flaw::keeps_old>("whatever slots and scratch held"));
  CHECK(assigner_found<flaw::reads_scratch>("whatever slots and scratch held"));
  CHECK(assigner_found<flaw::takes_more>("workspace_bytes() suffices"));
  CHECK(assigner_found<flaw::value_off>("value is the largest load"));
  CHECK(assigner_found<flaw::bound_off>("the bound is not above"));
  CHECK(assigner_found<flaw::not_infeasible>("replicas that do not fit"));
  CHECK(assigner_found<flaw::dirty_infeasible>("replicas that do not fit"));
  CHECK(assigner_found<flaw::depends_on_scale>("times three"));
  CHECK(assigner_found<flaw::writes_beside>("nothing beside the slots"));
  CHECK(assigner_found<flaw::refuses_legal>("no experts are legal"));
  CHECK(assigner_found<flaw::unknown_expert>("slots hold experts or none"));
}

TEST_CASE("the laws of load planners hold for a plain model", "[place][laws]") {
  CHECK(fl::laws::check_load_planner(first_is_popular<flaw::none>{},
                                     {.fills_slots = true, .value_is_largest_share = true, .scale_invariant = true}));
  CHECK(fl::laws::check_load_planner(first_is_popular<flaw::none>{}, {.ranks = 1, .experts = 1, .extra_slots = 0}));
  CHECK(fl::laws::check_load_planner(first_is_popular<flaw::none>{}, {.ragged = false, .needs_now = true}));
}

TEST_CASE("the laws of load planners find one planted violation each", "[place][laws]") {
  CHECK(planner_found<flaw::loses_one>("every expert gets a slot"));
  CHECK(planner_found<flaw::keeps_old>("no experts are legal and leave"));  // elsewhere it fills all slots
  CHECK(planner_found<flaw::reads_scratch>("whatever the next table and scratch held"));
  CHECK(planner_found<flaw::takes_more>("workspace_bytes() suffices"));
  CHECK(planner_found<flaw::value_off>("value is the largest load", {.value_is_largest_share = true}));
  CHECK(planner_found<flaw::bound_off>("the bound is not above"));
  CHECK(planner_found<flaw::not_infeasible>("fewer slots than experts"));
  CHECK(planner_found<flaw::dirty_infeasible>("fewer slots than experts"));
  CHECK(planner_found<flaw::depends_on_scale>("times three", {.scale_invariant = true}));
  CHECK(planner_found<flaw::writes_beside>("nothing beside the next table"));
  CHECK(planner_found<flaw::refuses_legal>("no experts are legal"));
  CHECK(planner_found<flaw::unknown_expert>("slots hold experts or none"));
  CHECK(planner_found<flaw::leaves_slot_empty>("no slot stays empty", {.fills_slots = true}));
}
