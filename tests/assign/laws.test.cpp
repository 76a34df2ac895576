// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Every solver, in every setting that changes its way, keeps the laws that it states.
#include <fairlead/assign/auction.hpp>
#include <fairlead/assign/balanced_flow.hpp>
#include <fairlead/assign/greedy.hpp>
#include <fairlead/assign/greedy_order.hpp>
#include <fairlead/assign/quantile.hpp>
#include <fairlead/assign/sinkhorn.hpp>
#include <fairlead/exec/threads.hpp>
#include <fairlead/laws/assignment_solver.hpp>

#include "support/catch.hpp"

namespace fl = fairlead;
namespace {

template <class Solver>
void check(Solver const& solver) {
  for (std::uint64_t const seed : {1, 2}) {
    auto const verdict = fl::laws::check_assignment_solver(solver, {.seed = seed}, fl::serial{}, fl::threads{3});
    INFO(verdict);
    REQUIRE(verdict);
  }
}

}  // namespace

TEST_CASE("The exact solver keeps the laws") { check(fl::balanced_flow{}); }
TEST_CASE("Greedy solvers keep the laws") {
  check(fl::greedy_argmax{});
  check(fl::greedy_repair{});
  check(fl::greedy_edge_sort{});
  check(fl::greedy_expert_order{});
  check(fl::greedy_expert_order{.seed = 77});
}
TEST_CASE("Sinkhorn prices with repair keep the laws") {
  check(fl::sinkhorn_rounding{});
  check(fl::sinkhorn_rounding{{.passes = 1}});
  check(fl::sinkhorn_rounding{{.passes = 0}});
}
TEST_CASE("Quantile sweeps with repair keep the laws under every rule") {
  check(fl::quantile_sweep{});
  check(fl::quantile_sweep{.sweeps = 3, .damping = 1.0});
  check(fl::quantile_sweep{.sweeps = 3, .rule = fl::quantile_rule::in_turn});
  check(fl::quantile_sweep{.sweeps = 3, .rule = fl::quantile_rule::single_cut});
}
TEST_CASE("The auction keeps the laws, also when its bids run out") {
  check(fl::similar_object_auction{});
  check(fl::similar_object_auction{.final_epsilon = 0.5});
  check(fl::similar_object_auction{.bids_per_token = 1});
}
TEST_CASE("The laws hold at other sizes") {
  auto const verdict = fl::laws::check_assignment_solver(fl::greedy_repair{}, {.seed = 5, .cases = 5, .tokens = 1, .experts = 1});
  INFO(verdict);
  REQUIRE(verdict);
  auto const many = fl::laws::check_assignment_solver(fl::balanced_flow{}, {.seed = 7, .cases = 5, .tokens = 300, .experts = 40});
  INFO(many);
  REQUIRE(many);
  auto const wide = fl::laws::check_assignment_solver(fl::similar_object_auction{}, {.seed = 6, .cases = 5, .tokens = 600, .experts = 33});
  INFO(wide);
  REQUIRE(wide);
}
