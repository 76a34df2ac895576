// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Where the ranks come from: threads of this process, or the processes that mpirun started.
///
/// The rest of the example is the same source for both: it sees a communicator.
#include "options.hpp"

#if defined(FAIRLEAD_EXAMPLE_MPI)
#  include <fairlead/comm/mpi.hpp>
#else
#  include <fairlead/comm/inproc.hpp>
#endif

#include <utility>
#include <vector>

namespace language_model {

#if defined(FAIRLEAD_EXAMPLE_MPI)
/// @brief Ranks as processes.
class launcher {
 public:
  /// Takes main's arguments.
  launcher(int argc, char** argv) : session_(&argc, &argv) {}
  /// @returns whether this process prints
  [[nodiscard]] bool root() const { return world_.rank() == 0; }
  /// @returns the number of ranks: what mpirun was told
  [[nodiscard]] index_t size(options const&) const { return world_.size(); }
  /// @brief Call body(communicator).
  /// @param body returns the same on all ranks
  /// @returns what it returned
  template <class Body>
  auto run(options const&, Body const& body) {
    return body(world_);
  }
  /// @brief Called after an error: the other processes would wait for this one.
  void abandon() noexcept {
    if (world_.size() > 1) { MPI_Abort(MPI_COMM_WORLD, 1); }
  }

 private:
  fl::mpi::session session_;
  fl::mpi::communicator world_;
};
#else
/// @brief Ranks as threads.
class launcher {
 public:
  /// Takes main's arguments, like its MPI twin.
  launcher(int, char**) {}
  /// @returns whether this process prints
  [[nodiscard]] bool root() const noexcept { return true; }
  /// @param chosen says how many
  /// @returns the number of ranks
  [[nodiscard]] index_t size(options const& chosen) const noexcept { return chosen.ranks; }
  /// @brief Call body(communicator) on every rank.
  /// @param chosen says how many ranks
  /// @param body returns the same on all ranks
  /// @returns what rank 0 returned
  template <class Body>
  auto run(options const& chosen, Body const& body) {
    fl::inproc::world world(chosen.ranks);
    return std::move(world.run(body).front());
  }
  /// @brief Called after an error: threads have ended already.
  void abandon() noexcept {}
};
#endif

}  // namespace language_model
