// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/balance/load_balance_loss.hpp>
#include <fairlead/balance/sign_bias.hpp>
#include <fairlead/balance/signals.hpp>
#include <fairlead/balance/z_loss.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/laws/balance_signal.hpp>
#include <fairlead/workload/adversarial_scores.hpp>

#include "support/catch.hpp"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

namespace fl = fairlead;

namespace {

using fl::index_t;
using batch = fl::laws::detail::signal_case;

// Runs loops backwards and says that it has four threads: whoever depends on either is found out.
struct backwards : fl::serial {
  template <class Function>
  void for_each(index_t n, Function f) const {
    for (index_t i = n; i > 0; --i) { f(i - 1); }
  }
  [[nodiscard]] index_t concurrency() const noexcept { return 4; }
};
static_assert(fl::host_backend<backwards>);

batch random_batch(index_t tokens, index_t experts, index_t fan_out, std::uint64_t seed, double spread = 1.0) {
  batch made(tokens, experts, fan_out);
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t e = 0; e < experts; ++e) {
      made.logits(t, e) =
          static_cast<float>(spread * fl::philox::normal(seed, static_cast<std::uint64_t>(t), static_cast<std::uint64_t>(e)));
    }
  }
  made.route();
  return made;
}
template <class Signal, class Backend = fl::serial>
fl::laws::detail::signal_result evaluate(Signal const& signal, batch const& from, Backend const& on = {}) {
  auto state = signal.make_state(from.logits.cols());
  return fl::laws::detail::evaluate_signal(on, signal, state, from, 1.0, 0.0F);
}
// Plain double-precision definition: group g = rows [g length, (g + 1) length), weighted by its valid tokens.
double oracle(batch const& from, bool sigmoid, index_t length) {
  index_t const tokens = from.logits.rows();
  index_t const experts = from.logits.cols();
  index_t const fan_out = from.routed.fan_out();
  double total = 0.0;
  for (index_t first = 0; first < tokens; first += length) {
    std::vector<double> n(static_cast<std::size_t>(experts), 0.0);
    std::vector<double> p(static_cast<std::size_t>(experts), 0.0);
    double valid = 0.0;
    for (index_t t = first; t < std::min(tokens, first + length); ++t) {
      if (!from.mask.empty() && from.mask[static_cast<std::size_t>(t)] == 0) { continue; }
      valid += 1.0;
      for (index_t j = 0; j < fan_out; ++j) { n[static_cast<std::size_t>(fl::to_index(from.routed.view().experts(t, j)))] += 1.0; }
      double sum = sigmoid ? 1e-20 : 0.0;
      auto const score = [&](index_t e) {
        double const l = static_cast<double>(from.logits(t, e));
        return sigmoid ? 1.0 / (1.0 + std::exp(-l)) : std::exp(l);
      };
      for (index_t e = 0; e < experts; ++e) { sum += score(e); }
      for (index_t e = 0; e < experts; ++e) { p[static_cast<std::size_t>(e)] += score(e) / sum; }
    }
    double product = 0.0;
    for (std::size_t e = 0; e < n.size(); ++e) { product += n[e] * p[e]; }
    if (valid > 0.0) {
      total += valid / static_cast<double>(from.valid) * static_cast<double>(experts) * product /
               (static_cast<double>(fan_out) * valid * valid);
    }
  }
  return total;
}

}  // namespace

TEST_CASE("the switch loss gives its golden value and gradient", "[balance]") {
  batch golden(4, 2, 1);
  std::vector<double> const first = {0.9, 0.8, 0.6, 0.3};
  for (index_t t = 0; t < 4; ++t) {
    golden.logits(t, 0) = static_cast<float>(std::log(first[static_cast<std::size_t>(t)]));
    golden.logits(t, 1) = static_cast<float>(std::log(1.0 - first[static_cast<std::size_t>(t)]));
  }
  golden.route();
  REQUIRE(golden.counts == std::vector<index_t>{3, 1});
  auto const result = evaluate(fl::switch_loss{.coefficient = 1.0}, golden);
  CHECK(result.loss == Approx(1.15).epsilon(1e-6));
  std::vector<double> const expected = {0.0225, 0.04, 0.06, 0.0525};
  for (index_t t = 0; t < 4; ++t) {
    CHECK(result.grad(t, 0) == Approx(expected[static_cast<std::size_t>(t)]).epsilon(1e-5));
    CHECK(result.grad(t, 1) == Approx(-expected[static_cast<std::size_t>(t)]).epsilon(1e-5));
  }
}

TEST_CASE("the z-loss gives its golden values and gradient", "[balance]") {
  batch zero(1, 2, 1);
  zero.route();
  CHECK(evaluate(fl::z_loss{.coefficient = 1.0}, zero).loss == Approx(0.4804530139).epsilon(1e-6));
  batch row(1, 4, 2);
  for (index_t e = 0; e < 4; ++e) { row.logits(0, e) = static_cast<float>(2 - e); }
  row.route();
  auto const result = evaluate(fl::z_loss{.coefficient = 1.0}, row);
  CHECK(result.loss == Approx(5.9545257650).epsilon(1e-6));
  CHECK(result.grad(0, 0) == Approx(3.1425458875).epsilon(1e-5));
  CHECK(result.grad(0, 1) == Approx(1.1560780249).epsilon(1e-5));
  CHECK(result.grad(0, 2) == Approx(0.4252973378).epsilon(1e-5));
  CHECK(result.grad(0, 3) == Approx(0.1564581469).epsilon(1e-5));
}

TEST_CASE("the sign rule moves biases towards the mean", "[balance]") {
  std::vector<index_t> const counts = {10, 2, 6, 6};
  std::vector<float> bias = {0.5F, 0.0F, -0.25F, 0.0F};
  fl::alone comm;
  fl::sign_bias::state_type none;
  fl::sign_bias{.step = 1e-3F}.end_global_batch(fl::serial{}, comm, counts, none, bias);
  CHECK(bias == std::vector<float>{0.5F - 1e-3F, 1e-3F, -0.25F, 0.0F});
  std::vector<float> still = {1.0F, 2.0F};
  fl::sign_bias{}.end_global_batch(fl::serial{}, comm, std::vector<index_t>{0, 0}, none, still);
  CHECK(still == std::vector<float>{1.0F, 2.0F});
  CHECK_THROWS_AS(fl::sign_bias{}.end_global_batch(fl::serial{}, comm, counts, none, still), fl::contract_violation);
}

TEST_CASE("even loads cost exactly the coefficient for every fan-out and share", "[balance]") {
  for (index_t fan_out : {1, 2, 3, 5}) {
    batch even(10, 5, fan_out);
    for (index_t t = 0; t < 10; ++t) {
      for (index_t e = 0; e < 5; ++e) { even.logits(t, (e + t) % 5) = static_cast<float>(e); }
    }
    even.route();
    CHECK(evaluate(fl::switch_loss{.coefficient = 0.25}, even).loss == Approx(0.25).epsilon(1e-6));
    CHECK(evaluate(fl::load_balance_loss<fl::sigmoid_share>{.coefficient = 0.25}, even).loss == Approx(0.25).epsilon(1e-6));
    CHECK(evaluate(fl::load_balance_loss<fl::softmax_share, fl::global_batch_scope>{.coefficient = 0.25}, even).loss ==
          Approx(0.25).epsilon(1e-6));
  }
}

TEST_CASE("losses equal their double-precision definition in every scope", "[balance]") {
  auto const masked = [](batch from) {
    from.mask.assign(static_cast<std::size_t>(from.logits.rows()), 1);
    for (std::size_t t = 0; t < from.mask.size(); ++t) { from.mask[t] = (t * 7) % 5 == 0 ? 0 : 1; }
    from.route();
    return from;
  };
  for (index_t tokens : {1, 2, 63, 64, 65, 200}) {
    for (index_t experts : {1, 2, 8, 60}) {
      auto const from = tokens % 2 == 0 ? random_batch(tokens, experts, std::min<index_t>(2, experts), 3)
                                        : masked(random_batch(tokens, experts, std::min<index_t>(2, experts), 3));
      INFO(tokens << " tokens, " << experts << " experts");
      CHECK(evaluate(fl::switch_loss{.coefficient = 1.0}, from).loss == Approx(oracle(from, false, tokens)).epsilon(1e-5));
      fl::load_balance_loss<fl::sigmoid_share, fl::sequence_scope> const sequence{.coefficient = 1.0, .scope = {.length = 7}};
      CHECK(evaluate(sequence, from).loss == Approx(oracle(from, true, 7)).epsilon(1e-5));
    }
  }
}

TEST_CASE("row terms are exact derivatives in double precision", "[balance]") {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    constexpr index_t experts = 7;
    std::vector<double> logits(experts);
    std::vector<double> factors(experts);
    for (std::size_t e = 0; e < experts; ++e) {
      logits[e] = 2.0 * fl::philox::normal(seed, 0, e);
      factors[e] = fl::philox::normal(seed, 1, e);
    }
    std::vector<std::uint8_t> allowed(experts, 1);
    allowed[seed % experts] = seed % 2 == 0 ? 0 : 1;
    auto const check = [&](auto term) {
      std::vector<double> grad(experts, 0.0);
      std::vector<double> unused(experts, 0.0);
      std::vector<double> scratch(experts);
      (void)term(grad.data(), scratch.data());
      for (std::size_t e = 0; e < experts; ++e) {
        double const centre = logits[e];
        double const step = 1e-5;
        logits[e] = centre + step;
        double const above = term(unused.data(), scratch.data());
        logits[e] = centre - step;
        double const below = term(unused.data(), scratch.data());
        logits[e] = centre;
        CHECK(grad[e] == Approx((above - below) / (2.0 * step)).margin(1e-8));
        if (allowed[e] == 0) { CHECK(grad[e] == 0.0); }
      }
    };
    check([&](double* grad, double* scratch) {
      return fl::detail::softmax_term(logits.data(), allowed.data(), experts, factors.data(), 1.0, grad, scratch);
    });
    check([&](double* grad, double* scratch) {
      return fl::detail::sigmoid_term(logits.data(), allowed.data(), experts, factors.data(), 1.0, grad, scratch);
    });
    check([&](double* grad, double* scratch) {
      return fl::detail::log_sum_term(logits.data(), allowed.data(), experts, 1.0, grad, scratch);
    });
  }
}

TEST_CASE("parts of ranks add up to the loss of the whole batch", "[balance]") {
  auto const whole = random_batch(90, 8, 2, 5);
  auto const compare = [&](auto const& signal) {
    auto const expected = evaluate(signal, whole);
    for (index_t cut : {0, 1, 40, 90}) {
      double sum = 0.0;
      for (int rank = 0; rank < 2; ++rank) {
        index_t const first = rank == 0 ? 0 : cut;
        index_t const count = rank == 0 ? cut : 90 - cut;
        auto state = signal.make_state(8);
        signal.accumulate(whole.counts, 90, state);
        fl::matrix<float> grad(count, 8);
        fl::arena memory(signal.workspace_bytes(count, 8));
        auto ws = memory.view();
        auto const routed = whole.routed.view();
        fl::const_routing_view const part{routed.experts.rows(first, count), routed.weights.rows(first, count)};
        sum += signal.add_gradient(fl::serial{}, whole.logits.view().rows(first, count), part, {}, state, 1.0, grad.view(), ws);
        for (index_t t = 0; t < count; ++t) {
          for (index_t e = 0; e < 8; ++e) { CHECK(grad(t, e) == Approx(expected.grad(first + t, e)).margin(1e-9)); }
        }
      }
      CHECK(sum == Approx(expected.loss).epsilon(1e-9));
    }
  };
  compare(fl::load_balance_loss<fl::softmax_share, fl::global_batch_scope>{.coefficient = 1.0});
  compare(fl::load_balance_loss<fl::sigmoid_share, fl::global_batch_scope>{.coefficient = 1.0});
  compare(fl::z_loss{.coefficient = 1.0});
}

TEST_CASE("the global scope averages loads over the micro-batches so far", "[balance]") {
  fl::load_balance_loss<fl::softmax_share, fl::global_batch_scope> const loss{.coefficient = 1.0};
  auto const now = random_batch(6, 4, 1, 9);
  auto state = loss.make_state(4);
  loss.accumulate(std::vector<index_t>{2, 0, 0, 0}, 2, state);
  auto const result = fl::laws::detail::evaluate_signal(fl::serial{}, loss, state, now, 1.0, 0.0F);
  double expected = 0.0;
  for (index_t t = 0; t < 6; ++t) {
    double sum = 0.0;
    for (index_t e = 0; e < 4; ++e) { sum += std::exp(static_cast<double>(now.logits(t, e))); }
    for (index_t e = 0; e < 4; ++e) {
      double const share = static_cast<double>(now.counts[static_cast<std::size_t>(e)] + (e == 0 ? 2 : 0)) / 8.0;
      expected += 4.0 * share * std::exp(static_cast<double>(now.logits(t, e))) / sum / 6.0;
    }
  }
  CHECK(result.loss == Approx(expected).epsilon(1e-6));
}

TEST_CASE("masked experts take no part", "[balance]") {
  auto const full = random_batch(20, 4, 2, 4);
  batch wide(20, 5, 2);
  for (index_t t = 0; t < 20; ++t) {
    for (index_t e = 0; e < 4; ++e) { wide.logits(t, e) = full.logits(t, e); }
    wide.logits(t, 4) = -100.0F;  // not chosen when routing, then raised
  }
  wide.route();
  for (index_t t = 0; t < 20; ++t) { wide.logits(t, 4) = 3.0F; }
  std::vector<std::uint8_t> const allowed = {1, 1, 1, 1, 0};
  fl::route_context context;
  context.expert_mask = allowed;
  auto const compare = [&](auto const& signal) {
    auto const expected = evaluate(signal, full);
    auto state = signal.make_state(5);
    signal.accumulate(wide.counts, 20, state);
    fl::matrix<float> grad(20, 5);
    fl::arena memory(signal.workspace_bytes(20, 5));
    auto ws = memory.view();
    double const loss =
        signal.add_gradient(fl::serial{}, wide.logits.view(), wide.routed.view(), context, state, 1.0, grad.view(), ws);
    CHECK(loss == Approx(expected.loss).epsilon(1e-6));
    for (index_t t = 0; t < 20; ++t) {
      CHECK(grad(t, 4) == 0.0F);
      CHECK(grad(t, 1) == Approx(expected.grad(t, 1)).margin(1e-8));
    }
  };
  compare(fl::switch_loss{.coefficient = 1.0});
  compare(fl::load_balance_loss<fl::sigmoid_share>{.coefficient = 1.0});
  compare(fl::z_loss{.coefficient = 1.0});
}

TEST_CASE("adversarial logits never give a loss or gradient that is not finite", "[balance]") {
  namespace wl = fl::workload;
  for (wl::adversarial const pattern : wl::all_adversarial) {
    // Beyond about 1e19 the square of the z-loss does not fit fp32.
    bool const too_large_for_z = pattern == wl::adversarial::huge;
    batch from(9, 5, 2);
    from.logits = wl::adversarial_scores{.tokens = 9, .experts = 5, .pattern = pattern, .seed = 2}.make();
    from.route();
    INFO(wl::name(pattern));
    auto const check = [&](auto const& signal) {
      auto const result = evaluate(signal, from);
      CHECK(std::isfinite(result.loss));
      bool finite = true;
      for (float const value : result.grad.span()) { finite = finite && std::isfinite(value); }
      CHECK(finite);
    };
    check(fl::switch_loss{});
    check(fl::load_balance_loss<fl::sigmoid_share>{});
    if (!too_large_for_z) { check(fl::z_loss{}); }
  }
}

TEST_CASE("the order and the number of threads change no bit", "[balance]") {
  auto const from = random_batch(777, 33, 4, 8);
  auto const compare = [&](auto const& signal) {
    CHECK(fl::laws::detail::same_bits(evaluate(signal, from), evaluate(signal, from, backwards{})));
  };
  compare(fl::switch_loss{});
  compare(fl::load_balance_loss<fl::sigmoid_share, fl::sequence_scope>{.scope = {.length = 10}});
  compare(fl::z_loss{});
}

TEST_CASE("combined signals add up", "[balance]") {
  auto const from = random_batch(30, 6, 2, 1);
  auto const both = fl::all_of(fl::switch_loss{.coefficient = 0.5}, fl::z_loss{.coefficient = 0.1});
  STATIC_REQUIRE(fl::balance_signal_on<decltype(both), fl::serial>);
  auto const sum = evaluate(both, from);
  auto const a = evaluate(fl::switch_loss{.coefficient = 0.5}, from);
  auto const b = evaluate(fl::z_loss{.coefficient = 0.1}, from);
  CHECK(sum.loss == a.loss + b.loss);
  for (index_t t = 0; t < 30; ++t) {
    for (index_t e = 0; e < 6; ++e) { CHECK(sum.grad(t, e) == Approx(a.grad(t, e) + b.grad(t, e)).margin(1e-8)); }
  }
}

TEST_CASE("bad shapes are refused", "[balance]") {
  auto const from = random_batch(4, 3, 1, 1);
  fl::switch_loss const loss;
  auto state = loss.make_state(3);
  CHECK_THROWS_AS(loss.accumulate(std::vector<index_t>{1, 2}, 3, state), fl::contract_violation);
  fl::matrix<float> small(3, 3);
  fl::arena memory(loss.workspace_bytes(4, 3));
  auto ws = memory.view();
  CHECK_THROWS_AS(loss.add_gradient(fl::serial{}, from.logits.view(), from.routed.view(), {}, state, 1.0, small.view(), ws),
                  fl::contract_violation);
  CHECK_THROWS_AS(loss.make_state(0), fl::contract_violation);
  CHECK_THROWS_AS((fl::load_balance_loss<fl::softmax_share, fl::sequence_scope>{.scope = {.length = 0}}.make_state(3)),
                  fl::contract_violation);
}
