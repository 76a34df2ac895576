// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// One test body of the distributed solver for every kind of rank: threads, processes. Every rank makes the whole
// problem from its seed, solves its own rows, and compares with what one rank and exhaustive search say of the whole.
#include <fairlead/assign/distributed_flow.hpp>
#include <fairlead/comm/alone.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/workload/adversarial_scores.hpp>
#include <fairlead/workload/assignment_scores.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace distributed_tests {

namespace fl = fairlead;
namespace wl = fairlead::workload;
using fl::index_t;

inline constexpr float forbidden = -std::numeric_limits<float>::infinity();

struct outcome {
  int passed = 0;
  std::vector<std::string> failures;
  void note(std::string const& name, std::string const& fault) {
    fault.empty() ? static_cast<void>(++passed) : failures.push_back(name + ": " + fault);
  }
};

// A whole problem, known to every rank.
struct whole {
  fl::matrix<float> scores;
  index_t fan_out = 1;
  std::vector<index_t> lower, upper;
  std::vector<std::uint8_t> mask;
  std::vector<double> warm;
  // How rows are spread: 0 evenly, 1 raggedly with a rank that has none, 2 all on the last rank.
  int spread = 0;

  [[nodiscard]] index_t first_row(index_t rank, index_t ranks) const {
    index_t const rows = scores.rows();
    if (rank == ranks) { return rows; }
    if (spread == 1) { return rank == 0 ? 0 : rank == 1 ? rows / 5 : rank == 2 ? rows / 5 : rows * rank / (ranks + 1); }
    if (spread == 2) { return 0; }
    return rows * rank / ranks;
  }
};

struct answer {
  fl::distributed_assignment_report report;
  std::vector<fl::expert_id> owner;
  std::vector<double> prices;
};

template <class Comm, class Score>
answer solve_as(Comm& comm, fl::matrix_view<Score const> scores, whole const& of, index_t first,
                fl::distributed_flow const& solver) {
  auto const experts = static_cast<std::size_t>(of.scores.cols());
  index_t const rows = scores.rows();
  answer found;
  found.owner.assign(static_cast<std::size_t>(rows * of.fan_out), static_cast<fl::expert_id>(-7));
  found.prices.resize(experts);
  fl::arena<> memory(solver.workspace_bytes(rows, of.scores.cols(), of.fan_out, comm.size()));
  fl::workspace ws = memory.view();
  std::span<std::uint8_t const> mask;
  if (!of.mask.empty()) {
    mask = std::span(of.mask).subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(rows));
  }
  fl::assignment_problem<Score> const problem{.scores = scores, .fan_out = of.fan_out, .lower = of.lower,
                                              .upper = of.upper, .token_mask = mask, .warm_prices = of.warm};
  found.report = solver.solve(fl::serial{}, comm, problem,
                              {.owner = {found.owner.data(), rows, of.fan_out}, .prices = found.prices}, ws);
  return found;
}

// Value of an answer to the whole problem, or why it is none.
inline std::string judge(whole const& of, answer const& found, double& value) {
  value = 0.0;
  std::vector<index_t> load(of.lower.size());
  for (index_t t = 0; t < of.scores.rows(); ++t) {
    bool const valid = of.mask.empty() || of.mask[static_cast<std::size_t>(t)] != 0;
    auto const* const owner = found.owner.data() + t * of.fan_out;
    for (index_t j = 0; j < of.fan_out; ++j) {
      index_t const e = fl::to_index(owner[j]);
      if (!valid) {
        if (e != -1) { return "padding has an owner"; }
        continue;
      }
      if (e < 0 || e >= of.scores.cols()) { return "a token has no owner"; }
      if (!(of.scores(t, e) > forbidden)) { return "a forbidden pair"; }
      if (std::count(owner, owner + of.fan_out, owner[j]) != 1) { return "an expert twice"; }
      value += fl::assignable(of.scores(t, e));
      ++load[static_cast<std::size_t>(e)];
      if (j == 0) { continue; }
      double const last = fl::assignable(of.scores(t, fl::to_index(owner[j - 1]))) -
                          found.prices[static_cast<std::size_t>(owner[j - 1])];
      double const key = fl::assignable(of.scores(t, e)) - found.prices[static_cast<std::size_t>(e)];
      if (key > last || (key == last && owner[j] < owner[j - 1])) { return "owners are not ordered"; }
    }
  }
  for (std::size_t e = 0; e < load.size(); ++e) {
    if (load[e] < of.lower[e] || load[e] > of.upper[e]) { return "a capacity is broken"; }
  }
  return {};
}

// What the prices prove: no assignment is worth more.
inline double dual(whole const& of, std::vector<double> const& prices) {
  double bound = 0.0;
  std::vector<double> key(prices.size());
  for (index_t t = 0; t < of.scores.rows(); ++t) {
    if (!of.mask.empty() && of.mask[static_cast<std::size_t>(t)] == 0) { continue; }
    for (std::size_t e = 0; e < key.size(); ++e) {
      key[e] = fl::assignable(of.scores(t, static_cast<index_t>(e))) - prices[e];
    }
    std::sort(key.begin(), key.end(), std::greater<>{});
    for (index_t j = 0; j < of.fan_out; ++j) { bound += key[static_cast<std::size_t>(j)]; }
  }
  for (std::size_t e = 0; e < prices.size(); ++e) {
    bound += prices[e] * static_cast<double>(prices[e] > 0.0 ? of.upper[e] : of.lower[e]);
  }
  return bound;
}

// Every rank solves its part; the parts are put together and compared with what one rank finds alone.
template <class Comm>
std::string check_parts(Comm& comm, whole const& of, fl::status expected, answer* parts = nullptr,
                        fl::distributed_flow const& solver = {}) {
  index_t const first = of.first_row(comm.rank(), comm.size());
  index_t const rows = of.first_row(comm.rank() + 1, comm.size()) - first;
  index_t const experts = of.scores.cols();
  fl::matrix_view<float const> const mine(of.scores.data() + first * experts, rows, experts);
  auto part = solve_as(comm, mine, of, first, solver);
  fl::alone one;
  auto const gathered = solve_as(one, of.scores.view(), of, 0, solver);

  // Integers, and what is decided by them, agree bit for bit; sums of doubles to rounding.
  if (part.report.status != gathered.report.status) { return "another status than one rank's"; }
  if (part.prices != gathered.prices) { return "other prices than one rank's"; }
  if (!std::equal(part.owner.begin(), part.owner.end(), gathered.owner.begin() + first * of.fan_out)) {
    return "other owners than one rank's";
  }
  if (part.report.augmentations != gathered.report.augmentations ||
      part.report.iterations != gathered.report.iterations || part.report.messages != gathered.report.messages) {
    return "another course than one rank's";
  }
  if (gathered.report.status != expected) { return "an unexpected status"; }
  if (parts != nullptr) { *parts = gathered; }
  if (expected == fl::status::infeasible) {
    bool const none = std::all_of(part.owner.begin(), part.owner.end(),
                                  [](fl::expert_id e) { return e == fl::expert_id::none; });
    return none ? "" : "owners without an assignment";
  }
  double value = 0.0;
  if (auto fault = judge(of, gathered, value); !fault.empty()) { return fault; }
  double const scale = std::max({1.0, std::fabs(value), std::fabs(part.report.bound)});
  if (std::fabs(part.report.value - value) > 1e-9 * scale) { return "a wrong value"; }
  double const bound = dual(of, part.prices);
  if (std::fabs(part.report.bound - bound) > 1e-9 * scale) { return "a bound that the prices do not prove"; }
  if (expected == fl::status::ok && bound - value > 1e-9 * scale) { return "not optimal"; }
  // A message is never longer than the stated number of rows, so that nothing of the size of the scores travels.
  index_t const longest = std::max(solver.rows_per_message, index_t{1}) * std::max<index_t>(experts, 1) + 2;
  if (part.report.message_numbers > part.report.messages * longest) { return "messages that are too long"; }
  return {};
}

inline whole make(wl::score_kind kind, index_t tokens, index_t experts, index_t fan_out, std::uint64_t seed) {
  whole made;
  made.scores = wl::assignment_scores{.tokens = tokens, .experts = experts, .kind = kind, .seed = seed}.make();
  made.fan_out = fan_out;
  made.lower.resize(static_cast<std::size_t>(experts));
  fl::even_capacity(tokens * fan_out, made.lower);
  made.upper = made.lower;
  return made;
}

inline std::uint32_t draw(std::uint64_t seed, std::uint64_t stream, std::uint64_t i, std::uint32_t bound) {
  return fl::philox::below(fl::philox::draw(seed, stream, i)[0], bound);
}

inline void loosen(whole& made, std::uint64_t seed) {
  for (std::size_t e = 0; e < made.lower.size(); ++e) {
    index_t const even = made.lower[e];
    switch (draw(seed, 50, e, 3)) {
      case 0: made.lower[e] = 0, made.upper[e] = even + even / 4 + 1; break;
      case 1: made.lower[e] = even / 2, made.upper[e] = 4 * even; break;
      default: break;
    }
  }
}

inline void forbid(whole& made, std::uint64_t seed, std::uint32_t one_in) {
  for (index_t t = 0; t < made.scores.rows(); ++t) {
    for (index_t e = 0; e < made.scores.cols(); ++e) {
      auto const at = static_cast<std::uint64_t>(t * made.scores.cols() + e);
      if (draw(seed, 60, at, one_in) == 0) { made.scores(t, e) = draw(seed, 61, at, 2) == 0 ? forbidden : NAN; }
    }
  }
}

// Best value by exhaustive search; NaN if there is no assignment.
inline void search(whole const& of, index_t token, index_t next, index_t left, std::vector<index_t>& load, double value,
                   double& best) {
  if (left == 0) { return search(of, token + 1, 0, of.fan_out, load, value, best); }
  if (token == of.scores.rows()) {
    for (std::size_t e = 0; e < load.size(); ++e) {
      if (load[e] < of.lower[e]) { return; }
    }
    best = best >= value ? best : value;
    return;
  }
  for (index_t e = next; e < of.scores.cols(); ++e) {
    auto const at = static_cast<std::size_t>(e);
    if (load[at] == of.upper[at] || !(of.scores(token, e) > forbidden)) { continue; }
    ++load[at];
    search(of, token, e + 1, left - 1, load, value + static_cast<double>(of.scores(token, e)), best);
    --load[at];
  }
}

// Random small problems: the value is that of exhaustive search, and what has no assignment is called so.
template <class Comm>
std::string small_problems(Comm& comm) {
  int feasible = 0, infeasible = 0;
  for (std::uint64_t seed = 0; seed < 150; ++seed) {
    auto const experts = static_cast<index_t>(1 + draw(seed, 1, 0, 4));
    auto const most = static_cast<std::uint32_t>(std::min<index_t>(experts, 3));
    auto const tokens = static_cast<index_t>(draw(seed, 1, 2, 7));
    auto made = make(wl::all_score_kinds[seed % wl::all_score_kinds.size()], tokens, experts,
                     static_cast<index_t>(1 + draw(seed, 1, 1, most)), seed);
    if (seed % 3 != 0) { loosen(made, seed); }
    if (seed % 4 == 1) { forbid(made, seed, 4); }
    if (seed % 5 == 2) {
      for (index_t e = 0; e < experts; ++e) {
        made.warm.push_back(static_cast<double>(draw(seed, 2, static_cast<std::uint64_t>(e), 9)) - 4.0);
      }
    }
    made.spread = static_cast<int>(seed % 3);
    double best = std::numeric_limits<double>::quiet_NaN();
    std::vector<index_t> load(made.lower.size());
    search(made, 0, 0, made.fan_out, load, 0.0, best);
    bool const exists = best == best;
    answer found;
    auto fault = check_parts(comm, made, exists ? fl::status::ok : fl::status::infeasible, &found);
    if (fault.empty() && exists && found.report.value != best) { fault = "not the best value"; }
    if (!fault.empty()) { return fault + ", seed " + std::to_string(seed); }
    ++(exists ? feasible : infeasible);
  }
  return feasible > 60 && infeasible > 10 ? "" : "too few problems of a sort";
}

// Kinds of scores at sizes where tokens compete, even, bounded, masked; warm prices change nothing but the way.
template <class Comm>
std::string kinds(Comm& comm, index_t fan_out) {
  for (auto const kind : wl::all_score_kinds) {
    std::string const what = " (" + std::string(wl::name(kind)) + ")";
    auto made = make(kind, 203, 12, fan_out, 3);
    made.spread = 1;
    answer cold;
    if (auto fault = check_parts(comm, made, fl::status::ok, &cold); !fault.empty()) { return fault + what; }
    auto warm = make(kind, 203, 12, fan_out, 3);
    warm.warm = cold.prices;
    answer again;
    if (auto fault = check_parts(comm, warm, fl::status::ok, &again); !fault.empty()) { return fault + what + " warm"; }
    if (again.report.value != cold.report.value) { return "warm prices changed the value" + what; }
    if (again.report.scans >= cold.report.scans) { return "warm prices saved nothing" + what; }
    loosen(made, 4);
    if (auto fault = check_parts(comm, made, fl::status::ok); !fault.empty()) { return fault + what + " bounds"; }
    made.mask.assign(203, 1);
    for (std::size_t t = 0; t < 200; t += 5) { made.mask[t] = 0; }
    std::fill(made.lower.begin(), made.lower.end(), 0);
    made.upper[2] = 0;
    made.upper[3] = 163 * fan_out;
    forbid(made, 5, 8);
    if (auto fault = check_parts(comm, made, fl::status::ok); !fault.empty()) { return fault + what + " masked"; }
  }
  return {};
}

template <class Comm>
std::string adversarial(Comm& comm) {
  for (auto const pattern : wl::all_adversarial) {
    std::string const what = " (" + std::string(wl::name(pattern)) + ")";
    for (index_t const fan_out : {1, 2}) {
      whole made = make(wl::score_kind::normal, 64, 6, fan_out, 1);
      made.scores = wl::adversarial_scores{.tokens = 64, .experts = 6, .pattern = pattern, .seed = 2}.make();
      made.spread = static_cast<int>(fan_out);
      // At most half more than its even share for each; tokens with no or one expert, and Hall's condition, decide.
      for (std::size_t e = 0; e < 6; ++e) { made.lower[e] = 0, made.upper[e] = 16 * fan_out; }
      bool const none = pattern == wl::adversarial::all_masked || pattern == wl::adversarial::all_nan ||
                        pattern == wl::adversarial::nan_rows ||
                        (pattern == wl::adversarial::too_few_finite && fan_out > 1);
      auto const fault = check_parts(comm, made, none ? fl::status::infeasible : fl::status::ok);
      if (!fault.empty()) { return fault + what + " k " + std::to_string(fan_out); }
    }
  }
  return {};
}

// Sizes at the edge: no tokens, fewer tokens than experts, one expert, every expert chosen.
template <class Comm>
std::string edges(Comm& comm) {
  struct shape {
    index_t tokens, experts, fan_out;
  };
  for (auto const [tokens, experts, fan_out] :
       {shape{0, 4, 1}, shape{1, 4, 1}, shape{3, 7, 1}, shape{5, 1, 1}, shape{9, 3, 3}, shape{6, 5, 0}, shape{2, 2, 2},
        shape{31, 30, 29}}) {
    for (int const spread : {0, 1, 2}) {
      auto made = make(wl::score_kind::ties, tokens, experts, fan_out, 6);
      made.spread = spread;
      if (auto fault = check_parts(comm, made, fl::status::ok); !fault.empty()) {
        return fault + ", tokens " + std::to_string(tokens) + " experts " + std::to_string(experts);
      }
    }
  }
  auto masked = make(wl::score_kind::normal, 10, 3, 1, 6);
  masked.mask.assign(10, 0);
  std::fill(masked.lower.begin(), masked.lower.end(), 0);
  if (auto fault = check_parts(comm, masked, fl::status::ok); !fault.empty()) { return fault + ", all masked"; }
  auto few = make(wl::score_kind::normal, 10, 3, 1, 6);
  few.lower[0] = few.upper[0] = 3;  // places for 9 tokens
  if (auto fault = check_parts(comm, few, fl::status::infeasible); !fault.empty()) { return fault + ", few places"; }
  auto many = make(wl::score_kind::normal, 10, 3, 1, 6);
  for (std::size_t e = 0; e < 3; ++e) { many.lower[e] = 4, many.upper[e] = std::numeric_limits<index_t>::max() / 2; }
  if (auto fault = check_parts(comm, many, fl::status::infeasible); !fault.empty()) { return fault + ", many asked"; }
  for (std::size_t e = 0; e < 3; ++e) { many.lower[e] = 0; }
  if (auto fault = check_parts(comm, many, fl::status::ok); !fault.empty()) { return fault + ", endless places"; }
  return {};
}

// When phases run out, capacities are served all the same, and the bound stays a bound.
template <class Comm>
std::string limits(Comm& comm) {
  for (auto const kind : wl::all_score_kinds) {
    for (index_t const fan_out : {1, 3}) {
      std::string const what = " (" + std::string(wl::name(kind)) + ")";
      auto made = make(kind, 150, 9, fan_out, 7);
      made.spread = 1;
      answer found, best;
      fl::distributed_flow const rushed{.start_sweeps = 0, .max_phases = 1};
      if (auto fault = check_parts(comm, made, fl::status::iteration_limit, &found, rushed); !fault.empty()) {
        return fault + what;
      }
      if (auto fault = check_parts(comm, made, fl::status::ok, &best); !fault.empty()) { return fault + what; }
      if (found.report.value > best.report.value + 1e-6) { return "better than the best" + what; }
      // One row a message is the same course with more messages.
      answer thin;
      fl::distributed_flow const narrow{.rows_per_message = 1};
      if (auto fault = check_parts(comm, made, fl::status::ok, &thin, narrow); !fault.empty()) { return fault + what; }
      if (thin.owner != best.owner || thin.report.messages <= best.report.messages) { return "not the same" + what; }
      // Forbidden pairs leave no assignment: known with and without a limit.
      for (index_t t = 0; t < 150; ++t) {
        for (index_t e = 3 * fan_out / 2 + 1; e < 9; ++e) { made.scores(t, e) = forbidden; }
      }
      for (auto const& solver : {rushed, fl::distributed_flow{}}) {
        if (auto fault = check_parts(comm, made, fl::status::infeasible, nullptr, solver); !fault.empty()) {
          return fault + what;
        }
      }
    }
  }
  return {};
}

// Scores in bfloat16 are the scores that they stand for.
template <class Comm>
std::string half_precision(Comm& comm) {
  for (index_t const fan_out : {1, 3}) {
    auto const made = make(wl::score_kind::rounded, 160, 10, fan_out, 8);
    fl::matrix<fl::bfloat16> rounded(160, 10);
    for (std::size_t i = 0; i < rounded.span().size(); ++i) { rounded.span()[i] = fl::bfloat16(made.scores.span()[i]); }
    index_t const first = made.first_row(comm.rank(), comm.size());
    index_t const rows = made.first_row(comm.rank() + 1, comm.size()) - first;
    auto const narrow = solve_as(
        comm, fl::matrix_view<fl::bfloat16 const>(rounded.data() + first * 10, rows, 10), made, first, {});
    auto const wide =
        solve_as(comm, fl::matrix_view<float const>(made.scores.data() + first * 10, rows, 10), made, first, {});
    if (narrow.owner != wide.owner || narrow.prices != wide.prices) { return "other answers"; }
  }
  return {};
}

// A rank with other capacities is noticed before it waits for messages that nobody sends.
template <class Comm>
std::string disagreement(Comm& comm) {
#if FAIRLEAD_CONTRACT_LEVEL >= 3
  if (comm.size() == 1) { return {}; }
  auto made = make(wl::score_kind::normal, 40, 4, 1, 9);
  if (comm.rank() == 0) { made.upper[1] += 1; }
  try {
    auto const part = solve_as(comm, fl::matrix_view<float const>(made.scores.data(), 10, 4), made, 0, {});
    return "not noticed";
  } catch (fl::contract_violation const&) { return {}; }
#else
  static_cast<void>(comm);
  return {};
#endif
}

inline constexpr int expected_checks = 9;

template <class Comm>
outcome run(Comm comm) {
  outcome result;
  result.note("small problems", small_problems(comm));
  result.note("kinds", kinds(comm, 1));
  result.note("kinds, two experts a token", kinds(comm, 2));
  result.note("kinds, five experts a token", kinds(comm, 5));
  result.note("adversarial scores", adversarial(comm));
  result.note("edges", edges(comm));
  result.note("limits", limits(comm));
  result.note("bfloat16", half_precision(comm));
  result.note("disagreement", disagreement(comm));
  return result;
}

}  // namespace distributed_tests
