// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Replay recorded loads from a NumPy file.
#include <fairlead/core/load.hpp>

#include <cstdint>
#include <istream>
#include <stdexcept>
#include <string>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace workload {

/// @brief Thrown when a trace cannot be read; the text names the file and what is wrong with it.
class trace_error : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// @brief Own a recorded sequence of load matrices.
///
/// Reads NumPy files of format 1.0 (and 2.0, 3.0) with integers of 8 to 64 bits, little-endian, in C order. The last
/// two dimensions are source ranks and experts; the ones before (records, layers) are kept as `outer_shape()` and
/// counted through in C order. A file of one dimension is one rank.
class trace {
 public:
  /// An empty trace.
  trace() = default;

  /// @brief Read a file.
  /// @param path its path
  /// @returns the trace
  /// @throws trace_error if the file is missing, is no such NumPy file, is too short or too long, or holds a number
  /// that is negative or beyond `count_t`; std::bad_alloc
  /// @complexity O(file), allocates the whole content once
  [[nodiscard]] static trace read(std::string const& path);

  /// @brief Read from a stream.
  /// @param in binary stream at the begin of the file
  /// @param label what to call it in error messages
  /// @returns the trace
  /// @throws trace_error as above
  [[nodiscard]] static trace read(std::istream& in, std::string const& label);

  /// @returns number of load matrices: the product of `outer_shape()`
  [[nodiscard]] index_t size() const noexcept { return size_; }
  /// @returns source ranks of a load
  [[nodiscard]] index_t ranks() const noexcept { return ranks_; }
  /// @returns experts of a load
  [[nodiscard]] index_t experts() const noexcept { return experts_; }
  /// @returns the dimensions before ranks and experts, e.g. records, layers
  [[nodiscard]] std::vector<index_t> const& outer_shape() const noexcept { return outer_; }

  /// @brief One load.
  /// @param index its number, 0 <= index < size(); with shape [records, layers, ...] record * layers + layer
  /// @returns a view of it, valid as long as the trace @shape{ranks x experts}
  /// @throws contract_violation (level 1) on a bad index
  /// @complexity O(1)
  [[nodiscard]] load_view load(index_t index) const {
    FAIRLEAD_EXPECTS(index >= 0 && index < size_, "the trace has fewer loads", index, size_);
    return {counts_.data() + index * ranks_ * experts_, ranks_, experts_};
  }

 private:
  std::vector<count_t> counts_;
  std::vector<index_t> outer_;
  index_t size_ = 0;
  index_t ranks_ = 0;
  index_t experts_ = 0;
};

}  // namespace workload
FAIRLEAD_NAMESPACE_END

#include <fairlead/workload/detail/trace.hpp>
