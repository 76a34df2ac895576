// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Memories of loads: the sum of a window, an exponential average, the last micro-batch.
#include <fairlead/concepts/load_history.hpp>
#include <fairlead/core/contract.hpp>
#include <fairlead/core/saved_state.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief What a load history remembers; made by `make_state` of a history, and saved with `save_state`.
struct load_history_state {
  std::vector<count_t> ring;       ///< single loads of the window. @shape{window x ranks x experts}, or empty
  std::vector<index_t> average;    ///< averages in units of 2^-16 copies. @shape{ranks x experts}, {experts} or empty
  std::vector<index_t> by_source;  ///< estimate a source rank and expert. @shape{ranks x experts}, or empty
  std::vector<index_t> totals;     ///< estimate an expert. @shape{experts}
  std::vector<index_t> samples;    ///< totals of the window, twice, so that any window is contiguous. @shape{2 window x experts}
  index_t ranks = 0;               ///< source ranks
  index_t window = 0;              ///< micro-batches that `samples` has room for
  index_t observed = 0;            ///< micro-batches since the last reset
  index_t newest = -1;             ///< number of the last one, -1 if none

  /// @brief Visit the arrays of the state.
  /// @param self the state
  /// @param f called with a span of each array
  template <class Self, class Function>
  static void each_array(Self& self, Function&& f) {
    f(std::span(self.ring));
    f(std::span(self.average));
    f(std::span(self.by_source));
    f(std::span(self.totals));
    f(std::span(self.samples));
    f(std::span(&self.ranks, 1));
    f(std::span(&self.window, 1));
    f(std::span(&self.observed, 1));
    f(std::span(&self.newest, 1));
  }

  /// @returns what is expected: views into this state, valid until it observes, moves or ends; all zero at first
  [[nodiscard]] load_estimate estimate() const noexcept {
    load_estimate result{.totals = totals};
    auto const experts = static_cast<index_t>(totals.size());
    if (!by_source.empty()) { result.by_source = {by_source.data(), ranks, experts}; }
    index_t const filled = std::min(observed, window);
    if (filled > 0 && experts > 0) {
      index_t const oldest = observed > window ? observed % window : 0;
      result.samples = {samples.data() + oldest * experts, filled, experts};
    }
    return result;
  }
  /// @param micro_batch number of the micro-batch that is to be planned for
  /// @returns how many micro-batches ago the newest observed one was; `micro_batch` + 1 if none was
  [[nodiscard]] index_t staleness(index_t micro_batch) const noexcept { return micro_batch - newest; }
  /// @brief Forget everything.
  void reset() noexcept {
    std::fill(ring.begin(), ring.end(), count_t{0});
    for (std::vector<index_t>* numbers : {&average, &by_source, &totals, &samples}) { std::fill(numbers->begin(), numbers->end(), index_t{0}); }
    observed = 0;
    newest = -1;
  }
  /// @returns a hash of everything; ranks compare it before they plan from their histories
  /// @complexity O(size)
  [[nodiscard]] std::uint64_t fingerprint() const noexcept {
    hasher hash;
    each_array(*this, hash);
    return hash.value;
  }

 private:
  struct hasher {
    std::uint64_t value = 0xCBF29CE484222325ULL;
    template <class Value>
    void operator()(std::span<Value const> numbers) noexcept {
      add(numbers.size());
      for (Value const number : numbers) { add(static_cast<std::uint64_t>(number)); }
    }
    void add(std::uint64_t word) noexcept {
      value = (value ^ word) * 0x100000001B3ULL;
      value ^= value >> 29U;
    }
  };
};

namespace detail {
// What every history does first.
inline void begin_observation(load_view load, index_t micro_batch, load_history_state& state) {
  FAIRLEAD_EXPECTS(load.rows() == state.ranks && load.cols() == static_cast<index_t>(state.totals.size()),
                   "the load has another shape than the history was made for", load.rows(), load.cols(), state.ranks, state.totals.size());
  FAIRLEAD_EXPECTS(micro_batch > state.newest, "micro-batches are observed in ascending order, each once", micro_batch, state.newest);
  for (index_t rank = 0; rank < load.rows(); ++rank) {
    for (index_t e = 0; e < load.cols(); ++e) { FAIRLEAD_EXPECTS_2(load(rank, e) >= 0, "a load must not be negative", rank, e, load(rank, e)); }
  }
  state.newest = micro_batch;
  ++state.observed;
}
[[nodiscard]] inline load_history_state empty_history(index_t ranks, index_t experts, bool by_source, index_t window) {
  FAIRLEAD_EXPECTS(ranks >= 0 && experts >= 0, "sizes must not be negative", ranks, experts);
  load_history_state state;
  state.ranks = ranks;
  state.window = window;
  state.totals.assign(static_cast<std::size_t>(experts), 0);
  state.by_source.assign(static_cast<std::size_t>(by_source ? ranks * experts : 0), 0);
  state.samples.assign(static_cast<std::size_t>(2 * window * experts), 0);
  return state;
}
}  // namespace detail

/// @brief The sum over the last micro-batches, all of equal weight; sums are exact, what leaves the window leaves no trace.
/// @source{2602.11686, LAER-MoE, its code: the sum of the last five forward calls of a layer; Hecate plans from their mean}
struct window_sum {
  index_t window = 5;     ///< micro-batches remembered, >= 1
  bool by_source = true;  ///< also estimate each source rank; takes window x ranks x experts more integers

  using state_type = load_history_state;  ///< what is remembered
  /// @param ranks number of source ranks
  /// @param experts number of experts
  /// @returns an empty memory
  /// @throws contract_violation (level 1) on a window < 1 or negative sizes; std::bad_alloc
  [[nodiscard]] state_type make_state(index_t ranks, index_t experts) const {
    FAIRLEAD_EXPECTS(window >= 1, "a window holds at least one micro-batch", window);
    state_type state = detail::empty_history(ranks, experts, by_source, window);
    state.ring.assign(static_cast<std::size_t>(by_source ? window * ranks * experts : 0), 0);
    return state;
  }
  /// @brief Add a micro-batch, and take away the one that leaves the window.
  /// @param load its load, gathered. @shape{ranks x experts}
  /// @param micro_batch its number, larger than those before
  /// @param[in,out] state what is remembered
  /// @throws contract_violation (level 1) on another shape, window or order, (level 2) on a negative load
  /// @complexity O(ranks x experts) whatever the window, no allocation
  /// @determinism exact integers: equal on every rank
  void observe(load_view load, index_t micro_batch, state_type& state) const {
    FAIRLEAD_EXPECTS(window == state.window && (by_source != state.by_source.empty() || load.rows() * load.cols() == 0),
                     "this state was made by a history with other fields", window, state.window);
    detail::begin_observation(load, micro_batch, state);
    index_t const place = (state.observed - 1) % window;
    auto const experts = static_cast<std::size_t>(load.cols());
    index_t* const sample = state.samples.data() + place * load.cols();
    for (std::size_t e = 0; e < experts; ++e) { state.totals[e] -= sample[e]; }
    std::fill_n(sample, experts, index_t{0});
    for (index_t rank = 0; rank < load.rows(); ++rank) {
      count_t const* const row = load.row(rank);
      for (std::size_t e = 0; e < experts; ++e) { sample[e] += row[e]; }
      if (state.ring.empty()) { continue; }
      count_t* const old = state.ring.data() + (place * load.rows() + rank) * load.cols();
      index_t* const sum = state.by_source.data() + rank * load.cols();
      for (std::size_t e = 0; e < experts; ++e) {
        sum[e] += row[e] - static_cast<index_t>(old[e]);
        old[e] = row[e];
      }
    }
    for (std::size_t e = 0; e < experts; ++e) { state.totals[e] += sample[e]; }
    std::copy_n(sample, experts, sample + window * load.cols());
  }
};
static_assert(load_history<window_sum>);

/// @brief An exponential average: each micro-batch counts (1 - weight) times as much as the one after it.
///
/// Kept in 64-bit integers in units of 2^-16 copies, with the weight rounded to a multiple of 2^-16: equal on every
/// rank, whatever the compiler. The first micro-batch sets the average. A step is rounded to the nearest unit, so that an
/// average stops within 1 / (2 weight) units of a constant load. `estimate()` is in whole copies, the nearest; totals are
/// sums of what the sources show.
/// @source{MicroMoE, adaptive replacement: a moving average; the format and the default weight are this library's choice}
struct exponential_average {
  double weight = 0.1;    ///< share of the newest micro-batch, in (0, 1]
  bool by_source = true;  ///< also estimate each source rank

  using state_type = load_history_state;  ///< what is remembered
  /// @param ranks number of source ranks, < 65536
  /// @param experts number of experts
  /// @returns an empty memory
  /// @throws contract_violation (level 1) on a weight outside (0, 1] or bad sizes; std::bad_alloc
  [[nodiscard]] state_type make_state(index_t ranks, index_t experts) const {
    FAIRLEAD_EXPECTS(weight > 0.0 && weight <= 1.0, "the weight of the newest micro-batch must be in (0, 1]", weight);
    FAIRLEAD_EXPECTS(ranks < index_t{1} << 15U, "sums over that many ranks do not fit the format", ranks);
    state_type state = detail::empty_history(ranks, experts, by_source, 0);
    state.average.assign(static_cast<std::size_t>(by_source ? ranks * experts : experts), 0);
    return state;
  }
  /// @brief Move the averages towards a micro-batch.
  /// @param load its load, gathered. @shape{ranks x experts}
  /// @param micro_batch its number, larger than those before; gaps do not weigh
  /// @param[in,out] state what is remembered
  /// @throws contract_violation (level 1) on another shape or order, (level 2) on a negative load
  /// @complexity O(ranks x experts), no allocation
  /// @determinism exact integers: equal on every rank
  void observe(load_view load, index_t micro_batch, state_type& state) const {
    FAIRLEAD_EXPECTS((by_source != state.by_source.empty() || load.rows() * load.cols() == 0),
                     "this state was made by a history with other fields");
    detail::begin_observation(load, micro_batch, state);
    index_t const share = state.observed == 1 ? one : std::clamp<index_t>(std::llround(weight * static_cast<double>(one)), 1, one);
    auto const experts = static_cast<std::size_t>(load.cols());
    if (!by_source) {
      sum_over_ranks(load, state.totals);
      for (std::size_t e = 0; e < experts; ++e) { state.totals[e] = towards(state.totals[e], share, state.average[e]); }
      return;
    }
    std::fill(state.totals.begin(), state.totals.end(), index_t{0});
    for (index_t rank = 0; rank < load.rows(); ++rank) {
      count_t const* const row = load.row(rank);
      auto const first = static_cast<std::size_t>(rank * load.cols());
      for (std::size_t e = 0; e < experts; ++e) {
        state.by_source[first + e] = towards(row[e], share, state.average[first + e]);
        state.totals[e] += state.by_source[first + e];
      }
    }
  }

 private:
  static constexpr index_t one = index_t{1} << 16U;
  // Moves an average by `share` / 2^16 of its distance; returns it in whole copies. The distance is split, so that no
  // product overflows: below 2^62 units times 2^16 does not fit.
  static index_t towards(index_t load, index_t share, index_t& average) noexcept {
    index_t const distance = load * one - average;
    index_t const whole = distance >> 16U;  // rounded down, also below zero
    index_t const rest = distance - whole * one;
    average += whole * share + ((rest * share + one / 2) >> 16U);
    return (average + one / 2) >> 16U;
  }
};
static_assert(load_history<exponential_average>);

/// @brief The last micro-batch alone.
/// @source{SYMI, section 3.4: the popularity of the last iteration}
struct last_load {
  bool by_source = true;  ///< also keep each source rank

  using state_type = load_history_state;  ///< what is remembered
  /// @param ranks number of source ranks
  /// @param experts number of experts
  /// @returns an empty memory
  /// @throws contract_violation (level 1) on negative sizes; std::bad_alloc
  [[nodiscard]] state_type make_state(index_t ranks, index_t experts) const { return history().make_state(ranks, experts); }
  /// @brief Remember a micro-batch, and forget the one before.
  /// @param load its load, gathered; of an optimizer step, the sum over its micro-batches. @shape{ranks x experts}
  /// @param micro_batch its number, larger than those before
  /// @param[in,out] state what is remembered
  /// @throws contract_violation (level 1) on another shape or order, (level 2) on a negative load
  /// @complexity O(ranks x experts), no allocation
  /// @determinism exact integers: equal on every rank
  void observe(load_view load, index_t micro_batch, state_type& state) const { history().observe(load, micro_batch, state); }

 private:
  [[nodiscard]] constexpr window_sum history() const noexcept { return {.window = 1, .by_source = by_source}; }
};
static_assert(load_history<last_load>);

FAIRLEAD_NAMESPACE_END
