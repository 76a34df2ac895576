// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Token choice that avoids ranks which lag behind: a biased router with the backlogs of ranks as its bias.
#include <fairlead/edge/queue_bias.hpp>
#include <fairlead/route/biased_token_choice.hpp>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Any biased router, with `queue_bias` as its controller.
/// @tparam Router a `biased_token_choice`
template <class Router>
using queue_biased = with_controller<Router, queue_bias>;

/// @brief Choose by sigmoid score less backlog of the expert's rank, weigh by score alone:
/// `queue_biased_choice{.experts = 64, .k = 8, .controller = {.ranks = 8}}`.
///
/// The layer calls `observe` once a global batch. Measured rates go into the controller's state:
/// `router.controller.gather_rates(on, comm, copies, milliseconds, state.router.controller)`.
/// @source{2512.06784, routing per slot (reconstructed), for ranks of a data center}
using queue_biased_choice = queue_biased<sigmoid_bias_top_k>;

static_assert(router_on<queue_biased_choice, serial> && has_gradient_on<queue_biased_choice, serial>);
static_assert(has_collective_observe<queue_biased_choice, serial, alone>);

FAIRLEAD_NAMESPACE_END
