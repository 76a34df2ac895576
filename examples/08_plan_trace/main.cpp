// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Replay recorded expert loads: every planner with every scheduler that understands its replicas, on the same micro-batches.
//
//   plan_trace                        a made, drifting trace
//   plan_trace --trace loads.npy      a recorded one
#include "../common/interrupt.hpp"
#include "compositions.hpp"
#include "results.hpp"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace {

// What must be true of any trace: nothing is lost, and an exact scheduler is never worse than another one on the same tables.
bool sound(std::vector<plan_trace::outcome> const& results) {
  bool good = !results.empty();
  for (auto const& one : results) {
    if (!one.conserves) { std::printf("%s + %s loses copies\n", one.planner.c_str(), one.scheduler.c_str()), good = false; }
    for (auto const& other : results) {
      if (one.scheduler != "min_max_flow" || other.planner != one.planner) { continue; }
      for (std::size_t i = 0; i < one.imbalance.size(); ++i) {
        if (one.imbalance[i] > other.imbalance[i] + 1e-12) {
          std::printf("%s: %s is better than the optimum\n", one.planner.c_str(), other.scheduler.c_str());
          return false;
        }
      }
    }
  }
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  namespace fl = fairlead;
  try {
    auto const given = plan_trace::parse(std::vector<std::string_view>(argv + 1, argv + argc));
    if (given.help) {
      std::fwrite(plan_trace::usage.data(), 1, plan_trace::usage.size(), stdout);
      return 0;
    }
    plan_trace::recorded const loads = plan_trace::get_loads(given);
    if (loads.records <= given.first) {
      throw examples::usage_error("the trace has " + std::to_string(loads.records) + " records; --first and --lag must be below that");
    }
    if (loads.ranks * given.slots_per_rank < loads.experts) {
      throw examples::usage_error("--slots-per-rank is too small: " + std::to_string(loads.experts) + " experts need a slot each");
    }
    std::error_code error;
    std::filesystem::create_directories(given.out, error);
    if (error) { throw examples::usage_error(given.out + ": " + error.message()); }

    examples::interrupt::listen();
    constexpr fl::index_t parts = 5 + static_cast<fl::index_t>(std::tuple_size_v<decltype(plan_trace::planners_of(given))>);
    plan_trace::bar progress(parts, given.plain);
    plan_trace::setting const now{
        .given = given,
        .loads = loads,
        .cluster = fl::topology(loads.ranks, given.slots_per_rank, given.ranks_per_node),
        .time = {.seconds_per_copy = 3.0e-6 * given.copy_us, .bytes_per_copy = given.row_bytes, .bytes_per_s = given.rank_gb_per_s * 1e9, .exchanges = 4.0},
        .interrupted = [] { return examples::interrupt::came(); },
        .advance = [&](double share) { progress.advance(share); }};
    std::printf("%lld records of %lld layers, %lld ranks, %lld experts, %lld slots; plans from counts %lld records old\n", static_cast<long long>(loads.records),
                static_cast<long long>(loads.layers), static_cast<long long>(loads.ranks), static_cast<long long>(loads.experts),
                static_cast<long long>(now.cluster.slots()), static_cast<long long>(given.lag));
    auto results = plan_trace::run_all(
        now,
        [&](std::string const& name) {
          return given.only.empty() || std::any_of(given.only.begin(), given.only.end(), [&](std::string const& part) { return name.find(part) != std::string::npos; });
        },
        [&](std::string const& name) { progress.begin(name); });
    progress.close();
    if (results.empty()) { throw examples::usage_error("--only names no composition"); }
    plan_trace::print_table(results, given);
    plan_trace::write_files(results, now);
    if (examples::interrupt::came()) { return 130; }
    return sound(results) ? 0 : 1;
  } catch (examples::usage_error const& wrong) {
    std::fprintf(stderr, "%s\n%.*s", wrong.what(), static_cast<int>(plan_trace::usage.size()), plan_trace::usage.data());
    return 2;
  } catch (std::exception const& failed) {
    std::fprintf(stderr, "%s\n", failed.what());
    return 2;
  }
}
