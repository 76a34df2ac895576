// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief A composed MoE layer as the training loop sees it: forward, backward, update, and what it cost.
#include "options.hpp"
#include "training.hpp"
#include "../common/optimizer.hpp"

#include <fairlead/comm/counted.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/layer/moe_layer.hpp>

#include <vector>

namespace language_model {

/// @brief One rank's part of a layer: its experts, a copy of gate and shared expert, their optimizers.
/// @tparam Layer an `fl::moe_layer`
/// @tparam Comm a communicator
template <class Layer, class Comm>
class moe_part {
 public:
  /// @param layer the composition
  /// @param chosen sizes and seed
  /// @param comm the ranks
  moe_part(Layer const& layer, options const& chosen, Comm const& comm)
      : layer_(layer),
        comm_(comm),
        state_(layer_.make_state(fl::serial{}, comm_,
                                 {.max_tokens = (chosen.batch + comm.size() - 1) / comm.size(), .seed = chosen.seed})),
        record_(layer_.make_record(state_)) {
    layer_.each_parameter(state_, [&](auto const& array) { optimizers_.emplace_back(*array.layout); });
  }

  /// @brief Run the layer.
  /// @param tokens rows of this rank
  /// @param output[out] as many rows
  /// @param context phase, seed, step
  /// @returns loads and drops of all ranks
  layer_numbers forward(fl::matrix_view<float const> tokens, fl::matrix_view<float> output,
                        fl::route_context const& context) {
    fl::step_report const report = layer_.forward(state_, tokens, output, record_, context);
    return {.imbalance = report.imbalance(), .dropped = report.dropped_share()};
  }
  /// @brief Go back through the last forward pass; adds to the layer's gradients.
  void backward(fl::matrix_view<float const> grad_output, fl::matrix_view<float> grad_input) {
    layer_.backward(state_, record_, grad_output, grad_input);
  }
  /// @brief Sum gradients over the ranks that share a parameter, change the parameters, then the router's state.
  /// @param rate learning rate
  void update(double rate) {
    layer_.reduce_gradients(state_);
    std::size_t i = 0;
    layer_.each_parameter(state_, [&](auto const& array) {
      optimizers_[i++].update(state_.on, *array.layout, array.values, array.gradients, rate);
    });
    layer_.zero_gradients(state_);
    layer_.end_global_batch(state_);
  }
  /// @returns bytes of token rows and counts that left this rank so far
  [[nodiscard]] double exchanged_bytes() const {
    auto const& counters = comm_.counters();
    return static_cast<double>(counters.of(fl::collective::all_to_all_v).bytes_out +
                               counters.of(fl::collective::all_gather).bytes_out);
  }

 private:
  Layer layer_;
  fl::counted<Comm> comm_;
  typename Layer::template state_type<fl::serial, fl::counted<Comm>> state_;
  typename Layer::template record_type<fl::serial, fl::counted<Comm>> record_;
  std::vector<optimizer> optimizers_;
};

}  // namespace language_model
