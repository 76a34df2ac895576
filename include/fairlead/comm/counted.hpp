// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Count the bytes and messages that a rank exchanges.
#include <fairlead/comm/detail/observed.hpp>
#include <fairlead/comm/traffic.hpp>

#include <array>
#include <cstddef>
#include <memory>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Traffic of one rank, by collective.
class traffic_counters {
 public:
  /// @param kind collective
  /// @returns what that collective moved
  [[nodiscard]] traffic of(collective kind) const noexcept { return by_kind_[static_cast<std::size_t>(kind)]; }
  /// @returns what all collectives moved
  [[nodiscard]] traffic total() const noexcept {
    traffic sum;
    for (auto const& part : by_kind_) { sum += part; }
    return sum;
  }
  /// @param kind collective
  /// @returns how often it was started
  [[nodiscard]] index_t calls(collective kind) const noexcept { return calls_[static_cast<std::size_t>(kind)]; }
  /// @brief Count one call.
  /// @param kind collective
  /// @param moved its traffic
  void add(collective kind, traffic const& moved) noexcept {
    by_kind_[static_cast<std::size_t>(kind)] += moved;
    ++calls_[static_cast<std::size_t>(kind)];
  }
  /// @brief Set everything to zero.
  void reset() noexcept { *this = traffic_counters(); }

 private:
  std::array<traffic, static_cast<std::size_t>(collectives)> by_kind_{};
  std::array<index_t, static_cast<std::size_t>(collectives)> calls_{};
};

namespace detail {
struct counting {
  std::shared_ptr<traffic_counters> counters;
  template <class Start>
  auto observe(collective kind, traffic const& moved, Start start) const {
    counters->add(kind, moved);
    return start();
  }
};
}  // namespace detail

/// @brief Pass everything on to another communicator, and count its traffic.
///
/// Copies of the adaptor share their counters, so that a layer which keeps a copy is counted too. What a rank sends to
/// itself does not count; reductions count as the direct algorithm would (see `traffic`). Has the collectives of the
/// communicator underneath, and its operations.
/// @tparam Comm the communicator underneath
template <communicator Comm>
class counted : public detail::observed<Comm, detail::counting> {
 public:
  /// @param comm communicator underneath
  /// @throws std::bad_alloc; nothing allocates afterwards
  explicit counted(Comm comm)
      : detail::observed<Comm, detail::counting>(std::move(comm), {std::make_shared<traffic_counters>()}) {}
  /// @returns the counters of this rank, to read or reset
  [[nodiscard]] traffic_counters& counters() const noexcept { return *this->observer().counters; }
};

/// An adaptor does not change the order.
template <class Comm>
inline constexpr bool reduces_in_rank_order<counted<Comm>> = reduces_in_rank_order<Comm>;

FAIRLEAD_NAMESPACE_END
