// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The concept of something that decides where experts sit.
#include <fairlead/core/placement.hpp>

#include <concepts>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Places experts before any load is known.
///
/// Required of a model `planner`: `planner.initial(ranks, experts)` returns a placement with at least one replica of
/// every expert, equal on every rank. Re-planning from observed loads is a refinement.
template <class Planner>
concept planner = requires(Planner const& planner, index_t ranks, index_t experts) {
  { planner.initial(ranks, experts) } -> std::same_as<placement>;
};

FAIRLEAD_NAMESPACE_END
