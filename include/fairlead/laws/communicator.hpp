// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Check that a communicator keeps the promises of its concepts.
#include <fairlead/concepts/communicator.hpp>
#include <fairlead/laws/detail/communicator_examiner.hpp>
#include <fairlead/laws/verdict.hpp>

#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief What to check with.
struct communicator_options {
  std::uint64_t seed = 1;  ///< of the test data, the same on all ranks
  index_t longest = 257;   ///< elements of the longest message, the same on all ranks
};

/// @brief Run every collective that a communicator has, and compare with what each rank can compute alone.
///
/// For int32, int64, float and double: ragged, empty and one-sided exchanges, nothing written outside the messages,
/// two operations in flight that different ranks wait for in different orders, reductions equal to a local one
/// (integers, maxima and minima exactly; floating sums bit for bit if `reduces_in_rank_order<Comm>`, else to rounding),
/// the same bits on every rank and when repeated, broadcasts from every root, and a ring of messages. Capabilities that
/// a model lacks are left out. Works on any memory space. Messages that never arrive hang, as they do in real life.
/// @tparam Comm the communicator to check
/// @tparam Backend a backend of its memory space
/// @param comm this rank's communicator
/// @param on backend
/// @param options seed and sizes
/// @returns the first broken law that this rank saw; the model conforms if every rank's verdict holds
/// @complexity O(ranks x longest) elements a collective; allocates
/// @collective all ranks
template <communicator Comm, execution_backend Backend>
[[nodiscard]] verdict check_communicator(Comm& comm, Backend const& on, communicator_options options = {}) {
  return detail::communicator_examiner<Comm, Backend>(comm, on, options.seed, options.longest).examine();
}

}  // namespace laws
FAIRLEAD_NAMESPACE_END
