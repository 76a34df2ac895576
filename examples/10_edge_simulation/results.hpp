// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Tables over seeds, and the files.
#include "../common/estimate.hpp"
#include "../common/live_table.hpp"
#include "simulation.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace edge_simulation {

/// @brief A run that is to be made, or was.
struct job {
  std::size_t setting = 0;   ///< which
  std::uint64_t seed = 1;    ///< names the run
  run_result result;         ///< what came of it; while it runs, how far it is
  bool finished = false;     ///< whether it ended
};

/// @param value a number
/// @param digits behind the point
/// @returns it as text; "-" if it is not a number
inline std::string text(double value, int digits) {
  if (std::isnan(value)) { return "-"; }
  char buffer[64];
  // No minus zero.
  double const shown = std::fabs(value) < 0.5 * std::pow(10.0, -digits) ? 0.0 : value;
  std::snprintf(buffer, sizeof buffer, "%.*f", digits, shown);
  return buffer;
}
/// @param of a mean over seeds
/// @param digits behind the point
/// @param interval whether to show half the 95 % confidence interval
/// @param sign whether to show a plus
/// @returns it as text
inline std::string text(examples::estimate const& of, int digits, bool interval, bool sign = false) {
  std::string const plus = sign && of.mean > 0.0 ? "+" : "";
  return std::isnan(of.mean) || !interval ? text(of.mean, digits) : plus + text(of.mean, digits) + " ± " + text(of.half, digits);
}

/// @brief One line above a table.
/// @param given the command line
/// @param of the setting
/// @param seeds runs that it shows
/// @returns the line
inline std::string title(options const& given, setting const& of, std::size_t seeds) {
  fl::cubic_energy const servers(examples::edge_servers(given.servers, 1, given.energies));
  fl::arena<> memory(fl::workspace_bytes<double>(given.servers));
  fl::workspace ws = memory.view();
  double const stable = fl::stable_arrivals(servers, given.fan_out, ws);
  return (of.sweep ? "V sweep: load " : "load ") + text(of.load, 0) + ", skew " + text(of.skew, 2) + ": " + std::to_string(seeds) + " seeds of " +
         std::to_string(given.slots) + " slots" + (of.load < stable ? "" : "; beyond the " + text(stable, 1) + " tokens a slot that anything carries: no bound");
}

/// @brief How much a table says: means; also intervals of the main columns and differences to `convex`; all intervals.
enum class detail { means, main, all };

/// @brief The table of a setting.
/// @param given the command line
/// @param of the setting
/// @param runs its runs, complete or not
/// @param much how much it says
/// @returns it
inline examples::text_table table(options const& given, setting const& of, std::vector<job const*> const& runs, detail much) {
  bool const interval = much != detail::means;
  bool const all = much == detail::all;
  examples::text_table made;
  made.rows.push_back({"strategy"});
  auto& head = made.rows.front();
  if (of.sweep) { head.push_back("V"); }
  head.insert(head.end(), {"served %", "completed %", "backlog", "sum Z, J", "overshoot, J", "gate mass", "utility/slot", "of bound, %", "delay, slots", "us/slot"});
  auto const entries = entries_of(given, of);
  std::size_t reference = entries.size();
  for (std::size_t i = 0; i < entries.size() && !of.sweep; ++i) {
    if (entries[i].strategy == "convex") { reference = i; }
  }
  bool const paired = interval && reference < entries.size();
  if (paired) { head.insert(head.end(), {"completed % - convex", "utility - convex"}); }
  for (std::size_t i = 0; i < entries.size(); ++i) {
    auto const over_seeds = [&](auto metric) {
      std::vector<double> values;
      for (job const* const run : runs) {
        if (i < run->result.strategies.size()) { values.push_back(metric(run->result.strategies[i], *run)); }
      }
      return examples::estimate::of(values);
    };
    auto const cell = [&](int digits, bool with_interval, auto metric) {
      return text(over_seeds([&](tally const& done, job const&) { return metric(done); }), digits, with_interval);
    };
    auto const difference = [&](int digits, auto metric) {
      return text(over_seeds([&](tally const& done, job const& run) { return metric(done) - metric(run.result.strategies[reference]); }), digits, true, true);
    };
    std::vector<std::string> row{entries[i].strategy};
    if (of.sweep) { row.push_back(text(entries[i].v, entries[i].v == std::floor(entries[i].v) ? 0 : 2)); }
    row.push_back(cell(2, all, [&](tally const& t) { return t.served_percent(given.fan_out); }));
    row.push_back(cell(2, interval, [](tally const& t) { return t.completed_percent(); }));
    row.push_back(cell(0, interval, [](tally const& t) { return t.backlog; }));
    row.push_back(cell(0, all, [](tally const& t) { return t.debt; }));
    row.push_back(cell(2, interval, [](tally const& t) { return t.overshoot; }));
    row.push_back(cell(3, interval, [](tally const& t) { return t.relative_mass(); }));
    row.push_back(cell(1, interval, [](tally const& t) { return t.mean_utility(); }));
    row.push_back(cell(2, interval, [](tally const& t) { return t.bound_percent(); }));
    row.push_back(cell(2, all, [](tally const& t) { return t.mean_delay(); }));
    row.push_back(cell(0, false, [](tally const& t) { return t.microseconds(); }));
    if (paired && i == reference) { row.insert(row.end(), {"-", "-"}); }
    if (paired && i != reference) {
      row.push_back(difference(2, [](tally const& t) { return t.completed_percent(); }));
      row.push_back(difference(1, [](tally const& t) { return t.mean_utility(); }));
    }
    made.rows.push_back(std::move(row));
  }
  return made;
}

/// @brief Write summary.csv (a line a run and strategy), series.csv (some moments of each), tables.md.
/// @param given the command line
/// @param settings all
/// @param jobs all; those without a slot are left out
/// @param tables what to write to tables.md
/// @throws std::runtime_error if a file cannot be written
inline void write_files(options const& given, std::vector<setting> const& settings, std::vector<job> const& jobs, std::string const& tables) {
  std::ofstream summary(given.out + "/summary.csv");
  std::ofstream series(given.out + "/series.csv");
  std::ofstream markdown(given.out + "/tables.md");
  summary.precision(10);
  series.precision(8);
  summary << "load,skew,sweep,seed,strategy,v,complete,slots,arrivals,copies_served,tokens_completed,served_percent,completed_percent,backlog,"
             "debt_j,overshoot_j,gate_mass,utility,bound,bound_percent,allowance,delay_slots,us_per_slot\n";
  series << "load,skew,sweep,seed,strategy,v,slot,backlog,debt_j,completed\n";
  auto const number = [](double value) {
    std::ostringstream made;
    made.precision(10);
    if (!std::isnan(value)) { made << value; }
    return made.str();
  };
  for (job const& one : jobs) {
    setting const& of = settings[one.setting];
    auto const entries = entries_of(given, of);
    for (std::size_t i = 0; i < one.result.strategies.size(); ++i) {
      tally const& t = one.result.strategies[i];
      if (t.slots == 0) { continue; }
      std::ostringstream key;
      key << of.load << ',' << of.skew << ',' << (of.sweep ? 1 : 0) << ',' << one.seed << ',' << entries[i].strategy << ',' << entries[i].v << ',';
      summary << key.str() << (one.result.complete ? 1 : 0) << ',' << t.slots << ',' << t.arrivals << ',' << t.copies << ',' << t.completed << ','
              << t.served_percent(given.fan_out) << ',' << t.completed_percent() << ',' << t.backlog << ',' << t.debt << ',' << t.overshoot << ','
              << t.relative_mass() << ',' << t.mean_utility() << ',' << number(t.bound) << ',' << number(t.bound_percent()) << ',' << number(t.allowance)
              << ',' << t.mean_delay() << ',' << t.microseconds() << '\n';
      for (moment const& at : one.result.series.size() > i ? one.result.series[i] : std::vector<moment>{}) {
        series << key.str() << at.slot << ',' << at.backlog << ',' << at.debt << ',' << at.completed << '\n';
      }
    }
  }
  markdown << tables;
  if (!summary.flush() || !series.flush() || !markdown.flush()) { throw std::runtime_error(given.out + ": the results cannot be written"); }
}

}  // namespace edge_simulation
