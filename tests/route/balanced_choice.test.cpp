// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/assign/balanced_flow.hpp>
#include <fairlead/comm/alone.hpp>
#include <fairlead/comm/inproc.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/laws/router.hpp>
#include <fairlead/route/balanced_choice.hpp>

#include "route/small_exact_solver.hpp"
#include "support/catch.hpp"

#include <cmath>
#include <limits>
#include <vector>

namespace fl = fairlead;
using fl::index_t;

namespace {

using greedy = fl::balanced_choice<small::exact_solver>;
using priced = fl::balanced_choice<small::exact_solver, fl::priced_evaluation>;
static_assert(fl::router_on<greedy, fl::serial> && fl::has_gradient_on<greedy, fl::serial> &&
              fl::has_learning_route<greedy, fl::serial> &&
              fl::has_collective_observe<priced, fl::serial, fl::inproc::communicator>);
static_assert(fl::causal<priced> && fl::batch_coupled<priced>);

constexpr float no_number = std::numeric_limits<float>::quiet_NaN();

struct routed {
  fl::routing<> out;
  std::vector<index_t> loads;
};

template <class Router, class State>
routed route(Router const& router, fl::matrix_view<float const> logits, State& state, fl::route_context const& context) {
  routed made{fl::routing<>(logits.rows(), router.k), std::vector<index_t>(static_cast<std::size_t>(router.experts()), 0)};
  fl::arena<> memory(router.workspace_bytes(logits.rows()));
  auto ws = memory.view();
  router.route_and_learn(fl::serial{}, logits, context, state, made.out.view(), ws);
  for (index_t t = 0; t < logits.rows(); ++t) {
    for (index_t j = 0; j < router.k; ++j) {
      fl::expert_id const e = made.out.view().experts(t, j);
      if (e != fl::expert_id::none) { ++made.loads[static_cast<std::size_t>(e)]; }
    }
  }
  return made;
}

fl::matrix<float> scores(index_t tokens, index_t experts, double skew, std::uint64_t seed) {
  fl::matrix<float> made(tokens, experts);
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t e = 0; e < experts; ++e) {
      made(t, e) = static_cast<float>(fl::philox::normal(seed, 1, static_cast<std::uint64_t>(t * experts + e)) -
                                      skew * static_cast<double>(e));
    }
  }
  return made;
}

float sigmoid(float x) { return 1.0F / (1.0F + std::exp(-x)); }

index_t expert(routed const& r, index_t t, index_t j = 0) { return fl::to_index(r.out.view().experts(t, j)); }

}  // namespace

TEST_CASE("Training gives every expert the same number of tokens however skewed the logits are") {
  auto const logits = scores(60, 6, 1.5, 3);
  greedy const router{.experts = 6};
  auto state = router.make_state();
  auto const made = route(router, logits.view(), state, {});
  CHECK(made.loads == std::vector<index_t>(6, 10));
  CHECK(state.last_status == fl::status::ok);
  for (index_t t = 0; t < 60; ++t) {
    CHECK(made.out.view().weights(t, 0) == Approx(sigmoid(logits(t, expert(made, t)))));
  }
  auto const free = route(router, logits.view(), state, {.phase = fl::phase::evaluate});
  CHECK(*std::max_element(free.loads.begin(), free.loads.end()) > 30);
}

TEST_CASE("The training assignment is the best even one") {
  // All ways to give 3 experts 2 of 6 tokens each.
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    auto const logits = scores(6, 3, 0.7, seed);
    greedy const router{.experts = 3};
    auto state = router.make_state();
    auto const made = route(router, logits.view(), state, {});
    double got = 0.0, best = -1e9;
    for (index_t t = 0; t < 6; ++t) { got += static_cast<double>(logits(t, expert(made, t))); }
    for (int code = 0; code < 729; ++code) {
      int digits = code, load[3] = {0, 0, 0};
      double value = 0.0;
      for (index_t t = 0; t < 6; ++t, digits /= 3) {
        ++load[digits % 3];
        value += static_cast<double>(logits(t, digits % 3));
      }
      if (load[0] == 2 && load[1] == 2 && load[2] == 2) { best = std::max(best, value); }
    }
    CHECK(got == Approx(best));
  }
}

TEST_CASE("Copies that do not divide go to the lowest experts, masked tokens and experts take no place") {
  auto const logits = scores(11, 4, 0.3, 5);
  fl::balanced_choice<small::exact_solver> const router{.experts = 4, .k = 2};
  auto state = router.make_state();
  CHECK(route(router, logits.view(), state, {}).loads == std::vector<index_t>{6, 6, 5, 5});
  std::vector<std::uint8_t> tokens(11, 1), experts{1, 0, 1, 1};
  tokens[2] = tokens[7] = 0;
  auto const made = route(router, logits.view(), state, {.token_mask = tokens, .expert_mask = experts});
  CHECK(made.loads == std::vector<index_t>{6, 0, 6, 6});
  CHECK(expert(made, 2) == -1);
  CHECK(made.out.view().weights(7, 1) == 0.0F);
  CHECK(state.last_status == fl::status::ok);
}

TEST_CASE("Fewer tokens than experts, one token, one expert and no token are legal") {
  auto const logits = scores(3, 8, 0.1, 5);
  greedy const router{.experts = 8};
  auto state = router.make_state();
  CHECK(route(router, logits.view(), state, {}).loads == std::vector<index_t>{1, 1, 1, 0, 0, 0, 0, 0});
  CHECK(route(router, logits.view().rows(0, 1), state, {}).loads[0] == 1);
  CHECK(route(router, logits.view().rows(0, 0), state, {}).loads == std::vector<index_t>(8, 0));
  greedy const single{.experts = 1};
  auto own = single.make_state();
  auto const column = scores(5, 1, 0.0, 2);
  CHECK(route(single, column.view(), own, {}).loads == std::vector<index_t>{5});
  fl::balanced_choice<small::exact_solver> const everybody{.experts = 8, .k = 8};
  CHECK(route(everybody, logits.view(), state, {}).loads == std::vector<index_t>(8, 3));
}

TEST_CASE("A token without candidates goes nowhere and does not spoil the assignment of the others") {
  auto logits = scores(9, 4, 0.5, 5);
  for (index_t e = 0; e < 4; ++e) { logits(4, e) = e == 1 ? -std::numeric_limits<float>::infinity() : no_number; }
  greedy const router{.experts = 4};
  auto state = router.make_state();
  auto const made = route(router, logits.view(), state, {});
  CHECK(made.loads == std::vector<index_t>(4, 2));
  CHECK(expert(made, 4) == -1);
  CHECK(state.last_status == fl::status::ok);
}

TEST_CASE("Where forbidden pairs leave no even assignment, tokens choose greedily and the state counts it") {
  auto logits = scores(8, 2, 0.0, 5);
  for (index_t t = 0; t < 8; ++t) { logits(t, 1) = no_number; }  // everybody may use expert 0 only
  greedy const router{.experts = 2};
  auto state = router.make_state();
  auto const made = route(router, logits.view(), state, {});
  CHECK(made.loads == std::vector<index_t>{8, 0});
  CHECK(state.last_status == fl::status::infeasible);
  CHECK(state.fallbacks == 0);  // published with the global batch
  fl::alone comm;
  router.observe(fl::serial{}, comm, made.loads, state);
  CHECK(state.fallbacks == 1);
  CHECK(state.batches == 0);
  CHECK(state.warm == std::vector<double>(2, 0.0));
}

TEST_CASE("What training learned changes no routing before the end of the global batch") {
  auto const logits = scores(24, 4, 1.0, 9);
  priced const router{.experts = 4};
  auto state = router.make_state();
  auto const before = route(router, logits.view(), state, {.phase = fl::phase::evaluate});
  auto const first = route(router, logits.view(), state, {});
  auto const again = route(router, logits.view(), state, {.phase = fl::phase::recompute});
  auto const during = route(router, logits.view(), state, {.phase = fl::phase::evaluate});
  for (index_t t = 0; t < 24; ++t) {
    CHECK(expert(first, t) == expert(again, t));
    CHECK(expert(before, t) == expert(during, t));
  }
  double const tokens = state.pending[4];
  CHECK(tokens == 24.0);  // recomputation and evaluation were not learned from
}

TEST_CASE("Frozen prices make evaluation of the same kind of tokens nearly even, token by token") {
  priced const router{.experts = 8, .evaluation = {.keep = 0.5}};
  auto state = router.make_state();
  fl::alone comm;
  std::vector<index_t> const counts(8, 0);
  for (std::uint64_t batch = 0; batch < 6; ++batch) {
    auto const logits = scores(256, 8, 0.6, 100 + batch);
    CHECK(route(router, logits.view(), state, {}).loads == std::vector<index_t>(8, 32));
    router.observe(fl::serial{}, comm, counts, state);
  }
  CHECK(state.batches == 6);
  double sum = 0.0;
  for (double const price : state.frozen) { sum += price; }
  CHECK(sum == Approx(0.0).margin(1e-9));
  auto const fresh = scores(512, 8, 0.6, 200);
  auto const made = route(router, fresh.view(), state, {.phase = fl::phase::evaluate});
  auto const free = route(greedy{.experts = 8}, fresh.view(), state, {.phase = fl::phase::evaluate});
  CHECK(*std::max_element(made.loads.begin(), made.loads.end()) < 90);    // mean 64
  CHECK(*std::max_element(free.loads.begin(), free.loads.end()) > 180);
  for (index_t t = 0; t < 512; ++t) {  // weights never hold the price
    CHECK(made.out.view().weights(t, 0) == Approx(sigmoid(fresh(t, expert(made, t)))));
    index_t best = 0;
    for (index_t e = 1; e < 8; ++e) {
      auto const key = [&](index_t i) { return fresh(t, i) - static_cast<float>(state.frozen[static_cast<std::size_t>(i)]); };
      if (key(e) > key(best)) { best = e; }
    }
    CHECK(expert(made, t) == best);
  }
}

TEST_CASE("A saved state routes on as the one that it was saved from") {
  priced const router{.experts = 4};
  auto state = router.make_state(), loaded = router.make_state();
  fl::alone comm;
  auto const logits = scores(32, 4, 0.8, 3);
  auto const made = route(router, logits.view(), state, {});
  router.observe(fl::serial{}, comm, made.loads, state);
  std::vector<std::byte> bytes(fl::saved_bytes(state));
  fl::save_state(state, bytes);
  fl::load_state(loaded, bytes);
  CHECK(loaded.frozen == state.frozen);
  CHECK(loaded.warm == state.warm);
  CHECK(loaded.batches == 1);
  auto other = fl::balanced_choice<small::exact_solver>{.experts = 5}.make_state();
  CHECK_THROWS_AS(fl::load_state(other, bytes), fl::contract_violation);
}

TEST_CASE("Every rank publishes the same prices: the mean weighted by tokens, and one without tokens counts nothing") {
  priced const router{.experts = 4, .evaluation = {.keep = 0.0}};
  fl::inproc::world world{3};
  index_t const tokens[] = {40, 0, 20};
  auto const states = world.run([&](fl::inproc::communicator comm) {
    auto state = router.make_state();
    auto const rank = static_cast<std::size_t>(comm.rank());
    auto const logits = scores(tokens[rank], 4, 0.8, rank + 1);
    auto const made = route(router, logits.view(), state, {});
    router.observe(fl::serial{}, comm, made.loads, state);
    return state;
  });
  std::vector<double> want(4, 0.0);
  for (std::size_t rank : {0U, 2U}) {
    auto state = router.make_state();
    auto const logits = scores(tokens[rank], 4, 0.8, rank + 1);
    (void)route(router, logits.view(), state, {});
    for (std::size_t e = 0; e < 4; ++e) { want[e] += state.pending[e] / 60.0; }
  }
  for (auto const& state : states) {
    CHECK(state.batches == 1);
    CHECK(state.frozen == states[0].frozen);
    CHECK(state.warm == states[0].warm);
    for (std::size_t e = 0; e < 4; ++e) { CHECK(state.frozen[e] == Approx(want[e])); }
  }
}

TEST_CASE("Balanced routers keep the laws of routers") {
  fl::laws::router_problem const problem{.tokens = 24};
  auto const keeps = [&](auto const& router) {
    auto const verdict = fl::laws::check_router(router, problem);
    INFO(verdict.reason());
    CHECK(static_cast<bool>(verdict));
  };
  keeps(greedy{.experts = 6});
  keeps(priced{.experts = 6});
  keeps(fl::balanced_choice<small::exact_solver>{.experts = 5, .k = 2, .scale = 0.5F});
  keeps(fl::balanced_choice<small::exact_solver, fl::priced_evaluation, fl::sigmoid_score, fl::sum_over_chosen>{.experts = 5, .k = 3});
  keeps(fl::balanced_choice<small::exact_solver, fl::greedy_evaluation, fl::softmax_score>{.experts = 4, .k = 1});
  keeps(greedy{.experts = 1});
  keeps(fl::balanced_choice<fl::balanced_flow, fl::priced_evaluation>{.experts = 6});
  keeps(fl::balanced_choice<fl::balanced_flow, fl::priced_evaluation>{
      .experts = 5, .k = 2, .remainder = fl::remainder_rule::solver_chooses});
}

TEST_CASE("A solver that may choose who takes the remainder finds at least as good an assignment") {
  using flow = fl::balanced_choice<fl::balanced_flow>;
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    auto const logits = scores(23, 4, 0.4, seed);
    double value[2] = {0.0, 0.0};
    for (auto const rule : {fl::remainder_rule::lowest_experts, fl::remainder_rule::solver_chooses}) {
      flow const router{.experts = 4, .remainder = rule};
      auto state = router.make_state();
      auto const made = route(router, logits.view(), state, {});
      CHECK(*std::max_element(made.loads.begin(), made.loads.end()) == 6);
      CHECK(*std::min_element(made.loads.begin(), made.loads.end()) == 5);
      for (index_t t = 0; t < 23; ++t) { value[static_cast<int>(rule)] += static_cast<double>(logits(t, expert(made, t))); }
    }
    CHECK(value[1] >= value[0] - 1e-9);
  }
}

TEST_CASE("Remainders of many ranks do not add up on the same experts where the solver can choose") {
  using flow = fl::balanced_choice<fl::balanced_flow>;
  static_assert(flow{.experts = 4}.remainder == fl::remainder_rule::solver_chooses);
  static_assert(fl::balanced_choice<small::exact_solver>{.experts = 4}.remainder == fl::remainder_rule::lowest_experts);
  flow const router{.experts = 16};
  auto state = router.make_state();
  std::vector<index_t> sums(16, 0);
  for (std::uint64_t rank = 0; rank < 64; ++rank) {
    auto const logits = scores(4, 16, 0.0, rank + 1);
    auto const made = route(router, logits.view(), state, {});
    CHECK(*std::max_element(made.loads.begin(), made.loads.end()) == 1);
    for (std::size_t e = 0; e < 16; ++e) { sums[e] += made.loads[e]; }
  }
  CHECK(*std::max_element(sums.begin(), sums.end()) <= 32);  // the mean is 16; 64 if the lowest four took them all
}

TEST_CASE("Both exact solvers find the same value, and warm prices change nothing but time") {
  using flow = fl::balanced_choice<fl::balanced_flow>;
  flow const router{.experts = 6};
  greedy const plain{.experts = 6};
  auto warm = router.make_state();
  fl::alone comm;
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    auto const logits = scores(60, 6, 1.0, seed);
    auto cold = router.make_state();
    auto other = plain.make_state();
    auto const a = route(router, logits.view(), cold, {}), b = route(router, logits.view(), warm, {}), c = route(plain, logits.view(), other, {});
    double value[3] = {0.0, 0.0, 0.0};
    for (index_t t = 0; t < 60; ++t) {
      value[0] += static_cast<double>(logits(t, expert(a, t)));
      value[1] += static_cast<double>(logits(t, expert(b, t)));
      value[2] += static_cast<double>(logits(t, expert(c, t)));
    }
    CHECK(value[1] == Approx(value[0]));
    CHECK(value[2] == Approx(value[0]));
    router.observe(fl::serial{}, comm, b.loads, warm);
    CHECK(warm.batches == static_cast<std::int64_t>(seed));
  }
}

TEST_CASE("Capabilities that the solver does not state are refused") {
  auto const logits = scores(4, 2, 0.0, 1);
  greedy const router{.experts = 2, .remainder = fl::remainder_rule::solver_chooses};
  auto state = router.make_state();
  CHECK_THROWS_AS(route(router, logits.view(), state, {}), fl::contract_violation);
  priced const wrong{.experts = 2, .evaluation = {.keep = 1.0}};
  fl::alone comm;
  std::vector<index_t> const counts(2, 0);
  CHECK_THROWS_AS(wrong.observe(fl::serial{}, comm, counts, state), fl::contract_violation);
}
