// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One body for host ranks (threads, host memory) and device ranks (NCCL, device memory); the results must agree.
#include <fairlead/comm/inproc.hpp>
#include <fairlead/comm/nccl.cuh>
#include <fairlead/dispatch/exchange.cuh>
#include <fairlead/exec/serial.hpp>
#include <fairlead/place/contiguous.hpp>
#include <fairlead/schedule/equal_split.hpp>

#include "cuda/support.cuh"

#include <numeric>
#include <utility>
#include <vector>

namespace {
namespace fl = fairlead;
using fl::index_t;
using fairlead_test::download;
using fairlead_test::upload;

struct scenario {
  index_t experts = 6;
  index_t fan_out = 2;
  index_t width = 8;
  bool replicated = false;
  bool masked = false;
  index_t most_tokens = 300;
  // Ragged, and one rank has nothing.
  [[nodiscard]] index_t tokens(index_t rank) const { return rank == 1 ? 0 : most_tokens - 37 * rank; }
};

struct outcome {
  std::vector<std::int32_t> integers;  // plan, in one list
  std::vector<float> rows, out, grad_rows, grad_weights, grad_tokens, weights;
  index_t dropped = 0;
};

fl::placement make_placement(scenario const& s, index_t ranks) {
  if (!s.replicated) { return fl::contiguous_placement{}.initial(ranks, s.experts); }
  // Every rank holds all experts, the first two of them twice, in slots that turn with the rank; one slot is empty.
  std::vector<index_t> offsets(1, 0);
  std::vector<fl::expert_id> slots;
  for (index_t r = 0; r < ranks; ++r) {
    for (index_t e = 0; e < s.experts; ++e) { slots.push_back(static_cast<fl::expert_id>((e + r) % s.experts)); }
    slots.push_back(fl::expert_id::none);
    slots.push_back(static_cast<fl::expert_id>(r % 2));
    offsets.push_back(static_cast<index_t>(slots.size()));
  }
  return {s.experts, offsets, slots};
}

struct scale_row {
  float* rows;
  FAIRLEAD_HD void operator()(index_t i) const { rows[i] *= 0.5F; }
};

template <class List, class Values>
void append(List& list, Values const& values) {
  list.insert(list.end(), values.begin(), values.end());
  list.push_back(-1000);
}

template <class Exchange, class Backend, class Comm>
outcome run_rank(Exchange const& exchange, scenario const& s, Backend const& on, Comm& comm) {
  using space = typename Backend::memory_space;
  index_t const ranks = comm.size();
  index_t const tokens = s.tokens(comm.rank());
  index_t const copies = tokens * s.fan_out;
  auto const stream = static_cast<std::uint64_t>(comm.rank());

  std::vector<fl::expert_id> chosen(static_cast<std::size_t>(copies));
  std::vector<float> chosen_weights(chosen.size());
  std::vector<std::uint8_t> mask(static_cast<std::size_t>(tokens), 1);
  for (index_t t = 0; t < tokens; ++t) {
    auto const words = fl::philox::draw(3, stream, static_cast<std::uint64_t>(t));
    bool const skewed = words[1] % 3U != 0U;
    index_t const first = skewed ? 0 : static_cast<index_t>(words[0] % static_cast<std::uint32_t>(s.experts));
    if (s.masked) { mask[static_cast<std::size_t>(t)] = words[3] % 5U != 0U ? 1 : 0; }
    for (index_t j = 0; j < s.fan_out; ++j) {
      auto const copy = static_cast<std::size_t>(t * s.fan_out + j);
      bool const none = mask[static_cast<std::size_t>(t)] == 0 || (j > 0 && words[2] % 7U == 0U);
      chosen[copy] = none ? fl::expert_id::none : static_cast<fl::expert_id>((first + j) % s.experts);
      chosen_weights[copy] = none ? 0.0F : 0.25F + fl::philox::uniform(4, stream, copy);
    }
  }
  auto const experts_memory = upload(on, chosen);
  auto const weights_memory = upload(on, chosen_weights);
  auto const mask_memory = upload(on, mask);
  auto const tokens_memory = upload(on, fairlead_test::normals(tokens * s.width, 10 + stream));
  auto const grad_memory = upload(on, fairlead_test::normals(tokens * s.width, 20 + stream));
  fl::const_routing_view const routed{{experts_memory.data(), tokens, s.fan_out}, {weights_memory.data(), tokens, s.fan_out}};
  fl::matrix_view<float const> const in(tokens_memory.data(), tokens, s.width);
  fl::matrix_view<float const> const grad_out(grad_memory.data(), tokens, s.width);
  fl::route_context context;
  if (s.masked) { context.token_mask = mask_memory.span(); }

  fl::arena<space> memory(exchange.workspace_bytes(copies, s.experts, on.concurrency()));
  fl::workspace ws = memory.view();
  fl::exchange_plan<space> plan;
  plan.ranks = ranks;
  plan.rank = comm.rank();
  exchange.admit(on, routed, context, s.experts, plan, ws);

  index_t const columns = 2 * s.experts + 1;
  fl::buffer<fl::count_t, space> gathered_memory(ranks * columns);
  comm.all_gather(on, std::span<fl::count_t const>(plan.count_row.span()), gathered_memory.span()).wait();
  auto const gathered = download(on, gathered_memory);
  auto const where = make_placement(s, ranks);
  std::vector<fl::count_t> kept(static_cast<std::size_t>(ranks * s.experts));
  std::vector<fl::count_t> schedule(static_cast<std::size_t>(ranks * where.replicas()));
  fl::matrix_view<fl::count_t> const kept_view(kept.data(), ranks, s.experts);
  fl::token_schedule_view const schedule_view(schedule.data(), ranks, where.replicas());
  exchange.limit({gathered.data(), ranks, columns}, where, s.fan_out, kept_view);
  fl::workspace none;
  (void)fl::equal_split{}.schedule(kept_view, where, schedule_view, none);
  exchange.plan(on, comm, routed, where, schedule_view, plan, ws);

  fl::wire_buffers<float, space> wire;
  fl::buffer<float, space> rows_memory(plan.buffer_rows * s.width), out_memory(tokens * s.width), grad_in_memory(tokens * s.width),
      grad_weights_memory(copies);
  fl::matrix_view<float> const rows(rows_memory.data(), plan.buffer_rows, s.width);
  fl::matrix_view<float> const out(out_memory.data(), tokens, s.width);
  fl::matrix_view<float> const grad_in(grad_in_memory.data(), tokens, s.width);
  fl::matrix_view<float> const grad_weights(grad_weights_memory.data(), tokens, s.fan_out);

  outcome result;
  auto pending = exchange.start_dispatch(on, comm, plan, in, wire);
  exchange.finish_dispatch(on, plan, pending, in, wire, rows);
  result.rows = download(on, rows_memory);
  on.for_each(rows_memory.size(), scale_row{rows_memory.data()});
  auto returning = exchange.start_combine(on, comm, plan, fl::matrix_view<float const>(rows), wire);
  exchange.finish_combine(on, plan, returning, fl::matrix_view<float const>(rows), in, wire, out);
  result.out = download(on, out_memory);
  auto backward = exchange.start_combine_backward(on, comm, plan, grad_out, in, rows, wire, grad_weights);
  exchange.finish_combine_backward(on, plan, backward, wire, rows);
  result.grad_weights = download(on, grad_weights_memory);
  on.for_each(rows_memory.size(), scale_row{rows_memory.data()});
  result.grad_rows = download(on, rows_memory);
  auto home = exchange.start_dispatch_backward(on, comm, plan, fl::matrix_view<float const>(rows), wire);
  exchange.finish_dispatch_backward(on, plan, home, fl::matrix_view<float const>(rows), grad_out, wire, grad_weights, grad_in);
  result.grad_tokens = download(on, grad_in_memory);
  result.weights = download(on, plan.weights);
  result.dropped = plan.dropped_copies;
  append(result.integers, gathered);
  append(result.integers, download(on, plan.positions));
  append(result.integers, download(on, plan.copy_to_outer));
  append(result.integers, download(on, plan.outer_to_copy));
  if (ranks > 1) {
    append(result.integers, download(on, plan.buffer_to_inner));
    append(result.integers, download(on, plan.inner_to_buffer));
  }
  comm.barrier();
  return result;
}

template <class Exchange>
void compare(Exchange const& exchange, scenario const& s, index_t ranks) {
  fl::inproc::world world(ranks);
  auto const expected = world.run([&](fl::inproc::communicator comm) { return run_rank(exchange, s, fl::serial{}, comm); });
  std::vector<outcome> actual(static_cast<std::size_t>(ranks));
  fl::nccl::run_ranks(static_cast<int>(ranks), [&](fl::nccl::communicator& comm, int rank) {
    fl::cuda_stream_owner const stream;
    actual[static_cast<std::size_t>(rank)] = run_rank(exchange, s, stream.get(), comm);
  });
  for (index_t rank = 0; rank < ranks; ++rank) {
    auto const& a = actual[static_cast<std::size_t>(rank)];
    auto const& e = expected[static_cast<std::size_t>(rank)];
    INFO("rank " << rank << " of " << ranks);
    REQUIRE(a.integers == e.integers);
    REQUIRE(a.dropped == e.dropped);
    REQUIRE(a.rows == e.rows);  // rows are moved, not computed
    REQUIRE(fairlead_test::distance(a.weights, e.weights) < 1e-6);
    REQUIRE(fairlead_test::distance(a.out, e.out) < 1e-6);
    REQUIRE(fairlead_test::distance(a.grad_weights, e.grad_weights) < 1e-5);
    REQUIRE(fairlead_test::distance(a.grad_rows, e.grad_rows) < 1e-6);
    REQUIRE(fairlead_test::distance(a.grad_tokens, e.grad_tokens) < 1e-5);
  }
}

}  // namespace

TEST_CASE("a dropless exchange on devices equals the one on the host at 1, 2 and 4 ranks") {
  FAIRLEAD_NEEDS_DEVICES(4);
  index_t const ranks = GENERATE(1, 2, 4);
  compare(fl::exchange<>{}, {}, ranks);
  compare(fl::exchange<>{.alignment = 16}, {.fan_out = 1, .width = 7}, ranks);
  compare(fl::exchange<>{}, {.experts = 9, .fan_out = 3, .replicated = true, .masked = true}, ranks);
  compare(fl::exchange<>{}, {.most_tokens = 0}, 1);
}

TEST_CASE("capacities, service by choice and every overflow action without reassignment agree with the host") {
  FAIRLEAD_NEEDS_DEVICES(4);
  index_t const ranks = GENERATE(1, 2, 4);
  scenario const s{.experts = 5, .fan_out = 2, .width = 12, .masked = true};
  compare(fl::exchange<fl::megatron_capacity, fl::choice_major_order, fl::drop>{.capacity = {0.75}}, s, ranks);
  compare(fl::exchange<fl::deepspeed_capacity, fl::choice_major_order, fl::drop_and_renormalise>{.capacity = {0.9}}, s, ranks);
  compare(fl::exchange<fl::megablocks_capacity, fl::token_order, fl::identity>{.capacity = {0.8}}, s, ranks);
}
