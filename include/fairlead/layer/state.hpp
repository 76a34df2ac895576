// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What a layer keeps between steps, and what a backward pass needs of a forward pass.
#include <fairlead/concepts/balance_signal.hpp>
#include <fairlead/concepts/dispatcher.hpp>
#include <fairlead/concepts/router.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/layer/options.hpp>
#include <fairlead/layer/step_report.hpp>

#include <optional>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

namespace detail {
struct no_state {};
template <class Router>
struct router_state_of {
  using type = no_state;
};
template <has_state Router>
struct router_state_of<Router> {
  using type = router_state_t<Router>;
};
}  // namespace detail

/// @brief Parameters and gradients of a replicated part of a layer.
/// @tparam Value parameter type
/// @tparam Space memory space
template <class Value, memory_space Space>
struct replicated_parameters {
  parameter_layout layout;          ///< blocks
  buffer<Value, Space> values;      ///< @shape{layout.size()}
  buffer<Value, Space> gradients;   ///< @shape{layout.size()}
};

/// @brief Everything a layer keeps between steps: parameters, placement, router and signal state, scratch. Move-only.
///
/// Made by `moe_layer::make_state`. One state is used by one thread at a time.
template <class Layer, class Backend, class Comm>
struct layer_state {
  static_assert(Layer::template check_parts<Backend, Comm>());
  using memory_space = typename Backend::memory_space;  ///< where rows and parameters live
  using value_type = typename Layer::value_type;        ///< element type of rows
  /// The parameters of this rank's experts.
  using store_type = typename Layer::template store_of<Backend, Comm>;

  Backend on;                                        ///< where work runs
  Comm comm;                                         ///< this rank's communicator
  layer_limits limits;                               ///< what it was made for
  placement where;                                   ///< which expert sits where
  replicated_parameters<value_type, memory_space> gate{};    ///< router projection
  replicated_parameters<value_type, memory_space> shared{};  ///< shared expert, empty if none
  store_type store;                                  ///< experts
  typename detail::router_state_of<typename Layer::router_type>::type router{};  ///< bias, duals, stage
  signal_state_t<typename Layer::signal_type> signal;      ///< running counts of losses
  parameter_layout expert_layout{};                  ///< blocks of one expert
  std::uint64_t step = 0;                            ///< number of training forward passes so far; saved and restored
  std::uint64_t trained_step = 0;                    ///< `route_context::step` of the last training forward pass
  std::vector<index_t> global_counts{};                ///< routed copies per expert since the last global batch. @shape{experts}

  buffer<count_t, memory_space> gathered_raw{};        ///< count rows as they were gathered
  matrix<count_t> gathered{};                          ///< count rows on the host. @shape{ranks x (2 experts + 1)}
  matrix<count_t> kept{};                              ///< load after capacity. @shape{ranks x experts}
  matrix<count_t> schedule{};                          ///< @shape{ranks x replicas}
  std::vector<index_t> totals{};                       ///< routed copies per expert of this step. @shape{experts}
  std::vector<index_t> rank_copies{};                  ///< scratch. @shape{ranks}
  arena<memory_space> scratch{};                       ///< workspace of kernels
  arena<host_space> host_scratch{};                    ///< workspace of planning
};

/// @brief What backward needs of one forward pass. Move-only; several may be live at the same time.
///
/// It refers to the input tokens and to the masks and token ids of the context: they must stay unchanged until backward
/// is done.
template <class Layer, class Backend, class Comm>
struct step_record {
  static_assert(Layer::template check_parts<Backend, Comm>());
  using memory_space = typename Backend::memory_space;  ///< where rows live
  using value_type = typename Layer::value_type;        ///< element type of rows
  using dispatcher_type = typename Layer::dispatcher_type;  ///< who moves rows
  /// A started exchange.
  using pending_type = pending_of<dispatcher_type, Backend, Comm, value_type>;

  route_context context;                               ///< what the router was told
  matrix_view<value_type const> tokens;                ///< the input
  buffer<float, memory_space> logits;                  ///< @shape{tokens x logit_columns(router)}
  fairlead::routing<memory_space> routing;             ///< what the router wrote
  plan_of<dispatcher_type, Backend> plan;              ///< who goes where
  wire_of<dispatcher_type, Backend, value_type> wire;  ///< rows in flight
  std::optional<pending_type> pending;                 ///< the exchange under way
  buffer<value_type, memory_space> expert_in;          ///< @shape{buffer_rows x width}
  buffer<value_type, memory_space> kept;               ///< activations the experts keep
  buffer<value_type, memory_space> expert_out;         ///< outputs, later their gradients
  buffer<value_type, memory_space> grad_in;            ///< gradient of expert_in
  buffer<value_type, memory_space> shared_kept;        ///< activations the shared expert keeps
  buffer<value_type, memory_space> shared_out;         ///< output of the shared expert, later gradient of its input
  buffer<float, memory_space> grad_weights;            ///< @shape{tokens x fan_out}
  buffer<float, memory_space> grad_logits;             ///< @shape{tokens x logit_columns(router)}
  signal_state_t<typename Layer::signal_type> signal;  ///< the signal as this pass left it; other passes move on
  bool differentiable = false;                         ///< whether the forward pass is complete and not yet used up
  step_report report;                                  ///< what the forward pass said
  double signal_loss = 0.0;                            ///< this rank's part of the auxiliary loss, known after backward
};

FAIRLEAD_NAMESPACE_END
