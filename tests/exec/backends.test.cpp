// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/exec/serial.hpp>
#include <fairlead/exec/threads.hpp>
#include <fairlead/laws/execution_backend.hpp>

#include <set>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

namespace {

enum class flaw { none, skips_last, twice_first, swallows, no_concurrency, clears_too_much, copies_too_little };

template <flaw Flaw>
struct planted : fl::serial {
  template <class Function>
  void for_each(index_t n, Function f) const {
    if (Flaw == flaw::twice_first && n > 2) { f(0); }
    for (index_t i = 0; i < (Flaw == flaw::skips_last && n > 1 ? n - 1 : n); ++i) {
      if constexpr (Flaw == flaw::swallows) {
        try {
          f(i);
        } catch (...) { continue; }
      } else {
        f(i);
      }
    }
  }
  index_t concurrency() const noexcept { return Flaw == flaw::no_concurrency ? 0 : 1; }
  void fill_zero(void* to, std::size_t bytes) const noexcept {
    fl::serial::fill_zero(to, bytes == 0 || Flaw != flaw::clears_too_much ? bytes : bytes + 1);
  }
  void copy(void* to, void const* from, std::size_t bytes) const noexcept {
    fl::serial::copy(to, from, bytes == 0 || Flaw != flaw::copies_too_little ? bytes : bytes - 1);
  }
};
static_assert(fl::host_backend<planted<flaw::none>>);

template <flaw Flaw>
bool rejected(char const* text) {
  auto const verdict = fl::laws::check_execution_backend(planted<Flaw>{});
  INFO(verdict);
  return !verdict && verdict.reason().find(text) != std::string::npos;
}

}  // namespace

TEST_CASE("serial and threads keep the laws of backends at any number of threads", "[exec][laws]") {
  CHECK(fl::laws::check_execution_backend(fl::serial{}));
  for (int const count : {0, 1, 2, 3, 8}) { CHECK(fl::laws::check_execution_backend(fl::threads{count})); }
  CHECK(fl::laws::check_execution_backend(planted<flaw::none>{}));
}

TEST_CASE("the backend laws reject planted violations and say which", "[exec][laws]") {
  CHECK(rejected<flaw::skips_last>("0 times"));
  CHECK(rejected<flaw::twice_first>("2 times"));
  CHECK(rejected<flaw::swallows>("did not reach"));
  CHECK(rejected<flaw::no_concurrency>("at least 1"));
  CHECK(rejected<flaw::clears_too_much>("fill_zero"));
  CHECK(rejected<flaw::copies_too_little>("bytes changed"));
}

TEST_CASE("threads run a loop on no more threads than asked for, and serial runs in order", "[exec]") {
  CHECK(fl::threads{3}.concurrency() == 3);
  CHECK(fl::threads{}.concurrency() >= 1);
  std::vector<int> thread_of(200, -1);
  fl::threads{2}.for_each(200, [&](index_t i) { thread_of[static_cast<std::size_t>(i)] = omp_get_thread_num(); });
  CHECK(std::set<int>(thread_of.begin(), thread_of.end()).count(-1) == 0);
  CHECK(std::set<int>(thread_of.begin(), thread_of.end()).size() <= 2);
  std::vector<index_t> order;
  fl::serial{}.for_each(4, [&](index_t i) { order.push_back(i); });
  CHECK(order == std::vector<index_t>{0, 1, 2, 3});
}
