// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Dispatch and combine over in-process ranks: plain and deduplicated.
#include <fairlead/comm/counted.hpp>
#include <fairlead/comm/inproc.hpp>
#include <fairlead/dispatch/deduplicated_exchange.hpp>
#include <fairlead/dispatch/exchange.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/place/contiguous.hpp>
#include <fairlead/schedule/sole_replica.hpp>

#include "support/ceilings.hpp"

#include <algorithm>
#include <utility>

namespace fl = fairlead;
using fl::index_t;

namespace {

// One iteration: there and back with all ranks, each with the case's tokens over the number of ranks.
template <class Dispatcher>
void there_and_back(benchmark::State& state, fl_bench::axes::rows_case c, index_t ranks, Dispatcher dispatcher) {
  fl::inproc::world world{ranks};
  index_t const tokens = c.tokens / ranks;
  double bytes = 0.0, seconds = 0.0;
  for (auto _ : state) {
    constexpr int rounds = 4;
    auto const times = world.run([&](fl::inproc::communicator inner) {
      fl::counted<fl::inproc::communicator> comm(inner);
      fl::serial const on;
      auto const where = fl::contiguous_placement{}.initial(ranks, c.experts);
      fl::routing<> routed(tokens, c.fan_out);
      auto const choices = fl_bench::make_choices(tokens, c.experts, c.fan_out, 0.0, static_cast<std::uint64_t>(comm.rank() + 1));
      std::copy(choices.span().begin(), choices.span().end(), routed.view().experts.data());
      std::fill_n(routed.view().weights.data(), tokens * c.fan_out, 0.5F);
      fl::plan_of<Dispatcher, fl::serial> plan;
      fl::wire_of<Dispatcher, fl::serial, float> wire;
      fl::arena<> memory(dispatcher.workspace_bytes(tokens * c.fan_out, c.experts, 1));
      auto ws = memory.view();
      fl::matrix<fl::count_t> gathered(ranks, 2 * c.experts + 1), kept(ranks, c.experts), schedule(ranks, where.replicas());
      fl::matrix<float> in(tokens, c.width), out(tokens, c.width);
      fl::buffer<float> rows;
      double best = 1e30;
      for (int round = 0; round <= rounds; ++round) {
        comm.barrier();
        comm.counters().reset();
        double const now = fl_bench::seconds_of([&] {
          plan.ranks = ranks;
          plan.rank = comm.rank();
          dispatcher.admit(on, std::as_const(routed).view(), {}, c.experts, plan, ws);
          comm.all_gather(on, std::as_const(plan.count_row).span(), gathered.span()).wait();
          dispatcher.limit(std::as_const(gathered).view(), where, c.fan_out, kept.view());
          (void)fl::sole_replica{}.schedule(std::as_const(kept).view(), where, schedule.view(), ws);
          dispatcher.plan(on, comm, std::as_const(routed).view(), where, std::as_const(schedule).view(), plan, ws);
          rows.resize(plan.buffer_rows * c.width);
          auto const view = rows.as_matrix(plan.buffer_rows, c.width);
          auto sent = dispatcher.start_dispatch(on, comm, plan, std::as_const(in).view(), wire);
          dispatcher.finish_dispatch(on, plan, sent, std::as_const(in).view(), wire, view);
          auto returned = dispatcher.start_combine(on, comm, plan, fl::matrix_view<float const>(view), wire);
          dispatcher.finish_combine(on, plan, returned, fl::matrix_view<float const>(view), std::as_const(in).view(), wire, out.view());
        });
        comm.barrier();
        if (round > 0) { best = std::min(best, now); }  // the first round touches fresh pages
      }
      return std::pair{best, static_cast<double>(comm.counters().total().bytes_out)};
    });
    bytes = 0.0;
    seconds = 0.0;
    for (auto const& [time, sent] : times) {
      seconds = std::max(seconds, time);
      bytes += sent;
    }
    state.SetIterationTime(seconds);
  }
  state.counters["wire_bytes"] = benchmark::Counter(bytes, benchmark::Counter::kDefaults, benchmark::Counter::kIs1024);
  state.counters["tokens_per_second"] = static_cast<double>(c.tokens) / seconds;
}

int const registered = [] {
  namespace axes = fl_bench::axes;
  for (auto const& c : axes::rows_cases) {
    if (c.width > 1024) { continue; }
    for (int const ranks : axes::ranks) {
      benchmark::RegisterBenchmark(fl_bench::text_of("dispatch/exchange/", c.name(), "_R", ranks).c_str(), there_and_back<fl::exchange<>>, c, ranks, fl::exchange<>{})->UseManualTime()->Iterations(axes::quick() ? 2 : 5);
      benchmark::RegisterBenchmark(fl_bench::text_of("dispatch/deduplicated_exchange/", c.name(), "_R", ranks).c_str(), there_and_back<fl::deduplicated_exchange<>>, c, ranks, fl::deduplicated_exchange<>{})->UseManualTime()->Iterations(axes::quick() ? 2 : 5);
    }
  }
  return 0;
}();

}  // namespace
