// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Published comparisons of placements and schedulers, simulated again with the parts of the library: each number beside
// the one it should be near.
//
//   example_09_drift_tables                        all simulated tables
//   example_09_drift_tables --trace loads.npy      and one on recorded loads
#include "../common/arguments.hpp"
#include "drift_tables.hpp"
#include "placement_tables.hpp"
#include "recorded_table.hpp"

#include <cstdint>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr std::string_view usage =
    R"(usage: example_09_drift_tables [options]
  --trace FILE      NumPy loads [records, layers, ranks, experts] for the table of candidate sets
  --first N         first record judged there (10)
  --stride N        every n-th record there (1)
  --tables LIST     some of figure_8,structure,drift,survival,candidates (all)
  --draws N         draws of figure_8 (60); structure takes 2000
  --seeds N         runs of drift (16)
  --batches N       batches of survival (20000)
  --persistence X --deviation X   how fast popularities move in drift (0.99, 0.5)
  --seed N          seed of all draws (1)
  --quick           smaller tables; exit code 1 if a number is further from its reference than it may be
  --help            this text
)";

struct options {
  std::string trace;
  std::vector<std::string> tables;
  fairlead::index_t first = 10, stride = 1, draws = 60, structure_draws = 2000, seeds = 16, batches = 20000;
  drift_tables::drift_speed speed;
  std::uint64_t seed = 1;
  bool quick = false, help = false;
  [[nodiscard]] bool wants(std::string_view name) const {
    bool any = tables.empty();
    for (std::string const& one : tables) { any = any || one == name; }
    return any;
  }
};

options parse(std::vector<std::string_view> const& words) {
  using fairlead::index_t;
  examples::arguments given(words);
  options made;
  if (given.has("--quick")) { made.quick = true, made.seeds = 4, made.batches = 6000; }
  while (given.next()) {
    std::string_view const name = given.name();
    if (name == "--quick") {
    } else if (name == "--help" || name == "-h") {
      made.help = true;
    } else if (name == "--trace") {
      made.trace = given.value();
    } else if (name == "--tables") {
      made.tables = given.list();
      for (std::string const& one : made.tables) {
        if (one != "figure_8" && one != "structure" && one != "drift" && one != "survival" && one != "candidates") {
          throw examples::usage_error("--tables: no table '" + one + "'");
        }
      }
    } else if (name == "--first") {
      made.first = given.number(index_t{0});
    } else if (name == "--stride") {
      made.stride = given.number(index_t{1});
    } else if (name == "--draws") {
      made.draws = given.number(index_t{1});
    } else if (name == "--seeds") {
      made.seeds = given.number(index_t{1});
    } else if (name == "--batches") {
      made.batches = given.number(index_t{2});
    } else if (name == "--persistence") {
      made.speed.persistence = given.number(0.0);
      if (made.speed.persistence > 1.0) { throw examples::usage_error("--persistence is a correlation: at most 1"); }
    } else if (name == "--deviation") {
      made.speed.deviation = given.number(0.0);
    } else if (name == "--seed") {
      made.seed = given.number(std::uint64_t{0});
    } else {
      given.unknown();
    }
  }
  return made;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    options const given = parse(std::vector<std::string_view>(argv + 1, argv + argc));
    if (given.help) {
      std::fwrite(usage.data(), 1, usage.size(), stdout);
      return 0;
    }
    int off = 0;
    if (given.wants("figure_8")) { off += drift_tables::figure_8(given.draws, given.seed, given.quick); }
    if (given.wants("structure")) { off += drift_tables::structure(given.structure_draws, given.seed, given.quick); }
    if (given.wants("drift")) { off += drift_tables::drift(given.seeds, given.seed, given.speed, given.quick); }
    if (given.wants("survival")) { off += drift_tables::survival(given.batches, given.seed, given.quick); }
    if (given.wants("candidates") && !given.trace.empty()) {
      drift_tables::candidate_sets(given.trace, given.first, given.stride);
    }
    if (off > 0) { std::printf("\n%d numbers are off\n", off); }
    return off > 0 ? 1 : 0;
  } catch (examples::usage_error const& wrong) {
    std::fprintf(stderr, "%s\n%.*s", wrong.what(), static_cast<int>(usage.size()), usage.data());
    return 2;
  } catch (std::exception const& failed) {
    std::fprintf(stderr, "%s\n", failed.what());
    return 2;
  }
}
