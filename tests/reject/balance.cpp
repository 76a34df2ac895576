// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Bias controllers where they cannot work: the message says why, and what to take instead.
#include <fairlead/balance/exact_dual_bias.hpp>
#include <fairlead/balance/quantile_bias.hpp>
#include <fairlead/balance/sign_bias.hpp>
#include <fairlead/comm/alone.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/route/biased_token_choice.hpp>

namespace fl = fairlead;

template <class Router>
void learn(Router const& router) {
  fl::workspace ws;
  fl::routing_view const out;
  auto state = router.make_state();
  router.route_and_learn(fl::serial{}, {}, {}, state, out, ws);
}
template <class Router, class Comm>
void observe(Router const& router, Comm comm) {
  auto state = router.make_state();
  router.observe(fl::serial{}, comm, {}, state);
}
// A communicator that moves nothing.
struct silent {
  using memory_space = fl::host_space;
  fl::index_t rank() const { return 0; }
  fl::index_t size() const { return 1; }
  void barrier() const {}
};

void positive() {
  learn(fl::with_controller<fl::sigmoid_bias_top_k, fl::quantile_bias>{});
  observe(fl::with_controller<fl::sigmoid_bias_top_k, fl::quantile_bias>{}, fl::alone{});
  observe(fl::with_controller<fl::sigmoid_bias_group_top_k, fl::sign_bias>{}, silent{});
}

#if defined(REJECT_scores_under_groups)  // expect: a controller that reads scores aims at the balance of plain selection
void reject() { learn(fl::with_controller<fl::sigmoid_bias_group_top_k, fl::quantile_bias>{}); }
#endif

#if defined(REJECT_averages_without_reduction)  // expect: the controller does not work with this backend and communicator
void reject() { observe(fl::with_controller<fl::sigmoid_bias_top_k, fl::quantile_bias>{}, silent{}); }
#endif

#if defined(REJECT_solver_without_prices)  // expect: exact_dual_bias needs a solver that returns prices
struct greedy {
  std::size_t workspace_bytes(fl::index_t, fl::index_t, fl::index_t) const { return 0; }
};
void reject() { (void)fl::exact_dual_bias<greedy>{}; }
#endif
