// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A rerouting carried out: ranks as threads, the usual dispatcher over the placement with the copies; and plans allocate
// nothing. Weights are not moved here: an expert is a function of its number.
#include <fairlead/assign/least_loaded.hpp>
#include <fairlead/assign/rerouting_map.hpp>
#include <fairlead/comm/inproc.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/core/routing.hpp>
#include <fairlead/dispatch/deduplicated_exchange.hpp>
#include <fairlead/dispatch/exchange.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/place/contiguous.hpp>

#include "support/catch.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

namespace {
std::atomic<long> allocations{0};
// Out of line: g++ takes a visible free() of what an inlined operator new returned for a mismatch.
[[gnu::noinline]] void* allocate(std::size_t bytes, std::size_t alignment) noexcept {
  allocations.fetch_add(1);
  return std::aligned_alloc(alignment, (std::max<std::size_t>(bytes, 1) + alignment - 1) / alignment * alignment);
}
void* allocate_or_throw(std::size_t bytes, std::size_t alignment) {
  if (void* const block = allocate(bytes, alignment)) { return block; }
  throw std::bad_alloc();
}
constexpr std::size_t plain_alignment = alignof(std::max_align_t);
[[gnu::noinline]] void release(void* block) noexcept { std::free(block); }
}  // namespace
void* operator new(std::size_t bytes) { return allocate_or_throw(bytes, plain_alignment); }
void* operator new[](std::size_t bytes) { return allocate_or_throw(bytes, plain_alignment); }
void* operator new(std::size_t bytes, std::nothrow_t const&) noexcept { return allocate(bytes, plain_alignment); }
void* operator new[](std::size_t bytes, std::nothrow_t const&) noexcept { return allocate(bytes, plain_alignment); }
void* operator new(std::size_t bytes, std::align_val_t to) { return allocate_or_throw(bytes, static_cast<std::size_t>(to)); }
void* operator new[](std::size_t bytes, std::align_val_t to) { return allocate_or_throw(bytes, static_cast<std::size_t>(to)); }
void operator delete(void* block) noexcept { release(block); }
void operator delete[](void* block) noexcept { release(block); }
void operator delete(void* block, std::size_t) noexcept { release(block); }
void operator delete[](void* block, std::size_t) noexcept { release(block); }
void operator delete(void* block, std::nothrow_t const&) noexcept { release(block); }
void operator delete[](void* block, std::nothrow_t const&) noexcept { release(block); }
void operator delete(void* block, std::align_val_t) noexcept { release(block); }
void operator delete[](void* block, std::align_val_t) noexcept { release(block); }
void operator delete(void* block, std::size_t, std::align_val_t) noexcept { release(block); }
void operator delete[](void* block, std::size_t, std::align_val_t) noexcept { release(block); }

namespace {
namespace fl = fairlead;
using fl::index_t;

struct rank_outcome {
  std::vector<float> out;
  index_t rows = 0, planned = 0, transfers = 0;
  std::uint64_t fingerprint = 0;
  bool used_plan = false;
  long allocated = 0;
};

// A token's output: the sum over its choices of weight x (expert + 1) x token, whatever rank computes it.
template <class Dispatcher, class Gate>
rank_outcome run_rank(Dispatcher const& dispatcher, fl::least_loaded<fl::ceil_capacity, Gate> const& planner, fl::position_order order,
                      fl::inproc::communicator comm) {
  index_t const experts = 10, fan_out = 2, width = 3, ranks = comm.size();
  index_t const tokens = comm.rank() == 1 ? 0 : 50 + 7 * comm.rank();
  auto const stream = static_cast<std::uint64_t>(comm.rank());
  fl::serial const on;
  fl::routing<> routed(tokens, fan_out);
  fl::matrix<float> in(tokens, width), out(tokens, width);
  for (index_t t = 0; t < tokens; ++t) {
    auto const words = fl::philox::draw(8, stream, static_cast<std::uint64_t>(t));
    index_t const first = words[1] % 4U != 0U ? static_cast<index_t>(words[0] % 2U) : static_cast<index_t>(words[0] % 9U);
    for (index_t j = 0; j < fan_out; ++j) {
      routed.view().experts(t, j) = words[2] % 11U == 0U && j == 1 ? fl::expert_id::none : static_cast<fl::expert_id>(first + j);
      routed.view().weights(t, j) = routed.view().experts(t, j) == fl::expert_id::none ? 0.0F : 0.25F * static_cast<float>(1 + j);
    }
    for (index_t c = 0; c < width; ++c) { in(t, c) = static_cast<float>(fl::philox::normal(9, stream, static_cast<std::uint64_t>(t * width + c))); }
    // Deduplication adds on the way: small whole numbers, so that no sum rounds.
    for (index_t c = 0; c < width && !std::is_same_v<Dispatcher, fl::exchange<>>; ++c) { in(t, c) = std::round(16.0F * in(t, c)); }
  }
  auto const view = std::as_const(routed).view();
  auto const resident = fl::contiguous_placement{}.initial(ranks, experts);
  fl::plan_of<Dispatcher, fl::serial> plan;
  fl::arena<> memory(dispatcher.workspace_bytes(tokens * fan_out, experts, 1));
  fl::workspace ws = memory.view();
  plan.ranks = ranks;
  plan.rank = comm.rank();
  dispatcher.admit(on, view, fl::route_context{}, experts, plan, ws);
  fl::matrix<fl::count_t> gathered(ranks, 2 * experts + 1), load(ranks, experts);
  comm.all_gather(on, std::as_const(plan.count_row).span(), gathered.span()).wait();
  dispatcher.limit(std::as_const(gathered).view(), resident, fan_out, load.view());

  std::vector<index_t> totals(static_cast<std::size_t>(experts));
  fl::rerouting_memory room(experts, ranks);
  fl::rerouting rerouted = room.view();
  fl::arena<> scratch(std::max(planner.workspace_bytes(experts, ranks), fl::rerouting_map_bytes(experts, ranks)));
  fl::workspace planning = scratch.view();
  fl::sum_over_ranks(std::as_const(load).view(), totals);
  rank_outcome result;
  if (planner.plan(totals, resident, rerouted, planning).status != fl::status::ok) { return result; }
  std::vector<fl::replica_copy> list(rerouted.transfers().size());
  fl::copy_list copies{.storage = list};
  fl::add_copies(rerouted.transfers(), copies);
  auto const where = fl::with_copies(resident, copies.view());
  fl::matrix<fl::count_t> schedule(ranks, where.replicas());
  fl::schedule_of(rerouted, std::as_const(load).view(), where, order, schedule.view(), planning);
  dispatcher.plan(on, comm, view, where, std::as_const(schedule).view(), plan, ws);

  fl::wire_of<Dispatcher, fl::serial, float> wire;
  auto const groups = plan.groups();
  fl::matrix<float> rows(groups.rows(), width);
  auto pending = dispatcher.start_dispatch(on, comm, plan, std::as_const(in).view(), wire);
  dispatcher.finish_dispatch(on, plan, pending, std::as_const(in).view(), wire, rows.view());
  auto const mine = where.experts_on(static_cast<fl::rank_id>(comm.rank()));
  for (index_t g = 0; g < groups.size(); ++g) {
    for (index_t i = groups.first(g); i < groups.first(g) + groups.count(g); ++i) {
      for (index_t c = 0; c < width; ++c) { rows(i, c) *= static_cast<float>(fl::to_index(mine[static_cast<std::size_t>(g)]) + 1); }
    }
  }
  auto returning = dispatcher.start_combine(on, comm, plan, std::as_const(rows).view(), wire);
  dispatcher.finish_combine(on, plan, returning, std::as_const(rows).view(), std::as_const(in).view(), wire, out.view());
  result.out.assign(out.span().begin(), out.span().end());
  result.rows = groups.used();
  result.planned = rerouted.rank_load[static_cast<std::size_t>(comm.rank())];
  result.transfers = rerouted.transfer_count;
  result.fingerprint = where.fingerprint();
  result.used_plan = rerouted.used_plan;
  return result;
}

template <class Dispatcher>
void check(Dispatcher const& dispatcher) {
  for (index_t const ranks : {1, 2, 5}) {
    fl::inproc::world world(ranks);
    auto const run = [&](auto const& planner, fl::position_order order) {
      return world.run([&](fl::inproc::communicator comm) { return run_rank(dispatcher, planner, order, comm); });
    };
    auto const plain = run(fl::least_loaded<fl::ceil_capacity, fl::rank_ratio>{.gate = {100, 1}}, fl::position_order::source_rank_order);
    for (auto const order : {fl::position_order::source_rank_order, fl::position_order::recipient_local_first}) {
      auto const rerouted = run(fl::least_loaded<fl::ceil_capacity, fl::always_reroute>{}, order);
      index_t most = 0, total = 0;
      for (std::size_t r = 0; r < plain.size(); ++r) {
        INFO("rank " << r << " of " << ranks);
        REQUIRE_FALSE(plain[r].used_plan);
        REQUIRE(rerouted[r].used_plan);
        REQUIRE(rerouted[r].out == plain[r].out);  // bit for bit: each copy is computed alone, and combined in the same order
        REQUIRE(rerouted[r].fingerprint == rerouted[0].fingerprint);
        most = std::max(most, rerouted[r].planned);
        total += rerouted[r].planned;
        if constexpr (std::is_same_v<Dispatcher, fl::exchange<>>) { REQUIRE(rerouted[r].rows == rerouted[r].planned); }
      }
      REQUIRE(most == (total + ranks - 1) / ranks);
      if (ranks > 1) { REQUIRE(rerouted[0].transfers > 0); }
    }
  }
}

}  // namespace

TEST_CASE("a rerouted exchange gives every token the bits of the plain one, with even loads") {
  check(fl::exchange<>{});
  check(fl::deduplicated_exchange<>{});
}

TEST_CASE("plans, maps and schedules allocate nothing") {
  index_t const ranks = 8, experts = 64;
  auto const where = fl::contiguous_placement{}.initial(ranks, experts);
  fl::least_loaded<fl::ceil_capacity, fl::always_reroute> planner{};
  fl::rerouting_memory room(experts, ranks);
  fl::rerouting plan = room.view();
  fl::arena<> scratch(std::max(planner.workspace_bytes(experts, ranks), fl::rerouting_map_bytes(experts, ranks)));
  fl::workspace ws = scratch.view();
  fl::matrix<fl::count_t> load(ranks, experts), schedule(ranks, experts + fl::rerouting::most_transfers(experts, ranks));
  fl::matrix<index_t> send(ranks, ranks);
  std::vector<index_t> totals(static_cast<std::size_t>(experts));
  long const before_all = allocations.load();
  ::operator delete(::operator new(3));
  REQUIRE(allocations.load() > before_all);  // the counter counts
  for (std::uint64_t draw = 0; draw < 50; ++draw) {
    for (std::size_t i = 0; i < load.span().size(); ++i) {
      auto const word = fl::philox::draw(12, draw, i)[0];
      load.span()[i] = static_cast<fl::count_t>(word % 50U * (i % 64 < draw % 7 ? 9U : 1U));
    }
    planner.least_chunk = 1 + static_cast<index_t>(draw % 5) * 40;
    long const before = allocations.load();
    fl::sum_over_ranks(std::as_const(load).view(), totals);
    bool const ok = planner.plan(totals, where, plan, ws).status == fl::status::ok;
    fl::count_sends(plan, std::as_const(load).view(), fl::position_order::recipient_local_first, send.view(), ws);
    long const during = allocations.load() - before;
    REQUIRE(ok);
    REQUIRE(during == 0);
    std::vector<fl::replica_copy> list(plan.transfers().size());
    fl::copy_list copies{.storage = list};
    fl::add_copies(plan.transfers(), copies);
    auto const with = fl::with_copies(where, copies.view());
    fl::token_schedule_view const out(schedule.data(), ranks, with.replicas());
    long const again = allocations.load();
    fl::schedule_of(plan, std::as_const(load).view(), with, fl::position_order::source_rank_order, out, ws);
    REQUIRE(allocations.load() == again);
    REQUIRE(fl::conserves(std::as_const(load).view(), with, out));
  }
}
