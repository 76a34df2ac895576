// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// How much does routing fluctuate while a language model learns, and what does it cost in perplexity and load? The same
// small model is trained with eight rules of routing and several seeds; during training the experts of fixed validation
// tokens are taken again and again.
//
//   compositions.hpp  the layers that are compared: start reading here
//   experiment.hpp    one run: training, snapshots, validation
//   results.hpp       means over seeds, table and files
//   ../common/        the dense layers around the experts (trunk.hpp), and words to numbers (text.hpp)
#include "compositions.hpp"
#include "experiment.hpp"
#include "options.hpp"
#include "results.hpp"
#include "../common/interrupt.hpp"
#include "../common/runs_bar.hpp"
#include "../common/side_by_side.hpp"
#include "../common/text.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace routing_fluctuation;

struct job {
  std::string name;
  std::uint64_t seed;
};

void check_names(std::vector<std::string> const& wanted) {
  for (std::string const& name : wanted) {
    if (std::find(composition_names.begin(), composition_names.end(), name) == composition_names.end()) {
      std::string known;
      for (auto const candidate : composition_names) { known.append(known.empty() ? "" : ", ").append(candidate); }
      throw usage_error("unknown composition '" + name + "'; known: " + known);
    }
  }
}

// All runs, `chosen.jobs` at a time. A run computes the same whatever runs beside it.
std::vector<outcome> run_all(std::vector<job> const& jobs, options const& chosen, lm::corpus const& text) {
  std::vector<outcome> outcomes(jobs.size());
  examples::runs_bar line(static_cast<index_t>(jobs.size()), chosen.steps, chosen.plain);
  try {
    examples::side_by_side(jobs.size(), chosen.jobs, [&](std::size_t i) {
      visit_composition(jobs[i].name, chosen, static_cast<index_t>(text.vocabulary.size()), jobs[i].seed, [&](auto const& layer) {
        outcomes[i] = run(jobs[i].name, jobs[i].seed, layer, text, chosen, [&line] { line.step(); });
      });
      line.finish(line_of(outcomes[i]));
    });
  } catch (...) {
    line.close();
    throw;
  }
  line.close();
  return outcomes;
}

// What must hold whatever the text: the reasons are in the definitions of the routers.
bool holds(report const& results) {
  bool right = !results.runs().empty();
  auto const expect = [&right](bool condition, outcome const& run, char const* what) {
    if (!condition) { std::fprintf(stderr, "%s, seed %llu: %s\n", run.name.c_str(), static_cast<unsigned long long>(run.seed), what); }
    right = right && condition;
  };
  for (outcome const& run : results.runs()) {
    expect(run.validation_loss < 0.8 * run.curve.front().loss, run, "it did not learn");
    if (run.name == "hash") { expect(run.flips == 0.0, run, "a hash must never change"); }
    if (run.name == "stable_two") { expect(run.after_20 == 0.0, run, "the second stage must not change experts"); }
    if (run.name.starts_with("base")) { expect(run.train_load == 1.0 && run.fallbacks == 0, run, "training loads must be even"); }
  }
  return right;
}

int run_program(options chosen) {
  if (chosen.compositions.empty()) { chosen.compositions.assign(composition_names.begin(), composition_names.end()); }
  check_names(chosen.compositions);
  lm::corpus const text = lm::corpus::make(chosen.text.empty() ? lm::generated_text(6000, 1) : lm::read_text(chosen.text),
                                           chosen.vocabulary, chosen.context);
  examples::interrupt::listen();
  std::printf("%zu training words, %zu validation words, vocabulary %zu; %lld experts, %lld steps of %lld tokens\n",
              text.train.size(), text.validation.size(), text.vocabulary.size(), static_cast<long long>(chosen.experts),
              static_cast<long long>(chosen.steps), static_cast<long long>(chosen.batch));
  std::fflush(stdout);
  std::vector<job> jobs;
  for (index_t seed = 1; seed <= chosen.seeds; ++seed) {  // one seed of everything first: an interrupted run compares, too
    for (std::string const& name : chosen.compositions) { jobs.push_back({name, static_cast<std::uint64_t>(seed)}); }
  }
  report const results(run_all(jobs, chosen, text), chosen.compositions);
  results.print();
  results.write(chosen.out);
  std::printf("\nwritten: %s/{summary,runs,distribution,curves}.csv\n", chosen.out.c_str());
  if (examples::interrupt::came()) { return 130; }
  return !chosen.quick || holds(results) ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    options const chosen = parse(std::vector<std::string_view>(argv + 1, argv + argc));
    if (chosen.help) {
      std::fputs(std::string(usage).c_str(), stdout);
      return 0;
    }
    return run_program(chosen);
  } catch (usage_error const& error) {
    std::fprintf(stderr, "routing_fluctuation: %s\nsee --help\n", error.what());
    return 2;
  } catch (lm::text_error const& error) {
    std::fprintf(stderr, "routing_fluctuation: %s\n", error.what());
    return 2;
  } catch (std::exception const& error) {
    std::fprintf(stderr, "routing_fluctuation: %s\n", error.what());
    return 1;
  }
}
