// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The laws of communicators and backends on device memory, and what only NCCL has.
#include <fairlead/comm/nccl.cuh>
#include <fairlead/core/load.hpp>
#include <fairlead/exec/cuda_stream.cuh>
#include <fairlead/laws/communicator.hpp>
#include <fairlead/laws/execution_backend.hpp>

#include "cuda/support.cuh"

#include <stdexcept>
#include <vector>

namespace fl = fairlead;
using fl::index_t;

static_assert(fl::has_all_to_all_v<fl::nccl::communicator, fl::expert_id, fl::cuda_stream>);
static_assert(fl::has_all_gather<fl::nccl::communicator, fl::count_t, fl::cuda_stream>);
static_assert(fl::has_all_reduce<fl::nccl::communicator, fl::bfloat16, fl::cuda_stream>);
static_assert(fl::has_reduce_scatter<fl::nccl::communicator, double, fl::cuda_stream>);
static_assert(fl::has_broadcast<fl::nccl::communicator, fl::expert_id, fl::cuda_stream>);
static_assert(fl::has_point_to_point<fl::nccl::communicator, float, fl::cuda_stream>);
static_assert(!fl::has_all_reduce<fl::nccl::communicator, std::int16_t, fl::cuda_stream>, "NCCL reduces no 16-bit integers");
static_assert(fl::stream_ordered<fl::cuda_stream> && !fl::reduces_in_rank_order<fl::nccl::communicator>);

TEST_CASE("a CUDA stream keeps the laws of execution backends") {
  FAIRLEAD_NEEDS_DEVICES(1);
  REQUIRE(fl::laws::check_execution_backend(fl::cuda_stream{}));
  fl::cuda_stream_owner const stream;
  REQUIRE(fl::laws::check_execution_backend(stream.get()));
}

TEST_CASE("NCCL keeps the laws of communicators at 1, 2 and 4 ranks") {
  FAIRLEAD_NEEDS_DEVICES(4);
  int const ranks = GENERATE(1, 2, 4);
  for (std::uint64_t const seed : {1, 2}) {
    std::vector<fl::laws::verdict> verdicts(static_cast<std::size_t>(ranks));
    fl::nccl::run_ranks(ranks, [&](fl::nccl::communicator& comm, int rank) {
      fl::cuda_stream_owner const stream;
      verdicts[static_cast<std::size_t>(rank)] = fl::laws::check_communicator(comm, stream.get(), {.seed = seed, .longest = 100});
    });
    INFO("ranks " << ranks << ", seed " << seed);
    for (auto const& verdict : verdicts) { REQUIRE(verdict); }
  }
}

TEST_CASE("ranks learn their place, and a rank's exception reaches the caller") {
  FAIRLEAD_NEEDS_DEVICES(2);
  std::vector<index_t> ranks(2), sizes(2);
  fl::nccl::run_ranks(2, [&](fl::nccl::communicator& comm, int rank) {
    ranks[static_cast<std::size_t>(rank)] = comm.rank();
    sizes[static_cast<std::size_t>(rank)] = comm.size();
    comm.barrier();
  });
  REQUIRE(ranks == std::vector<index_t>{0, 1});
  REQUIRE(sizes == std::vector<index_t>{2, 2});
  auto const failing = [](fl::nccl::communicator&, int rank) {
    if (rank == 1) { throw std::runtime_error("rank 1 stops"); }
  };
  REQUIRE_THROWS_WITH(fl::nccl::run_ranks(2, failing), "rank 1 stops");
  REQUIRE_THROWS_AS(fl::nccl::run_ranks(fl::cuda_device_count() + 1, failing), fl::contract_violation);
}

TEST_CASE("an NCCL failure keeps its code") {
  try {
    fl::nccl::detail::check(ncclInvalidUsage, nullptr, "testing");
    FAIL("nothing was thrown");
  } catch (fl::nccl_error const& error) {
    REQUIRE(error.code() == ncclInvalidUsage);
    REQUIRE(std::string(error.what()).find("testing") == 0);
  }
}

TEST_CASE("an operation may be waited for after the last copy of its communicator is gone") {
  FAIRLEAD_NEEDS_DEVICES(1);
  std::vector<int> arrived(3, -1);
  fl::nccl::run_ranks(1, [&](fl::nccl::communicator& comm, int) {
    fl::cuda_stream_owner const stream;
    std::vector<int> const values{4, 5, 6};
    fl::buffer<int, fl::device_space> out, in;
    out.resize(3);
    in.resize(3);
    REQUIRE(cudaMemcpy(out.data(), values.data(), 12, cudaMemcpyHostToDevice) == cudaSuccess);
    fl::nccl::pending sent, received;
    {
      fl::nccl::communicator const last = std::move(comm);
      auto mine = last;
      sent = mine.send(stream.get(), std::span<int const>(out.data(), 3), 0);
      received = mine.receive(stream.get(), std::span<int>(in.data(), 3), 0);
    }
    received.wait();
    sent.wait();
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    REQUIRE(cudaMemcpy(arrived.data(), in.data(), 12, cudaMemcpyDeviceToHost) == cudaSuccess);
  });
  REQUIRE(arrived == std::vector<int>{4, 5, 6});
}
