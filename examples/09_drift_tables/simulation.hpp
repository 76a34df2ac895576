// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What the simulated tables share: seeded loads, one plan, one schedule.
#include <fairlead/concepts/planner.hpp>
#include <fairlead/concepts/token_scheduler.hpp>
#include <fairlead/core/buffer.hpp>
#include <fairlead/core/load.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/core/plan.hpp>
#include <fairlead/workload/zipf.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <stdexcept>
#include <vector>

namespace drift_tables {
namespace fl = fairlead;
using fl::index_t;

/// @brief Random numbers of one table.
class dice {
 public:
  /// @param seed names the sequence
  explicit dice(std::uint64_t seed) : seed_(seed), engine_(seed) {}
  /// @returns a standard normal number
  double normal() { return fl::philox::normal(seed_, 0x64726966, normals_++); }
  /// @brief Throw copies into experts.
  /// @param weights relative shares, >= 0, not all zero
  /// @param copies how many
  /// @param[out] counts copies an expert; multinomial, by one binomial number an expert
  template <class Count>
  void multinomial(std::span<double const> weights, index_t copies, std::span<Count> counts) {
    double left = 0.0;
    for (double const weight : weights) { left += weight; }
    for (std::size_t e = 0; e < weights.size(); ++e) {
      double const share = e + 1 == weights.size() ? 1.0 : std::clamp(weights[e] / left, 0.0, 1.0);
      index_t const drawn = copies == 0 || share == 0.0 ? 0
                            : share == 1.0              ? copies
                                                        : std::binomial_distribution<index_t>(copies, share)(engine_);
      counts[e] = static_cast<Count>(drawn);
      copies -= drawn;
      left -= weights[e];
    }
  }
  /// @brief Give the most popular place to a random expert, and so on.
  /// @param shares of the places
  /// @returns shares of the experts
  std::vector<double> owners(std::vector<double> const& shares) {
    auto const ids =
        fl::workload::shuffled_ids(static_cast<index_t>(shares.size()), seed_ + 0x9E3779B97F4A7C15ULL * ++shuffles_);
    std::vector<double> owned(shares.size());
    for (std::size_t i = 0; i < shares.size(); ++i) { owned[static_cast<std::size_t>(ids[i])] = shares[i]; }
    return owned;
  }

 private:
  std::uint64_t seed_;
  std::uint64_t normals_ = 0;
  std::uint64_t shuffles_ = 0;
  std::mt19937_64 engine_;
};

/// @brief Draw the load of one batch: every rank has equally many copies.
/// @param random the random numbers
/// @param weights popularity of the experts
/// @param ranks number of ranks
/// @param copies copies of all ranks
/// @returns the load @shape{ranks x experts}
inline fl::matrix<fl::count_t> draw_load(dice& random, std::span<double const> weights, index_t ranks, index_t copies) {
  fl::matrix<fl::count_t> load(ranks, static_cast<index_t>(weights.size()));
  for (index_t rank = 0; rank < ranks; ++rank) {
    random.multinomial(weights, copies / ranks,
                       load.span().subspan(static_cast<std::size_t>(rank) * weights.size(), weights.size()));
  }
  return load;
}

/// @param load a load
/// @returns its sums over the ranks
inline std::vector<index_t> totals_of(fl::matrix<fl::count_t> const& load) {
  std::vector<index_t> totals(static_cast<std::size_t>(load.cols()));
  fl::sum_over_ranks(load.view(), totals);
  return totals;
}

/// @brief Plan from totals alone.
/// @param planner a load_planner
/// @param cluster the cluster
/// @param totals copies an expert
/// @returns the placement
/// @throws std::runtime_error if the planner finds none
template <fl::load_planner Planner>
fl::placement plan(Planner const& planner, fl::topology const& cluster, std::span<index_t const> totals) {
  auto const experts = static_cast<index_t>(totals.size());
  std::vector<fl::expert_id> slots(static_cast<std::size_t>(cluster.slots()));
  fl::arena<> memory(planner.workspace_bytes(cluster, experts));
  fl::workspace ws = memory.view();
  fl::report const report = planner.plan(cluster, {.totals = totals}, {}, slots, ws);
  if (report.status == fl::status::infeasible || report.status == fl::status::unsupported) {
    throw std::runtime_error("a planner found no placement");
  }
  return fl::make_placement(cluster, experts, slots, Planner::meaning);
}

/// @brief Schedule one batch.
/// @param scheduler a token_scheduler
/// @param load the load
/// @param where the placement
/// @returns largest over mean load of a rank
/// @throws std::runtime_error if copies are lost
template <fl::token_scheduler Scheduler>
double imbalance(Scheduler const& scheduler, fl::load_view load, fl::placement const& where) {
  fl::matrix<fl::count_t> schedule(load.rows(), where.replicas());
  fl::arena<> memory(scheduler.workspace_bytes(where));
  fl::workspace ws = memory.view();
  fl::report const report = scheduler.schedule(load, where, schedule.view(), ws);
  if (report.status != fl::status::ok || !fl::conserves(load, where, schedule.view())) {
    throw std::runtime_error("a schedule lost copies");
  }
  index_t copies = 0;
  for (fl::count_t const count : schedule.span()) { copies += count; }
  return copies == 0 ? 1.0 : report.value * static_cast<double>(where.ranks()) / static_cast<double>(copies);
}

/// @brief A mean over draws, with the range of the means of groups of draws.
struct average {
  double sum = 0.0;                                        ///< of the numbers
  double count = 0.0;                                      ///< how many
  double low = std::numeric_limits<double>::infinity();    ///< least mean of a group
  double high = -std::numeric_limits<double>::infinity();  ///< largest mean of a group
  /// @param value one number
  void add(double value) { sum += value, count += 1.0; }
  /// @param group the average of a group of draws
  void add_group(average const& group) {
    sum += group.sum, count += group.count;
    low = std::min(low, group.mean()), high = std::max(high, group.mean());
  }
  /// @returns the mean
  [[nodiscard]] double mean() const { return count == 0.0 ? 0.0 : sum / count; }
};

}  // namespace drift_tables
