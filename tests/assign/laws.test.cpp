// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/assign/auction.hpp>
#include <fairlead/assign/greedy.hpp>
#include <fairlead/assign/greedy_order.hpp>
#include <fairlead/assign/quantile.hpp>
#include <fairlead/assign/sinkhorn.hpp>
#include <fairlead/laws/assignment_solver.hpp>

#include "support/catch.hpp"

namespace fl = fairlead;

TEMPLATE_TEST_CASE("Every solver keeps the laws that it states", "", fl::greedy_argmax, fl::greedy_repair,
                   fl::greedy_edge_sort, fl::greedy_expert_order, fl::quantile_sweep,
                   fl::sinkhorn_rounding, fl::similar_object_auction) {
  auto const verdict = fl::laws::check_assignment_solver(TestType{}, {.seed = 3});
  INFO(verdict);
  REQUIRE(verdict);
}
