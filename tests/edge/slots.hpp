// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Servers, arrivals and scores of the tests.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/time_slot.hpp>
#include <fairlead/edge/cubic_energy.hpp>
#include <fairlead/workload/gate_scores.hpp>
#include <fairlead/workload/poisson_arrivals.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace slots {

namespace fl = fairlead;
using fl::index_t;

// The parameters reported for the paper: caps and budgets linear over the servers.
inline std::vector<fl::server_limits> paper_limits(index_t servers = 10) {
  std::vector<fl::server_limits> all;
  for (index_t j = 0; j < servers; ++j) {
    double const part = servers == 1 ? 0.0 : static_cast<double>(j) / static_cast<double>(servers - 1);
    all.push_back({.energy_cap_j = 3.0 + 12.0 * part, .energy_budget_j = 1.5 + 8.0 * part});
  }
  return all;
}

// A user's own servers: energy d^2, no closed form for the squared backlog.
struct square_energy {
  index_t count = 3;
  index_t servers() const { return count; }
  double energy(index_t, double d) const { return d * d; }
  double cap(index_t j) const { return 4.0 + static_cast<double>(j); }
  double budget(index_t) const { return 2.0; }
  double sustained(index_t j) const { return std::min(std::sqrt(2.0), cap(j)); }
  double best_service(index_t j, double reward, double price) const {
    return price > 0.0 ? std::min(std::max(reward, 0.0) / (2.0 * price), cap(j)) : cap(j);
  }
};
static_assert(fl::energy_model<square_energy> && !fl::has_nearest_service<square_energy>);

// A function of seed and slot alone, so that every strategy sees the same arrivals.
inline index_t poisson(double mean, std::uint64_t seed, std::uint64_t slot) {
  return fl::workload::poisson_arrivals{.mean = mean, .seed = seed}.at(slot);
}

// Softmax of normal logits with a fixed bias an expert.
inline fl::matrix<float> softmax_scores(index_t tokens, index_t servers, double skew, std::uint64_t seed, std::uint64_t slot) {
  fl::matrix<float> scores(tokens, servers);
  fl::workload::gate_scores{.servers = servers, .skew = skew, .seed = seed, .popularity_seed = seed}.fill(slot, scores.view());
  return scores;
}

// All choices of `fan_out` of `servers` for each of `tokens`, by counting through the sets; f(choice rows, counts).
template <class Function>
void each_choice(index_t tokens, index_t servers, index_t fan_out, Function f) {
  std::vector<std::vector<fl::expert_id>> sets;
  for (unsigned mask = 0; mask < (1U << static_cast<unsigned>(servers)); ++mask) {
    std::vector<fl::expert_id> set;
    for (index_t j = 0; j < servers; ++j) {
      if (((mask >> static_cast<unsigned>(j)) & 1U) != 0) { set.push_back(static_cast<fl::expert_id>(j)); }
    }
    if (static_cast<index_t>(set.size()) == fan_out) { sets.push_back(set); }
  }
  std::vector<std::size_t> chosen(static_cast<std::size_t>(tokens), 0);
  std::vector<fl::expert_id> rows(static_cast<std::size_t>(tokens * fan_out));
  std::vector<index_t> counts(static_cast<std::size_t>(servers));
  for (;;) {
    std::fill(counts.begin(), counts.end(), 0);
    for (std::size_t t = 0; t < chosen.size(); ++t) {
      std::copy(sets[chosen[t]].begin(), sets[chosen[t]].end(), rows.begin() + static_cast<std::ptrdiff_t>(t) * fan_out);
      for (fl::expert_id const id : sets[chosen[t]]) { ++counts[static_cast<std::size_t>(id)]; }
    }
    f(fl::matrix_view<fl::expert_id const>(rows.data(), tokens, fan_out), counts);
    std::size_t place = 0;
    while (place < chosen.size() && ++chosen[place] == sets.size()) { chosen[place++] = 0; }
    if (place == chosen.size()) { return; }
  }
}

// What the violation says that f ends with; empty if none.
template <class Function>
std::string violation(Function f) {
  try {
    f();
  } catch (fl::contract_violation const& broken) {
    return broken.what();
  }
  return {};
}

}  // namespace slots
