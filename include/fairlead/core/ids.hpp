// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Distinct types for the things that are easily confused: experts, slots, ranks, tokens.
#include <fairlead/core/config.hpp>

#include <cstdint>
#include <type_traits>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN

/// Sizes, counts and offsets; signed and 64 bits wide, so that tokens x fan_out x width never overflows.
using index_t = std::int64_t;

/// A logical expert, 0 <= id < experts; `none` marks a missing or dropped choice.
enum class expert_id : std::int32_t { none = -1 };
/// A physical place for an expert, counted over all ranks in rank order.
enum class slot_id : std::int32_t { none = -1 };
/// A place for an expert, counted inside its rank.
enum class local_slot_id : std::int32_t { none = -1 };
/// A rank of a communicator.
enum class rank_id : std::int32_t { none = -1 };
/// A row of the token matrix of one rank.
enum class token_id : std::int32_t { none = -1 };

/// @brief The number behind an id.
/// @param id any of the id types
/// @returns `id` as an index
/// @complexity O(1)
template <class Id>
  requires std::is_enum_v<Id>
[[nodiscard]] FAIRLEAD_HD constexpr index_t to_index(Id id) noexcept {
  return static_cast<index_t>(id);
}

FAIRLEAD_NAMESPACE_END
