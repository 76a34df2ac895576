// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The MoE layers that are compared. A composition is a value that names its parts; add yours here.
#include "options.hpp"
#include "training.hpp"

#include <fairlead/balance/load_balance_loss.hpp>
#include <fairlead/balance/sign_bias.hpp>
#include <fairlead/balance/signals.hpp>
#include <fairlead/balance/z_loss.hpp>
#include <fairlead/dispatch/capacity.hpp>
#include <fairlead/dispatch/exchange.hpp>
#include <fairlead/expert/gated_ffn.hpp>
#include <fairlead/layer/moe_layer.hpp>
#include <fairlead/route/biased_token_choice.hpp>
#include <fairlead/route/linear_gate.hpp>
#include <fairlead/route/top_k.hpp>

#include <array>
#include <string_view>

namespace language_model {

/// Names for --compositions, in the order of training.
inline constexpr std::array<std::string_view, 3> composition_names{"switch", "deepseek", "mixtral"};

/// @brief Call visit(name, layer) for every composition; each layer has a type of its own.
/// @param chosen sizes
/// @param visit takes a name and an `fl::moe_layer`
template <class Visit>
void for_each_composition(options const& chosen, Visit const& visit) {
  using expert = fl::gated_ffn<float, fl::silu, examples::gemm_policy>;
  using gate = fl::linear_gate<examples::gemm_policy>;
  index_t const width = chosen.width, experts = chosen.experts, hidden = chosen.hidden;
  // A token passes 2 * hidden units in each of them: the same work.

  // One large expert a token, weighed by its probability. An auxiliary loss balances, and who still finds an expert
  // full (a quarter above the mean load of its rank) passes by on the residual path.
  visit("switch", fl::moe_layer{
                      .gate = gate{.width = width, .experts = experts},
                      .router = fl::softmax_top_k{.experts = experts, .k = 1},
                      .signal = fl::switch_loss{.coefficient = 1e-2},
                      .dispatcher = fl::exchange{.capacity = fl::megatron_capacity{.factor = 1.25}},
                      .expert = expert{.width = width, .hidden = 2 * hidden},
                  });

  // Two of twice as many, half as large experts by sigmoid scores, and one expert for all tokens. No loss balances:
  // a bias of each expert follows the load. Nothing is dropped.
  visit("deepseek", fl::moe_layer{
                        .gate = gate{.width = width, .experts = 2 * experts},
                        .router = fl::with_controller<fl::sigmoid_bias_top_k, fl::sign_bias>{
                            .experts = 2 * experts, .k = 2, .controller = {.step = 5e-3F}},
                        .expert = expert{.width = width, .hidden = hidden / 2},
                        .shared = expert{.width = width, .hidden = hidden},
                    });

  // Two experts a token, weighed by the softmax over their two logits. An auxiliary loss over the loads of all ranks,
  // and one that keeps logits small; nothing is dropped.
  using global_loss = fl::load_balance_loss<fl::softmax_share, fl::global_batch_scope>;
  visit("mixtral", fl::moe_layer{
                       .gate = gate{.width = width, .experts = experts},
                       .router = fl::top_k{.experts = experts, .k = 2},
                       .signal = fl::all_of(global_loss{.coefficient = 1e-2}, fl::z_loss{.coefficient = 1e-3}),
                       .expert = expert{.width = width, .hidden = hidden},
                   });
}

}  // namespace language_model
