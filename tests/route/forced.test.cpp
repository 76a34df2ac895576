// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Routers that do not ask the logits: random, in turn, forced logits, hash tables, replay; and the guard for decoding.
#include "support/catch.hpp"

#include <fairlead/balance/sign_bias.hpp>
#include <fairlead/comm/alone.hpp>
#include <fairlead/laws/router.hpp>
#include <fairlead/route/decode_only.hpp>
#include <fairlead/route/expert_choice.hpp>
#include <fairlead/route/forced_choice.hpp>
#include <fairlead/route/forced_logits.hpp>
#include <fairlead/route/hash_tables.hpp>
#include <fairlead/route/replay.hpp>
#include <fairlead/route/sinkhorn_router.hpp>
#include <fairlead/workload/skewed_logits.hpp>

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

namespace fl = fairlead;

namespace {

// The same router without its gradient: for straight-through gradients, which are no derivatives.
template <class Router>
struct forward_only {
  Router router;
  [[nodiscard]] fl::index_t experts() const { return router.experts(); }
  [[nodiscard]] fl::index_t fan_out() const { return router.fan_out(); }
  [[nodiscard]] std::size_t workspace_bytes(fl::index_t tokens) const { return router.workspace_bytes(tokens); }
  template <class Backend>
  void route(Backend const& on, fl::matrix_view<float const> logits, fl::route_context const& context,
             fl::routing_view out, fl::workspace& ws) const {
    router.route(on, logits, context, out, ws);
  }
};

template <class Router>
fl::routing<> route(Router const& router, fl::matrix_view<float const> logits, fl::route_context const& context = {}) {
  fl::routing<> out(logits.rows(), router.fan_out());
  fl::arena<> memory(router.workspace_bytes(logits.rows()));
  fl::workspace ws = memory.view();
  router.route(fl::serial{}, logits, context, out.view(), ws);
  return out;
}
std::vector<fl::index_t> loads(fl::routing<> const& out, fl::index_t experts) {
  std::vector<fl::index_t> counts(static_cast<std::size_t>(experts), 0);
  for (fl::index_t t = 0; t < out.tokens(); ++t) {
    for (fl::index_t j = 0; j < out.fan_out(); ++j) {
      fl::index_t const e = fl::to_index(out.view().experts(t, j));
      if (e >= 0) { ++counts[static_cast<std::size_t>(e)]; }
    }
  }
  return counts;
}
bool same_ids(fl::routing<> const& a, fl::routing<> const& b) {
  for (fl::index_t t = 0; t < a.tokens(); ++t) {
    for (fl::index_t j = 0; j < a.fan_out(); ++j) {
      if (a.view().experts(t, j) != b.view().experts(t, j)) { return false; }
    }
  }
  return true;
}
fl::matrix<float> skewed(fl::index_t tokens, fl::index_t experts, double skew, std::uint64_t seed) {
  return fl::workload::skewed_logits{.tokens = tokens, .experts = experts, .skew = skew, .seed = seed}.make();
}
double worst_over_mean(std::vector<fl::index_t> const& counts) {
  double const sum = static_cast<double>(std::accumulate(counts.begin(), counts.end(), fl::index_t{0}));
  return static_cast<double>(*std::max_element(counts.begin(), counts.end())) * static_cast<double>(counts.size()) / sum;
}

}  // namespace

TEST_CASE("routers that do not ask the logits keep the laws") {
  for (auto const& [experts, k] : {std::pair<int, int>{1, 1}, {3, 2}, {8, 1}, {20, 4}}) {
    CAPTURE(experts, k);
    fl::laws::router_problem const problem{.tokens = 37, .seed = 3, .by_score = false};
    CHECK(fl::laws::check_router(fl::random_choice{.experts = experts, .k = k, .scale = 2.0F}, problem));
    CHECK(fl::laws::check_router(fl::uniform_choice{.experts = experts, .k = k}, problem));
    using gated = fl::forced_choice<fl::random_experts, fl::softmax_score, fl::not_renormalised>;
    CHECK(fl::laws::check_router(gated{.experts = experts, .k = k}, problem));
    fl::top_k const inner{.experts = experts, .k = k};
    CHECK(fl::laws::check_router(fl::forced_imbalance<fl::top_k>{.router = inner}, problem));
    CHECK(fl::laws::check_router(forward_only<fl::forced_balance<fl::top_k>>{{.router = inner}}, problem));
  }
}

TEST_CASE("random experts are even on average, new each step, and do not depend on the cut of the batch") {
  fl::matrix<float> const logits(4000, 10);
  fl::random_choice const router{.experts = 10, .k = 3};
  auto const all = route(router, logits.view(), {.seed = 1, .step = 2});
  CHECK(worst_over_mean(loads(all, 10)) < 1.1);
  CHECK(all.view().weights(5, 1) == Approx(1.0F / 3.0F));
  CHECK_FALSE(same_ids(all, route(router, logits.view(), {.seed = 1, .step = 3})));
  CHECK_FALSE(same_ids(all, route(router, logits.view(), {.seed = 2, .step = 2})));
  auto const half = route(router, logits.view().rows(2000, 2000), {.seed = 1, .step = 2, .first_token = 2000});
  for (fl::index_t t = 0; t < 2000; ++t) {
    for (fl::index_t j = 0; j < 3; ++j) { REQUIRE(half.view().experts(t, j) == all.view().experts(2000 + t, j)); }
  }
}

TEST_CASE("experts in turn are even over ranks with few rows, if and only if ranks know their place") {
  fl::matrix<float> const logits(3, 16);
  std::vector<fl::index_t> counts(16, 0), same_place(16, 0);
  for (fl::index_t rank = 0; rank < 8; ++rank) {
    auto const add = [&](std::vector<fl::index_t>& to, fl::index_t first) {
      auto const one = loads(route(fl::uniform_choice{.experts = 16, .k = 2}, logits.view(), {.first_token = first}), 16);
      for (std::size_t e = 0; e < 16; ++e) { to[e] += one[e]; }
    };
    add(counts, rank * 3);
    add(same_place, 0);
  }
  CHECK(counts == std::vector<fl::index_t>(16, 3));
  CHECK(*std::min_element(same_place.begin(), same_place.end()) == 0);  // the bug of rank-unaware generators
}

TEST_CASE("forced balance ignores the logits and hands the gradient straight through") {
  auto const logits = skewed(2000, 8, 3.0, 4);
  fl::forced_balance<fl::top_k> const router{.router = {.experts = 8, .k = 2}};
  CHECK(worst_over_mean(loads(route(router.router, logits.view()), 8)) > 2.0);
  auto const out = route(router, logits.view(), {.seed = 5});
  CHECK(worst_over_mean(loads(out, 8)) < 1.15);
  CHECK_FALSE(same_ids(out, route(router, logits.view(), {.seed = 5, .first_token = 2000})));
  // The gradient is that of the inner router at the random logits: recover these from it.
  fl::matrix<float> grad_weights(2000, 2), grad(2000, 8);
  for (fl::index_t t = 0; t < 2000; ++t) { grad_weights(t, 0) = 1.0F; }
  fl::arena<> memory(router.workspace_bytes(2000));
  fl::workspace ws = memory.view();
  router.backward(fl::serial{}, logits.view(), {.seed = 5}, std::as_const(out).view(), grad_weights.view(), grad.view(), ws);
  for (fl::index_t t = 0; t < 2000; ++t) {
    float const w = out.view().weights(t, 0);
    REQUIRE(grad(t, fl::to_index(out.view().experts(t, 0))) == Approx(w * (1.0F - w)).margin(1e-6));
    REQUIRE(grad(t, fl::to_index(out.view().experts(t, 1))) == Approx(-w * (1.0F - w)).margin(1e-6));
  }
}

TEST_CASE("forced imbalance grows with its deviation, is equal on all ranks, and is redrawn only if asked") {
  fl::matrix<float> logits(3000, 8);
  std::uint64_t index = 0;
  for (float& value : logits.span()) { value = static_cast<float>(fl::philox::normal(3, 1, index++)); }
  auto const unevenness = [&](float deviation) {
    double sum = 0.0;
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
      fl::forced_imbalance<fl::top_k> const router{.router = {.experts = 8, .k = 1}, .rule = {.deviation = deviation}};
      sum += worst_over_mean(loads(route(router, logits.view(), {.seed = seed}), 8)) / 8.0;
    }
    return sum;
  };
  double const none = unevenness(0.0F), some = unevenness(0.5F), much = unevenness(2.0F);
  CHECK(none < 1.2);
  CHECK(some > none + 0.2);
  CHECK(much > some + 0.5);
  fl::forced_imbalance<fl::top_k> fixed{.router = {.experts = 8, .k = 1}};
  auto const here = route(fixed, logits.view(), {.seed = 1, .step = 1});
  CHECK(same_ids(here, route(fixed, logits.view(), {.seed = 1, .step = 9, .first_token = 12345})));
  fixed.rule.redraw_each_step = true;
  CHECK_FALSE(same_ids(route(fixed, logits.view(), {.seed = 1, .step = 1}), route(fixed, logits.view(), {.seed = 1, .step = 9})));
  CHECK_THROWS_AS(route(fl::forced_imbalance<fl::top_k>{.router = {.experts = 8, .k = 1}, .rule = {.deviation = -1.0F}},
                        logits.view()), fl::contract_violation);
}

TEST_CASE("random hash tables hold distinct experts, evenly, and every set is as likely") {
  std::vector<fl::expert_id> memory(6000 * 2);
  fl::matrix_view<fl::expert_id> const table(memory.data(), 6000, 2);
  fl::random_hash_table{.experts = 4, .seed = 1}.fill(table);
  std::vector<int> sets(16, 0);
  for (fl::index_t id = 0; id < 6000; ++id) {
    auto const a = fl::to_index(table(id, 0)), b = fl::to_index(table(id, 1));
    REQUIRE(a != b);
    REQUIRE((a >= 0 && b >= 0 && a < 4 && b < 4));
    ++sets[static_cast<std::size_t>(std::min(a, b) * 4 + std::max(a, b))];
  }
  for (int a = 0; a < 4; ++a) {
    for (int b = a + 1; b < 4; ++b) { CHECK(sets[static_cast<std::size_t>(a * 4 + b)] == Approx(1000).margin(120)); }
  }
  fl::matrix_view<fl::expert_id> const all(memory.data(), 10, 4);
  fl::random_hash_table{.experts = 4}.fill(all);
  for (fl::index_t id = 0; id < 10; ++id) {
    CHECK(fl::to_index(all(id, 0)) + fl::to_index(all(id, 1)) + fl::to_index(all(id, 2)) + fl::to_index(all(id, 3)) == 6);
  }
  CHECK_THROWS_AS(fl::random_hash_table{.experts = 3}.fill(all), fl::contract_violation);
}

TEST_CASE("a balanced hash table evens out Zipf frequencies, and hash routing follows the table") {
  constexpr fl::index_t vocabulary = 2000, experts = 8;
  std::vector<fl::index_t> frequencies;
  for (fl::index_t id = 0; id < vocabulary; ++id) { frequencies.push_back(100000 / ((id * 7919) % vocabulary + 10)); }
  std::vector<fl::expert_id> cells(vocabulary * 2);
  for (fl::index_t const k : {1, 2}) {
    fl::matrix_view<fl::expert_id> const table(cells.data(), vocabulary, k);
    fl::balanced_hash_table const builder{.experts = experts};
    fl::arena<> memory(builder.workspace_bytes(vocabulary));
    fl::workspace ws = memory.view();
    auto const unevenness = [&] {
      std::vector<fl::index_t> sums(experts, 0);
      for (fl::index_t id = 0; id < vocabulary; ++id) {
        for (fl::index_t j = 0; j < k; ++j) {
          sums[static_cast<std::size_t>(fl::to_index(table(id, j)))] += frequencies[static_cast<std::size_t>(id)];
        }
        REQUIRE((k == 1 || table(id, 0) != table(id, k - 1)));
      }
      return worst_over_mean(sums);
    };
    fl::random_hash_table{.experts = experts, .seed = 2}.fill(table);
    double const random = unevenness();
    builder.fill(frequencies, table, ws);
    CHECK(unevenness() < 1.001);
    CHECK(random > 1.01);
  }
  fl::matrix_view<fl::expert_id const> const table(cells.data(), vocabulary, 2);
  std::vector<std::int32_t> const ids = {3, 1999, 3, 0};
  fl::matrix<float> const logits(4, experts);
  auto const out = route(fl::hash_choice{.experts = experts, .k = 2, .table = table}, logits.view(), {.token_ids = ids});
  for (fl::index_t t = 0; t < 4; ++t) {
    for (fl::index_t j = 0; j < 2; ++j) {
      CHECK(out.view().experts(t, j) == table(ids[static_cast<std::size_t>(t)], j));
      CHECK(out.view().weights(t, j) == 0.5F);
    }
  }
  CHECK(fl::laws::check_router(fl::hash_choice{.experts = experts, .k = 2, .table = table},
                               {.tokens = 20, .seed = 7, .by_score = false}));
}

TEST_CASE("a balanced hash table spreads ids that were never seen over all experts") {
  constexpr fl::index_t vocabulary = 900, experts = 8, seen = 96;
  std::vector<fl::index_t> frequencies(vocabulary, 0);
  for (fl::index_t id = 0; id < seen; ++id) { frequencies[static_cast<std::size_t>(3 * id)] = 1000 - id; }
  for (fl::index_t const k : {1, 3}) {
    fl::matrix<fl::expert_id> cells(vocabulary, k);
    auto const table = cells.view();
    fl::balanced_hash_table const builder{.experts = experts};
    fl::arena<> memory(builder.workspace_bytes(vocabulary));
    fl::workspace ws = memory.view();
    builder.fill(frequencies, table, ws);
    std::vector<fl::index_t> loads(experts, 0), unseen(experts, 0);
    for (fl::index_t id = 0; id < vocabulary; ++id) {
      fl::index_t const often = frequencies[static_cast<std::size_t>(id)];
      for (fl::index_t j = 0; j < k; ++j) {
        auto const e = static_cast<std::size_t>(fl::to_index(table(id, j)));
        loads[e] += often;
        unseen[e] += often == 0 ? 1 : 0;
      }
    }
    auto const [fewest, most] = std::minmax_element(unseen.begin(), unseen.end());
    CHECK(*most - *fewest <= 1);
    CHECK(worst_over_mean(loads) < 1.02);
  }
}

TEST_CASE("padding is not looked up in a table: its id may be anything") {
  std::vector<fl::expert_id> const cells = {fl::expert_id{2}, fl::expert_id{0}};
  fl::matrix_view<fl::expert_id const> const table(cells.data(), 2, 1);
  std::vector<std::int32_t> const ids = {1, -1, 0, 1 << 30};
  std::vector<std::uint8_t> const mask = {1, 0, 1, 0};
  fl::matrix<float> const logits(4, 3);
  auto const out = route(fl::hash_table_top_k{.experts = 3, .k = 1, .table = table}, logits.view(),
                         {.token_mask = mask, .token_ids = ids});
  CHECK(fl::to_index(out.view().experts(0, 0)) == 0);
  CHECK(out.view().experts(1, 0) == fl::expert_id::none);
  CHECK(fl::to_index(out.view().experts(2, 0)) == 2);
  CHECK(out.view().experts(3, 0) == fl::expert_id::none);
  CHECK_THROWS_AS(route(fl::hash_table_top_k{.experts = 3, .k = 1, .table = table}, logits.view(), {.token_ids = ids}),
                  fl::contract_violation);
}

TEST_CASE("a replayed routing has the recorded experts and the weights of the logits at hand") {
  auto const first = skewed(30, 6, 1.0, 20), second = skewed(30, 6, 1.0, 21);
  fl::routing_log log(2, 30, 2);
  using noisy = fl::with_noise<fl::top_k, fl::multiplicative_jitter>;
  fl::replay<noisy> router{.router = {.experts = 6, .k = 2}, .log = &log, .mode = fl::replay_mode::record};
  auto const recorded = route(router, first.view(), {.seed = 1, .step = 7, .first_token = 60});
  CHECK(log.holds(7, 60));
  CHECK_FALSE(log.holds(7, 0));
  router.mode = fl::replay_mode::play;
  auto const again = route(router, first.view(), {.seed = 1, .step = 7, .first_token = 60});
  CHECK(same_ids(again, recorded));
  for (fl::index_t t = 0; t < 30; ++t) {
    for (fl::index_t j = 0; j < 2; ++j) {
      CHECK(again.view().weights(t, j) == recorded.view().weights(t, j));  // the noise too
      CHECK(log.read(7, 60).weights(t, j) == recorded.view().weights(t, j));
    }
  }
  auto const other = route(router, second.view(), {.phase = fl::phase::evaluate, .step = 7, .first_token = 60});
  CHECK(same_ids(other, recorded));
  fl::matrix_view<fl::expert_id const> const table = log.read(7, 60).experts;
  auto const external = route(fl::external_ids{.experts = 6, .k = 2, .table = table}, second.view());
  for (fl::index_t t = 0; t < 30; ++t) {
    for (fl::index_t j = 0; j < 2; ++j) { CHECK(other.view().weights(t, j) == external.view().weights(t, j)); }
  }
  CHECK_THROWS_AS(route(router, first.view(), {.step = 8}), fl::contract_violation);
  CHECK_THROWS_AS(route(router, first.view().rows(0, 10), {.step = 7, .first_token = 60}), fl::contract_violation);
  router.log = nullptr;
  CHECK_THROWS_AS(route(router, first.view(), {.step = 7}), fl::contract_violation);
}

TEST_CASE("recomputation takes the experts of the forward pass even if the logits moved") {
  auto const logits = skewed(40, 6, 0.5, 22);
  fl::matrix<float> moved(40, 6);
  for (fl::index_t t = 0; t < 40; ++t) {
    for (fl::index_t e = 0; e < 6; ++e) { moved(t, e) = logits.view()(t, e) + (e % 2 == 0 ? 0.3F : -0.3F); }
  }
  fl::routing_log log(4, 40, 2);
  fl::replay<fl::top_k> const router{
      .router = {.experts = 6, .k = 2}, .log = &log, .mode = fl::replay_mode::play_recompute};
  auto const forward = route(router, logits.view(), {.step = 1});
  auto const again = route(router, moved.view(), {.phase = fl::phase::recompute, .step = 1});
  CHECK(same_ids(again, forward));
  CHECK_FALSE(same_ids(again, route(router.router, moved.view())));
  (void)route(router, moved.view(), {.phase = fl::phase::evaluate, .step = 2});
  CHECK_FALSE(log.holds(2, 0));  // evaluation leaves no trace
}

TEST_CASE("a log replaces entries of the same key, and drops the oldest when it is full") {
  fl::routing_log log(2, 1, 1);
  fl::routing<> one(1, 1);
  auto const write = [&](std::uint64_t step, int expert) {
    one.view().experts(0, 0) = static_cast<fl::expert_id>(expert);
    one.view().weights(0, 0) = 1.0F;
    log.write(step, 0, std::as_const(one).view());
  };
  write(1, 10);
  write(2, 20);
  write(1, 11);
  CHECK(log.overwritten() == 0);
  CHECK(fl::to_index(log.read(1, 0).experts(0, 0)) == 11);
  write(3, 30);
  CHECK(log.overwritten() == 1);
  CHECK_FALSE(log.holds(1, 0));
  CHECK(fl::to_index(log.read(2, 0).experts(0, 0)) == 20);
  log.clear();
  CHECK_FALSE(log.holds(2, 0));
  fl::routing<> large(2, 1);
  CHECK_THROWS_AS(log.write(1, 0, std::as_const(large).view()), fl::contract_violation);
}

TEST_CASE("replay keeps the laws, with a state too, and passes on what the router observes") {
  fl::replay<fl::top_k> const off{.router = {.experts = 8, .k = 2}};
  CHECK(fl::laws::check_router(off, {.tokens = 33, .seed = 5}));
  fl::routing_log log(1, 33, 2);
  auto const logits = skewed(33, 8, 1.0, 23);
  fl::routing<> const ids = route(off, logits.view());
  log.write(5, 1000, ids.view());  // what the kit asks for
  fl::replay<fl::top_k> const plays{.router = {.experts = 8, .k = 2}, .log = &log, .mode = fl::replay_mode::play};
  CHECK(fl::laws::check_router(plays, {.tokens = 33, .seed = 5, .by_score = false}));

  using biased = fl::with_controller<fl::sigmoid_bias_top_k, fl::sign_bias>;
  fl::replay<biased> const learner{.router = {.experts = 8, .k = 2}, .log = &log, .mode = fl::replay_mode::record};
  auto state = learner.make_state();
  fl::alone comm;
  std::vector<fl::index_t> const counts = {9, 1, 1, 1, 1, 1, 1, 1};
  learner.observe(fl::serial{}, comm, counts, state);
  CHECK(state.values[0] < 0.0F);
  CHECK(state.values[1] > 0.0F);
  fl::replay<biased> const quiet{.router = {.experts = 8, .k = 2}};
  CHECK(fl::laws::check_router(quiet, {.tokens = 33, .seed = 6}));
}

TEST_CASE("only routers whose tokens stay alone may decode, and only in evaluation") {
  static_assert(fl::decode_safe<fl::top_k> && fl::decode_safe<fl::sinkhorn_router>);
  static_assert(!fl::decode_safe<fl::expert_choice> && !fl::decode_safe<fl::random_choice>);
  auto const logits = skewed(9, 4, 1.0, 24);
  fl::decode_only<fl::top_k> const router{{.experts = 4, .k = 2}};
  CHECK(same_ids(route(router, logits.view(), {.phase = fl::phase::evaluate}), route(router.router, logits.view())));
  CHECK_THROWS_AS(route(router, logits.view(), {.phase = fl::phase::train}), fl::contract_violation);
  fl::decode_only<fl::sigmoid_bias_top_k> const biased{{.experts = 4, .k = 2}};
  auto const state = biased.make_state();
  fl::routing<> out(9, 2);
  fl::arena<> memory(biased.workspace_bytes(9));
  fl::workspace ws = memory.view();
  biased.route(fl::serial{}, logits.view(), {.phase = fl::phase::evaluate}, state, out.view(), ws);
  CHECK(out.view().experts(0, 0) != fl::expert_id::none);
}
