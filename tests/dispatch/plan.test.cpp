// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/comm/alone.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/dispatch/block_map.hpp>
#include <fairlead/dispatch/capacity.hpp>
#include <fairlead/dispatch/deduplicated_exchange.hpp>
#include <fairlead/dispatch/exchange.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/exec/threads.hpp>
#include <fairlead/laws/dispatcher.hpp>
#include <fairlead/place/contiguous.hpp>

#include "support/catch.hpp"

#include <algorithm>
#include <map>
#include <vector>

namespace fl = fairlead;
using fl::index_t;

namespace {

using ids = std::vector<std::vector<int>>;
using scores = std::vector<std::vector<float>>;

fl::routing<> make_routing(ids const& experts, scores const& weights = {}) {
  auto const k = static_cast<index_t>(experts.empty() ? 1 : experts[0].size());
  fl::routing<> routed(static_cast<index_t>(experts.size()), k);
  for (std::size_t t = 0; t < experts.size(); ++t) {
    for (std::size_t j = 0; j < experts[t].size(); ++j) {
      auto const row = static_cast<index_t>(t), col = static_cast<index_t>(j);
      routed.view().experts(row, col) = static_cast<fl::expert_id>(experts[t][j]);
      routed.view().weights(row, col) = experts[t][j] < 0 ? 0.0F : weights.empty() ? 1.0F : weights[t][j];
    }
  }
  return routed;
}

// The plan of one rank.
template <class Dispatcher, class Backend = fl::serial>
fl::exchange_plan<> plan_of(Dispatcher const& dispatcher, fl::routing<> const& routed, index_t experts,
                            fl::route_context const& context = {}, Backend const& on = {}) {
  fl::alone comm;
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

std::vector<int> positions(fl::exchange_plan<> const& plan) {
  return {plan.positions.span().begin(), plan.positions.span().end()};
}
std::vector<int> dropped(fl::exchange_plan<> const& plan) {
  std::vector<int> copies;
  for (index_t c = 0; c < plan.copy_to_outer.size(); ++c) {
    if (plan.copy_to_outer[c] < 0 && plan.chosen[c] != fl::expert_id::none) { copies.push_back(static_cast<int>(c)); }
  }
  return copies;
}

ids random_ids(index_t tokens, index_t experts, index_t k, std::uint64_t seed) {
  ids result(static_cast<std::size_t>(tokens));
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t j = 0; j < k; ++j) {
      auto const draw = fl::philox::draw(seed, 0, static_cast<std::uint64_t>(t * k + j));
      // Quadratic skew towards low ids; one in sixteen is none.
      double const u = static_cast<double>(fl::philox::to_uniform(draw[0]));
      result[static_cast<std::size_t>(t)].push_back(draw[1] % 16 == 0 ? -1 : static_cast<int>(u * u * static_cast<double>(experts)));
    }
  }
  return result;
}

}  // namespace

TEST_CASE("Service orders give the positions and drops of golden vector P1") {
  auto const routed = make_routing({{0, 1}, {1, 0}, {0, 1}}, {{.6F, .4F}, {.9F, .1F}, {.7F, .3F}});
  using two = fl::fixed_capacity<>;
  auto const token = plan_of(fl::exchange<two>{.capacity = {2}}, routed, 2);
  CHECK(positions(token) == std::vector<int>{0, 0, 1, 1, 2, 2});
  CHECK(dropped(token) == std::vector<int>{4, 5});
  auto const choice = plan_of(fl::exchange<two, fl::choice_major_order>{.capacity = {2}}, routed, 2);
  CHECK(positions(choice) == std::vector<int>{0, 1, 0, 2, 1, 2});
  CHECK(dropped(choice) == std::vector<int>{3, 5});
  auto const prioritized = plan_of(fl::exchange<two, fl::batch_prioritized_order>{.capacity = {2}}, routed, 2);
  CHECK(positions(prioritized) == std::vector<int>{1, 2, 0, 2, 0, 1});
  CHECK(dropped(prioritized) == std::vector<int>{1, 3});
  auto const weight = plan_of(fl::exchange<two, fl::weight_order>{.capacity = {2}}, routed, 2);
  CHECK(positions(weight) == std::vector<int>{1, 1, 0, 2, 0, 2});
  CHECK(dropped(weight) == std::vector<int>{3, 5});
  CHECK(weight.dropped_copies == 2);
}

TEST_CASE("Block alignment gives golden vector P2") {
  auto const routed = make_routing({{0, 1}, {1, 2}, {1, 0}});
  auto const plan = plan_of(fl::exchange<>{.alignment = 4}, routed, 3);
  REQUIRE(plan.buffer_rows == 12);
  std::vector<int> const sorted(plan.outer_to_copy.span().begin(), plan.outer_to_copy.span().end());
  CHECK(sorted == std::vector<int>{0, 5, -1, -1, 1, 2, 4, -1, 3, -1, -1, -1});
  std::vector<std::int32_t> blocks(5, 7);
  CHECK(fl::map_blocks(plan.groups(), 4, blocks) == 3);
  CHECK(blocks == std::vector<std::int32_t>{0, 1, 2, -1, -1});
  CHECK_THROWS_AS(fl::map_blocks(plan.groups(), 4, std::span(blocks).first(2)), fl::contract_violation);
  CHECK_THROWS_AS(fl::map_blocks(plan.groups(), 3, blocks), fl::contract_violation);
}

TEST_CASE("A token that finds its first choice full takes the next: golden vector P3") {
  auto const routed = make_routing({{0, 1}, {0, 1}, {0, 1}});
  fl::exchange<fl::fixed_capacity<>, fl::token_order, fl::next_choice> const spill{.capacity = {1}};
  auto const plan = plan_of(spill, routed, 2);
  CHECK(plan.chosen[0] == fl::expert_id{0});
  CHECK(plan.chosen[1] == fl::expert_id::none);
  CHECK(plan.chosen[2] == fl::expert_id::none);
  CHECK(plan.chosen[3] == fl::expert_id{1});
  CHECK(plan.chosen[4] == fl::expert_id::none);
  CHECK(plan.chosen[5] == fl::expert_id::none);
  CHECK(plan.dropped_copies == 1);
  CHECK(plan.sent_copies == 2);
  // The counts before capacity are what balance losses consume.
  CHECK(plan.count_row[0] == 1);
  CHECK(plan.count_row[2] == 3);
}

TEST_CASE("Overflow copies can move to the least loaded expert") {
  auto const routed = make_routing({{0}, {0}, {0}, {2}, {0}});
  fl::exchange<fl::fixed_capacity<>, fl::token_order, fl::reroute> const policy{.capacity = {2}};
  auto const plan = plan_of(policy, routed, 3);
  std::vector<int> chosen;
  for (auto const e : plan.chosen.span()) { chosen.push_back(static_cast<int>(e)); }
  CHECK(chosen == std::vector<int>{0, 0, 1, 2, 1});
  CHECK(plan.dropped_copies == 0);
  // Never an expert that the mask forbids.
  std::vector<std::uint8_t> const mask{1, 0, 1};
  auto const masked = plan_of(policy, routed, 3, {.expert_mask = mask});
  CHECK(masked.chosen[2] == fl::expert_id{2});
  CHECK(masked.chosen[4] == fl::expert_id::none);
  CHECK(masked.dropped_copies == 1);
  // No room anywhere, and never the same expert twice for a token.
  auto const full = plan_of(policy, make_routing({{0}, {0}, {0}, {0}, {0}, {0}, {0}}), 3);
  CHECK(full.dropped_copies == 1);
  auto const pair = plan_of(fl::exchange<fl::fixed_capacity<>, fl::token_order, fl::reroute>{.capacity = {1}}, make_routing({{0, 1}, {0, 1}}), 3);
  CHECK(pair.chosen[2] == fl::expert_id{2});
  CHECK(pair.chosen[3] == fl::expert_id::none);
}

TEST_CASE("Renormalising after the drop gives a surviving second choice all the weight, before it keeps its share") {
  auto const routed = make_routing({{0, 1}, {0, 1}}, {{.6F, .4F}, {.6F, .3F}});
  using one = fl::fixed_capacity<fl::capacity_scope::rank>;
  auto before = plan_of(fl::exchange<one>{.capacity = {1}}, make_routing({{1, 0}, {2, 1}}, {{.5F, .5F}, {2.0F / 3, 1.0F / 3}}), 3);
  CHECK(before.weights[3] == 0.0F);
  auto const after = plan_of(fl::exchange<one, fl::token_order, fl::drop_and_renormalise>{.capacity = {1}},
                             make_routing({{0, 2}, {0, 1}}, {{.6F, .3F}, {.6F, .3F}}), 3);
  CHECK(after.weights[2] == 0.0F);
  CHECK(after.weights[3] == 1.0F);  // DeepSpeed: the second choice of a token that lost its first one
  CHECK(after.weights[0] == Approx(2.0 / 3));
  auto const shared = plan_of(fl::exchange<one>{.capacity = {1}}, make_routing({{0, 2}, {0, 1}}, {{2.0F / 3, 1.0F / 3}, {2.0F / 3, 1.0F / 3}}), 3);
  CHECK(shared.weights[3] == Approx(1.0 / 3));  // GShard: renormalised by the router, before the drop
}

TEST_CASE("The plan equals a stable sort by expert, on any number of threads") {
  for (index_t const tokens : {0, 1, 7, 1000, 40000}) {
    for (index_t const experts : {1, 3, 64, 500}) {
      for (index_t const k : {1, 2, 8}) {
        CAPTURE(tokens, experts, k);
        auto const routed = make_routing(random_ids(tokens, experts, k, 5), {});
        if (tokens == 0) { REQUIRE(routed.tokens() == 0); }
        auto const plan = plan_of(fl::exchange<>{}, routed, experts);
        std::vector<std::pair<int, std::int32_t>> sorted;
        for (index_t c = 0; c < tokens * routed.fan_out(); ++c) {
          int const e = static_cast<int>(routed.view().experts.data()[c]);
          if (e >= 0) { sorted.emplace_back(e, static_cast<std::int32_t>(c)); }
        }
        std::stable_sort(sorted.begin(), sorted.end(), [](auto const& a, auto const& b) { return a.first < b.first; });
        REQUIRE(plan.buffer_rows == static_cast<index_t>(sorted.size()));
        bool equal = true, inverse = true;
        for (std::size_t r = 0; r < sorted.size(); ++r) {
          equal = equal && plan.outer_to_copy[static_cast<index_t>(r)] == sorted[r].second;
          inverse = inverse && plan.copy_to_outer[sorted[r].second] == static_cast<std::int32_t>(r);
        }
        CHECK(equal);
        CHECK(inverse);
        for (int const count : {2, 3}) {
          auto const parallel = plan_of(fl::exchange<>{}, routed, experts, {}, fl::threads{count});
          CHECK(std::equal(parallel.outer_to_copy.span().begin(), parallel.outer_to_copy.span().end(),
                           plan.outer_to_copy.span().begin(), plan.outer_to_copy.span().end()));
          CHECK(std::equal(parallel.copy_to_outer.span().begin(), parallel.copy_to_outer.span().end(),
                           plan.copy_to_outer.span().begin(), plan.copy_to_outer.span().end()));
        }
      }
    }
  }
}

TEST_CASE("A random service order depends on seed, step and token number only") {
  auto const routed = make_routing(random_ids(64, 4, 2, 1));
  fl::exchange<fl::fixed_capacity<>, fl::random_order> const policy{.capacity = {5}};
  auto const a = plan_of(policy, routed, 4, {.seed = 1, .step = 3});
  auto const b = plan_of(policy, routed, 4, {.seed = 1, .step = 3});
  auto const c = plan_of(policy, routed, 4, {.seed = 1, .step = 4});
  CHECK(dropped(a) == dropped(b));
  CHECK(dropped(a) != dropped(c));
}

TEST_CASE("Row operations refuse shapes that do not fit") {
  fl::matrix<float> in(3, 4), out(2, 4), narrow(2, 3);
  std::vector<std::int32_t> const index{0, 2};
  fl::gather_rows{}(fl::serial{}, std::as_const(in).view(), index, out.view());
  CHECK_THROWS_AS((fl::gather_rows{}(fl::serial{}, std::as_const(in).view(), index, narrow.view())), fl::contract_violation);
  CHECK_THROWS_AS((fl::gather_rows{}(fl::serial{}, std::as_const(in).view(), index, in.view())), fl::contract_violation);
}

TEST_CASE("Combining more rows than the unrolled loops take gives the same sums") {
  index_t const width = 70;
  for (index_t const k : {1, 2, 7, 8, 9, 16}) {
    CAPTURE(k);
    fl::matrix<float> rows(20, width), own(3, width), out(3, width);
    fl::matrix<std::int32_t> index(3, k);
    fl::matrix<float> weights(3, k);
    for (index_t i = 0; i < 20 * width; ++i) { rows.data()[i] = static_cast<float>(i % 13) - 5.0F; }
    for (index_t i = 0; i < 3 * width; ++i) { own.data()[i] = static_cast<float>(i % 7); }
    for (index_t t = 0; t < 3; ++t) {
      for (index_t j = 0; j < k; ++j) {
        index(t, j) = j == 1 ? fl::no_row : j == 2 ? fl::own_row : static_cast<std::int32_t>((7 * t + 3 * j) % 20);
        weights(t, j) = 0.25F * static_cast<float>(j + 1);
      }
    }
    fl::combine_rows{}(fl::serial{}, std::as_const(rows).view(), std::as_const(index).view(), std::as_const(weights).view(), std::as_const(own).view(), out.view());
    for (index_t t = 0; t < 3; ++t) {
      for (index_t i = 0; i < width; ++i) {
        double want = 0.0;
        for (index_t j = 0; j < k; ++j) {
          if (index(t, j) == fl::no_row) { continue; }
          want += static_cast<double>(weights(t, j)) * static_cast<double>(index(t, j) == fl::own_row ? own(t, i) : rows(index(t, j), i));
        }
        CHECK(out(t, i) == Approx(want).margin(1e-4));
      }
    }
  }
}

TEST_CASE("The laws of a dispatcher hold on several threads") {
  fl::alone comm;
  for (int const count : {1, 2, 3}) {
    CAPTURE(count);
    fl::laws::dispatcher_options const options{.tokens = 300, .experts = 9, .fan_out = 3};
    CHECK(fl::laws::check_dispatcher(fl::exchange<>{.alignment = 4}, fl::threads{count}, comm, options));
    CHECK(fl::laws::check_dispatcher(fl::deduplicated_exchange<>{}, fl::threads{count}, comm, options));
  }
}
