// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The body of `laws::check_assignment_solver`: one class that knows solver, backends and options.
#include <fairlead/concepts/assignment_solver.hpp>
#include <fairlead/core/bfloat16.hpp>
#include <fairlead/core/buffer.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/laws/detail/assignment_oracle.hpp>
#include <fairlead/laws/verdict.hpp>
#include <fairlead/workload/adversarial_scores.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws::detail {

/// A matrix that can be copied.
template <class Value>
class table {
 public:
  table() = default;
  table(index_t rows, index_t cols) : values_(static_cast<std::size_t>(rows * cols)), rows_(rows), cols_(cols) {}
  [[nodiscard]] index_t rows() const { return rows_; }
  [[nodiscard]] index_t cols() const { return cols_; }
  [[nodiscard]] Value& operator()(index_t row, index_t col) { return values_[static_cast<std::size_t>(row * cols_ + col)]; }
  [[nodiscard]] Value operator()(index_t row, index_t col) const { return values_[static_cast<std::size_t>(row * cols_ + col)]; }
  [[nodiscard]] std::vector<Value>& span() { return values_; }
  [[nodiscard]] std::vector<Value> const& span() const { return values_; }
  [[nodiscard]] matrix_view<Value const> view() const { return {values_.data(), rows_, cols_}; }

 private:
  std::vector<Value> values_;
  index_t rows_ = 0;
  index_t cols_ = 0;
};

/// A problem that owns its numbers.
template <class Score>
struct owned_problem {
  std::string name;
  table<Score> scores;
  index_t fan_out = 1;
  std::vector<index_t> lower, upper;
  std::vector<std::uint8_t> mask;
  std::vector<double> warm;

  [[nodiscard]] assignment_problem<Score> view() const {
    return {.scores = scores.view(), .fan_out = fan_out, .lower = lower, .upper = upper, .token_mask = mask,
            .warm_prices = warm};
  }
  [[nodiscard]] index_t valid() const { return view().valid_tokens(); }
};

struct solved {
  assignment_report report;
  table<expert_id> owner;
  std::vector<double> prices;
  bool inside = true;  // nothing outside of owner, prices and scratch was written
};

template <class Solver, class Backend, class Other, class Options>
class assignment_examiner {
 public:
  assignment_examiner(Solver const& solver, Options const& options, Backend const& on, Other const& other)
      : solver_(solver), options_(options), on_(on), other_(other) {}

  [[nodiscard]] verdict check() const {
    try {
      if (verdict v = small_problems(); !v) { return v; }
      if (verdict v = catalogue(); !v) { return v; }
      if constexpr (exact_solver<Solver>) {
        if (verdict v = invariances(); !v) { return v; }
      }
      return narrow_scores();
    } catch (contract_violation const& violation) {
      return verdict::broken("assignment_solver: legal input is accepted and workspace_bytes() suffices: ",
                             violation.what());
    }
  }

 private:
  [[nodiscard]] std::uint32_t word(std::uint64_t stream, std::uint64_t index) const {
    return philox::draw(options_.seed, stream, index)[0];
  }
  [[nodiscard]] index_t below(std::uint64_t stream, std::uint64_t index, index_t bound) const {
    return static_cast<index_t>(philox::below(word(stream, index), static_cast<std::uint32_t>(bound)));
  }

  template <class Where, class Score>
  [[nodiscard]] solved solve(Where const& on, owned_problem<Score> const& input, std::byte old, index_t extra) const {
    constexpr std::size_t guard = 256;
    assignment_problem<Score> const problem = input.view();
    std::size_t const bytes = solver_.workspace_bytes(problem.tokens(), problem.experts(), problem.fan_out);
    buffer<std::byte> memory(static_cast<index_t>(bytes + guard));
    std::fill(memory.span().begin(), memory.span().end(), old);
    index_t const columns = problem.fan_out;
    table<expert_id> wide(problem.tokens(), columns + extra);
    std::fill(wide.span().begin(), wide.span().end(), static_cast<expert_id>(-9));
    std::vector<double> prices(static_cast<std::size_t>(problem.experts()) + 2, 12345.0);
    solved answer;
    workspace ws(memory.span().first(bytes));
    answer.report = solver_.solve(
        on, problem,
        assignment_result{matrix_view<expert_id>(wide.span().data(), problem.tokens(), columns, columns + extra),
                          std::span<double>(prices).first(static_cast<std::size_t>(problem.experts()))},
        ws);
    answer.inside = ws.used() == 0 && prices[prices.size() - 1] == 12345.0 && prices[prices.size() - 2] == 12345.0;
    for (std::byte const b : memory.span().subspan(bytes)) { answer.inside = answer.inside && b == old; }
    prices.resize(prices.size() - 2);
    answer.prices = prices;
    answer.owner = table<expert_id>(problem.tokens(), columns);
    for (index_t t = 0; t < problem.tokens(); ++t) {
      for (index_t j = 0; j < columns + extra; ++j) {
        if (j < columns) {
          answer.owner(t, j) = wide(t, j);
        } else {
          answer.inside = answer.inside && wide(t, j) == static_cast<expert_id>(-9);
        }
      }
    }
    return answer;
  }

  /// Solve twice and look at everything that one problem can tell.
  /// @param found the answer, if wanted
  template <class Score>
  [[nodiscard]] verdict examine(owned_problem<Score> const& input, bool try_all, solved* found = nullptr) const {
    assignment_problem<Score> const problem = input.view();
    auto const broken = [&](auto const&... parts) {
      return verdict::broken("assignment_solver: ", parts..., " (", input.name, ", ", problem.tokens(), " tokens, ",
                             problem.experts(), " experts, fan-out ", problem.fan_out, ", seed ", options_.seed, ")");
    };
    solved const first = solve(on_, input, std::byte{0}, 3);
    solved const second = solve(other_, input, std::byte{0x5A}, 0);
    if (found != nullptr) { *found = first; }
    if (!first.inside || !second.inside) {
      return broken("only owners, prices and scratch are written, and scratch is given back");
    }
    if (!same(first, second)) { return broken("equal problems give equal results on any backend, whatever memory held"); }
    if (first.report.status == status::unsupported || !supported(problem)) {
      if (supported(problem)) { return broken("what the solver states it solves is not refused"); }
      if (first.report.status != status::unsupported) { return broken("what the solver does not state is refused"); }
      return owns_nothing(first) ? verdict{} : broken("owners are none when a problem is refused");
    }
    if (first.report.status == status::infeasible) {
      if (assignment_exists(problem)) { return broken("infeasible is reported only where no assignment exists"); }
      return owns_nothing(first) ? verdict{} : broken("owners are none when no assignment exists");
    }
    if (first.report.status == status::lost_expert) { return broken("a solver has no experts to lose"); }
    if (exact_solver<Solver> && first.report.status != status::ok) {
      return broken("an exact solver ends well or says that no assignment exists");
    }
    return complete(problem, first, try_all, broken);
  }

  template <class Score, class Broken>
  [[nodiscard]] verdict complete(assignment_problem<Score> const& problem, solved const& answer, bool try_all,
                                 Broken const& broken) const {
    auto const experts = static_cast<std::size_t>(problem.experts());
    std::vector<index_t> load(experts, 0);
    std::vector<double> const no_prices(experts, 0.0);
    std::span<double const> const prices = has_prices<Solver> ? answer.prices : no_prices;
    double largest = 0.0;  // of everything that takes part in a sum: what rounding is relative to
    for (double const price : prices) {
      if (!std::isfinite(price)) { return broken("prices are finite, one is ", price); }
      largest = std::max(largest, std::fabs(price));
    }
    for (index_t t = 0; t < problem.tokens(); ++t) {
      for (index_t e = 0; e < problem.experts() && is_valid(problem, t); ++e) {
        double const score = pair_value(problem.scores(t, e));
        if (score > no_value) { largest = std::max(largest, std::fabs(score)); }
      }
    }
    double const one = options_.tolerance * largest;
    double const all = one * static_cast<double>(std::max<index_t>(1, problem.valid_tokens() * problem.fan_out));
    double value = 0.0;
    for (index_t t = 0; t < problem.tokens(); ++t) {
      double before = std::numeric_limits<double>::infinity();
      for (index_t j = 0; j < problem.fan_out; ++j) {
        expert_id const mine = answer.owner(t, j);
        if (!is_valid(problem, t)) {
          if (mine != expert_id::none) { return broken("a masked token takes no expert"); }
          continue;
        }
        if (to_index(mine) < 0 || to_index(mine) >= problem.experts()) {
          return broken("each valid token takes fan_out experts that exist: token ", t, " has ", to_index(mine));
        }
        auto const e = static_cast<std::size_t>(mine);
        double const score = pair_value(problem.scores(t, to_index(mine)));
        if (!(score > no_value)) { return broken("no forbidden pair is used: token ", t, ", expert ", e); }
        for (index_t i = 0; i < j; ++i) {
          if (answer.owner(t, i) == mine) { return broken("a token takes an expert once: token ", t, ", expert ", e); }
        }
        double const key = score - prices[e];
        if (key > before + one || (key == before && answer.owner(t, j - 1) > mine)) {
          return broken("the experts of a token descend by score - price, then ascend by id: token ", t);
        }
        before = key;
        value += score;
        ++load[e];
      }
    }
    if (std::fabs(value - answer.report.value) > all) {
      return broken("the value is the sum of the assigned scores: ", value, ", reported ", answer.report.value);
    }
    if constexpr (keeps_capacity<Solver>) {
      for (std::size_t e = 0; e < experts; ++e) {
        if (load[e] < problem.lower[e] || load[e] > problem.upper[e]) {
          return broken("capacities are kept: expert ", e, " has ", load[e], " copies");
        }
      }
      if (try_all) {
        double const best = best_assignment(problem);
        if (value > best + all) { return broken("the oracle finds the best value: ", best, ", reported ", value); }
        if (exact_solver<Solver> && value < best - all) {
          return broken("an exact solver finds the best value ", best, ", not ", value);
        }
      }
    }
    if (!(answer.report.bound >= value - all)) {
      return broken("the bound is at least the value: ", answer.report.bound, " < ", value);
    }
    if constexpr (has_prices<Solver>) {
      double const dual = dual_value(problem, prices);
      if (!(std::fabs(answer.report.bound - dual) <= all + one * static_cast<double>(experts))) {
        return broken("the bound is the dual function at the prices: ", dual, ", reported ", answer.report.bound);
      }
    }
    if constexpr (exact_solver<Solver> && has_prices<Solver>) { return slackness(problem, answer, load, one, all, broken); }
    return {};
  }

  /// Complementary slackness: what prices of an optimum must look like.
  template <class Score, class Broken>
  [[nodiscard]] verdict slackness(assignment_problem<Score> const& problem, solved const& answer,
                                  std::vector<index_t> const& load, double one, double all,
                                  Broken const& broken) const {
    if (std::fabs(answer.report.bound - answer.report.value) > all) {
      return broken("the bound proves an exact value: ", answer.report.value, ", bound higher by ",
                    answer.report.bound - answer.report.value);
    }
    for (index_t t = 0; t < problem.tokens(); ++t) {
      if (!is_valid(problem, t) || problem.fan_out == 0) { continue; }
      double worst = std::numeric_limits<double>::infinity();
      std::vector<char> held(load.size(), 0);
      for (index_t j = 0; j < problem.fan_out; ++j) {
        auto const e = static_cast<std::size_t>(answer.owner(t, j));
        held[e] = 1;
        worst = std::min(worst, pair_value(problem.scores(t, static_cast<index_t>(e))) - answer.prices[e]);
      }
      for (std::size_t e = 0; e < load.size(); ++e) {
        if (held[e] == 0 && pair_value(problem.scores(t, static_cast<index_t>(e))) - answer.prices[e] > worst + all) {
          return broken("every token has its best experts by score - price: token ", t, " would rather have ", e);
        }
      }
    }
    for (std::size_t e = 0; e < load.size(); ++e) {
      bool const equality = problem.lower[e] == problem.upper[e];
      if (!equality && ((answer.prices[e] > one && load[e] < std::min(problem.upper[e], problem.valid_tokens())) ||
                        (answer.prices[e] < -one && load[e] > problem.lower[e]))) {
        return broken("a price above 0 belongs to a full expert, one below 0 to an expert at its lower capacity: ", e);
      }
    }
    return {};
  }

  template <class Score>
  [[nodiscard]] static bool supported(assignment_problem<Score> const& problem) {
    if (problem.fan_out > 1 && !solves_fan_out<Solver>) { return false; }
    if (!problem.equality() && !solves_bounds<Solver>) { return false; }
    if (solves_forbidden<Solver>) { return true; }
    for (index_t t = 0; t < problem.tokens(); ++t) {
      for (index_t e = 0; e < problem.experts() && is_valid(problem, t); ++e) {
        if (!(pair_value(problem.scores(t, e)) > no_value)) { return false; }
      }
    }
    return true;
  }
  [[nodiscard]] static bool owns_nothing(solved const& answer) {
    return std::all_of(answer.owner.span().begin(), answer.owner.span().end(),
                       [](expert_id e) { return e == expert_id::none; });
  }
  [[nodiscard]] static bool same_bits(double a, double b) {
    return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);
  }
  [[nodiscard]] static bool same(solved const& a, solved const& b) {
    bool equal = a.report.status == b.report.status && same_bits(a.report.value, b.report.value) &&
                 same_bits(a.report.bound, b.report.bound) &&
                 std::equal(a.owner.span().begin(), a.owner.span().end(), b.owner.span().begin());
    bool const answered = a.report.status != status::unsupported && a.report.status != status::infeasible;
    for (std::size_t e = 0; has_prices<Solver> && answered && e < a.prices.size(); ++e) {
      equal = equal && same_bits(a.prices[e], b.prices[e]);
    }
    return equal;
  }

  [[nodiscard]] owned_problem<float> draw(std::uint64_t number, index_t tokens, index_t experts, index_t fan_out,
                                          workload::adversarial pattern) const {
    owned_problem<float> made;
    made.name = std::string(workload::name(pattern)) + ", case " + std::to_string(number);
    matrix<float> const drawn = workload::adversarial_scores{tokens, experts, pattern, options_.seed + number}.make();
    made.scores = table<float>(tokens, experts);
    std::copy(drawn.span().begin(), drawn.span().end(), made.scores.span().begin());
    made.fan_out = fan_out;
    return made;
  }

  /// Give a problem its mask and capacities: kinds by turns.
  template <class Score>
  void limit(owned_problem<Score>& made, std::uint64_t number, index_t mask_kind, index_t capacity_kind) const {
    auto const tokens = static_cast<std::size_t>(made.scores.rows());
    auto const experts = static_cast<std::size_t>(made.scores.cols());
    if (mask_kind != 0) { made.mask.assign(tokens, 1); }
    for (std::size_t t = 0; t < tokens; ++t) {
      if ((mask_kind == 1 && t % 3 == 1) || (mask_kind == 2 && 2 * t < tokens) || mask_kind == 3) { made.mask[t] = 0; }
    }
    index_t const valid = made.valid();
    made.lower.assign(experts, 0);
    even_capacity(valid * made.fan_out, made.lower);
    made.upper = made.lower;
    auto const pick = [&](std::uint64_t index) { return static_cast<std::size_t>(below(7, 100 * number + index, static_cast<index_t>(experts))); };
    switch (capacity_kind) {
      case 1:  // the solver chooses who takes one more
        for (std::size_t e = 0; e < experts; ++e) {
          made.lower[e] = valid * made.fan_out / static_cast<index_t>(experts);
          made.upper[e] = made.lower[e] + (valid * made.fan_out % static_cast<index_t>(experts) != 0 ? 1 : 0);
        }
        break;
      case 2:  // room, and a minimum for one
        for (std::size_t e = 0; e < experts; ++e) {
          made.upper[e] += 1 + static_cast<index_t>(e % 2);
          made.lower[e] = 0;
        }
        made.lower[pick(1)] = std::min<index_t>(1, valid);
        break;
      case 3: {  // unequal equalities, often an expert with nothing
        for (std::uint64_t i = 0; i < 2 * experts; ++i) {
          std::size_t const from = pick(2 * i + 2);
          std::size_t const to = pick(2 * i + 3);
          if (made.upper[from] > 0 && made.upper[to] < valid) {
            --made.upper[from];
            ++made.upper[to];
          }
        }
        made.lower = made.upper;
        break;
      }
      case 4:  // never enough, or too much to fill
        if (number % 2 == 0) {
          made.upper[pick(1)] += 1;
          made.lower = made.upper;
        } else {
          std::size_t const e = pick(1);
          made.upper[e] = std::max<index_t>(0, made.upper[e] - 1);
          made.lower[e] = std::min(made.lower[e], made.upper[e]);
        }
        break;
      case 5:  // more room than there are tokens
        for (std::size_t e = 0; e < experts; ++e) {
          made.lower[e] = 0;
          made.upper[e] = valid + 1000000;
        }
        break;
      default: break;
    }
  }

  /// Small problems, each against all load vectors: ties, forbidden pairs, masks, all kinds of capacities.
  [[nodiscard]] verdict small_problems() const {
    for (int i = 0; i < options_.cases; ++i) {
      auto const number = static_cast<std::uint64_t>(i);
      index_t const experts = 1 + below(1, number, 4);
      index_t const tokens = below(2, number, 8);
      index_t const fan_out = i % 3 == 0 ? 1 : below(3, number, experts + 1);
      owned_problem<float> made = draw(number, tokens, experts, fan_out, workload::adversarial::bfloat16_quantised);
      made.name = "small case " + std::to_string(i);
      for (std::size_t j = 0; j < made.scores.span().size(); ++j) {
        float& score = made.scores.span()[j];
        if (i % 4 == 1) { score = std::round(2.0F * score); }  // ties
        if (i % 5 >= 3 && below(4, 100 * number + j, 5) == 0) {
          score = j % 2 == 0 ? -std::numeric_limits<float>::infinity() : std::numeric_limits<float>::quiet_NaN();
        }
      }
      limit(made, number, i % 4 == 3 ? 1 : 0, below(5, number, 6));
      if (i % 6 == 5) {
        for (index_t e = 0; e < experts; ++e) {
          made.warm.push_back(4.0 * philox::normal(options_.seed, 900 + number, static_cast<std::uint64_t>(e)));
        }
      }
      if (verdict v = examine(made, true); !v) { return v; }
    }
    return {};
  }

  /// The adversarial catalogue at awkward sizes.
  [[nodiscard]] verdict catalogue() const {
    index_t const n = options_.experts;
    std::array<std::array<index_t, 3>, 14> const shapes = {{{0, n, 1}, {1, n, 1}, {n - 1, n, 1}, {n, n, 1}, {n + 1, n, 2},
                                                            {options_.tokens, n, 1}, {options_.tokens, n, 2},
                                                            {options_.tokens + 1, n, n}, {options_.tokens, 1, 1},
                                                            {options_.tokens, 2, 1}, {61, 3, 2}, {options_.tokens, n, 0},
                                                            {0, 1, 1}, {17, n, 1}}};
    std::uint64_t number = 1000;
    for (workload::adversarial const pattern : workload::all_adversarial) {
      for (auto const& shape : shapes) {
        ++number;
        index_t const tokens = std::max<index_t>(0, shape[0]);
        owned_problem<float> made = draw(number, tokens, shape[1], std::min(shape[2], shape[1]), pattern);
        index_t const mask_kind = number % 4 != 3 ? 0 : below(5, number, 4);
        limit(made, number, mask_kind, number % 2 == 0 ? 0 : below(6, number, 6));
        if (number % 7 == 0) { made.warm.assign(static_cast<std::size_t>(shape[1]), 0.0); }
        for (std::size_t e = 0; e < made.warm.size(); ++e) {
          made.warm[e] = (number % 2 == 0 ? 1.0 : 1e6) * philox::normal(options_.seed, 901 + number, e);
        }
        if (verdict v = examine(made, false); !v) { return v; }
      }
    }
    return {};
  }

  [[nodiscard]] verdict expect_value(owned_problem<float> const& made, double expected, double scale,
                                     char const* law) const {
    solved answer;
    if (verdict v = examine(made, false, &answer); !v) { return v; }
    double const tolerance = options_.tolerance * scale * static_cast<double>(made.scores.span().size() + 1);
    if (answer.report.status != status::ok || std::fabs(answer.report.value - expected) > tolerance) {
      return verdict::broken("assignment_solver: ", law, ": value ", answer.report.value, ", expected ", expected, " (",
                             made.name, ", ", made.scores.rows(), " tokens, ", made.scores.cols(), " experts, fan-out ",
                             made.fan_out, ", seed ", options_.seed, ")");
    }
    return {};
  }

  /// What must not change the value of an exact solver, or changes it in a known way.
  [[nodiscard]] verdict invariances() const {
    for (std::uint64_t number = 1; number <= 12; ++number) {
      index_t const tokens = options_.tokens;
      index_t const experts = options_.experts;
      index_t const fan_out = number % 3 == 0 && solves_fan_out<Solver> ? std::min<index_t>(2, experts) : 1;
      auto const pattern = number % 4 == 1   ? workload::adversarial::sixteen_levels
                           : number % 4 == 2 ? workload::adversarial::duplicate_rows
                                             : workload::adversarial::bfloat16_quantised;
      owned_problem<float> made = draw(2000 + number, tokens, experts, fan_out, pattern);
      for (float& score : made.scores.span()) { score = std::round(256.0F * score) / 256.0F; }  // sums stay exact
      bool const equality = !solves_bounds<Solver> || number % 2 == 0;
      limit(made, number, 0, equality ? 0 : 1);
      solved answer;
      if (verdict v = examine(made, false, &answer); !v) { return v; }
      double const value = answer.report.value;
      auto const copies = static_cast<double>(tokens * fan_out);

      owned_problem<float> changed = made;
      double shift = 0.0;
      for (index_t t = 0; t < tokens; ++t) {
        float const constant = static_cast<float>(below(8, 1000 * number + static_cast<std::uint64_t>(t), 64)) / 4.0F;
        shift += static_cast<double>(constant) * static_cast<double>(fan_out);
        for (index_t e = 0; e < experts; ++e) { changed.scores(t, e) += constant; }
      }
      if (verdict v = expect_value(changed, value + shift, 32.0, "a constant on a row moves the value by itself"); !v) { return v; }
      if (equality) {
        changed = made;
        shift = 0.0;
        for (index_t e = 0; e < experts; ++e) {
          float const constant = static_cast<float>(e % 5) - 2.0F;
          shift += static_cast<double>(constant) * static_cast<double>(made.upper[static_cast<std::size_t>(e)]);
          for (index_t t = 0; t < tokens; ++t) { changed.scores(t, e) += constant; }
        }
        if (verdict v = expect_value(changed, value + shift, 32.0, "a constant on a column moves the value by itself"); !v) { return v; }
      }
      changed = made;
      for (float& score : changed.scores.span()) { score *= 8.0F; }
      if (verdict v = expect_value(changed, 8.0 * value, 64.0, "a positive factor scales the value"); !v) { return v; }
      changed = made;
      for (index_t t = 0; t < tokens; ++t) {  // a permutation: reversal, then a rotation
        index_t const from = (2 * tokens - 1 - t + static_cast<index_t>(number)) % tokens;
        for (index_t e = 0; e < experts; ++e) { changed.scores(t, e) = made.scores(from, e); }
      }
      if (verdict v = expect_value(changed, value, 8.0, "the order of the tokens does not change the value"); !v) { return v; }
      for (double const size : {0.1, 10.0, 1e6}) {
        changed = made;
        for (index_t e = 0; e < experts; ++e) {
          changed.warm.push_back(size * philox::normal(options_.seed, 902 + number, static_cast<std::uint64_t>(e)));
        }
        if (verdict v = expect_value(changed, value, 8.0 + copies / 1e3, "warm prices do not change the value"); !v) { return v; }
      }
      if constexpr (has_prices<Solver>) {
        changed = made;
        changed.warm = answer.prices;
        if (verdict v = expect_value(changed, value, 8.0, "solving again from the returned prices gives the value"); !v) { return v; }
      }
    }
    return {};
  }

  /// bfloat16 scores are read as the numbers that they are.
  [[nodiscard]] verdict narrow_scores() const {
    if constexpr (assignment_solver_on<Solver, Backend, bfloat16> && assignment_solver_on<Solver, Other, bfloat16>) {
      for (std::uint64_t number = 1; number <= 8; ++number) {
        owned_problem<float> wide = draw(3000 + number, number % 2 == 0 ? 6 : options_.tokens, number % 2 == 0 ? 3 : options_.experts,
                                         1, number % 3 == 0 ? workload::adversarial::positive_infinity
                                                            : workload::adversarial::bfloat16_quantised);
        for (float& score : wide.scores.span()) { score = bfloat16(score); }
        limit(wide, number, 0, 0);
        owned_problem<bfloat16> narrow;
        narrow.name = "bfloat16, " + wide.name;
        narrow.scores = table<bfloat16>(wide.scores.rows(), wide.scores.cols());
        for (std::size_t i = 0; i < narrow.scores.span().size(); ++i) {
          narrow.scores.span()[i] = bfloat16(wide.scores.span()[i]);
        }
        narrow.fan_out = wide.fan_out;
        narrow.lower = wide.lower;
        narrow.upper = wide.upper;
        solved answer;
        if (verdict v = examine(narrow, number % 2 == 0, &answer); !v) { return v; }
        if (number % 3 == 0) { continue; }  // +inf counts as the largest number of its own type
        solved const reference = solve(on_, wide, std::byte{0}, 0);
        if (!same(answer, reference)) {
          return verdict::broken("assignment_solver: equal numbers give equal results in float and bfloat16 (seed ",
                                 options_.seed, ")");
        }
      }
    }
    return {};
  }

  Solver const& solver_;
  Options const& options_;
  Backend const& on_;
  Other const& other_;
};

}  // namespace laws::detail
FAIRLEAD_NAMESPACE_END
