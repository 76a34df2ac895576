// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Communicators that break one promise each: the law kit must find it.
#include <fairlead/comm/inproc.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/laws/communicator.hpp>

#include <algorithm>
#include <string>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

namespace {

struct done {
  void wait() {}
};

// Everything right, as far as a test communicator has it; the violators derive from it and hide one member.
struct honest {
  using memory_space = fl::host_space;
  fl::inproc::communicator inner;
  [[nodiscard]] index_t rank() const { return inner.rank(); }
  [[nodiscard]] index_t size() const { return inner.size(); }
  void barrier() const { inner.barrier(); }
};

struct drops_last_element : honest {
  template <class Value>
  done all_to_all_v(fl::serial const& on, Value const* send, std::span<index_t const> out, Value* receive,
                    std::span<index_t const> in) const {
    auto const last = static_cast<std::size_t>(in.back());
    Value const before = in.back() > in.front() ? receive[last - 1] : Value{};
    inner.all_to_all_v(on, send, out, receive, in).wait();
    if (in.back() > in.front()) { receive[last - 1] = before; }
    return {};
  }
};
struct writes_past_the_end : honest {
  template <class Value>
  done all_to_all_v(fl::serial const& on, Value const* send, std::span<index_t const> out, Value* receive,
                    std::span<index_t const> in) const {
    inner.all_to_all_v(on, send, out, receive, in).wait();
    receive[in.back()] = Value{};
    return {};
  }
};
struct swaps_two_sources : honest {
  template <class Value>
  done all_gather(fl::serial const& on, std::span<Value const> send, std::span<Value> receive) const {
    inner.all_gather(on, send, receive).wait();
    auto const n = static_cast<std::ptrdiff_t>(send.size());
    std::swap_ranges(receive.begin(), receive.begin() + n, receive.begin() + n);
    return {};
  }
};
template <bool ClaimsOrder>
struct adds_backwards : honest {
  template <class Value>
  done all_reduce(fl::serial const& on, std::span<Value> values, fl::reduction op) const {
    std::vector<Value> all(values.size() * static_cast<std::size_t>(size()));
    inner.all_gather(on, values, std::span<Value>(all)).wait();
    for (std::size_t i = 0; i < values.size(); ++i) {
      auto rank = static_cast<std::size_t>(size()) - 1;
      values[i] = all[rank * values.size() + i];
      while (rank-- > 0) {
        Value const next = all[rank * values.size() + i];
        values[i] = op == fl::reduction::sum       ? static_cast<Value>(values[i] + next)
                    : op == fl::reduction::maximum ? std::max(values[i], next)
                                                   : std::min(values[i], next);
      }
    }
    return {};
  }
};
struct differs_on_one_rank : honest {
  template <class Value>
  done all_reduce(fl::serial const& on, std::span<Value> values, fl::reduction op) const {
    // Within rounding, but its own order on the last rank: bits differ between ranks.
    rank() + 1 == size() ? adds_backwards<false>{inner}.all_reduce(on, values, op)
                         : (forwards(on, values, op), done{});
    return {};
  }
  template <class Value>
  done all_gather(fl::serial const& on, std::span<Value const> send, std::span<Value> receive) const {
    inner.all_gather(on, send, receive).wait();
    return {};
  }
  template <class Value>
  void forwards(fl::serial const& on, std::span<Value> values, fl::reduction op) const {
    std::vector<Value> all(values.size() * static_cast<std::size_t>(size()));
    inner.all_gather(on, values, std::span<Value>(all)).wait();
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = all[i];
      for (std::size_t r = 1; r < static_cast<std::size_t>(size()); ++r) {
        Value const next = all[r * values.size() + i];
        values[i] = op == fl::reduction::sum       ? static_cast<Value>(values[i] + next)
                    : op == fl::reduction::maximum ? std::max(values[i], next)
                                                   : std::min(values[i], next);
      }
    }
  }
};
struct scatters_the_neighbours_part : honest {
  template <class Value>
  done reduce_scatter(fl::serial const& on, std::span<Value const> send, std::span<Value> receive,
                      fl::reduction op) const {
    std::vector<Value> turned(send.begin(), send.end());
    std::rotate(turned.begin(), turned.begin() + static_cast<std::ptrdiff_t>(receive.size()), turned.end());
    inner.reduce_scatter(on, turned, receive, op).wait();
    return {};
  }
};
struct always_root_zero : honest {
  template <class Value>
  done broadcast(fl::serial const& on, std::span<Value> values, index_t) const {
    inner.broadcast(on, values, 0).wait();
    return {};
  }
};
struct garbles_messages : honest {
  template <class Value>
  auto send(fl::serial const& on, std::span<Value const> values, index_t to) const { return inner.send(on, values, to); }
  struct receiving {
    fl::inproc::operation inner;
    void* first;
    void wait() {
      inner.wait();
      if (first != nullptr) { *static_cast<unsigned char*>(first) ^= 1U; }
    }
  };
  template <class Value>
  auto receive(fl::serial const& on, std::span<Value> values, index_t from) const {
    return receiving{inner.receive(on, values, from), values.empty() ? nullptr : values.data()};
  }
};

template <class Comm>
std::string reason(index_t ranks = 3) {
  fl::inproc::world world{ranks};
  auto const reasons = world.run([](fl::inproc::communicator inner) {
    Comm comm{{inner}};
    return fl::laws::check_communicator(comm, fl::serial{}, {.seed = 3, .longest = 64}).reason();
  });
  for (auto const& each : reasons) {
    if (!each.empty()) { return each; }
  }
  return "holds";
}

}  // namespace

FAIRLEAD_NAMESPACE_BEGIN
template <>
inline constexpr bool reduces_in_rank_order<adds_backwards<true>> = true;
FAIRLEAD_NAMESPACE_END

TEST_CASE("the law kit finds a communicator that loses or spills elements") {
  CHECK_THAT(reason<drops_last_element>(), Catch::Contains("all_to_all_v delivers every message to its place"));
  CHECK_THAT(reason<writes_past_the_end>(), Catch::Contains("all_to_all_v delivers every message to its place"));
  CHECK_THAT(reason<swaps_two_sources>(), Catch::Contains("all_gather holds everybody's elements in rank order"));
  CHECK_THAT(reason<scatters_the_neighbours_part>(), Catch::Contains("reduce_scatter leaves the reduction of part r"));
  CHECK_THAT(reason<always_root_zero>(), Catch::Contains("broadcast gives everybody the root's values"));
  CHECK_THAT(reason<garbles_messages>(), Catch::Contains("messages between two ranks arrive whole and in order"));
}

TEST_CASE("the law kit finds sums in another order only where rank order is claimed") {
  CHECK_THAT(reason<adds_backwards<true>>(), Catch::Contains("all_reduce gives the reduction in rank order"));
  CHECK(reason<adds_backwards<false>>() == "holds");
}

TEST_CASE("the law kit finds sums whose bits differ between ranks") {
  CHECK_THAT(reason<differs_on_one_rank>(), Catch::Contains("all_reduce gives every rank the same bits"));
}

TEST_CASE("the law kit holds for a communicator that has no collectives") { CHECK(reason<honest>() == "holds"); }
