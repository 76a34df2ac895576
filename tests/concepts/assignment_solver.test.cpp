// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/concepts/assignment_solver.hpp>

#include <fairlead/core/matrix.hpp>
#include <fairlead/exec/serial.hpp>

#include <cmath>
#include <limits>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;

namespace {

// No more than the concept asks for: tokens in order take the first expert with room; right for equal scores.
struct minimal {
  template <class Backend, class Score>
  fl::assignment_report solve(Backend const&, fl::assignment_problem<Score> const& problem,
                              fl::assignment_result const& result, fl::workspace&) const {
    fl::assignment_report report;
    fl::index_t token = 0;
    for (fl::index_t e = 0; e < problem.experts(); ++e) {
      for (fl::index_t i = 0; i < problem.upper[static_cast<std::size_t>(e)]; ++i, ++token) {
        result.owner(token, 0) = static_cast<fl::expert_id>(e);
        report.value += fl::assignable(problem.scores(token, e));
      }
    }
    report.bound = report.value;
    return report;
  }
  std::size_t workspace_bytes(fl::index_t, fl::index_t, fl::index_t) const { return 0; }
};
static_assert(fl::assignment_solver_on<minimal, fl::serial>);
static_assert(fl::assignment_solver_on<minimal const, fl::serial>);
static_assert(fl::assignment_solver_on<minimal, fl::serial, fl::bfloat16>);
static_assert(!fl::exact_solver<minimal> && !fl::solves_fan_out<minimal> && !fl::solves_bounds<minimal> &&
                  !fl::solves_forbidden<minimal> && !fl::warm_startable<minimal> && !fl::has_prices<minimal>,
              "nothing is claimed that is not stated");
static_assert(fl::keeps_capacity<minimal>, "a solver keeps capacities unless it says otherwise");

struct no_solve {
  std::size_t workspace_bytes(fl::index_t, fl::index_t, fl::index_t) const { return 0; }
};
static_assert(!fl::assignment_solver_on<no_solve, fl::serial>);

struct no_workspace_bytes {
  fl::assignment_report solve(fl::serial const&, fl::assignment_problem<float> const&, fl::assignment_result const&,
                              fl::workspace&) const {
    return {};
  }
};
static_assert(!fl::assignment_solver_on<no_workspace_bytes, fl::serial>);

struct one_backend_only : no_workspace_bytes {
  std::size_t workspace_bytes(fl::index_t, fl::index_t, fl::index_t) const { return 0; }
};
static_assert(fl::assignment_solver_on<one_backend_only, fl::serial>);
static_assert(!fl::assignment_solver_on<one_backend_only, fl::serial, fl::bfloat16>, "scores of another type");

struct returns_plain_report : no_solve {
  fl::report solve(fl::serial const&, fl::assignment_problem<float> const&, fl::assignment_result const&,
                   fl::workspace&) const {
    return {};
  }
};
static_assert(!fl::assignment_solver_on<returns_plain_report, fl::serial>, "an assignment has more to report");

struct returns_text : no_workspace_bytes {
  char const* workspace_bytes(fl::index_t, fl::index_t, fl::index_t) const { return "none"; }
};
static_assert(!fl::assignment_solver_on<returns_text, fl::serial>);

struct not_const : no_solve {
  fl::assignment_report solve(fl::serial const&, fl::assignment_problem<float> const&, fl::assignment_result const&,
                              fl::workspace&) {
    return {};
  }
};
static_assert(!fl::assignment_solver_on<not_const, fl::serial>, "state is an argument of its own");
static_assert(!fl::assignment_solver_on<minimal, int>);
static_assert(!fl::assignment_solver_on<int, fl::serial>);

}  // namespace

TEST_CASE("the minimal assignment solver does its work through the concept alone", "[concepts]") {
  auto const through_the_concept = [](fl::assignment_solver_on<fl::serial> auto const& solver) {
    fl::matrix<float> scores(5, 2);
    for (float& score : scores.span()) { score = 0.5F; }
    std::vector<fl::index_t> capacity(2);
    fl::even_capacity(5, capacity);
    fl::matrix<fl::expert_id> owner(5, 1);
    fl::arena<> scratch(solver.workspace_bytes(5, 2, 1));
    fl::workspace ws = scratch.view();
    fl::assignment_report const ended = solver.solve(
        fl::serial{}, fl::assignment_problem<float>{.scores = scores.view(), .lower = capacity, .upper = capacity},
        fl::assignment_result{owner.view()}, ws);
    return ended && ended.value == 2.5 && ended.gap() == 0.0 && owner(2, 0) == fl::expert_id{0} &&
           owner(3, 0) == fl::expert_id{1};
  };
  CHECK(through_the_concept(minimal{}));
}

TEST_CASE("the rule about NaN and infinities is one function", "[concepts]") {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  constexpr double forbidden = -std::numeric_limits<double>::infinity();
  CHECK(fl::assignable(1.5F) == 1.5);
  CHECK(fl::assignable(fl::bfloat16(-0.5F)) == -0.5);
  CHECK(fl::assignable(-infinity) == forbidden);
  CHECK(fl::assignable(std::numeric_limits<float>::quiet_NaN()) == forbidden);
  CHECK(fl::assignable(-std::numeric_limits<float>::quiet_NaN()) == forbidden);
  CHECK(fl::assignable(infinity) == static_cast<double>(std::numeric_limits<float>::max()));
  CHECK(fl::assignable(fl::bfloat16(infinity)) == std::ldexp(255.0, 120));  // 8 significant bits, all ones
  CHECK(fl::assignable(std::numeric_limits<float>::lowest()) > forbidden);
}

TEST_CASE("even capacities sum to the copies and differ by at most one", "[concepts]") {
  std::vector<fl::index_t> capacity(3);
  fl::even_capacity(8, capacity);
  CHECK(capacity == std::vector<fl::index_t>{3, 3, 2});
  fl::even_capacity(2, capacity);
  CHECK(capacity == std::vector<fl::index_t>{1, 1, 0});
  CHECK_THROWS_AS(fl::even_capacity(1, {}), fl::contract_violation);
  CHECK_THROWS_AS(fl::even_capacity(-1, capacity), fl::contract_violation);
}

TEST_CASE("shapes of a problem that do not fit are refused", "[concepts]") {
  fl::matrix<float> scores(4, 2);
  fl::matrix<fl::expert_id> owner(4, 1), narrow(4, 2);
  std::vector<fl::index_t> capacity{2, 2}, crossed{3, 2}, negative{-1, 2}, three{1, 1, 2};
  std::vector<double> prices(2), one(1);
  std::vector<std::uint8_t> mask(3, 1);
  fl::assignment_problem<float> const good{.scores = scores.view(), .lower = capacity, .upper = capacity};
  CHECK_NOTHROW(fl::check_assignment(good, fl::assignment_result{owner.view(), prices}));
  auto const refused = [&](auto change, fl::assignment_result const& result) {
    auto problem = good;
    change(problem);
    CHECK_THROWS_AS(fl::check_assignment(problem, result), fl::contract_violation);
  };
  fl::assignment_result const result{owner.view(), prices};
  refused([](auto& p) { p.fan_out = 3; }, result);
  refused([](auto& p) { p.fan_out = -1; }, result);
  refused([&](auto& p) { p.lower = crossed; }, result);
  refused([&](auto& p) { p.lower = negative; }, result);
  refused([&](auto& p) { p.upper = three; }, result);
  refused([&](auto& p) { p.token_mask = mask; }, result);
  refused([&](auto& p) { p.warm_prices = one; }, result);
  refused([](auto&) {}, fl::assignment_result{narrow.view(), prices});
  refused([](auto&) {}, fl::assignment_result{owner.view(), one});
}
