// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/concepts/execution_backend.hpp>

#include <cstring>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

namespace {

// No more than the concept asks for.
struct minimal {
  using memory_space = fl::host_space;
  template <class Function>
  void for_each(index_t n, Function f) const {
    for (index_t i = 0; i < n; ++i) { f(i); }
  }
  index_t concurrency() const { return 1; }
  void copy(void* to, void const* from, std::size_t bytes) const { std::memcpy(to, from, bytes); }
  void fill_zero(void* to, std::size_t bytes) const { std::memset(to, 0, bytes); }
  void to_host(void* to, void const* from, std::size_t bytes) const { copy(to, from, bytes); }
  void from_host(void* to, void const* from, std::size_t bytes) const { copy(to, from, bytes); }
  void wait() const {}
};
static_assert(fl::execution_backend<minimal> && fl::host_backend<minimal> && !fl::device_backend<minimal>);
static_assert(!fl::stream_ordered<minimal>);

// A member that is private in the derived class is a member that is missing.
#define LACKS(name, member)    \
  struct name : minimal {      \
   private:                    \
    using minimal::member;     \
  };                           \
  static_assert(!fl::execution_backend<name>)
LACKS(no_memory_space, memory_space);
LACKS(no_for_each, for_each);
LACKS(no_concurrency, concurrency);
LACKS(no_copy, copy);
LACKS(no_fill_zero, fill_zero);
LACKS(no_to_host, to_host);
LACKS(no_from_host, from_host);
LACKS(no_wait, wait);
#undef LACKS

struct counts_in_text : minimal {
  char const* concurrency() const { return "one"; }
};
static_assert(!fl::execution_backend<counts_in_text>);
struct waits_with_result : minimal {
  int wait() const { return 0; }
};
static_assert(!fl::execution_backend<waits_with_result>);
struct not_const : minimal {
  void wait() {}
};
static_assert(!fl::execution_backend<not_const>);
struct elsewhere : minimal {
  struct memory_space {
    static void* allocate(std::size_t) { return nullptr; }
    static void deallocate(void*, std::size_t) {}
  };
};
static_assert(fl::device_backend<elsewhere> && !fl::host_backend<elsewhere>);

}  // namespace

TEST_CASE("the minimal backend does its work through the concept alone", "[concepts]") {
  auto const sum = [](fl::execution_backend auto const& on) {
    index_t total = 0;
    on.for_each(5, [&](index_t i) { total += i; });
    on.wait();
    return total;
  };
  CHECK(sum(minimal{}) == 10);
}
