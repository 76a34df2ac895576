// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the context of a call says - phase, masks - reaches router, plan, losses and state.
#include <fairlead/balance/load_balance_loss.hpp>
#include <fairlead/balance/exact_dual_bias.hpp>
#include <fairlead/balance/pid_bias.hpp>
#include <fairlead/balance/quantile_bias.hpp>
#include <fairlead/balance/sign_bias.hpp>
#include <fairlead/core/saved_state.hpp>
#include <fairlead/route/biased_token_choice.hpp>
#include <fairlead/route/switch_top_1.hpp>

#include "balance/path_solver.hpp"
#include "layer/support.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <vector>

namespace fl = fairlead;
using fl::index_t;

namespace {

constexpr index_t width = 8, experts = 5, count = 24;

fl::matrix<float> noise(std::uint64_t stream, index_t rows = count) {
  fl::matrix<float> result(rows, width);
  for (index_t i = 0; i < rows * width; ++i) { result.data()[i] = static_cast<float>(fl::philox::normal(9, stream, static_cast<std::uint64_t>(i))); }
  return result;
}
std::vector<float> values(fl::matrix<float> const& m) { return {m.data(), m.data() + m.rows() * m.cols()}; }

template <class Router>
auto compose(Router router) {
  return fl::moe_layer{.gate = fl::linear_gate<>{.width = width, .experts = experts},
                       .router = router,
                       .expert = fl::dense_ffn<float>{.width = width, .hidden = 6}};
}

}  // namespace

TEST_CASE("A recomputed forward pass gives the same bits and leaves the state alone") {
  auto const layer = compose(fl::switch_top_1{.experts = experts, .jitter = {.epsilon = 0.5F}});
  fl::inproc::world world{2};
  struct outcome {
    std::vector<float> first, again, next;
    bool same_state = false;
  };
  auto const all = world.run([&](fl::inproc::communicator comm) {
    auto state = layer.make_state(fl::serial{}, comm, {.max_tokens = count, .seed = 2});
    auto record = layer.make_record(state);
    auto const tokens = noise(static_cast<std::uint64_t>(comm.rank()));
    fl::matrix<float> out(count, width);
    outcome result;
    (void)layer.forward(state, tokens.view(), out.view(), record);
    result.first = values(out);
    auto const step = state.step;
    auto const counts = state.global_counts;
    auto context = record.context;
    context.phase = fl::phase::recompute;
    (void)layer.forward(state, tokens.view(), out.view(), record, context);
    result.again = values(out);
    result.same_state = state.step == step && state.global_counts == counts && step == 1;
    (void)layer.forward(state, tokens.view(), out.view(), record);  // the next step draws other noise
    result.next = values(out);
    return result;
  });
  for (auto const& rank : all) {
    CHECK(rank.first == rank.again);
    CHECK(rank.same_state);
    CHECK(rank.first != rank.next);
  }
}

TEST_CASE("A recomputed forward pass can be followed by the backward pass of the first one") {
  auto const layer = compose(fl::top_k{.experts = experts, .k = 2});
  auto const in = layer_test::problem_of(layer, {.tokens = 31, .width = width, .hidden = 6, .experts = experts, .fan_out = 2});
  auto const recomputed = [](auto const& l, auto& state, auto tokens, auto out, auto grad_out, auto grad_tokens) {
    auto dropped = l.make_record(state);  // activations are thrown away, as in checkpointing
    (void)l.forward(state, tokens, out, dropped);
    auto context = dropped.context;
    context.phase = fl::phase::recompute;
    auto record = l.make_record(state);
    auto const report = l.forward(state, tokens, out, record, context);
    l.backward(state, record, grad_out, grad_tokens);
    return report;
  };
  for (index_t const ranks : {1, 3}) {
    CAPTURE(ranks);
    CHECK(layer_test::distance(layer_test::run(fl::serial{}, layer, in, ranks, recomputed), reference::solve(in)) < 2e-5);
  }
}

TEST_CASE("An evaluation draws no noise and moves neither loads nor biases") {
  auto const layer = compose(fl::with_controller<fl::sigmoid_bias_top_k, fl::sign_bias>{.experts = experts, .k = 2, .controller = {.step = 0.1F}});
  fl::inproc::world world{2};
  auto const steady = world.run([&](fl::inproc::communicator comm) {
    auto state = layer.make_state(fl::serial{}, comm, {.max_tokens = count, .seed = 2});
    auto record = layer.make_record(state);
    auto const tokens = noise(static_cast<std::uint64_t>(comm.rank()));
    fl::matrix<float> out(count, width), again(count, width);
    auto const context = layer.default_context(state, fl::phase::evaluate);
    (void)layer.forward(state, tokens.view(), out.view(), record, context);
    layer.end_global_batch(state);
    (void)layer.forward(state, tokens.view(), again.view(), record, context);
    bool const no_bias = std::all_of(state.router.values.begin(), state.router.values.end(), [](float b) { return b == 0.0F; });
    return values(out) == values(again) && no_bias && state.step == 0;
  });
  CHECK(steady[0]);
  CHECK(steady[1]);
}

TEMPLATE_TEST_CASE("Biases move once a global batch, by training alone, alike on every rank, and go on after a restart", "",
                   fl::sign_bias, fl::pid_bias, fl::quantile_bias, fl::exact_dual_bias<fairlead_test::path_solver>) {
  auto const layer = compose(fl::with_controller<fl::sigmoid_bias_top_k, TestType>{.experts = experts, .k = 2});
  using router_state = fl::router_state_t<decltype(layer.router)>;
  auto const bytes_of = [](router_state const& state) {
    std::vector<std::byte> bytes(fl::saved_bytes(state));
    fl::save_state(state, std::span(bytes));
    return bytes;
  };
  fl::inproc::world world{3};
  struct outcome {
    std::vector<float> bias;
    bool phases_still = true, frozen_inside = true, moved = false, learned = false, matches_plain = true, restarted = true;
  };
  auto const all = world.run([&](fl::inproc::communicator comm) {
    outcome result;
    index_t const rows = comm.rank() == 1 ? 0 : count - comm.rank();  // one rank has no token
    auto state = layer.make_state(fl::serial{}, comm, {.max_tokens = count, .seed = 2});
    auto plain = layer.make_state(fl::serial{}, comm, {.max_tokens = count, .seed = 2});
    auto record = layer.make_record(state);
    fl::matrix<float> out(rows, width);
    auto const micro_batch = [&](auto& any, std::uint64_t stream, fl::phase why) {
      auto context = layer.default_context(any, why);
      auto const tokens = noise(10 * stream + static_cast<std::uint64_t>(comm.rank()), rows);
      (void)layer.forward(any, tokens.view(), out.view(), record, context);
    };
    for (std::uint64_t step = 0; step < 4; ++step) {
      auto const before = state.router.values;
      for (std::uint64_t part = 0; part < 2; ++part) {
        auto const old = bytes_of(state.router);
        micro_batch(state, 2 * step + part, fl::phase::train);
        auto const learned = bytes_of(state.router);
        result.learned = result.learned || learned != old;
        micro_batch(state, 2 * step + part, fl::phase::recompute);
        micro_batch(state, 50 + step, fl::phase::evaluate);
        result.phases_still = result.phases_still && bytes_of(state.router) == learned;
        micro_batch(plain, 2 * step + part, fl::phase::train);
      }
      result.frozen_inside = result.frozen_inside && state.router.values == before;
      layer.end_global_batch(state);
      layer.end_global_batch(plain);
      result.moved = result.moved || state.router.values != before;
      result.matches_plain = result.matches_plain && state.router.values == plain.router.values;
    }
    // A restart: all that the router knew goes through bytes.
    auto fresh = layer.router.make_state();
    fl::load_state(fresh, std::span<std::byte const>(bytes_of(state.router)));
    plain.router = fresh;
    for (std::uint64_t part = 0; part < 2; ++part) {
      micro_batch(state, 90 + part, fl::phase::train);
      micro_batch(plain, 90 + part, fl::phase::train);
    }
    layer.end_global_batch(state);
    layer.end_global_batch(plain);
    result.restarted = bytes_of(state.router) == bytes_of(plain.router);
    result.bias = state.router.values;
    return result;
  });
  for (auto const& rank : all) {
    CHECK(rank.phases_still);
    CHECK(rank.frozen_inside);
    CHECK(rank.moved);
    CHECK(rank.matches_plain);
    CHECK(rank.restarted);
    CHECK(rank.bias == all[0].bias);
  }
  CHECK(all[0].learned == fl::has_learning_route<decltype(layer.router), fl::serial>);
  CHECK_FALSE(all[1].learned);
}

TEST_CASE("Masked tokens get nothing, count nowhere, and do not change what the others get") {
  auto const layer = fl::moe_layer{.gate = fl::linear_gate<>{.width = width, .experts = experts},
                                   .router = fl::top_k{.experts = experts, .k = 2},
                                   .signal = fl::load_balance_loss<>{.coefficient = 1.0},
                                   .expert = fl::dense_ffn<float>{.width = width, .hidden = 6}};
  std::vector<std::uint8_t> mask(count, 1);
  std::vector<index_t> kept;
  for (index_t t = 0; t < count; ++t) {
    if (t % 3 == 1) {
      mask[static_cast<std::size_t>(t)] = 0;
    } else {
      kept.push_back(t);
    }
  }
  auto const few = static_cast<index_t>(kept.size());
  fl::inproc::world world{2};
  struct outcome {
    index_t tokens = 0, copies = 0;
    double loss = 0.0, short_loss = 0.0;
    bool zero = true, same = true, same_gate = true;
  };
  auto const all = world.run([&](fl::inproc::communicator comm) {
    outcome result;
    auto state = layer.make_state(fl::serial{}, comm, {.max_tokens = count, .seed = 2});
    auto record = layer.make_record(state);
    auto const tokens = noise(static_cast<std::uint64_t>(comm.rank())), grad_out = noise(10 + static_cast<std::uint64_t>(comm.rank()));
    fl::matrix<float> out(count, width), grad(count, width), few_tokens(few, width), few_out(few, width), few_grad_out(few, width), few_grad(few, width);
    auto context = layer.default_context(state, fl::phase::train);
    context.token_mask = mask;
    auto const report = layer.forward(state, tokens.view(), out.view(), record, context);
    layer.backward(state, record, grad_out.view(), grad.view());
    result.tokens = report.tokens;
    result.copies = report.routed_copies;
    result.loss = record.signal_loss;
    std::vector<float> const gate(state.gate.gradients.span().begin(), state.gate.gradients.span().end());

    layer.zero_gradients(state);
    for (index_t i = 0; i < few; ++i) {
      std::copy_n(tokens.view().row(kept[static_cast<std::size_t>(i)]), width, few_tokens.view().row(i));
      std::copy_n(grad_out.view().row(kept[static_cast<std::size_t>(i)]), width, few_grad_out.view().row(i));
    }
    layer.end_global_batch(state);
    (void)layer.forward(state, std::as_const(few_tokens).view(), few_out.view(), record);
    layer.backward(state, record, std::as_const(few_grad_out).view(), few_grad.view());
    result.short_loss = record.signal_loss;
    index_t at = 0;
    for (index_t t = 0; t < count; ++t) {
      bool const valid = mask[static_cast<std::size_t>(t)] != 0;
      for (index_t c = 0; c < width; ++c) {
        if (valid) {
          result.same = result.same && out(t, c) == few_out(at, c) && std::abs(grad(t, c) - few_grad(at, c)) < 1e-5F;
        } else {
          result.zero = result.zero && out(t, c) == 0.0F && grad(t, c) == 0.0F;
        }
      }
      at += valid ? 1 : 0;
    }
    for (std::size_t i = 0; i < gate.size(); ++i) {
      result.same_gate = result.same_gate && std::abs(gate[i] - state.gate.gradients[static_cast<index_t>(i)]) < 1e-4F;
    }
    return result;
  });
  for (auto const& rank : all) {
    CHECK(rank.tokens == 2 * few);
    CHECK(rank.copies == 4 * few);
    CHECK(rank.zero);
    CHECK(rank.same);
    CHECK(rank.same_gate);
    CHECK(rank.loss == Approx(rank.short_loss));
    CHECK(rank.loss > 0.0);
  }
}

TEST_CASE("A masked expert computes nothing") {
  auto const layer = compose(fl::top_k{.experts = experts, .k = 2});
  std::vector<std::uint8_t> mask(experts, 1);
  mask[3] = 0;
  auto const in = layer_test::problem_of(layer, {.tokens = 31, .width = width, .hidden = 6, .experts = experts, .fan_out = 2});
  auto const masked = [&mask](auto const& l, auto& state, auto tokens, auto out, auto grad_out, auto grad_tokens) {
    auto record = l.make_record(state);
    auto context = l.default_context(state, fl::phase::train);
    context.expert_mask = mask;
    auto const report = l.forward(state, tokens, out, record, context);
    l.backward(state, record, grad_out, grad_tokens);
    return report;
  };
  auto const got = layer_test::run(fl::serial{}, layer, in, 2, masked);
  for (auto const& rank : got.ranks) {
    CHECK(rank.report.routed_copies == 62);
    for (auto const& [expert, gradient] : rank.grad_experts) {
      CAPTURE(expert);
      bool const zero = std::all_of(gradient.begin(), gradient.end(), [](float g) { return g == 0.0F; });
      CHECK(zero == (expert == 3));
    }
  }
}
