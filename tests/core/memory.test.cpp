// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/buffer.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

namespace {

// A memory space that counts.
struct counting_space {
  static inline int live = 0;
  static inline int allocations = 0;
  static inline std::size_t live_bytes = 0;
  static void* allocate(std::size_t bytes) {
    ++live;
    ++allocations;
    live_bytes += bytes;
    return fl::host_space::allocate(bytes);
  }
  static void deallocate(void* block, std::size_t bytes) noexcept {
    --live;
    live_bytes -= bytes;
    fl::host_space::deallocate(block, bytes);
  }
};
static_assert(fl::memory_space<counting_space> && fl::memory_space<fl::host_space>);

// A memory space that has nothing to give.
struct exhausted_space {
  static void* allocate(std::size_t) { throw std::bad_alloc(); }
  static void deallocate(void*, std::size_t) noexcept {}
};

bool aligned(void const* address) { return reinterpret_cast<std::uintptr_t>(address) % fl::buffer_alignment == 0; }

static_assert(!std::is_copy_constructible_v<fl::buffer<int>> && std::is_nothrow_move_constructible_v<fl::buffer<int>>);
static_assert(!std::is_copy_constructible_v<fl::matrix<int>> && std::is_nothrow_move_assignable_v<fl::matrix<int>>);
static_assert(fl::workspace_bytes<float>(0) == 0 && fl::workspace_bytes<float>(1) == 64);
static_assert(fl::workspace_bytes<double>(8) == 64 && fl::workspace_bytes<double>(9) == 128);

}  // namespace

TEST_CASE("a buffer is aligned to a cache line", "[core][buffer]") {
  for (index_t size = 1; size < 200; size += 7) {
    fl::buffer<char> const bytes(size);
    CHECK(aligned(bytes.data()));
    CHECK(bytes.size() == size);
  }
}

TEST_CASE("a buffer allocates only when it grows and frees what it took", "[core][buffer]") {
  int const before = counting_space::allocations;
  {
    fl::buffer<double, counting_space> values;
    CHECK(counting_space::allocations == before);
    CHECK(values.resize(100));
    CHECK(counting_space::allocations == before + 1);
    double const* const first = values.data();
    CHECK_FALSE(values.resize(3));
    CHECK_FALSE(values.resize(0));
    CHECK_FALSE(values.resize(100));
    CHECK(values.data() == first);
    CHECK(values.capacity() == 100);
    CHECK(counting_space::allocations == before + 1);
    CHECK(values.resize(101));
    CHECK(counting_space::allocations == before + 2);
    CHECK(counting_space::live == 1);
    CHECK(counting_space::live_bytes == 101 * sizeof(double));
  }
  CHECK(counting_space::live == 0);
  CHECK(counting_space::live_bytes == 0);
}

TEST_CASE("a moved buffer leaves an empty one behind", "[core][buffer]") {
  {
    fl::buffer<int, counting_space> first(4);
    first[2] = 17;
    fl::buffer<int, counting_space> second(std::move(first));
    CHECK(first.size() == 0);  // NOLINT(bugprone-use-after-move): the state is promised
    CHECK(first.data() == nullptr);
    CHECK(second[2] == 17);
    fl::buffer<int, counting_space> third(9);
    third = std::move(second);
    CHECK(third.size() == 4);
    CHECK(third[2] == 17);
    auto& same = third;
    third = std::move(same);
    CHECK(third[2] == 17);
    CHECK(first.resize(2));
  }
  CHECK(counting_space::live == 0);
}

TEST_CASE("a buffer that cannot grow is empty afterwards", "[core][buffer]") {
  fl::buffer<int, exhausted_space> values;
  CHECK_THROWS_AS(values.resize(5), std::bad_alloc);
  CHECK(values.size() == 0);
  CHECK(values.capacity() == 0);
  CHECK_NOTHROW(values.resize(0));
}

TEST_CASE("a buffer refuses a negative size and a matrix larger than itself", "[core][buffer][contract]") {
  fl::buffer<int> values(6);
  CHECK_THROWS_AS(values.resize(-1), fl::contract_violation);
  CHECK(values.as_matrix(2, 3).rows() == 2);
  CHECK(std::as_const(values).as_matrix(3, 2).data() == values.data());
  CHECK_THROWS_AS(values.as_matrix(2, 4), fl::contract_violation);
  CHECK_THROWS_AS(std::as_const(values).as_matrix(7, 1), fl::contract_violation);
}

TEST_CASE("a matrix starts with zeros and stores row by row", "[core][matrix]") {
  fl::matrix<float> values(3, 5);
  CHECK(std::all_of(values.span().begin(), values.span().end(), [](float value) { return value == 0.0F; }));
  values(2, 4) = 1.5F;
  values(0, 1) = 2.5F;
  CHECK(values.span()[14] == 1.5F);
  CHECK(std::as_const(values).view()(0, 1) == 2.5F);
  CHECK(values.view().stride() == 5);
  CHECK(aligned(values.data()));
}

TEST_CASE("a matrix may have no row or no column", "[core][matrix]") {
  CHECK(fl::matrix<int>(0, 7).view().cols() == 7);
  CHECK(fl::matrix<int>(7, 0).view().rows() == 7);
  CHECK(fl::matrix<int>().view().empty());
  CHECK_THROWS_AS(fl::matrix<int>(-1, 2), fl::contract_violation);
  CHECK_THROWS_AS(fl::matrix<int>(-1, -2), fl::contract_violation);
}

TEST_CASE("a moved matrix leaves an empty one behind", "[core][matrix]") {
  fl::matrix<int> first(2, 2);
  first(1, 1) = 4;
  fl::matrix<int> second = std::move(first);
  CHECK(second(1, 1) == 4);
  CHECK(first.rows() == 0);  // NOLINT(bugprone-use-after-move): the state is promised
  CHECK(first.view().empty());
  fl::matrix<int> third(5, 5);
  third = std::move(second);
  CHECK(third.rows() == 2);
  CHECK(second.view().empty());  // NOLINT(bugprone-use-after-move)
}

TEST_CASE("a workspace hands out aligned arrays that do not overlap", "[core][workspace]") {
  fl::arena<> memory(fl::workspace_bytes<char>(3) + fl::workspace_bytes<double>(9) + fl::workspace_bytes<int>(1));
  fl::workspace ws = memory.view();
  auto const chars = ws.take<char>(3);
  auto const doubles = ws.take<double>(9);
  auto const ints = ws.take<int>(1);
  CHECK(ws.used() == ws.size());
  CHECK((aligned(chars.data()) && aligned(doubles.data()) && aligned(ints.data())));
  CHECK(reinterpret_cast<char*>(doubles.data()) - chars.data() == 64);
  CHECK(reinterpret_cast<char*>(ints.data()) - reinterpret_cast<char*>(doubles.data()) == 128);
  CHECK(doubles.size() == 9);
}

TEST_CASE("an exhausted workspace says what to reserve", "[core][workspace][contract]") {
  fl::arena<> memory(128);
  fl::workspace ws = memory.view();
  (void)ws.take<char>(1);
  CHECK(ws.take<char>(64).size() == 64);
  try {
    (void)ws.take<char>(1);
    FAIL("the workspace gave more than it has");
  } catch (fl::contract_violation const& violation) {
    CHECK(std::string(violation.what()).find("workspace_bytes()") != std::string::npos);
  }
  CHECK(ws.take<char>(0).empty());
  CHECK_THROWS_AS(ws.take<char>(-1), fl::contract_violation);
  ws.rewind(0);
  CHECK_THROWS_AS(ws.take<double>(std::numeric_limits<index_t>::max() / 4), fl::contract_violation);
  CHECK_THROWS_AS(ws.take<double>(index_t{1} << 61), fl::contract_violation);  // 2^61 x 8 bytes wraps to 0
  CHECK(ws.used() == 0);
}

TEST_CASE("a workspace rewinds to a mark and at the end of a scope", "[core][workspace]") {
  fl::arena<> memory(1024);
  fl::workspace ws = memory.view();
  auto const outer = ws.take<int>(4);
  std::size_t const mark = ws.used();
  int* inner_address = nullptr;
  {
    fl::workspace::scope const scope(ws);
    inner_address = ws.take<int>(4).data();
    {
      fl::workspace::scope const deeper(ws);
      (void)ws.take<double>(20);
      CHECK(ws.used() > mark + 64);
    }
    CHECK(ws.used() == mark + 64);
  }
  CHECK(ws.used() == mark);
  CHECK(ws.take<int>(4).data() == inner_address);
  CHECK(outer.data() != inner_address);
  ws.rewind(0);
  CHECK(ws.take<int>(1).data() == outer.data());
}

TEST_CASE("a workspace is given back when an exception leaves its scope", "[core][workspace]") {
  fl::arena<> memory(256);
  fl::workspace ws = memory.view();
  CHECK_THROWS_AS(
      [&ws] {
        fl::workspace::scope const scope(ws);
        (void)ws.take<char>(100);
        (void)ws.take<char>(1000);
      }(),
      fl::contract_violation);
  CHECK(ws.used() == 0);
}

TEST_CASE("a workspace refuses memory that is not aligned", "[core][workspace][contract]") {
  fl::buffer<std::byte> memory(256);
  CHECK_NOTHROW(fl::workspace(memory.span()));
  CHECK_THROWS_AS(fl::workspace(memory.span().subspan(8)), fl::contract_violation);
  CHECK(fl::workspace().size() == 0);
  CHECK(fl::workspace().take<int>(0).empty());
}

TEST_CASE("an arena allocates only when it grows", "[core][workspace]") {
  int const before = counting_space::allocations;
  fl::arena<counting_space> memory;
  CHECK(memory.view().size() == 0);
  CHECK(memory.reserve(1000));
  CHECK_FALSE(memory.reserve(1000));
  CHECK_FALSE(memory.reserve(10));
  CHECK(memory.size() == 1000);
  CHECK(memory.reserve(1001));
  CHECK(counting_space::allocations == before + 2);
  for (int step = 0; step < 100; ++step) {
    fl::workspace ws = memory.view();
    (void)ws.take<float>(64);
    (void)memory.reserve(500);
  }
  CHECK(counting_space::allocations == before + 2);
}
