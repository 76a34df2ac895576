// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The device text of `token_choice`: a warp a token, the same ids and weights as on the host.
#include <fairlead/route/detail/route_warp.cuh>
#include <fairlead/route/token_choice.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Device text of `token_choice`. Masks of the context are device memory.
///
/// Up to 512 experts a row's keys live in registers; longer rows are read again for each choice.
/// @determinism ids and weights are the bits of the host text
template <class Score, class Selection, class Renormalisation, class Noise, cuda_backend Backend>
struct implementation<token_choice<Score, Selection, Renormalisation, Noise>, Backend> {
  using policy = token_choice<Score, Selection, Renormalisation, Noise>;  ///< the router
  /// See `token_choice::route`.
  static void route(policy const& router, Backend const& on, matrix_view<float const> logits,
                    route_context const& context, routing_view out, workspace& ws) {
    if (logits.rows() == 0) { return; }
    workspace::scope const scope(ws);
    detail::launch_route(on.native(), router, logits, context, nullptr, out, ws);
  }
  /// See `token_choice::backward`.
  static void backward(policy const& router, Backend const& on, matrix_view<float const> logits,
                       route_context const& context, const_routing_view out, matrix_view<float const> grad_weights,
                       matrix_view<float> grad_logits, workspace& ws) {
    if (logits.rows() == 0) { return; }
    workspace::scope const scope(ws);
    detail::launch_route_gradient(on.native(), router, logits, context, out, grad_weights, grad_logits, ws);
  }
};

FAIRLEAD_NAMESPACE_END
