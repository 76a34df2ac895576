// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The laws of assignment solvers find every kind of lie, told by a solver that is right otherwise.
#include <fairlead/assign/balanced_flow.hpp>
#include <fairlead/assign/greedy_order.hpp>
#include <fairlead/laws/assignment_solver.hpp>

#include "support/catch.hpp"

#include <algorithm>
#include <concepts>
#include <functional>
#include <limits>
#include <string>

namespace fl = fairlead;
namespace {

/// A backend of another type, as a second machine would be.
struct other_machine : fl::serial {};

using change = std::function<void(bool other, fl::assignment_problem<float> const&, fl::assignment_result const&,
                                  fl::assignment_report&, fl::workspace&)>;

/// Solves with Base, then changes the answer.
template <class Base>
struct planted {
  change lie;
  std::size_t workspace_bytes(fl::index_t tokens, fl::index_t experts, fl::index_t fan_out) const {
    return Base{}.workspace_bytes(tokens, experts, fan_out) + 64;
  }
  template <class Backend>
  fl::assignment_report solve(Backend const&, fl::assignment_problem<float> const& problem,
                              fl::assignment_result const& result, fl::workspace& ws) const {
    fl::assignment_report report = Base{}.solve(fl::serial{}, problem, result, ws);
    lie(std::same_as<Backend, other_machine>, problem, result, report, ws);
    return report;
  }
};

bool answered(fl::assignment_report const& report) { return report.status == fl::status::ok; }

struct nothing {
  void operator()(bool, auto const&, auto const&, auto&, auto&) const {}
};
struct takes_an_expert_twice {
  void operator()(bool, auto const& problem, auto const& result, auto& report, auto&) const {
    if (answered(report) && problem.fan_out > 1 && problem.valid_tokens() == problem.tokens() && problem.tokens() > 0) {
      result.owner(0, 1) = result.owner(0, 0);
    }
  }
};
struct forgets_a_token {
  void operator()(bool, auto const& problem, auto const& result, auto& report, auto&) const {
    if (answered(report) && problem.fan_out > 0 && problem.tokens() > 0) { result.owner(0, 0) = fl::expert_id::none; }
  }
};
struct serves_padding {
  void operator()(bool, auto const& problem, auto const& result, auto& report, auto&) const {
    for (std::size_t t = 0; answered(report) && problem.fan_out > 0 && t < problem.token_mask.size(); ++t) {
      if (problem.token_mask[t] == 0) { result.owner(static_cast<fl::index_t>(t), 0) = fl::expert_id{0}; }
    }
  }
};
struct invents_an_expert {
  void operator()(bool, auto const& problem, auto const& result, auto& report, auto&) const {
    if (answered(report) && problem.fan_out > 0 && problem.tokens() > 0 && problem.token_mask.empty()) {
      result.owner(0, 0) = static_cast<fl::expert_id>(problem.experts());
    }
  }
};
struct uses_a_forbidden_pair {
  void operator()(bool, auto const& problem, auto const& result, auto& report, auto&) const {
    for (fl::index_t e = 0; answered(report) && problem.fan_out == 1 && problem.tokens() > 0 && e < problem.experts(); ++e) {
      if (problem.token_mask.empty() && fl::assignable(problem.scores(0, e)) < -1e300) {
        result.owner(0, 0) = static_cast<fl::expert_id>(e);
      }
    }
  }
};
struct ignores_capacity {  // consistent in everything else
  void operator()(bool, auto const& problem, auto const& result, auto& report, auto&) const {
    if (!answered(report) || problem.fan_out != 1 || !problem.token_mask.empty()) { return; }
    report.value = 0.0;
    for (fl::index_t t = 0; t < problem.tokens(); ++t) {
      fl::index_t best = 0;
      for (fl::index_t e = 1; e < problem.experts(); ++e) {
        if (fl::assignable(problem.scores(t, e)) > fl::assignable(problem.scores(t, best))) { best = e; }
      }
      result.owner(t, 0) = static_cast<fl::expert_id>(best);
      report.value += fl::assignable(problem.scores(t, best));
    }
    report.bound = std::max(report.bound, report.value);
  }
};
struct exaggerates_the_value {
  void operator()(bool, auto const&, auto const&, auto& report, auto&) const {
    if (answered(report)) { report.value += 1e-3; }
  }
};
struct understates_the_bound {
  void operator()(bool, auto const& problem, auto const&, auto& report, auto&) const {
    if (answered(report) && problem.tokens() > 0) { report.bound = report.value - 1.0; }
  }
};
struct raises_the_bound {
  void operator()(bool, auto const& problem, auto const&, auto& report, auto&) const {
    if (answered(report) && problem.tokens() > 0) { report.bound += 0.5; }
  }
};
struct shifts_one_price {  // with a bound that fits it
  void operator()(bool, auto const& problem, auto const& result, auto& report, auto&) const {
    if (!answered(report) || problem.tokens() == 0 || problem.experts() < 2 || problem.fan_out == 0) { return; }
    result.prices[0] += 100.0;
    fl::arena<> memory(fl::dual_bound_bytes(problem.tokens(), problem.fan_out));
    fl::workspace own = memory.view();
    report.bound = fl::dual_bound(fl::serial{}, problem, std::span<double const>(result.prices), own);
  }
};
struct leaves_a_price_open {
  void operator()(bool, auto const&, auto const& result, auto& report, auto&) const {
    if (answered(report)) { result.prices[0] = std::numeric_limits<double>::quiet_NaN(); }
  }
};
struct turns_the_rows_around {
  void operator()(bool, auto const& problem, auto const& result, auto& report, auto&) const {
    for (fl::index_t t = 0; answered(report) && t < problem.tokens() && problem.token_mask.empty(); ++t) {
      std::reverse(result.owner.row(t), result.owner.row(t) + problem.fan_out);
    }
  }
};
struct gives_up {
  void operator()(bool, auto const& problem, auto const& result, auto& report, auto&) const {
    if (problem.tokens() != 5) { return; }
    for (fl::index_t t = 0; t < problem.tokens(); ++t) {
      std::fill_n(result.owner.row(t), problem.fan_out, fl::expert_id::none);
    }
    report.status = fl::status::infeasible;
  }
};
struct never_gives_up {
  void operator()(bool, auto const&, auto const&, auto& report, auto&) const { report.status = fl::status::ok; }
};
struct leaves_owners_behind {
  void operator()(bool, auto const& problem, auto const& result, auto& report, auto&) const {
    if (!answered(report) && problem.tokens() > 0 && problem.fan_out > 0) { result.owner(0, 0) = fl::expert_id{0}; }
  }
};
struct refuses_pairs {
  void operator()(bool, auto const& problem, auto const& result, auto& report, auto&) const {
    if (problem.fan_out < 2) { return; }
    for (fl::index_t t = 0; t < problem.tokens(); ++t) {
      std::fill_n(result.owner.row(t), problem.fan_out, fl::expert_id::none);
    }
    report.status = fl::status::unsupported;
  }
};
struct writes_beyond_its_row {
  void operator()(bool, auto const& problem, auto const& result, auto&, auto&) const {
    if (problem.tokens() > 0 && result.owner.stride() > result.owner.cols()) {
      result.owner.row(0)[result.owner.cols()] = fl::expert_id{0};
    }
  }
};
struct writes_beyond_its_prices {
  void operator()(bool, auto const&, auto const& result, auto&, auto&) const {
    result.prices.data()[result.prices.size()] = 0.0;
  }
};
struct writes_beyond_its_scratch {
  void operator()(bool, auto const&, auto const&, auto&, fl::workspace& ws) const {
    fl::workspace::scope const scope(ws);
    auto const rest = ws.take<std::byte>(static_cast<fl::index_t>(ws.size() - ws.used()));
    rest.data()[rest.size()] = std::byte{0x33};
  }
};
struct keeps_its_scratch {
  void operator()(bool, auto const&, auto const&, auto&, fl::workspace& ws) const { (void)ws.take<std::byte>(1); }
};
struct takes_more_scratch_than_it_said {
  void operator()(bool, auto const&, auto const&, auto&, fl::workspace& ws) const {
    fl::workspace::scope const scope(ws);
    (void)ws.take<std::byte>(static_cast<fl::index_t>(ws.size() - ws.used() + 1));
  }
};
struct reads_old_scratch {
  void operator()(bool, auto const& problem, auto const& result, auto& report, fl::workspace& ws) const {
    fl::workspace::scope const scope(ws);
    auto const old = ws.take<std::byte>(static_cast<fl::index_t>(ws.size() - ws.used()));
    if (answered(report) && problem.experts() > 0 && old.back() != std::byte{0}) { result.prices[0] += 1e-9; }
  }
};
struct differs_on_another_machine {
  void operator()(bool other, auto const&, auto const&, auto& report, auto&) const {
    if (other) { report.value += 1e-15; }
  }
};

/// Greedy, but asserts that it is exact.
struct vain : fl::greedy_edge_sort {};
/// Solves equalities only, and does not say that it refuses the rest.
struct modest : fl::greedy_edge_sort {};

/// One expert a token; warm prices lead it astray, to a valid answer.
struct led_astray {
  std::size_t workspace_bytes(fl::index_t tokens, fl::index_t experts, fl::index_t fan_out) const {
    return std::max(fl::balanced_flow{}.workspace_bytes(tokens, experts, fan_out),
                    fl::greedy_edge_sort::workspace_bytes(tokens, experts, fan_out));
  }
  template <class Backend>
  fl::assignment_report solve(Backend const&, fl::assignment_problem<float> const& problem,
                              fl::assignment_result const& result, fl::workspace& ws) const {
    fl::assignment_report report;
    if (problem.fan_out > 1) {
      for (fl::index_t t = 0; t < problem.tokens(); ++t) {
        std::fill_n(result.owner.row(t), problem.fan_out, fl::expert_id::none);
      }
      report.status = fl::status::unsupported;
      return report;
    }
    if (problem.warm_prices.empty() || problem.tokens() < 90) {
      return fl::balanced_flow{}.solve(fl::serial{}, problem, result, ws);
    }
    return fl::greedy_edge_sort{}.solve(fl::serial{}, problem, result, ws);
  }
};

template <class Solver>
std::string reason(Solver const& solver) {
  auto const verdict = fl::laws::check_assignment_solver(solver, {.cases = 80, .tokens = 97}, fl::serial{}, other_machine{});
  return verdict ? "holds" : verdict.reason();
}
template <class Change>
std::string reason_of() { return reason(planted<fl::balanced_flow>{Change{}}); }

}  // namespace

FAIRLEAD_NAMESPACE_BEGIN
template <class Base>
inline constexpr bool exact_solver<planted<Base>> = exact_solver<Base>;
template <class Base>
inline constexpr bool solves_fan_out<planted<Base>> = solves_fan_out<Base>;
template <class Base>
inline constexpr bool solves_bounds<planted<Base>> = solves_bounds<Base>;
template <class Base>
inline constexpr bool solves_forbidden<planted<Base>> = solves_forbidden<Base>;
template <class Base>
inline constexpr bool has_prices<planted<Base>> = has_prices<Base>;
template <>
inline constexpr bool exact_solver<vain> = true;
template <>
inline constexpr bool solves_fan_out<vain> = true;
template <>
inline constexpr bool solves_bounds<vain> = true;
template <>
inline constexpr bool solves_forbidden<vain> = true;
template <>
inline constexpr bool exact_solver<led_astray> = true;
template <>
inline constexpr bool solves_bounds<led_astray> = true;
template <>
inline constexpr bool solves_forbidden<led_astray> = true;
FAIRLEAD_NAMESPACE_END

#define REQUIRE_LAW(found, law)                             \
  do {                                                      \
    std::string const said = (found);                       \
    INFO(said);                                             \
    REQUIRE(said.find(law) != std::string::npos);           \
  } while (false)

TEST_CASE("An honest solver in the same harness keeps the laws") { REQUIRE(reason_of<nothing>() == "holds"); }

TEST_CASE("Owners that are no assignment are found") {
  REQUIRE_LAW(reason_of<takes_an_expert_twice>(), "takes an expert once");
  REQUIRE_LAW(reason_of<forgets_a_token>(), "takes fan_out experts that exist");
  REQUIRE_LAW(reason_of<invents_an_expert>(), "takes fan_out experts that exist");
  REQUIRE_LAW(reason_of<serves_padding>(), "a masked token takes no expert");
  REQUIRE_LAW(reason_of<uses_a_forbidden_pair>(), "no forbidden pair is used");
  REQUIRE_LAW(reason(planted<fl::greedy_edge_sort>{ignores_capacity{}}), "capacities are kept");
  REQUIRE_LAW(reason_of<turns_the_rows_around>(), "descend by score - price");
}

TEST_CASE("Numbers that do not belong to the owners are found") {
  REQUIRE_LAW(reason_of<exaggerates_the_value>(), "the value is the sum");
  REQUIRE_LAW(reason_of<understates_the_bound>(), "the bound is at least the value");
  REQUIRE_LAW(reason_of<raises_the_bound>(), "the bound is the dual function");
  REQUIRE_LAW(reason_of<shifts_one_price>(), "the bound proves an exact value");
  REQUIRE_LAW(reason_of<leaves_a_price_open>(), "prices are finite");
}

TEST_CASE("A wrong status is found") {
  REQUIRE_LAW(reason_of<gives_up>(), "infeasible is reported only where");
  REQUIRE_LAW(reason_of<never_gives_up>(), "takes fan_out experts that exist");
  REQUIRE_LAW(reason_of<leaves_owners_behind>(), "owners are none when no assignment exists");
  REQUIRE_LAW(reason_of<refuses_pairs>(), "is not refused");
  REQUIRE_LAW(reason(modest{}), "what the solver does not state is refused");
}

TEST_CASE("An approximate solver that claims to be exact is found") {
  REQUIRE_LAW(reason(vain{}), "an exact solver finds the best value");
}

TEST_CASE("Warm prices that change the value of an exact solver are found") {
  REQUIRE_LAW(reason(led_astray{}), "warm prices do not change the value");
}

TEST_CASE("Writes outside of the outputs and reads of old memory are found") {
  REQUIRE_LAW(reason_of<writes_beyond_its_row>(), "only owners, prices and scratch are written");
  REQUIRE_LAW(reason_of<writes_beyond_its_prices>(), "only owners, prices and scratch are written");
  REQUIRE_LAW(reason_of<writes_beyond_its_scratch>(), "only owners, prices and scratch are written");
  REQUIRE_LAW(reason_of<keeps_its_scratch>(), "scratch is given back");
  REQUIRE_LAW(reason_of<takes_more_scratch_than_it_said>(), "workspace_bytes() suffices");
  REQUIRE_LAW(reason_of<reads_old_scratch>(), "whatever memory held");
  REQUIRE_LAW(reason_of<differs_on_another_machine>(), "on any backend");
}
