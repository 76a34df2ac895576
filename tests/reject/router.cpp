// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A router that lacks a member, or returns the wrong type: the message names the member.
#include <fairlead/concepts/router.hpp>
#include <fairlead/exec/serial.hpp>

namespace fl = fairlead;

struct good {
  [[nodiscard]] fl::index_t experts() const { return 4; }
  [[nodiscard]] fl::index_t fan_out() const { return 1; }
  [[nodiscard]] std::size_t workspace_bytes(fl::index_t) const { return 0; }
  void route(fl::serial const&, fl::matrix_view<float const>, fl::route_context const&, fl::routing_view,
             fl::workspace&) const {}
};
static_assert(fl::router_on<good, fl::serial>);

#if defined(REJECT_no_experts)  // expect: has_experts | router.experts()
struct lacks_experts {
  [[nodiscard]] fl::index_t fan_out() const { return 1; }
  [[nodiscard]] std::size_t workspace_bytes(fl::index_t) const { return 0; }
  void route(fl::serial const&, fl::matrix_view<float const>, fl::route_context const&, fl::routing_view,
             fl::workspace&) const {}
};
static_assert(fl::router_on<lacks_experts, fl::serial>);
#endif

#if defined(REJECT_no_fan_out)  // expect: has_fan_out | router.fan_out()
struct lacks_fan_out {
  [[nodiscard]] fl::index_t experts() const { return 4; }
  [[nodiscard]] std::size_t workspace_bytes(fl::index_t) const { return 0; }
  void route(fl::serial const&, fl::matrix_view<float const>, fl::route_context const&, fl::routing_view,
             fl::workspace&) const {}
};
static_assert(fl::router_on<lacks_fan_out, fl::serial>);
#endif

#if defined(REJECT_no_workspace_bytes)  // expect: has_router_workspace | router.workspace_bytes(tokens)
struct lacks_workspace_bytes {
  [[nodiscard]] fl::index_t experts() const { return 4; }
  [[nodiscard]] fl::index_t fan_out() const { return 1; }
  void route(fl::serial const&, fl::matrix_view<float const>, fl::route_context const&, fl::routing_view,
             fl::workspace&) const {}
};
static_assert(fl::router_on<lacks_workspace_bytes, fl::serial>);
#endif

#if defined(REJECT_no_route)  // expect: has_route // expect-clang: router.route(on, logits, context, out, ws)
struct lacks_route {
  [[nodiscard]] fl::index_t experts() const { return 4; }
  [[nodiscard]] fl::index_t fan_out() const { return 1; }
  [[nodiscard]] std::size_t workspace_bytes(fl::index_t) const { return 0; }
};
static_assert(fl::router_on<lacks_route, fl::serial>);
#endif

#if defined(REJECT_wrong_return)  // expect: has_fan_out
struct returns_text : good {
  [[nodiscard]] char const* fan_out() const { return "two"; }
};
static_assert(fl::router_on<returns_text, fl::serial>);
#endif
