// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/comm/alone.hpp>
#include <fairlead/concepts/parameter_store.hpp>
#include <fairlead/exec/serial.hpp>

#include "support/catch.hpp"

namespace fl = fairlead;

namespace {

// The minimal model, cut into its members so that each can be left out.
struct has_acquire {
  template <class Backend, class Comm>
  void acquire(Backend const&, Comm&) {}
};
struct has_release {
  template <class Backend, class Comm>
  void release(Backend const&, Comm&) {}
};
struct has_values {
  std::span<float const* const> values() { return {}; }
};
struct has_gradients {
  std::span<float* const> gradients() { return {}; }
};
struct has_reduce {
  template <class Backend, class Comm>
  void reduce_gradients(Backend const&, Comm&) {}
};
struct has_zero {
  template <class Backend>
  void zero_gradients(Backend const&) {}
};
struct has_each {
  template <class Function>
  void each(Function&& f) {
    f(fl::expert_id{0}, std::span<float>{}, std::span<float>{});
  }
};
template <class... Members>
struct model : Members... {};

struct wrong_acquire {
  template <class Backend, class Comm>
  bool acquire(Backend const&, Comm&) { return true; }
};
struct wrong_release {
  template <class Backend, class Comm>
  bool release(Backend const&, Comm&) { return true; }
};
struct wrong_values {  // parameters are read through it, not changed
  std::span<float* const> values() { return {}; }
};
struct wrong_gradients {  // gradients are added to
  std::span<float const* const> gradients() { return {}; }
};
struct wrong_reduce {
  template <class Backend, class Comm>
  int reduce_gradients(Backend const&, Comm&) { return 0; }
};
struct wrong_zero {
  template <class Backend>
  int zero_gradients(Backend const&) { return 0; }
};
struct wrong_each {
  template <class Function>
  int each(Function&&) { return 0; }
};

template <class Store, class Value = float>
constexpr bool is_store = fl::parameter_store_on<Store, fl::serial, fl::alone, Value>;

using minimal = model<has_acquire, has_release, has_values, has_gradients, has_reduce, has_zero, has_each>;

template <class Store>
struct makes {
  template <class Value, class Backend, class Comm>
  Store make(Backend const&, Comm&, fl::placement const&, fl::parameter_layout const&, std::uint64_t) const {
    return {};
  }
};
struct makes_without_seed {
  template <class Value, class Backend, class Comm>
  minimal make(Backend const&, Comm&, fl::placement const&, fl::parameter_layout const&) const {
    return {};
  }
};
struct makes_nothing {};
template <class Policy>
constexpr bool is_policy = fl::store_policy_on<Policy, fl::serial, fl::alone, float>;

}  // namespace

TEST_CASE("a parameter store is a type with seven members, each of which is needed", "[concepts]") {
  STATIC_REQUIRE(is_store<minimal>);
  STATIC_REQUIRE_FALSE(is_store<model<has_release, has_values, has_gradients, has_reduce, has_zero, has_each>>);
  STATIC_REQUIRE_FALSE(is_store<model<has_acquire, has_values, has_gradients, has_reduce, has_zero, has_each>>);
  STATIC_REQUIRE_FALSE(is_store<model<has_acquire, has_release, has_gradients, has_reduce, has_zero, has_each>>);
  STATIC_REQUIRE_FALSE(is_store<model<has_acquire, has_release, has_values, has_reduce, has_zero, has_each>>);
  STATIC_REQUIRE_FALSE(is_store<model<has_acquire, has_release, has_values, has_gradients, has_zero, has_each>>);
  STATIC_REQUIRE_FALSE(is_store<model<has_acquire, has_release, has_values, has_gradients, has_reduce, has_each>>);
  STATIC_REQUIRE_FALSE(is_store<model<has_acquire, has_release, has_values, has_gradients, has_reduce, has_zero>>);
}

TEST_CASE("a parameter store with a wrong return, of another element type or on no backend is refused", "[concepts]") {
  STATIC_REQUIRE_FALSE(is_store<model<wrong_acquire, has_release, has_values, has_gradients, has_reduce, has_zero, has_each>>);
  STATIC_REQUIRE_FALSE(is_store<model<has_acquire, wrong_release, has_values, has_gradients, has_reduce, has_zero, has_each>>);
  STATIC_REQUIRE_FALSE(is_store<model<has_acquire, has_release, wrong_values, has_gradients, has_reduce, has_zero, has_each>>);
  STATIC_REQUIRE_FALSE(is_store<model<has_acquire, has_release, has_values, wrong_gradients, has_reduce, has_zero, has_each>>);
  STATIC_REQUIRE_FALSE(is_store<model<has_acquire, has_release, has_values, has_gradients, wrong_reduce, has_zero, has_each>>);
  STATIC_REQUIRE_FALSE(is_store<model<has_acquire, has_release, has_values, has_gradients, has_reduce, wrong_zero, has_each>>);
  STATIC_REQUIRE_FALSE(is_store<model<has_acquire, has_release, has_values, has_gradients, has_reduce, has_zero, wrong_each>>);
  STATIC_REQUIRE_FALSE(is_store<minimal, double>);
  STATIC_REQUIRE_FALSE(fl::parameter_store_on<minimal, int, fl::alone, float>);
}

TEST_CASE("a store policy makes a parameter store from placement, layout and seed", "[concepts]") {
  STATIC_REQUIRE(is_policy<makes<minimal>>);
  STATIC_REQUIRE_FALSE(is_policy<makes_nothing>);
  STATIC_REQUIRE_FALSE(is_policy<makes_without_seed>);
  STATIC_REQUIRE_FALSE(is_policy<makes<int>>);
  STATIC_REQUIRE_FALSE(is_policy<makes<model<has_acquire, has_release>>>);
}
