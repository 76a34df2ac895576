// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Loads that drift: plans grow old, and capacity follows late.
#include "placement_tables.hpp"
#include "report.hpp"
#include "simulation.hpp"

#include <fairlead/place/cayley.hpp>
#include <fairlead/place/even_replicas.hpp>
#include <fairlead/place/global_pack.hpp>
#include <fairlead/place/lpt_permutation.hpp>
#include <fairlead/place/replicate_then_place.hpp>
#include <fairlead/schedule/equal_split.hpp>
#include <fairlead/schedule/local_node_even.hpp>
#include <fairlead/schedule/min_max_flow.hpp>
#include <fairlead/schedule/slot_capacity.hpp>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace drift_tables {

/// @brief A stationary first-order autoregression of each expert's log popularity.
class walk {
 public:
  /// @param random the random numbers
  /// @param count experts
  /// @param persistence correlation from one batch to the next
  /// @param deviation standard deviation
  walk(dice& random, index_t count, double persistence, double deviation)
      : random_(random),
        persistence_(persistence),
        fresh_(deviation * std::sqrt(1.0 - persistence * persistence)),
        state_(static_cast<std::size_t>(count)) {
    for (double& one : state_) { one = deviation * random_.normal(); }
  }
  /// @brief Go on by one batch.
  void step() {
    for (double& one : state_) { one = persistence_ * one + fresh_ * random_.normal(); }
  }
  /// @param e an expert
  /// @returns its log popularity
  [[nodiscard]] double operator[](std::size_t e) const { return state_[e]; }

 private:
  dice& random_;
  double persistence_;
  double fresh_;
  std::vector<double> state_;
};

/// How fast log popularities move; the source of the reference numbers does not say. These bring the two columns that
/// depend on nothing else (equal split without noise, plans of one and of up to 50 batches ago) near their reference.
struct drift_speed {
  double persistence = 0.99;  ///< correlation from one batch to the next
  double deviation = 0.5;     ///< standard deviation
};

/// @brief Planner x scheduler under drift: 8 ranks, 32 experts, 64 slots; the first 50 of 550 batches are history only.
/// @param seeds runs, each with its own owners of the Zipf places
/// @param seed of the first run
/// @param speed of the drift
/// @param judged whether differences fail the program
/// @returns numbers that are off
inline int drift(index_t seeds, std::uint64_t seed, drift_speed const& speed, bool judged) {
  struct reference_row {
    double skew, noise;
    double value[7];
  };
  static constexpr reference_row rows[] = {{0.5, 0.3, {1.425, 1.282, 1.237, 1.211, 1.391, 1.028, 1.003}},
                                           {0.8, 0.3, {1.589, 1.311, 1.225, 1.195, 1.422, 1.053, 1.003}},
                                           {0.8, 0.6, {1.587, 1.377, 1.374, 1.467, 1.840, 1.066, 1.028}},
                                           {1.2, 0.0, {1.748, 1.289, 1.144, 1.030, 1.233, 1.202, 1.000}},
                                           {1.2, 0.3, {2.103, 1.769, 1.206, 1.173, 1.605, 1.655, 1.000}},
                                           {1.2, 0.6, {2.006, 1.604, 1.322, 1.404, 2.010, 1.475, 1.021}}};
  constexpr index_t batches = 550, history = 50;
  char title[256];
  std::snprintf(title, sizeof title,
                "drift: largest / mean load, %lld batches, mean of %lld seeds; log popularity AR(1) with persistence "
                "%g, deviation %g, and noise a batch; "
                "/50, /1: re-planned every 50 batches or every one",
                static_cast<long long>(batches), static_cast<long long>(seeds), speed.persistence, speed.deviation);
  table out(
      title, "Zipf, noise",
      {"EP of 4", "LPT /50", "EPLB equal /50", "EPLB equal /1", "SYMI equal /1", "graph exact", "EPLB exact /50"});
  fl::topology const cluster(ranks, slots_per_rank);
  fl::topology const one_group(group, slots_per_rank);
  fl::local_node_even const own_group{.cluster = fl::topology(ranks, slots_per_rank, group)};
  fl::placement const plain = two_groups(in_order());
  std::vector<index_t> const nothing(static_cast<std::size_t>(experts), 1);
  fl::placement const symmetric = plan(fl::cayley_placement{}, cluster, nothing);
  for (reference_row const& row : rows) {
    average columns[7];
    for (index_t run = 0; run < seeds; ++run) {
      dice random(seed + static_cast<std::uint64_t>(run));
      auto const shares = random.owners(fl::workload::zipf_shares(experts, row.skew));
      walk popularity(random, experts, speed.persistence, speed.deviation);
      std::vector<index_t> window(static_cast<std::size_t>(experts), 0), last(window);
      fl::placement permuted, packed, fresh, in_proportion;
      average here[7];
      for (index_t batch = 0; batch < batches; ++batch, popularity.step()) {
        if (batch >= history) {
          if (batch % history == 0) {
            // SmartMoE keeps one replica a group: the same permutation in both groups.
            fl::placement const half = plan(fl::lpt_permutation{}, one_group, window);
            std::vector<fl::expert_id> order;
            for (index_t rank = 0; rank < group; ++rank) {
              auto const own = half.experts_on(static_cast<fl::rank_id>(rank));
              order.insert(order.end(), own.begin(), own.end());
            }
            permuted = two_groups(order);
            packed = plan(fl::global_pack{}, cluster, window);
            std::fill(window.begin(), window.end(), index_t{0});
          }
          fresh = plan(fl::global_pack{}, cluster, last);
          in_proportion = plan(fl::proportional_in_order{}, cluster, last);
        }
        std::vector<double> weights(shares);
        for (std::size_t e = 0; e < weights.size(); ++e) {
          weights[e] *= std::exp(popularity[e] + row.noise * random.normal());
        }
        auto const load = draw_load(random, weights, ranks, copies);
        last = totals_of(load);
        for (std::size_t e = 0; e < last.size(); ++e) { window[e] += last[e]; }
        if (batch < history) { continue; }
        here[0].add(imbalance(own_group, load.view(), plain));
        here[1].add(imbalance(own_group, load.view(), permuted));
        here[2].add(imbalance(fl::equal_split{}, load.view(), packed));
        here[3].add(imbalance(fl::equal_split{}, load.view(), fresh));
        here[4].add(imbalance(fl::equal_split{}, load.view(), in_proportion));
        here[5].add(imbalance(fl::min_max_flow{}, load.view(), symmetric));
        here[6].add(imbalance(fl::min_max_flow{}, load.view(), packed));
      }
      for (int i = 0; i < 7; ++i) { columns[i].add_group(here[i]); }
    }
    std::vector<cell> cells;
    for (int i = 0; i < 7; ++i) {
      // Plans that do not know who is popular depend on it: wide. Exact splits of recent plans do not.
      double const tolerance = !judged ? 0.0 : i == 6 ? 0.02 : i == 2 || i == 3 ? 0.05 : i == 4 ? 0.15 : 0.45;
      cells.push_back({columns[i].mean(), row.value[i], tolerance, columns[i].low, columns[i].high});
    }
    char label[16];
    std::snprintf(label, sizeof label, "%.1f, %.1f", row.skew, row.noise);
    out.row(label, cells);
    out.must(columns[6].mean() < columns[2].mean() && columns[6].mean() < columns[5].mean(),
             "the exact split of EPLB's placement must be the best");
    out.must(row.noise < 0.5 || columns[3].mean() > columns[2].mean(),
             "under strong noise a plan of every batch must be worse than one of 50");
    out.must(row.noise > 0.5 || columns[3].mean() < columns[2].mean(),
             "under weak noise a plan of every batch must be better than one of 50");
  }
  return out.off();
}

/// @brief Share of tokens that find a place when replicas are units of capacity: 16 experts, 64 slots, capacity
/// factor 1.
/// @param batches batches of a row
/// @param seed of the draws
/// @param judged whether differences fail the program
/// @returns numbers that are off
inline int survival(index_t batches, std::uint64_t seed, bool judged) {
  struct reference_row {
    double persistence;
    double value[6];
    double drops[4];
  };
  static constexpr reference_row rows[] = {{0.999, {.698, .901, .923, .952, .962, .967}, {-67, -74, -84, -87}},
                                           {0.99, {.703, .752, .810, .897, .944, .968}, {-17, -36, -65, -81}},
                                           {0.95, {.705, .631, .675, .800, .898, .968}, {25, 10, -32, -66}},
                                           {0.8, {.701, .594, .605, .673, .807, .968}, {36, 32, 9, -35}}};
  constexpr index_t count = 16, tokens = 32768;
  constexpr double deviation = 0.8;
  std::string const title = "SYMI: share of tokens that survive, 16 experts, 64 slots, capacity factor 1, " +
                            std::to_string(batches) + " batches; drops against those of static counts (%)";
  table out(title, "persistence",
            {"static", "refit 100", "50", "10", "every", "oracle", "drops 100", "drops 50", "drops 10", "drops 1"});
  fl::topology const cluster(16, 4);
  auto const rule = fl::slot_capacity::of(1.0, tokens, cluster.slots());
  for (reference_row const& row : rows) {
    dice random(seed);
    walk popularity(random, count, row.persistence, deviation);
    std::vector<index_t> last(static_cast<std::size_t>(count), 1), totals(last);
    constexpr index_t periods[4] = {100, 50, 10, 1};
    fl::placement const fixed =
        plan(fl::replicate_then_place<fl::even_replicas, fl::contiguous_slots>{}, cluster, last);
    fl::placement fitted[4];
    average columns[6];
    std::vector<double> weights(static_cast<std::size_t>(count));
    for (index_t batch = 0; batch < batches; ++batch, popularity.step()) {
      for (std::size_t e = 0; e < weights.size(); ++e) { weights[e] = std::exp(popularity[e]); }
      random.multinomial(weights, tokens, std::span(totals));
      if (batch > 0) {  // the first batch only tells what is popular
        auto const share = [&](fl::placement const& where) {
          return static_cast<double>(rule.survivors(totals, where)) / static_cast<double>(tokens);
        };
        columns[0].add(share(fixed));
        for (std::size_t i = 0; i < 4; ++i) {
          if ((batch - 1) % periods[i] == 0) { fitted[i] = plan(fl::proportional_in_order{}, cluster, last); }
          columns[1 + i].add(share(fitted[i]));
        }
        columns[5].add(share(plan(fl::proportional_in_order{}, cluster, totals)));
      }
      last = totals;
    }
    std::vector<cell> cells;
    for (int i = 0; i < 6; ++i) {
      cells.push_back({columns[i].mean(), row.value[i], !judged ? 0.0 : row.persistence > 0.995 ? 0.05 : 0.02});
    }
    for (int i = 0; i < 4; ++i) {
      double const drops = 100.0 * ((1.0 - columns[1 + i].mean()) / (1.0 - columns[0].mean()) - 1.0);
      cells.push_back({drops, row.drops[i], !judged ? 0.0 : row.persistence > 0.995 ? 12.0 : 8.0});
    }
    char label[16];
    std::snprintf(label, sizeof label, "%g", row.persistence);
    out.row(label, cells);
  }
  return out.off();
}

}  // namespace drift_tables
