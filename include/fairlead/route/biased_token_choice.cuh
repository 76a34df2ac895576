// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The device text of `biased_token_choice`.
#include <fairlead/route/biased_token_choice.hpp>
#include <fairlead/route/detail/route_warp.cuh>

#include <cstddef>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Device text of `biased_token_choice`. The bias lives on the host and is copied to the stream in each call.
/// @determinism ids and weights are the bits of the host text
template <class Score, class Selection, class Renormalisation, class Noise, class Controller,
          cuda_backend Backend>
struct implementation<biased_token_choice<Score, Selection, Renormalisation, Noise, Controller>, Backend> {
  using policy = biased_token_choice<Score, Selection, Renormalisation, Noise, Controller>;  ///< the router
  /// See `biased_token_choice::route`.
  static void route(policy const& router, Backend const& on, matrix_view<float const> logits,
                    route_context const& context, typename policy::state_type const& state, routing_view out,
                    workspace& ws) {
    if (logits.rows() == 0) { return; }
    workspace::scope const scope(ws);
    auto const bias = ws.take<float>(router.experts());
    on.from_host(bias.data(), state.values.data(), state.values.size() * sizeof(float));
    detail::launch_route(on.native(), router, logits, context, bias.data(), out, ws);
  }
  /// See `biased_token_choice::backward`.
  static void backward(policy const& router, Backend const& on, matrix_view<float const> logits,
                       route_context const& context, typename policy::state_type const&, const_routing_view out,
                       matrix_view<float const> grad_weights, matrix_view<float> grad_logits, workspace& ws) {
    if (logits.rows() == 0) { return; }
    workspace::scope const scope(ws);
    detail::launch_route_gradient(on.native(), router, logits, context, out, grad_weights, grad_logits, ws);
  }
};

FAIRLEAD_NAMESPACE_END
