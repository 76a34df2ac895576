// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The router concept: a minimal model, one model per missing member, wrong return types.
#include "support/catch.hpp"

#include <fairlead/comm/alone.hpp>
#include <fairlead/concepts/router.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/laws/router.hpp>
#include <fairlead/route/biased_token_choice.hpp>
#include <fairlead/route/top_k.hpp>

#include <type_traits>

namespace fl = fairlead;

namespace {

using logits_view = fl::matrix_view<float const>;

// All of the members, each of which can be taken away or given a wrong type.
template <class Experts = fl::index_t, class FanOut = fl::index_t, class Bytes = std::size_t, class Route = void>
struct model {
  Experts experts() const
    requires(!std::is_void_v<Experts>)
  {
    return Experts{};
  }
  FanOut fan_out() const
    requires(!std::is_void_v<FanOut>)
  {
    return FanOut{};
  }
  Bytes workspace_bytes(fl::index_t) const
    requires(!std::is_void_v<Bytes>)
  {
    return Bytes{};
  }
  template <class Backend>
  Route route(Backend const&, logits_view, fl::route_context const&, fl::routing_view, fl::workspace&) const
    requires(!std::is_same_v<Route, std::nullptr_t>)
  {
    return Route();
  }
};
struct text {};

struct state_only_reads {
  fl::index_t experts() const { return 1; }
  fl::index_t fan_out() const { return 1; }
  std::size_t workspace_bytes(fl::index_t) const { return 0; }
  int make_state() const { return 0; }
  template <class Backend>
  void route(Backend const&, logits_view, fl::route_context const&, int const&, fl::routing_view,
             fl::workspace&) const {}
};
struct with_observe : state_only_reads {
  void observe(std::span<fl::index_t const>, int&) const {}
};
struct observes_with_all : state_only_reads {
  template <class Backend, class Comm>
  void observe(Backend const&, Comm&, std::span<fl::index_t const>, int&) const {}
};
struct learns : state_only_reads {
  template <class Backend>
  void route_and_learn(Backend const&, logits_view, fl::route_context const&, int&, fl::routing_view,
                       fl::workspace&) const {}
  fl::index_t logit_columns() const { return 2; }
};

// Sends every token to experts 0 ... k - 1 that are allowed: small, and right by the laws except for scores.
struct minimal {
  fl::index_t experts() const { return 3; }
  fl::index_t fan_out() const { return 1; }
  std::size_t workspace_bytes(fl::index_t) const { return 0; }
  void route(fl::serial const&, logits_view logits, fl::route_context const& context, fl::routing_view out,
             fl::workspace&) const {
    for (fl::index_t t = 0; t < logits.rows(); ++t) {
      bool const valid = context.token_mask.empty() || context.token_mask[static_cast<std::size_t>(t)] != 0;
      bool const some = valid && fl::is_candidate(logits(t, 0));
      out.experts(t, 0) = some ? static_cast<fl::expert_id>(0) : fl::expert_id::none;
      out.weights(t, 0) = some ? 1.0F : 0.0F;
    }
  }
};

}  // namespace

TEST_CASE("a minimal router is a model and passes the law kit") {
  STATIC_REQUIRE(fl::router_on<minimal, fl::serial>);
  STATIC_REQUIRE(fl::router_on<model<>, fl::serial>);
  STATIC_REQUIRE_FALSE(fl::causal<minimal>);
  CHECK(fl::laws::check_router(minimal{}, {.tokens = 10, .by_score = false}));
  CHECK_FALSE(fl::laws::check_router(minimal{}, {.tokens = 10}));
}

TEST_CASE("a router that misses a member is no router") {
  STATIC_REQUIRE_FALSE(fl::router_on<model<void>, fl::serial>);
  STATIC_REQUIRE_FALSE(fl::router_on<model<fl::index_t, void>, fl::serial>);
  STATIC_REQUIRE_FALSE(fl::router_on<model<fl::index_t, fl::index_t, void>, fl::serial>);
  STATIC_REQUIRE_FALSE(fl::router_on<model<fl::index_t, fl::index_t, std::size_t, std::nullptr_t>, fl::serial>);
  STATIC_REQUIRE_FALSE(fl::router_on<minimal, int>);
}

TEST_CASE("a router with a wrong return type is no router") {
  STATIC_REQUIRE_FALSE(fl::router_on<model<text>, fl::serial>);
  STATIC_REQUIRE_FALSE(fl::router_on<model<fl::index_t, text>, fl::serial>);
  STATIC_REQUIRE_FALSE(fl::router_on<model<fl::index_t, fl::index_t, text>, fl::serial>);
  STATIC_REQUIRE_FALSE(fl::router_on<model<fl::index_t, fl::index_t, std::size_t, int>, fl::serial>);
}

TEST_CASE("observing and learning are opt-ins of routers with state") {
  STATIC_REQUIRE(fl::router_on<state_only_reads, fl::serial>);
  STATIC_REQUIRE_FALSE(fl::has_observe<state_only_reads>);
  STATIC_REQUIRE(fl::router_on<with_observe, fl::serial>);
  STATIC_REQUIRE(fl::has_observe<with_observe>);
  STATIC_REQUIRE_FALSE(fl::has_collective_observe<with_observe, fl::serial, fl::alone>);
  STATIC_REQUIRE(fl::has_collective_observe<observes_with_all, fl::serial, fl::alone>);
  STATIC_REQUIRE_FALSE(fl::has_learning_route<state_only_reads, fl::serial>);
  STATIC_REQUIRE(fl::has_learning_route<learns, fl::serial>);
  STATIC_REQUIRE(fl::has_state<fl::sigmoid_bias_top_k>);
  STATIC_REQUIRE_FALSE(fl::has_state<fl::top_k>);
}

TEST_CASE("a router reads one logit an expert unless it says otherwise") {
  CHECK(fl::logit_columns(minimal{}) == 3);
  CHECK(fl::logit_columns(learns{}) == 2);
}

TEST_CASE("gradients are an opt-in that the library's routers take") {
  STATIC_REQUIRE_FALSE(fl::has_gradient_on<minimal, fl::serial>);
  STATIC_REQUIRE(fl::has_gradient_on<fl::top_k, fl::serial>);
  STATIC_REQUIRE(fl::has_gradient_on<fl::sigmoid_bias_group_top_k, fl::serial>);
}
