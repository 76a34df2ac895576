// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How likely it is that every expert keeps a replica when some ranks, nodes or racks fail.
#include <fairlead/core/matrix_view.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/core/placement.hpp>
#include <fairlead/core/report.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/metrics/detail/losing_sets.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace metrics {

/// @brief Sets of units, one row of bits an expert: unit u is bit u mod 64 of word u / 64.
///
/// A unit is what fails as a whole: a rank, a node, a rack. Correlated failures are larger units.
/// @shape{experts x words}
using unit_sets = matrix_view<std::uint64_t const>;

/// @brief Words of a set of units.
/// @param units number of units
/// @returns words, at least 1
[[nodiscard]] constexpr index_t set_words(index_t units) noexcept { return std::max<index_t>((units + 63) / 64, 1); }

/// @brief A probability, with the interval that a sample leaves.
struct recovery {
  fairlead::status status = fairlead::status::ok;  ///< `unsupported`: the method cannot do this size
  double probability = 0.0;                        ///< that every expert keeps a replica
  double low = 0.0;                                ///< lower end of the confidence interval; `probability` if exact
  double high = 0.0;                               ///< upper end
};

/// @brief Compute recovery probabilities exactly.
///
/// Lost is a placement as soon as the failed units hold all hosts of some expert. Host sets that contain another one do
/// not matter; the others fall apart into groups without a common unit, whose counts multiply. In each group all sets of
/// failed units are gone through as bits of a table, 2^15 at a time. Grouped placements fall into many small groups, so
/// that a thousand units are exact too; entangled ones are exact up to `max_group` units.
/// @source{Lazarus, section 3.2}, the definition; the method is this library's.
struct exact_recovery {
  /// Units of a group that are accepted.
  static constexpr int max_group = 25;
  /// Units in all: the number of sets of a thousand units still is a double.
  static constexpr index_t max_units = 1000;

  /// @brief Count the sets of failed units that leave every expert a replica.
  /// @param sets hosts of each expert. @shape{experts x set_words(units)}
  /// @param units number of units
  /// @param[out] survivors entry k: number of sets of k failed units after which every expert has a replica; exact
  ///             below 2^53. @shape{units + 1}
  /// @param ws scratch, see `workspace_bytes`
  /// @returns `ok`, or `unsupported` with `survivors` untouched
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(experts^2 words + groups 2^group group / 64 + units^2), no allocation
  /// @determinism exact below 2^53, else a fixed order of sums of positive terms
  [[nodiscard]] status count(unit_sets sets, index_t units, std::span<double> survivors, workspace& ws) const {
    FAIRLEAD_EXPECTS(static_cast<index_t>(survivors.size()) == units + 1, "one count for each number of failed units",
                     survivors.size(), units);
    FAIRLEAD_EXPECTS(sets.rows() == 0 || sets.cols() == set_words(units), "one bit a unit", sets.cols(), units);
    if (units > max_units) { return status::unsupported; }
    workspace::scope const scope(ws);
    std::span<std::uint32_t> const small = ws.take<std::uint32_t>(sets.rows());
    std::span<std::uint64_t> const table = ws.take<std::uint64_t>(detail::losing_block_words);
    std::span<index_t> const counts = ws.take<index_t>(max_group + 1);
    if (units <= detail::losing_block_units) {  // one table holds everything: no need to look for structure
      for (index_t e = 0; e < sets.rows(); ++e) { small[static_cast<std::size_t>(e)] = static_cast<std::uint32_t>(sets(e, 0)); }
      std::fill_n(counts.begin(), units + 1, 0);
      detail::count_survivors(static_cast<int>(units), small, table, counts);
      for (std::size_t k = 0; k < survivors.size(); ++k) { survivors[k] = static_cast<double>(counts[k]); }
      return status::ok;
    }

    // Keep the sets that contain no other one: going by size, each is compared with those kept.
    std::span<index_t> const order = ws.take<index_t>(sets.rows());
    std::span<index_t> const size = ws.take<index_t>(sets.rows());
    for (index_t e = 0; e < sets.rows(); ++e) {
      size[static_cast<std::size_t>(e)] = 0;
      for (index_t w = 0; w < sets.cols(); ++w) { size[static_cast<std::size_t>(e)] += std::popcount(sets(e, w)); }
    }
    std::iota(order.begin(), order.end(), index_t{0});
    std::sort(order.begin(), order.end(), [&size](index_t a, index_t b) {
      index_t const x = size[static_cast<std::size_t>(a)];
      index_t const y = size[static_cast<std::size_t>(b)];
      return x != y ? x < y : a < b;
    });
    std::size_t kept = 0;
    for (index_t const e : order) {
      bool const covered = std::any_of(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(kept), [&](index_t other) {
        for (index_t w = 0; w < sets.cols(); ++w) {
          if ((sets(other, w) & ~sets(e, w)) != 0) { return false; }
        }
        return true;
      });
      if (!covered) { order[kept++] = e; }
    }

    // Groups: units joined by a set.
    std::span<index_t> const root = ws.take<index_t>(units);
    std::iota(root.begin(), root.end(), index_t{0});
    auto const find = [&root](index_t unit) {
      while (root[static_cast<std::size_t>(unit)] != unit) {
        unit = root[static_cast<std::size_t>(unit)] = root[static_cast<std::size_t>(root[static_cast<std::size_t>(unit)])];
      }
      return unit;
    };
    std::span<index_t> const place = ws.take<index_t>(units);  // number of a unit inside its group
    for (std::size_t i = 0; i < kept; ++i) {
      index_t first = -1;
      for_each_unit(sets, order[i], [&](index_t unit) {
        if (first < 0) { first = find(unit); }
        else { root[static_cast<std::size_t>(find(unit))] = first; }
      });
    }
    std::span<index_t> const members = ws.take<index_t>(units);
    std::fill(members.begin(), members.end(), index_t{0});
    for (index_t unit = 0; unit < units; ++unit) {
      place[static_cast<std::size_t>(unit)] = members[static_cast<std::size_t>(find(unit))]++;
    }
    // A group of one unit without a set may fail freely; all of them together are one binomial row.
    std::span<double> const product = ws.take<double>(units + 1);
    bool const lost = kept > 0 && size[static_cast<std::size_t>(order[0])] == 0;
    std::fill(survivors.begin(), survivors.end(), 0.0);
    if (lost) { return status::ok; }
    for (index_t const group : members) {
      if (group > max_group) { return status::unsupported; }
    }
    survivors[0] = 1.0;
    index_t done = 0;
    for (index_t unit = 0; unit < units; ++unit) {
      if (find(unit) != unit) { continue; }
      index_t const group = members[static_cast<std::size_t>(unit)];
      std::size_t mine = 0;
      for (std::size_t i = 0; i < kept; ++i) {
        std::uint32_t mask = 0;
        bool inside = false;
        for_each_unit(sets, order[i], [&](index_t u) {
          inside = inside || find(u) == unit;
          mask |= std::uint32_t{1} << static_cast<unsigned>(place[static_cast<std::size_t>(u)] & 31);
        });
        if (inside) { small[mine++] = mask; }
      }
      std::fill(counts.begin(), counts.end(), index_t{0});
      detail::count_survivors(static_cast<int>(group), small.first(mine), table, counts);
      std::fill_n(product.begin(), done + group + 1, 0.0);
      for (index_t a = 0; a <= done; ++a) {
        for (index_t b = 0; b <= group; ++b) {
          product[static_cast<std::size_t>(a + b)] += survivors[static_cast<std::size_t>(a)] * static_cast<double>(counts[static_cast<std::size_t>(b)]);
        }
      }
      done += group;
      std::copy_n(product.begin(), done + 1, survivors.begin());
    }
    return status::ok;
  }

  /// @brief Compute the probability for one number of units that stay alive, each choice of them being as likely.
  /// @param sets hosts of each expert. @shape{experts x set_words(units)}
  /// @param units number of units
  /// @param alive units that stay, in [0, units]
  /// @param ws scratch, see `workspace_bytes`
  /// @returns the probability
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity as `count`
  [[nodiscard]] recovery evaluate(unit_sets sets, index_t units, index_t alive, workspace& ws) const {
    FAIRLEAD_EXPECTS(alive >= 0 && alive <= units, "the units alive are some of the units", alive, units);
    workspace::scope const scope(ws);
    std::span<double> const survivors = ws.take<double>(units + 1);
    if (count(sets, units, survivors, ws) != status::ok) { return {.status = status::unsupported}; }
    double const share = survivors[static_cast<std::size_t>(units - alive)] / detail::choose(units, alive);
    return {.probability = share, .low = share, .high = share};
  }

  /// @brief Scratch of `evaluate`; `count` needs less.
  /// @param units number of units
  /// @param experts number of experts
  /// @returns bytes
  [[nodiscard]] static constexpr std::size_t workspace_bytes(index_t units, index_t experts) noexcept {
    return fairlead::workspace_bytes<std::uint32_t>(experts) + fairlead::workspace_bytes<std::uint64_t>(detail::losing_block_words) +
           fairlead::workspace_bytes<index_t>(max_group + 1) + 2 * fairlead::workspace_bytes<index_t>(experts) +
           3 * fairlead::workspace_bytes<index_t>(units) + 2 * fairlead::workspace_bytes<double>(units + 1);
  }

 private:
  template <class Visit>
  static void for_each_unit(unit_sets sets, index_t row, Visit const& visit) {
    for (index_t w = 0; w < sets.cols(); ++w) {
      for (std::uint64_t word = sets(row, w); word != 0; word &= word - 1) { visit(w * 64 + std::countr_zero(word)); }
    }
  }
};

/// @brief Estimate recovery probabilities by drawing failures, for entangled placements on many units.
struct sampled_recovery {
  index_t samples = 16384;    ///< sets of failed units to draw, >= 1
  std::uint64_t seed = 0;     ///< equal seeds draw equal failures: differences of two placements are less noisy than each
  double deviations = 1.96;   ///< half width of the interval in standard deviations: 1.96 = 95 %

  /// @brief Estimate the probability for one number of units that stay alive.
  /// @param sets hosts of each expert. @shape{experts x set_words(units)}
  /// @param units number of units
  /// @param alive units that stay, in [0, units]
  /// @param ws scratch, see `workspace_bytes`
  /// @returns the share of the samples that lose no expert, with Wilson's interval
  /// @throws contract_violation (level 1) on a shape mismatch or without a sample
  /// @complexity O(samples x (units + experts words)), no allocation
  /// @determinism exact for equal seeds
  [[nodiscard]] recovery evaluate(unit_sets sets, index_t units, index_t alive, workspace& ws) const {
    FAIRLEAD_EXPECTS(alive >= 0 && alive <= units, "the units alive are some of the units", alive, units);
    FAIRLEAD_EXPECTS(samples >= 1, "an estimate needs a sample", samples);
    FAIRLEAD_EXPECTS(sets.rows() == 0 || sets.cols() == set_words(units), "one bit a unit", sets.cols(), units);
    workspace::scope const scope(ws);
    std::span<index_t> const shuffled = ws.take<index_t>(units);
    std::span<std::uint64_t> const living = ws.take<std::uint64_t>(set_words(units));
    std::iota(shuffled.begin(), shuffled.end(), index_t{0});
    index_t good = 0;
    for (index_t sample = 0; sample < samples; ++sample) {
      std::fill(living.begin(), living.end(), std::uint64_t{0});
      for (index_t i = 0; i < alive; ++i) {
        std::uint32_t const word = philox::draw(seed, static_cast<std::uint64_t>(sample), static_cast<std::uint64_t>(i))[0];
        auto const j = static_cast<std::size_t>(i + philox::below(word, static_cast<std::uint32_t>(units - i)));
        std::swap(shuffled[static_cast<std::size_t>(i)], shuffled[j]);
        auto const unit = static_cast<std::size_t>(shuffled[static_cast<std::size_t>(i)]);
        living[unit / 64] |= std::uint64_t{1} << (unit % 64);
      }
      bool recovered = true;
      for (index_t e = 0; recovered && e < sets.rows(); ++e) {
        std::uint64_t hit = 0;
        for (index_t w = 0; w < sets.cols(); ++w) { hit |= sets(e, w) & living[static_cast<std::size_t>(w)]; }
        recovered = hit != 0;
      }
      good += recovered ? 1 : 0;
    }
    double const n = static_cast<double>(samples);
    double const p = static_cast<double>(good) / n;
    double const z2 = deviations * deviations;
    double const middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    double const half = deviations / (1.0 + z2 / n) * std::sqrt(p * (1.0 - p) / n + z2 / (4.0 * n * n));
    return {.probability = p, .low = std::max(0.0, middle - half), .high = std::min(1.0, middle + half)};
  }

  /// @brief Scratch of `evaluate`.
  /// @param units number of units
  /// @param experts not looked at
  /// @returns bytes
  [[nodiscard]] static constexpr std::size_t workspace_bytes(index_t units, index_t experts) noexcept {
    (void)experts;
    return fairlead::workspace_bytes<index_t>(units) + fairlead::workspace_bytes<std::uint64_t>(set_words(units));
  }
};

}  // namespace metrics
FAIRLEAD_NAMESPACE_END
