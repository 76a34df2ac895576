// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Servers whose energy nobody counts: a rate each, as measured.
#include <fairlead/concepts/energy_model.hpp>
#include <fairlead/core/contract.hpp>

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Servers that serve up to a given number of copies a slot, for nothing.
///
/// The virtual energy queues stay 0 and only token queues count: for ranks of a data center, with measured rates.
/// @source{2512.06784, the same controller without energy; this library's extension}
class unmetered {
 public:
  /// No server.
  unmetered() = default;
  /// @param copies_per_slot rate of each server, > 0
  /// @throws contract_violation (level 1) if a rate is not positive and finite; std::bad_alloc
  explicit unmetered(std::span<double const> copies_per_slot) : rates_(copies_per_slot.begin(), copies_per_slot.end()) {
    for (std::size_t j = 0; j < rates_.size(); ++j) { check(static_cast<index_t>(j), rates_[j]); }
  }
  /// @brief Take a newer measurement.
  /// @param server the server
  /// @param copies_per_slot its rate, > 0
  /// @throws contract_violation (level 1) if there is no such server, or the rate is not positive and finite
  void set_rate(index_t server, double copies_per_slot) {
    FAIRLEAD_EXPECTS(server >= 0 && server < servers(), "no such server", server, servers());
    check(server, copies_per_slot);
    rates_[static_cast<std::size_t>(server)] = copies_per_slot;
  }

  /// @returns number of servers
  [[nodiscard]] index_t servers() const noexcept { return static_cast<index_t>(rates_.size()); }
  /// @returns 0
  [[nodiscard]] double energy(index_t, double) const noexcept { return 0.0; }
  /// @param server the server
  /// @returns its rate
  [[nodiscard]] double cap(index_t server) const noexcept { return rates_[static_cast<std::size_t>(server)]; }
  /// @returns 0: nothing is spent, nothing is allowed
  [[nodiscard]] double budget(index_t) const noexcept { return 0.0; }
  /// @param server the server
  /// @returns its rate
  [[nodiscard]] double sustained(index_t server) const noexcept { return cap(server); }
  /// @param server the server
  /// @returns its rate: service costs nothing
  [[nodiscard]] double best_service(index_t server, double, double) const noexcept { return cap(server); }
  /// @param server the server
  /// @param target copies to serve
  /// @returns the target, within 0 and the rate
  [[nodiscard]] double nearest_service(index_t server, double target, double) const noexcept {
    return std::min(std::max(target, 0.0), cap(server));
  }

 private:
  static void check([[maybe_unused]] index_t server, double rate) {
    FAIRLEAD_EXPECTS(rate > 0.0 && std::isfinite(rate), "the rate of a server must be positive: leave a dead server out", server, rate);
  }
  std::vector<double> rates_;
};
static_assert(has_nearest_service<unmetered>);

FAIRLEAD_NAMESPACE_END
