// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The command line of the trace replay.
#include "../common/arguments.hpp"

#include <fairlead/core/ids.hpp>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace plan_trace {
namespace fl = fairlead;
using fl::index_t;

/// @brief What the user can choose.
struct options {
  std::string trace;                 ///< .npy or .csv file; empty = made from the seed
  std::string out = "plan_out";      ///< folder of the results
  std::vector<std::string> only;     ///< parts of names of compositions to run; empty = all
  index_t slots_per_rank = 4;        ///< expert slots of a rank
  index_t ranks_per_node = 8;        ///< ranks of a node
  index_t lag = 10;                  ///< records between the counts of a plan and the micro-batch it serves
  index_t replan_every = 1;          ///< records between plans
  index_t window = 8;                ///< records that planners may look back
  index_t first = 10;                ///< first record that is judged
  index_t stride = 1;                ///< judge every n-th record
  index_t records = 0;               ///< records used; 0 = all
  index_t layers = 0;                ///< layers used; 0 = all
  index_t fan_out = 2;               ///< copies of a token, for the number of tokens that cross nodes
  double copy_us = 1.484375;         ///< time of one copy in the experts, forward. @unit{us}
  double row_bytes = 8192.0;         ///< one row of activations. @unit{B}
  double rank_gb_per_s = 12.5;       ///< bandwidth of a rank. @unit{GB/s}
  double expert_mb = 352.0;          ///< weights of an expert. @unit{MB}
  index_t made_ranks = 16;           ///< source ranks of a made trace
  index_t made_experts = 32;         ///< experts of a made trace
  index_t made_copies = 4096;        ///< copies a rank and record of a made trace
  std::uint64_t seed = 1;            ///< seed of a made trace
  bool plain = false;                ///< progress as lines even on a terminal
  bool quick = false;                ///< a small made trace; fails if a result is wrong
  bool help = false;                 ///< print the usage and end
};

/// Printed by --help and after a wrong command line.
inline constexpr std::string_view usage =
    R"(usage: plan_trace [options]
  --trace FILE         recorded loads: NumPy [records, layers, ranks, experts], or CSV with the columns
                       record,layer,rank,expert,copies (default: made from the seed)
  --out DIR            where the CSV files go (plan_out)
  --only LIST          run compositions whose name holds one of these words
  --slots-per-rank N   expert slots of a rank (4)
  --ranks-per-node N   ranks of a node (8)
  --lag N              records between the counts of a plan and the micro-batch that it serves (10)
  --replan-every N     records between plans (1)
  --window N           records that planners may look back (8)
  --first N            first record that is judged, at least the lag (10)
  --stride N           judge every n-th record (1)
  --records N          records used (all)
  --layers N           layers used (all)
  --fan-out N          experts of a token, for tokens that cross nodes (2)
  --copy-us X          time of one copy in the experts, forward (1.484)
  --row-bytes X        bytes of a row of activations (8192)
  --rank-gbps X        bandwidth of a rank in GB/s (12.5)
  --expert-mb X        weights of an expert in MB (352)
  --made-ranks N --made-experts N --made-copies N --seed N   the made trace (16, 32, 4096 a rank, 1)
  --plain              progress as lines even on a terminal
  --quick              a small made trace; exit code 1 if a result is not as it must be
  --help               this text
exit codes: 0 done, 1 failed, 2 wrong option or trace, 130 interrupted (what is done is written)
)";

/// @brief Read the command line.
/// @param words without the program's name
/// @returns the options
/// @throws examples::usage_error
inline options parse(std::vector<std::string_view> const& words) {
  examples::arguments given(words);
  options made;
  if (given.has("--quick")) {  // explicit options still win
    made.quick = true;
    made.made_ranks = 8;
    made.made_experts = 16;
    made.made_copies = 512;
    made.ranks_per_node = 4;
    made.records = 24;
    made.layers = 2;
    made.lag = 2;
  }
  while (given.next()) {
    std::string_view const name = given.name();
    if (name == "--quick") {
    } else if (name == "--plain") {
      made.plain = true;
    } else if (name == "--help" || name == "-h") {
      made.help = true;
    } else if (name == "--trace") {
      made.trace = given.value();
    } else if (name == "--out") {
      made.out = given.value();
    } else if (name == "--only") {
      made.only = given.list();
    } else if (name == "--slots-per-rank") {
      made.slots_per_rank = given.number(index_t{1});
    } else if (name == "--ranks-per-node") {
      made.ranks_per_node = given.number(index_t{1});
    } else if (name == "--lag") {
      made.lag = given.number(index_t{0});
    } else if (name == "--replan-every") {
      made.replan_every = given.number(index_t{1});
    } else if (name == "--window") {
      made.window = given.number(index_t{1});
    } else if (name == "--first") {
      made.first = given.number(index_t{0});
    } else if (name == "--stride") {
      made.stride = given.number(index_t{1});
    } else if (name == "--records") {
      made.records = given.number(index_t{1});
    } else if (name == "--layers") {
      made.layers = given.number(index_t{1});
    } else if (name == "--fan-out") {
      made.fan_out = given.number(index_t{1});
    } else if (name == "--copy-us") {
      made.copy_us = given.number(0.0);
    } else if (name == "--row-bytes") {
      made.row_bytes = given.number(0.0);
    } else if (name == "--rank-gbps") {
      made.rank_gb_per_s = given.number(1e-3);
    } else if (name == "--expert-mb") {
      made.expert_mb = given.number(0.0);
    } else if (name == "--made-ranks") {
      made.made_ranks = given.number(index_t{1});
    } else if (name == "--made-experts") {
      made.made_experts = given.number(index_t{1});
    } else if (name == "--made-copies") {
      made.made_copies = given.number(index_t{0});
    } else if (name == "--seed") {
      made.seed = given.number(std::uint64_t{0});
    } else {
      given.unknown();
    }
  }
  made.first = std::max(made.first, made.lag);
  return made;
}

}  // namespace plan_trace
