// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// After warm-up a training step allocates nothing, however the loads change inside the limits. Every form of operator
// new of this program counts while a switch is on; the switch turns while all ranks stand at a barrier.
#include <fairlead/assign/balanced_flow.hpp>
#include <fairlead/balance/distillation_loss.hpp>
#include <fairlead/balance/exact_dual_bias.hpp>
#include <fairlead/balance/load_balance_loss.hpp>
#include <fairlead/balance/over_under_loss.hpp>
#include <fairlead/balance/pid_bias.hpp>
#include <fairlead/balance/quantile_bias.hpp>
#include <fairlead/balance/sign_bias.hpp>
#include <fairlead/balance/signals.hpp>
#include <fairlead/balance/z_loss.hpp>
#include <fairlead/comm/alone.hpp>
#include <fairlead/comm/inproc.hpp>
#include <fairlead/dispatch/deduplicated_exchange.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/expert/dense_ffn.hpp>
#include <fairlead/expert/gated_ffn.hpp>
#include <fairlead/layer/moe_layer.hpp>
#include <fairlead/layer/shuffled.hpp>
#include <fairlead/optim/adamw.hpp>
#include <fairlead/route/balanced_choice.hpp>
#include <fairlead/route/biased_token_choice.hpp>
#include <fairlead/route/distilled_gate.hpp>
#include <fairlead/route/linear_gate.hpp>
#include <fairlead/route/top_k.hpp>
#include <fairlead/route/two_stage.hpp>
#ifdef _OPENMP
#  include <fairlead/exec/threads.hpp>
#endif

#include "support/catch.hpp"
#include "support/count_allocations.hpp"

#include <array>
#include <optional>
#include <vector>

namespace fl = fairlead;
using fl::index_t;

namespace {

constexpr index_t width = 8, experts = 6, most_tokens = 40, vocabulary = 30;
constexpr index_t warm_up = 2, steps = 10;

// What a rank saw in the counted steps.
struct findings {
  long allocations = 0;          // of the whole process
  double even = 1e9, skewed = 0.0;  // smallest and largest max/mean expert load
  index_t fewest = most_tokens, most = 0;  // tokens of this rank
  index_t growths = 0;
};

// The centroids of a layer, whether or not it is inside of another.
template <class State>
std::span<float const> centroids(State const& state) {
  if constexpr (requires { state.inner; }) {
    return state.inner.gate.values.span();
  } else {
    return state.gate.values.span();
  }
}

// Warm-up steps are small and even; then all tokens take turns to want the same expert, and each rank's number of
// tokens runs through none, a few and the limit.
template <class Layer, class Backend, class Comm>
findings train(Layer const& layer, Backend const& on, Comm comm, index_t max_rows = 0) {
  findings found;
  auto state = layer.make_state(on, comm, {.max_tokens = most_tokens, .max_rows = max_rows, .seed = 3});
  auto record = layer.make_record(state);
  fl::adamw const optimizer{.rate = 1e-3};
  using optimizer_state = decltype(optimizer.template make_state<float>(on, index_t{}));
  std::vector<optimizer_state> moments;
  layer.each_parameter(state, [&](fl::parameter_array<float> const& p) {
    moments.push_back(optimizer.template make_state<float>(on, static_cast<index_t>(p.values.size())));
  });
  fl::matrix<float> tokens(most_tokens, width), output(most_tokens, width), grad(most_tokens, width), grad_tokens(most_tokens, width);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(most_tokens));
  long before = 0;
  for (index_t step = 0; step < warm_up + steps; ++step) {
    if (step == warm_up) {
      comm.barrier();
      if (comm.rank() == 0) {
        before = allocations.load();
        counting = true;
      }
      comm.barrier();
    }
    std::array<index_t, 3> const turns{most_tokens, 0, 5};
    index_t const count = step < warm_up ? 3 : turns[static_cast<std::size_t>((step + comm.rank()) % 3)];
    bool const skewed = step >= warm_up && step % 2 == 1;
    index_t const wanted = step % experts;
    for (index_t t = 0; t < count; ++t) {
      ids[static_cast<std::size_t>(t)] = static_cast<std::int32_t>(skewed ? wanted : (t + step) % vocabulary);
      for (index_t c = 0; c < width; ++c) {
        auto const at = static_cast<std::uint64_t>((step * most_tokens + t) * width + c);
        auto const noise = static_cast<float>(fl::philox::normal(5, static_cast<std::uint64_t>(comm.rank()), at));
        tokens(t, c) = skewed ? 20.0F * centroids(state)[static_cast<std::size_t>(wanted * width + c)] + 0.1F * noise : noise;
        grad(t, c) = noise * 0.01F;
      }
    }
    auto context = layer.default_context(state, fl::phase::train);
    context.token_ids = std::span<std::int32_t const>(ids).first(static_cast<std::size_t>(count));
    auto const report = layer.forward(state, std::as_const(tokens).view().rows(0, count), output.view().rows(0, count), record, context);
    layer.backward(state, record, std::as_const(grad).view().rows(0, count), grad_tokens.view().rows(0, count));
    layer.reduce_gradients(state);
    std::size_t array = 0;
    layer.each_parameter(state, [&](fl::parameter_array<float> const& p) {
      optimizer.update(on, *p.layout, p.values, p.gradients, moments[array++], step + 1);
    });
    layer.zero_gradients(state);
    layer.end_global_batch(state);
    if (step < warm_up) { continue; }
    if (report.routed_copies > 0) {
      found.even = std::min(found.even, report.imbalance());
      found.skewed = std::max(found.skewed, report.imbalance());
    }
    found.fewest = std::min(found.fewest, count);
    found.most = std::max(found.most, count);
    found.growths += report.growths;
  }
  comm.barrier();
  if (comm.rank() == 0) {
    counting = false;
    found.allocations = allocations.load() - before;
  }
  comm.barrier();
  return found;
}

template <class Dispatcher>
auto with_losses(Dispatcher dispatcher) {
  return fl::moe_layer{.gate = fl::linear_gate<>{.width = width, .experts = experts},
                       .router = fl::top_k{.experts = experts, .k = 2},
                       .signal = fl::all_of(fl::load_balance_loss<fl::softmax_share, fl::global_batch_scope>{.coefficient = 0.1},
                                            fl::z_loss{.coefficient = 0.1}),
                       .dispatcher = dispatcher,
                       .expert = fl::dense_ffn<float>{.width = width, .hidden = 10},
                       .shared = fl::dense_ffn<float>{.width = width, .hidden = 4}};
}

// A router with a bias that follows the loads, capacity, and weights that are shared out anew.
template <class Controller = fl::sign_bias, class Dispatcher>
auto with_bias(Dispatcher dispatcher, Controller controller = {.step = 0.01F}) {
  return fl::moe_layer{.gate = fl::linear_gate<>{.width = width, .experts = experts},
                       .router = fl::with_controller<fl::sigmoid_bias_top_k, Controller>{.experts = experts, .k = 3, .controller = controller},
                       .dispatcher = dispatcher,
                       .expert = fl::gated_ffn<float>{.width = width, .hidden = 6}};
}

// Two stages; the switch comes in the middle of what is measured.
template <class Features>
auto in_two_stages(Features features) {
  std::uint64_t const turn = warm_up + steps / 2;
  return fl::moe_layer{.gate = fl::distilled_gate<Features>{.backbone = {.width = width, .experts = experts}, .features = features, .switch_step = turn},
                       .router = fl::two_stage<>{.first = {.experts = experts}, .switch_step = turn},
                       .signal = fl::all_of(fl::over_under_loss{.switch_step = turn}, fl::distillation_loss{.switch_step = turn}),
                       .expert = fl::dense_ffn<float>{.width = width, .hidden = 10}};
}

template <class Layer, class Backend>
void allocates_nothing(Layer const& layer, Backend const& on, std::initializer_list<index_t> rank_counts, bool always_even = false) {
  auto const check = [always_even](findings const& found) {
    CHECK(found.allocations == 0);
    CHECK(found.growths == 0);
    CHECK(found.fewest == 0);
    CHECK(found.most == most_tokens);
    CHECK((always_even || found.skewed > 1.3 * found.even));
  };
  {
    INFO("alone");
    check(train(layer, on, fl::alone{}));
  }
  for (index_t const ranks : rank_counts) {
    CAPTURE(ranks);
    fl::inproc::world world{ranks};
    auto const found = world.run([&](fl::inproc::communicator comm) { return train(layer, on, comm); });
    for (auto const& rank : found) { check(rank); }
  }
}

using limited = fl::fixed_capacity<fl::capacity_scope::global>;

// A fault to be found: a vector a step.
struct forgetful : fl::exchange<> {
  template <class Backend, class Comm, class Plan>
  void plan(Backend const& on, Comm& comm, fl::const_routing_view routed, fl::placement const& where,
            fl::const_token_schedule_view schedule, Plan& plan, fl::workspace& ws) const {
    std::vector<float> const scratch(static_cast<std::size_t>(routed.tokens()) + 1);
    fl::exchange<>::plan(on, comm, routed, where, schedule, plan, ws);
    FAIRLEAD_EXPECTS(scratch[0] == 0.0F, "the vector must not be optimised away");
  }
};

}  // namespace

TEST_CASE("The hook counts every form of allocation, and only while it is on") {
  auto const counted = [](auto take) {
    long const before = allocations.load();
    counting = true;
    take();
    counting = false;
    return allocations.load() - before;
  };
  constexpr std::align_val_t wide{64};
  CHECK(counted([] { ::operator delete(::operator new(3)); }) == 1);
  CHECK(counted([] { ::operator delete[](::operator new[](3)); }) == 1);
  CHECK(counted([] { ::operator delete(::operator new(3, std::nothrow), std::nothrow); }) == 1);
  CHECK(counted([] { ::operator delete[](::operator new[](3, std::nothrow), std::nothrow); }) == 1);
  CHECK(counted([=] { ::operator delete(::operator new(3, wide), wide); }) == 1);
  CHECK(counted([=] { ::operator delete[](::operator new[](3, wide), wide); }) == 1);
  CHECK(counted([=] { ::operator delete(::operator new(3, wide, std::nothrow), wide, std::nothrow); }) == 1);
  CHECK(counted([=] { ::operator delete[](::operator new[](3, wide, std::nothrow), wide, std::nothrow); }) == 1);
  CHECK(counted([] { fl::buffer<float> const memory(5); }) == 1);
  CHECK(counted([] {}) == 0);
  long const before = allocations.load();
  fl::buffer<float> const memory(5);
  CHECK(allocations.load() == before);
}

TEST_CASE("An allocation in a dispatcher is found, on one rank and on several") {
  auto const layer = with_losses(forgetful{});
  CHECK(train(layer, fl::serial{}, fl::alone{}).allocations == steps);
  fl::inproc::world world{2};
  auto const found = world.run([&](fl::inproc::communicator comm) { return train(layer, fl::serial{}, comm); });
  CHECK(found[0].allocations == 2 * steps);
}

TEST_CASE("Rows beyond the limit grow the buffers, and the report counts it") {
  auto const layer = with_losses(fl::exchange<>{});
  auto const found = train(layer, fl::serial{}, fl::alone{}, 2 * most_tokens / 4);
  CHECK(found.growths > 0);
  CHECK(found.allocations >= found.growths);
}

TEST_CASE("A training step with losses and a shared expert allocates nothing after warm-up") {
  allocates_nothing(with_losses(fl::exchange<>{.alignment = 4}), fl::serial{}, {1, 2, 4});
}

TEST_CASE("A training step with a stateful router and capacity allocates nothing after warm-up") {
  allocates_nothing(with_bias(fl::exchange<limited, fl::batch_prioritized_order, fl::drop_and_renormalise>{.capacity = {.count = 9}}),
                    fl::serial{}, {1, 2, 4});
}

TEST_CASE("A training step whose bias follows scores or errors allocates nothing after warm-up") {
  fl::exchange<> const plain;
  allocates_nothing(with_bias(plain, fl::pid_bias{}), fl::serial{}, {2}, true);
  allocates_nothing(with_bias(plain, fl::quantile_bias{.decay = 0.5}), fl::serial{}, {2, 4}, true);
  allocates_nothing(with_bias(plain, fl::exact_dual_bias<fl::balanced_flow>{.decay = 0.5}), fl::serial{}, {2, 4}, true);
}

TEST_CASE("A training step with a deduplicated exchange allocates nothing after warm-up") {
  allocates_nothing(with_losses(fl::deduplicated_exchange<>{}), fl::serial{}, {2, 4});
  allocates_nothing(with_bias(fl::deduplicated_exchange<limited>{.capacity = {.count = 9}}), fl::serial{}, {2, 4});
}

TEST_CASE("A training step of either stage of two-stage routing allocates nothing after warm-up") {
  allocates_nothing(in_two_stages(fl::token_embedding{.vocabulary = vocabulary}), fl::serial{}, {2});
  allocates_nothing(in_two_stages(fl::convolution_embedding{.vocabulary = vocabulary, .width = 8, .sequence_length = 3}), fl::serial{}, {2});
}

TEST_CASE("A training step of exchanged tokens under balanced assignment allocates nothing after warm-up") {
  fl::shuffled const layer{.layer = fl::moe_layer{
                               .gate = fl::linear_gate<>{.width = width, .experts = experts},
                               .router = fl::balanced_choice<fl::balanced_flow, fl::priced_evaluation>{.experts = experts},
                               .expert = fl::dense_ffn<float>{.width = width, .hidden = 10}}};
  allocates_nothing(layer, fl::serial{}, {1, 2, 4}, true);
}

#ifdef _OPENMP
TEST_CASE("A training step on threads allocates nothing after warm-up") {
  allocates_nothing(with_losses(fl::exchange<>{}), fl::threads{2}, {2});
  allocates_nothing(with_bias(fl::deduplicated_exchange<limited>{.capacity = {.count = 9}}), fl::threads{2}, {2});
}
#endif
