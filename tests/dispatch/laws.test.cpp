// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/comm/alone.hpp>
#include <fairlead/comm/inproc.hpp>
#include <fairlead/dispatch/capacity.hpp>
#include <fairlead/dispatch/deduplicated_exchange.hpp>
#include <fairlead/dispatch/exchange.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/laws/dispatcher.hpp>

#include "support/catch.hpp"

#include <vector>

namespace fl = fairlead;
using fl::index_t;

namespace {

// The verdict of every rank; rank 1 has no tokens when there are three ranks or more.
template <class Dispatcher>
fl::laws::verdict on_ranks(Dispatcher const& dispatcher, index_t ranks, fl::laws::dispatcher_options options) {
  fl::inproc::world world{ranks};
  auto const verdicts = world.run([&](fl::inproc::communicator comm) {
    auto mine = options;
    mine.tokens = comm.rank() == 1 && ranks >= 3 ? 0 : options.tokens + 3 * comm.rank();
    return fl::laws::check_dispatcher(dispatcher, fl::serial{}, comm, mine);
  });
  for (auto const& verdict : verdicts) {
    if (!verdict) { return verdict; }
  }
  return {};
}

template <class Dispatcher>
void check_everywhere(Dispatcher const& dispatcher, fl::laws::dispatcher_options options = {}) {
  for (index_t const ranks : {1, 2, 3, 4, 8}) {
    for (index_t const replicas : {1, 2}) {
      for (index_t const fan_out : {1, 2, 4}) {
        CAPTURE(ranks, replicas, fan_out);
        options.replicas = replicas;
        options.fan_out = fan_out;
        options.seed = static_cast<std::uint64_t>(7 * ranks + fan_out);
        CHECK(on_ranks(dispatcher, ranks, options));
      }
    }
  }
}

}  // namespace

TEST_CASE("The plain exchange keeps the laws of a dispatcher") {
  check_everywhere(fl::exchange<>{});
  check_everywhere(fl::exchange<>{.alignment = 16});
}

TEST_CASE("The deduplicated exchange keeps the laws of a dispatcher") {
  check_everywhere(fl::deduplicated_exchange<>{});
  check_everywhere(fl::deduplicated_exchange<>{.alignment = 8});
}

TEST_CASE("Dispatchers with a capacity of any scope keep the laws") {
  fl::laws::dispatcher_options const drops{.drops = true};
  using rank_scope = fl::fixed_capacity<fl::capacity_scope::rank>;
  using global_scope = fl::fixed_capacity<fl::capacity_scope::global>;
  using receiver_scope = fl::fixed_capacity<fl::capacity_scope::receiver>;
  for (index_t const places : {0, 3, 11}) {
    CAPTURE(places);
    check_everywhere(fl::exchange<rank_scope>{.capacity = {places}}, drops);
    check_everywhere(fl::exchange<global_scope>{.capacity = {places}}, drops);
    check_everywhere(fl::exchange<receiver_scope>{.capacity = {places}}, drops);
    check_everywhere(fl::deduplicated_exchange<rank_scope>{.capacity = {places}}, drops);
    check_everywhere(fl::deduplicated_exchange<global_scope>{.capacity = {places}}, drops);
  }
}

TEST_CASE("Dispatchers with other orders and overflow actions keep the laws") {
  using limited = fl::fixed_capacity<fl::capacity_scope::rank>;
  fl::laws::dispatcher_options const drops{.drops = true};
  fl::laws::dispatcher_options const renormalises{.drops = true, .renormalises = true};
  fl::laws::dispatcher_options const returns{.drops = true, .returns_tokens = true};
  check_everywhere(fl::exchange<limited, fl::choice_major_order>{.capacity = {5}}, drops);
  check_everywhere(fl::exchange<limited, fl::batch_prioritized_order>{.capacity = {5}}, drops);
  check_everywhere(fl::exchange<limited, fl::weight_order>{.capacity = {5}}, drops);
  check_everywhere(fl::exchange<limited, fl::random_order>{.capacity = {5}}, drops);
  check_everywhere(fl::exchange<limited, fl::token_order, fl::drop_and_renormalise>{.capacity = {5}}, renormalises);
  check_everywhere(fl::exchange<limited, fl::token_order, fl::identity>{.capacity = {5}}, returns);
  check_everywhere(fl::exchange<limited, fl::choice_major_order, fl::next_choice>{.capacity = {5}}, drops);
  check_everywhere(fl::exchange<limited, fl::token_order, fl::reroute>{.capacity = {5}}, drops);
  check_everywhere(fl::deduplicated_exchange<limited, fl::weight_order>{.capacity = {5}}, drops);
  check_everywhere(fl::deduplicated_exchange<limited, fl::token_order, fl::drop_and_renormalise>{.capacity = {5}}, renormalises);
  check_everywhere(fl::deduplicated_exchange<limited, fl::token_order, fl::identity>{.capacity = {5}}, returns);
}

TEST_CASE("A dispatcher works without threads, tokens or more than one expert") {
  fl::alone comm;
  for (index_t const tokens : {0, 1, 33}) {
    CHECK(fl::laws::check_dispatcher(fl::exchange<>{}, fl::serial{}, comm, {.tokens = tokens}));
    CHECK(fl::laws::check_dispatcher(fl::exchange<>{}, fl::serial{}, comm, {.tokens = tokens, .experts = 1, .fan_out = 1}));
    CHECK(fl::laws::check_dispatcher(fl::deduplicated_exchange<>{}, fl::serial{}, comm, {.tokens = tokens}));
  }
}

namespace {
// Models with one planted fault each.
struct loses_weights : fl::exchange<> {
  template <class Backend, class Pending, class Plan, class Wire>
  void finish_combine(Backend const& on, Plan const& plan, Pending& pending, fl::matrix_view<float const> rows,
                      fl::matrix_view<float const> tokens, Wire& wire, fl::matrix_view<float> out) const {
    fl::exchange<>::finish_combine(on, plan, pending, rows, tokens, wire, out);
    if (out.rows() > 2) { out(2, 0) *= 0.5F; }
  }
};
struct swaps_rows : fl::exchange<> {
  template <class Backend, class Pending, class Plan, class Wire>
  void finish_dispatch(Backend const& on, Plan const& plan, Pending& pending, fl::matrix_view<float const> tokens,
                       Wire& wire, fl::matrix_view<float> rows) const {
    fl::exchange<>::finish_dispatch(on, plan, pending, tokens, wire, rows);
    for (index_t c = 0; c < rows.cols() && rows.rows() > 1; ++c) { std::swap(rows(0, c), rows(1, c)); }
  }
};
struct forgets_gradients : fl::exchange<> {
  template <class Backend, class Pending, class Plan, class Wire>
  void finish_dispatch_backward(Backend const& on, Plan const& plan, Pending& pending,
                                fl::matrix_view<float const> grad_rows, fl::matrix_view<float const> grad_out, Wire& wire,
                                fl::matrix_view<float> grad_weights, fl::matrix_view<float> grad_tokens) const {
    fl::exchange<>::finish_dispatch_backward(on, plan, pending, grad_rows, grad_out, wire, grad_weights, grad_tokens);
    for (index_t c = 0; c < grad_tokens.cols() && grad_tokens.rows() > 0; ++c) { grad_tokens(0, c) = 0.0F; }
  }
};
struct drops_in_secret : fl::exchange<> {
  void limit(fl::matrix_view<fl::count_t const> gathered, fl::placement const& where, index_t fan_out,
             fl::matrix_view<fl::count_t> kept) const {
    fl::exchange<>::limit(gathered, where, fan_out, kept);
    for (index_t e = 0; e < kept.cols(); ++e) { kept(0, e) = std::min(kept(0, e), fl::count_t{2}); }
  }
};
struct halves_weight_gradients : fl::exchange<> {
  template <class Backend, class Comm, class Plan, class Wire>
  auto start_combine_backward(Backend const& on, Comm& comm, Plan const& plan, fl::matrix_view<float const> grad_out,
                              fl::matrix_view<float const> tokens, fl::matrix_view<float> rows, Wire& wire,
                              fl::matrix_view<float> grad_weights) const {
    auto pending = fl::exchange<>::start_combine_backward(on, comm, plan, grad_out, tokens, rows, wire, grad_weights);
    for (index_t t = 0; t < grad_weights.rows(); ++t) { grad_weights(t, 0) *= 0.5F; }
    return pending;
  }
};
}  // namespace

TEST_CASE("The law kit finds planted faults in a dispatcher") {
  for (index_t const ranks : {1, 2}) {
    CAPTURE(ranks);
    CHECK_FALSE(on_ranks(loses_weights{}, ranks, {}));
    CHECK_FALSE(on_ranks(swaps_rows{}, ranks, {}));
    CHECK_FALSE(on_ranks(forgets_gradients{}, ranks, {}));
    CHECK_FALSE(on_ranks(drops_in_secret{}, ranks, {}));
    CHECK_FALSE(on_ranks(halves_weight_gradients{}, ranks, {}));
    CHECK(on_ranks(drops_in_secret{}, ranks, {.drops = true}));
    // A dispatcher that drops although it promised not to is found by its own kit options.
    CHECK_FALSE(on_ranks(fl::exchange<fl::fixed_capacity<>>{.capacity = {1}}, ranks, {}));
  }
}
