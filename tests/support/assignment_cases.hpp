// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// The small assignment problems whose answers were computed by exhaustive search, for every solver's tests.
#include <fairlead/core/assignment.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/exec/serial.hpp>

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <vector>

namespace test {

namespace fl = fairlead;

/// A problem that owns its numbers.
struct assignment_case {
  fl::matrix<float> scores;
  fl::index_t fan_out = 1;
  std::vector<fl::index_t> lower;
  std::vector<fl::index_t> upper;

  assignment_case(std::initializer_list<std::initializer_list<float>> rows, fl::index_t k,
                  std::vector<fl::index_t> low, std::vector<fl::index_t> high)
      : scores(static_cast<fl::index_t>(rows.size()), static_cast<fl::index_t>(low.size())), fan_out(k),
        lower(std::move(low)), upper(std::move(high)) {
    fl::index_t token = 0;
    for (auto const& row : rows) {
      fl::index_t expert = 0;
      for (float const score : row) { scores(token, expert++) = score; }
      ++token;
    }
  }
  [[nodiscard]] fl::assignment_problem<float> problem() const {
    return {.scores = scores.view(), .fan_out = fan_out, .lower = lower, .upper = upper};
  }
};

/// What a solver answered, with the memory it wrote to.
struct assignment_answer {
  fl::assignment_report report;
  fl::matrix<fl::expert_id> owner;
  std::vector<double> prices;

  /// Owners as numbers, row by row.
  [[nodiscard]] std::vector<int> owners() const {
    std::vector<int> list;
    for (fl::index_t t = 0; t < owner.rows(); ++t) {
      for (fl::index_t j = 0; j < owner.cols(); ++j) { list.push_back(static_cast<int>(owner(t, j))); }
    }
    return list;
  }
  [[nodiscard]] std::vector<int> loads(fl::index_t experts) const {
    std::vector<int> counts(static_cast<std::size_t>(experts), 0);
    for (int const e : owners()) {
      if (e >= 0) { ++counts[static_cast<std::size_t>(e)]; }
    }
    return counts;
  }
};

template <class Solver, class Score, class Backend = fl::serial>
assignment_answer solve(Solver const& solver, fl::assignment_problem<Score> const& problem, Backend const& on = {}) {
  assignment_answer answer;
  answer.owner = fl::matrix<fl::expert_id>(problem.tokens(), problem.fan_out);
  answer.prices.assign(static_cast<std::size_t>(problem.experts()), 0.0);
  fl::arena<> memory(solver.workspace_bytes(problem.tokens(), problem.experts(), problem.fan_out));
  fl::workspace ws = memory.view();
  answer.report = solver.solve(on, problem, fl::assignment_result{answer.owner.view(), answer.prices}, ws);
  return answer;
}

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

/// A tie that prices cannot split: value 28, owners (0,0,1,1) or (1,0,0,1), price difference 1.
inline assignment_case g1() { return {{{9, 8}, {8, 2}, {7, 6}, {1, 5}}, 1, {2, 2}, {2, 2}}; }
/// A unique optimum: value 89, owners (2,0,1,2,0,1); best-expert loads (5,1,0).
inline assignment_case g2() {
  return {{{6, 17, 13}, {25, 3, 8}, {8, 7, 2}, {26, 9, 11}, {19, 5, 1}, {22, 14, 1}}, 1, {2, 2, 2}, {2, 2, 2}};
}
/// Two experts a token: value 87, owners ({0,2},{1,3},{1,3},{0,2}).
inline assignment_case g3() {
  return {{{14, 1, 11, 6}, {8, 4, 5, 11}, {12, 9, 2, 11}, {15, 3, 12, 0}}, 2, {2, 2, 2, 2}, {2, 2, 2, 2}};
}
/// Lower and upper capacities on one set of scores.
inline assignment_case g4(std::vector<fl::index_t> lower, std::vector<fl::index_t> upper) {
  return {{{5, 1, 0}, {6, 2, 0}, {7, 3, 0}, {8, 4, 0}, {9, 0, 0}}, 1, std::move(lower), std::move(upper)};
}
/// The rows of the table for g4; a negative value = infeasible.
struct g4_row {
  std::vector<fl::index_t> lower, upper;
  double value;
  std::vector<int> loads;
};
inline std::vector<g4_row> g4_rows() {
  return {{{0, 0, 0}, {5, 5, 5}, 35, {5, 0, 0}}, {{0, 0, 0}, {3, 5, 5}, 27, {3, 2, 0}},
          {{0, 0, 1}, {3, 5, 5}, 26, {3, 1, 1}}, {{0, 0, 0}, {2, 2, 2}, 22, {2, 2, 1}},
          {{1, 2, 1}, {2, 2, 2}, 22, {2, 2, 1}}, {{0, 0, 0}, {2, 1, 1}, -1, {}}};
}
/// Forbidden pairs: with capacities (2,1) owners (0,0,1), value 7; with (1,2) infeasible.
inline assignment_case g5(std::vector<fl::index_t> capacity) {
  return {{{1, minus_infinity}, {2, minus_infinity}, {3, 4}}, 1, capacity, capacity};
}
/// Equal scores everywhere: every balanced assignment has value score x tokens x fan_out.
inline assignment_case g6(fl::index_t fan_out, std::vector<fl::index_t> capacity) {
  return {{{3, 3, 3}, {3, 3, 3}, {3, 3, 3}, {3, 3, 3}, {3, 3, 3}, {3, 3, 3}}, fan_out, capacity, capacity};
}

/// Best value of a small problem by trying everything; -inf where no assignment exists. Masked tokens are not handled.
inline double best_value(fl::assignment_problem<float> const& problem) {
  std::vector<fl::index_t> load(static_cast<std::size_t>(problem.experts()), 0);
  std::function<double(fl::index_t, fl::index_t, fl::index_t)> const place = [&](fl::index_t token, fl::index_t taken,
                                                                                 fl::index_t first) -> double {
    constexpr double none = -std::numeric_limits<double>::infinity();
    if (token == problem.tokens()) {
      for (std::size_t e = 0; e < load.size(); ++e) {
        if (load[e] < problem.lower[e]) { return none; }
      }
      return 0.0;
    }
    if (taken == problem.fan_out) { return place(token + 1, 0, 0); }
    double best = none;
    for (fl::index_t e = first; e < problem.experts(); ++e) {
      auto const i = static_cast<std::size_t>(e);
      double const score = fl::assignable(problem.scores(token, e));
      if (score == none || load[i] == problem.upper[i]) { continue; }
      ++load[i];
      double const value = score + place(token, taken + 1, e + 1);
      --load[i];
      best = value > best ? value : best;
    }
    return best;
  };
  return place(0, 0, 0);
}

}  // namespace test
