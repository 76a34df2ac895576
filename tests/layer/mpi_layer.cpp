// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The layer over MPI: mpirun -np N mpi_layer. Every rank compares its outputs and gradients with the double precision
// reference that it computes itself; rank 0 prints "N passed, N failed" over all ranks.
#include <fairlead/comm/mpi.hpp>

#include <fairlead/balance/load_balance_loss.hpp>
#include <fairlead/dispatch/deduplicated_exchange.hpp>

#include <fairlead/layer/shuffled.hpp>
#include <fairlead/route/balanced_choice.hpp>

#include "layer/support.hpp"
#include "route/small_exact_solver.hpp"

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>

namespace fl = fairlead;
using fl::index_t;

namespace {

constexpr double rounding = 2e-5;

struct outcome {
  fl::mpi::communicator comm;
  int passed = 0, failed = 0;

  void note(bool holds, std::string const& what) {
    ++(holds ? passed : failed);
    if (!holds) { std::fprintf(stderr, "rank %d of %d: %s\n", static_cast<int>(comm.rank()), static_cast<int>(comm.size()), what.c_str()); }
  }

  template <class Layer>
  void equals_reference(char const* name, Layer const& layer, reference::sizes const& sizes) {
    equals_reference(name, layer, layer, sizes);
  }
  // `layer` is what runs, `plain` has its gate and experts.
  template <class Layer, class Plain>
  void equals_reference(char const* name, Layer const& layer, Plain const& plain, reference::sizes const& sizes) {
    auto const in = layer_test::problem_of(plain, sizes);
    auto const want = reference::solve(in);
    auto const got = layer_test::run_rank(fl::serial{}, layer, in, comm);
    double const distance = layer_test::rank_distance(got, want, sizes.width);
    note(distance < rounding, std::string(name) + ": differs from the reference by " + std::to_string(distance));
    note(got.report.routed_copies - got.report.computed_copies == want.dropped, std::string(name) + ": other drops");
    // Together the ranks hold the gradient of every expert, and the output of every token.
    std::array<index_t, 2> seen{static_cast<index_t>(got.grad_experts.size()), static_cast<index_t>(got.out.size())};
    comm.all_reduce(fl::serial{}, std::span<index_t>(seen), fl::reduction::sum).wait();
    note(seen[0] == sizes.experts && seen[1] == sizes.tokens * sizes.width, std::string(name) + ": something is missing");
    auto const counts = layer_test::ragged(sizes.tokens, comm.size());
    note(comm.size() < 3 || counts[1] == 0, "one rank should have no tokens");
  }

  // Balanced assignment of exchanged tokens: even loads on every rank, equal prices on all.
  void balances() {
    fl::shuffled const layer{.layer = fl::moe_layer{
        .gate = fl::linear_gate<>{.width = 6, .experts = 5},
        .router = fl::balanced_choice<small::exact_solver, fl::priced_evaluation>{.experts = 5},
        .expert = fl::dense_ffn<float>{.width = 6, .hidden = 8}}};
    index_t const count = comm.rank() == 0 ? 60 : 0;  // 60, 30, 20 or 15 a rank after the exchange
    fl::matrix<float> tokens(count, 6), output(count, 6), grad(count, 6);
    for (index_t i = 0; i < count * 6; ++i) { tokens.data()[i] = static_cast<float>(fl::philox::normal(5, 1, static_cast<std::uint64_t>(i))); }
    auto state = layer.make_state(fl::serial{}, comm, {.max_tokens = 60, .seed = 2});
    auto record = layer.make_record(state);
    auto const report = layer.forward(state, std::as_const(tokens).view(), output.view(), record);
    note(report.tokens == 60 && report.imbalance() == 1.0, "balanced: loads are not even");
    layer.backward(state, record, std::as_const(output).view(), grad.view());
    layer.reduce_gradients(state);
    layer.end_global_batch(state);
    std::vector<double> largest = state.inner.router.frozen, smallest = largest;
    comm.all_reduce(fl::serial{}, std::span<double>(largest), fl::reduction::maximum).wait();
    comm.all_reduce(fl::serial{}, std::span<double>(smallest), fl::reduction::minimum).wait();
    note(largest == smallest && std::any_of(largest.begin(), largest.end(), [](double p) { return p != 0.0; }), "balanced: prices differ between ranks, or there are none");
  }
};

}  // namespace

int main(int argc, char** argv) {
  fl::mpi::session session(&argc, &argv);
  outcome all{.comm = fl::mpi::communicator()};
  for (index_t const k : {1, 2, 4}) {
    all.equals_reference("dropless top-k",
                         fl::moe_layer{.gate = fl::linear_gate<>{.width = 12, .experts = 6},
                                       .router = fl::top_k{.experts = 6, .k = k},
                                       .expert = fl::dense_ffn<float>{.width = 12, .hidden = 20}},
                         {.tokens = 53, .width = 12, .hidden = 20, .experts = 6, .fan_out = k});
  }
  using limited = fl::fixed_capacity<fl::capacity_scope::global>;
  all.equals_reference("capacity over all ranks",
                       fl::moe_layer{.gate = fl::linear_gate<>{.width = 8, .experts = 5},
                                     .router = fl::top_k{.experts = 5, .k = 2},
                                     .dispatcher = fl::exchange<limited>{.capacity = {.count = 9}},
                                     .expert = fl::dense_ffn<float>{.width = 8, .hidden = 10}},
                       {.tokens = 41, .width = 8, .hidden = 10, .experts = 5, .fan_out = 2, .places = 9});
  all.equals_reference("deduplication, a loss, a shared expert",
                       fl::moe_layer{.gate = fl::linear_gate<>{.width = 10, .experts = 7},
                                     .router = fl::top_k{.experts = 7, .k = 3},
                                     .signal = fl::load_balance_loss<fl::softmax_share, fl::global_batch_scope>{.coefficient = 3.0},
                                     .dispatcher = fl::deduplicated_exchange<>{.alignment = 8},
                                     .expert = fl::gated_ffn<float>{.width = 10, .hidden = 14},
                                     .shared = fl::gated_ffn<float>{.width = 10, .hidden = 14}},
                       {.tokens = 37, .width = 10, .hidden = 14, .experts = 7, .fan_out = 3, .gated = true, .shared = true, .balance = 3.0});
  all.equals_reference("fewer experts than ranks, and one token",
                       fl::moe_layer{.gate = fl::linear_gate<>{.width = 6, .experts = 2},
                                     .router = fl::top_k{.experts = 2, .k = 1},
                                     .expert = fl::dense_ffn<float>{.width = 6, .hidden = 8}},
                       {.tokens = 1, .width = 6, .hidden = 8, .experts = 2, .fan_out = 1});
  fl::shuffled const exchanged{.layer = fl::moe_layer{.gate = fl::linear_gate<>{.width = 9, .experts = 6},
                                                      .router = fl::top_k{.experts = 6, .k = 2},
                                                      .expert = fl::dense_ffn<float>{.width = 9, .hidden = 12}}};
  all.equals_reference("tokens exchanged at random", exchanged, exchanged.layer,
                       {.tokens = 43, .width = 9, .hidden = 12, .experts = 6, .fan_out = 2});
  all.balances();
  std::array<int, 2> totals{all.passed, all.failed};
  all.comm.all_reduce(fl::serial{}, std::span<int>(totals), fl::reduction::sum).wait();
  if (all.comm.rank() == 0) { std::printf("%d passed, %d failed\n", totals[0], totals[1]); }
  return totals[1] == 0 && totals[0] == 30 * static_cast<int>(all.comm.size()) ? 0 : 1;
}
