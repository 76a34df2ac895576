// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One of four ranks serves at a quarter of the speed. A top-k router sends it as many copies as the others, and all wait
// for it; a router biased by queues learns from measured times and sends it a quarter. Times are simulated, routing is not.
#include <fairlead/comm/inproc.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/expert/gated_ffn.hpp>
#include <fairlead/layer/moe_layer.hpp>
#include <fairlead/layer/queue_biased_choice.hpp>
#include <fairlead/route/linear_gate.hpp>
#include <fairlead/route/top_k.hpp>
#include <fairlead/workload/token_rows.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>

namespace fl = fairlead;
using fl::index_t;

namespace {

constexpr index_t ranks = 4, experts_each = 4, experts = ranks * experts_each, k = 2, tokens_each = 256, width = 16;
constexpr int batches = 120, counted = 40;  // the last ones count: queues have found their lengths
constexpr std::array<double, ranks> copies_per_ms{200.0, 50.0, 200.0, 200.0};

// What a stopwatch around the experts would show: 5 % of it is noise.
double stopwatch_ms(index_t rank, double copies, int batch) {
  auto const noise = static_cast<double>(fl::philox::normal(7, static_cast<std::uint64_t>(batch), static_cast<std::uint64_t>(rank)));
  return copies / copies_per_ms[static_cast<std::size_t>(rank)] * (1.0 + 0.05 * std::clamp(noise, -3.0, 3.0));
}

struct outcome {
  std::array<double, ranks> copies{};  // of a batch
  double makespan_ms = 0.0;            // of a batch: the slowest rank
};

template <class Router>
outcome run(Router const& router) {
  fl::inproc::world world{ranks};
  return world.run([&](fl::inproc::communicator comm) {
    fl::moe_layer const layer{.gate = fl::linear_gate<>{.width = width, .experts = experts},
                              .router = router,
                              .expert = fl::gated_ffn<>{.width = width, .hidden = 8}};
    fl::serial const on;
    auto state = layer.make_state(on, comm, {.max_tokens = tokens_each, .seed = 1});
    auto record = layer.make_record(state);
    fl::matrix<float> output(tokens_each, width);
    outcome result;
    for (int batch = 0; batch < batches; ++batch) {
      auto const seed = static_cast<std::uint64_t>(batch) * ranks + static_cast<std::uint64_t>(comm.rank());
      auto const tokens = fl::workload::token_rows{.rows = tokens_each, .width = width, .seed = seed}.make();
      (void)layer.forward(state, tokens.view(), output.view(), record);

      std::array<double, ranks> copies{};
      for (index_t e = 0; e < experts; ++e) {
        copies[static_cast<std::size_t>(e / experts_each)] += static_cast<double>(state.global_counts[static_cast<std::size_t>(e)]);
      }
      double slowest = 0.0;
      for (index_t r = 0; r < ranks; ++r) { slowest = std::max(slowest, stopwatch_ms(r, copies[static_cast<std::size_t>(r)], batch)); }
      if (batch >= batches - counted) {
        for (std::size_t r = 0; r < copies.size(); ++r) { result.copies[r] += copies[r] / counted; }
        result.makespan_ms += slowest / counted;
      }

      // The two lines that a training loop needs: what this rank served in which time, then the end of the global batch.
      if constexpr (requires { layer.router.controller.gather_rates(on, comm, 1.0, 1.0, state.router.controller); }) {
        double const own = copies[static_cast<std::size_t>(comm.rank())];
        double const ms = std::max(stopwatch_ms(comm.rank(), own, batch), 1e-3);  // a rank without copies calls too: it is a collective
        layer.router.controller.gather_rates(on, comm, own, ms, state.router.controller);
      }
      layer.end_global_batch(state);
    }
    return result;
  })[0];
}

}  // namespace

int main() {
  outcome const plain = run(fl::sigmoid_top_k{.experts = experts, .k = k});
  outcome const biased = run(fl::queue_biased_choice{.experts = experts, .k = k, .controller = {.ranks = ranks}});
  std::printf("%lld copies a batch on %lld ranks, means of %d batches\n\n", static_cast<long long>(ranks * tokens_each * k),
              static_cast<long long>(ranks), counted);
  std::printf("rank   copies/ms   top-k: copies   queue-biased: copies\n");
  for (std::size_t r = 0; r < plain.copies.size(); ++r) {
    std::printf("%4zu %11.0f %15.1f %22.1f\n", r, copies_per_ms[r], plain.copies[r], biased.copies[r]);
  }
  double rate = 0.0;
  for (double const own : copies_per_ms) { rate += own; }
  std::printf("makespan of a batch [ms]: top-k %.2f, queue-biased %.2f, at best %.2f\n", plain.makespan_ms, biased.makespan_ms,
              static_cast<double>(ranks * tokens_each * k) / rate);
  return biased.makespan_ms < 0.5 * plain.makespan_ms ? 0 : 1;
}
