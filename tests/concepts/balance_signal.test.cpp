// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/concepts/balance_signal.hpp>
#include <fairlead/exec/serial.hpp>

#include "support/catch.hpp"

#include <string>

namespace fl = fairlead;
using fl::index_t;

namespace {

struct state {};

// The minimal model, cut into its members so that each can be left out.
struct has_make_state {
  state make_state(index_t) const { return {}; }
};
struct has_accumulate {
  void accumulate(std::span<index_t const>, index_t, state&) const {}
};
struct has_add_gradient {
  template <class Backend>
  double add_gradient(Backend const&, fl::matrix_view<float const>, fl::const_routing_view, fl::route_context const&,
                      state const&, double, fl::matrix_view<float>, fl::workspace&) const {
    return 0.0;
  }
};
struct has_end {
  void end_global_batch(state&) const {}
};
struct has_workspace {
  std::size_t workspace_bytes(index_t, index_t) const { return 0; }
};
template <class... Members>
struct model : Members... {};

struct wrong_gradient {
  template <class Backend>
  std::string add_gradient(Backend const&, fl::matrix_view<float const>, fl::const_routing_view,
                           fl::route_context const&, state const&, double, fl::matrix_view<float>,
                           fl::workspace&) const {
    return {};
  }
};
struct changes_state {
  template <class Backend>
  double add_gradient(Backend const&, fl::matrix_view<float const>, fl::const_routing_view, fl::route_context const&,
                      state&, double, fl::matrix_view<float>, fl::workspace&) const {
    return 0.0;
  }
};
struct wrong_accumulate {
  int accumulate(std::span<index_t const>, index_t, state&) const { return 0; }
};
struct wrong_end {
  bool end_global_batch(state&) const { return true; }
};
struct wrong_workspace {
  std::string workspace_bytes(index_t, index_t) const { return {}; }
};

template <class Signal>
constexpr bool is_signal = fl::balance_signal_on<Signal, fl::serial>;

}  // namespace

TEST_CASE("a balance signal is a type with five members, each of which is needed", "[concepts]") {
  STATIC_REQUIRE(is_signal<model<has_make_state, has_accumulate, has_add_gradient, has_end, has_workspace>>);
  STATIC_REQUIRE_FALSE(is_signal<model<has_accumulate, has_add_gradient, has_end, has_workspace>>);
  STATIC_REQUIRE_FALSE(is_signal<model<has_make_state, has_add_gradient, has_end, has_workspace>>);
  STATIC_REQUIRE_FALSE(is_signal<model<has_make_state, has_accumulate, has_end, has_workspace>>);
  STATIC_REQUIRE_FALSE(is_signal<model<has_make_state, has_accumulate, has_add_gradient, has_workspace>>);
  STATIC_REQUIRE_FALSE(is_signal<model<has_make_state, has_accumulate, has_add_gradient, has_end>>);
}

TEST_CASE("a balance signal with a wrong return or a changing state is refused", "[concepts]") {
  STATIC_REQUIRE_FALSE(is_signal<model<has_make_state, has_accumulate, wrong_gradient, has_end, has_workspace>>);
  STATIC_REQUIRE_FALSE(is_signal<model<has_make_state, has_accumulate, changes_state, has_end, has_workspace>>);
  STATIC_REQUIRE_FALSE(is_signal<model<has_make_state, wrong_accumulate, has_add_gradient, has_end, has_workspace>>);
  STATIC_REQUIRE_FALSE(is_signal<model<has_make_state, has_accumulate, has_add_gradient, wrong_end, has_workspace>>);
  STATIC_REQUIRE_FALSE(is_signal<model<has_make_state, has_accumulate, has_add_gradient, has_end, wrong_workspace>>);
  STATIC_REQUIRE_FALSE(fl::balance_signal_on<model<has_make_state, has_accumulate, has_add_gradient, has_end, has_workspace>, int>);
}
