// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The closed loop behind `check_bias_controller`: route by score + bias, count, and let the controller move.
#include <fairlead/concepts/bias_controller.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/order.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/core/saved_state.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief What `check_bias_controller` tries.
struct bias_controller_problem {
  index_t tokens = 160;         ///< rows of a micro-batch on one rank, a multiple of 5
  index_t experts = 6;          ///< columns, >= 2
  index_t fan_out = 2;          ///< experts a token, 1 <= fan_out < experts
  index_t micro_batches = 2;    ///< micro-batches of a global batch
  index_t steps = 24;           ///< global batches, >= 4
  double remaining = 0.5;       ///< max violation allowed after `steps`, as a share of what it was without bias
  std::uint64_t seed = 1;       ///< names the scores
  bool moves = true;            ///< false: the controller promises to leave the bias alone
};

namespace detail {

/// What happens in a run besides the plain loop.
struct bias_run {
  enum class padding { none, quiet, loud };
  padding padded = padding::none;  ///< a fifth of the rows is masked; loud rows hold NaN and huge scores
  bool other_phases = false;       ///< evaluation and recomputation also call `accumulate`
  index_t save_at = -1;            ///< global batch whose end is preceded and followed by save, forget and load
  bool first_rank_empty = false;   ///< rank 0 has no tokens
  bool all_empty = false;          ///< nobody has tokens
};

/// What a run left.
struct bias_trace {
  std::vector<std::vector<float>> bias;      ///< after each global batch
  std::vector<std::vector<index_t>> counts;  ///< of each global batch, over all ranks
  bool equal_on_ranks = true;
  bool finite = true;

  [[nodiscard]] bool same_bits(bias_trace const& other) const {
    for (std::size_t s = 0; s < bias.size(); ++s) {
      if (std::memcmp(bias[s].data(), other.bias[s].data(), bias[s].size() * sizeof(float)) != 0) { return false; }
    }
    return true;
  }
  [[nodiscard]] double violation(std::size_t step) const {
    auto const& n = counts[step];
    double sum = 0.0, largest = 0.0;
    for (index_t const count : n) {
      sum += static_cast<double>(count);
      largest = std::max(largest, static_cast<double>(count));
    }
    return sum > 0.0 ? largest * static_cast<double>(n.size()) / sum - 1.0 : 0.0;
  }
};

template <class State>
void through_bytes(State& state, State fresh) {
  if constexpr (has_state_arrays<State>) {
    std::vector<std::byte> bytes(saved_bytes(state));
    save_state(state, std::span(bytes));
    load_state(fresh, std::span<std::byte const>(bytes));
  }
  state = std::move(fresh);
}

template <class Controller, class Backend, class Comm>
class bias_examiner {
 public:
  bias_examiner(Controller const& controller, Backend const& on, Comm& comm, bias_controller_problem const& problem)
      : controller_(controller), on_(on), comm_(comm), problem_(problem) {}

  /// Runs the loop; every rank calls it in the same order, whatever it thinks of the results.
  [[nodiscard]] bias_trace run(bias_run const& how) const {
    auto const experts = static_cast<std::size_t>(problem_.experts);
    auto state = controller_.make_state(problem_.experts);
    std::vector<float> bias(experts, 0.0F);
    bias_trace trace;
    index_t const tokens = how.all_empty || (how.first_rank_empty && comm_.rank() == 0) ? 0 : problem_.tokens;
    std::vector<std::uint8_t> mask;
    if (how.padded != bias_run::padding::none) {
      mask.assign(static_cast<std::size_t>(tokens), 1);
      for (std::size_t t = 0; t < mask.size(); t += 5) { mask[t] = 0; }
    }
    arena<> memory(controller_.workspace_bytes(tokens, problem_.experts, problem_.fan_out));
    for (index_t step = 0; step < problem_.steps; ++step) {
      std::vector<index_t> counts(experts, 0);
      for (index_t part = 0; part < problem_.micro_batches; ++part) {
        matrix<float> const scores = draw(tokens, part, how.padded == bias_run::padding::loud, mask);
        choose(scores.view(), bias, mask, counts);
        route_context context;
        context.token_mask = mask;
        if (how.other_phases) {
          for (phase const why : {phase::evaluate, phase::recompute}) {
            context.phase = why;
            learn(scores.view(), context, bias, state, memory);
          }
          context.phase = phase::train;
        }
        learn(scores.view(), context, bias, state, memory);
      }
      comm_.all_reduce(on_, std::span<index_t>(counts), reduction::sum).wait();
      if (how.save_at == step) { through_bytes(state, controller_.make_state(problem_.experts)); }
      controller_.end_global_batch(on_, comm_, std::span<index_t const>(counts), state, std::span<float>(bias));
      if (how.save_at == step) { through_bytes(state, controller_.make_state(problem_.experts)); }
      trace.equal_on_ranks = trace.equal_on_ranks && equal_on_ranks(bias);
      for (float const value : bias) { trace.finite = trace.finite && std::isfinite(value); }
      trace.bias.push_back(bias);
      trace.counts.push_back(counts);
    }
    return trace;
  }
  /// What even loads do to a bias that nothing else has moved.
  [[nodiscard]] std::vector<float> after_even_loads() const {
    auto const experts = static_cast<std::size_t>(problem_.experts);
    auto state = controller_.make_state(problem_.experts);
    std::vector<float> bias(experts, 0.0F);
    std::vector<index_t> const counts(experts, 40);
    for (int i = 0; i < 3; ++i) {
      controller_.end_global_batch(on_, comm_, std::span<index_t const>(counts), state, std::span<float>(bias));
    }
    return bias;
  }

 private:
  // Earlier experts are favoured. The same micro-batch has the same scores in each global batch.
  [[nodiscard]] matrix<float> draw(index_t tokens, index_t part, bool loud, std::vector<std::uint8_t> const& mask) const {
    matrix<float> scores(tokens, problem_.experts);
    auto const stream = static_cast<std::uint64_t>(comm_.rank() * problem_.micro_batches + part);
    std::uint64_t index = 0;
    for (index_t t = 0; t < tokens; ++t) {
      bool const padding = !mask.empty() && mask[static_cast<std::size_t>(t)] == 0;
      for (index_t e = 0; e < problem_.experts; ++e, ++index) {
        double const tilt = 0.2 * static_cast<double>(problem_.experts - e) / static_cast<double>(problem_.experts);
        auto const score = static_cast<float>(tilt + 0.2 * philox::normal(problem_.seed, stream, index));
        float const wild = e % 2 == 0 ? 1e30F : std::numeric_limits<float>::quiet_NaN();
        scores(t, e) = padding && loud ? wild : score;
      }
    }
    return scores;
  }
  void choose(matrix_view<float const> scores, std::vector<float> const& bias, std::vector<std::uint8_t> const& mask,
              std::vector<index_t>& counts) const {
    std::vector<std::int32_t> ids(bias.size());
    std::vector<float> keys(bias.size());
    for (index_t t = 0; t < scores.rows(); ++t) {
      if (!mask.empty() && mask[static_cast<std::size_t>(t)] == 0) { continue; }
      for (std::size_t e = 0; e < ids.size(); ++e) {
        ids[e] = static_cast<std::int32_t>(e);
        keys[e] = scores(t, static_cast<index_t>(e)) + bias[e];
      }
      std::sort(ids.begin(), ids.end(), [&keys](std::int32_t a, std::int32_t b) {
        return comes_before(keys[static_cast<std::size_t>(a)], a, keys[static_cast<std::size_t>(b)], b);
      });
      for (index_t j = 0; j < problem_.fan_out; ++j) { ++counts[static_cast<std::size_t>(ids[static_cast<std::size_t>(j)])]; }
    }
  }
  void learn(matrix_view<float const> scores, route_context const& context, std::vector<float> const& bias,
             controller_state_t<Controller>& state, arena<>& memory) const {
    if constexpr (reads_scores_on<Controller, Backend>) {
      // Scratch is exactly what was asked for, and holds numbers that nobody should read.
      workspace all = memory.view();
      if (auto const bytes = all.take<std::byte>(static_cast<index_t>(memory.size())); !bytes.empty()) {
        std::memset(bytes.data(), 0xFF, bytes.size());
      }
      workspace ws = memory.view();
      controller_.accumulate(on_, scores, problem_.fan_out, context, std::span<float const>(bias), state, ws);
    }
  }
  [[nodiscard]] bool equal_on_ranks(std::vector<float> const& bias) const {
    std::vector<index_t> low, high;
    for (float const value : bias) { low.push_back(static_cast<index_t>(std::bit_cast<std::uint32_t>(value))); }
    high = low;
    comm_.all_reduce(on_, std::span<index_t>(low), reduction::minimum).wait();
    comm_.all_reduce(on_, std::span<index_t>(high), reduction::maximum).wait();
    return low == high;
  }

  Controller const& controller_;
  Backend const& on_;
  Comm& comm_;
  bias_controller_problem const& problem_;
};

}  // namespace detail
}  // namespace laws
FAIRLEAD_NAMESPACE_END
