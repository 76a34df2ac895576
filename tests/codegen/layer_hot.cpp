// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The hot functions of composed layers, each a symbol of its own, for no_indirect_calls.py, and one layer whose router
// hides a call through a pointer, to see that it is found.
#include <fairlead/balance/load_balance_loss.hpp>
#include <fairlead/comm/alone.hpp>
#include <fairlead/comm/inproc.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/expert/gated_ffn.hpp>
#include <fairlead/layer/moe_layer.hpp>
#include <fairlead/route/linear_gate.hpp>
#include <fairlead/route/top_k.hpp>
#ifdef _OPENMP
#  include <fairlead/exec/threads.hpp>
#endif

#include <cstdio>
#include <functional>
#include <utility>

namespace fl = fairlead;
using fl::index_t;

namespace {

auto const layer = fl::moe_layer{.gate = fl::linear_gate<>{.width = 32, .experts = 8},
                                 .router = fl::top_k{.experts = 8, .k = 2},
                                 .signal = fl::load_balance_loss<>{},
                                 .dispatcher = fl::exchange<fl::megatron_capacity>{.capacity = {.factor = 1.5}},
                                 .expert = fl::gated_ffn<>{.width = 32, .hidden = 48}};
using layer_type = std::remove_const_t<decltype(layer)>;

// The fault to be found lies three calls deep.
struct asks_a_function {
  std::function<index_t(index_t)> pick;
  [[nodiscard]] index_t experts() const { return 8; }
  [[nodiscard]] index_t fan_out() const { return 1; }
  [[nodiscard]] std::size_t workspace_bytes(index_t) const { return 0; }
  void route(fl::serial const&, fl::matrix_view<float const> logits, fl::route_context const&, fl::routing_view out, fl::workspace&) const {
    for (index_t t = 0; t < logits.rows(); ++t) {
      out.experts(t, 0) = static_cast<fl::expert_id>(pick(t));
      out.weights(t, 0) = 1.0F;
    }
  }
};
auto const faulty = fl::moe_layer{.gate = fl::linear_gate<>{.width = 32, .experts = 8},
                                  .router = asks_a_function{[](index_t t) { return t % 8; }},
                                  .expert = fl::gated_ffn<>{.width = 32, .hidden = 48}};
using faulty_type = std::remove_const_t<decltype(faulty)>;

}  // namespace

// Templates, so that every combination is the same text; the backend and the communicator stand in the symbol.
template <class Backend, class Comm>
[[gnu::noinline]] fl::step_report hot_forward(layer_type::state_type<Backend, Comm>& state, layer_type::record_type<Backend, Comm>& record,
                                              fl::matrix_view<float const> tokens, fl::matrix_view<float> output) {
  return layer.forward(state, tokens, output, record);
}
template <class Backend, class Comm>
[[gnu::noinline]] void hot_backward(layer_type::state_type<Backend, Comm>& state, layer_type::record_type<Backend, Comm>& record,
                                    fl::matrix_view<float const> grad_output, fl::matrix_view<float> grad_tokens) {
  layer.backward(state, record, grad_output, grad_tokens);
}
template <class Backend, class Comm>
[[gnu::noinline]] void hot_route(layer_type::state_type<Backend, Comm>& state, layer_type::record_type<Backend, Comm>& record,
                                 fl::matrix_view<float const> tokens, fl::route_context const& context) {
  layer.route(state, tokens, record, context);
}
template <class Backend, class Comm>
[[gnu::noinline]] void hot_plan(layer_type::state_type<Backend, Comm>& state, layer_type::record_type<Backend, Comm>& record) {
  layer.plan(state, record);
}
template <class Backend, class Comm>
[[gnu::noinline]] void hot_reduce(layer_type::state_type<Backend, Comm>& state) {
  layer.reduce_gradients(state);
  layer.zero_gradients(state);
  layer.end_global_batch(state);
}

[[gnu::noinline]] fl::step_report planted_forward(faulty_type::state_type<fl::serial, fl::alone>& state,
                                                  faulty_type::record_type<fl::serial, fl::alone>& record,
                                                  fl::matrix_view<float const> tokens, fl::matrix_view<float> output) {
  return faulty.forward(state, tokens, output, record);
}

namespace {

double faulty_step(index_t count) {
  auto state = faulty.make_state(fl::serial{}, fl::alone{}, {.max_tokens = count});
  auto record = faulty.make_record(state);
  fl::matrix<float> const tokens(count, 32);
  fl::matrix<float> output(count, 32);
  return planted_forward(state, record, tokens.view(), output.view()).imbalance();
}

template <class Backend, class Comm>
double step(Backend const& on, Comm comm, index_t count) {
  auto state = layer.make_state(on, comm, {.max_tokens = count});
  auto record = layer.make_record(state);
  fl::matrix<float> tokens(count, 32), output(count, 32), grad(count, 32);
  for (index_t i = 0; i < count * 32; ++i) { tokens.data()[i] = static_cast<float>(i % 17) - 8.0F; }
  auto const in = std::as_const(tokens).view();
  hot_route<Backend, Comm>(state, record, in, layer.default_context(state, fl::phase::recompute));
  hot_plan<Backend, Comm>(state, record);
  auto const report = hot_forward<Backend, Comm>(state, record, in, output.view());
  hot_backward<Backend, Comm>(state, record, std::as_const(output).view(), grad.view());
  hot_reduce<Backend, Comm>(state);
  return report.imbalance();
}

}  // namespace

int main(int count, char**) {
  double sum = step(fl::serial{}, fl::alone{}, 8 * count) + faulty_step(8 * count);
  fl::inproc::world world{2};
  for (double const part : world.run([&](fl::inproc::communicator comm) { return step(fl::serial{}, comm, 8 * count); })) { sum += part; }
#ifdef _OPENMP
  sum += step(fl::threads{2}, fl::alone{}, 8 * count);
#endif
  std::printf("%f\n", sum);
  return 0;
}
