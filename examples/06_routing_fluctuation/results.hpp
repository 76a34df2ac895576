// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What runs measured, the means over seeds with their confidence, and the files.
#include "../common/estimate.hpp"

#include <fairlead/core/ids.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace routing_fluctuation {
namespace fl = fairlead;
using fl::index_t;

/// @brief A training step; one row of curves.csv.
struct point {
  index_t step = 0;              ///< its number
  double loss = 0.0;             ///< mean -log p of the batch
  double train_load = 1.0;       ///< busiest expert over the mean in training
  double evaluation_load = 0.0;  ///< the same over the followed tokens; 0 = no snapshot at this step
};

/// @brief The result of one run.
struct outcome {
  std::string name{};                  ///< composition
  std::uint64_t seed = 0;              ///< of the run
  std::vector<point> curve{};          ///< every step
  double validation_loss = 0.0;        ///< mean -log p over the validation text
  double after_20 = 0.0;               ///< share of the followed tokens that changed experts after 20 % of the run
  double after_50 = 0.0;               ///< after 50 %
  double after_80 = 0.0;               ///< after 80 %
  double flips = 0.0;                  ///< changes per token and pair of snapshots
  std::vector<double> distribution{};  ///< share of tokens with last change <= snapshot. @shape{snapshots + 1}
  double train_load = 1.0;             ///< busiest expert over the mean, last fifth of training
  double evaluation_load = 1.0;        ///< the same over the snapshots of the last fifth
  std::int64_t fallbacks = 0;          ///< batches without balanced assignment
  double seconds = 0.0;                ///< time of the run
  bool interrupted = false;            ///< stopped by a signal: nothing else counts

  /// @brief Mean loads over the last fifth of the curve.
  void average_loads() {
    double train = 0.0, evaluated = 0.0, steps = 0.0, snapshots = 0.0;
    for (std::size_t i = curve.size() - std::max<std::size_t>(1, curve.size() / 5); i < curve.size(); ++i) {
      train += curve[i].train_load;
      steps += 1.0;
      evaluated += curve[i].evaluation_load;
      snapshots += curve[i].evaluation_load > 0.0 ? 1.0 : 0.0;
    }
    train_load = train / steps;
    evaluation_load = snapshots > 0.0 ? evaluated / snapshots : 0.0;
  }
};

using examples::estimate;

/// @param run a run
/// @returns a line about it; empty if it was interrupted
inline std::string line_of(outcome const& run) {
  if (run.interrupted) { return {}; }
  std::array<char, 200> text{};
  std::snprintf(text.data(), text.size(), "%-12s seed %llu  perplexity %.2f  changed after 20 %%: %.1f %%  train load %.2f  eval load %.2f  (%.0f s)",
                run.name.c_str(), static_cast<unsigned long long>(run.seed), std::exp(run.validation_loss), 100.0 * run.after_20,
                run.train_load, run.evaluation_load, run.seconds);
  return text.data();
}

/// @brief Print and write the results of finished runs.
class report {
 public:
  /// @param outcomes of all runs
  /// @param names the compositions in the order of the table
  report(std::vector<outcome> outcomes, std::vector<std::string> names) : outcomes_(std::move(outcomes)), names_(std::move(names)) {
    std::erase_if(outcomes_, [](outcome const& run) { return run.interrupted || run.distribution.empty(); });
  }
  /// @returns finished runs
  [[nodiscard]] std::vector<outcome> const& runs() const noexcept { return outcomes_; }

  /// @brief Print the comparison.
  void print() const {
    std::printf("\n%-12s %5s %16s %24s %8s %10s %10s\n", "", "", "validation", "changed experts after", "flips", "train load",
                "eval load");
    std::printf("%-12s %5s %16s %8s%8s%8s %8s %10s %10s\n", "routing", "seeds", "perplexity", "20 %", "50 %", "80 %", "/token",
                "max/mean", "max/mean");
    for (std::string const& name : names_) {
      auto const n = count(name);
      if (n == 0) { continue; }
      estimate const perplexity = over(name, [](outcome const& r) { return std::exp(r.validation_loss); });
      std::printf("%-12s %5zu %8.2f +- %4.2f %7.1f%%%7.1f%%%7.1f%% %8.3f %10.2f %10.2f\n", name.c_str(), n, perplexity.mean,
                  perplexity.half, 100.0 * over(name, [](outcome const& r) { return r.after_20; }).mean,
                  100.0 * over(name, [](outcome const& r) { return r.after_50; }).mean,
                  100.0 * over(name, [](outcome const& r) { return r.after_80; }).mean,
                  over(name, [](outcome const& r) { return r.flips; }).mean,
                  over(name, [](outcome const& r) { return r.train_load; }).mean,
                  over(name, [](outcome const& r) { return r.evaluation_load; }).mean);
    }
    std::fflush(stdout);
  }

  /// @brief Write summary.csv, runs.csv, distribution.csv and curves.csv.
  /// @param folder made if needed
  /// @throws std::runtime_error, std::filesystem::filesystem_error
  void write(std::string const& folder) const {
    std::filesystem::path const to(folder);
    std::filesystem::create_directories(to);
    std::ofstream summary(to / "summary.csv"), runs(to / "runs.csv"), distribution(to / "distribution.csv"), curves(to / "curves.csv");
    summary << "composition,seeds";
    for (auto const& [name, unused] : columns) { summary << ',' << name << ',' << name << "_half_width"; }
    summary << ",perplexity_minus_first,perplexity_minus_first_half_width\n";
    for (std::string const& name : names_) {
      if (count(name) == 0) { continue; }
      summary << name << ',' << count(name);
      for (auto const& [unused, value] : columns) {
        estimate const made = over(name, value);
        summary << ',' << made.mean << ',' << made.half;
      }
      estimate const difference = over_first(name);
      summary << ',' << difference.mean << ',' << difference.half << '\n';
    }
    runs << "composition,seed";
    for (auto const& [name, unused] : columns) { runs << ',' << name; }
    runs << '\n';
    distribution << "composition,seed,part_of_run,share_settled\n";
    curves << "composition,seed,step,loss,train_load,evaluation_load\n";
    for (outcome const& run : outcomes_) {
      runs << run.name << ',' << run.seed;
      for (auto const& [unused, value] : columns) { runs << ',' << value(run); }
      runs << '\n';
      auto const snapshots = static_cast<double>(run.distribution.size() - 1);
      for (std::size_t s = 0; s < run.distribution.size(); ++s) {
        distribution << run.name << ',' << run.seed << ',' << static_cast<double>(s) / snapshots << ',' << run.distribution[s] << '\n';
      }
      for (point const& now : run.curve) {
        curves << run.name << ',' << run.seed << ',' << now.step << ',' << now.loss << ',' << now.train_load << ',';
        if (now.evaluation_load > 0.0) { curves << now.evaluation_load; }
        curves << '\n';
      }
    }
    for (std::ofstream* file : {&summary, &runs, &distribution, &curves}) {
      file->close();
      if (!*file) { throw std::runtime_error("cannot write the results to '" + folder + "'"); }
    }
  }

 private:
  struct column {
    char const* name;
    double (*value)(outcome const&);
  };
  static constexpr std::array<column, 8> columns{{
      {"perplexity", [](outcome const& r) { return std::exp(r.validation_loss); }},
      {"changed_after_20", [](outcome const& r) { return r.after_20; }},
      {"changed_after_50", [](outcome const& r) { return r.after_50; }},
      {"changed_after_80", [](outcome const& r) { return r.after_80; }},
      {"flips", [](outcome const& r) { return r.flips; }},
      {"train_load", [](outcome const& r) { return r.train_load; }},
      {"evaluation_load", [](outcome const& r) { return r.evaluation_load; }},
      {"seconds", [](outcome const& r) { return r.seconds; }},
  }};
  [[nodiscard]] std::size_t count(std::string_view name) const {
    return static_cast<std::size_t>(std::count_if(outcomes_.begin(), outcomes_.end(), [name](outcome const& r) { return r.name == name; }));
  }
  template <class Value>
  [[nodiscard]] estimate over(std::string_view name, Value value) const {
    std::vector<double> values;
    for (outcome const& run : outcomes_) {
      if (run.name == name) { values.push_back(value(run)); }
    }
    return estimate::of(values);
  }
  // Perplexity minus that of the first composition, seed by seed: both saw the same text from the same start, so that
  // the difference is known better than either.
  [[nodiscard]] estimate over_first(std::string_view name) const {
    std::vector<double> values;
    for (outcome const& run : outcomes_) {
      for (outcome const& first : outcomes_) {
        if (run.name == name && first.name == names_.front() && first.seed == run.seed) {
          values.push_back(std::exp(run.validation_loss) - std::exp(first.validation_loss));
        }
      }
    }
    return estimate::of(values);
  }

  std::vector<outcome> outcomes_;
  std::vector<std::string> names_;
};

}  // namespace routing_fluctuation
