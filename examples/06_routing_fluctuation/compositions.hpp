// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The layers that are compared: one expert a token, equal gates and experts, another rule of routing each.
#include "options.hpp"
#include "../common/gemm.hpp"

#include <fairlead/assign/balanced_flow.hpp>
#include <fairlead/balance/distillation_loss.hpp>
#include <fairlead/balance/exact_dual_bias.hpp>
#include <fairlead/balance/load_balance_loss.hpp>
#include <fairlead/balance/over_under_loss.hpp>
#include <fairlead/balance/quantile_bias.hpp>
#include <fairlead/balance/signals.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/expert/dense_ffn.hpp>
#include <fairlead/layer/moe_layer.hpp>
#include <fairlead/route/balanced_choice.hpp>
#include <fairlead/route/biased_token_choice.hpp>
#include <fairlead/route/distilled_gate.hpp>
#include <fairlead/route/fixed_choice.hpp>
#include <fairlead/route/linear_gate.hpp>
#include <fairlead/route/top_k.hpp>
#include <fairlead/route/two_stage.hpp>

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace routing_fluctuation {

/// Names for --compositions, in the order of the tables.
inline constexpr std::array<std::string_view, 8> composition_names{
    "base_greedy", "base_priced", "stable_one", "stable_two", "switch", "hash", "quantile", "exact_dual"};

/// @brief Call visit(layer) with the composition of a name; each layer has a type of its own. None drops a token.
/// @param name one of `composition_names`
/// @param chosen sizes
/// @param vocabulary words of the text
/// @param seed of the run
/// @param visit takes an `fl::moe_layer`
template <class Visit>
void visit_composition(std::string_view name, options const& chosen, index_t vocabulary, std::uint64_t seed,
                       Visit const& visit) {
  using examples::gemm_policy;
  index_t const experts = chosen.experts;
  fl::linear_gate<gemm_policy> const gate{.width = chosen.width, .experts = experts};
  fl::dense_ffn<float, fl::relu, gemm_policy> const expert{.width = chosen.width, .hidden = chosen.hidden};

  // BASE: balanced by assignment in training, the sigmoid of the given expert's logit as weight.
  if (name == "base_greedy") {  // the paper's evaluation: the best logit
    visit(fl::moe_layer{.gate = gate,
                        .router = fl::balanced_choice<fl::balanced_flow>{.experts = experts},
                        .expert = expert});
  }
  if (name == "base_priced") {  // the best logit minus the average price of training
    visit(fl::moe_layer{.gate = gate,
                        .router = fl::balanced_choice<fl::balanced_flow, fl::priced_evaluation>{.experts = experts},
                        .expert = expert});
  }
  // StableMoE. Stage 1: the best logit, its sigmoid as weight, a loss on the load.
  if (name == "stable_one") {
    visit(fl::moe_layer{.gate = gate,
                        .router = fl::top_k_sigmoid{.experts = experts, .k = 1},
                        .signal = fl::over_under_loss{.coefficient = 0.3},
                        .expert = expert});
  }
  // Both stages: a router that sees the word alone learns what stage 1 does, and routes, frozen, after a tenth of the run.
  if (name == "stable_two") {
    auto const last_of_first = static_cast<std::uint64_t>(chosen.steps / 10 + 1);
    visit(fl::moe_layer{
        .gate = fl::distilled_gate<fl::token_embedding, fl::linear_gate<gemm_policy>>{
            .backbone = gate, .features = {.vocabulary = vocabulary, .width = 50}, .switch_step = last_of_first},
        .router = fl::two_stage<>{.first = {.experts = experts, .k = 1}, .switch_step = last_of_first},
        .signal = fl::all_of(fl::over_under_loss{.coefficient = 0.3, .switch_step = last_of_first},
                             fl::distillation_loss{.coefficient = 1.0, .switch_step = last_of_first}),
        .expert = expert});
  }
  // Switch: the most probable expert, its probability as weight, the auxiliary loss of the paper.
  if (name == "switch") {
    visit(fl::moe_layer{.gate = gate,
                        .router = fl::softmax_top_k{.experts = experts, .k = 1},
                        .signal = fl::switch_loss{.coefficient = 1e-2},
                        .expert = expert});
  }
  // Hash layers: a random expert for each word, for ever, with weight 1.
  if (name == "hash") {
    std::vector<fl::expert_id> table;
    for (index_t word = 0; word < vocabulary; ++word) {
      auto const random = fl::philox::draw(seed, 77, static_cast<std::uint64_t>(word))[0];
      table.push_back(static_cast<fl::expert_id>(fl::philox::below(random, static_cast<std::uint32_t>(experts))));
    }
    using hash = fl::table_choice<fl::row_by_token_id, fl::raw_score, fl::softmax_over_chosen>;
    visit(fl::moe_layer{.gate = gate,
                        .router = hash{.experts = experts, .table = {table.data(), vocabulary, 1}},
                        .expert = expert});
  }
  // The best sigmoid + bias, the sigmoid as weight; the bias follows the prices that would have balanced the last batches.
  using biased = fl::biased_token_choice<fl::sigmoid_score, fl::plain_selection>;
  if (name == "quantile") {
    visit(fl::moe_layer{.gate = gate,
                        .router = fl::with_controller<biased, fl::quantile_bias>{.experts = experts, .controller = {.decay = 0.9}},
                        .expert = expert});
  }
  if (name == "exact_dual") {
    visit(fl::moe_layer{.gate = gate,
                        .router = fl::with_controller<biased, fl::exact_dual_bias<fl::balanced_flow>>{.experts = experts, .controller = {.decay = 0.9}},
                        .expert = expert});
  }
}

}  // namespace routing_fluctuation
