// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Hill climbing over layouts of replicas on units, judged by the failures that lose an expert.
#include <fairlead/metrics/recovery.hpp>
#include <fairlead/place/detail/failure_units.hpp>

#include <algorithm>
#include <bit>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Whether a method counts the fatal sets of every size at once.
template <class Recovery>
concept counts_all_failures = requires(Recovery const& recovery, metrics::unit_sets sets, std::span<double> survivors, workspace& ws) {
  { recovery.count(sets, index_t{}, survivors, ws) } -> std::same_as<status>;
};

/// A layout's score is a list of numbers, compared from the first: minus the experts' missing distinct units, then the
/// terms that the caller of `resilient_search` asked for.
template <class Recovery>
class unit_climb {
 public:
  unit_climb(Recovery const& recovery, index_t ranks, index_t units, index_t experts, index_t least, index_t alive,
             bool leading_only, std::span<index_t const> replicas, workspace& ws)
      : recovery_(recovery), units_(units), experts_(experts), words_(metrics::set_words(units)), failed_(alive > 0 ? std::max<index_t>(units - alive, 0) : -1),
        bits_(ws.take<std::uint64_t>(experts * metrics::set_words(ranks))), packed_(ws.take<std::uint64_t>(experts * metrics::set_words(ranks))),
        floor_(ws.take<std::int32_t>(experts)), leading_only_(leading_only) {
    for (std::span<double>* score : {&now_, &trial_, &kept_, &survivors_}) { *score = ws.take<double>(ranks + 1).first(static_cast<std::size_t>(units + 1)); }
    for (std::size_t e = 0; e < replicas.size(); ++e) { floor_[e] = static_cast<std::int32_t>(std::min({least, units, replicas[e]})); }
  }

  [[nodiscard]] static std::size_t bytes(Recovery const& recovery, index_t ranks, index_t experts) noexcept {
    return 2 * workspace_bytes<std::uint64_t>(experts * metrics::set_words(ranks)) + workspace_bytes<std::int32_t>(experts) +
           4 * workspace_bytes<double>(ranks + 1) + recovery.workspace_bytes(ranks, experts);
  }

  /// Layouts are only comparable on the same terms: if one start cannot be counted, none is.
  void agree_on_terms(unit_layout const& one, unit_layout const& other, workspace& ws) {
    for (unit_layout const* layout : {&one, &other}) {
      if (leading_only_) { return; }
      read(*layout);
      leading_only_ = !count(trial_, ws);
    }
  }

  /// Exchanges as long as one helps, then pairs of exchanges of which the first changes nothing; false if the evaluations
  /// ran out.
  [[nodiscard]] bool improve(unit_layout const& layout, index_t evaluations, workspace& ws) {
    stop_ = evaluations_ + evaluations;
    read(layout);
    (void)judge(now_, ws);
    while (!perfect()) {
      outcome ended = pass(layout, false, ws);
      if (ended == outcome::settled) { ended = pass(layout, true, ws); }
      if (ended != outcome::improved) { return ended == outcome::settled; }
    }
    return true;
  }

  void keep_score() noexcept { std::copy(now_.begin(), now_.end(), kept_.begin()); }
  void restore_score() noexcept { std::copy(kept_.begin(), kept_.end(), now_.begin()); }
  [[nodiscard]] bool beats_kept() const noexcept { return better(now_, kept_); }
  [[nodiscard]] bool below_floor() const noexcept { return now_[0] < 0.0; }
  [[nodiscard]] index_t evaluations() const noexcept { return evaluations_; }

 private:
  enum class outcome { improved, settled, out_of_evaluations };

  /// Tries all exchanges, from where the last improvement was, and keeps the first that is better; `sideways`: or that
  /// is as good and opens the way to a better one.
  [[nodiscard]] outcome pass(unit_layout const& layout, bool sideways, workspace& ws) {
    index_t const cells = units_ * units_;
    index_t const begin = cell_;
    for (index_t step = 0; step < cells; ++step) {
      index_t const cell = (begin + step) % cells;
      index_t const a = cell / units_;
      index_t const b = cell % units_;
      if (a == b) { continue; }
      bool const room = layout.free[static_cast<std::size_t>(b)] > 0;
      for (index_t x = 0; x < experts_; ++x) {
        if (layout.at(a, x) == 0) { continue; }
        // Exchanges of pairs are seen from the lower unit; moves into free slots from both.
        for (index_t y = room ? -1 : 0; y < (a < b ? experts_ : 0); ++y) {
          if (x == y || (y >= 0 && layout.at(b, y) == 0)) { continue; }
          bool const changes = layout.at(b, x) == 0 || layout.at(a, x) == 1 ||
                               (y >= 0 && (layout.at(a, y) == 0 || layout.at(b, y) == 1));
          if (!changes) { continue; }  // no expert's set of units
          if (evaluations_ >= stop_) { return outcome::out_of_evaluations; }
          exchange(layout, a, b, x, y);
          if (judge(trial_, ws)) {
            if (better(trial_, now_)) {
              std::swap(trial_, now_);
              cell_ = cell;
              return outcome::improved;
            }
            if (sideways && !better(now_, trial_) && pass(layout, false, ws) == outcome::improved) { return outcome::improved; }
          }
          exchange(layout, b, a, x, y);
        }
      }
    }
    return outcome::settled;
  }

  /// Whether no failure of the number that counts loses an expert.
  [[nodiscard]] bool perfect() const noexcept {
    if (failed_ < 1 || leading_only_ || now_[0] < 0.0) { return false; }
    double const all = counts_all_failures<Recovery> ? choose(units_, failed_) : 1.0;
    return now_[static_cast<std::size_t>(failed_)] >= all;
  }

  [[nodiscard]] static bool better(std::span<double const> a, std::span<double const> b) noexcept {
    for (std::size_t k = 0; k < a.size(); ++k) {
      if (a[k] != b[k]) { return a[k] > b[k]; }
    }
    return false;
  }
  [[nodiscard]] std::uint64_t& word(index_t expert, index_t unit) const noexcept {
    return bits_[static_cast<std::size_t>(expert * words_ + unit / 64)];
  }
  void refresh(unit_layout const& layout, index_t expert, index_t unit) const noexcept {
    std::uint64_t const bit = std::uint64_t{1} << static_cast<unsigned>(unit % 64);
    std::uint64_t& at = word(expert, unit);
    at = layout.at(unit, expert) > 0 ? at | bit : at & ~bit;
  }
  void read(unit_layout const& layout) const noexcept {
    std::fill(bits_.begin(), bits_.end(), std::uint64_t{0});
    for (index_t e = 0; e < experts_; ++e) {
      for (index_t unit = 0; unit < units_; ++unit) { refresh(layout, e, unit); }
    }
  }
  /// One replica of x from unit a to b; of y, if there is one, back.
  void exchange(unit_layout const& layout, index_t a, index_t b, index_t x, index_t y) const noexcept {
    --layout.at(a, x);
    ++layout.at(b, x);
    refresh(layout, x, a);
    refresh(layout, x, b);
    if (y < 0) {
      ++layout.free[static_cast<std::size_t>(a)];
      --layout.free[static_cast<std::size_t>(b)];
      return;
    }
    --layout.at(b, y);
    ++layout.at(a, y);
    refresh(layout, y, a);
    refresh(layout, y, b);
  }
  [[nodiscard]] index_t size_of(index_t expert) const noexcept {
    index_t size = 0;
    for (index_t w = 0; w < words_; ++w) { size += std::popcount(bits_[static_cast<std::size_t>(expert * words_ + w)]); }
    return size;
  }

  /// Scores the sets in `bits_`; false if the method cannot.
  [[nodiscard]] bool judge(std::span<double> score, workspace& ws) {
    ++evaluations_;
    return leading_only_ ? lead(score) : count(score, ws);
  }
  /// The first entry: distinct units that experts lack. The sets of experts with replicas, without gaps: how many.
  [[nodiscard]] index_t missing(std::span<double> score) const noexcept {
    index_t lack = 0;
    index_t rows = 0;
    std::fill(score.begin(), score.end(), 0.0);
    for (index_t e = 0; e < experts_; ++e) {
      if (floor_[static_cast<std::size_t>(e)] == 0) { continue; }  // nothing to keep alive
      lack += std::max<index_t>(floor_[static_cast<std::size_t>(e)] - size_of(e), 0);
      std::copy_n(bits_.begin() + static_cast<std::ptrdiff_t>(e * words_), words_, packed_.begin() + static_cast<std::ptrdiff_t>(rows++ * words_));
    }
    score[0] = -static_cast<double>(lack);
    return rows;
  }
  [[nodiscard]] bool count(std::span<double> score, workspace& ws) {
    metrics::unit_sets const sets(packed_.data(), missing(score), words_);
    if constexpr (counts_all_failures<Recovery>) {
      if (recovery_.count(sets, units_, survivors_, ws) != status::ok) { return false; }
      for (index_t k = 1; k <= units_; ++k) {
        if (failed_ < 0 || failed_ == k) { score[static_cast<std::size_t>(k)] = survivors_[static_cast<std::size_t>(k)]; }
      }
    } else if (units_ > 0) {
      metrics::recovery const found = recovery_.evaluate(sets, units_, units_ - failed_, ws);
      if (found.status != status::ok) { return false; }
      score[static_cast<std::size_t>(std::max<index_t>(failed_, 1))] = found.probability;
    }
    return true;
  }
  /// Minus the number of different smallest sets, at the place of their size.
  [[nodiscard]] bool lead(std::span<double> score) const noexcept {
    index_t const rows = missing(score);
    auto const size = [this](index_t row) {
      index_t bits = 0;
      for (index_t w = 0; w < words_; ++w) { bits += std::popcount(packed_[static_cast<std::size_t>(row * words_ + w)]); }
      return bits;
    };
    auto const equal = [this](index_t a, index_t b) {
      return std::equal(packed_.begin() + static_cast<std::ptrdiff_t>(a * words_), packed_.begin() + static_cast<std::ptrdiff_t>((a + 1) * words_),
                        packed_.begin() + static_cast<std::ptrdiff_t>(b * words_));
    };
    index_t smallest = units_ + 1;
    for (index_t row = 0; row < rows; ++row) { smallest = std::min(smallest, size(row)); }
    if (rows == 0 || smallest == 0) { return true; }
    for (index_t row = 0; row < rows; ++row) {
      if (size(row) != smallest) { continue; }
      bool seen = false;
      for (index_t other = 0; other < row && !seen; ++other) { seen = equal(row, other); }
      score[static_cast<std::size_t>(smallest)] -= seen ? 0.0 : 1.0;
    }
    return true;
  }

  Recovery const& recovery_;
  index_t units_;
  index_t experts_;
  index_t words_;
  index_t failed_;  ///< the number of failed units that counts, or -1: all
  std::span<std::uint64_t> bits_;
  std::span<std::uint64_t> packed_;
  std::span<std::int32_t> floor_;
  std::span<double> now_;
  std::span<double> trial_;
  std::span<double> kept_;
  std::span<double> survivors_;
  index_t evaluations_ = 0;
  index_t stop_ = 0;  ///< evaluations to end at
  index_t cell_ = 0;  ///< pair of units to begin with
  bool leading_only_;
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
