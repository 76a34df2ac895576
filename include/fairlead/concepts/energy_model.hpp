// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of what serving copies costs in energy.
#include <fairlead/core/ids.hpp>

#include <concepts>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Says for each server what serving d copies in a slot costs, and how many are worth it.
///
/// It works in copies a slot, not in Hz: frequencies of 1e9 and coefficients of 1e-27 lose digits for nothing.
///
/// Required of a model `servers`:
/// - `servers.servers()`: how many there are.
/// - `servers.energy(j, copies)`: energy of a slot, in J; 0 for no copies, does not fall, convex.
/// - `servers.cap(j)`: most copies of a slot, from the frequency and the energy cap; > 0 and finite.
/// - `servers.budget(j)`: long-run average energy of a slot, in J.
/// - `servers.sustained(j)`: the most copies a slot, at most `cap(j)`, whose energy is within the budget.
/// - `servers.best_service(j, reward, price)`: the d in [0, cap(j)] that makes `price * energy(j, d) - reward * d` least, for
///   reward >= 0 and price >= 0; the cap where price is 0. It does not fall with `reward`.
///
/// Opt-in `servers.nearest_service(j, target, price)`: the d in [0, cap(j)] that makes `price * energy(j, d) + (d - target)^2 / 2`
/// least, in closed form. Without it a bisection on `best_service` is used.
template <class Model>
concept energy_model = requires(Model const& model, index_t server, double number) {
  { model.servers() } -> std::convertible_to<index_t>;
  { model.energy(server, number) } -> std::same_as<double>;
  { model.cap(server) } -> std::same_as<double>;
  { model.budget(server) } -> std::same_as<double>;
  { model.sustained(server) } -> std::same_as<double>;
  { model.best_service(server, number, number) } -> std::same_as<double>;
};

/// @brief Opt-in: has the closed form of the squared backlog.
template <class Model>
concept has_nearest_service = energy_model<Model> && requires(Model const& model, index_t server, double number) {
  { model.nearest_service(server, number, number) } -> std::same_as<double>;
};

/// @brief The d in [0, cap] that makes `price * energy(d) + (d - target)^2 / 2` least.
///
/// In closed form where the model has one. Else by bisection: the best d is the one that `best_service` gives for the
/// reward `target - d`, which falls as d grows.
/// @tparam Model a model of `energy_model`
/// @param model the servers
/// @param server the server
/// @param target copies that would be served if energy were free
/// @param price what a joule costs, >= 0
/// @returns copies
/// @complexity O(1), or 60 calls of `best_service`; no allocation
template <energy_model Model>
[[nodiscard]] double nearest_service(Model const& model, index_t server, double target, double price) {
  if constexpr (has_nearest_service<Model>) {
    return model.nearest_service(server, target, price);
  } else {
    double low = 0.0;
    double high = model.cap(server);
    if (target < high) { high = target > 0.0 ? target : 0.0; }
    if (price == 0.0) { return high; }
    for (int step = 0; step < 60; ++step) {
      double const middle = 0.5 * (low + high);
      (model.best_service(server, target - middle, price) > middle ? low : high) = middle;
    }
    return 0.5 * (low + high);
  }
}

FAIRLEAD_NAMESPACE_END
