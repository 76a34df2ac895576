// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/comm/alone.hpp>
#include <fairlead/comm/inproc.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/laws/communicator.hpp>

#include <atomic>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

TEST_CASE("inproc keeps the laws of a communicator at 1, 2, 3, 4 and 8 ranks") {
  for (index_t const ranks : {1, 2, 3, 4, 8}) {
    fl::inproc::world world{ranks};
    for (std::uint64_t const seed : {1U, 2U}) {
      auto const verdicts = world.run([&](fl::inproc::communicator comm) {
        return fl::laws::check_communicator(comm, fl::serial{}, {.seed = seed, .longest = 1100});
      });
      REQUIRE(verdicts.size() == static_cast<std::size_t>(ranks));
      for (auto const& verdict : verdicts) {
        INFO(verdict);
        CHECK(verdict);
      }
    }
  }
}

TEST_CASE("alone keeps the laws of a communicator") {
  fl::alone comm;
  auto const verdict = fl::laws::check_communicator(comm, fl::serial{});
  INFO(verdict);
  CHECK(verdict);
  fl::serial const on;
  std::vector<int> one{1};
  CHECK_THROWS_AS(comm.send(on, std::span<int>(one), 1), fl::contract_violation);
  CHECK_THROWS_AS(comm.broadcast(on, std::span<int>(one), 1), fl::contract_violation);
}

TEST_CASE("run returns the results in rank order, also of types without a default") {
  struct answer {
    explicit answer(index_t number) : value(number) {}
    index_t value;
  };
  fl::inproc::world world{5};
  auto const answers = world.run([](fl::inproc::communicator comm) { return answer(10 * comm.rank() + comm.size()); });
  REQUIRE(answers.size() == 5);
  for (index_t r = 0; r < 5; ++r) { CHECK(answers[static_cast<std::size_t>(r)].value == 10 * r + 5); }
  auto const bits = world.run([](fl::inproc::communicator comm) { return comm.rank() % 2 == 0; });
  CHECK(bits == std::vector<bool>{true, false, true, false, true});
}

TEST_CASE("when one rank throws, ranks blocked in a collective get aborted and run rethrows the cause") {
  fl::inproc::world world{4};
  std::atomic<int> told{0};
  auto const body = [&](fl::inproc::communicator comm) {
    if (comm.rank() == 2) { throw std::runtime_error("rank two is tired"); }
    try {
      comm.barrier();
    } catch (fl::inproc::aborted const&) {
      ++told;
      throw;
    }
  };
  CHECK_THROWS_WITH(world.run(body), "rank two is tired");
  CHECK(told == 3);
  told = 0;
  // The world can be used again.
  auto const sums = world.run([](fl::inproc::communicator comm) {
    std::vector<int> value{1};
    comm.all_reduce(fl::serial{}, std::span<int>(value), fl::reduction::sum).wait();
    return value[0];
  });
  CHECK(sums == std::vector<int>(4, 4));
}

TEST_CASE("when one rank throws, ranks that enter any collective later get aborted") {
  fl::serial const on;
  fl::inproc::world world{3};
  std::atomic<int> told{0};
  auto const expect_aborted = [&](auto&& work) {
    try {
      work();
    } catch (fl::inproc::aborted const&) { ++told; }
  };
  CHECK_THROWS_AS(world.run([&](fl::inproc::communicator comm) {
    if (comm.rank() == 0) { throw std::out_of_range("first"); }
    expect_aborted([&] { comm.barrier(); });  // from here on the world is known to be dead
    std::vector<float> a(6, 1.0F), b(2);
    std::span<float const> const in(b);
    std::vector<index_t> offsets{0, 2, 4, 6};
    std::vector<float> c(6);
    expect_aborted([&] { comm.all_to_all_v(on, a.data(), offsets, c.data(), offsets).wait(); });
    expect_aborted([&] { comm.all_gather(on, in, std::span<float>(c)).wait(); });
    expect_aborted([&] { comm.all_reduce(on, std::span<float>(c), fl::reduction::maximum).wait(); });
    expect_aborted([&] { comm.reduce_scatter(on, a, std::span<float>(b), fl::reduction::sum).wait(); });
    expect_aborted([&] { comm.broadcast(on, std::span<float>(b), 0).wait(); });
    expect_aborted([&] { comm.send(on, in, 0).wait(); });
    expect_aborted([&] { comm.receive(on, std::span<float>(b), 0).wait(); });
  }),
                  std::out_of_range);
  CHECK(told == 16);
}

TEST_CASE("of several ranks that throw on their own account the lowest is rethrown") {
  fl::inproc::world world{4};
  for (int repeat = 0; repeat < 20; ++repeat) {
    std::atomic<int> ready{0};
    CHECK_THROWS_WITH(world.run([&](fl::inproc::communicator comm) {
      ++ready;
      if (comm.rank() == 0) { comm.barrier(); }
      while (ready < 4) { std::this_thread::yield(); }
      throw std::runtime_error("rank " + std::to_string(comm.rank()));
    }),
                      "rank 1");
  }
}

TEST_CASE("an exception between start and wait leaves no peer reading freed memory") {
  fl::serial const on;
  fl::inproc::world world{4};
  for (int repeat = 0; repeat < 50; ++repeat) {
    CHECK_THROWS_WITH(world.run([&](fl::inproc::communicator comm) {
      std::vector<double> send(4096, 1.0), receive(4 * 4096);
      auto operation = comm.all_gather(on, send, std::span<double>(receive));
      if (comm.rank() == repeat % 4) { throw std::runtime_error("in between"); }
      operation.wait();
      comm.barrier();
    }),
                      "in between");
  }
}

TEST_CASE("lengths that do not fit are told to all ranks and corrupt nothing") {
  fl::serial const on;
  fl::inproc::world world{3};
  auto const outcome = world.run([&](fl::inproc::communicator comm) {
    std::vector<int> send(9, 1), receive(9, -1);
    std::vector<index_t> offsets{0, 3, 6, 9};
    // Rank 1 expects two elements of rank 2, which sends three.
    std::vector<index_t> expected = comm.rank() == 1 ? std::vector<index_t>{0, 3, 6, 8} : offsets;
    std::string text;
    try {
      comm.all_to_all_v(on, send.data(), offsets, receive.data(), expected).wait();
    } catch (fl::contract_violation const& error) { text = error.what(); }
    // What rank 1 could not fit it did not touch, and the next operation works.
    bool const untouched = comm.rank() != 1 || receive == std::vector<int>(9, -1);
    std::vector<int> value{1};
    comm.all_reduce(on, std::span<int>(value), fl::reduction::sum).wait();
    return !text.empty() && text.find("[1, 2, 2, 3]") != std::string::npos && untouched && value[0] == 3;
  });
  CHECK(outcome == std::vector<bool>(3, true));
}

TEST_CASE("different collectives, roots, types and reductions are told to all ranks") {
  fl::serial const on;
  fl::inproc::world world{3};
  auto const caught = world.run([&](fl::inproc::communicator comm) {
    bool const odd = comm.rank() == 1;
    std::vector<float> f(3);
    std::vector<double> d(3);
    std::vector<int> i(3);
    int count = 0;
    auto const expect_violation = [&](auto&& work) {
      try {
        work();
      } catch (fl::contract_violation const&) { ++count; }
    };
    expect_violation([&] { odd ? comm.barrier() : comm.broadcast(on, std::span<float>(f), 0).wait(); });
    expect_violation([&] { comm.broadcast(on, std::span<float>(f), odd ? 1 : 0).wait(); });
    expect_violation([&] {
      odd ? comm.all_reduce(on, std::span<double>(d), fl::reduction::sum).wait()
          : comm.all_reduce(on, std::span<float>(f), fl::reduction::sum).wait();
    });
    expect_violation([&] {
      odd ? comm.all_reduce(on, std::span<int>(i), fl::reduction::sum).wait()
          : comm.all_reduce(on, std::span<float>(f), fl::reduction::sum).wait();
    });
    expect_violation([&] {
      comm.all_reduce(on, std::span<float>(f), odd ? fl::reduction::maximum : fl::reduction::sum).wait();
    });
    expect_violation([&] {
      comm.all_reduce(on, std::span<float>(f).first(odd ? 2 : 3), fl::reduction::sum).wait();
    });
    expect_violation([&] {
      odd ? comm.all_reduce(on, std::span<float>(f), fl::reduction::sum).wait()
          : comm.all_gather(on, std::span<float const>(f).first(1), std::span<float>(f = {1, 2, 3})).wait();
    });
    comm.barrier();
    return count;
  });
  CHECK(caught == std::vector<int>(3, 7));
}

TEST_CASE("a message of another length than expected is told to sender and receiver") {
  fl::serial const on;
  fl::inproc::world world{2};
  auto const caught = world.run([&](fl::inproc::communicator comm) {
    std::vector<int> values(4, static_cast<int>(comm.rank()));
    try {
      if (comm.rank() == 0) {
        comm.send(on, std::span<int>(values), 1).wait();
      } else {
        comm.receive(on, std::span<int>(values).first(3), 0).wait();
      }
    } catch (fl::contract_violation const&) { return values == std::vector<int>(4, static_cast<int>(comm.rank())); }
    return false;
  });
  CHECK(caught == std::vector<bool>(2, true));
}

TEST_CASE("bad shapes of one rank are refused when the operation starts") {
  fl::serial const on;
  fl::inproc::world world{1};
  world.run([&](fl::inproc::communicator) {});
  auto const caught = world.run([&](fl::inproc::communicator comm) {
    int count = 0;
    auto const expect_violation = [&](auto&& work) {
      try {
        work();
      } catch (fl::contract_violation const&) { ++count; }
    };
    std::vector<int> a(4), b(3);
    std::vector<index_t> good{0, 4}, long_one{0, 2, 4}, falling{4, 0};
    expect_violation([&] { comm.all_gather(on, a, std::span<int>(b)); });
    expect_violation([&] { comm.reduce_scatter(on, a, std::span<int>(b), fl::reduction::sum); });
    expect_violation([&] { comm.broadcast(on, std::span<int>(a), 1); });
    expect_violation([&] { comm.send(on, std::span<int>(a), -1); });
    expect_violation([&] { comm.receive(on, std::span<int>(a), 1); });
    expect_violation([&] { comm.all_to_all_v(on, a.data(), long_one, a.data(), good); });
    expect_violation([&] { comm.all_to_all_v(on, a.data(), falling, a.data(), good); });
    expect_violation([&] { comm.all_to_all_v(on, static_cast<int*>(nullptr), good, a.data(), good); });
    return count;
  });
  CHECK(caught == std::vector<int>{8});
  CHECK_THROWS_AS(fl::inproc::world(0), fl::contract_violation);
}

TEST_CASE("a rank that throws does not wait for the operations it holds, whatever the others wait for") {
  fl::serial const on;
  fl::inproc::world world{2};
  enum class held { send, receive, collective, in_a_vector };
  for (held const kind : {held::send, held::receive, held::collective, held::in_a_vector}) {
    for (index_t const thrower : {0, 1}) {
      CHECK_THROWS_WITH(world.run([&](fl::inproc::communicator comm) {
        std::vector<int> value{1}, other{2};
        index_t const peer = 1 - comm.rank();
        if (comm.rank() == thrower) {
          auto const start = [&] {
            if (kind == held::send) { return comm.send(on, std::span<int>(value), peer); }
            if (kind == held::collective) { return comm.all_reduce(on, std::span<int>(value), fl::reduction::sum); }
            return comm.receive(on, std::span<int>(value), peer);
          };
          auto operation = start();
          std::vector<fl::inproc::operation> more;
          if (kind == held::in_a_vector) { more.push_back(std::move(operation)); }
          throw std::runtime_error("this rank gives up");
        }
        if (kind == held::collective) {
          comm.receive(on, std::span<int>(other), peer).wait();
        } else {
          comm.barrier();
        }
        if (kind == held::send) { comm.receive(on, std::span<int>(other), peer).wait(); }
        if (kind == held::receive) { comm.send(on, std::span<int>(other), peer).wait(); }
      }),
                        "this rank gives up");
    }
  }
  auto const sizes = world.run([](fl::inproc::communicator comm) {  // the world is whole
    comm.barrier();
    return comm.size();
  });
  CHECK(sizes == std::vector<index_t>{2, 2});
}

TEST_CASE("operations started and waited for while another exception is on its way are ordinary ones") {
  fl::inproc::world world{2};
  struct sums_when_destroyed {
    fl::inproc::communicator comm;
    int& value;
    ~sums_when_destroyed() {
      auto const operation = comm.all_reduce(fl::serial{}, std::span<int>(&value, 1), fl::reduction::sum);
    }
  };
  auto const sums = world.run([&](fl::inproc::communicator comm) {
    int value = static_cast<int>(comm.rank()) + 1;
    try {
      sums_when_destroyed const last{comm, value};
      throw std::runtime_error("on all ranks");
    } catch (std::runtime_error const&) {}
    comm.barrier();
    return value;
  });
  CHECK(sums == std::vector<int>{3, 3});
}

TEST_CASE("a rank that leaves without a collective that others wait for is an error, not a hang") {
  fl::serial const on;
  fl::inproc::world world{3};
  CHECK_THROWS_AS(world.run([&](fl::inproc::communicator comm) {
    if (comm.rank() != 1) { comm.barrier(); }
  }),
                  fl::contract_violation);
  CHECK_THROWS_AS(world.run([&](fl::inproc::communicator comm) {
    std::vector<int> value{1};
    if (comm.rank() == 0) { comm.send(on, std::span<int>(value), 1).wait(); }
  }),
                  fl::contract_violation);
  CHECK_THROWS_AS(world.run([&](fl::inproc::communicator comm) {
    std::vector<int> value{1};
    if (comm.rank() == 0) { comm.receive(on, std::span<int>(value), 1).wait(); }
  }),
                  fl::contract_violation);
}

TEST_CASE("many operations of all kinds are in flight and each rank waits in its own order") {
  fl::serial const on;
  for (index_t const ranks : {2, 5}) {
    fl::inproc::world world{ranks};
    auto const errors = world.run([&](fl::inproc::communicator comm) {
      auto const n = static_cast<std::size_t>(comm.size());
      int wrong = 0;
      for (int round = 0; round < 30; ++round) {
        constexpr std::size_t kinds = 12;
        std::vector<std::vector<std::int64_t>> values(kinds, std::vector<std::int64_t>(n));
        std::vector<std::vector<std::int64_t>> results(kinds, std::vector<std::int64_t>(n));
        std::vector<fl::inproc::operation> operations;
        std::vector<index_t> offsets(n + 1);
        std::iota(offsets.begin(), offsets.end(), 0);
        for (std::size_t k = 0; k < kinds; ++k) {
          for (std::size_t i = 0; i < n; ++i) {
            values[k][i] = comm.rank() * 1000 + static_cast<index_t>(k * 10 + i) + round;
          }
          switch (k % 3) {
            case 0:
              operations.push_back(comm.all_to_all_v(on, values[k].data(), offsets, results[k].data(), offsets));
              break;
            case 1:
              results[k] = values[k];
              operations.push_back(comm.all_reduce(on, std::span(results[k]), fl::reduction::sum));
              break;
            default:
              operations.push_back(
                  comm.all_gather(on, std::span(values[k]).first(1), std::span<std::int64_t>(results[k])));
          }
        }
        for (std::size_t k = 0; k < kinds; ++k) {  // 5 and 7 are coprime to 12
          std::size_t const turn = comm.rank() % 2 == 0 ? (k * 5 + 3) % kinds : (k * 7 + 1) % kinds;
          operations[turn].wait();
        }
        for (std::size_t k = 0; k < kinds; ++k) {
          for (std::size_t i = 0; i < n; ++i) {
            std::int64_t const base = static_cast<index_t>(k * 10) + round;
            auto const me = comm.rank();
            auto const peer = static_cast<index_t>(i);
            std::int64_t const sum = comm.size() * (base + peer) + 1000 * comm.size() * (comm.size() - 1) / 2;
            std::int64_t const wanted = k % 3 == 0 ? peer * 1000 + base + me : k % 3 == 1 ? sum : peer * 1000 + base;
            wrong += results[k][i] != wanted ? 1 : 0;
          }
        }
      }
      return wrong;
    });
    CHECK(errors == std::vector<int>(static_cast<std::size_t>(ranks), 0));
  }
}

TEST_CASE("operations wait in their destructor, may be moved, and may be waited for twice") {
  fl::serial const on;
  fl::inproc::world world{3};
  auto const sums = world.run([&](fl::inproc::communicator comm) {
    std::vector<int> a{1}, b{2}, c{3};
    {
      auto first = comm.all_reduce(on, std::span<int>(a), fl::reduction::sum);
      auto second = comm.all_reduce(on, std::span<int>(b), fl::reduction::sum);
      auto third = std::move(second);
      third = comm.all_reduce(on, std::span<int>(c), fl::reduction::sum);
      third.wait();
      third.wait();
    }
    return a[0] * 10000 + b[0] * 100 + c[0];
  });
  CHECK(sums == std::vector<int>(3, 30609));
}

TEST_CASE("the limit of operations in flight is an error and not a hang") {
  fl::serial const on;
  fl::inproc::world world{2, 2};
  auto const refused = world.run([&](fl::inproc::communicator comm) {
    std::vector<int> a{1}, b{1}, c{1};
    auto first = comm.all_reduce(on, std::span<int>(a), fl::reduction::sum);
    auto second = comm.all_reduce(on, std::span<int>(b), fl::reduction::sum);
    bool caught = false;
    try {
      auto third = comm.all_reduce(on, std::span<int>(c), fl::reduction::sum);
    } catch (fl::contract_violation const&) { caught = true; }
    first.wait();
    second.wait();
    for (int repeat = 0; repeat < 100; ++repeat) { comm.barrier(); }  // slots are used again
    auto fourth = comm.all_reduce(on, std::span<int>(c), fl::reduction::sum);
    fourth.wait();
    return caught && a[0] == 2 && c[0] == 2;
  });
  CHECK(refused == std::vector<bool>(2, true));
}

TEST_CASE("more messages than a channel holds arrive in order, also to oneself") {
  fl::serial const on;
  fl::inproc::world world{2};
  auto const good = world.run([&](fl::inproc::communicator comm) {
    std::vector<int> out(100), in(100, -1);
    std::iota(out.begin(), out.end(), static_cast<int>(comm.rank()) * 1000);
    std::vector<fl::inproc::operation> operations;
    index_t const peer = 1 - comm.rank();
    if (comm.rank() == 0) {
      for (std::size_t i = 0; i < 100; ++i) { operations.push_back(comm.send(on, std::span(out).subspan(i, 1), peer)); }
    } else {
      for (std::size_t i = 0; i < 100; ++i) {
        operations.push_back(comm.receive(on, std::span(in).subspan(i, 1), peer));
      }
    }
    for (auto& operation : operations) { operation.wait(); }
    int self = 0;
    int const sent = 7;
    auto sending = comm.send(on, std::span<int const>(&sent, 1), comm.rank());
    comm.receive(on, std::span<int>(&self, 1), comm.rank()).wait();
    sending.wait();
    bool whole = self == 7;
    for (int i = 0; i < 100 && comm.rank() == 1; ++i) { whole = whole && in[static_cast<std::size_t>(i)] == i; }
    return whole;
  });
  CHECK(good == std::vector<bool>(2, true));
}

TEST_CASE("a maximum keeps a NaN of any rank") {
  fl::inproc::world world{3};
  for (index_t bad = 0; bad < 3; ++bad) {
    auto const kept = world.run([&](fl::inproc::communicator comm) {
      std::vector<double> value{comm.rank() == bad ? std::numeric_limits<double>::quiet_NaN() : 1.0, 5.0};
      comm.all_reduce(fl::serial{}, std::span<double>(value), fl::reduction::maximum).wait();
      return value[0] != value[0] && value[1] == 5.0;
    });
    CHECK(kept == std::vector<bool>(3, true));
  }
}

TEST_CASE("all_gather may gather in place") {
  fl::inproc::world world{4};
  auto const good = world.run([&](fl::inproc::communicator comm) {
    std::vector<index_t> all(8, -1);
    auto const mine = std::span(all).subspan(static_cast<std::size_t>(2 * comm.rank()), 2);
    mine[0] = comm.rank();
    mine[1] = comm.rank() + 100;
    comm.all_gather(fl::serial{}, mine, std::span<index_t>(all)).wait();
    return all == std::vector<index_t>{0, 100, 1, 101, 2, 102, 3, 103};
  });
  CHECK(good == std::vector<bool>(4, true));
}

TEST_CASE("more ranks than cores make progress") {
  fl::inproc::world world{48};
  auto const sums = world.run([&](fl::inproc::communicator comm) {
    index_t sum = 0;
    for (int repeat = 0; repeat < 5; ++repeat) {
      index_t value = comm.rank();
      comm.all_reduce(fl::serial{}, std::span<index_t>(&value, 1), fl::reduction::sum).wait();
      sum += value;
    }
    return sum;
  });
  CHECK(sums == std::vector<index_t>(48, 5 * 48 * 47 / 2));
}
