// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The whole layer, forward and backward, on devices with NCCL against host ranks: the same composition, the same body.
#include <fairlead/balance/sign_bias.hpp>
#include <fairlead/comm/inproc.hpp>
#include <fairlead/comm/nccl.cuh>
#include <fairlead/dispatch/exchange.cuh>
#include <fairlead/exec/serial.hpp>
#include <fairlead/expert/dense_ffn.cuh>
#include <fairlead/expert/gated_ffn.cuh>
#include <fairlead/layer/moe_layer.hpp>
#include <fairlead/route/biased_token_choice.cuh>
#include <fairlead/route/linear_gate.hpp>
#include <fairlead/route/top_k.cuh>

#include "cuda/support.cuh"

#include <vector>

namespace {
namespace fl = fairlead;
using fl::index_t;
using fairlead_test::download;
using fairlead_test::normals;
using fairlead_test::upload;

struct outcome {
  std::vector<fl::expert_id> chosen;
  std::vector<float> output, grad_tokens, gradients;
  index_t dropped = 0;
};

template <class Layer, class Backend, class Comm>
outcome run_rank(Layer const& layer, Backend const& on, Comm const& comm, bool masked) {
  index_t const width = layer.expert.input_width();
  index_t const tokens = comm.rank() == 1 ? 0 : 40 - 7 * comm.rank();  // ragged, and one rank without tokens
  auto const stream = static_cast<std::uint64_t>(comm.rank());
  auto state = layer.make_state(on, comm, {.max_tokens = 40, .seed = 3});
  auto record = layer.make_record(state);
  std::vector<std::uint8_t> mask(static_cast<std::size_t>(tokens));
  for (std::size_t t = 0; t < mask.size(); ++t) { mask[t] = t % 4 != 1 ? 1 : 0; }
  auto const mask_memory = upload(on, mask);
  auto context = layer.default_context(state, fl::phase::train);
  if (masked) { context.token_mask = mask_memory.span(); }
  auto const in = upload(on, normals(tokens * width, 100 + stream));
  auto const grad_out = upload(on, normals(tokens * width, 200 + stream));
  auto out = upload(on, normals(tokens * width, 300));
  auto grad_in = upload(on, normals(tokens * width, 400));
  outcome result;
  layer.zero_gradients(state);
  for (int step = 0; step < 2; ++step) {  // the second step works in used buffers, and gradients accumulate
    (void)layer.forward(state, fl::matrix_view<float const>(in.data(), tokens, width), fl::matrix_view<float>(out.data(), tokens, width),
                        record, context);
    result.chosen = download(on, record.plan.chosen);
    result.dropped = record.plan.dropped_copies;
    layer.backward(state, record, fl::matrix_view<float const>(grad_out.data(), tokens, width),
                   fl::matrix_view<float>(grad_in.data(), tokens, width));
  }
  layer.reduce_gradients(state);
  result.output = download(on, out);
  result.grad_tokens = download(on, grad_in);
  layer.each_parameter(state, [&](auto const& array) {
    auto const part = download(on, array.gradients.data(), static_cast<index_t>(array.gradients.size()));
    result.gradients.insert(result.gradients.end(), part.begin(), part.end());
  });
  return result;
}

template <class Layer>
void compare(Layer const& layer, index_t ranks, bool masked) {
  fl::inproc::world world(ranks);
  auto const expected = world.run([&](fl::inproc::communicator comm) { return run_rank(layer, fl::serial{}, comm, masked); });
  std::vector<outcome> actual(static_cast<std::size_t>(ranks));
  fl::nccl::run_ranks(static_cast<int>(ranks), [&](fl::nccl::communicator& comm, int rank) {
    fl::cuda_stream_owner const stream;
    actual[static_cast<std::size_t>(rank)] = run_rank(layer, stream.get(), comm, masked);
  });
  for (std::size_t rank = 0; rank < actual.size(); ++rank) {
    INFO("rank " << rank << " of " << ranks << ", masked " << masked);
    REQUIRE(actual[rank].chosen == expected[rank].chosen);
    REQUIRE(actual[rank].dropped == expected[rank].dropped);
    REQUIRE(fairlead_test::distance(actual[rank].output, expected[rank].output) < 2e-5);
    REQUIRE(fairlead_test::distance(actual[rank].grad_tokens, expected[rank].grad_tokens) < 5e-5);
    REQUIRE(fairlead_test::distance(actual[rank].gradients, expected[rank].gradients) < 1e-4);
  }
}

}  // namespace

TEST_CASE("a dropless layer with a shared expert computes and differentiates on devices as on the host") {
  FAIRLEAD_NEEDS_DEVICES(4);
  index_t const ranks = GENERATE(1, 2, 4);
  fl::moe_layer<fl::linear_gate<>, fl::top_k, fl::dense_ffn<>, fl::no_signal, fl::contiguous_placement, fl::sole_replica,
                fl::exchange<>, fl::gated_ffn<>> const layer{
      .gate = {.width = 16, .experts = 6}, .router = {.experts = 6, .k = 2}, .expert = {.width = 16, .hidden = 24},
      .shared = {.width = 16, .hidden = 8}};
  compare(layer, ranks, false);
  compare(layer, ranks, true);
}

TEST_CASE("a layer with group-limited sigmoid routing and capacities agrees with the host") {
  FAIRLEAD_NEEDS_DEVICES(4);
  index_t const ranks = GENERATE(1, 2, 4);
  fl::moe_layer<fl::linear_gate<>, fl::with_controller<fl::sigmoid_bias_group_top_k, fl::sign_bias>, fl::gated_ffn<>, fl::no_signal, fl::contiguous_placement,
                fl::sole_replica, fl::exchange<fl::megatron_capacity, fl::choice_major_order, fl::drop_and_renormalise>> const layer{
      .gate = {.width = 12, .experts = 8},
      .router = {.experts = 8, .k = 3, .selection = {.groups = 4, .kept_groups = 2}},
      .dispatcher = {.capacity = {0.9}, .alignment = 8},
      .expert = {.width = 12, .hidden = 20}};
  compare(layer, ranks, true);
}
