// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Policies of this program beside those of the library: a choice made at run time, and servers that race to idle.
#include "options.hpp"

#include <fairlead/edge/cubic_energy.hpp>
#include <fairlead/edge/speed_rules.hpp>
#include <fairlead/edge/ties.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace edge_simulation {

/// @brief The tie policy of the command line, one type for all three: tables need not be compiled three times.
struct chosen_ties {
  tie_rule rule = tie_rule::seeded;  ///< which
  std::uint64_t seed = 1;            ///< for `seeded`

  /// See `fairlead::tie_break`.
  [[nodiscard]] constexpr std::uint32_t rank(fl::slot_view const& view, index_t token, index_t server) const noexcept {
    switch (rule) {
      case tie_rule::id: return fl::ties_by_id{}.rank(view, token, server);
      case tie_rule::rotating: return fl::ties_rotating{}.rank(view, token, server);
      default: return fl::ties_seeded{seed}.rank(view, token, server);
    }
  }
};
static_assert(fl::tie_break<chosen_ties>);

/// @brief The speed rule of the command line.
struct chosen_speed {
  baseline_speed rule = baseline_speed::closed_form;  ///< which

  /// See `fairlead::speed_rule`.
  template <fl::energy_model Model>
  void speeds(fl::slot_view const& view, Model const& servers, std::span<index_t const> counts, std::span<double> service) const {
    if (rule == baseline_speed::closed_form) { return fl::closed_form_speed{}.speeds(view, servers, counts, service); }
    if (rule == baseline_speed::average) { return fl::average_budget_speed{}.speeds(view, servers, counts, service); }
    fl::fixed_speed{}.speeds(view, servers, counts, service);
  }
};
static_assert(fl::speed_rule<chosen_speed, fl::cubic_energy>);

/// @brief Servers that always run at their highest frequency f, and sleep for the rest of the slot: a copy costs kappa c f^2.
///
/// Never better than the even speed of `cubic_energy`; one reading of the baselines' unknown rule.
class full_frequency {
 public:
  /// @param servers limits
  explicit full_frequency(std::span<fl::server_limits const> servers) {
    for (auto const& s : servers) {
      double const joules = s.capacitance * s.cycles_per_copy * s.max_frequency_hz * s.max_frequency_hz;
      own_.push_back({joules, std::min(s.max_frequency_hz / s.cycles_per_copy, s.energy_cap_j / joules), s.energy_budget_j});
    }
  }
  /// @returns their number
  [[nodiscard]] index_t servers() const noexcept { return static_cast<index_t>(own_.size()); }
  /// @returns energy of some copies. @unit{J}
  [[nodiscard]] double energy(index_t server, double copies) const noexcept { return at(server).joules * copies; }
  /// @returns most copies of a slot
  [[nodiscard]] double cap(index_t server) const noexcept { return at(server).cap; }
  /// @returns average energy of a slot. @unit{J}
  [[nodiscard]] double budget(index_t server) const noexcept { return at(server).budget; }
  /// @returns copies of a slot that the budget pays
  [[nodiscard]] double sustained(index_t server) const noexcept { return std::min(cap(server), at(server).budget / at(server).joules); }
  /// @returns the service that makes price x energy - reward x service least
  [[nodiscard]] double best_service(index_t server, double reward, double price) const noexcept {
    return reward > price * at(server).joules ? cap(server) : 0.0;
  }

 private:
  struct numbers {
    double joules;
    double cap;
    double budget;
  };
  [[nodiscard]] numbers const& at(index_t server) const noexcept { return own_[static_cast<std::size_t>(server)]; }
  std::vector<numbers> own_;
};
static_assert(fl::energy_model<full_frequency>);

}  // namespace edge_simulation
