// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The command line of the example.
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

namespace language_model {
namespace fl = fairlead;
using fl::index_t;

/// @brief A command line that makes no sense; `what()` says what to write instead.
struct usage_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// @brief What the user can choose.
struct options {
  std::string text;                       ///< file to learn from; empty = generated text (with --quick only)
  std::string out = "language_model_out"; ///< folder of the results
  std::vector<std::string> compositions;  ///< which to train; empty = all
  index_t ranks = 4;                      ///< in-process ranks (under mpirun: what mpirun says)
  index_t steps = 1500;                   ///< training steps of each composition
  double seconds = 165.0;                 ///< most seconds of training, all compositions together; 0 = no limit
  std::uint64_t seed = 1;                 ///< seed of parameters and noise
  index_t batch = 1024;                   ///< tokens of a step, all ranks together
  index_t vocabulary = 2048;              ///< words
  index_t context = 8;                    ///< previous words that the model sees
  index_t embedding = 64;                 ///< width of a word
  index_t width = 128;                    ///< width of the hidden state
  index_t experts = 8;                    ///< experts, all ranks together
  index_t hidden = 256;                   ///< hidden width of an expert
  double rate = 5e-3;                     ///< highest learning rate
  bool plain = false;                     ///< progress as lines even on a terminal
  bool quick = false;                     ///< a tiny model and text; fails if it does not learn
  bool help = false;                      ///< print the usage and end
};

/// Printed by --help and after a wrong command line.
inline constexpr std::string_view usage =
    R"(usage: language_model --text FILE [options]
  --text FILE          text to learn from
  --out DIR            where curves.csv and summary.csv go (language_model_out)
  --compositions LIST  some of switch,deepseek,mixtral (all)
  --ranks N            ranks inside this process (4); under mpirun the launcher decides
  --steps N            training steps of each composition (1500)
  --seconds S          most seconds of training in all, 0 = no limit (165)
  --seed N             seed of the initial parameters (1)
  --batch N            tokens of one step, all ranks together (1024)
  --vocabulary N       most frequent words that get a number (2048)
  --experts N          experts of the MoE layer (8)
  --rate X             highest learning rate (0.005)
  --plain              progress as lines even on a terminal
  --quick              tiny model on a generated text; exit code 1 if the loss does not fall
  --help               this text
exit codes: 0 done, 1 failed, 2 wrong option or text, 130 interrupted (results so far are written)
)";

/// @brief Read the command line.
/// @param arguments without the program's name
/// @returns the options
/// @throws usage_error
inline options parse(std::vector<std::string_view> const& arguments) {
  options made;
  auto const wants = [&](std::string_view name) {
    return std::find(arguments.begin(), arguments.end(), name) != arguments.end();
  };
  if (wants("--quick")) {  // explicit options below still win
    made.quick = true;
    made.ranks = 2;
    made.steps = 60;
    made.batch = 256;
    made.vocabulary = 64;
    made.context = 4;
    made.embedding = 8;
    made.width = 32;
    made.hidden = 32;
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
    } else if (name == "--ranks") {
      made.ranks = number(index_t{1});
    } else if (name == "--steps") {
      made.steps = number(index_t{1});
    } else if (name == "--seconds") {
      made.seconds = number(0.0);
    } else if (name == "--seed") {
      made.seed = number(std::uint64_t{0});
    } else if (name == "--batch") {
      made.batch = number(index_t{1});
    } else if (name == "--vocabulary") {
      made.vocabulary = number(index_t{2});
    } else if (name == "--experts") {
      made.experts = number(index_t{2});
    } else if (name == "--rate") {
      made.rate = number(0.0);
    } else {
      throw usage_error("unknown option '" + std::string(name) + "'");
    }
  }
  if (made.text.empty() && !made.quick && !made.help) { throw usage_error("--text FILE is missing (or use --quick)"); }
  return made;
}

}  // namespace language_model
