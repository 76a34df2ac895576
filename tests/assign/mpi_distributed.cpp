// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The body of distributed_body.hpp under MPI: mpirun -np N mpi_distributed. Prints "N passed, N failed" over all ranks.
#include <fairlead/comm/mpi.hpp>

#include "assign/distributed_body.hpp"

#include <cstdio>

namespace fl = fairlead;

int main(int argc, char** argv) {
  fl::mpi::session session(&argc, &argv);
  fl::mpi::communicator comm;
  static_assert(fl::distributed_assignment_solver_on<fl::distributed_flow, fl::serial, fl::mpi::communicator>);
  auto const outcome = distributed_tests::run(comm);
  for (auto const& failure : outcome.failures) {
    std::fprintf(stderr, "rank %d: %s\n", static_cast<int>(comm.rank()), failure.c_str());
  }
  std::vector<int> totals{outcome.passed, static_cast<int>(outcome.failures.size())};
  comm.all_reduce(fl::serial{}, std::span<int>(totals), fl::reduction::sum).wait();
  if (comm.rank() == 0) { std::printf("%d passed, %d failed\n", totals[0], totals[1]); }
  return totals[1] == 0 && totals[0] == distributed_tests::expected_checks * static_cast<int>(comm.size()) ? 0 : 1;
}
