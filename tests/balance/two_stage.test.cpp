// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The losses of two-stage routing: laws, oracles in double, stages, masks, threads.
#include <fairlead/balance/distillation_loss.hpp>
#include <fairlead/balance/on_backbone.hpp>
#include <fairlead/balance/over_under_loss.hpp>
#include <fairlead/balance/load_balance_loss.hpp>
#include <fairlead/balance/signals.hpp>
#include <fairlead/balance/z_loss.hpp>
#include <fairlead/laws/balance_signal.hpp>

#include "support/catch.hpp"

#include <cmath>
#include <vector>

namespace fl = fairlead;
using fl::index_t;

namespace {

struct batch {
  fl::matrix<float> logits;
  fl::routing<> routed;
  std::vector<index_t> counts;
  std::vector<std::uint8_t> tokens_allowed, experts_allowed;
  index_t experts, valid = 0;
  // Each token goes to a random expert, not the best one: as a balanced assignment would.
  batch(index_t tokens, index_t n, bool masks, std::uint64_t seed) : logits(tokens, 2 * n), routed(tokens, 1), counts(static_cast<std::size_t>(n), 0), experts(n) {
    for (index_t e = 0; e < n; ++e) { experts_allowed.push_back(masks && e == 1 ? 0 : 1); }
    for (index_t t = 0; t < tokens; ++t) {
      auto const at = static_cast<std::uint64_t>(t);
      tokens_allowed.push_back(masks && t % 5 == 3 ? 0 : 1);
      for (index_t c = 0; c < 2 * n; ++c) { logits(t, c) = static_cast<float>(fl::philox::normal(seed, at, static_cast<std::uint64_t>(c))); }
      auto e = static_cast<std::size_t>(fl::philox::below(fl::philox::draw(seed, 1000, at)[0], static_cast<std::uint32_t>(n)));
      if (experts_allowed[e] == 0) { e = 0; }
      bool const is_valid = tokens_allowed.back() != 0;
      routed.view().experts(t, 0) = is_valid ? static_cast<fl::expert_id>(e) : fl::expert_id::none;
      routed.view().weights(t, 0) = 0.0F;
      valid += is_valid ? 1 : 0;
      counts[e] += is_valid ? 1 : 0;
    }
  }
};

struct answer {
  double loss;
  fl::matrix<float> grad;
};
template <class Signal, class Backend = fl::serial>
answer evaluate(Signal const& signal, batch const& in, double scale = 1.0, std::uint64_t step = 0, Backend const& on = {}) {
  auto state = signal.make_state(in.experts);
  signal.accumulate(in.counts, in.valid, state);
  answer a{0.0, fl::matrix<float>(in.logits.rows(), in.logits.cols())};
  for (float& value : a.grad.span()) { value = 0.0F; }
  fl::arena<> memory(signal.workspace_bytes(in.logits.rows(), in.experts));
  fl::workspace ws = memory.view();
  fl::route_context const context{.step = step, .token_mask = in.tokens_allowed, .expert_mask = in.experts_allowed};
  a.loss = signal.add_gradient(on, in.logits.view(), in.routed.view(), context, std::as_const(state), scale, a.grad.view(), ws);
  return a;
}

}  // namespace

TEST_CASE("the losses of two-stage routing keep the laws of signals") {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    for (index_t const experts : {2, 6, 17}) {
      CAPTURE(seed, experts);
      fl::laws::balance_signal_problem const both{.tokens = 10, .experts = experts, .fan_out = 1, .columns = 2 * experts, .seed = seed};
      auto one = both, even = both;
      one.columns = 0;
      one.even_is_best = even.even_is_best = true;
      CHECK(fl::laws::check_balance_signal(fl::over_under_loss{}, one));
      CHECK(fl::laws::check_balance_signal(fl::over_under_loss{.coefficient = 2.0}, even));
      CHECK(fl::laws::check_balance_signal(fl::distillation_loss{}, both));
      CHECK(fl::laws::check_balance_signal(fl::distillation_loss{.coefficient = 0.3, .switch_step = 1}, both));
      CHECK(fl::laws::check_balance_signal(fl::all_of(fl::over_under_loss{}, fl::distillation_loss{}, fl::on_backbone<fl::z_loss>{}), both));
      CHECK(fl::laws::check_balance_signal(fl::on_backbone<fl::switch_loss>{{.coefficient = 1.0}}, even));
    }
  }
}

TEST_CASE("the losses equal their formulas in double, with and without masks, and each touches its own half") {
  for (bool const masks : {false, true}) {
    for (index_t const experts : {2, 5, 40}) {
      CAPTURE(masks, experts);
      batch const in(131, experts, masks, 7);
      double const scale = 1.7;
      double const allowed = static_cast<double>(experts - (masks ? 1 : 0));
      auto const value = [&](index_t t, index_t c) { return static_cast<double>(in.logits(t, c)); };
      auto const usable = [&](index_t e) { return in.experts_allowed[static_cast<std::size_t>(e)] != 0; };
      double balance = 0.0, distil = 0.0, worst = 0.0;
      auto const got_balance = evaluate(fl::over_under_loss{}, in, scale);
      auto const got_distil = evaluate(fl::distillation_loss{.coefficient = 0.3}, in, scale);
      double const mean = static_cast<double>(in.valid) / allowed;
      for (index_t t = 0; t < in.logits.rows(); ++t) {
        auto const chosen = fl::to_index(in.routed.view().experts(t, 0));
        bool const valid = in.tokens_allowed[static_cast<std::size_t>(t)] != 0;
        index_t target = -1;
        double sum = 0.0;
        for (index_t e = 0; e < experts; ++e) {
          if (!usable(e)) { continue; }
          if (target < 0 || value(t, e) > value(t, target)) { target = e; }
          sum += std::exp(value(t, experts + e));
        }
        double const pull = valid ? 0.3 * (static_cast<double>(in.counts[static_cast<std::size_t>(chosen)]) - mean) / mean / static_cast<double>(in.valid) : 0.0;
        double const s = valid ? 1.0 / (1.0 + std::exp(-value(t, chosen))) : 0.0;
        balance += pull * s;
        if (valid) { distil += 0.3 * (std::log(sum) - value(t, experts + target)) / static_cast<double>(in.valid); }
        for (index_t c = 0; c < 2 * experts; ++c) {
          double const want_balance = valid && c == chosen ? scale * pull * s * (1.0 - s) : 0.0;
          double want_distil = 0.0;
          if (valid && c >= experts && usable(c - experts)) {
            want_distil = scale * 0.3 / static_cast<double>(in.valid) * (std::exp(value(t, c)) / sum - (c - experts == target ? 1.0 : 0.0));
          }
          worst = std::max(worst, std::abs(static_cast<double>(got_balance.grad(t, c)) - want_balance));
          worst = std::max(worst, std::abs(static_cast<double>(got_distil.grad(t, c)) - want_distil));
        }
      }
      CHECK(std::abs(got_balance.loss - balance) < 1e-7);
      CHECK(std::abs(got_distil.loss - distil) < 1e-6);
      CHECK(worst < 1e-8);
    }
  }
}

TEST_CASE("the distillation target is the best backbone score, the lowest of equal ones, whatever was routed; NaN is never it") {
  batch in(3, 3, false, 1);
  float const nan = std::nanf("");
  float const rows[3][6] = {{1.0F, 1.0F, 0.0F, 0.0F, 0.0F, 0.0F}, {nan, -2.0F, -1.0F, 0.0F, 0.0F, 0.0F}, {nan, nan, nan, 0.0F, 0.0F, 0.0F}};
  for (index_t t = 0; t < 3; ++t) {
    for (index_t c = 0; c < 6; ++c) { in.logits(t, c) = rows[t][c]; }
    in.routed.view().experts(t, 0) = static_cast<fl::expert_id>(1);
  }
  auto const got = evaluate(fl::distillation_loss{.coefficient = 3.0}, in);
  CHECK(std::abs(got.loss - 2.0 * std::log(3.0)) < 1e-6);
  double const third = 1.0 / 3.0;
  double const want[3][3] = {{third - 1.0, third, third}, {third, third, third - 1.0}, {0.0, 0.0, 0.0}};
  for (index_t t = 0; t < 3; ++t) {
    for (index_t e = 0; e < 3; ++e) {
      CHECK(std::abs(static_cast<double>(got.grad(t, 3 + e)) - want[t][e]) < 1e-6);
      CHECK(got.grad(t, e) == 0.0F);
    }
  }
}

TEST_CASE("from the switch on both losses are nothing") {
  batch const in(20, 4, false, 3);
  for (std::uint64_t const step : {std::uint64_t{4}, std::uint64_t{5}, std::uint64_t{500}}) {
    auto const both = evaluate(fl::all_of(fl::over_under_loss{.switch_step = 5}, fl::distillation_loss{.switch_step = 5}), in, 1.0, step);
    bool moved = false;
    for (float const g : both.grad.span()) { moved = moved || g != 0.0F; }
    CHECK(moved == (step < 5));
    CHECK((both.loss != 0.0) == (step < 5));
  }
  CHECK(evaluate(fl::distillation_loss{}, in, 1.0, fl::never_step).loss != 0.0);
}

TEST_CASE("parts of ranks add up to the loss of all tokens") {
  batch const whole(50, 5, true, 9);
  auto const check = [&](auto const& signal) {
    auto const want = evaluate(signal, whole);
    double sum = 0.0;
    for (index_t first : {index_t{0}, index_t{20}}) {
      index_t const count = first == 0 ? 20 : 30;
      batch part(count, 5, true, 9);
      part.counts = whole.counts;
      part.valid = whole.valid;
      for (index_t t = 0; t < count; ++t) {
        for (index_t c = 0; c < 10; ++c) { part.logits(t, c) = whole.logits(first + t, c); }
        part.routed.view().experts(t, 0) = whole.routed.view().experts(first + t, 0);
        part.tokens_allowed[static_cast<std::size_t>(t)] = whole.tokens_allowed[static_cast<std::size_t>(first + t)];
      }
      auto const got = evaluate(signal, part);
      sum += got.loss;
      for (index_t t = 0; t < count; ++t) {
        for (index_t c = 0; c < 10; ++c) { CHECK(got.grad(t, c) == want.grad(first + t, c)); }
      }
    }
    CHECK(std::abs(sum - want.loss) < 1e-12);
  };
  check(fl::over_under_loss{});
  check(fl::distillation_loss{});
}

TEST_CASE("distillation refuses logits without a light half") {
  fl::distillation_loss const loss;
  auto state = loss.make_state(4);
  fl::matrix<float> logits(2, 4), grad(2, 4);
  fl::routing<> routed(2, 1);
  fl::arena<> memory(loss.workspace_bytes(2, 4));
  fl::workspace ws = memory.view();
  CHECK_THROWS_AS(loss.add_gradient(fl::serial{}, logits.view(), routed.view(), {}, std::as_const(state), 1.0, grad.view(), ws), fl::contract_violation);
}
