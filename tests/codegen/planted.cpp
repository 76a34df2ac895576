// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Functions for the self-test of no_indirect_calls.py: three that hold a call through a pointer, two that hold none.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>

struct base {
  virtual ~base() = default;
  virtual int value(int) = 0;
};
struct derived final : base {
  int value(int x) override { return x + 1; }
};

[[gnu::noinline]] int planted_virtual(base& object, int x) { return object.value(x) + 1; }
[[gnu::noinline]] int planted_function(std::function<int(int)> const& f, int x) { return f(x) + 1; }
[[gnu::noinline]] int planted_tail_jump(int (*f)(int), int x) { return f(x + 1); }
[[gnu::noinline]] int planted_hidden(base& object, int x) { return planted_virtual(object, x) * 2; }

[[gnu::noinline]] int clean_library(char* to, char const* from, int n) {
  std::memcpy(to, from, static_cast<std::size_t>(n));
  return static_cast<int>(std::strlen(to));
}
[[gnu::noinline]] int clean_switch(int kind, int x) {
  switch (kind) {
    case 0: return std::abs(x);
    case 1: std::puts("one"); return x * 3;
    case 2: return x ^ 5;
    case 3: std::puts("three"); return x / 7;
    case 4: return x % 11;
    case 5: std::puts("five"); return x << 2;
    case 6: return static_cast<int>(std::sqrt(static_cast<double>(x)));
    default: return 0;
  }
}

int main(int count, char** arguments) {
  derived object;
  char text[64] = {};
  int const kind = count % 7;
  return planted_virtual(object, count) + planted_hidden(object, count) +
             planted_function([count](int x) { return x * count; }, count) +
             planted_tail_jump(count > 2 ? [](int x) { return x; } : [](int x) { return -x; }, count) +
             clean_library(text, arguments[0], 5) + clean_switch(kind, count) ==
         -12345;
}
