// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Capacities inside groups, closed experts, and random token selection.
#include "support/catch.hpp"

#include <fairlead/comm/alone.hpp>
#include <fairlead/comm/inproc.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/dispatch/capacity.hpp>
#include <fairlead/dispatch/deduplicated_exchange.hpp>
#include <fairlead/dispatch/exchange.hpp>
#include <fairlead/dispatch/token_groups.hpp>
#include <fairlead/dispatch/identity_experts.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/laws/dispatcher.hpp>
#include <fairlead/place/contiguous.hpp>
#include <fairlead/route/sampled_choice.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

namespace fl = fairlead;
using fl::index_t;

namespace {

fl::routing<> random_routing(index_t tokens, index_t experts, index_t k, std::uint64_t seed) {
  fl::routing<> routed(tokens, k);
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t j = 0; j < k; ++j) {
      auto const draw = fl::philox::draw(seed, 0, static_cast<std::uint64_t>(t * k + j));
      double const u = static_cast<double>(fl::philox::to_uniform(draw[0]));
      auto e = static_cast<index_t>(u * u * static_cast<double>(experts));  // skewed towards low ids
      for (index_t i = 0; i < j; ++i) {
        if (fl::to_index(routed.view().experts(t, i)) == e) { e = -1; }
      }
      routed.view().experts(t, j) = static_cast<fl::expert_id>(e);
      routed.view().weights(t, j) = e < 0 ? 0.0F : fl::philox::to_uniform(draw[1]);
    }
  }
  return routed;
}
template <class Dispatcher>
fl::exchange_plan<> plan_of(Dispatcher const& dispatcher, fl::routing<> const& routed, index_t experts,
                            fl::route_context const& context = {}) {
  fl::alone comm;
  fl::serial on;
  auto const where = fl::contiguous_placement{}.initial(1, experts);
  fl::exchange_plan<> plan;
  fl::arena<> memory(dispatcher.workspace_bytes(routed.tokens() * routed.fan_out(), experts, on.concurrency()));
  auto ws = memory.view();
  dispatcher.admit(on, routed.view(), context, experts, plan, ws);
  fl::matrix<fl::count_t> kept(1, experts);
  dispatcher.limit(plan.count_row.as_matrix(1, 2 * experts + 1), where, routed.fan_out(), kept.view());
  dispatcher.plan(on, comm, routed.view(), where, std::as_const(kept).view(), plan, ws);
  return plan;
}
std::vector<char> kept_copies(fl::exchange_plan<> const& plan) {
  std::vector<char> kept;
  for (std::int32_t const row : plan.copy_to_outer.span()) { kept.push_back(row >= 0 ? 1 : 0); }
  return kept;
}
template <class Dispatcher>
fl::laws::verdict on_ranks(Dispatcher const& dispatcher, index_t ranks, fl::laws::dispatcher_options options) {
  fl::inproc::world world{ranks};
  auto const verdicts = world.run([&](fl::inproc::communicator comm) {
    auto mine = options;
    mine.tokens = options.tokens + 3 * comm.rank();
    return fl::laws::check_dispatcher(dispatcher, fl::serial{}, comm, mine);
  });
  for (auto const& verdict : verdicts) {
    if (!verdict) { return verdict; }
  }
  return {};
}

}  // namespace

TEST_CASE("groups of tokens have capacities of their own, second choices behind all first ones of the group") {
  for (index_t const tokens : {0, 1, 7, 50, 64}) {
    for (index_t const group : {1, 8, 64, 1000}) {
      CAPTURE(tokens, group);
      index_t const experts = 5, k = 2;
      auto const routed = random_routing(tokens, experts, k, static_cast<std::uint64_t>(group));
      fl::mesh_capacity const places{.factor = 1.0, .minimum = 1};
      fl::exchange<fl::dropless, fl::grouped_order<>, fl::drop_in_groups<>> const policy{
          .order = {.group = group}, .overflow = {.group = group, .capacity = places}};
      auto const plan = plan_of(policy, routed, experts);
      // The definition: a running count a group and expert, over first choices and then second ones.
      std::vector<char> want(static_cast<std::size_t>(tokens * k), 0);
      index_t dropped = 0;
      for (index_t first = 0; first < tokens; first += group) {
        index_t const last = std::min(tokens, first + group);
        std::vector<index_t> count(static_cast<std::size_t>(experts), 0);
        for (index_t j = 0; j < k; ++j) {
          for (index_t t = first; t < last; ++t) {
            index_t const e = fl::to_index(routed.view().experts(t, j));
            if (e < 0) { continue; }
            bool const fits = count[static_cast<std::size_t>(e)]++ < places.places(last - first, experts, k, 1);
            want[static_cast<std::size_t>(t * k + j)] = fits ? 1 : 0;
            dropped += fits ? 0 : 1;
          }
        }
      }
      CHECK(kept_copies(plan) == want);
      CHECK(plan.dropped_copies == dropped);
    }
  }
}

TEST_CASE("capacities in groups refuse an order that mixes them, and keep the laws of a dispatcher") {
  auto const routed = random_routing(32, 4, 2, 1);
  fl::exchange<fl::dropless, fl::choice_major_order, fl::drop_in_groups<>> const mixed{.overflow = {.group = 8}};
  CHECK_THROWS_AS(plan_of(mixed, routed, 4), fl::contract_violation);
  fl::exchange<fl::dropless, fl::token_order, fl::drop_in_groups<>> const arrival{.overflow = {.group = 8}};
  CHECK(plan_of(arrival, routed, 4).dropped_copies > 0);
  fl::exchange<fl::dropless, fl::grouped_order<fl::batch_prioritized_order>, fl::drop_in_groups<fl::flaxformer_capacity>> const prioritized{
      .order = {.group = 8}, .overflow = {.group = 8, .capacity = {.minimum = 2}}};
  fl::exchange<fl::dropless, fl::grouped_order<fl::random_order>, fl::drop_in_groups<>> const random{
      .order = {.group = 8}, .overflow = {.group = 8, .capacity = {.factor = 0.5, .minimum = 0}}};
  for (index_t const ranks : {1, 2, 4}) {
    CHECK(on_ranks(prioritized, ranks, {.fan_out = 2, .drops = true}));
    CHECK(on_ranks(random, ranks, {.fan_out = 2, .drops = true}));
  }
}

TEST_CASE("a grouped random order draws what the tokens would draw alone") {
  auto const routed = random_routing(24, 4, 2, 3);
  std::vector<std::int32_t> sequence(48), alone(16);
  fl::grouped_order<fl::random_order> const order{.group = 8};
  fl::arena<> memory(order.workspace_bytes(48));
  auto ws = memory.view();
  order.sequence(routed.view(), {.seed = 3, .step = 2, .first_token = 100}, sequence, ws);
  fl::const_routing_view const last{routed.view().experts.rows(16, 8), routed.view().weights.rows(16, 8)};
  fl::random_order{}.sequence(last, {.seed = 3, .step = 2, .first_token = 116}, alone, ws);
  for (std::size_t i = 0; i < 16; ++i) { CHECK(sequence[32 + i] == alone[i] + 32); }
}

TEST_CASE("identity experts return the token, and nothing is dispatched for them") {
  fl::exchange<fl::identity_experts<>, fl::token_order, fl::identity> const policy{.capacity = {.first = 3}};
  auto const routed = random_routing(40, 5, 2, 4);
  auto const plan = plan_of(policy, routed, 5);
  for (index_t t = 0; t < 40; ++t) {
    for (index_t j = 0; j < 2; ++j) {
      index_t const e = fl::to_index(routed.view().experts(t, j));
      index_t const copy = 2 * t + j;
      CHECK((plan.copy_to_outer[copy] >= 0) == (e >= 0 && e < 3));
      CHECK(plan.weights[copy] == (e < 0 ? 0.0F : routed.view().weights(t, j)));
    }
  }
  for (index_t const ranks : {1, 2, 3, 4}) {
    for (index_t const fan_out : {1, 2, 4}) {
      CAPTURE(ranks, fan_out);
      CHECK(on_ranks(policy, ranks, {.fan_out = fan_out, .drops = true, .returns_tokens = true}));
      CHECK(on_ranks(fl::exchange<fl::identity_experts<fl::megatron_capacity>>{.capacity = {.first = 2}}, ranks,
                     {.fan_out = fan_out, .drops = true}));
      CHECK(on_ranks(fl::exchange<fl::identity_experts<fl::fixed_capacity<fl::capacity_scope::global>>, fl::weight_order, fl::identity>{
                         .capacity = {.capacity = {9}, .first = 2}},
                     ranks, {.fan_out = fan_out, .drops = true, .returns_tokens = true}));
      CHECK(on_ranks(fl::deduplicated_exchange<fl::identity_experts<>, fl::token_order, fl::identity>{.capacity = {.first = 2}}, ranks,
                     {.fan_out = fan_out, .drops = true, .returns_tokens = true}));
    }
  }
}

TEST_CASE("random token selection keeps each token as often as the others") {
  index_t const tokens = 24, places = 6;
  fl::routing<> routed(tokens, 1);
  for (index_t t = 0; t < tokens; ++t) {
    routed.view().experts(t, 0) = fl::expert_id{0};
    routed.view().weights(t, 0) = static_cast<float>(t);  // without effect on this order
  }
  fl::exchange<fl::fixed_capacity<>, fl::random_order> const policy{.capacity = {places}};
  std::vector<int> times(static_cast<std::size_t>(tokens), 0);
  int together = 0;
  int const draws = 2000;
  for (int step = 0; step < draws; ++step) {
    auto const kept = kept_copies(plan_of(policy, routed, 1, {.seed = 7, .step = static_cast<std::uint64_t>(step)}));
    REQUIRE(std::count(kept.begin(), kept.end(), 1) == places);
    for (std::size_t t = 0; t < kept.size(); ++t) { times[t] += kept[t]; }
    together += kept[0] != 0 && kept[1] != 0 ? 1 : 0;
  }
  for (int const count : times) { CHECK(std::abs(count - draws / 4) < 5 * 20); }  // deviation 19.4
  // Neighbours are drawn independently: C(22, 4) / C(24, 6) = 30 / 552.
  CHECK(std::abs(together - draws * 30 / 552) < 5 * 11);
}

TEST_CASE("DeepSpeed's top-2 gate: first choices first, and weights renormalised over what capacity left") {
  index_t const tokens = 40, experts = 4;
  fl::matrix<float> logits(tokens, experts);
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t e = 0; e < experts; ++e) {
      logits(t, e) = static_cast<float>(fl::philox::normal(5, static_cast<std::uint64_t>(t), static_cast<std::uint64_t>(e))) - static_cast<float>(e) * 0.5F;
    }
  }
  auto const router = fl::sampled_second(experts);
  fl::arena<> memory(router.workspace_bytes(tokens));
  auto ws = memory.view();
  fl::routing<> routed(tokens, 2);
  fl::route_context const context{.seed = 6};
  router.route(fl::serial{}, logits.view(), context, routed.view(), ws);
  fl::deepspeed_capacity const capacity{.factor = 0.7, .minimum = 0};
  fl::exchange<fl::deepspeed_capacity, fl::choice_major_order, fl::drop_and_renormalise> const policy{.capacity = capacity};
  auto const plan = plan_of(policy, routed, experts, context);
  index_t const places = capacity.places(tokens, experts, 2, 1);
  std::vector<index_t> count(static_cast<std::size_t>(experts), 0);
  std::vector<double> kept(static_cast<std::size_t>(2 * tokens), 0.0);
  for (index_t j = 0; j < 2; ++j) {
    for (index_t t = 0; t < tokens; ++t) {
      auto const e = static_cast<std::size_t>(fl::to_index(routed.view().experts(t, j)));
      if (count[e]++ < places) { kept[static_cast<std::size_t>(2 * t + j)] = static_cast<double>(routed.view().weights(t, j)); }
    }
  }
  int alone = 0;
  for (index_t t = 0; t < tokens; ++t) {
    double const first = kept[static_cast<std::size_t>(2 * t)], second = kept[static_cast<std::size_t>(2 * t + 1)];
    double const sum = first + second;
    CHECK(static_cast<double>(plan.weights[2 * t]) == Approx(sum > 0.0 ? first / sum : 0.0).epsilon(1e-5));
    CHECK(static_cast<double>(plan.weights[2 * t + 1]) == Approx(sum > 0.0 ? second / sum : 0.0).epsilon(1e-5));
    alone += (first > 0.0) != (second > 0.0) ? 1 : 0;
  }
  CHECK(alone > 0);  // some tokens lost a choice, and the other one has weight 1
}
