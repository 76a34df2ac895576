// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Peers: the choice of servers under convex costs as a linear program in Clp, and as a binary program in GLPK.
///
/// x(t, j) in [0, 1] says whether token t takes server j, y(j, n) whether server j gets its n-th copy; a token's x sum to
/// fan_out, a server's x to its y. GLPK solves the relaxation and then branches over binary x, as a mixed-integer solver is
/// used where it is not known that the corners are integral. The costs are steps: the speeds are inside them.
/// Clp 1.17 (Debian: coinor-libclp-dev), GLPK 5.0 (libglpk-dev), each where it is found. Building the program is not counted.
#include <fairlead/core/matrix_view.hpp>

#include <memory>
#include <vector>

#if defined(FAIRLEAD_BENCH_CLP)
#  include <coin/ClpSimplex.hpp>
#  include <coin/CoinPackedMatrix.hpp>
#endif
#if defined(FAIRLEAD_BENCH_GLPK)
#  include <glpk.h>
#endif

namespace fl_bench {

/// The program, column by column.
struct choice_program {
  using index_t = fairlead::index_t;

  /// @param scores of (token, server)
  /// @param fan_out_ servers a token
  /// @param scale what a score is worth
  /// @param cost marginal costs, called with (server, copies)
  template <class Cost>
  choice_program(fairlead::matrix_view<float const> scores, index_t fan_out_, double scale, Cost const& cost)
      : tokens(static_cast<int>(scores.rows())), servers(static_cast<int>(scores.cols())), fan_out(static_cast<double>(fan_out_)) {
    for (int t = 0; t < tokens; ++t) {
      for (int j = 0; j < servers; ++j) {
        costs.push_back(-scale * static_cast<double>(scores(t, j)));
        put(t, 1.0);
        put(tokens + j, 1.0);
      }
    }
    for (int j = 0; j < servers; ++j) {
      for (int n = 0; n < tokens; ++n) {
        costs.push_back(cost(j, n));
        put(tokens + j, -1.0);
      }
    }
    low.resize(costs.size(), 0.0);
    high.resize(costs.size(), 1.0);
    sums.resize(static_cast<std::size_t>(tokens), fan_out);
    sums.resize(static_cast<std::size_t>(tokens + servers), 0.0);
  }
  /// @returns number of columns
  [[nodiscard]] int columns() const { return static_cast<int>(costs.size()); }

  int tokens;                  ///< tokens
  int servers;                 ///< servers
  double fan_out;              ///< servers a token
  std::vector<double> costs;   ///< of the columns: x by token, then y by server
  std::vector<int> row;        ///< of each coefficient
  std::vector<int> column;     ///< of each coefficient
  std::vector<double> factor;  ///< coefficients
  std::vector<double> low;     ///< least value of the columns
  std::vector<double> high;    ///< largest value of the columns
  std::vector<double> sums;    ///< right-hand side of the rows

 private:
  void put(int at, double value) {
    row.push_back(at);
    column.push_back(columns() - 1);
    factor.push_back(value);
  }
};

#if defined(FAIRLEAD_BENCH_CLP)
/// The linear program in Clp, dual simplex.
class clp_convex_choice {
 public:
  /// @param program the program
  explicit clp_convex_choice(choice_program const& program) {
    CoinPackedMatrix const matrix(true, program.row.data(), program.column.data(), program.factor.data(),
                                  static_cast<CoinBigIndex>(program.factor.size()));
    model_.setLogLevel(0);
    model_.loadProblem(matrix, program.low.data(), program.high.data(), program.costs.data(), program.sums.data(), program.sums.data());
  }
  /// @returns whether an optimum was found
  bool solve() {
    model_.dual();
    return model_.isProvenOptimal();
  }
  /// @returns the optimum
  [[nodiscard]] double value() const { return model_.objectiveValue(); }

 private:
  ClpSimplex model_;
};
#endif

#if defined(FAIRLEAD_BENCH_GLPK)
/// The binary program in GLPK: relaxation by the simplex method, then branch and bound.
class glpk_convex_choice {
 public:
  /// @param program the program
  explicit glpk_convex_choice(choice_program const& program) : problem_(glp_create_prob(), glp_delete_prob) {
    glp_prob* const lp = problem_.get();
    glp_term_out(GLP_OFF);
    glp_set_obj_dir(lp, GLP_MIN);
    glp_add_rows(lp, program.tokens + program.servers);
    glp_add_cols(lp, program.columns());
    for (int r = 1; r <= program.tokens + program.servers; ++r) {
      double const sum = program.sums[static_cast<std::size_t>(r - 1)];
      glp_set_row_bnds(lp, r, GLP_FX, sum, sum);
    }
    for (int c = 1; c <= program.columns(); ++c) {
      glp_set_obj_coef(lp, c, program.costs[static_cast<std::size_t>(c - 1)]);
      if (c <= program.tokens * program.servers) {
        glp_set_col_kind(lp, c, GLP_BV);
      } else {
        glp_set_col_bnds(lp, c, GLP_DB, 0.0, 1.0);
      }
    }
    std::vector<int> rows(1, 0), columns(1, 0);
    std::vector<double> values(1, 0.0);
    for (std::size_t i = 0; i < program.factor.size(); ++i) {
      rows.push_back(program.row[i] + 1);
      columns.push_back(program.column[i] + 1);
      values.push_back(program.factor[i]);
    }
    glp_load_matrix(lp, static_cast<int>(program.factor.size()), rows.data(), columns.data(), values.data());
    glp_init_smcp(&simplex_);
    simplex_.msg_lev = GLP_MSG_OFF;
    glp_init_iocp(&search_);
    search_.msg_lev = GLP_MSG_OFF;
    glp_adv_basis(lp, 0);
  }
  /// @returns whether an optimum was found
  bool solve() {
    return glp_simplex(problem_.get(), &simplex_) == 0 && glp_intopt(problem_.get(), &search_) == 0 &&
           glp_mip_status(problem_.get()) == GLP_OPT;
  }
  /// @returns the optimum
  [[nodiscard]] double value() const { return glp_mip_obj_val(problem_.get()); }

 private:
  std::unique_ptr<glp_prob, void (*)(glp_prob*)> problem_;
  glp_smcp simplex_{};
  glp_iocp search_{};
};
#endif

}  // namespace fl_bench
