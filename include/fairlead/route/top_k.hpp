// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The token-choice routers in use, by name.
#include <fairlead/exec/serial.hpp>
#include <fairlead/route/token_choice.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief S2, the default: choose by logit, weigh by the softmax over the chosen logits (Mixtral).
///
/// Only chosen logits get a gradient.
/// @source{routing orders S2, Mixtral; Megatron-core default}
using top_k = token_choice<raw_score, plain_selection, softmax_over_chosen>;
/// @brief S1: weigh by the softmax over all experts, not renormalised (Switch, GShard raw gate).
///
/// Every logit of a row gets a gradient.
/// @source{routing orders S1, Megatron-core pre_softmax}
using softmax_top_k = token_choice<softmax_score, plain_selection, not_renormalised>;
/// @brief S3: the softmax over all experts divided by the sum of the chosen shares (Qwen3).
///
/// Equal to `top_k` in exact arithmetic. The full denominator cancels, so it is not computed; with fp32 logits the
/// result is then the same bits as that of `top_k`. The type keeps the order's name, for configurations and traces.
/// @source{routing orders S3, Qwen3}
using softmax_top_k_renormalised = token_choice<softmax_score, plain_selection, sum_over_chosen>;
/// @brief S4: weigh by the sigmoid over the sum of the chosen sigmoids; k = 1 is not renormalised.
/// @source{routing orders S4, Megatron-core sigmoid}
using sigmoid_top_k = token_choice<sigmoid_score, plain_selection, sum_over_chosen>;
/// @brief S7: the softmax over all experts, chosen inside the groups with the best experts (DeepSeek-V2).
/// @source{routing orders S7, DeepSeek-V3 inference code without bias}
using softmax_group_top_k = token_choice<softmax_score, group_limited<group_maximum>, not_renormalised>;
/// @brief S8: choose by logit, weigh by its sigmoid (Llama 4 with k = 1).
/// @source{routing orders S8}
using top_k_sigmoid = token_choice<sigmoid_score, plain_selection, not_renormalised>;
/// @brief S9: sqrt(softplus) scores over their chosen sum; k = 1 is not renormalised.
/// @source{routing orders S9, Megatron-core sqrtsoftplus}
using sqrt_softplus_top_k = token_choice<sqrt_softplus_score, plain_selection, sum_over_chosen>;

static_assert(router_on<top_k, serial> && has_gradient_on<top_k, serial>);
static_assert(router_on<softmax_top_k, serial> && has_gradient_on<softmax_top_k, serial>);
static_assert(router_on<softmax_group_top_k, serial> && has_gradient_on<softmax_group_top_k, serial>);

FAIRLEAD_NAMESPACE_END
