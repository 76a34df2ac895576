// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Queues and energy at the edge: every strategy on the same arrivals and gate scores, over loads, skews and seeds.
//
//   edge_simulation                                          everything
//   edge_simulation --loads 390 --skews 0.5 --seeds 1        one run
//   edge_simulation --baseline-speed average                 the baselines of the paper with another speed rule
#include "../common/interrupt.hpp"
#include "results.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <exception>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace {

namespace sim = edge_simulation;
using fairlead::index_t;
using seconds = std::chrono::duration<double>;

// Threads that take runs in order; what they write is under the mutex.
struct board {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<sim::job> jobs;
  std::size_t next = 0;
  std::atomic<bool> failed = false;
  std::exception_ptr failure;
};

void work(sim::options const& given, std::vector<sim::setting> const& settings, board& all) {
  auto const stopped = [&] { return examples::interrupt::came() || all.failed; };
  for (;;) {
    std::size_t mine = 0;
    {
      std::lock_guard const hold(all.mutex);
      if (all.next == all.jobs.size() || stopped()) { return; }
      mine = all.next++;
    }
    try {
      auto shown = std::chrono::steady_clock::now();
      auto result = sim::simulate(given, settings[all.jobs[mine].setting], all.jobs[mine].seed, stopped, [&](auto const& lanes) {
        auto const now = std::chrono::steady_clock::now();
        if (now - shown < std::chrono::milliseconds(50)) { return; }
        shown = now;
        std::lock_guard const hold(all.mutex);
        auto& so_far = all.jobs[mine].result.strategies;
        so_far.clear();
        for (auto const& one : lanes) { so_far.push_back(one->done()); }
      });
      std::lock_guard const hold(all.mutex);
      all.jobs[mine].result = std::move(result);
      all.jobs[mine].finished = true;
    } catch (...) {
      std::lock_guard const hold(all.mutex);
      if (!all.failure) { all.failure = std::current_exception(); }
      all.failed = true;
    }
    all.changed.notify_all();
  }
}

// The runs of a setting that a table shows: complete ones; what there is, if none is.
std::vector<sim::job const*> runs_of(std::vector<sim::job> const& jobs, std::size_t setting, bool complete) {
  std::vector<sim::job const*> made;
  for (auto const& one : jobs) {
    if (one.setting == setting && !one.result.strategies.empty() && one.result.strategies.front().slots > 0 && (one.result.complete || !complete)) {
      made.push_back(&one);
    }
  }
  return made;
}

// Everything, in order; tables are printed as their runs end, and returned in Markdown.
std::string report(sim::options const& given, std::vector<sim::setting> const& settings, board& all, examples::live_table& screen) {
  auto const start = std::chrono::steady_clock::now();
  std::string markdown;
  std::size_t told = 0;
  std::unique_lock hold(all.mutex);
  for (std::size_t shown = 0; shown < settings.size() && !all.failed;) {
    auto const ended = [&](sim::job const& one) { return one.setting != shown || one.finished; };
    bool const stopped = examples::interrupt::came();
    bool const done = std::all_of(all.jobs.begin(), all.jobs.end(), ended);
    auto const finished = static_cast<std::size_t>(std::count_if(all.jobs.begin(), all.jobs.end(), [](auto const& one) { return one.finished; }));
    double const spent = seconds(std::chrono::steady_clock::now() - start).count();
    if (done || (stopped && finished == std::min(all.next, all.jobs.size()))) {
      auto runs = runs_of(all.jobs, shown, true);
      bool const partial = runs.empty();
      if (partial) { runs = runs_of(all.jobs, shown, false); }
      if (!runs.empty()) {
        std::string const name = sim::title(given, settings[shown], runs.size()) + (partial ? " (interrupted)" : "");
        bool const several = runs.size() > 1;
        auto lines = sim::table(given, settings[shown], runs, several ? sim::detail::main : sim::detail::means).lines();
        lines.insert(lines.begin(), {"", name});
        screen.keep(lines);
        markdown += name + "\n\n" + sim::table(given, settings[shown], runs, several ? sim::detail::all : sim::detail::means).markdown() + '\n';
      }
      ++shown;
      continue;
    }
    if (!screen.live() && finished > told) {
      std::printf("%zu of %zu runs, %.1f s\n", finished, all.jobs.size(), spent);
      std::fflush(stdout);
      told = finished;
    }
    if (screen.due()) {
      double passed = 0.0;
      for (auto const& one : all.jobs) {
        if (!one.result.strategies.empty()) { passed += static_cast<double>(one.result.strategies.front().slots) / static_cast<double>(given.slots); }
      }
      auto const runs = runs_of(all.jobs, shown, false);
      auto lines = runs.empty() ? std::vector<std::string>{} : sim::table(given, settings[shown], runs, sim::detail::means).lines();
      double const share = passed / static_cast<double>(all.jobs.size());
      char line[160];
      std::snprintf(line, sizeof line, "%5.1f %%, %zu of %zu runs, %.0f s, about %.0f s left; Ctrl-C ends with what there is", 100.0 * share, finished,
                    all.jobs.size(), spent, share > 0.01 ? spent / share - spent : 0.0);
      lines.insert(lines.begin(), {"", sim::title(given, settings[shown], runs.size()) + ", running"});
      lines.emplace_back(line);
      screen.draw(lines);
    }
    all.changed.wait_for(hold, std::chrono::milliseconds(100));
  }
  screen.clear();
  return markdown;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    auto const given = sim::parse(std::vector<std::string_view>(argv + 1, argv + argc));
    if (given.help) {
      std::fwrite(sim::usage.data(), 1, sim::usage.size(), stdout);
      return 0;
    }
    std::vector<sim::setting> settings;
    for (double const load : given.loads) {
      for (double const skew : given.skews) { settings.push_back({load, skew}); }
      if (given.more_skew && load == 390.0) { settings.push_back({load, 1.0}); }
    }
    if (!given.sweep.empty()) { settings.push_back({given.sweep_load, given.sweep_skew, true}); }
    settings.erase(std::remove_if(settings.begin(), settings.end(), [&](auto const& one) { return sim::entries_of(given, one).empty(); }), settings.end());
    examples::prepare_folder(given.out, {"summary.csv", "series.csv", "tables.md"});

    examples::interrupt::listen();
    auto const start = std::chrono::steady_clock::now();
    board all;
    for (std::size_t s = 0; s < settings.size(); ++s) {
      for (index_t seed = 1; seed <= given.seeds; ++seed) { all.jobs.push_back({s, static_cast<std::uint64_t>(seed), {}, false}); }
    }
    index_t const used = std::min(given.threads, static_cast<index_t>(all.jobs.size()));
    examples::live_table screen(given.plain);
    std::string tables;
    {
      std::vector<std::jthread> threads;
      for (index_t t = 0; t < used; ++t) {
        threads.emplace_back([&] { work(given, settings, all); });
      }
      tables = report(given, settings, all, screen);
    }
    if (all.failure) { std::rethrow_exception(all.failure); }
    sim::write_files(given, settings, all.jobs, tables);
    double bounds = 0.0;
    double controllers = 0.0;
    for (auto const& one : all.jobs) {
      bounds += one.result.bound_seconds;
      for (auto const& strategy : one.result.strategies) { controllers += strategy.seconds; }
    }
    std::printf("%.1f s on %lld threads; processor time: controllers %.1f s, bounds %.1f s; results in %s\n",
                seconds(std::chrono::steady_clock::now() - start).count(), static_cast<long long>(used), controllers, bounds, given.out.c_str());
    bool good = true;
    for (auto const& one : all.jobs) {
      for (auto const& strategy : one.result.strategies) {
        if (!strategy.wrong.empty()) { std::printf("seed %llu: %s\n", static_cast<unsigned long long>(one.seed), strategy.wrong.c_str()), good = false; }
      }
    }
    if (examples::interrupt::came()) { return 130; }
    return good ? 0 : 1;
  } catch (examples::usage_error const& wrong) {
    std::fprintf(stderr, "edge_simulation: %s\nsee --help\n", wrong.what());
    return 2;
  } catch (std::exception const& failed) {
    std::fprintf(stderr, "edge_simulation: %s\n", failed.what());
    return 1;
  }
}
