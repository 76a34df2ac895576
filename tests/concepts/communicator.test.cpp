// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What the communicator concepts ask for, and nothing else: a minimal model, one without each member, wrong results.
#include <fairlead/concepts/communicator.hpp>
#include <fairlead/comm/alone.hpp>
#include <fairlead/comm/counted.hpp>
#include <fairlead/comm/inproc.hpp>
#include <fairlead/exec/serial.hpp>

#include <span>
#include <string>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

namespace {

struct pending {
  void wait() {}
};
struct waits_with_result {
  int wait() { return 0; }
};
struct immovable {
  immovable() = default;
  immovable(immovable&&) = delete;
  void wait() {}
};

enum class lacks { nothing, space, rank, size, barrier };

template <lacks Missing>
struct place {
  using memory_space = fl::host_space;
  int rank() const requires(Missing != lacks::rank) { return 0; }
  int size() const requires(Missing != lacks::size) { return 1; }
  void barrier() requires(Missing != lacks::barrier) {}
};
template <>
struct place<lacks::space> {
  int rank() const { return 0; }
  int size() const { return 1; }
  void barrier() {}
};
struct textual_rank : place<lacks::nothing> {
  std::string rank() const { return "zero"; }
};
struct answering_barrier : place<lacks::nothing> {
  bool barrier() { return true; }
};

using offsets = std::span<index_t const>;
using in = std::span<float const>;
using out = std::span<float>;

// Every collective, returning Result.
template <class Result>
struct full : place<lacks::nothing> {
  Result all_to_all_v(fl::serial const&, float const*, offsets, float*, offsets) { return {}; }
  Result all_gather(fl::serial const&, in, out) { return {}; }
  Result all_reduce(fl::serial const&, out, fl::reduction) { return {}; }
  Result reduce_scatter(fl::serial const&, in, out, fl::reduction) { return {}; }
  Result broadcast(fl::serial const&, out, index_t) { return {}; }
  Result send(fl::serial const&, in, index_t) { return {}; }
  Result receive(fl::serial const&, out, index_t) { return {}; }
};
struct sends_only : place<lacks::nothing> {
  pending send(fl::serial const&, in, index_t) { return {}; }
};
struct receives_only : place<lacks::nothing> {
  pending receive(fl::serial const&, out, index_t) { return {}; }
};

// Number of collectives that a model has.
template <class Comm, class Value = float, class Backend = fl::serial>
constexpr int capabilities = static_cast<int>(fl::has_all_to_all_v<Comm, Value, Backend>) +
                             static_cast<int>(fl::has_all_gather<Comm, Value, Backend>) +
                             static_cast<int>(fl::has_all_reduce<Comm, Value, Backend>) +
                             static_cast<int>(fl::has_reduce_scatter<Comm, Value, Backend>) +
                             static_cast<int>(fl::has_broadcast<Comm, Value, Backend>) +
                             static_cast<int>(fl::has_point_to_point<Comm, Value, Backend>);

struct elsewhere {
  static void* allocate(std::size_t) { return nullptr; }
  static void deallocate(void*, std::size_t) {}
};
struct device_like : fl::serial {
  using memory_space = elsewhere;
};
static_assert(fl::device_backend<device_like>);

static_assert(fl::communicator<place<lacks::nothing>>);
static_assert(!fl::communicator<place<lacks::space>>);
static_assert(!fl::communicator<place<lacks::rank>>);
static_assert(!fl::communicator<place<lacks::size>>);
static_assert(!fl::communicator<place<lacks::barrier>>);
static_assert(!fl::communicator<textual_rank> && !fl::communicator<answering_barrier>);

static_assert(fl::pending_operation<pending>);
static_assert(!fl::pending_operation<waits_with_result> && !fl::pending_operation<immovable> &&
              !fl::pending_operation<int>);

static_assert(capabilities<full<pending>> == 6);
static_assert(capabilities<full<pending>, double> == 0);
static_assert(capabilities<place<lacks::nothing>> == 0);
static_assert(capabilities<full<waits_with_result>> == 0 && capabilities<full<int>> == 0);
static_assert(!fl::has_point_to_point<sends_only, float, fl::serial>);
static_assert(!fl::has_point_to_point<receives_only, float, fl::serial>);

static_assert(!fl::reduces_in_rank_order<full<pending>>);

}  // namespace

TEST_CASE("the communicator concept asks for a memory space, a rank, a size and a barrier") {
  CHECK(fl::communicator<place<lacks::nothing>>);
  CHECK_FALSE(fl::communicator<place<lacks::space>>);
  CHECK_FALSE(fl::communicator<place<lacks::rank>>);
  CHECK_FALSE(fl::communicator<place<lacks::size>>);
  CHECK_FALSE(fl::communicator<place<lacks::barrier>>);
  CHECK_FALSE(fl::communicator<textual_rank>);
  CHECK_FALSE(fl::communicator<answering_barrier>);
}

TEST_CASE("each collective is a capability of its own, and must return something to wait for") {
  CHECK(capabilities<full<pending>> == 6);
  CHECK(capabilities<place<lacks::nothing>> == 0);
  CHECK(capabilities<full<waits_with_result>> == 0);
  CHECK_FALSE(fl::has_point_to_point<sends_only, float, fl::serial>);
  CHECK_FALSE(fl::has_point_to_point<receives_only, float, fl::serial>);
}

TEST_CASE("host communicators have every collective on host backends and none on device backends") {
  CHECK(capabilities<fl::inproc::communicator> == 6);
  CHECK(capabilities<fl::inproc::communicator, std::int8_t> == 6);
  CHECK(capabilities<fl::alone> == 6);
  CHECK(capabilities<fl::counted<fl::inproc::communicator>> == 6);
  CHECK(capabilities<fl::inproc::communicator, float, device_like> == 0);
  CHECK(capabilities<fl::alone, float, device_like> == 0);
  CHECK(capabilities<fl::counted<fl::inproc::communicator>, float, device_like> == 0);
}

TEST_CASE("an adaptor has the collectives of the communicator underneath and no others") {
  CHECK(capabilities<fl::counted<full<pending>>> == 6);
  CHECK(capabilities<fl::counted<sends_only>> == 0);
  CHECK(capabilities<fl::counted<place<lacks::nothing>>> == 0);
}
