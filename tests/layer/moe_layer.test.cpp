// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/balance/load_balance_loss.hpp>
#include <fairlead/balance/signals.hpp>
#include <fairlead/balance/z_loss.hpp>

#include "layer/support.hpp"

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

namespace {
constexpr double rounding = 2e-5;  // relative to the largest element, fp32 against fp64

template <class Dispatcher = fl::exchange<>>
auto dense_layer(index_t width, index_t hidden, index_t experts, index_t k, Dispatcher dispatcher = {}) {
  return fl::moe_layer{.gate = fl::linear_gate<>{.width = width, .experts = experts},
                       .router = fl::top_k{.experts = experts, .k = k},
                       .dispatcher = dispatcher,
                       .expert = fl::dense_ffn<float>{.width = width, .hidden = hidden}};
}
}  // namespace

TEST_CASE("A layer equals the double precision reference at every rank count and fan-out") {
  for (index_t const ranks : {1, 2, 3, 4, 8}) {
    for (index_t const k : {1, 2, 3, 4}) {
      CAPTURE(ranks, k);
      auto const layer = dense_layer(12, 20, 6, k);
      auto const in = layer_test::problem_of(layer, {.tokens = 53, .width = 12, .hidden = 20, .experts = 6, .fan_out = k});
      auto const got = layer_test::run(fl::serial{}, layer, in, ranks);
      CHECK(layer_test::distance(got, reference::solve(in)) < rounding);
      CHECK(got.ranks[0].report.routed_copies == 53 * k);
      CHECK(got.ranks[0].report.dropped_share() == 0.0);
    }
  }
}

TEST_CASE("A layer with capacity drops the copies that the reference drops, on any number of ranks") {
  using limited = fl::exchange<fl::fixed_capacity<fl::capacity_scope::global>>;
  for (index_t const ranks : {1, 2, 3, 4, 8}) {
    for (index_t const k : {1, 2, 4}) {
      for (index_t const places : {0, 1, 9}) {
        CAPTURE(ranks, k, places);
        auto const layer = dense_layer(8, 10, 5, k, limited{.capacity = {.count = places}});
        auto const in = layer_test::problem_of(
            layer, {.tokens = 41, .width = 8, .hidden = 10, .experts = 5, .fan_out = k, .places = places});
        auto const got = layer_test::run(fl::serial{}, layer, in, ranks);
        auto const want = reference::solve(in);
        CHECK(layer_test::distance(got, want) < rounding);
        CHECK(got.ranks.back().report.routed_copies - got.ranks.back().report.computed_copies == want.dropped);
        CHECK(want.dropped > 0);
      }
    }
  }
}

TEST_CASE("Dropped copies can return their own token") {
  using limited = fl::exchange<fl::fixed_capacity<fl::capacity_scope::global>, fl::token_order, fl::identity>;
  for (index_t const ranks : {1, 3}) {
    CAPTURE(ranks);
    auto const layer = dense_layer(8, 10, 5, 2, limited{.capacity = {.count = 7}});
    auto const in = layer_test::problem_of(
        layer, {.tokens = 41, .width = 8, .hidden = 10, .experts = 5, .fan_out = 2, .places = 7, .own_row = true});
    CHECK(layer_test::distance(layer_test::run(fl::serial{}, layer, in, ranks), reference::solve(in)) < rounding);
  }
}

TEST_CASE("A layer with gated experts, alignment and a shared expert equals the reference") {
  for (index_t const ranks : {1, 2, 3, 8}) {
    CAPTURE(ranks);
    fl::moe_layer const layer{.gate = fl::linear_gate<>{.width = 10, .experts = 7},
                              .router = fl::top_k{.experts = 7, .k = 2},
                              .dispatcher = fl::exchange<>{.alignment = 8},
                              .expert = fl::gated_ffn<float>{.width = 10, .hidden = 14},
                              .shared = fl::gated_ffn<float>{.width = 10, .hidden = 14}};
    auto const in = layer_test::problem_of(layer, {.tokens = 37, .width = 10, .hidden = 14, .experts = 7, .fan_out = 2, .gated = true, .shared = true});
    CHECK(layer_test::distance(layer_test::run(fl::serial{}, layer, in, ranks), reference::solve(in)) < rounding);
  }
}

TEST_CASE("A layer computes no tokens at all, and one token") {
  for (index_t const tokens : {0, 1}) {
    for (index_t const ranks : {1, 3}) {
      CAPTURE(tokens, ranks);
      auto const layer = dense_layer(6, 8, 4, 2);
      auto const in = layer_test::problem_of(layer, {.tokens = tokens, .width = 6, .hidden = 8, .experts = 4, .fan_out = 2});
      auto const got = layer_test::run(fl::serial{}, layer, in, ranks);
      CHECK(layer_test::distance(got, reference::solve(in)) < rounding);
      CHECK(got.ranks[0].report.tokens == tokens);
      CHECK(got.ranks[0].report.imbalance() >= 1.0);
    }
  }
}

TEST_CASE("Gradients accumulate over micro-batches until they are cleared") {
  auto const layer = dense_layer(8, 10, 5, 2);
  auto const in = layer_test::problem_of(layer, {.tokens = 20, .width = 8, .hidden = 10, .experts = 5, .fan_out = 2});
  auto const once = layer_test::run(fl::serial{}, layer, in, 2);
  auto const twice = layer_test::run(fl::serial{}, layer, in, 2, [](auto const& l, auto& state, auto tokens, auto out, auto grad_out, auto grad_tokens) {
    (void)layer_test::whole_step{}(l, state, tokens, out, grad_out, grad_tokens);
    l.zero_gradients(state);
    (void)layer_test::whole_step{}(l, state, tokens, out, grad_out, grad_tokens);
    return layer_test::whole_step{}(l, state, tokens, out, grad_out, grad_tokens);
  });
  for (std::size_t i = 0; i < once.ranks[0].grad_gate.size(); ++i) {
    CHECK(twice.ranks[0].grad_gate[i] == Approx(2.0 * once.ranks[0].grad_gate[i]).margin(1e-5));
  }
}

TEST_CASE("More tokens than the limits and wrong shapes are refused") {
  auto const layer = dense_layer(8, 10, 5, 2);
  fl::inproc::world world{1};
  world.run([&](fl::inproc::communicator comm) {
    auto state = layer.make_state(fl::serial{}, comm, {.max_tokens = 4});
    auto record = layer.make_record(state);
    fl::matrix<float> five(5, 8), wide(4, 9), out(5, 8), four(4, 8);
    CHECK_THROWS_AS(layer.forward(state, std::as_const(five).view(), out.view(), record), fl::contract_violation);
    CHECK_THROWS_AS(layer.forward(state, std::as_const(wide).view(), four.view(), record), fl::contract_violation);
    CHECK_THROWS_AS(layer.forward(state, std::as_const(four).view(), out.view(), record), fl::contract_violation);
    auto const evaluation = layer.default_context(state, fl::phase::evaluate);
    CHECK(layer.forward(state, std::as_const(four).view(), four.view(), record, evaluation).tokens == 4);
    CHECK_THROWS_AS(layer.backward(state, record, std::as_const(four).view(), four.view()), fl::contract_violation);
  });
}

TEST_CASE("Auxiliary losses reach gate and tokens like in the reference, whatever the number of ranks") {
  for (index_t const ranks : {1, 2, 3, 8}) {
    CAPTURE(ranks);
    fl::moe_layer const layer{
        .gate = fl::linear_gate<>{.width = 10, .experts = 6},
        .router = fl::top_k{.experts = 6, .k = 2},
        .signal = fl::all_of(fl::load_balance_loss<fl::softmax_share, fl::global_batch_scope>{.coefficient = 3.0},
                             fl::z_loss{.coefficient = 0.5}),
        .expert = fl::dense_ffn<float>{.width = 10, .hidden = 8}};
    auto const in = layer_test::problem_of(layer, {.tokens = 37, .width = 10, .hidden = 8, .experts = 6, .fan_out = 2, .balance = 3.0, .z = 0.5});
    auto without = in;
    without.size.balance = 0.0;
    without.size.z = 0.0;
    auto const got = layer_test::run(fl::serial{}, layer, in, ranks);
    CHECK(layer_test::distance(got, reference::solve(in)) < rounding);
    CHECK(layer_test::distance(got, reference::solve(without)) > 100 * rounding);
  }
}

TEST_CASE("Rows of the wrong width, shared memory and a second backward pass are refused on any number of ranks") {
  auto const layer = dense_layer(8, 10, 5, 2);
  for (index_t const ranks : {1, 2}) {
    CAPTURE(ranks);
    fl::inproc::world world{ranks};
    auto const refused = world.run([&](fl::inproc::communicator comm) {
      auto state = layer.make_state(fl::serial{}, comm, {.max_tokens = 4});
      auto record = layer.make_record(state);
      fl::matrix<float> tokens(4, 8), out(4, 8), narrow(4, 6), wide(4, 12), grad(4, 8);
      std::vector<bool> seen;
      auto const refuses = [&seen](auto work) {
        try {
          work();
          seen.push_back(false);
        } catch (fl::contract_violation const&) {
          seen.push_back(true);
        }
      };
      refuses([&] { (void)layer.forward(state, std::as_const(tokens).view(), narrow.view(), record); });
      refuses([&] { layer.backward(state, record, std::as_const(out).view(), grad.view()); });
      refuses([&] { (void)layer.forward(state, std::as_const(tokens).view(), tokens.view(), record); });
      (void)layer.forward(state, std::as_const(tokens).view(), out.view(), record);
      refuses([&] { layer.backward(state, record, std::as_const(wide).view(), grad.view()); });
      refuses([&] { layer.backward(state, record, std::as_const(out).view(), out.view()); });
      (void)layer.forward(state, std::as_const(tokens).view(), out.view(), record);
      layer.backward(state, record, std::as_const(out).view(), grad.view());
      refuses([&] { layer.backward(state, record, std::as_const(out).view(), grad.view()); });
      return seen;
    });
    for (auto const& seen : refused) { CHECK(seen == std::vector<bool>(6, true)); }
  }
}
