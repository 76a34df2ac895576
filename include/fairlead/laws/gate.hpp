// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Check that a type keeps the promises of the concept `gate_on`.
#include <fairlead/concepts/gate.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/laws/verdict.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief The problem that `check_gate` makes.
struct gate_problem {
  index_t tokens = 5;      ///< tokens a batch
  index_t width = 6;       ///< columns of a token
  index_t experts = 4;     ///< logits a token
  std::uint64_t seed = 1;  ///< seed of parameters, tokens, ids and padding
  std::int32_t vocabulary = 8;  ///< token ids are below it (gates that read the context)
  bool padding = false;         ///< whether a random half of the tokens is padding (gates that read the context)
};

/// @brief Check a gate on random tokens (host memory).
///
/// Laws: logits are overwritten; both gradients are added to and equal central differences; zero tokens are legal.
/// Gates that read the context get token ids, step 0 in training; equal calls in evaluation give equal logits.
/// @param gate the gate
/// @param on host backend
/// @param problem its sizes
/// @returns the first broken law
/// @complexity O((parameters + tokens x width) x forward); allocates
template <class Gate, host_backend Backend>
  requires gate_on<Gate, Backend>
[[nodiscard]] verdict check_gate(Gate const& gate, Backend const& on, gate_problem const& problem) {
  auto const layout = gate.parameter_layout();
  std::vector<float> parameters(static_cast<std::size_t>(layout.size())), gradients(parameters.size(), 1.0F);
  matrix<float> tokens(problem.tokens, problem.width), grad_tokens(problem.tokens, problem.width);
  matrix<float> logits(problem.tokens, problem.experts), grad_logits(problem.tokens, problem.experts);
  std::uint64_t index = 0;
  auto const next = [&] { return static_cast<float>(philox::normal(problem.seed, 21, index++)); };
  for (float& value : parameters) { value = next(); }
  for (float& value : tokens.span()) { value = next(); }
  for (float& value : grad_logits.span()) { value = next(); }
  for (float& value : grad_tokens.span()) { value = 1.0F; }
  arena<> memory(gate.workspace_bytes(problem.tokens));
  std::vector<std::int32_t> ids;
  std::vector<std::uint8_t> valid;
  for (index_t t = 0; t < problem.tokens; ++t) {
    auto const words = philox::draw(problem.seed, 22, static_cast<std::uint64_t>(t));
    ids.push_back(static_cast<std::int32_t>(philox::below(words[0], static_cast<std::uint32_t>(problem.vocabulary))));
    if (problem.padding) { valid.push_back(static_cast<std::uint8_t>(words[1] & 1U)); }
  }
  route_context context{.phase = phase::train, .seed = problem.seed, .token_mask = valid, .token_ids = ids};
  auto const forward = [&](matrix_view<float const> in, matrix_view<float> out) {
    workspace scratch = memory.view();
    if constexpr (has_context_gate<Gate, Backend>) {
      gate.forward(on, std::span<float const>(parameters), in, context, out, scratch);
    } else {
      gate.forward(on, std::span<float const>(parameters), in, out, scratch);
    }
  };
  auto const loss = [&] {
    for (float& value : logits.span()) { value = std::nanf(""); }
    forward(std::as_const(tokens).view(), logits.view());
    double sum = 0.0;
    for (index_t i = 0; i < logits.rows() * logits.cols(); ++i) {
      sum += static_cast<double>(logits.data()[i]) * static_cast<double>(grad_logits.data()[i]);
    }
    return sum;
  };
  if (!std::isfinite(loss())) { return verdict::broken("forward overwrites every logit"); }
  workspace ws = memory.view();
  if constexpr (has_context_gate<Gate, Backend>) {
    gate.backward(on, std::span<float const>(parameters), std::as_const(tokens).view(), context, std::as_const(grad_logits).view(),
                  std::span<float>(gradients), grad_tokens.view(), ws);
  } else {
    gate.backward(on, std::span<float const>(parameters), std::as_const(tokens).view(), std::as_const(grad_logits).view(),
                  std::span<float>(gradients), grad_tokens.view(), ws);
  }
  auto const differs = [&](float& value, float gradient) {
    float const old = value;
    double const step = 1.0 / 64.0;
    value = old + static_cast<float>(step);
    double const above = loss();
    value = old - static_cast<float>(step);
    double const below = loss();
    value = old;
    double const want = (above - below) / (2.0 * step);
    return !(std::abs(static_cast<double>(gradient) - 1.0 - want) <= 1e-3 * (1.0 + std::abs(want)));
  };
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (differs(parameters[i], gradients[i])) {
      return verdict::broken("the gradient of a parameter is added and equals differences [parameter ", i, ']');
    }
  }
  for (index_t i = 0; i < problem.tokens * problem.width; ++i) {
    if (differs(tokens.data()[i], grad_tokens.data()[i])) {
      return verdict::broken("the gradient of a token is added and equals differences [element ", i, ']');
    }
  }
  if constexpr (has_context_gate<Gate, Backend>) {
    context.phase = phase::evaluate;
    if (loss() != loss()) { return verdict::broken("equal calls in evaluation give equal logits"); }
    context.token_ids = {};
    context.token_mask = {};
  }
  forward({nullptr, 0, problem.width}, {nullptr, 0, problem.experts});
  return {};
}

}  // namespace laws
FAIRLEAD_NAMESPACE_END
