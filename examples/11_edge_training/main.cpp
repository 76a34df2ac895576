// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Train a small mixture of experts on images that arrive at servers with queues and energy budgets: the setting of
// Stable-MoE on Fashion-MNIST. Each time slot brings tokens (images); a strategy sends each to 3 of 10 servers, one expert
// each; the controller serves; the model learns from the tokens that are completed. Who learns best, and who keeps up?
//
//   experiment.hpp    one run, slot by slot: start reading here
//   mixture.hpp       the model, forward and backward; learner.hpp holds its parameters
//   images.hpp        IDX files and made images
//   results.hpp       means over seeds, tables and files
//   ../common/edge_strategies.hpp   the servers and the strategies
#include "experiment.hpp"
#include "images.hpp"
#include "options.hpp"
#include "results.hpp"
#include "../common/edge_strategies.hpp"
#include "../common/interrupt.hpp"
#include "../common/runs_bar.hpp"
#include "../common/side_by_side.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace edge_training;

std::vector<std::string> known_strategies() {
  std::vector<std::string> names;
  examples::each_strategy([&names](char const* name, auto const&) { names.emplace_back(name); });
  return names;
}

void check_names(std::vector<std::string>& wanted) {
  auto const known = known_strategies();
  if (wanted == std::vector<std::string>{"all"}) { wanted = known; }
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    auto const at = wanted.begin() + static_cast<std::ptrdiff_t>(i);
    if (std::find(known.begin(), known.end(), wanted[i]) == known.end()) {
      std::string list;
      for (auto const& name : known) { list.append(list.empty() ? "" : ", ").append(name); }
      throw examples::usage_error("unknown strategy '" + wanted[i] + "'; known: " + list);
    }
    if (std::find(wanted.begin(), at, wanted[i]) != at) { throw examples::usage_error("--strategies names '" + wanted[i] + "' twice"); }
  }
}

// One seed of everything first: what is there after Ctrl-C compares, too.
std::vector<job> jobs_of(options const& chosen) {
  std::vector<job> jobs;
  for (index_t i = 1; i <= chosen.seeds; ++i) {
    auto const seed = static_cast<std::uint64_t>(i);
    for (std::string const& name : chosen.strategies) { jobs.push_back({name, chosen.utility, seed}); }
    if (!chosen.sweep_v) { continue; }
    for (auto const name : sweep_strategies) {
      for (double const v : sweep_values) {
        bool const there = v == chosen.utility && std::find(chosen.strategies.begin(), chosen.strategies.end(), name) != chosen.strategies.end();
        if (!there) { jobs.push_back({std::string(name), v, seed}); }
      }
    }
  }
  return jobs;
}

// All runs, `chosen.threads` at a time. A run computes the same whatever runs beside it.
std::vector<outcome> run_all(std::vector<job> const& jobs, options const& chosen, data_set const& data) {
  std::vector<outcome> outcomes(jobs.size());
  examples::runs_bar line(static_cast<index_t>(jobs.size()), chosen.slots, chosen.plain);
  try {
    examples::side_by_side(jobs.size(), chosen.threads, [&](std::size_t i) {
      examples::each_strategy([&](char const* name, auto const& router) {
        if (jobs[i].strategy == name) { outcomes[i] = run(jobs[i], router, data, chosen, [&line] { line.step(); }); }
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

// What must hold on the small images: but for the accuracy, the reasons are in the definitions.
bool holds(report const& results) {
  bool right = !results.runs().empty();
  auto const expect = [&right](bool condition, outcome const& run, char const* what) {
    if (!condition) { std::fprintf(stderr, "%s, seed %llu: %s\n", run.name.c_str(), static_cast<unsigned long long>(run.seed), what); }
    right = right && condition;
  };
  for (outcome const& run : results.runs()) {
    expect(run.completed + run.waiting == run.arrivals, run, "tokens were lost or made");
    expect(run.accuracy > 0.2, run, "it learned no more than chance knows");
    expect(run.gate_share <= 1.0 + 1e-12 && run.gate_share > 0.0, run, "no choice has more gate mass than the gate's own");
    if (run.name == "top_k") { expect(run.gate_share > 1.0 - 1e-12, run, "its choice is the gate's"); }
    for (outcome const& other : results.runs()) {
      if (other.seed == run.seed) { expect(other.arrivals == run.arrivals, run, "strategies must see the same arrivals"); }
    }
  }
  return right;
}

int run_program(options chosen) {
  check_names(chosen.strategies);
  data_set const data = chosen.synthetic ? make_data(chosen.side, chosen.images, chosen.images / 4, 1) : read_data(chosen.data);
  examples::prepare_folder(chosen.out, {"summary.csv", "runs.csv", "curves.csv"});
  examples::interrupt::listen();
  auto const jobs = jobs_of(chosen);
  index_t const test = chosen.test == 0 ? data.test.size() : std::min(chosen.test, data.test.size());
  std::printf("%lld training images, %lld test images of %lld pixels; %lld servers, %lld experts a token, %lld slots of %g arrivals; %zu runs\n",
              static_cast<long long>(data.train.size()), static_cast<long long>(test), static_cast<long long>(data.train.width),
              static_cast<long long>(server_count), static_cast<long long>(chosen_count), static_cast<long long>(chosen.slots), chosen.arrivals, jobs.size());
  std::fflush(stdout);
  report const results(run_all(jobs, chosen, data), chosen.strategies, chosen.utility);
  results.print();
  results.write(chosen.out);
  std::printf("\nwritten: %s/{summary,runs,curves}.csv\n", chosen.out.c_str());
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
  } catch (examples::usage_error const& error) {
    std::fprintf(stderr, "edge_training: %s\nsee --help\n", error.what());
    return 2;
  } catch (data_error const& error) {
    std::fprintf(stderr, "edge_training: %s\n", error.what());
    return 2;
  } catch (std::exception const& error) {
    std::fprintf(stderr, "edge_training: %s\n", error.what());
    return 1;
  }
}
