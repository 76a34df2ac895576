// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Prices that spread tokens over experts softly: the entropic dual, iterated in the log domain.
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/assignment.hpp>
#include <fairlead/core/numeric.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/flow/token_runs.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Tokens with scores, and the share of them that each expert is to get.
/// @tparam Score `float` or `bfloat16`
template <class Score>
struct sinkhorn_problem {
  matrix_view<Score const> scores;             ///< NaN and -inf forbid a pair. @shape{tokens x experts}
  /// What each expert is to get, >= 0; only the proportions count. Empty = equal. @shape{experts or 0}
  std::span<index_t const> capacity{};
  std::span<std::uint8_t const> token_mask{};  ///< zero = padding; empty = all valid. @shape{tokens or 0}
  std::span<std::uint8_t const> expert_mask{}; ///< zero = gets nothing; empty = all allowed. @shape{experts or 0}
};

/// @brief How a Sinkhorn iteration ended: `value` is the largest relative deviation from the wanted masses that was
/// measured last; `ok` if it is within the tolerance at the last temperature, else `iteration_limit`.
using sinkhorn_report = report;

/// @brief Iterate expert prices until a softmax over (score - price) / temperature hands out the wanted masses.
///
/// Each token has mass 1 and spreads it over its row; an expert that gets too much becomes dearer by
/// temperature x log(got / wanted). At a fixed temperature of 1 that is the Sinkhorn iteration of the S-BASE and Megatron
/// routers; with a falling temperature the prices approach duals of the assignment problem, a start for exact solvers.
/// Rows are shifted by their best key, prices stay in the log domain, and the number of passes is bounded: no input
/// overflows or hangs. The result is only nearly balanced after rounding to whole tokens: who needs capacities kept
/// repairs it or takes a solver.
/// @source{sinkhorn1967; log domain: peyre2019, section 4.4}
struct sinkhorn_iteration {
  index_t passes = 20;              ///< most passes over the scores, >= 0
  double first_temperature = 1.0;   ///< temperature of the first pass, > 0
  double last_temperature = 1.0;    ///< temperature of the last pass, > 0; between them it falls geometrically
  /// Whether temperatures are in units of the range of the finite scores instead of in units of scores.
  bool in_units_of_range = false;
  double tolerance = 1e-2;          ///< largest relative deviation from a wanted mass to stop at, >= 0

  /// @brief The falling schedule that leaves prices near those of the assignment problem.
  /// @returns 16 passes from range / 30 to range / 400
  [[nodiscard]] static constexpr sinkhorn_iteration annealed() noexcept {
    return {.passes = 16, .first_temperature = 1.0 / 30.0, .last_temperature = 1.0 / 400.0, .in_units_of_range = true};
  }
  /// @param tokens number of tokens
  /// @param experts number of experts
  /// @returns scratch bytes of `prices`
  [[nodiscard]] static constexpr std::size_t workspace_bytes(index_t tokens, index_t experts) noexcept {
    index_t const runs = token_runs{tokens}.count();
    return 2 * fairlead::workspace_bytes<double>(runs * experts) + fairlead::workspace_bytes<double>(runs * 2) +
           2 * fairlead::workspace_bytes<double>(experts);
  }
  /// @brief Iterate prices.
  /// @param on host backend
  /// @param problem scores, wanted masses, masks
  /// @param[in,out] prices where to start (0 if nothing better is known), and the result; always finite. Prices of masked
  /// experts stay. Adding a constant to all of them changes nothing. @shape{experts}
  /// @param ws at least `workspace_bytes(tokens, experts)`
  /// @returns status, passes, largest relative deviation. Nothing to spread (no valid token with a candidate): `ok`,
  /// prices unchanged
  /// @throws contract_violation (level 1) on wrong shapes or fields, (level 2) on negative capacities or prices that are
  /// not finite
  /// @complexity O(passes x tokens x experts) time, one exponential a pair and pass; no allocation
  /// @determinism the same bits at any number of threads
  template <host_backend Backend, class Score>
  sinkhorn_report prices(Backend const& on, sinkhorn_problem<Score> const& problem, std::span<double> prices,
                         workspace& ws) const;
};

namespace detail {

/// Sums over the tokens of one run: what each expert gets.
template <class Score>
struct sinkhorn_run {
  static constexpr index_t lanes = 8;  // partial results in a fixed order: the same bits with every vector width
  sinkhorn_problem<Score> problem;
  double const* offers;  // prices; +inf for masked experts
  double inverse_temperature;
  double* keys;    // experts a run
  double* masses;  // experts a run
  double* ranges;  // smallest and largest score a run

  [[nodiscard]] bool valid(index_t token) const noexcept {
    return problem.token_mask.empty() || problem.token_mask[static_cast<std::size_t>(token)] != 0;
  }
  void operator()(index_t run) const {
    token_runs const runs{problem.scores.rows()};
    index_t const experts = problem.scores.cols();
    double* const key = keys + run * experts;
    double* const mass = masses + run * experts;
    std::fill_n(mass, experts, 0.0);
    for (index_t t = runs.first(run); t < runs.first(run + 1); ++t) {
      if (valid(t)) { spread(problem.scores.row(t), experts, key, mass); }
    }
  }
  void spread(Score const* row, index_t experts, double* key, double* mass) const {
    double best[lanes], sums[lanes] = {};
    std::fill_n(best, lanes, -std::numeric_limits<double>::infinity());
    for (index_t e = 0; e < experts; ++e) { key[e] = (assignable(row[e]) - offers[e]) * inverse_temperature; }
    for (index_t first = 0; first < experts; first += lanes) {
      index_t const count = std::min(lanes, experts - first);
      for (index_t i = 0; i < count; ++i) { best[i] = key[first + i] > best[i] ? key[first + i] : best[i]; }
    }
    double const largest = *std::max_element(best, best + lanes);
    if (largest == -std::numeric_limits<double>::infinity()) { return; }
    for (index_t e = 0; e < experts; ++e) {
      double const below = key[e] - largest;
      key[e] = static_cast<double>(numeric::exp(static_cast<float>(below < -200.0 ? -200.0 : below)));
    }
    for (index_t first = 0; first < experts; first += lanes) {
      index_t const count = std::min(lanes, experts - first);
      for (index_t i = 0; i < count; ++i) { sums[i] += key[first + i]; }
    }
    double const sum = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
    double const inverse = 1.0 / sum;
    for (index_t e = 0; e < experts; ++e) { mass[e] += key[e] * inverse; }
  }
};
template <class Score>
struct sinkhorn_range_run : sinkhorn_run<Score> {
  void operator()(index_t run) const {
    token_runs const runs{this->problem.scores.rows()};
    double low = std::numeric_limits<double>::infinity(), high = -low;
    for (index_t t = runs.first(run); t < runs.first(run + 1); ++t) {
      if (!this->valid(t)) { continue; }
      for (index_t e = 0; e < this->problem.scores.cols(); ++e) {
        if (this->offers[e] == std::numeric_limits<double>::infinity()) { continue; }
        double const score = assignable(this->problem.scores(t, e));
        high = std::max(high, score);
        low = score > -std::numeric_limits<double>::infinity() ? std::min(low, score) : low;
      }
    }
    this->ranges[2 * run] = low;
    this->ranges[2 * run + 1] = high;
  }
};

}  // namespace detail

template <host_backend Backend, class Score>
sinkhorn_report sinkhorn_iteration::prices(Backend const& on, sinkhorn_problem<Score> const& problem,
                                           std::span<double> prices, workspace& ws) const {
  index_t const tokens = problem.scores.rows(), experts = problem.scores.cols();
  FAIRLEAD_EXPECTS(passes >= 0 && first_temperature > 0.0 && last_temperature > 0.0 && tolerance >= 0.0,
                   "passes and tolerance must not be negative, temperatures must be positive", passes,
                   first_temperature, last_temperature, tolerance);
  FAIRLEAD_EXPECTS(static_cast<index_t>(prices.size()) == experts, "give one price an expert", prices.size(), experts);
  FAIRLEAD_EXPECTS(problem.capacity.empty() || static_cast<index_t>(problem.capacity.size()) == experts,
                   "give one capacity an expert or none", problem.capacity.size(), experts);
  FAIRLEAD_EXPECTS(problem.token_mask.empty() || static_cast<index_t>(problem.token_mask.size()) == tokens,
                   "the token mask must have one byte a token or be empty", problem.token_mask.size(), tokens);
  FAIRLEAD_EXPECTS(problem.expert_mask.empty() || static_cast<index_t>(problem.expert_mask.size()) == experts,
                   "the expert mask must have one byte an expert or be empty", problem.expert_mask.size(), experts);
  auto const allowed = [&](std::size_t e) { return problem.expert_mask.empty() || problem.expert_mask[e] != 0; };
  auto const share = [&](std::size_t e) {
    return !allowed(e) ? 0.0 : problem.capacity.empty() ? 1.0 : static_cast<double>(problem.capacity[e]);
  };
  double shares = 0.0;
  for (std::size_t e = 0; e < prices.size(); ++e) {
    FAIRLEAD_EXPECTS_2(share(e) >= 0.0, "capacities must not be negative", e, share(e));
    FAIRLEAD_EXPECTS_2(std::isfinite(prices[e]), "prices to start from must be finite", e, prices[e]);
    shares += share(e);
  }
  workspace::scope const give_back(ws);
  index_t const runs = token_runs{tokens}.count();
  double* const keys = ws.take<double>(runs * experts).data();
  double* const masses = ws.take<double>(runs * experts).data();
  double* const ranges = ws.take<double>(runs * 2).data();
  double* const got = ws.take<double>(experts).data();
  double* const offers = ws.take<double>(experts).data();
  auto const offer = [&] {
    for (std::size_t e = 0; e < prices.size(); ++e) {
      offers[e] = allowed(e) ? prices[e] : std::numeric_limits<double>::infinity();
    }
  };
  offer();
  detail::sinkhorn_run<Score> run{problem, offers, 1.0, keys, masses, ranges};
  double unit = 1.0;
  if (in_units_of_range) {
    on.for_each(runs, detail::sinkhorn_range_run<Score>{run});
    on.wait();
    double low = std::numeric_limits<double>::infinity(), high = -low;
    for (index_t r = 0; r < runs; ++r) {
      low = std::min(low, ranges[2 * r]);
      high = std::max(high, ranges[2 * r + 1]);
    }
    unit = high > low ? high - low : 1.0;  // all scores equal: any temperature will do
  }
  constexpr double floor = 1e-3;  // of a token, so that no logarithm meets 0 and no capacity of 0 is divided by
  sinkhorn_report result;
  double temperature = first_temperature;
  double const cooling =
      passes > 1 ? std::pow(last_temperature / first_temperature, 1.0 / static_cast<double>(passes - 1)) : 1.0;
  result.status = passes > 0 ? status::ok : status::iteration_limit;
  while (result.iterations < passes) {
    if (result.iterations == passes - 1) { temperature = last_temperature; }
    run.inverse_temperature = 1.0 / (temperature * unit);
    on.for_each(runs, run);
    on.wait();
    ++result.iterations;
    double all = 0.0;
    for (index_t e = 0; e < experts; ++e) {
      got[e] = 0.0;
      for (index_t r = 0; r < runs; ++r) { got[e] += masses[r * experts + e]; }
      all += got[e];
    }
    if (!(all > 0.0) || !(shares > 0.0)) { return {.iterations = result.iterations}; }
    result.value = 0.0;
    for (std::size_t e = 0; e < prices.size(); ++e) {
      double const wanted = share(e) * all / shares;
      result.value = std::max(result.value, std::abs(got[e] - wanted) / std::max(wanted, 1.0));
    }
    bool const close = result.value <= tolerance;
    result.status = close ? status::ok : status::iteration_limit;
    if (close && (temperature == last_temperature || first_temperature == last_temperature)) { break; }
    for (std::size_t e = 0; e < prices.size(); ++e) {
      double const wanted = share(e) * all / shares;
      if (!allowed(e)) { continue; }
      prices[e] += temperature * unit * std::log((got[e] + floor) / (wanted + floor));
    }
    offer();
    temperature *= cooling;
  }
  return result;
}

FAIRLEAD_NAMESPACE_END
