// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/comm/alone.hpp>
#include <fairlead/comm/inproc.hpp>

#include "ranks/rank_laws.hpp"
#include "support/catch.hpp"

TEST_CASE("threads as ranks pass the body that processes pass, at 1, 2, 3, 4 and 8 ranks") {
  for (fairlead::index_t const ranks : {1, 2, 3, 4, 8}) {
    fairlead::inproc::world world{ranks};
    auto const outcomes = world.run([](fairlead::inproc::communicator comm) { return rank_tests::run(comm); });
    for (auto const& outcome : outcomes) {
      CHECK(outcome.failures == std::vector<std::string>{});
      CHECK(outcome.passed == 11);
    }
  }
}

TEST_CASE("a single rank without threads passes the body that processes pass") {
  auto const outcome = rank_tests::run(fairlead::alone{});
  CHECK(outcome.failures == std::vector<std::string>{});
  CHECK(outcome.passed == 11);
}
