// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A word-level language model with a Mixture-of-Experts layer, trained in data and expert parallel.
//
//   launch.hpp        ranks: threads of this process, or processes under mpirun
//   compositions.hpp  the three MoE layers that are compared: start reading here
//   moe.hpp           such a layer with its optimizer
//   training.hpp      the loop over steps, and validation
//   ../common/       what the examples share: trunk.hpp, the dense layers around it; text.hpp, words to numbers
#include "compositions.hpp"
#include "launch.hpp"
#include "moe.hpp"
#include "options.hpp"
#include "results.hpp"
#include "training.hpp"
#include "../common/interrupt.hpp"
#include "../common/text.hpp"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace language_model;

void check_names(std::vector<std::string> const& wanted) {
  for (std::string const& name : wanted) {
    if (std::find(composition_names.begin(), composition_names.end(), name) == composition_names.end()) {
      std::string known;
      for (auto const candidate : composition_names) { known.append(known.empty() ? "" : ", ").append(candidate); }
      throw usage_error("unknown composition '" + name + "'; known: " + known);
    }
  }
}

// Runs on every rank.
template <class Comm>
std::vector<outcome> train_all(options const& chosen, corpus const& text, Comm comm) {
  std::vector<outcome> outcomes;
  double seconds = chosen.seconds;  // what one composition leaves of its part, the others get; equal on all ranks
  for_each_composition(chosen, [&](std::string_view name, auto const& layer) {
    bool const wanted =
        std::find(chosen.compositions.begin(), chosen.compositions.end(), name) != chosen.compositions.end();
    if (!wanted || (!outcomes.empty() && outcomes.back().interrupted)) { return; }
    auto const remaining = static_cast<double>(chosen.compositions.size() - outcomes.size());
    moe_part part(layer, chosen, comm);
    outcomes.push_back(train(std::string(name), part, text, chosen, seconds / remaining, comm));
    if (chosen.seconds > 0.0) { seconds = std::max(seconds - outcomes.back().seconds(), 1e-3); }
  });
  return outcomes;
}

int run(options chosen, launcher& ranks) {
  if (chosen.compositions.empty()) { chosen.compositions.assign(composition_names.begin(), composition_names.end()); }
  check_names(chosen.compositions);
  corpus const text = corpus::make(chosen.text.empty() ? generated_text(6000, 1) : read_text(chosen.text),
                                   chosen.vocabulary, chosen.context);
  if (ranks.root()) {
    std::printf("%zu training words, %zu validation words, vocabulary %zu; %lld ranks, %lld experts\n",
                text.train.size(), text.validation.size(), text.vocabulary.size(),
                static_cast<long long>(ranks.size(chosen)), static_cast<long long>(chosen.experts));
  }
  examples::interrupt::listen();
  std::vector<outcome> const outcomes =
      ranks.run(chosen, [&](auto comm) { return train_all(chosen, text, comm); });
  bool const interrupted = outcomes.back().interrupted;
  if (!ranks.root()) { return interrupted ? 130 : 0; }
  print_table(outcomes);
  write_files(outcomes, chosen.out);
  std::printf("\nwritten: %s/curves.csv, %s/summary.csv\n", chosen.out.c_str(), chosen.out.c_str());
  if (interrupted) { return 130; }
  if (chosen.quick) {
    for (outcome const& result : outcomes) {
      if (!(result.validation_loss < 0.8 * result.curve.front().loss)) {
        std::fprintf(stderr, "%s did not learn: first loss %.3f, validation loss %.3f\n", result.name.c_str(),
                     result.curve.front().loss, result.validation_loss);
        return 1;
      }
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  launcher ranks(argc, argv);
  auto const complain = [&](char const* what) {
    if (ranks.root()) { std::fprintf(stderr, "language_model: %s\n", what); }
  };
  try {
    options const chosen = parse(std::vector<std::string_view>(argv + 1, argv + argc));
    if (chosen.help) {
      if (ranks.root()) { std::fputs(std::string(usage).c_str(), stdout); }
      return 0;
    }
    return run(chosen, ranks);
  } catch (usage_error const& error) {
    complain(error.what());
    complain("see --help");
    return 2;
  } catch (text_error const& error) {
    complain(error.what());
    return 2;
  } catch (std::exception const& error) {
    std::fprintf(stderr, "language_model: %s\n", error.what());
    ranks.abandon();
    return 1;
  }
}
