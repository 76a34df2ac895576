// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Balanced assignment as routing (a BASE layer): four ranks train on tokens that crowd on few experts. In training every
// expert gets the same number of tokens; in evaluation, token by token, frozen prices keep most of that, and the same
// logits without prices do not.
#include <fairlead/assign/balanced_flow.hpp>
#include <fairlead/comm/inproc.hpp>
#include <fairlead/core/initial_values.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/expert/dense_ffn.hpp>
#include <fairlead/layer/shuffled.hpp>
#include <fairlead/optim/adamw.hpp>
#include <fairlead/route/balanced_choice.hpp>
#include <fairlead/route/linear_gate.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

namespace fl = fairlead;
using fl::index_t;

namespace {

constexpr index_t experts = 8, width = 16, tokens = 128;  // tokens of a rank

// Five tokens of eight are of one kind; the others of seven kinds. A kind is a direction, and wants its own answer.
void make_batch(std::uint64_t stream, fl::matrix<float>& in, fl::matrix<float>& wanted) {
  for (index_t t = 0; t < in.rows(); ++t) {
    auto const row = static_cast<std::uint64_t>(t);
    auto const kind = t % 8 < 5 ? 0 : 1 + fl::philox::draw(1, stream, row)[0] % 7;
    for (index_t c = 0; c < width; ++c) {
      auto const col = static_cast<std::uint64_t>(c);
      double const centre = fl::philox::normal(2, kind, col);
      double const noise = fl::philox::normal(3, stream, row * width + col);
      in(t, c) = static_cast<float>(centre + 0.7 * noise);
      wanted(t, c) = static_cast<float>(fl::philox::normal(4, kind, col));
    }
  }
}

struct loads {
  double training = 0.0, priced = 0.0, greedy = 0.0;  // busiest expert over the mean, all ranks
  double first_loss = 0.0, last_loss = 0.0;
};

loads train(fl::inproc::communicator comm) {
  fl::serial const on;
  using router = fl::balanced_choice<fl::balanced_flow, fl::priced_evaluation>;
  fl::shuffled const layer{.layer = fl::moe_layer{.gate = fl::linear_gate<>{.width = width, .experts = experts},
                                                  .router = router{.experts = experts},
                                                  .expert = fl::dense_ffn<float, fl::relu>{.width = width, .hidden = 32}}};
  auto state = layer.make_state(on, comm, {.max_tokens = tokens, .seed = 1});
  auto record = layer.make_record(state);
  fl::adamw const optimizer{.rate = 3e-3};
  std::vector<fl::adamw_state<float, fl::host_space>> moments;
  layer.each_parameter(state, [&](fl::parameter_array<float> const& p) {
    if (p.scope == fl::parameter_scope::expert) {
      fl::fill(fl::named_block(*p.layout, "down", p.values), 0.0F);  // the residual layer starts as the identity
    } else {
      fl::orthogonalise(fl::named_block(*p.layout, "gate", p.values), 0.1);
    }
    moments.push_back(optimizer.make_state<float>(on, static_cast<index_t>(p.values.size())));
  });

  loads seen;
  fl::matrix<float> in(tokens, width), wanted(tokens, width), out(tokens, width), grad(tokens, width), grad_in(tokens, width);
  auto const stream = [&](index_t step) { return static_cast<std::uint64_t>(100 + step * comm.size() + comm.rank()); };
  for (index_t step = 1; step <= 200; ++step) {
    make_batch(stream(step), in, wanted);
    auto const report = layer.forward(state, std::as_const(in).view(), out.view(), record);
    seen.training = std::max(seen.training, report.imbalance());
    std::array<double, 1> loss{0.0};
    auto const all = static_cast<float>(tokens * comm.size());
    for (index_t i = 0; i < tokens * width; ++i) {
      float const error = in.data()[i] + out.data()[i] - wanted.data()[i];  // y = x + layer(x)
      loss[0] += 0.5 * static_cast<double>(error * error / all);
      grad.data()[i] = error / all;
    }
    comm.all_reduce(on, std::span<double>(loss), fl::reduction::sum).wait();
    (step == 1 ? seen.first_loss : seen.last_loss) = loss[0];
    layer.backward(state, record, std::as_const(grad).view(), grad_in.view());
    layer.reduce_gradients(state);
    std::size_t array = 0;
    layer.each_parameter(state, [&](fl::parameter_array<float> const& p) {
      optimizer.update(on, *p.layout, p.values, p.gradients, moments[array++], step);
    });
    layer.zero_gradients(state);
    layer.end_global_batch(state);  // publishes the prices of the step
  }

  // Fresh tokens of the same kinds: first with the frozen prices, then with none.
  make_batch(stream(0), in, wanted);
  auto const evaluation = layer.default_context(state, fl::phase::evaluate);
  seen.priced = layer.forward(state, std::as_const(in).view(), out.view(), record, evaluation).imbalance();
  std::fill(state.inner.router.frozen.begin(), state.inner.router.frozen.end(), 0.0);
  seen.greedy = layer.forward(state, std::as_const(in).view(), out.view(), record, evaluation).imbalance();
  return seen;
}

}  // namespace

int main() {
  fl::inproc::world world(4);
  loads const seen = world.run(train).front();
  std::printf("loss %.3f -> %.3f\n", seen.first_loss, seen.last_loss);
  std::printf("busiest expert over the mean: training %.3f, evaluation with frozen prices %.2f, greedy %.2f\n", seen.training,
              seen.priced, seen.greedy);
  bool const right = seen.training == 1.0 && seen.priced < seen.greedy && 4.0 * seen.last_loss < seen.first_loss;
  return right ? 0 : 1;
}
