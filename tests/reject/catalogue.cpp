// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Losses, capacities and overflow actions that contradict each other.
#include <fairlead/balance/load_balance_loss.hpp>
#include <fairlead/balance/noisy_load_loss.hpp>
#include <fairlead/dispatch/exchange.hpp>
#include <fairlead/dispatch/identity_experts.hpp>
#include <fairlead/dispatch/token_groups.hpp>
#include <fairlead/route/noisy_top_k.hpp>
#include <fairlead/route/top_k.hpp>

namespace fl = fairlead;

void positive() {
  (void)fl::load_balance_loss<fl::softmax_share, fl::global_batch_scope, fl::sum_of_choices>{}.coefficient;
  (void)fl::exchange<fl::identity_experts<>, fl::token_order, fl::identity>{}.workspace_bytes(1, 1, 1);
  (void)fl::exchange<fl::dropless, fl::grouped_order<>, fl::drop_in_groups<>>{}.workspace_bytes(1, 1, 1);
  (void)fl::noisy_load_loss<fl::noisy_top_k>{}.coefficient;
}

#if defined(REJECT_first_choices_of_all)  // expect: the loads of a global batch are those of all copies
void reject() { (void)fl::load_balance_loss<fl::softmax_share, fl::global_batch_scope, fl::first_choice>{}.coefficient; }
#endif

#if defined(REJECT_closed_and_reassigned)  // expect: does not know closed experts
void reject() { (void)fl::exchange<fl::identity_experts<>, fl::token_order, fl::next_choice>{}.workspace_bytes(1, 1, 1); }
#endif

#if defined(REJECT_groups_of_all_ranks)  // expect: drop_in_groups
void reject() { (void)fl::drop_in_groups<fl::megablocks_capacity>{}; }
#endif

#if defined(REJECT_load_without_noise)  // expect: noisy_load_loss
void reject() { (void)fl::noisy_load_loss<fl::top_k>{}.coefficient; }
#endif
