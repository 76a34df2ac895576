// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Keep each expert whole on every rank that hosts it: plain expert parallelism.
#include <fairlead/concepts/communicator.hpp>
#include <fairlead/concepts/parameter_store.hpp>
#include <fairlead/core/buffer.hpp>

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

namespace detail {
template <class Value>
struct add_block {  // not nested: a kernel takes no type with private access
  Value* to;
  Value const* from;
  FAIRLEAD_HD void operator()(index_t i) const { to[i] += from[i]; }
};
}  // namespace detail

/// @brief Own whole experts, one contiguous block a local slot.
///
/// Gradients of an expert with several replicas are summed on the rank of its first replica, in replica order, and
/// sent back, so that all replicas hold the same bits and stay equal under equal optimizer steps.
/// @tparam Value parameter type
/// @tparam Space memory space
template <class Value, memory_space Space>
class local_parameter_store {
 public:
  /// @brief Allocate and initialise.
  /// @param on backend
  /// @param where placement
  /// @param rank this rank
  /// @param layout parameters of one expert
  /// @param seed seed of the initial values; expert e uses stream e
  template <execution_backend Backend>
  local_parameter_store(Backend const& on, placement const& where, index_t rank, parameter_layout const& layout,
                        std::uint64_t seed)
      : where_(where), rank_(rank), size_(layout.size()) {
    auto const experts = where.experts_on(static_cast<rank_id>(rank));
    auto const slots = static_cast<index_t>(experts.size());
    values_.resize(slots * size_);
    gradients_.resize(slots * size_);
    buffer<Value> host(size_);
    for (index_t slot = 0; slot < slots; ++slot) {
      value_pointers_.push_back(values_.data() + slot * size_);
      gradient_pointers_.push_back(gradients_.data() + slot * size_);
      expert_id const expert = experts[static_cast<std::size_t>(slot)];
      if (expert == expert_id::none) {
        on.fill_zero(values_.data() + slot * size_, bytes(1));
        continue;
      }
      initialise<Value>(layout, seed, static_cast<std::uint64_t>(expert), host.span());
      on.from_host(values_.data() + slot * size_, host.data(), bytes(1));
      on.wait();  // `host` is filled again in the next turn
    }
    zero_gradients(on);
    on.wait();
    plan_reduction();
  }

  /// @brief Nothing to do: experts are whole.
  template <class Backend, class Comm>
  void acquire(Backend const&, Comm&) noexcept {}
  /// @brief Nothing to do: experts are whole.
  template <class Backend, class Comm>
  void release(Backend const&, Comm&) noexcept {}
  /// @returns first parameter of each local slot. @shape{slots}
  [[nodiscard]] std::span<Value const* const> values() const noexcept { return value_pointers_; }
  /// @returns first gradient of each local slot. @shape{slots}
  [[nodiscard]] std::span<Value* const> gradients() noexcept { return gradient_pointers_; }
  /// @brief Clear all gradients.
  /// @param on backend
  template <execution_backend Backend>
  void zero_gradients(Backend const& on) {
    on.fill_zero(gradients_.data(), bytes(static_cast<index_t>(value_pointers_.size())));
  }
  /// @brief Call `f(expert, values, gradients)` for each local slot that holds an expert.
  /// @param f function object taking (expert_id, std::span<Value>, std::span<Value>)
  template <class Function>
  void each(Function&& f) {
    auto const experts = where_.experts_on(static_cast<rank_id>(rank_));
    for (std::size_t slot = 0; slot < experts.size(); ++slot) {
      if (experts[slot] == expert_id::none) { continue; }
      index_t const first = static_cast<index_t>(slot) * size_;
      f(experts[slot], values_.span().subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(size_)),
        gradients_.span().subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(size_)));
    }
  }

  /// @brief Sum the gradients over the replicas of each expert.
  /// @param on backend
  /// @param comm communicator with `has_all_to_all_v`
  /// @collective all ranks
  /// @complexity two exchanges of the blocks of experts with several replicas; none if there is none
  template <execution_backend Backend, class Comm>
  void reduce_gradients(Backend const& on, Comm& comm) {
    if (!replicated_) { return; }
    auto const block = [this](index_t slot) { return gradients_.data() + slot * size_; };
    auto const staged = [this](buffer<Value, Space>& from, index_t i) { return from.data() + i * size_; };
    for (std::size_t i = 0; i < helper_slots_.size(); ++i) {
      on.copy(staged(helper_, static_cast<index_t>(i)), block(helper_slots_[i]), bytes(1));
    }
    comm.all_to_all_v(on, static_cast<Value const*>(helper_.data()), std::span<index_t const>(helper_offsets_),
                      owner_.data(), std::span<index_t const>(owner_offsets_)).wait();
    for (index_t const i : owner_order_) {
      for_each_element(on, size_, detail::add_block<Value>{block(owner_slots_[static_cast<std::size_t>(i)]), staged(owner_, i)});
    }
    for (std::size_t i = 0; i < owner_slots_.size(); ++i) {
      on.copy(staged(owner_, static_cast<index_t>(i)), block(owner_slots_[i]), bytes(1));
    }
    comm.all_to_all_v(on, static_cast<Value const*>(owner_.data()), std::span<index_t const>(owner_offsets_),
                      helper_.data(), std::span<index_t const>(helper_offsets_)).wait();
    for (std::size_t i = 0; i < helper_slots_.size(); ++i) {
      on.copy(block(helper_slots_[i]), staged(helper_, static_cast<index_t>(i)), bytes(1));
    }
  }

 private:
  [[nodiscard]] std::size_t bytes(index_t blocks) const {
    return static_cast<std::size_t>(blocks * size_) * sizeof(Value);
  }
  // Both sides list the (owner, helper) pairs of replicas in the same order: by expert, then replica.
  void plan_reduction() {
    index_t const ranks = where_.ranks();
    std::vector<std::vector<index_t>> to_owner(static_cast<std::size_t>(ranks));     // my slots, by owner rank
    std::vector<std::vector<index_t>> from_helper(static_cast<std::size_t>(ranks));  // my slots, by helper rank
    std::vector<std::vector<index_t>> order(static_cast<std::size_t>(ranks));
    index_t turn = 0;
    for (index_t e = 0; e < where_.experts(); ++e) {
      auto const replicas = where_.replicas(static_cast<expert_id>(e));
      replicated_ = replicated_ || replicas.size() > 1;
      for (std::size_t i = 1; i < replicas.size(); ++i, ++turn) {
        if (to_index(replicas[i].rank) == rank_) {
          to_owner[static_cast<std::size_t>(replicas[0].rank)].push_back(to_index(replicas[i].slot));
        }
        if (to_index(replicas[0].rank) == rank_) {
          from_helper[static_cast<std::size_t>(replicas[i].rank)].push_back(to_index(replicas[0].slot));
          order[static_cast<std::size_t>(replicas[i].rank)].push_back(turn);
        }
      }
    }
    helper_offsets_.assign(1, 0);
    owner_offsets_.assign(1, 0);
    std::vector<index_t> turns;
    for (std::size_t r = 0; r < static_cast<std::size_t>(ranks); ++r) {
      helper_slots_.insert(helper_slots_.end(), to_owner[r].begin(), to_owner[r].end());
      helper_offsets_.push_back(static_cast<index_t>(helper_slots_.size()) * size_);
      owner_slots_.insert(owner_slots_.end(), from_helper[r].begin(), from_helper[r].end());
      turns.insert(turns.end(), order[r].begin(), order[r].end());
      owner_offsets_.push_back(static_cast<index_t>(owner_slots_.size()) * size_);
    }
    owner_order_.resize(owner_slots_.size());
    for (std::size_t i = 0; i < owner_order_.size(); ++i) { owner_order_[i] = static_cast<index_t>(i); }
    std::sort(owner_order_.begin(), owner_order_.end(), [&turns](index_t a, index_t b) {
      return turns[static_cast<std::size_t>(a)] < turns[static_cast<std::size_t>(b)];
    });
    helper_.resize(static_cast<index_t>(helper_slots_.size()) * size_);
    owner_.resize(static_cast<index_t>(owner_slots_.size()) * size_);
  }

  placement where_;
  index_t rank_;
  index_t size_;
  bool replicated_ = false;
  buffer<Value, Space> values_;
  buffer<Value, Space> gradients_;
  std::vector<Value const*> value_pointers_;
  std::vector<Value*> gradient_pointers_;
  buffer<Value, Space> helper_;  // blocks this rank sends to owners
  buffer<Value, Space> owner_;   // blocks this rank receives as owner
  std::vector<index_t> helper_slots_, helper_offsets_, owner_slots_, owner_offsets_, owner_order_;
};

/// @brief The policy of `local_parameter_store`: the default of a layer.
struct local_parameters {
  /// @brief Make the store of this rank.
  /// @tparam Value parameter type
  /// @param on backend
  /// @param comm knows the rank
  /// @param where placement
  /// @param layout parameters of one expert
  /// @param seed seed of the initial values
  /// @returns the store
  template <class Value, execution_backend Backend, class Comm>
  [[nodiscard]] auto make(Backend const& on, Comm& comm, placement const& where, parameter_layout const& layout,
                          std::uint64_t seed) const {
    return local_parameter_store<Value, typename Backend::memory_space>(on, where, comm.rank(), layout, seed);
  }
};

FAIRLEAD_NAMESPACE_END
