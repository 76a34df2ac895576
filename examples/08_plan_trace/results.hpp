// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The table on the terminal, the files, the bar.
#include "evaluation.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

namespace plan_trace {

/// @brief One line: how far, what runs, how long yet.
class bar {
 public:
  /// @param parts planners to run
  /// @param plain lines even on a terminal
  bar(index_t parts, bool plain) : parts_(parts), terminal_(!plain && isatty(STDOUT_FILENO) != 0) {}
  /// @param name of the planner that begins
  void begin(std::string const& name) {
    ++part_;
    name_ = name;
    show(0.0, true);
  }
  /// @param share of the planner that is done
  void advance(double share) { show(share, false); }
  /// @brief Clear the line.
  void close() const {
    if (terminal_) { std::printf("\r\033[K"); }
    std::fflush(stdout);
  }

 private:
  void show(double share, bool always) {
    double const now = seconds_now();
    if (terminal_ ? !always && now - shown_ < 0.1 : !always) { return; }
    shown_ = now;
    double const done = (static_cast<double>(part_ - 1) + share) / static_cast<double>(std::max<index_t>(parts_, 1));
    constexpr int cells = 30;
    int const filled = static_cast<int>(std::clamp(done, 0.0, 1.0) * cells);
    std::printf("%s[%s%s] %3.0f %%  %-24s %4.0f s%s", terminal_ ? "\r" : "", std::string(static_cast<std::size_t>(filled), '#').c_str(),
                std::string(static_cast<std::size_t>(cells - filled), '.').c_str(), 100.0 * done, name_.c_str(), now - start_, terminal_ ? "\033[K" : "\n");
    std::fflush(stdout);
  }
  index_t parts_;
  bool terminal_;
  index_t part_ = 0;
  std::string name_;
  double start_ = seconds_now();
  double shown_ = 0.0;
};

/// @brief Print the table, best mean first under the baseline.
/// @param results the outcomes; put in that order
/// @param given the command line
inline void print_table(std::vector<outcome>& results, options const& given) {
  std::sort(results.begin(), results.end(), [](outcome const& a, outcome const& b) {
    auto const key = [](outcome const& one) { return std::tuple(one.refused, one.planner != "static", one.mean(), one.step_s, std::tie(one.planner, one.scheduler)); };
    return key(a) < key(b);
  });
  std::printf("%-24s %-17s | %-23s | %9s | %-19s | %9s | %8s %8s\n", "planner", "scheduler", "max / mean rank load", "step", "across nodes",
              "fetched", "plan", "schedule");
  std::printf("%-24s %-17s | %7s %7s %7s | %9s | %9s %9s | %9s | %8s %8s\n", "", "", "mean", "p99", "worst", "ms", "copies", "rows", "MB", "us", "us");
  for (outcome const& one : results) {
    if (one.refused) {
      std::printf("%-24s no table for this cluster\n", one.planner.c_str());
      continue;
    }
    auto const judged = static_cast<double>(std::max<std::size_t>(one.imbalance.size(), 1));
    double const plans = std::max(one.plans, 1.0);
    std::printf("%-24s %-17s | %7.4f %7.3f %7.3f | %9.3f | %9.0f %9.0f | %9.0f | %8.1f %8.1f%s\n", one.planner.c_str(), one.scheduler.c_str(), one.mean(),
                one.quantile(0.99), one.quantile(1.0), 1e3 * one.step_s / judged, one.remote_copies / judged, one.remote_rows / judged,
                one.fetched / plans * given.expert_mb, 1e6 * one.plan_s / plans, 1e6 * one.schedule_s / judged,
                one.conserves ? "" : "  LOSES COPIES");
  }
}

/// @param name the name of a planner or scheduler
/// @returns it as a field of a CSV file: in quotes if it holds a comma
inline std::string field(std::string const& name) { return name.find(',') == std::string::npos ? name : '"' + name + '"'; }

/// @brief Write summary.csv (a line a composition) and series.csv (a line a record: mean over layers).
/// @param results the outcomes
/// @param now the setting
/// @throws std::runtime_error if a file cannot be written
inline void write_files(std::vector<outcome> const& results, setting const& now) {
  std::ofstream summary(now.given.out + "/summary.csv");
  summary << "planner,scheduler,mean,p99,worst,step_ms,remote_copies,remote_rows,fetched_mb,plan_us,schedule_us,judged\n";
  for (outcome const& one : results) {
    if (one.refused) { continue; }
    auto const judged = static_cast<double>(std::max<std::size_t>(one.imbalance.size(), 1));
    double const plans = std::max(one.plans, 1.0);
    summary << field(one.planner) << ',' << field(one.scheduler) << ',' << one.mean() << ',' << one.quantile(0.99) << ',' << one.quantile(1.0) << ','
            << 1e3 * one.step_s / judged << ',' << one.remote_copies / judged << ',' << one.remote_rows / judged << ','
            << one.fetched / plans * now.given.expert_mb << ',' << 1e6 * one.plan_s / plans << ',' << 1e6 * one.schedule_s / judged << ','
            << one.imbalance.size() << '\n';
  }
  std::ofstream series(now.given.out + "/series.csv");
  series << "planner,scheduler,record,imbalance\n";
  auto const records = now.judged();
  auto const layers = static_cast<std::size_t>(now.loads.layers);
  for (outcome const& one : results) {
    for (std::size_t i = 0; (i + 1) * layers <= one.imbalance.size(); ++i) {
      double sum = 0.0;
      for (std::size_t layer = 0; layer < layers; ++layer) { sum += one.imbalance[i * layers + layer]; }
      series << field(one.planner) << ',' << field(one.scheduler) << ',' << records[i] << ',' << sum / static_cast<double>(layers) << '\n';
    }
  }
  if (!summary.flush() || !series.flush()) { throw std::runtime_error(now.given.out + ": the results cannot be written"); }
}

}  // namespace plan_trace
