// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The command line of the training under queues.
#include "../common/arguments.hpp"

#include <fairlead/core/ids.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace edge_training {
namespace fl = fairlead;
using fl::index_t;

/// @brief What the user can choose.
struct options {
  std::string data;                     ///< folder of the four IDX files; empty = made images
  std::string out = "edge_out";         ///< folder of the results
  /// Strategies by name: the baselines A to D, and the controller's three rules.
  std::vector<std::string> strategies{"random", "top_k", "queue_first", "energy_first", "linear", "convex", "exact_drift"};
  index_t seeds = 5;                    ///< runs of each strategy
  index_t threads = 1;                  ///< runs at the same time
  index_t slots = 1000;                 ///< slots of a run
  double arrivals = 390.0;              ///< mean arrivals. @unit{tokens / slot}
  double utility = 100.0;               ///< V
  double gate = 1.0;                    ///< mu
  double rate = 0.1;                    ///< learning rate
  index_t hidden = 32;                  ///< hidden units of an expert
  index_t test = 4000;                  ///< first test images that accuracy is measured on; 0 = all
  index_t every = 50;                   ///< slots between measurements
  index_t side = 28;                    ///< edge of a made image. @unit{pixels}
  index_t images = 6000;                ///< made training images
  bool synthetic = false;               ///< made images
  bool sweep_v = false;                 ///< linear and convex at four V as well
  bool plain = false;                   ///< progress as lines even on a terminal
  bool quick = false;                   ///< small made images; fails if a result is wrong
  bool help = false;                    ///< print the usage and end
};

/// Printed by --help.
inline constexpr std::string_view usage =
    R"(usage: edge_training (--data DIR | --synthetic) [options]
  --data DIR           folder with {train,t10k}-{images-idx3,labels-idx1}-ubyte, unpacked (Fashion-MNIST)
  --synthetic          seeded images made of class prototypes and noise instead
  --out DIR            where the CSV files go (edge_out)
  --strategies LIST    some of random,top_k,queue_first,energy_first,shortest_queue,shortest_delay,max_weight,linear,
                       convex,exact_drift, or all (all but shortest_queue, shortest_delay and max_weight)
  --seeds N            runs of each strategy (5)
  --threads N          runs at the same time (all processors); results do not depend on it
  --slots N            slots of a run (1000)
  --arrivals X         mean arrivals a slot (390)
  --v X                V, utility against stable queues (100)
  --mu X               mu, gate scores against copies served (1)
  --sweep-v            linear and convex at V = 1, 10, 100, 1000 as well
  --rate X             learning rate (0.1)
  --hidden N           hidden units of an expert (32)
  --test N|all         first test images that accuracy is measured on (4000)
  --every N            slots between measurements of accuracy (50)
  --plain              progress as lines even on a terminal
  --quick              two seeds on small made images; exit code 1 if a result is not as it must be
  --help               this text
exit codes: 0 done, 1 failed, 2 wrong option or data, 130 interrupted (finished runs are written)
)";

/// @brief Read the command line.
/// @param words without the program's name
/// @returns the options
/// @throws examples::usage_error
inline options parse(std::vector<std::string_view> const& words) {
  examples::arguments given(words);
  options made;
  made.threads = std::max<index_t>(1, static_cast<index_t>(std::thread::hardware_concurrency()));
  if (given.has("--quick")) {  // explicit options still win
    made.quick = true;
    made.seeds = 2;
    made.slots = 150;
    made.rate = 0.3;
    made.hidden = 8;
    made.every = 50;
    made.side = 8;
    made.images = 2000;
    made.test = 500;
  }
  auto const finite = [&given](double least) {
    auto const number = given.number(least);
    if (!std::isfinite(number)) { throw examples::usage_error(std::string(given.name()) + " needs a finite number"); }
    return number;
  };
  while (given.next()) {
    std::string_view const name = given.name();
    if (name == "--quick") {
    } else if (name == "--plain") {
      made.plain = true;
    } else if (name == "--help" || name == "-h") {
      made.help = true;
    } else if (name == "--synthetic") {
      made.synthetic = true;
    } else if (name == "--sweep-v") {
      made.sweep_v = true;
    } else if (name == "--data") {
      made.data = given.value();
    } else if (name == "--out") {
      made.out = given.value();
    } else if (name == "--strategies") {
      made.strategies = given.list();
    } else if (name == "--seeds") {
      made.seeds = given.number(index_t{1});
    } else if (name == "--threads") {
      made.threads = given.number(index_t{1});
    } else if (name == "--slots") {
      made.slots = given.number(index_t{1});
    } else if (name == "--arrivals") {
      made.arrivals = finite(0.0);
    } else if (name == "--v") {
      made.utility = finite(0.0);
    } else if (name == "--mu") {
      made.gate = finite(0.0);
    } else if (name == "--rate") {
      made.rate = finite(0.0);
    } else if (name == "--hidden") {
      made.hidden = given.number(index_t{1});
    } else if (name == "--every") {
      made.every = given.number(index_t{1});
    } else if (name == "--test") {
      auto ahead = given;  // "all", or a number
      if (ahead.value() == "all") {
        made.test = 0;
        given = ahead;
      } else {
        made.test = given.number(index_t{1});
      }
    } else {
      given.unknown();
    }
  }
  if (made.help) { return made; }
  if (made.synthetic && !made.data.empty()) { throw examples::usage_error("--data and --synthetic exclude each other"); }
  if (made.quick && made.data.empty()) { made.synthetic = true; }
  if (!made.synthetic && made.data.empty()) { throw examples::usage_error("--data DIR is missing (or use --synthetic)"); }
  if (made.strategies.empty()) { throw examples::usage_error("--strategies needs a name"); }
  if (made.arrivals * static_cast<double>(made.slots) > 1e8) {
    throw examples::usage_error("--arrivals times --slots must be at most 100 million tokens: each is remembered until it is served");
  }
  if (!std::isfinite(std::max(made.utility, made.sweep_v ? 1000.0 : 0.0) * made.gate)) {
    throw examples::usage_error("V times mu is too large: lower --v or --mu");
  }
  if (made.hidden > 65536) { throw examples::usage_error("--hidden must be at most 65536"); }
  if (made.seeds > 100000) { throw examples::usage_error("--seeds must be at most 100000"); }
  return made;
}

}  // namespace edge_training
