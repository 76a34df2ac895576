// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The command line of the edge simulation.
#include "../common/arguments.hpp"
#include "../common/edge_strategies.hpp"

#include <fairlead/core/ids.hpp>
#include <fairlead/workload/gate_scores.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

namespace edge_simulation {
namespace fl = fairlead;
using fl::index_t;

/// @brief Who wins among servers with equal keys.
enum class tie_rule { id, rotating, seeded };

/// @brief How fast the servers of baselines run.
enum class baseline_speed {
  closed_form,     ///< as all others
  average,         ///< always the speed whose energy is the average budget
  fixed,           ///< always the speed that the cap of a slot allows
  full_frequency   ///< always the highest frequency, for as much of a slot as the cap pays
};

/// @brief What the user can choose.
struct options {
  std::vector<double> loads{300.0, 390.0, 440.0, 520.0};   ///< mean arrivals a slot
  std::vector<double> skews{0.0, 0.5};                     ///< standard deviation of the gate's biases
  bool more_skew = true;                                   ///< also load 390 with skew 1
  std::vector<std::string> strategies;                     ///< names; empty = all
  std::vector<double> sweep{1.0, 10.0, 100.0, 1000.0};     ///< values of V; empty = no sweep
  double sweep_load = 390.0;                               ///< its load
  double sweep_skew = 0.5;                                 ///< its skew
  index_t slots = 1000;                                    ///< length of a run
  index_t seeds = 5;                                       ///< runs of a setting: seeds 1, 2, ...
  index_t threads = 1;                                     ///< runs at the same time
  index_t servers = 10;                                    ///< J
  index_t fan_out = 3;                                     ///< K
  fl::slot_weights weights{};                              ///< V, mu, w
  examples::edge_energies energies{};                      ///< caps and budgets
  tie_rule ties = tie_rule::seeded;                        ///< who wins among equals
  baseline_speed baselines = baseline_speed::closed_form;  ///< speed of A to D
  bool bound = true;                                       ///< compute the bound on the utility
  std::string out = "edge_out";                            ///< folder of the results
  bool plain = false;                                      ///< lines even on a terminal
  bool quick = false;                                      ///< small
  bool help = false;                                       ///< print the usage and end
};

/// Printed by --help.
inline constexpr std::string_view usage =
    R"(usage: edge_simulation [options]
  --loads LIST         mean arrivals of a slot (300,390,440,520)
  --skews LIST         standard deviation of the gate's biases for servers (0,0.5; and 1 for load 390, unless
                       --loads or --skews is given)
  --strategies LIST    of random, top_k, queue_first, energy_first (the paper's baselines A to D), shortest_queue,
                       shortest_delay, max_weight, linear, convex, exact_drift (all)
  --slots N --seeds N  slots of a run (1000), runs of a setting (5)
  --servers N          servers = experts (10)
  --fan-out N          servers of a token (3)
  --v X --mu X --w X   weights of utility, gate mass, energy debt (100, 1, 1)
  --caps LOW,HIGH      energy of a slot at most, weakest and strongest server, in J (3,15)
  --budgets LOW,HIGH   average energy of a slot, in J (1.5,9.5)
  --ties RULE          who wins among equals: id, rotating or seeded (seeded)
  --baseline-speed S   speed of random, top_k, queue_first, energy_first: closed_form (as all others), average (what
                       the average budget pays), fixed (what the cap of a slot pays), full_frequency (the highest
                       frequency for as much of a slot as the cap pays) (closed_form)
  --sweep-v LIST       values of V for linear, convex and exact_drift in a table of their own; none = no such table
                       (1,10,100,1000)
  --sweep-load X --sweep-skew X   its setting (390, 0.5)
  --no-bound           do not compute the bound on the utility, which keeps the scores of a run in memory
  --threads N          runs at the same time (as many as the machine has)
  --out DIR            where summary.csv, series.csv and tables.md go (edge_out)
  --plain              lines even on a terminal
  --quick              two seeds of 60 slots, load 390, skew 0.5
  --help               this text
exit codes: 0 done, 1 failed, or a result is not as it must be, 2 wrong option, 130 interrupted (what is done is written)
)";

/// @param name a name
/// @returns whether it is one of the paper's baselines A to D
inline bool is_baseline(std::string_view name) {
  return name == "random" || name == "top_k" || name == "queue_first" || name == "energy_first";
}

/// @param given the arguments, at an option
/// @param least smallest legal number
/// @returns the finite numbers between commas that follow
/// @throws examples::usage_error
inline std::vector<double> numbers(examples::arguments& given, double least) {
  std::vector<double> made;
  for (std::string const& word : given.list()) {
    double value = 0.0;
    auto const [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc{} || end != word.data() + word.size() || !(value >= least) || !std::isfinite(value)) {
      std::ostringstream message;
      message << given.name() << " needs numbers >= " << least << ", not '" << word << "'";
      throw examples::usage_error(message.str());
    }
    made.push_back(value);
  }
  if (made.empty()) { throw examples::usage_error(std::string(given.name()) + " needs numbers"); }
  return made;
}
/// @param given the arguments, at an option
/// @returns the finite number, not negative, that follows
/// @throws examples::usage_error
inline double number(examples::arguments& given) {
  double const value = given.number(0.0);
  if (!std::isfinite(value)) { throw examples::usage_error(std::string(given.name()) + " needs a finite number"); }
  return value;
}
/// @param given the arguments, at an option
/// @param[out] low first of two positive numbers
/// @param[out] high second
/// @throws examples::usage_error
inline void range(examples::arguments& given, double& low, double& high) {
  std::string const name(given.name());
  auto const pair = numbers(given, 0.0);
  if (pair.size() != 2 || !(pair[0] > 0.0) || !(pair[1] > 0.0)) {
    throw examples::usage_error(name + " needs two energies above zero, LOW,HIGH: a server without energy serves nothing");
  }
  low = pair[0];
  high = pair[1];
}

/// @param given the arguments, at an option
/// @param names legal words, in the order of the values of `Choice`
/// @returns which of them follows
/// @throws examples::usage_error
template <class Choice>
Choice one_of(examples::arguments& given, std::vector<std::string_view> const& names) {
  std::string_view const word = given.value();
  auto const found = std::find(names.begin(), names.end(), word);
  if (found == names.end()) {
    std::string message = std::string(given.name()) + " needs one of";
    for (auto const one : names) { message += ' ' + std::string(one); }
    throw examples::usage_error(message + ", not '" + std::string(word) + "'");
  }
  return static_cast<Choice>(found - names.begin());
}

/// @brief Refuse what cannot be simulated.
/// @param made the options
/// @throws examples::usage_error
inline void check(options const& made) {
  if (made.fan_out > made.servers) {
    throw examples::usage_error("--fan-out " + std::to_string(made.fan_out) + ": a token needs distinct servers, and --servers gives " +
                                std::to_string(made.servers));
  }
  if (made.servers > 1000) { throw examples::usage_error("--servers must be at most 1000"); }
  if (made.seeds > 100000) { throw examples::usage_error("--seeds must be at most 100000"); }
  for (double const skew : made.skews) {
    if (skew > fl::workload::gate_scores::max_skew) { throw examples::usage_error("--skews must be at most 1e30"); }
  }
  if (made.sweep_skew > fl::workload::gate_scores::max_skew) { throw examples::usage_error("--sweep-skew must be at most 1e30"); }
  double const utility = std::max(made.weights.utility, made.sweep.empty() ? 0.0 : *std::max_element(made.sweep.begin(), made.sweep.end()));
  if (!std::isfinite(utility * made.weights.gate)) { throw examples::usage_error("V times mu is too large: lower --v, --sweep-v or --mu"); }
  std::string known;
  std::vector<std::string> all;
  examples::each_strategy([&](std::string const& name, auto const&) { all.push_back(name), known += ' ' + name; });
  for (auto const& name : made.strategies) {
    if (std::find(all.begin(), all.end(), name) == all.end()) {
      throw examples::usage_error("unknown strategy '" + name + "'; there are" + known);
    }
  }
  double const largest = std::max(*std::max_element(made.loads.begin(), made.loads.end()), made.sweep.empty() ? 0.0 : made.sweep_load);
  // Twice the mean is far beyond what a Poisson number of this size reaches.
  double const copies = (2.0 * largest + 100.0) * static_cast<double>(made.slots) * static_cast<double>(made.fan_out);
  if (copies > static_cast<double>(std::numeric_limits<std::int32_t>::max())) {
    throw examples::usage_error("too many copies for one run: lower --slots or --loads");
  }
}

/// @brief Read the command line.
/// @param words without the program's name
/// @returns the options
/// @throws examples::usage_error
inline options parse(std::vector<std::string_view> const& words) {
  examples::arguments given(words);
  options made;
  made.threads = std::max<index_t>(1, static_cast<index_t>(std::thread::hardware_concurrency()));
  if (given.has("--loads") || given.has("--skews")) { made.more_skew = false; }
  if (given.has("--quick")) {  // explicit options still win
    made.quick = true;
    made.more_skew = false;
    made.loads = {390.0};
    made.skews = {0.5};
    made.sweep = {1.0, 100.0};
    made.slots = 60;
    made.seeds = 2;
  }
  while (given.next()) {
    std::string_view const name = given.name();
    if (name == "--quick") {
    } else if (name == "--plain") {
      made.plain = true;
    } else if (name == "--no-bound") {
      made.bound = false;
    } else if (name == "--help" || name == "-h") {
      made.help = true;
    } else if (name == "--out") {
      made.out = given.value();
    } else if (name == "--loads") {
      made.loads = numbers(given, 0.0);
    } else if (name == "--skews") {
      made.skews = numbers(given, 0.0);
    } else if (name == "--strategies") {
      made.strategies = given.list();
    } else if (name == "--slots") {
      made.slots = given.number(index_t{1});
    } else if (name == "--seeds") {
      made.seeds = given.number(index_t{1});
    } else if (name == "--threads") {
      made.threads = given.number(index_t{1});
    } else if (name == "--servers") {
      made.servers = given.number(index_t{1});
    } else if (name == "--fan-out") {
      made.fan_out = given.number(index_t{1});
    } else if (name == "--v") {
      made.weights.utility = number(given);
    } else if (name == "--mu") {
      made.weights.gate = number(given);
    } else if (name == "--w") {
      made.weights.energy = number(given);
    } else if (name == "--caps") {
      range(given, made.energies.least_cap, made.energies.most_cap);
    } else if (name == "--budgets") {
      range(given, made.energies.least_budget, made.energies.most_budget);
    } else if (name == "--ties") {
      made.ties = one_of<tie_rule>(given, {"id", "rotating", "seeded"});
    } else if (name == "--baseline-speed") {
      made.baselines = one_of<baseline_speed>(given, {"closed_form", "average", "fixed", "full_frequency"});
    } else if (name == "--sweep-v") {
      std::string_view const next = given.value();
      examples::arguments again({name, next});
      again.next();
      made.sweep = next == "none" ? std::vector<double>{} : numbers(again, 0.0);
    } else if (name == "--sweep-load") {
      made.sweep_load = number(given);
    } else if (name == "--sweep-skew") {
      made.sweep_skew = number(given);
    } else {
      given.unknown();
    }
  }
  if (!made.help) { check(made); }
  return made;
}

}  // namespace edge_simulation
