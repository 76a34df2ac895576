// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The load-balance losses of frameworks by name: what is counted, over what, and which factor stays outside.
#include <fairlead/balance/load_balance_loss.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Megatron-core's "aux_loss": coeff E / (k T^2) sum_e n_e sum_t p_te over a micro-batch; coeff at even loads.
///
/// n counts the k best scores without bias and groups. `sigmoid_share` divides sigmoids by their sum + 1e-20.
/// @tparam Share softmax_share or sigmoid_share
/// @source{Megatron-core, moe_utils switch_load_balancing_loss_func}
template <class Share = softmax_share>
using megatron_loss = load_balance_loss<Share, micro_batch_scope, best_scores>;
/// @brief Megatron-core's "seq_aux_loss": the same for each sequence, then the mean over sequences.
/// @tparam Share softmax_share or sigmoid_share
/// @source{Megatron-core, router _apply_seq_aux_loss}
template <class Share = softmax_share>
using megatron_sequence_loss = load_balance_loss<Share, sequence_scope, best_scores>;
/// @brief Megatron-core's "global_aux_loss": loads over all ranks and the micro-batches so far, shares of this one.
///
/// Loads are those of the routing (counts of a top-k of its own would need an exchange of their own).
/// @tparam Share softmax_share or sigmoid_share
/// @source{Megatron-core, router _apply_global_aux_loss; arXiv 2501.11873}
template <class Share = softmax_share>
using megatron_global_loss = load_balance_loss<Share, global_batch_scope>;
/// @brief DeepSpeed's loss of one and two experts a token: first choices only, also when two are chosen; 1 at even loads.
/// @source{DeepSpeed, sharded_moe top1gating and top2gating}
using deepspeed_loss = load_balance_loss<softmax_share, micro_batch_scope, first_choice>;
/// @brief DeepSpeed's loss of k experts a token: all choices, divided by k; 1 at even loads.
/// @source{DeepSpeed, sharded_moe topkgating}
using deepspeed_top_k_loss = load_balance_loss<softmax_share, micro_batch_scope, every_choice>;
/// @brief Tutel's GShard loss: first choices only; 1 at even loads.
/// @source{Tutel, impls/losses gshard_loss}
using tutel_loss = load_balance_loss<softmax_share, micro_batch_scope, first_choice>;
/// @brief mesh-TensorFlow's loss: E^2 mean(f o P) of first choices for each group (a sequence here), then the mean.
/// @source{mesh-TensorFlow, transformer/moe.py}
using mesh_loss = load_balance_loss<softmax_share, sequence_scope, first_choice>;
/// @brief Flaxformer's loss: E^2 mean(f o P) of all choices without 1 / k, for each group; k at even loads.
/// @source{Flaxformer, architectures/moe/routing.py, load_balancing_loss}
using flaxformer_loss = load_balance_loss<softmax_share, sequence_scope, sum_of_choices>;

/// @brief MegaBlocks' loss: scale weight E / (L T k) over all L layers at once, which is the sum over layers of this.
/// @param weight moe_loss_weight
/// @param layers number of MoE layers, >= 1
/// @returns the loss of one layer; all layers together give `weight` at even loads
/// @throws contract_violation (level 1) without layers
/// @source{MegaBlocks, layers/moe, batched_load_balancing_loss}
[[nodiscard]] inline load_balance_loss<> megablocks_loss(double weight, index_t layers) {
  FAIRLEAD_EXPECTS(layers >= 1, "the loss is shared by at least one layer", layers);
  return {.coefficient = weight / static_cast<double>(layers), .share = {}, .scope = {}};
}

FAIRLEAD_NAMESPACE_END
