// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The bound on the utility against its linear program in Clp and GLPK, where they are installed.
#include <fairlead/core/philox.hpp>
#include <fairlead/edge/unmetered.hpp>
#include <fairlead/edge/utility_bound.hpp>
#include <fairlead/exec/serial.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>
#include <vector>

#include "edge/slots.hpp"
#include "support/catch.hpp"

#if defined(FAIRLEAD_BENCH_CLP)
#  include <coin/ClpSimplex.hpp>
#  include <coin/CoinPackedMatrix.hpp>
#endif
#if defined(FAIRLEAD_BENCH_GLPK)
#  include <glpk.h>
#endif

namespace fl = fairlead;
using fl::index_t;

#if defined(FAIRLEAD_BENCH_CLP) || defined(FAIRLEAD_BENCH_GLPK)

namespace {

// Column t * servers + j is the share of token t on server j; rows are the tokens, then the servers. Utility a slot, or
// nothing where no shares fit.
struct shares_program {
  fl::matrix_view<float const> scores;
  std::vector<double> capacity;
  index_t slots, fan_out;
  double gate;

  [[nodiscard]] double utility(double mass) const {
    return (static_cast<double>(scores.rows() * fan_out) + mass) / static_cast<double>(slots);
  }
  [[nodiscard]] double worth(int column) const {
    auto const servers = static_cast<int>(scores.cols());
    return gate * static_cast<double>(scores(column / servers, column % servers));
  }

#  if defined(FAIRLEAD_BENCH_CLP)
  [[nodiscard]] std::optional<double> by_clp() const {
    auto const tokens = static_cast<int>(scores.rows());
    auto const servers = static_cast<int>(scores.cols());
    int const columns = tokens * servers;
    std::vector<int> rows, places;
    std::vector<double> cost;
    for (int c = 0; c < columns; ++c) {
      rows.insert(rows.end(), {c / servers, tokens + c % servers});
      places.insert(places.end(), {c, c});
      cost.push_back(-worth(c));
    }
    std::vector<double> const values(rows.size(), 1.0), zero(cost.size(), 0.0), one(cost.size(), 1.0);
    CoinPackedMatrix const matrix(true, rows.data(), places.data(), values.data(), static_cast<CoinBigIndex>(values.size()));
    std::vector<double> low(static_cast<std::size_t>(tokens), static_cast<double>(fan_out));
    std::vector<double> high = low;
    low.resize(low.size() + capacity.size(), 0.0);
    high.insert(high.end(), capacity.begin(), capacity.end());
    ClpSimplex model;
    model.setLogLevel(0);
    model.loadProblem(matrix, zero.data(), one.data(), cost.data(), low.data(), high.data());
    model.primal();
    if (!model.isProvenOptimal()) { return {}; }
    return utility(-model.objectiveValue());
  }
#  endif

#  if defined(FAIRLEAD_BENCH_GLPK)
  [[nodiscard]] std::optional<double> by_glpk() const {
    auto const tokens = static_cast<int>(scores.rows());
    auto const servers = static_cast<int>(scores.cols());
    int const columns = tokens * servers;
    std::unique_ptr<glp_prob, void (*)(glp_prob*)> const problem(glp_create_prob(), glp_delete_prob);
    glp_prob* const lp = problem.get();
    glp_set_obj_dir(lp, GLP_MAX);
    glp_add_rows(lp, tokens + servers);
    glp_add_cols(lp, columns);
    for (int t = 0; t < tokens; ++t) { glp_set_row_bnds(lp, t + 1, GLP_FX, static_cast<double>(fan_out), static_cast<double>(fan_out)); }
    for (int j = 0; j < servers; ++j) { glp_set_row_bnds(lp, tokens + j + 1, GLP_UP, 0.0, capacity[static_cast<std::size_t>(j)]); }
    std::vector<int> rows(1, 0), places(1, 0);
    std::vector<double> values(1, 0.0);
    for (int c = 0; c < columns; ++c) {
      glp_set_col_bnds(lp, c + 1, GLP_DB, 0.0, 1.0);
      glp_set_obj_coef(lp, c + 1, worth(c));
      rows.insert(rows.end(), {c / servers + 1, tokens + c % servers + 1});
      places.insert(places.end(), {c + 1, c + 1});
      values.insert(values.end(), {1.0, 1.0});
    }
    glp_load_matrix(lp, static_cast<int>(values.size()) - 1, rows.data(), places.data(), values.data());
    glp_smcp options;
    glp_init_smcp(&options);
    options.msg_lev = GLP_MSG_OFF;
    glp_term_out(GLP_OFF);
    if (glp_simplex(lp, &options) != 0 || glp_get_status(lp) != GLP_OPT) { return {}; }
    return utility(glp_get_obj_val(lp));
  }
#  endif
};

}  // namespace

TEST_CASE("the linear program lies between bound and whole copies, and on the bound where capacities are whole") {
  int optimal = 0, infeasible = 0, fractions_only = 0, priced = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    auto const draw = [&](std::uint64_t i) { return static_cast<double>(fl::philox::uniform(seed, 6, i)); };
    auto const servers = static_cast<index_t>(1.0 + 6.0 * draw(0));
    auto const fan_out = static_cast<index_t>(1.0 + std::min(3.0, static_cast<double>(servers)) * draw(1));
    auto const tokens = static_cast<index_t>(1.0 + 40.0 * draw(2));
    auto const slots_count = static_cast<index_t>(1.0 + 4.0 * draw(3));
    double const gate = seed % 9 == 0 ? 0.0 : 5.0 * draw(4);
    bool const whole = seed % 2 == 0;
    double const spread = seed % 5 == 0 ? 1.0 : 1.6;  // mostly just enough room
    std::vector<double> rates;
    for (std::uint64_t j = 0; j < static_cast<std::uint64_t>(servers); ++j) {
      double const fair = static_cast<double>(tokens * fan_out) / static_cast<double>(servers * slots_count);
      double const rate = fair * (0.5 + spread * draw(10 + j)) + 0.01;
      rates.push_back(whole ? std::ceil(rate) : rate);
    }
    fl::matrix<float> const scores = slots::softmax_scores(tokens, servers, 1.0, seed, 0);
    shares_program program{scores.view(), rates, slots_count, fan_out, gate};
    for (double& own : program.capacity) { own *= static_cast<double>(slots_count); }

    fl::utility_bound const bound;
    std::vector<double> prices(rates.size());
    fl::arena<> memory(bound.workspace_bytes(tokens, servers, fan_out));
    fl::workspace ws = memory.view();
    auto const report = bound.solve(fl::serial{}, scores.view(), slots_count, fl::unmetered(rates), fan_out, {.gate = gate}, ws, prices);
    auto const check = [&](char const* solver, std::optional<double> best) {
      INFO(solver << ", seed " << seed << ", " << tokens << " tokens, " << servers << " servers, fan_out " << fan_out);
      REQUIRE(best.has_value() == (report.status == fl::status::ok));
      if (!best) {
        ++infeasible;
        return;
      }
      double const rounding = 1e-7 * (1.0 + report.bound);
      CHECK(*best <= report.bound + rounding);
      CHECK(*best >= report.value - rounding);
      if (whole) { CHECK(*best == Approx(report.bound)); }
      ++optimal;
      fractions_only += std::isfinite(report.value) ? 0 : 1;
      priced += std::any_of(prices.begin(), prices.end(), [](double own) { return own > 0.0; }) ? 1 : 0;
    };
#  if defined(FAIRLEAD_BENCH_CLP)
    check("Clp", program.by_clp());
#  endif
#  if defined(FAIRLEAD_BENCH_GLPK)
    check("GLPK", program.by_glpk());
#  endif
  }
  CHECK(optimal >= 120);
  CHECK(infeasible >= 10);
  CHECK(fractions_only >= 3);
  CHECK(priced >= 60);
}

#else

TEST_CASE("the linear program of the bound is not compared") { std::puts("no LP solver"); }

#endif
