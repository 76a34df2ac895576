// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Threads divide rows and blocks, never a sum: with the reference products a layer gives the same bits on any number.
#include <fairlead/exec/threads.hpp>

#include <fairlead/balance/load_balance_loss.hpp>
#include <fairlead/dispatch/deduplicated_exchange.hpp>

#include "layer/support.hpp"
#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

namespace {

void same_bits(layer_test::collected const& got, layer_test::collected const& want) {
  CHECK(got.out == want.out);
  CHECK(got.grad_tokens == want.grad_tokens);
  REQUIRE(got.ranks.size() == want.ranks.size());
  for (std::size_t r = 0; r < got.ranks.size(); ++r) {
    CAPTURE(r);
    CHECK(got.ranks[r].grad_gate == want.ranks[r].grad_gate);
    CHECK(got.ranks[r].grad_shared == want.ranks[r].grad_shared);
    CHECK(got.ranks[r].grad_experts == want.ranks[r].grad_experts);
    CHECK(got.ranks[r].report.computed_copies == want.ranks[r].report.computed_copies);
  }
}

// Enough tokens that rows, histograms, row moves and gradients fall into several blocks.
template <class Layer>
void equal_on_any_number_of_threads(Layer const& layer, reference::sizes const& sizes) {
  auto const in = layer_test::problem_of(layer, sizes);
  for (index_t const ranks : {1, 2}) {
    auto const want = layer_test::run(fl::serial{}, layer, in, ranks);
    for (int const count : {1, 2, 3}) {
      CAPTURE(ranks, count);
      same_bits(layer_test::run(fl::threads{count}, layer, in, ranks), want);
    }
    if (ranks == 1) { CHECK(layer_test::distance(want, reference::solve(in)) < 1e-4); }
  }
}

}  // namespace

TEST_CASE("A layer with gated experts, a loss and a shared expert gives the same bits on 1, 2 and 3 threads") {
  fl::moe_layer const layer{.gate = fl::linear_gate<>{.width = 24, .experts = 5},
                            .router = fl::top_k{.experts = 5, .k = 2},
                            .signal = fl::load_balance_loss<fl::softmax_share, fl::global_batch_scope>{.coefficient = 2.0},
                            .dispatcher = fl::exchange<>{.alignment = 4},
                            .expert = fl::gated_ffn<float>{.width = 24, .hidden = 20},
                            .shared = fl::gated_ffn<float>{.width = 24, .hidden = 20}};
  equal_on_any_number_of_threads(layer, {.tokens = 1300, .width = 24, .hidden = 20, .experts = 5, .fan_out = 2, .gated = true, .shared = true, .balance = 2.0});
}

TEST_CASE("A layer with capacity and deduplication gives the same bits on 1, 2 and 3 threads") {
  using limited = fl::fixed_capacity<fl::capacity_scope::global>;
  fl::moe_layer const layer{.gate = fl::linear_gate<>{.width = 12, .experts = 6},
                            .router = fl::top_k{.experts = 6, .k = 3},
                            .dispatcher = fl::deduplicated_exchange<limited>{.capacity = {.count = 400}},
                            .expert = fl::dense_ffn<float>{.width = 12, .hidden = 16}};
  equal_on_any_number_of_threads(layer, {.tokens = 1100, .width = 12, .hidden = 16, .experts = 6, .fan_out = 3, .places = 400});
}
