// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/comm/alone.hpp>
#include <fairlead/concepts/dispatcher.hpp>
#include <fairlead/exec/serial.hpp>

#include "support/catch.hpp"

#include <string>

namespace fl = fairlead;
using fl::index_t;

namespace {

struct in_flight {};
struct its_plan {};
struct its_wire {};
using rows_in = fl::matrix_view<float const>;
using rows_out = fl::matrix_view<float>;

// The minimal model, cut into its members so that each can be left out.
struct has_types {
  template <class Space>
  using plan_type = its_plan;
  template <class Value, class Space>
  using wire_type = its_wire;
  template <class Comm, class Backend, class Value>
  using pending_type = in_flight;
};
struct has_admit {
  template <class Backend>
  void admit(Backend const&, fl::const_routing_view, fl::route_context const&, index_t, its_plan&, fl::workspace&) const {}
};
struct has_limit {
  void limit(fl::matrix_view<fl::count_t const>, fl::placement const&, index_t, fl::matrix_view<fl::count_t>) const {}
};
struct has_plan {
  template <class Backend, class Comm>
  void plan(Backend const&, Comm&, fl::const_routing_view, fl::placement const&, fl::const_token_schedule_view, its_plan&, fl::workspace&) const {}
};
struct has_workspace {
  std::size_t workspace_bytes(index_t, index_t, index_t) const { return 0; }
};
struct has_start_dispatch {
  template <class Backend, class Comm>
  in_flight start_dispatch(Backend const&, Comm&, its_plan const&, rows_in, its_wire&) const { return {}; }
};
struct has_finish_dispatch {
  template <class Backend>
  void finish_dispatch(Backend const&, its_plan const&, in_flight&, rows_in, its_wire&, rows_out) const {}
};
struct has_start_combine {
  template <class Backend, class Comm>
  in_flight start_combine(Backend const&, Comm&, its_plan const&, rows_in, its_wire&) const { return {}; }
};
struct has_finish_combine {
  template <class Backend>
  void finish_combine(Backend const&, its_plan const&, in_flight&, rows_in, rows_in, its_wire&, rows_out) const {}
};
struct has_start_combine_backward {
  template <class Backend, class Comm>
  in_flight start_combine_backward(Backend const&, Comm&, its_plan const&, rows_in, rows_in, rows_out, its_wire&, rows_out) const { return {}; }
};
struct has_finish_combine_backward {
  template <class Backend>
  void finish_combine_backward(Backend const&, its_plan const&, in_flight&, its_wire&, rows_out) const {}
};
struct has_start_dispatch_backward {
  template <class Backend, class Comm>
  in_flight start_dispatch_backward(Backend const&, Comm&, its_plan const&, rows_in, its_wire&) const { return {}; }
};
struct has_finish_dispatch_backward {
  template <class Backend>
  void finish_dispatch_backward(Backend const&, its_plan const&, in_flight&, rows_in, rows_in, its_wire&, rows_out, rows_out) const {}
};

template <class... Members>
struct model : Members... {};

// The model with one member taken out, or another put in its place.
template <class Wanted, class Present>
struct keep {
  using type = model<Present>;
};
template <class Present>
struct keep<Present, Present> {
  using type = model<>;
};
template <class A, class B>
struct join;
template <class... A, class... B>
struct join<model<A...>, model<B...>> {
  using type = model<A..., B...>;
};
template <class All, class Out, class Kept = model<>>
struct without;
template <class First, class... Rest, class Out, class Kept>
struct without<model<First, Rest...>, Out, Kept>
    : without<model<Rest...>, Out, typename join<Kept, typename keep<Out, First>::type>::type> {};
template <class Out, class Kept>
struct without<model<>, Out, Kept> {
  using type = Kept;
};

using minimal = model<has_types, has_admit, has_limit, has_plan, has_workspace, has_start_dispatch, has_finish_dispatch,
                      has_start_combine, has_finish_combine, has_start_combine_backward, has_finish_combine_backward,
                      has_start_dispatch_backward, has_finish_dispatch_backward>;
template <class Member>
using lacks = typename without<minimal, Member>::type;
template <class Member, class Other>
using has_instead = typename join<lacks<Member>, model<Other>>::type;

template <class Dispatcher>
constexpr bool is_dispatcher = fl::dispatcher_on<Dispatcher, fl::alone, fl::serial, float>;

struct wrong_admit {
  template <class Backend>
  bool admit(Backend const&, fl::const_routing_view, fl::route_context const&, index_t, its_plan&, fl::workspace&) const { return true; }
};
struct wrong_limit {
  int limit(fl::matrix_view<fl::count_t const>, fl::placement const&, index_t, fl::matrix_view<fl::count_t>) const { return 0; }
};
struct limit_in_doubles {
  void limit(fl::matrix_view<double const>, fl::placement const&, index_t, fl::matrix_view<double>) const {}
};
struct wrong_plan {
  template <class Backend, class Comm>
  its_plan plan(Backend const&, Comm&, fl::const_routing_view, fl::placement const&, fl::const_token_schedule_view, its_plan&, fl::workspace&) const { return {}; }
};
struct wrong_workspace {
  std::string workspace_bytes(index_t, index_t, index_t) const { return {}; }
};
struct blocking_dispatch {  // returns nothing to wait for
  template <class Backend, class Comm>
  void start_dispatch(Backend const&, Comm&, its_plan const&, rows_in, its_wire&) const {}
};
struct changes_the_plan {
  template <class Backend, class Comm>
  in_flight start_dispatch(Backend const&, Comm&, its_plan&, rows_in, its_wire&) const { return {}; }
};
struct wrong_finish_dispatch {
  template <class Backend>
  bool finish_dispatch(Backend const&, its_plan const&, in_flight&, rows_in, its_wire&, rows_out) const { return true; }
};
struct blocking_combine {
  template <class Backend, class Comm>
  void start_combine(Backend const&, Comm&, its_plan const&, rows_in, its_wire&) const {}
};
struct wrong_finish_combine {
  template <class Backend>
  bool finish_combine(Backend const&, its_plan const&, in_flight&, rows_in, rows_in, its_wire&, rows_out) const { return true; }
};
struct wrong_start_combine_backward {
  template <class Backend, class Comm>
  int start_combine_backward(Backend const&, Comm&, its_plan const&, rows_in, rows_in, rows_out, its_wire&, rows_out) const { return 0; }
};
struct wrong_finish_combine_backward {
  template <class Backend>
  int finish_combine_backward(Backend const&, its_plan const&, in_flight&, its_wire&, rows_out) const { return 0; }
};
struct wrong_start_dispatch_backward {
  template <class Backend, class Comm>
  int start_dispatch_backward(Backend const&, Comm&, its_plan const&, rows_in, its_wire&) const { return 0; }
};
struct wrong_finish_dispatch_backward {
  template <class Backend>
  int finish_dispatch_backward(Backend const&, its_plan const&, in_flight&, rows_in, rows_in, its_wire&, rows_out, rows_out) const { return 0; }
};

}  // namespace

TEST_CASE("a dispatcher is three types and twelve members, each of which is needed", "[concepts]") {
  STATIC_REQUIRE(is_dispatcher<minimal>);
  STATIC_REQUIRE_FALSE(is_dispatcher<lacks<has_types>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<lacks<has_admit>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<lacks<has_limit>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<lacks<has_plan>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<lacks<has_workspace>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<lacks<has_start_dispatch>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<lacks<has_finish_dispatch>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<lacks<has_start_combine>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<lacks<has_finish_combine>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<lacks<has_start_combine_backward>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<lacks<has_finish_combine_backward>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<lacks<has_start_dispatch_backward>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<lacks<has_finish_dispatch_backward>>);
}

TEST_CASE("a dispatcher with a wrong return, a changing plan or other count types is refused", "[concepts]") {
  STATIC_REQUIRE(is_dispatcher<has_instead<has_admit, has_admit>>);  // the exchange of members itself does no harm
  STATIC_REQUIRE_FALSE(is_dispatcher<has_instead<has_admit, wrong_admit>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<has_instead<has_limit, wrong_limit>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<has_instead<has_limit, limit_in_doubles>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<has_instead<has_plan, wrong_plan>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<has_instead<has_workspace, wrong_workspace>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<has_instead<has_start_dispatch, blocking_dispatch>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<has_instead<has_start_dispatch, changes_the_plan>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<has_instead<has_finish_dispatch, wrong_finish_dispatch>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<has_instead<has_start_combine, blocking_combine>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<has_instead<has_finish_combine, wrong_finish_combine>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<has_instead<has_start_combine_backward, wrong_start_combine_backward>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<has_instead<has_finish_combine_backward, wrong_finish_combine_backward>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<has_instead<has_start_dispatch_backward, wrong_start_dispatch_backward>>);
  STATIC_REQUIRE_FALSE(is_dispatcher<has_instead<has_finish_dispatch_backward, wrong_finish_dispatch_backward>>);
}
