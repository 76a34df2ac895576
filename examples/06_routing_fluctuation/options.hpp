// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The command line of the experiment.
#include <fairlead/core/ids.hpp>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace routing_fluctuation {
namespace fl = fairlead;
using fl::index_t;

/// @brief A command line that makes no sense; `what()` says what to write instead.
struct usage_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// @brief What the user can choose.
struct options {
  std::string text;                        ///< file to learn from; empty = generated text (with --quick only)
  std::string out = "fluctuation_out";     ///< folder of the results
  std::vector<std::string> compositions;   ///< which to train; empty = all
  index_t seeds = 3;                       ///< runs of each composition
  index_t jobs = 2;                        ///< runs at the same time
  index_t steps = 1500;                    ///< training steps of a run
  index_t snapshots = 60;                  ///< times that the routing of the followed tokens is taken
  index_t followed = 2048;                 ///< validation tokens whose routing is followed
  index_t batch = 1024;                    ///< tokens of a step
  index_t vocabulary = 2048;               ///< words
  index_t context = 8;                     ///< previous words that the model sees
  index_t embedding = 32;                  ///< width of a word
  index_t width = 96;                      ///< width of the hidden state
  index_t experts = 16;                    ///< experts
  index_t hidden = 192;                    ///< hidden width of an expert
  double rate = 4e-3;                      ///< highest learning rate
  bool plain = false;                      ///< progress as lines even on a terminal
  bool quick = false;                      ///< a tiny model and text; fails if the result is wrong
  bool help = false;                       ///< print the usage and end
};

/// Printed by --help and after a wrong command line.
inline constexpr std::string_view usage =
    R"(usage: routing_fluctuation --text FILE [options]
  --text FILE          text to learn from
  --out DIR            where the CSV files go (fluctuation_out)
  --compositions LIST  some of base_greedy,base_priced,stable_one,stable_two,switch,hash,quantile,exact_dual (all)
  --seeds N            runs of each composition (3)
  --jobs N             runs at the same time, a thread each (2)
  --steps N            training steps of a run (1500)
  --snapshots N        times that the routing of the followed tokens is taken (60)
  --followed N         validation tokens whose routing is followed (2048)
  --experts N          experts of the layer (16)
  --rate X             highest learning rate (0.004)
  --plain              progress as lines even on a terminal
  --quick              tiny model on a generated text; exit code 1 if the result is not as it must be
  --help               this text
exit codes: 0 done, 1 failed, 2 wrong option or text, 130 interrupted (finished runs are written)
)";

/// @brief Read the command line.
/// @param arguments without the program's name
/// @returns the options
/// @throws usage_error
inline options parse(std::vector<std::string_view> const& arguments) {
  options made;
  if (std::find(arguments.begin(), arguments.end(), "--quick") != arguments.end()) {  // explicit options still win
    made.quick = true;
    made.seeds = 2;
    made.steps = 100;
    made.snapshots = 20;
    made.followed = 250;
    made.batch = 256;
    made.vocabulary = 64;
    made.context = 4;
    made.embedding = 8;
    made.width = 24;
    made.experts = 4;
    made.hidden = 24;
    made.rate = 1e-2;
  }
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    std::string_view const name = arguments[i];
    auto const value = [&] {
      if (i + 1 >= arguments.size()) { throw usage_error(std::string(name) + " needs a value"); }
      return arguments[++i];
    };
    auto const number = [&](auto least) {
      std::string_view const text = value();
      auto parsed = least;
      auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), parsed);
      if (error != std::errc{} || end != text.data() + text.size() || !(parsed >= least)) {
        std::ostringstream message;
        message << name << " needs a number >= " << least << ", not '" << text << "'";
        throw usage_error(message.str());
      }
      return parsed;
    };
    if (name == "--quick") {
    } else if (name == "--plain") {
      made.plain = true;
    } else if (name == "--help" || name == "-h") {
      made.help = true;
    } else if (name == "--text") {
      made.text = value();
    } else if (name == "--out") {
      made.out = value();
    } else if (name == "--compositions") {
      std::istringstream list{std::string(value())};
      made.compositions.clear();
      for (std::string item; std::getline(list, item, ',');) { made.compositions.push_back(item); }
    } else if (name == "--seeds") {
      made.seeds = number(index_t{1});
    } else if (name == "--jobs") {
      made.jobs = number(index_t{1});
    } else if (name == "--steps") {
      made.steps = number(index_t{1});
    } else if (name == "--snapshots") {
      made.snapshots = number(index_t{1});
    } else if (name == "--followed") {
      made.followed = number(index_t{1});
    } else if (name == "--experts") {
      made.experts = number(index_t{2});
    } else if (name == "--rate") {
      made.rate = number(0.0);
    } else {
      throw usage_error("unknown option '" + std::string(name) + "'");
    }
  }
  if (made.text.empty() && !made.quick && !made.help) { throw usage_error("--text FILE is missing (or use --quick)"); }
  made.snapshots = std::min(made.snapshots, made.steps);
  return made;
}

}  // namespace routing_fluctuation
