// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Layers learn a task that needs several experts: tokens of four kinds, each with a linear map of its own.
#include <fairlead/balance/load_balance_loss.hpp>
#include <fairlead/balance/sign_bias.hpp>
#include <fairlead/dispatch/deduplicated_exchange.hpp>
#include <fairlead/optim/adamw.hpp>
#include <fairlead/optim/sgd.hpp>
#include <fairlead/route/biased_token_choice.hpp>
#include <fairlead/route/switch_top_1.hpp>

#include "layer/support.hpp"
#include "support/catch.hpp"

#include <array>
#include <cmath>
#include <vector>

namespace fl = fairlead;
using fl::index_t;

namespace {

constexpr index_t width = 8, total = 128, kinds = 4, experts = 6;

struct task {
  fl::matrix<float> tokens{total, width}, targets{total, width};
  task() {
    for (index_t t = 0; t < total; ++t) {
      index_t const kind = t % kinds;
      for (index_t c = 0; c < width; ++c) {
        auto const centre = static_cast<float>(fl::philox::normal(1, static_cast<std::uint64_t>(kind), static_cast<std::uint64_t>(c)));
        tokens(t, c) = centre + 0.5F * static_cast<float>(fl::philox::normal(2, 0, static_cast<std::uint64_t>(t * width + c)));
      }
      for (index_t r = 0; r < width; ++r) {
        double sum = 0.0;
        for (index_t c = 0; c < width; ++c) {
          sum += fl::philox::normal(3, static_cast<std::uint64_t>(kind), static_cast<std::uint64_t>(r * width + c)) * static_cast<double>(tokens(t, c));
        }
        targets(t, r) = static_cast<float>(sum / std::sqrt(static_cast<double>(width)));
      }
    }
  }
};

struct course {
  std::vector<double> losses;  // mean over the tokens of all ranks, before each update
  double dropped = 0.0;        // largest share in a step
  double bias = 0.0;           // largest bias of a stateful router at the end
  bool equal_gates = true;     // whether all ranks ended with the same gate
};

template <class Layer, class Optimizer>
course train(Layer const& layer, Optimizer const& optimizer, index_t ranks, index_t steps) {
  task const all;
  auto const counts = layer_test::ragged(total, ranks);
  struct outcome {
    course seen;
    std::vector<float> gate;
  };
  fl::inproc::world world{ranks};
  auto results = world.run([&](fl::inproc::communicator comm) {
    fl::serial const on;
    outcome mine;
    auto const rank = static_cast<std::size_t>(comm.rank());
    index_t first = 0;
    for (std::size_t r = 0; r < rank; ++r) { first += counts[r]; }
    index_t const count = counts[rank];
    auto const tokens = all.tokens.view().rows(first, count);
    auto state = layer.make_state(on, comm, {.max_tokens = total, .seed = 11});
    auto record = layer.make_record(state);
    std::vector<decltype(optimizer.template make_state<float>(on, index_t{}))> moments;
    layer.each_parameter(state, [&](fl::parameter_array<float> const& p) {
      moments.push_back(optimizer.template make_state<float>(on, static_cast<index_t>(p.values.size())));
    });
    fl::matrix<float> output(count, width), grad(count, width), grad_tokens(count, width);
    for (index_t step = 1; step <= steps; ++step) {
      auto const report = layer.forward(state, tokens, output.view(), record);
      std::array<double, 1> loss{0.0};
      for (index_t t = 0; t < count; ++t) {
        for (index_t c = 0; c < width; ++c) {
          float const error = output(t, c) - all.targets(first + t, c);
          loss[0] += 0.5 * static_cast<double>(error) * static_cast<double>(error) / total;
          grad(t, c) = error / static_cast<float>(total);
        }
      }
      comm.all_reduce(on, std::span<double>(loss), fl::reduction::sum).wait();
      mine.seen.losses.push_back(loss[0]);
      mine.seen.dropped = std::max(mine.seen.dropped, report.dropped_share());
      layer.backward(state, record, std::as_const(grad).view(), grad_tokens.view());
      layer.reduce_gradients(state);
      std::size_t array = 0;
      layer.each_parameter(state, [&](fl::parameter_array<float> const& p) {
        optimizer.update(on, *p.layout, p.values, p.gradients, moments[array++], step);
      });
      layer.zero_gradients(state);
      layer.end_global_batch(state);
    }
    if constexpr (fl::has_state<typename Layer::router_type>) {
      for (float const b : state.router.values) { mine.seen.bias = std::max(mine.seen.bias, std::abs(static_cast<double>(b))); }
    }
    mine.gate.assign(state.gate.values.span().begin(), state.gate.values.span().end());
    return mine;
  });
  course result = results[0].seen;
  for (auto const& r : results) { result.equal_gates = result.equal_gates && r.gate == results[0].gate && r.seen.losses == result.losses; }
  return result;
}

template <class Router, class Dispatcher = fl::exchange<>, class Signal = fl::no_signal>
auto compose(Router router, Dispatcher dispatcher = {}, Signal signal = {}) {
  return fl::moe_layer{.gate = fl::linear_gate<>{.width = width, .experts = experts},
                       .router = router,
                       .signal = signal,
                       .dispatcher = dispatcher,
                       .expert = fl::gated_ffn<float>{.width = width, .hidden = 16}};
}

void learns(course const& seen, double factor) {
  CAPTURE(seen.losses.front(), seen.losses.back());
  CHECK(std::isfinite(seen.losses.back()));
  CHECK(seen.losses.back() * factor < seen.losses.front());
  CHECK(seen.equal_gates);
}

}  // namespace

TEST_CASE("A sigmoid router with a bias and AdamW bring the loss down tenfold") {
  for (index_t const ranks : {1, 4}) {
    CAPTURE(ranks);
    auto const seen = train(compose(fl::with_controller<fl::sigmoid_bias_top_k, fl::sign_bias>{.experts = experts, .k = 2, .controller = {.step = 1e-3F}}), fl::adamw{.rate = 2e-2}, ranks, 150);
    learns(seen, 10.0);
    CHECK(seen.bias > 0.0);
    CHECK(seen.dropped == 0.0);
  }
}

TEST_CASE("Switch routing with capacity, an auxiliary loss and AdamW bring the loss down fourfold although copies are dropped") {
  for (index_t const ranks : {1, 3}) {
    CAPTURE(ranks);
    auto const seen = train(compose(fl::switch_top_1{.experts = experts, .jitter = {.epsilon = 0.01F}},
                                    fl::exchange<fl::megatron_capacity>{.capacity = {.factor = 1.5}},
                                    fl::load_balance_loss<>{.coefficient = 1e-2}),
                            fl::adamw{.rate = 2e-2}, ranks, 150);
    learns(seen, 4.0);
    CHECK(seen.dropped > 0.0);
  }
}

TEST_CASE("Dropless top-2 routing and SGD with momentum bring the loss down tenfold") {
  auto const seen = train(compose(fl::top_k{.experts = experts, .k = 2}), fl::sgd{.rate = 0.05, .momentum = 0.9}, 2, 150);
  learns(seen, 10.0);
}

TEST_CASE("Dropless training takes the same course on any number of ranks") {
  auto const layer = compose(fl::top_k{.experts = experts, .k = 2}, fl::exchange<>{},
                             fl::load_balance_loss<fl::softmax_share, fl::global_batch_scope>{.coefficient = 1e-2});
  auto const deduplicated = compose(fl::top_k{.experts = experts, .k = 2}, fl::deduplicated_exchange<>{},
                                    fl::load_balance_loss<fl::softmax_share, fl::global_batch_scope>{.coefficient = 1e-2});
  auto const want = train(layer, fl::adamw{.rate = 5e-3}, 1, 40);
  learns(want, 1.5);
  auto const close = [&want](course const& got) {
    REQUIRE(got.losses.size() == want.losses.size());
    double worst = 0.0;
    for (std::size_t i = 0; i < want.losses.size(); ++i) { worst = std::max(worst, std::abs(got.losses[i] / want.losses[i] - 1.0)); }
    CHECK(worst < 1e-4);
    CHECK(got.equal_gates);
  };
  for (index_t const ranks : {2, 3, 4}) {
    CAPTURE(ranks);
    close(train(layer, fl::adamw{.rate = 5e-3}, ranks, 40));
    close(train(deduplicated, fl::adamw{.rate = 5e-3}, ranks, 40));
  }
}
