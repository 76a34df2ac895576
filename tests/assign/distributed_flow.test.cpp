// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/comm/alone.hpp>
#include <fairlead/comm/inproc.hpp>

#include "assign/distributed_body.hpp"
#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

static_assert(fl::distributed_assignment_solver_on<fl::distributed_flow, fl::serial, fl::inproc::communicator>);
static_assert(fl::distributed_assignment_solver_on<fl::distributed_flow, fl::serial, fl::alone, fl::bfloat16>);

TEST_CASE("threads as ranks pass the body of the distributed solver, at 1, 2, 3, 4 and 8 ranks", "[assign]") {
  for (index_t const ranks : {1, 2, 3, 4, 8}) {
    fl::inproc::world world{ranks};
    auto const outcomes = world.run([](fl::inproc::communicator comm) { return distributed_tests::run(comm); });
    for (auto const& outcome : outcomes) {
      CHECK(outcome.failures == std::vector<std::string>{});
      CHECK(outcome.passed == distributed_tests::expected_checks);
    }
  }
}

TEST_CASE("a single rank without threads passes the body of the distributed solver", "[assign]") {
  auto const outcome = distributed_tests::run(fl::alone{});
  CHECK(outcome.failures == std::vector<std::string>{});
  CHECK(outcome.passed == distributed_tests::expected_checks);
}
