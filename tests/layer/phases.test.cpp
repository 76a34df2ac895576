// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the context of a call says - phase, masks - reaches router, plan, losses and state.
#include <fairlead/balance/load_balance_loss.hpp>
#include <fairlead/balance/sign_bias.hpp>
#include <fairlead/route/biased_token_choice.hpp>
#include <fairlead/route/switch_top_1.hpp>

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
