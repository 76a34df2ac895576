// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What runs measured, the means over seeds with their confidence, and the files.
#include "../common/estimate.hpp"

#include <fairlead/core/ids.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace edge_training {
namespace fl = fairlead;
using fl::index_t;

/// V of the sweep.
inline constexpr std::array<double, 4> sweep_values{1.0, 10.0, 100.0, 1000.0};
/// Strategies of the sweep.
inline constexpr std::array<std::string_view, 2> sweep_strategies{"linear", "convex"};

/// @brief A slot; one row of curves.csv.
struct point {
  index_t slot = 0;        ///< its number, from 1
  double completed = 0.0;  ///< tokens completed so far
  double backlog = 0.0;    ///< copies that wait
  double loss = 0.0;       ///< mean loss of the tokens completed in it
  double accuracy = -1.0;  ///< on the test images; negative = not measured in this slot
};

/// @brief The result of one run.
struct outcome {
  std::string name{};          ///< strategy
  double utility = 0.0;        ///< V
  std::uint64_t seed = 0;      ///< of the run
  std::vector<point> curve{};  ///< every slot
  double arrivals = 0.0;       ///< tokens that arrived
  double completed = 0.0;      ///< tokens of which every copy was served
  double waiting = 0.0;        ///< tokens of which a copy waits at the end
  double accuracy = 0.0;       ///< share of the test images that is right at the end
  double backlog = 0.0;        ///< copies that wait at the end
  double overshoot = 0.0;      ///< most that a server's average energy is above its budget. @unit{J}
  double energy_debt = 0.0;    ///< sum of Z at the end. @unit{J}
  double gate_share = 0.0;     ///< gate scores of the chosen experts over those of the gate's own choice
  double delay = 0.0;          ///< slots from arrival to completion, mean of the completed
  double seconds = 0.0;        ///< processor time
  bool interrupted = false;    ///< stopped by a signal: nothing else counts
};

/// @param run a run
/// @returns a line about it; empty if it was interrupted
inline std::string line_of(outcome const& run) {
  if (run.interrupted) { return {}; }
  std::array<char, 200> text{};
  std::snprintf(text.data(), text.size(), "%-14s V %-5g seed %llu  accuracy %.2f %%  completed %.0f of %.0f  backlog %.0f  (%.1f s)", run.name.c_str(),
                run.utility, static_cast<unsigned long long>(run.seed), 100.0 * run.accuracy, run.completed, run.arrivals, run.backlog, run.seconds);
  return text.data();
}

/// @brief Print and write the results of finished runs.
class report {
 public:
  /// @param outcomes of all runs
  /// @param names strategies in the order of the table
  /// @param utility V of the table
  report(std::vector<outcome> outcomes, std::vector<std::string> names, double utility)
      : outcomes_(std::move(outcomes)), names_(std::move(names)), utility_(utility) {
    std::erase_if(outcomes_, [](outcome const& run) { return run.interrupted || run.curve.empty(); });
  }
  /// @returns finished runs
  [[nodiscard]] std::vector<outcome> const& runs() const noexcept { return outcomes_; }

  /// @brief Print the comparison, and the sweep over V if there was one.
  void print() const {
    if (outcomes_.empty()) {
      std::printf("\nno run was finished\n");
      return;
    }
    std::printf("\n%-14s %5s %16s %18s %17s %11s %14s %8s %7s %8s %6s\n", "strategy", "seeds", "accuracy %", "minus convex", "completed", "backlog",
                "overshoot J", "sum Z J", "gate %", "delay", "cpu s");
    for (std::string const& name : names_) {
      auto const runs = of(name, utility_);
      if (runs.empty()) { continue; }
      auto const minus = minus_reference(runs);
      std::printf("%-14s %5zu %16s %18s %17s %11.0f %14s %8.0f %7.1f %8.2f %6.1f\n", name.c_str(), runs.size(),
                  text(over(runs, columns[0].value), 100.0, 2, runs.size()).c_str(), text(examples::estimate::of(minus), 100.0, 2, minus.size()).c_str(),
                  text(over(runs, columns[1].value), 1.0, 0, runs.size()).c_str(), over(runs, columns[2].value).mean,
                  text(over(runs, columns[3].value), 1.0, 2, runs.size()).c_str(), over(runs, columns[4].value).mean,
                  100.0 * over(runs, columns[5].value).mean, over(runs, columns[6].value).mean, over(runs, columns[7].value).mean);
    }
    if (!swept()) { return; }
    std::printf("\n%-14s %6s %5s %16s %17s %18s %7s %11s\n", "strategy", "V", "seeds", "accuracy %", "completed", "sum Z J", "gate %", "backlog");
    for (auto const name : sweep_strategies) {
      for (double const v : sweep_values) {
        auto const runs = of(name, v);
        if (runs.empty()) { continue; }
        std::printf("%-14s %6g %5zu %16s %17s %18s %7.1f %11.0f\n", std::string(name).c_str(), v, runs.size(),
                    text(over(runs, columns[0].value), 100.0, 2, runs.size()).c_str(), text(over(runs, columns[1].value), 1.0, 0, runs.size()).c_str(),
                    text(over(runs, columns[4].value), 1.0, 0, runs.size()).c_str(), 100.0 * over(runs, columns[5].value).mean,
                    over(runs, columns[2].value).mean);
      }
    }
    std::fflush(stdout);
  }

  /// @brief Write summary.csv, runs.csv and curves.csv.
  /// @param folder made if needed
  /// @throws std::runtime_error, std::filesystem::filesystem_error
  void write(std::string const& folder) const {
    std::filesystem::path const to(folder);
    std::filesystem::create_directories(to);
    std::ofstream summary(to / "summary.csv"), runs(to / "runs.csv"), curves(to / "curves.csv");
    for (std::ofstream* file : {&summary, &runs, &curves}) { file->precision(9); }  // numbers of tokens have up to nine digits
    summary << "strategy,v,seeds";
    for (column const& one : columns) { summary << ',' << one.name << ',' << one.name << "_half_width"; }
    summary << ",accuracy_minus_convex,accuracy_minus_convex_half_width\n";
    for (auto const& [name, v] : groups()) {
      auto const own = of(name, v);
      summary << name << ',' << v << ',' << own.size();
      for (column const& one : columns) {
        auto const made = over(own, one.value);
        summary << ',' << made.mean << ',' << made.half;
      }
      auto const minus = minus_reference(own);
      auto const difference = examples::estimate::of(minus);
      if (minus.empty()) {
        summary << ",,\n";
      } else {
        summary << ',' << difference.mean << ',' << difference.half << '\n';
      }
    }
    runs << "strategy,v,seed,arrivals";
    for (column const& one : columns) { runs << ',' << one.name; }
    runs << '\n';
    curves << "slot,strategy,v,seed,completed,backlog,loss,accuracy\n";
    for (outcome const& run : outcomes_) {
      runs << run.name << ',' << run.utility << ',' << run.seed << ',' << run.arrivals;
      for (column const& one : columns) { runs << ',' << one.value(run); }
      runs << '\n';
      for (point const& now : run.curve) {
        curves << now.slot << ',' << run.name << ',' << run.utility << ',' << run.seed << ',' << now.completed << ',' << now.backlog << ',' << now.loss << ',';
        if (now.accuracy >= 0.0) { curves << now.accuracy; }
        curves << '\n';
      }
    }
    for (std::ofstream* file : {&summary, &runs, &curves}) {
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
      {"accuracy", [](outcome const& r) { return r.accuracy; }},
      {"completed", [](outcome const& r) { return r.completed; }},
      {"backlog", [](outcome const& r) { return r.backlog; }},
      {"overshoot_j", [](outcome const& r) { return r.overshoot; }},
      {"energy_debt_j", [](outcome const& r) { return r.energy_debt; }},
      {"gate_share", [](outcome const& r) { return r.gate_share; }},
      {"delay", [](outcome const& r) { return r.delay; }},
      {"seconds", [](outcome const& r) { return r.seconds; }},
  }};
  using group = std::vector<outcome const*>;
  [[nodiscard]] group of(std::string_view name, double utility) const {
    group made;
    for (outcome const& run : outcomes_) {
      if (run.name == name && run.utility == utility) { made.push_back(&run); }
    }
    return made;
  }
  template <class Value>
  [[nodiscard]] static examples::estimate over(group const& runs, Value value) {
    std::vector<double> values;
    for (outcome const* run : runs) { values.push_back(value(*run)); }
    return examples::estimate::of(values);
  }
  // A mean and its interval; one run has none, and no run has no mean.
  [[nodiscard]] static std::string text(examples::estimate const& of, double factor, int digits, std::size_t runs) {
    std::array<char, 64> buffer{};
    if (runs == 0) { return "-"; }
    if (runs == 1) {
      std::snprintf(buffer.data(), buffer.size(), "%.*f", digits, factor * of.mean);
    } else {
      std::snprintf(buffer.data(), buffer.size(), "%.*f +- %*.*f", digits, factor * of.mean, digits == 0 ? 5 : 4, digits, factor * of.half);
    }
    return buffer.data();
  }
  // Accuracy minus that of `convex`, seed by seed: both saw the same arrivals from the same start, so that the difference
  // is known better than either. Empty if none has the seed of one of `convex`.
  [[nodiscard]] std::vector<double> minus_reference(group const& runs) const {
    std::vector<double> values;
    for (outcome const* reference : of("convex", utility_)) {
      for (outcome const* run : runs) {
        if (run->seed == reference->seed) { values.push_back(run->accuracy - reference->accuracy); }
      }
    }
    return values;
  }
  [[nodiscard]] std::vector<std::pair<std::string, double>> groups() const {
    std::vector<std::pair<std::string, double>> made;
    for (std::string const& name : names_) {
      if (!of(name, utility_).empty()) { made.emplace_back(name, utility_); }
    }
    for (auto const name : sweep_strategies) {
      for (double const v : sweep_values) {
        std::pair<std::string, double> const one(name, v);
        if (!of(name, v).empty() && std::find(made.begin(), made.end(), one) == made.end()) { made.push_back(one); }
      }
    }
    return made;
  }
  [[nodiscard]] bool swept() const {
    return std::any_of(outcomes_.begin(), outcomes_.end(), [this](outcome const& run) { return run.utility != utility_; });
  }

  std::vector<outcome> outcomes_;
  std::vector<std::string> names_;
  double utility_;
};

}  // namespace edge_training
