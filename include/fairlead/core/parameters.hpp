// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief How the parameters of one component lie in memory, and how they start.
#include <fairlead/core/contract.hpp>
#include <fairlead/core/ids.hpp>
#include <fairlead/core/matrix_view.hpp>
#include <fairlead/core/philox.hpp>

#include <array>
#include <cstdint>
#include <span>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief One matrix (or vector: one row) of parameters inside the block of a component.
struct parameter_block {
  char const* name = "";     ///< for messages and checkpoints
  index_t offset = 0;        ///< first element inside the component's block
  index_t rows = 0;          ///< rows
  index_t cols = 0;          ///< columns, contiguous
  double deviation = 0.0;    ///< standard deviation of the initial normal values; 0 = all zero
  bool decays = true;        ///< whether weight decay applies (matrices yes, biases no)
  bool frozen = false;       ///< whether optimizers must leave it alone: no step, no decay, the same moments
  /// @returns rows x cols
  [[nodiscard]] constexpr index_t size() const noexcept { return rows * cols; }
};

/// @brief The parameter blocks of one component, in memory order and without gaps.
class parameter_layout {
 public:
  static constexpr index_t max_blocks = 8;  ///< most blocks of one component

  /// @brief Append a matrix.
  /// @param name for messages
  /// @param rows rows, >= 0
  /// @param cols columns, >= 0
  /// @param deviation standard deviation of its initial values
  /// @param decays whether weight decay applies
  /// @returns this layout
  constexpr parameter_layout& add(char const* name, index_t rows, index_t cols, double deviation, bool decays = true) {
    FAIRLEAD_EXPECTS(count_ < max_blocks, "a component has too many parameter blocks", count_);
    FAIRLEAD_EXPECTS(rows >= 0 && cols >= 0, "parameter sizes must not be negative", rows, cols);
    blocks_[static_cast<std::size_t>(count_)] = {name, size_, rows, cols, deviation, decays, false};
    ++count_;
    size_ += rows * cols;
    return *this;
  }
  /// @brief Append all blocks of another component.
  /// @param other its layout
  /// @returns this layout
  constexpr parameter_layout& add(parameter_layout const& other) {
    for (parameter_block const& block : other.blocks()) { add(block.name, block.rows, block.cols, block.deviation, block.decays); }
    return *this;
  }
  /// @brief Say whether optimizers must leave a block alone.
  /// @param block block number
  /// @param frozen whether
  constexpr void freeze(index_t block, bool frozen = true) {
    FAIRLEAD_EXPECTS(block >= 0 && block < count_, "there is no such block", block, count_);
    blocks_[static_cast<std::size_t>(block)].frozen = frozen;
  }
  /// @returns elements of all blocks
  [[nodiscard]] constexpr index_t size() const noexcept { return size_; }
  /// @returns the blocks
  [[nodiscard]] constexpr std::span<parameter_block const> blocks() const noexcept {
    return {blocks_.data(), static_cast<std::size_t>(count_)};
  }
  /// @param block block number
  /// @returns the block
  [[nodiscard]] constexpr parameter_block const& operator[](index_t block) const noexcept {
    return blocks_[static_cast<std::size_t>(block)];
  }
  /// @brief View one block inside a component's parameters.
  /// @param block block number
  /// @param values first element of the component
  /// @returns the block as a matrix
  template <class Value>
  [[nodiscard]] FAIRLEAD_HD constexpr matrix_view<Value> view(index_t block, Value* values) const {
    parameter_block const& b = blocks_[static_cast<std::size_t>(block)];
    return {values + b.offset, b.rows, b.cols};
  }

 private:
  std::array<parameter_block, max_blocks> blocks_{};
  index_t count_ = 0;
  index_t size_ = 0;
};

/// @brief Fill a component's parameters with their initial values (host memory).
/// @param layout the component's layout
/// @param seed seed of the values
/// @param stream separates components and experts: give each logical expert its own, so that values do not depend on
///        the number of ranks or on the placement
/// @param[out] values @shape{layout.size()}
/// @throws contract_violation (level 1) if `values` has another size
/// @complexity O(layout.size()), no allocation
/// @determinism a value depends on (seed, stream, its position) only
template <class Value>
void initialise(parameter_layout const& layout, std::uint64_t seed, std::uint64_t stream, std::span<Value> values) {
  FAIRLEAD_EXPECTS(static_cast<index_t>(values.size()) == layout.size(), "one value a parameter", values.size(),
                   layout.size());
  for (parameter_block const& block : layout.blocks()) {
    for (index_t i = block.offset; i < block.offset + block.size(); ++i) {
      Value& value = values[static_cast<std::size_t>(i)];
      if (block.deviation == 0.0) {
        value = Value{0};
        continue;
      }
      double const exact = block.deviation * philox::normal(seed, stream, static_cast<std::uint64_t>(i));
      if constexpr (std::is_floating_point_v<Value>) {
        value = static_cast<Value>(exact);
      } else {
        value = static_cast<Value>(static_cast<float>(exact));  // storage types round from fp32
      }
    }
  }
}

FAIRLEAD_NAMESPACE_END
