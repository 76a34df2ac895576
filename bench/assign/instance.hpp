// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief A described problem with a place for its answer, and how its solves are timed.
#include "support/assignment.hpp"
#include "support/axes.hpp"
#include "support/ceilings.hpp"

#include <fairlead/core/assignment.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/workload/assignment_scores.hpp>

#include <array>
#include <cstddef>
#include <vector>

namespace assign_bench {

namespace fl = fairlead;
namespace wl = fairlead::workload;
using fl::index_t;
using fl_bench::axes::assignment_case;

/// @brief One problem: even capacities, scores of one kind.
struct instance {
  /// @param sizes tokens, experts, experts a token
  /// @param kind what the scores are like
  instance(assignment_case sizes, wl::score_kind kind)
      : what{.tokens = sizes.tokens, .experts = sizes.experts, .kind = kind, .seed = fl_bench::axes::seed},
        scores(what.make()),
        fan_out(sizes.fan_out),
        capacity(static_cast<std::size_t>(sizes.experts)),
        owner(sizes.tokens, sizes.fan_out),
        prices(static_cast<std::size_t>(sizes.experts)) {
    fl::even_capacity(sizes.tokens * sizes.fan_out, capacity);
  }
  /// @returns the problem, with warm prices after `become_warm`
  [[nodiscard]] fl::assignment_problem<float> problem() const {
    return {.scores = scores.view(), .fan_out = fan_out, .lower = capacity, .upper = capacity, .token_mask = {},
            .warm_prices = warm};
  }
  /// @brief Solve; the first call of a larger solver allocates.
  /// @param on backend
  /// @param solver solver
  /// @returns its report
  template <class Backend, class Solver>
  fl::assignment_report solve(Backend const& on, Solver const& solver) {
    memory.reserve(solver.workspace_bytes(what.tokens, what.experts, fan_out));
    fl::workspace ws = memory.view();
    return solver.solve(on, problem(), {.owner = owner.view(), .prices = prices}, ws);
  }
  /// @brief Take the prices of the scores as they are, then draw 5 % of the rows anew.
  /// @param solver finds the prices
  template <class Solver>
  void become_warm(Solver const& solver) {
    static_cast<void>(solve(fl::serial{}, solver));
    warm = prices;
    what.redraw_rows(scores.view(), 0.05, 1);
  }

  wl::assignment_scores what;        ///< description
  fl::matrix<float> scores;          ///< scores
  index_t fan_out;                   ///< experts a token
  std::vector<index_t> capacity;     ///< copies of each expert
  fl::matrix<fl::expert_id> owner;   ///< the answer
  std::vector<double> prices, warm;  ///< prices that come out, prices to start from
  fl::arena<> memory;                ///< scratch
};

/// @param work callable
/// @returns @unit{seconds} of processor time of this thread
template <class Work>
double cpu_seconds_of(Work&& work) {
  double const start = fl_bench::thread_seconds();
  work();
  return fl_bench::thread_seconds() - start;
}

/// @param seconds time of a solve
/// @param sizes of its problem
/// @returns that time over one read of the scores at the stream rate
inline double reads(double seconds, assignment_case sizes) {
  return seconds * fl_bench::stream_read_rate() / (static_cast<double>(sizes.tokens * sizes.experts) * sizeof(float));
}

/// @param cases cases of an axis
/// @returns those that this run holds
template <std::size_t Count>
std::vector<assignment_case> wanted(std::array<assignment_case, Count> const& cases) {
  std::vector<assignment_case> result;
  for (auto const sizes : cases) {
    if (sizes.quick || !fl_bench::axes::quick()) { result.push_back(sizes); }
  }
  return result;
}

}  // namespace assign_bench
