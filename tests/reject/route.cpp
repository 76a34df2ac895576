// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Routers that cannot be what they are asked to be: the message says why, and what to take instead.
#include <fairlead/assign/greedy.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/route/balanced_choice.hpp>
#include <fairlead/route/biased_token_choice.hpp>
#include <fairlead/route/decode_only.hpp>
#include <fairlead/route/expert_choice.hpp>
#include <fairlead/route/forced_choice.hpp>
#include <fairlead/route/forced_logits.hpp>
#include <fairlead/route/top_k.hpp>

namespace fl = fairlead;

template <class Router>
void ask(Router const& router) {
  fl::workspace ws;
  fl::routing_view const out;
  router.route(fl::serial{}, {}, {.phase = fl::phase::evaluate}, out, ws);
}

void positive() {
  ask(fl::decode_only<fl::top_k>{});
  ask(fl::expert_choice{});
  ask(fl::token_choice<fl::sigmoid_score, fl::plain_selection, fl::sum_over_chosen>{});
  ask(fl::forced_balance<fl::top_k>{});
  (void)fl::balanced_choice<fl::greedy_argmax>{.experts = 2};
}

#if defined(REJECT_decoding_coupled)  // expect: decoding needs a router whose tokens do not see their batch-mates
void reject() { ask(fl::decode_only<fl::expert_choice>{}); }
#endif

#if defined(REJECT_decoding_by_position)  // expect: decoding needs a router whose tokens do not see their batch-mates
void reject() { ask(fl::decode_only<fl::random_choice>{}); }
#endif

#if defined(REJECT_softmax_of_sigmoid)  // expect: softmax_over_chosen goes with raw_score
void reject() { ask(fl::token_choice<fl::sigmoid_score, fl::plain_selection, fl::softmax_over_chosen>{}); }
#endif

#if defined(REJECT_sum_of_raw)  // expect: raw logits have no sign: renormalise them by softmax_over_chosen
void reject() { ask(fl::token_choice<fl::raw_score, fl::plain_selection, fl::sum_over_chosen>{}); }
#endif

#if defined(REJECT_forcing_a_bias)  // expect: forced_logits wraps stateless routers
void reject() {
  fl::forced_balance<fl::sigmoid_bias_top_k> const router{};
  (void)router;
}
#endif

#if defined(REJECT_shares)  // expect: shares are shares_over_experts or shares_over_tokens
struct shares_over_nothing {};
void reject() { ask(fl::basic_expert_choice<shares_over_nothing>{}); }
#endif

#if defined(REJECT_prices_of_nobody)  // expect: priced_evaluation needs a solver that states has_prices
void reject() {
  fl::balanced_choice<fl::greedy_argmax, fl::priced_evaluation> const router{.experts = 2};
  (void)router;
}
#endif

#if defined(REJECT_no_solver)  // expect: .solver must model fairlead::assignment_solver_on
struct not_a_solver {
  std::size_t workspace_bytes(fl::index_t, fl::index_t, fl::index_t) const { return 0; }
};
void reject() {
  fl::balanced_choice<not_a_solver> const router{.experts = 2};
  auto const state = router.make_state();
  fl::workspace ws;
  fl::routing_view const out;
  router.route(fl::serial{}, {}, {.phase = fl::phase::evaluate}, state, out, ws);
}
#endif
