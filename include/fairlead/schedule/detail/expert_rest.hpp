// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What is left of the sources and of the replicas of one expert.
#include <fairlead/core/workspace.hpp>
#include <fairlead/schedule/detail/shares.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

class expert_rest {
 public:
  expert_rest(placement const& where, workspace& ws)
      : sources_(ws.take<count_t>(where.ranks())), replicas_(ws.take<count_t>(where.replicas())) {}
  [[nodiscard]] static std::size_t bytes(placement const& where) noexcept {
    return workspace_bytes<count_t>(where.ranks()) + workspace_bytes<count_t>(where.replicas());
  }

  // Starts an expert; false if there is nothing to route.
  [[nodiscard]] bool begin(load_view load, placement const& where, std::span<count_t const> shares, index_t e) noexcept {
    hosts_ = where.replicas(static_cast<expert_id>(e));
    column_ = where.replica_offset(static_cast<expert_id>(e));
    count_t const* const share = shares.data() + column_;
    bool any = false;
    for (std::size_t k = 0; k < hosts_.size(); ++k) {
      replicas_[k] = share[k];
      any = any || share[k] != 0;
    }
    if (!any) { return false; }
    count_t const* at = load.data() + e;
    for (count_t& source : sources_) {
      source = *at;
      at += load.stride();
    }
    return true;
  }

  // Each replica takes what its own rank has. Returns how many copies.
  index_t keep_local(token_schedule_view out) noexcept {
    index_t local = 0;
    for (std::size_t k = 0; k < hosts_.size(); ++k) {
      count_t& from = sources_[static_cast<std::size_t>(hosts_[k].rank)];
      count_t const amount = std::min(from, replicas_[k]);
      out(to_index(hosts_[k].rank), column_ + static_cast<index_t>(k)) += amount;
      from -= amount;
      replicas_[k] -= amount;
      local += amount;
    }
    return local;
  }

  [[nodiscard]] std::span<count_t const> sources() const noexcept { return sources_; }
  [[nodiscard]] std::span<count_t const> replicas() const noexcept { return replicas_.first(hosts_.size()); }
  [[nodiscard]] index_t column() const noexcept { return column_; }

 private:
  std::span<count_t> sources_;
  std::span<count_t> replicas_;
  std::span<replica const> hosts_;
  index_t column_ = 0;
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
