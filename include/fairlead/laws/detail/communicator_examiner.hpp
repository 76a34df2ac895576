// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The checks behind `laws::check_communicator`.
#include <fairlead/concepts/communicator.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/laws/verdict.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {
namespace detail {

// Every rank runs the same collectives whatever it has found: a rank that stopped early would hang the others.
template <class Comm, class Backend>
class communicator_examiner {
 public:
  communicator_examiner(Comm& comm, Backend const& on, std::uint64_t seed, index_t longest)
      : comm_(comm), on_(on), seed_(seed), longest_(longest) {}

  verdict examine() {
    if (comm_.size() < 1 || comm_.rank() < 0 || comm_.rank() >= comm_.size()) {
      return verdict::broken("rank() must lie in [0, size()): rank ", index_t{comm_.rank()}, ", size ",
                             index_t{comm_.size()});
    }
    ranks_ = comm_.size();
    rank_ = comm_.rank();
    examine_as<std::int32_t>("int32");
    examine_as<std::int64_t>("int64");
    examine_as<float>("float");
    examine_as<double>("double");
    comm_.barrier();
    return result_;
  }

 private:
  template <class Value>
  using array = buffer<Value, typename Comm::memory_space>;

  template <class Value>
  void examine_as(char const* name) {
    type_ = name;
    if constexpr (has_all_to_all_v<Comm, Value, Backend>) {
      for (int round = 0; round < 5; ++round) { one_all_to_all<Value>(round); }
      two_in_flight<Value>();
    }
    if constexpr (has_all_gather<Comm, Value, Backend>) {
      for (index_t const length : lengths()) { check_all_gather<Value>(length); }
    }
    if constexpr (has_all_reduce<Comm, Value, Backend>) {
      for (reduction const op : {reduction::sum, reduction::maximum, reduction::minimum}) {
        for (index_t const length : lengths()) { check_all_reduce<Value>(length, op); }
      }
      two_reductions_in_flight<Value>();
    }
    if constexpr (has_reduce_scatter<Comm, Value, Backend>) {
      for (reduction const op : {reduction::sum, reduction::maximum, reduction::minimum}) {
        for (index_t const length : lengths()) { check_reduce_scatter<Value>(length, op); }
      }
    }
    if constexpr (has_broadcast<Comm, Value, Backend>) {
      for (index_t root = 0; root < ranks_; ++root) {
        for (index_t const length : lengths()) { check_broadcast<Value>(length, root); }
      }
    }
    if constexpr (has_point_to_point<Comm, Value, Backend>) {
      if (ranks_ > 1) { check_ring<Value>(); }
    }
  }

  // --- inputs, which every rank can compute for every rank

  [[nodiscard]] std::array<index_t, 5> lengths() const { return {0, 1, 2, ranks_ + 1, longest_}; }
  [[nodiscard]] std::uint32_t word(index_t from, index_t to, index_t i, std::uint64_t stream) const {
    std::uint64_t const index = (static_cast<std::uint64_t>(from) << 48U) ^ (static_cast<std::uint64_t>(to) << 32U) ^
                                static_cast<std::uint64_t>(i);
    return philox::draw(seed_, stream, index)[0];
  }
  // Floating point values differ by up to 2^24 in size and alternate in sign: another order of adding shows.
  template <class Value>
  [[nodiscard]] Value value(index_t from, index_t to, index_t i, std::uint64_t stream) const {
    std::uint32_t const bits = word(from, to, i, stream);
    if constexpr (std::integral<Value>) {
      return static_cast<Value>(static_cast<std::int32_t>(bits) / 4096);
    } else {
      double const size = std::ldexp(1.0 + philox::to_uniform(bits), static_cast<int>(bits % 25U) - 12);
      return static_cast<Value>((bits & 256U) != 0 ? size : -size);
    }
  }
  [[nodiscard]] index_t message_length(index_t from, index_t to, int round) const {
    switch (round) {
      case 0: return static_cast<index_t>(word(from, to, 0, 77) % 6U);                             // ragged, some empty
      case 1: return 0;                                                                            // all empty
      case 2: return from == ranks_ - 1 && to == 0 ? longest_ : 0;                                 // one message
      case 3: return from % 2 == 0 ? static_cast<index_t>(word(from, to, 0, 78)) % (longest_ + 1) : 0;  // some silent
      default: return longest_ + from;
    }
  }

  // --- movement of test data to and from the communicator's memory

  template <class Value>
  array<Value> place(std::vector<Value> const& values) {
    array<Value> memory(static_cast<index_t>(values.size()));
    on_.from_host(memory.data(), values.data(), values.size() * sizeof(Value));
    on_.wait();
    return memory;
  }
  template <class Value>
  std::vector<Value> fetch(array<Value> const& memory) {
    on_.wait();
    std::vector<Value> values(static_cast<std::size_t>(memory.size()));
    on_.to_host(values.data(), memory.data(), values.size() * sizeof(Value));
    on_.wait();
    return values;
  }
  template <class Value>
  [[nodiscard]] static bool same_bits(std::span<Value const> a, std::span<Value const> b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
  }
  template <class Value>
  void expect_same(std::vector<Value> const& found, std::vector<Value> const& expected, char const* law,
                   index_t detail) {
    for (std::size_t i = 0; i < expected.size(); ++i) {
      if (!same_bits(std::span<Value const>(&found[i], 1), std::span<Value const>(&expected[i], 1))) {
        return fail(law, detail, i, +found[i], +expected[i]);
      }
    }
  }
  template <class Found, class Expected>
  void fail(char const* law, index_t detail, std::size_t element, Found const& found, Expected const& expected) {
    if (result_) {
      result_ = verdict::broken(law, ": rank ", rank_, " of ", ranks_, ", ", type_, ", case ", detail, ", element ",
                                element, ": found ", found, ", expected ", expected, ", seed ", seed_);
    }
  }

  // --- all_to_all_v

  template <class Value>
  struct exchange_case {
    std::vector<index_t> send_offsets, receive_offsets;
    array<Value> send, receive;
    std::vector<Value> expected;
  };
  template <class Value>
  exchange_case<Value> make_exchange(int round, std::uint64_t stream) {
    constexpr index_t margin = 3;  // nothing may be written around the messages
    exchange_case<Value> made;
    std::vector<Value> sent(static_cast<std::size_t>(margin), Value{-7});
    std::vector<Value> blank(static_cast<std::size_t>(margin), Value{-5});
    made.expected = blank;
    made.send_offsets.push_back(margin);
    made.receive_offsets.push_back(margin);
    for (index_t peer = 0; peer < ranks_; ++peer) {
      for (index_t i = 0; i < message_length(rank_, peer, round); ++i) {
        sent.push_back(value<Value>(rank_, peer, i, stream));
      }
      for (index_t i = 0; i < message_length(peer, rank_, round); ++i) {
        made.expected.push_back(value<Value>(peer, rank_, i, stream));
      }
      made.send_offsets.push_back(static_cast<index_t>(sent.size()));
      made.receive_offsets.push_back(static_cast<index_t>(made.expected.size()));
    }
    made.expected.insert(made.expected.end(), static_cast<std::size_t>(margin), Value{-5});
    blank.resize(made.expected.size(), Value{-5});
    made.send = place(sent);
    made.receive = place(blank);
    return made;
  }
  template <class Value>
  auto start(exchange_case<Value>& made) {
    return comm_.all_to_all_v(on_, static_cast<Value const*>(made.send.data()),
                              std::span<index_t const>(made.send_offsets), made.receive.data(),
                              std::span<index_t const>(made.receive_offsets));
  }
  template <class Value>
  void one_all_to_all(int round) {
    auto made = make_exchange<Value>(round, 1);
    auto operation = start(made);
    operation.wait();
    expect_same(fetch(made.receive), made.expected, "all_to_all_v delivers every message to its place", round);
  }
  template <class Value>
  void two_in_flight() {
    auto first = make_exchange<Value>(0, 2);
    auto second = make_exchange<Value>(4, 3);
    auto one = start(first);
    auto two = start(second);
    if (rank_ % 2 == 0) {
      two.wait();
      one.wait();
    } else {
      one.wait();
      two.wait();
    }
    expect_same(fetch(first.receive), first.expected, "two all_to_all_v in flight do not mix (first)", 0);
    expect_same(fetch(second.receive), second.expected, "two all_to_all_v in flight do not mix (second)", 1);
  }

  // --- the others

  template <class Value>
  void check_all_gather(index_t length) {
    auto [sent, all] = everybodys<Value>(length, 4);
    array<Value> send = place(sent);
    array<Value> receive(length * ranks_);
    auto operation = comm_.all_gather(on_, std::span<Value const>(send.span()), receive.span());
    operation.wait();
    expect_same(fetch(receive), all, "all_gather holds everybody's elements in rank order", length);
  }
  template <class Value>
  struct inputs {
    std::vector<Value> own, all;
  };
  template <class Value>
  inputs<Value> everybodys(index_t length, std::uint64_t stream) {
    inputs<Value> made;
    for (index_t from = 0; from < ranks_; ++from) {
      for (index_t i = 0; i < length; ++i) { made.all.push_back(value<Value>(from, 0, i, stream)); }
    }
    auto const first = made.all.begin() + rank_ * length;
    made.own.assign(first, first + length);
    return made;
  }
  template <class Value>
  [[nodiscard]] static Value combine(reduction op, Value a, Value b) {
    switch (op) {
      case reduction::sum: return static_cast<Value>(a + b);
      case reduction::maximum: return std::max(a, b);
      case reduction::minimum: return std::min(a, b);
    }
    return a;
  }
  // `at(rank, i)` gives the inputs.
  template <class Value, class Input>
  void expect_reduced(std::vector<Value> const& found, reduction op, Input at, char const* law) {
    bool const exact = std::integral<Value> || op != reduction::sum || reduces_in_rank_order<Comm>;
    for (std::size_t i = 0; i < found.size(); ++i) {
      Value expected = at(0, static_cast<index_t>(i));
      double reference = static_cast<double>(expected);
      double size = std::abs(reference);
      for (index_t from = 1; from < ranks_; ++from) {
        Value const next = at(from, static_cast<index_t>(i));
        expected = combine(op, expected, next);
        reference += static_cast<double>(next);
        size += std::abs(static_cast<double>(next));
      }
      if (exact && found[i] != expected) { return fail(law, static_cast<index_t>(op), i, found[i], expected); }
      if constexpr (std::floating_point<Value>) {
        double const bound = static_cast<double>(ranks_) * size * std::numeric_limits<Value>::epsilon();
        if (!exact && !(std::abs(static_cast<double>(found[i]) - reference) <= bound)) {
          return fail(law, static_cast<index_t>(op), i, found[i], expected);
        }
      }
    }
  }
  template <class Value>
  std::vector<Value> reduced(std::vector<Value> const& own, reduction op) {
    array<Value> values = place(own);
    auto operation = comm_.all_reduce(on_, values.span(), op);
    operation.wait();
    return fetch(values);
  }
  template <class Value>
  void check_all_reduce(index_t length, reduction op) {
    auto [own, all] = everybodys<Value>(length, 5);
    auto const found = reduced(own, op);
    auto const& inputs_of_all = all;
    expect_reduced(found, op, [&](index_t from, index_t i) {
      return inputs_of_all[static_cast<std::size_t>(from * length + i)];
    }, reduces_in_rank_order<Comm> ? "all_reduce gives the reduction in rank order" : "all_reduce gives the reduction");
    expect_same(reduced(own, op), found, "all_reduce gives the same bits again", length);
    if constexpr (has_all_gather<Comm, Value, Backend>) {
      array<Value> send = place(found);
      array<Value> receive(length * ranks_);
      auto operation = comm_.all_gather(on_, std::span<Value const>(send.span()), receive.span());
      operation.wait();
      std::vector<Value> const results = fetch(receive);
      for (index_t from = 0; from < ranks_; ++from) {
        auto const first = results.begin() + from * length;
        expect_same(std::vector<Value>(first, first + length), found, "all_reduce gives every rank the same bits",
                    from);
      }
    }
  }
  template <class Value>
  void two_reductions_in_flight() {
    auto [one_own, one_all] = everybodys<Value>(longest_, 6);
    auto [two_own, two_all] = everybodys<Value>(3, 7);
    array<Value> one = place(one_own);
    array<Value> two = place(two_own);
    auto first = comm_.all_reduce(on_, one.span(), reduction::sum);
    auto second = comm_.all_reduce(on_, two.span(), reduction::maximum);
    if (rank_ % 2 == 0) {
      second.wait();
      first.wait();
    } else {
      first.wait();
      second.wait();
    }
    auto const& all_of_one = one_all;
    auto const& all_of_two = two_all;
    index_t const length = longest_;
    expect_reduced(fetch(one), reduction::sum, [&](index_t from, index_t i) {
      return all_of_one[static_cast<std::size_t>(from * length + i)];
    }, "two all_reduce in flight do not mix (first)");
    expect_reduced(fetch(two), reduction::maximum, [&](index_t from, index_t i) {
      return all_of_two[static_cast<std::size_t>(from * 3 + i)];
    }, "two all_reduce in flight do not mix (second)");
  }
  template <class Value>
  void check_reduce_scatter(index_t length, reduction op) {
    auto [own, all] = everybodys<Value>(length * ranks_, 8);
    array<Value> send = place(own);
    array<Value> receive(length);
    auto operation = comm_.reduce_scatter(on_, std::span<Value const>(send.span()), receive.span(), op);
    operation.wait();
    auto const& inputs_of_all = all;
    expect_reduced(fetch(receive), op, [&](index_t from, index_t i) {
      return inputs_of_all[static_cast<std::size_t>((from * ranks_ + rank_) * length + i)];
    }, "reduce_scatter leaves the reduction of part r on rank r");
  }
  template <class Value>
  void check_broadcast(index_t length, index_t root) {
    auto [own, all] = everybodys<Value>(length, 9);
    array<Value> values = place(own);
    auto operation = comm_.broadcast(on_, values.span(), root);
    operation.wait();
    auto const first = all.begin() + root * length;
    expect_same(fetch(values), std::vector<Value>(first, first + length), "broadcast gives everybody the root's values",
                root);
  }
  // Even ranks send first: also communicators that complete a send only together with its receive get through.
  template <class Value>
  void check_ring() {
    index_t const next = (rank_ + 1) % ranks_;
    index_t const previous = (rank_ + ranks_ - 1) % ranks_;
    std::array<index_t, 3> const sizes{longest_, 0, 5};
    std::vector<array<Value>> out, in;
    std::vector<std::vector<Value>> expected;
    for (std::size_t m = 0; m < sizes.size(); ++m) {
      std::vector<Value> sent, wanted;
      for (index_t i = 0; i < sizes[m]; ++i) {
        sent.push_back(value<Value>(rank_, next, i, 10 + m));
        wanted.push_back(value<Value>(previous, rank_, i, 10 + m));
      }
      out.push_back(place(sent));
      in.emplace_back(sizes[m]);
      expected.push_back(std::move(wanted));
    }
    using sending = decltype(comm_.send(on_, std::span<Value const>(), next));
    using receiving = decltype(comm_.receive(on_, std::span<Value>(), previous));
    std::vector<sending> sends;
    std::vector<receiving> receives;
    auto const start_sends = [&] {
      for (auto& memory : out) { sends.push_back(comm_.send(on_, std::span<Value const>(memory.span()), next)); }
    };
    if (rank_ % 2 == 0) { start_sends(); }
    for (auto& memory : in) { receives.push_back(comm_.receive(on_, memory.span(), previous)); }
    if (rank_ % 2 != 0) { start_sends(); }
    for (auto& operation : receives) { operation.wait(); }
    for (auto& operation : sends) { operation.wait(); }
    for (std::size_t m = 0; m < sizes.size(); ++m) {
      expect_same(fetch(in[m]), expected[m], "messages between two ranks arrive whole and in order",
                  static_cast<index_t>(m));
    }
  }

  Comm& comm_;
  Backend const& on_;
  std::uint64_t seed_;
  index_t longest_;
  index_t ranks_ = 1;
  index_t rank_ = 0;
  char const* type_ = "";
  verdict result_;
};

}  // namespace detail
}  // namespace laws
FAIRLEAD_NAMESPACE_END
