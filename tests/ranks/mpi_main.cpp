// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The body of rank_laws.hpp under MPI: mpirun -np N mpi_main. Prints "N passed, N failed" over all ranks.
#include <fairlead/comm/mpi.hpp>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <numeric>
#include <stdexcept>

#include "ranks/rank_laws.hpp"

namespace fl = fairlead;
using fl::index_t;
using fl::laws::verdict;

namespace {

verdict expect(bool holds, char const* reason) { return holds ? verdict{} : verdict::broken(reason); }

verdict sessions() {
  fl::mpi::session inner;  // MPI runs already: this one must not finalise it
  int finalized = 1;
  { fl::mpi::session const innermost; }
  MPI_Finalized(&finalized);
  return expect(!inner.owner() && finalized == 0, "an inner session finalised MPI");
}

verdict misfits(fl::mpi::communicator comm) {
  if (comm.size() == 1) { return {}; }
  fl::serial const on;
  auto const n = static_cast<std::size_t>(comm.size());
  std::vector<int> send(3 * n, 1), receive(3 * n, -1);
  std::vector<index_t> offsets(n + 1);
  for (std::size_t i = 0; i <= n; ++i) { offsets[i] = static_cast<index_t>(3 * i); }
  std::vector<index_t> expected = offsets;
  if (comm.rank() == 0) { --expected.back(); }  // rank 0 expects less of the last rank
  try {
    comm.all_to_all_v(on, send.data(), offsets, receive.data(), expected).wait();
    return verdict::broken("unequal lengths were not noticed");
  } catch (fl::contract_violation const&) {}
  try {
    comm.broadcast(on, std::span<int>(send), comm.rank() == 0 ? 0 : 1).wait();
    return verdict::broken("unequal roots were not noticed");
  } catch (fl::contract_violation const&) {}
  comm.barrier();
  return {};
}

verdict point_to_point_misfit(fl::mpi::communicator comm) {
  if (comm.size() == 1) { return {}; }
  fl::serial const on;
  std::vector<int> values(4, static_cast<int>(comm.rank()));
  verdict result;
  if (comm.rank() == 0) {
    comm.send(on, std::span<int>(values).first(3), 1).wait();
    comm.send(on, std::span<int>(values), 1).wait();
  }
  if (comm.rank() == 1) {
    try {
      comm.receive(on, std::span<int>(values), 0).wait();
      result = verdict::broken("a short message was not noticed");
    } catch (fl::contract_violation const&) {}
    try {
      comm.receive(on, std::span<int>(values).first(3), 0).wait();
      result = verdict::broken("a long message was not noticed");
    } catch (fl::mpi_error const& error) {
      int kind = 0;
      MPI_Error_class(error.code(), &kind);
      result = expect(kind == MPI_ERR_TRUNCATE, "the native code was lost");
    }
  }
  comm.barrier();
  return result;
}

// One rank has started the next operations before another has waited for the first.
verdict staggered(fl::mpi::communicator comm) {
  fl::serial const on;
  std::vector<double> a(20000, 1.0), b(20000, 2.0), c(30, 3.0);
  auto first = comm.all_reduce(on, std::span<double>(a), fl::reduction::sum);
  if (comm.rank() % 2 == 1) { first.wait(); }
  auto second = comm.all_reduce(on, std::span<double>(b), fl::reduction::sum);
  auto third = comm.all_reduce(on, std::span<double>(c), fl::reduction::sum);
  comm.barrier();
  third.wait();
  if (comm.rank() % 2 == 0) { second.wait(); }
  first.wait();
  second.wait();
  auto const n = static_cast<double>(comm.size());
  return expect(a == std::vector<double>(20000, n) && b == std::vector<double>(20000, 2 * n) &&
                    c == std::vector<double>(30, 3 * n),
                "wrong sums");
}

// Some ranks gather in place and some do not.
verdict half_in_place(fl::mpi::communicator comm, std::size_t length) {
  fl::serial const on;
  auto const me = static_cast<std::size_t>(comm.rank());
  std::vector<index_t> mine(length, comm.rank()), all(length * static_cast<std::size_t>(comm.size()), -1), expected;
  for (index_t r = 0; r < comm.size(); ++r) { expected.insert(expected.end(), length, r); }
  auto const place = std::span(all).subspan(me * length, length);
  if (comm.rank() % 2 == 1) { std::copy(mine.begin(), mine.end(), place.begin()); }
  std::span<index_t const> const send = comm.rank() % 2 == 1 ? place : std::span(mine);
  comm.all_gather(on, send, std::span<index_t>(all)).wait();
  return expect(all == expected, "wrong elements");
}

// Rank 0 throws while it holds a receive whose message nobody sends.
verdict unwinding() {
  fl::mpi::communicator comm;
  if (comm.size() == 1 || comm.rank() > 0) { return {}; }
  std::vector<int> values(4);
  try {
    auto const operation = comm.receive(fl::serial{}, std::span<int>(values), 1);
    throw std::runtime_error("this rank gives up");
  } catch (std::runtime_error const&) {}
  try {
    comm.receive(fl::serial{}, std::span<int>(values), 1).wait();
    return verdict::broken("a communicator with an abandoned operation goes on");
  } catch (fl::contract_violation const&) {}
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  fl::mpi::session session(&argc, &argv);
  fl::mpi::communicator comm;
  auto outcome = rank_tests::run(comm);
  outcome.note("session", sessions());
  outcome.note("misfits", misfits(comm));
  outcome.note("point to point misfits", point_to_point_misfit(comm));
  outcome.note("staggered waits", staggered(comm));
  // Every path with messages in many pieces, as beyond 2^31 bytes; 56 is no multiple of the element sizes' messages.
  fl::mpi::communicator pieces(MPI_COMM_WORLD, {.piece_bytes = 56, .gather_and_add_bytes = 0});
  outcome.note("laws in pieces", fl::laws::check_communicator(pieces, fl::serial{}, {.seed = 8}));
  outcome.note("staggered waits in pieces", staggered(pieces));
  outcome.note("sums in rank order in pieces",
               expect(rank_tests::fingerprint(pieces, 3000) == rank_tests::expected_fingerprint(comm.size(), 3000),
                      "other bits"));
  fl::mpi::communicator small(MPI_COMM_WORLD, {.gather_and_add_bytes = 1 << 30});
  outcome.note("sums in rank order, gathered",
               expect(rank_tests::fingerprint(small, 3000) == rank_tests::expected_fingerprint(comm.size(), 3000),
                      "other bits"));
  outcome.note("gather, half of the ranks in place", half_in_place(comm, 5));
  outcome.note("gather of nothing, half of the ranks in place", half_in_place(comm, 0));
  outcome.note("gather in pieces, half of the ranks in place", half_in_place(pieces, 50));
  outcome.note("unwinding", unwinding());
  for (auto const& failure : outcome.failures) {
    std::fprintf(stderr, "rank %d: %s\n", static_cast<int>(comm.rank()), failure.c_str());
  }
  std::vector<int> totals{outcome.passed, static_cast<int>(outcome.failures.size())};
  comm.all_reduce(fl::serial{}, std::span<int>(totals), fl::reduction::sum).wait();
  if (comm.rank() == 0) { std::printf("%d passed, %d failed\n", totals[0], totals[1]); }
  return totals[1] == 0 && totals[0] == 23 * static_cast<int>(comm.size()) ? 0 : 1;
}
