// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/comm/alone.hpp>
#include <fairlead/comm/counted.hpp>
#include <fairlead/comm/inproc.hpp>
#include <fairlead/comm/throttled.hpp>
#include <fairlead/comm/traced.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/laws/communicator.hpp>

#include <cmath>
#include <memory>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::collective;
using fl::index_t;

static_assert(fl::reduces_in_rank_order<fl::counted<fl::inproc::communicator>>);
static_assert(fl::reduces_in_rank_order<fl::throttled<fl::traced<fl::inproc::communicator>>>);

TEST_CASE("counted, throttled and traced keep the laws of a communicator") {
  for (index_t const ranks : {1, 3, 4}) {
    fl::inproc::world world{ranks};
    auto const verdicts = world.run([](fl::inproc::communicator comm) {
      fl::counted counted(comm);
      fl::throttled throttled(counted, {});
      fl::traced traced(throttled);
      return fl::laws::check_communicator(traced, fl::serial{}, {.seed = 9});
    });
    for (auto const& verdict : verdicts) {
      INFO(verdict);
      CHECK(verdict);
    }
  }
}

TEST_CASE("counted counts what leaves a rank and what arrives, by collective, without its messages to itself") {
  fl::serial const on;
  fl::inproc::world world{4};
  auto const good = world.run([&](fl::inproc::communicator plain) {
    fl::counted comm(plain);
    index_t const me = comm.rank();
    // Rank r sends r + s elements to rank s.
    std::vector<index_t> out{0}, in{0};
    for (index_t s = 0; s < 4; ++s) {
      out.push_back(out.back() + me + s);
      in.push_back(in.back() + me + s);
    }
    std::vector<double> a(40), b(40);
    comm.all_to_all_v(on, a.data(), out, b.data(), in).wait();
    index_t const others = 4 * me + 6 - 2 * me;
    index_t const messages = 3;  // the one empty message is rank 0's to itself
    bool ok = comm.counters().of(collective::all_to_all_v) ==
              fl::traffic{messages, others * 8, messages, others * 8};

    comm.all_gather(on, std::span<double>(a).first(3), std::span<double>(b).first(12)).wait();
    ok = ok && comm.counters().of(collective::all_gather) == fl::traffic{3, 72, 3, 72};

    std::vector<float> eight(8);
    comm.all_reduce(on, std::span<float>(eight), fl::reduction::sum).wait();  // parts of two: 6 out, then 2 to each of 3
    ok = ok && comm.counters().of(collective::all_reduce) == fl::traffic{6, 48, 6, 48};

    std::vector<float> two(2);
    comm.reduce_scatter(on, eight, std::span<float>(two), fl::reduction::sum).wait();
    ok = ok && comm.counters().of(collective::reduce_scatter) == fl::traffic{3, 24, 3, 24};

    comm.broadcast(on, std::span<float>(eight), 2).wait();
    ok = ok && comm.counters().of(collective::broadcast) ==
                   (me == 2 ? fl::traffic{3, 96, 0, 0} : fl::traffic{0, 0, 1, 32});

    if (me == 0) { comm.send(on, std::span<float>(two), 1).wait(); }
    if (me == 1) { comm.receive(on, std::span<float>(two), 0).wait(); }
    ok = ok && comm.counters().of(collective::send) == (me == 0 ? fl::traffic{1, 8, 0, 0} : fl::traffic{});
    ok = ok && comm.counters().of(collective::receive) == (me == 1 ? fl::traffic{0, 0, 1, 8} : fl::traffic{});

    comm.all_gather(on, std::span<double>(a).first(0), std::span<double>(b).first(0)).wait();
    ok = ok && comm.counters().calls(collective::all_gather) == 2;
    ok = ok && comm.counters().of(collective::all_gather).messages_out == 3;  // empty messages do not count

    auto copy = comm;  // a copy counts into the same counters
    copy.barrier();
    ok = ok && comm.counters().calls(collective::barrier) == 1;
    index_t const total = others * 8 + 72 + 48 + 24 + (me == 2 ? 96 : 0) + (me == 0 ? 8 : 0);
    ok = ok && comm.counters().total().bytes_out == total;
    comm.counters().reset();
    return ok && comm.counters().total() == fl::traffic{} && comm.counters().calls(collective::barrier) == 0;
  });
  CHECK(good == std::vector<bool>(4, true));
}

TEST_CASE("the parts of a reduction cover all elements and differ by at most one") {
  for (index_t const ranks : {1, 2, 3, 8}) {
    for (index_t const count : {0, 1, 7, 8, 1000}) {
      CHECK(fl::part_begin(count, ranks, 0) == 0);
      CHECK(fl::part_begin(count, ranks, ranks) == count);
      for (index_t r = 0; r < ranks; ++r) {
        index_t const length = fl::part_begin(count, ranks, r + 1) - fl::part_begin(count, ranks, r);
        CHECK((length == count / ranks || length == count / ranks + 1));
      }
    }
  }
}

namespace {

// Time that passes only when somebody computes or sleeps.
struct fake_clock {
  struct state {
    double now = 100.0;
    double slept = 0.0;
  };
  std::shared_ptr<state> time = std::make_shared<state>();
  [[nodiscard]] double now_s() const noexcept { return time->now; }
  void sleep_until_s(double then) const noexcept {
    time->slept += then - time->now;
    time->now = then;
  }
  void compute(double seconds) const noexcept { time->now += seconds; }
};
static_assert(fl::throttle_clock<fake_clock>);

struct timed {
  double now, slept;
};

}  // namespace

TEST_CASE("throttled: computing between start and wait hides the delay, and the link serves one operation at a time") {
  fl::serial const on;
  fl::inproc::world world{2};
  fl::link_delay const delay{.alpha_s = 1.0, .beta_s_per_byte = 0.5};  // 4 bytes to one peer: 1 + 4 / 2 = 3 s
  auto const run = [&](auto&& body) {
    return world.run([&](fl::inproc::communicator plain) {
      fake_clock clock;
      fl::throttled comm(plain, delay, clock);
      std::vector<float> mine{static_cast<float>(plain.rank())}, all(2), again(2);
      auto const gather = [&](std::vector<float>& to) { return comm.all_gather(on, mine, std::span<float>(to)); };
      body(clock, gather, all, again);
      comm.barrier();  // free
      bool const right = all == std::vector<float>{0.0F, 1.0F};
      return timed{right ? clock.time->now - 100.0 : -1.0, clock.time->slept};
    });
  };
  auto const in_order = run([](auto& clock, auto& gather, auto& all, auto&) {
    gather(all).wait();
    clock.compute(2.0);
  });
  auto const overlapped = run([](auto& clock, auto& gather, auto& all, auto&) {
    auto operation = gather(all);
    clock.compute(2.0);
    operation.wait();
  });
  auto const hidden = run([](auto& clock, auto& gather, auto& all, auto&) {
    auto operation = gather(all);
    clock.compute(5.0);
    operation.wait();
  });
  auto const queued = run([](auto& clock, auto& gather, auto& all, auto& again) {
    auto first = gather(all);
    auto second = gather(again);
    clock.compute(4.0);
    second.wait();
    first.wait();
  });
  auto const idle_link = run([](auto& clock, auto& gather, auto& all, auto& again) {
    gather(all).wait();
    clock.compute(10.0);
    gather(again).wait();
  });
  for (std::size_t r = 0; r < 2; ++r) {
    CHECK(in_order[r].now == 5.0);
    CHECK(in_order[r].slept == 3.0);
    CHECK(overlapped[r].now == 3.0);
    CHECK(overlapped[r].slept == 1.0);
    CHECK(hidden[r].now == 5.0);
    CHECK(hidden[r].slept == 0.0);
    CHECK(queued[r].now == 6.0);
    CHECK(queued[r].slept == 2.0);
    CHECK(idle_link[r].now == 16.0);
    CHECK(idle_link[r].slept == 6.0);
  }
  CHECK_THROWS_AS((fl::throttled(fl::alone{}, {.alpha_s = -1.0})), fl::contract_violation);
}

TEST_CASE("traced lists operations in order of starting, with their bytes and ordered times") {
  fl::serial const on;
  fl::inproc::world world{2};
  auto const good = world.run([&](fl::inproc::communicator plain) {
    fl::traced comm(plain);
    std::vector<float> mine(3), all(6);
    auto first = comm.all_gather(on, mine, std::span<float>(all));
    comm.barrier();
    first.wait();
    auto const events = comm.events();
    bool ok = events.size() == 2 && events[0].kind == collective::all_gather &&
              events[1].kind == collective::barrier && events[0].moved == fl::traffic{1, 12, 1, 12};
    ok = ok && events[0].started_s <= events[1].started_s && events[1].ended_s <= events[0].waited_s &&
         events[0].waited_s <= events[0].ended_s;
    comm.clear();
    return ok && comm.events().empty();
  });
  CHECK(good == std::vector<bool>(2, true));
}

TEST_CASE("an operation started before the trace was cleared writes nothing into the new trace") {
  fl::serial const on;
  fl::inproc::world world{2};
  auto const good = world.run([&](fl::inproc::communicator plain) {
    fl::traced comm(plain);
    std::vector<float> mine(3), all(6), again(6);
    auto old = comm.all_gather(on, mine, std::span<float>(all));
    comm.clear();
    auto const fresh = comm.all_gather(on, mine, std::span<float>(again));
    old.wait();
    auto const events = comm.events();
    return events.size() == 1 && events[0].waited_s == 0.0 && events[0].ended_s == 0.0;
  });
  CHECK(good == std::vector<bool>(2, true));
}

TEST_CASE("adaptors refuse offsets of the wrong length before they look at them, and count nothing") {
  fl::serial const on;
  std::vector<double> a(4), b(4);
  std::vector<index_t> const right{0, 1}, longer{0, 1, 2}, none;
  auto const refused = [&](std::vector<index_t> const& out, std::vector<index_t> const& in) {
    fl::counted comm(fl::alone{});
    CHECK_THROWS_AS(comm.all_to_all_v(on, a.data(), out, b.data(), in), fl::contract_violation);
    return comm.counters().calls(collective::all_to_all_v) == 0 && comm.counters().total() == fl::traffic{};
  };
  CHECK(refused(longer, right));
  CHECK(refused(right, longer));
  CHECK(refused(longer, longer));
  CHECK(refused(right, none));
  CHECK(refused(none, right));
}
