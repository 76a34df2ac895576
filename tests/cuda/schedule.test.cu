// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Scheduling on a device: splits, routes, even parts and slots must be the host's, bit for bit, and the whole path from
// routing to slots must run without a look from the host.
#include <fairlead/assign/least_loaded.hpp>
#include <fairlead/assign/rerouting_map.hpp>
#include <fairlead/comm/inproc.hpp>
#include <fairlead/comm/nccl.cuh>
#include <fairlead/core/matrix.hpp>
#include <fairlead/cuda/deal_copies.cuh>
#include <fairlead/exec/serial.hpp>
#include <fairlead/schedule/column_rules.hpp>
#include <fairlead/schedule/copy_slots.cuh>
#include <fairlead/schedule/gather_load.cuh>
#include <fairlead/schedule/local_node_even.hpp>
#include <fairlead/schedule/min_max_flow.hpp>
#include <fairlead/schedule/min_max_waves.cuh>
#include <fairlead/schedule/staircase.hpp>
#include <fairlead/schedule/token_slots.hpp>

#include "cuda/support.cuh"

#include <algorithm>
#include <numeric>
#include <vector>

namespace {
namespace fl = fairlead;
using fl::index_t;
using fairlead_test::download;
using fairlead_test::upload;

index_t below(index_t bound, std::uint64_t stream, std::uint64_t at) {
  return static_cast<index_t>(fl::philox::below(fl::philox::draw(31, stream, at)[0], static_cast<std::uint32_t>(bound)));
}

// Ragged ranks; every expert once, and extra replicas anywhere, twins and empty slots included.
fl::placement any_placement(index_t ranks, index_t experts, index_t extra, std::uint64_t stream) {
  std::vector<fl::expert_id> slots;
  for (index_t e = 0; e < experts; ++e) { slots.push_back(static_cast<fl::expert_id>(e)); }
  for (index_t i = 0; i < extra; ++i) { slots.push_back(static_cast<fl::expert_id>(below(experts + 1, stream, static_cast<std::uint64_t>(i)) - 1)); }
  for (std::size_t i = slots.size(); i > 1; --i) { std::swap(slots[i - 1], slots[static_cast<std::size_t>(below(static_cast<index_t>(i), stream + 1, i))]); }
  std::vector<index_t> offsets(static_cast<std::size_t>(ranks) + 1);
  for (std::size_t r = 0; r < offsets.size(); ++r) { offsets[r] = static_cast<index_t>(slots.size()) * static_cast<index_t>(r) / ranks; }
  if (ranks > 2) { offsets[1] = offsets[2]; }
  return {experts, offsets, slots};
}

std::vector<fl::count_t> any_load(index_t ranks, index_t experts, index_t most, std::uint64_t stream) {
  std::vector<fl::count_t> load(static_cast<std::size_t>(ranks * experts));
  for (std::size_t i = 0; i < load.size(); ++i) {
    index_t const hot = static_cast<index_t>(i) % experts < 3 ? 6 : 1;
    load[i] = static_cast<fl::count_t>(below(most * hot + 1, stream, i));
  }
  return load;
}

struct split_outcome {
  std::vector<fl::count_t> shares;
  std::vector<fl::wave_report> reports;
};

template <class Backend>
split_outcome split(Backend const& on, fl::min_max_waves const& rule, fl::placement const& where, std::vector<index_t> const& totals) {
  using space = typename Backend::memory_space;
  fl::column_table<space> const table(on, where);
  index_t const problems = where.experts() == 0 ? 0 : static_cast<index_t>(totals.size()) / where.experts();
  auto const in = upload(on, totals);
  fl::buffer<fl::count_t, space> shares(problems * where.replicas());
  fl::buffer<fl::wave_report, space> reports(problems);
  fl::arena<space> memory(rule.batch_workspace_bytes(problems, where.ranks(), where.experts(), where.replicas()));
  fl::workspace ws = memory.view();
  rule.solve_batch(on, table.view(), {in.data(), problems, where.experts()}, {shares.data(), problems, where.replicas()}, reports.span(), ws);
  REQUIRE(ws.used() == 0);
  return {download(on, shares), download(on, reports)};
}

void compare_splits(fl::placement const& where, std::vector<index_t> const& totals, fl::min_max_waves const& rule = {}) {
  fl::cuda_stream_owner const stream;
  auto const device = split(stream.get(), rule, where, totals);
  auto const host = split(fl::serial{}, rule, where, totals);
  REQUIRE(device.shares == host.shares);
  REQUIRE(device.reports.size() == host.reports.size());
  for (std::size_t i = 0; i < host.reports.size(); ++i) {
    INFO("problem " << i << ": waves " << device.reports[i].waves << " and " << host.reports[i].waves);
    REQUIRE(device.reports[i] == host.reports[i]);
  }
}

}  // namespace

TEST_CASE("a block splits as the host does, and the largest load is the least possible one", "[cuda]") {
  FAIRLEAD_NEEDS_DEVICES(1);
  struct sizes { index_t ranks, experts, extra, problems; };
  for (auto const [ranks, experts, extra, problems] : {sizes{1, 1, 0, 2}, sizes{3, 7, 6, 5}, sizes{8, 32, 32, 6}, sizes{33, 70, 90, 2}, sizes{64, 256, 256, 2}}) {
    INFO(ranks << " x " << experts << " + " << extra);
    auto const where = any_placement(ranks, experts, extra, static_cast<std::uint64_t>(ranks));
    std::vector<index_t> totals(static_cast<std::size_t>(experts * problems));
    for (std::size_t i = 0; i < totals.size(); ++i) {
      totals[i] = below(1000, 50, i) * (i % static_cast<std::size_t>(experts) < 2 ? 20 : 1);
    }
    compare_splits(where, totals);
    auto const found = split(fl::cuda_stream{}, fl::min_max_waves{}, where, totals);
    fl::min_max_flow const exact{};
    fl::arena<> memory(exact.workspace_bytes(where));
    std::vector<fl::count_t> shares(static_cast<std::size_t>(where.replicas()));
    for (index_t p = 0; p < problems; ++p) {
      fl::workspace ws = memory.view();
      auto const best = exact.split(std::span<index_t const>(totals).subspan(static_cast<std::size_t>(p * experts), static_cast<std::size_t>(experts)), where, shares, ws);
      REQUIRE(static_cast<double>(found.reports[static_cast<std::size_t>(p)].largest) == best.value);
    }
  }
}

TEST_CASE("splits that do not fit into shared memory, that lose an expert or that stop early are equal too", "[cuda]") {
  FAIRLEAD_NEEDS_DEVICES(1);
  // 128 ranks, 6000 experts: 60 KB a problem.
  auto const large = any_placement(128, 6000, 3000, 9);
  std::vector<index_t> totals(6000);
  for (std::size_t e = 0; e < totals.size(); ++e) { totals[e] = below(200, 60, e); }
  REQUIRE(fl::detail::wave_memory::bytes(128, 6000, large.replicas()) > fl::detail::wave_shared_bytes);
  compare_splits(large, totals);

  auto const small = any_placement(8, 24, 20, 10);
  std::vector<index_t> some(24 * 3);
  for (std::size_t e = 0; e < some.size(); ++e) { some[e] = below(200, 61, e) * (e % 24 == 0 ? 30 : 1); }
  compare_splits(small, some, {.most_waves = 0});
  compare_splits(small, some, {.most_waves = 1});
  fl::placement const lost(3, std::vector<index_t>{0, 1, 2}, std::vector<fl::expert_id>{fl::expert_id{0}, fl::expert_id{2}});
  compare_splits(lost, {4, 0, 1, 4, 1, 1, 0, 0, 0});
  fl::cuda_stream_owner const stream;
  REQUIRE(split(stream.get(), fl::min_max_waves{}, lost, {4, 0, 1, 4, 1, 1}).reports[1].status == fl::status::lost_expert);
  REQUIRE(split(stream.get(), fl::min_max_waves{}, lost, {}).reports.empty());
}

TEST_CASE("even parts on a node are the host's on a device", "[cuda]") {
  FAIRLEAD_NEEDS_DEVICES(1);
  fl::cuda_stream const on;
  for (std::uint64_t number = 0; number < 6; ++number) {
    index_t const ranks = 1 + static_cast<index_t>(number) * 3;
    index_t const experts = 5 + static_cast<index_t>(number) * 7;
    auto const where = any_placement(ranks, experts, experts, number);
    auto const counts = any_load(ranks, experts, 20, 70 + number);
    fl::topology const cluster(ranks, 1, 1 + static_cast<index_t>(number) / 2);
    fl::column_table<fl::device_space> const table(on, where);
    fl::node_table<fl::device_space> const nodes(on, cluster);
    auto const load = upload(on, counts);
    fl::buffer<fl::count_t, fl::device_space> out(ranks * where.replicas());
    fl::buffer<std::int32_t, fl::device_space> lost(1);
    for (bool const rotate : {false, true}) {
      fl::spread_on_nodes(on, table.view(), nodes, {load.data(), ranks, experts}, rotate, {out.data(), ranks, where.replicas()}, lost.data());
      fl::matrix<fl::count_t> expected(ranks, where.replicas());
      fl::local_node_even const rule{.cluster = cluster, .rotate = rotate};
      fl::arena<> scratch(rule.workspace_bytes(where));
      fl::workspace ws = scratch.view();
      REQUIRE(rule.schedule({counts.data(), ranks, experts}, where, expected.view(), ws).status == fl::status::ok);
      REQUIRE(download(on, out) == std::vector<fl::count_t>(expected.span().begin(), expected.span().end()));
      REQUIRE(download(on, lost)[0] == 0);
    }
  }
}

TEST_CASE("from counts to slots on a device: sums, split, staircase, slots, without a look from the host", "[cuda]") {
  FAIRLEAD_NEEDS_DEVICES(1);
  fl::cuda_stream_owner const stream;
  auto const on = stream.get();
  for (std::uint64_t number = 0; number < 4; ++number) {
    index_t const ranks = 2 + static_cast<index_t>(number) * 5;
    index_t const experts = 6 + static_cast<index_t>(number) * 20;
    auto const where = any_placement(ranks, experts, experts, 20 + number);
    auto counts = any_load(ranks, experts, 9, 80 + number);
    // The copies of one rank, shuffled, with some that have no expert.
    index_t const me = static_cast<index_t>(number) % ranks;
    std::vector<fl::expert_id> copies(5, fl::expert_id::none);
    for (index_t e = 0; e < experts; ++e) {
      copies.insert(copies.end(), static_cast<std::size_t>(counts[static_cast<std::size_t>(me * experts + e)]), static_cast<fl::expert_id>(e));
    }
    for (std::size_t i = copies.size(); i > 1; --i) { std::swap(copies[i - 1], copies[static_cast<std::size_t>(below(static_cast<index_t>(i), 90 + number, i))]); }
    std::vector<std::int32_t> sequence(copies.size());
    std::iota(sequence.rbegin(), sequence.rend(), 0);

    fl::column_table<fl::device_space> const table(on, where);
    auto const& columns = table.view();
    auto const load = upload(on, counts);
    auto const mine = upload(on, copies);
    auto const order = upload(on, sequence);
    fl::buffer<index_t, fl::device_space> totals(experts);
    fl::buffer<fl::count_t, fl::device_space> shares(where.replicas()), schedule(ranks * where.replicas());
    fl::buffer<fl::wave_report, fl::device_space> report(1);
    fl::buffer<fl::slot_id, fl::device_space> slots(static_cast<index_t>(copies.size()));
    fl::min_max_waves const rule{};
    fl::copy_slots const assign{};
    fl::arena<fl::device_space> memory(std::max(rule.batch_workspace_bytes(1, ranks, experts, where.replicas()), assign.workspace_bytes(on, experts, where.replicas())));
    for (bool const reversed : {false, true}) {
      fl::workspace ws = memory.view();
      fl::load_view const loads(load.data(), ranks, experts);
      fl::sum_over_ranks(on, loads, totals.span());
      rule.solve_batch(on, columns, {totals.data(), 1, experts}, {shares.data(), 1, where.replicas()}, report.span(), ws);
      fl::route_staircase(on, columns, loads, shares.span(), reversed, {schedule.data(), ranks, where.replicas()});
      std::span<fl::count_t const> const row(schedule.data() + me * where.replicas(), static_cast<std::size_t>(where.replicas()));
      assign.assign(on, mine.span(), reversed ? order.span() : std::span<std::int32_t const>{}, columns, row, slots.span(), ws);

      // The same on the host, by the components that it restates.
      std::vector<index_t> sums(static_cast<std::size_t>(experts));
      fl::sum_over_ranks(fl::load_view(counts.data(), ranks, experts), sums);
      REQUIRE(download(on, totals) == sums);
      auto const host_shares = split(fl::serial{}, rule, where, sums).shares;
      REQUIRE(download(on, shares) == host_shares);
      fl::staircase const router{.rotate = reversed};
      fl::arena<> scratch(std::max(router.workspace_bytes(where), fl::token_slots{}.workspace_bytes(where)));
      fl::workspace host = scratch.view();
      fl::matrix<fl::count_t> expected(ranks, where.replicas());
      REQUIRE(router.route({counts.data(), ranks, experts}, where, host_shares, expected.view(), host).status == fl::status::ok);
      REQUIRE(download(on, schedule) == std::vector<fl::count_t>(expected.span().begin(), expected.span().end()));
      std::vector<fl::slot_id> host_slots(copies.size());
      std::vector<float> const weights(copies.size(), 1.0F);
      auto const count = static_cast<index_t>(copies.size());
      auto const done = fl::token_slots{}.assign({{copies.data(), count, 1}, {weights.data(), count, 1}}, reversed ? std::span<std::int32_t const>(sequence) : std::span<std::int32_t const>{},
                                                 where, {expected.view().row(me), static_cast<std::size_t>(where.replicas())}, host_slots, host);
      REQUIRE(download(on, slots) == host_slots);
      REQUIRE(done.value == static_cast<double>(count - 5));
    }
  }
}

namespace {

struct path_outcome {
  std::vector<fl::count_t> load, shares, schedule;
  std::vector<fl::slot_id> slots;
  bool operator==(path_outcome const&) const = default;
};

// One rank's way from its routing to slots; the host only queues it.
template <class Backend, class Comm>
path_outcome run_path(Backend const& on, Comm& comm, fl::placement const& where) {
  using space = typename Backend::memory_space;
  index_t const ranks = comm.size(), experts = where.experts(), columns = where.replicas();
  std::vector<fl::expert_id> copies(static_cast<std::size_t>(comm.rank() == 1 ? 0 : 700 + 13 * comm.rank()));
  for (std::size_t i = 0; i < copies.size(); ++i) {
    index_t const hot = below(3, 200 + static_cast<std::uint64_t>(comm.rank()), i);
    copies[i] = static_cast<fl::expert_id>(below(hot == 0 ? experts + 1 : 3, 300 + static_cast<std::uint64_t>(comm.rank()), i) - (hot == 0 ? 1 : 0));
  }
  auto const mine = upload(on, copies);
  fl::column_table<space> const table(on, where);
  fl::buffer<index_t, space> totals(experts);
  fl::buffer<fl::count_t, space> load(ranks * experts), shares(columns), schedule(ranks * columns);
  fl::buffer<fl::wave_report, space> report(1);
  fl::buffer<fl::slot_id, space> slots(static_cast<index_t>(copies.size()));
  fl::min_max_waves const rule{};
  std::size_t const bytes = std::max({fl::gather_load{}.workspace_bytes(on, experts), rule.batch_workspace_bytes(1, ranks, experts, columns),
                                      fl::copy_slots{}.workspace_bytes(on, experts, columns)});
  fl::arena<space> memory(bytes);
  fl::workspace ws = memory.view();
  fl::matrix_view<fl::count_t> const gathered(load.data(), ranks, experts);
  fl::gather_load{}.gather(on, comm, mine.span(), gathered, ws);
  fl::sum_over_ranks(on, gathered, totals.span());
  rule.solve_batch(on, table.view(), {totals.data(), 1, experts}, {shares.data(), 1, columns}, report.span(), ws);
  fl::route_staircase(on, table.view(), gathered, shares.span(), true, {schedule.data(), ranks, columns});
  std::span<fl::count_t const> const row(schedule.data() + comm.rank() * columns, static_cast<std::size_t>(columns));
  fl::copy_slots{}.assign(on, mine.span(), {}, table.view(), row, slots.span(), ws);
  path_outcome result{download(on, load), download(on, shares), download(on, schedule), download(on, slots)};
  comm.barrier();
  return result;
}

}  // namespace

TEST_CASE("ranks on devices gather their counts and end with the slots that ranks on the host find", "[cuda]") {
  FAIRLEAD_NEEDS_DEVICES(4);
  auto const where = any_placement(4, 20, 16, 400);
  fl::inproc::world world(4);
  auto const expected = world.run([&](fl::inproc::communicator comm) { return run_path(fl::serial{}, comm, where); });
  std::vector<path_outcome> found(4);
  fl::nccl::run_ranks(4, [&](fl::nccl::communicator& comm, int rank) {
    fl::cuda_stream_owner const stream;
    found[static_cast<std::size_t>(rank)] = run_path(stream.get(), comm, where);
  });
  for (std::size_t rank = 0; rank < 4; ++rank) {
    INFO("rank " << rank);
    REQUIRE(found[rank] == expected[rank]);
    REQUIRE(found[rank].schedule == found[0].schedule);
    REQUIRE(fl::conserves({found[rank].load.data(), 4, 20}, where, {found[rank].schedule.data(), 4, where.replicas()}));
  }
  REQUIRE(std::count(expected[0].slots.begin(), expected[0].slots.end(), fl::slot_id::none) < 40);
  REQUIRE(expected[1].slots.empty());
}

TEST_CASE("the token map of a rerouting is the host's on a device, in both orders", "[cuda]") {
  FAIRLEAD_NEEDS_DEVICES(1);
  fl::cuda_stream const on;
  index_t const ranks = 8, experts = 40, me = 2;
  std::vector<fl::expert_id> slots(static_cast<std::size_t>(experts));
  for (std::size_t e = 0; e < slots.size(); ++e) { slots[e] = static_cast<fl::expert_id>(e); }
  std::vector<index_t> offsets;
  for (index_t r = 0; r <= ranks; ++r) { offsets.push_back(r * experts / ranks); }
  fl::placement const where(experts, offsets, slots);
  auto const counts = any_load(ranks, experts, 30, 100);
  fl::load_view const load(counts.data(), ranks, experts);
  std::vector<index_t> totals(static_cast<std::size_t>(experts));
  fl::sum_over_ranks(load, totals);
  fl::least_loaded<fl::ceil_capacity, fl::always_reroute> const planner{};
  fl::rerouting_memory room(experts, ranks);
  fl::rerouting plan = room.view();
  fl::arena<> scratch(std::max(planner.workspace_bytes(experts, ranks), fl::rerouting_map_bytes(experts, ranks)));
  fl::workspace host = scratch.view();
  REQUIRE(planner.plan(totals, where, plan, host).status == fl::status::ok);
  REQUIRE(plan.transfer_count > 3);
  std::vector<fl::expert_id> copies;
  for (index_t e = 0; e < experts; ++e) {
    copies.insert(copies.end(), static_cast<std::size_t>(load(me, e)), static_cast<fl::expert_id>(e));
    if (e % 7 == 0) { copies.push_back(fl::expert_id::none); }
  }
  for (std::size_t i = copies.size(); i > 1; --i) { std::swap(copies[i - 1], copies[static_cast<std::size_t>(below(static_cast<index_t>(i), 101, i))]); }
  for (auto const order : {fl::position_order::source_rank_order, fl::position_order::recipient_local_first}) {
    auto const most = static_cast<std::size_t>(fl::rerouting::most_segments(experts, ranks));
    std::vector<std::int32_t> first(static_cast<std::size_t>(experts) + 1), to(most), expected(copies.size()), dealt(static_cast<std::size_t>(experts));
    std::vector<fl::count_t> ends(most);
    fl::copy_pieces const pieces{first, ends, to};
    fl::pieces_of(plan, load, static_cast<fl::rank_id>(me), order, pieces, host);
    fl::deal_copies(copies, pieces, expected, dealt);
    auto device_first = upload(on, first);
    auto device_ends = upload(on, ends);
    auto device_to = upload(on, to);
    auto const device_copies = upload(on, copies);
    fl::buffer<std::int32_t, fl::device_space> found(static_cast<index_t>(copies.size()));
    fl::arena<fl::device_space> memory(fl::kernels::deal_copies_bytes(experts, on.concurrency()));
    fl::workspace ws = memory.view();
    fl::deal_copies(on, device_copies.span(), {device_first.span(), device_ends.span(), device_to.span()}, found.span(), ws);
    REQUIRE(download(on, found) == expected);
    REQUIRE(std::count(expected.begin(), expected.end(), -1) == 6);
    REQUIRE(std::count(expected.begin(), expected.end(), static_cast<std::int32_t>(me)) < static_cast<std::ptrdiff_t>(copies.size()));
  }
}
