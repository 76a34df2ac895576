// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Check that a type keeps the promises of the concept `bias_controller_on`.
#include <fairlead/concepts/bias_controller.hpp>
#include <fairlead/laws/detail/bias_examiner.hpp>
#include <fairlead/laws/verdict.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief Run a controller in a closed loop over the ranks of a communicator: route by score + bias, count, move.
///
/// Laws: the bias is finite and has the same bits on every rank after each global batch, also where a rank has no token,
/// and does not move where nobody has; equal runs give equal bits; in the first global batch underloaded experts move up
/// on average and overloaded ones down, relative to each other; after `steps` the largest load is nearer to the mean (`remaining`);
/// padded rows change nothing, whatever they hold; a state that is saved and loaded, in the middle of a global batch or
/// between two, goes on as if it had stayed (states that name their arrays); evaluation and recomputation learn nothing;
/// scratch is what `workspace_bytes` says. Controllers that read counts only: even loads move nothing. With
/// `moves = false` instead: nothing ever moves.
/// @tparam Controller a model of `bias_controller_on<Controller, Backend, Comm>`
/// @param controller the controller
/// @param on host backend
/// @param comm this rank's communicator
/// @param problem sizes and seed, equal on every rank
/// @returns the first broken law that this rank saw; the model conforms if every rank's verdict holds
/// @complexity a dozen runs of `steps` global batches; allocates
/// @collective all ranks
template <class Controller, host_backend Backend, communicator Comm>
  requires bias_controller_on<Controller, Backend, Comm> && has_all_reduce<Comm, index_t, Backend>
[[nodiscard]] verdict check_bias_controller(Controller const& controller, Backend const& on, Comm& comm,
                                            bias_controller_problem const& problem = {}) {
  using detail::bias_run;
  using detail::bias_trace;
  detail::bias_examiner<Controller, Backend, Comm> const examiner(controller, on, comm, problem);
  // All runs come first: they are collective, and a rank that sees a broken law must not leave the others waiting.
  bias_trace const base = examiner.run({});
  bias_trace const again = examiner.run({});
  bias_trace const saved_early = examiner.run({.save_at = 0});
  bias_trace const saved_late = examiner.run({.save_at = problem.steps / 2});
  bias_trace const phases = examiner.run({.other_phases = true});
  bias_trace const quiet = examiner.run({.padded = bias_run::padding::quiet});
  bias_trace const loud = examiner.run({.padded = bias_run::padding::loud});
  bias_trace const first_empty = examiner.run({.first_rank_empty = true});
  bias_trace const empty = examiner.run({.all_empty = true});
  std::vector<float> const even = examiner.after_even_loads();

  auto const broken = [&](char const* law, auto const&... more) {
    return verdict::broken("bias controller: ", law, " (rank ", comm.rank(), " of ", comm.size(), ", ", problem.tokens,
                           " tokens, ", problem.experts, " experts, fan-out ", problem.fan_out, ", seed ", problem.seed,
                           ")", more...);
  };
  for (bias_trace const* trace : {&base, &quiet, &loud, &first_empty, &empty}) {
    if (!trace->finite) { return broken("the bias is finite"); }
    if (!trace->equal_on_ranks) { return broken("the bias has the same bits on every rank"); }
  }
  if (!base.same_bits(again)) { return broken("equal runs give equal bits"); }
  if (!base.same_bits(saved_early) || !base.same_bits(saved_late)) {
    return broken("a state that was saved and loaded goes on as if it had stayed");
  }
  if (!base.same_bits(phases)) { return broken("evaluation and recomputation learn nothing"); }
  if (!quiet.same_bits(loud)) { return broken("padded rows change nothing"); }
  auto const still = [](std::vector<float> const& bias) {
    return std::all_of(bias.begin(), bias.end(), [](float b) { return b == 0.0F; });
  };
  if (!still(empty.bias.back())) { return broken("without tokens nothing moves"); }
  if (!problem.moves) { return still(base.bias.back()) ? verdict{} : broken("nothing ever moves"); }
  if constexpr (!reads_scores_on<Controller, Backend>) {
    if (!still(even)) { return broken("even loads move nothing"); }
  }

  double up = 0.0, down = 0.0, mean = 0.0;
  index_t under = 0, over = 0;
  for (index_t const count : base.counts.front()) { mean += static_cast<double>(count); }
  mean /= static_cast<double>(problem.experts);
  for (std::size_t e = 0; e < base.counts.front().size(); ++e) {
    auto const load = static_cast<double>(base.counts.front()[e]);
    auto const moved = static_cast<double>(base.bias.front()[e]);
    if (load < mean) {
      up += moved;
      ++under;
    } else if (load > mean) {
      down += moved;
      ++over;
    }
  }
  if (under > 0 && over > 0 && !(up / static_cast<double>(under) > down / static_cast<double>(over))) {
    return broken("underloaded experts move up against overloaded ones", ": ", up, " against ", down);
  }
  double const start = base.violation(0);
  double const end = base.violation(base.counts.size() - 1);
  if (!(end <= problem.remaining * start)) {
    return broken("the largest load comes nearer to the mean", ": from ", start, " to ", end);
  }
  return {};
}

}  // namespace laws
FAIRLEAD_NAMESPACE_END
