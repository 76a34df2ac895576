// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Routers that look at the whole batch: expert choice, Sinkhorn, token rounding, each against a plain oracle.
#include "support/catch.hpp"

#include <fairlead/core/load.hpp>
#include <fairlead/laws/router.hpp>
#include <fairlead/route/expert_choice.hpp>
#include <fairlead/route/shared_slots.hpp>
#include <fairlead/route/sinkhorn_router.hpp>
#include <fairlead/route/token_rounding.hpp>
#include <fairlead/route/weight_norm.hpp>
#include <fairlead/route/zero_experts.hpp>
#include <fairlead/workload/skewed_logits.hpp>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>
#include <vector>

namespace fl = fairlead;

namespace {

template <class Router>
fl::routing<> route(Router const& router, fl::matrix_view<float const> logits, fl::route_context const& context = {}) {
  fl::routing<> out(logits.rows(), router.fan_out());
  fl::arena<> memory(router.workspace_bytes(logits.rows()));
  fl::workspace ws = memory.view();
  router.route(fl::serial{}, logits, context, out.view(), ws);
  return out;
}
std::vector<fl::index_t> loads(fl::routing<> const& out, fl::index_t experts) {
  std::vector<fl::index_t> counts(static_cast<std::size_t>(experts), 0);
  for (fl::index_t t = 0; t < out.tokens(); ++t) {
    for (fl::index_t j = 0; j < out.fan_out(); ++j) {
      fl::index_t const e = fl::to_index(out.view().experts(t, j));
      if (e >= 0) { ++counts[static_cast<std::size_t>(e)]; }
    }
  }
  return counts;
}
std::set<int> experts_of(fl::routing<> const& out, fl::index_t t) {
  std::set<int> found;
  for (fl::index_t j = 0; j < out.fan_out(); ++j) {
    if (out.view().experts(t, j) != fl::expert_id::none) { found.insert(static_cast<int>(out.view().experts(t, j))); }
  }
  return found;
}
fl::matrix<float> skewed(fl::index_t tokens, fl::index_t experts, double skew, std::uint64_t seed) {
  return fl::workload::skewed_logits{.tokens = tokens, .experts = experts, .skew = skew, .seed = seed}.make();
}
std::vector<double> softmax(std::vector<double> values) {
  double sum = 0.0;
  double const best = *std::max_element(values.begin(), values.end());
  for (double& v : values) { sum += v = std::exp(v - best); }
  for (double& v : values) { v /= sum; }
  return values;
}
std::vector<double> row_shares(fl::matrix<float> const& logits, fl::index_t t) {
  std::vector<double> row;
  for (fl::index_t e = 0; e < logits.cols(); ++e) { row.push_back(static_cast<double>(logits.view()(t, e))); }
  return softmax(row);
}

// Expert choice over tokens whose gradient forgets that a token's logit moves the weights of the others.
struct forgets_others : fl::expert_choice_over_tokens {
  template <class Backend>
  void backward(Backend const& on, fl::matrix_view<float const> logits, fl::route_context const& context,
                fl::const_routing_view out, fl::matrix_view<float const> grad_weights,
                fl::matrix_view<float> grad_logits, fl::workspace& ws) const {
    fl::expert_choice_over_tokens::backward(on, logits, context, out, grad_weights, grad_logits, ws);
    for (fl::index_t t = 0; t < logits.rows(); ++t) {
      if (experts_of_row(out, t) == 0) {
        for (fl::index_t e = 0; e < logits.cols(); ++e) { grad_logits(t, e) = 0.0F; }
      }
    }
  }
  [[nodiscard]] static fl::index_t experts_of_row(fl::const_routing_view out, fl::index_t t) {
    fl::index_t count = 0;
    for (fl::index_t j = 0; j < out.fan_out(); ++j) { count += out.experts(t, j) != fl::expert_id::none ? 1 : 0; }
    return count;
  }
};

}  // namespace
template <>
inline constexpr bool fairlead::batch_coupled<forgets_others> = true;

TEST_CASE("the law kit sees a gradient that forgets the other tokens of the batch") {
  fl::laws::router_problem const problem{.tokens = 12, .seed = 3, .by_score = false};
  CHECK(fl::laws::check_router(fl::expert_choice_over_tokens{.experts = 3, .capacity_factor = 0.5, .scale = 4.0F}, problem));
  auto const found = fl::laws::check_router(
      forgets_others{{.experts = 3, .capacity_factor = 0.5, .scale = 4.0F}}, problem);
  CHECK_FALSE(found);
  CHECK(found.reason().find("central differences") != std::string::npos);
}

TEST_CASE("expert choice keeps the laws, whatever the shares and the bound") {
  for (auto const& [experts, k] : {std::pair<int, int>{1, 1}, {3, 2}, {8, 0}, {20, 4}}) {
    CAPTURE(experts, k);
    fl::laws::router_problem const problem{.tokens = 37, .seed = 3, .by_score = false};
    CHECK(fl::laws::check_router(fl::expert_choice{.experts = experts, .max_choices = k, .scale = 1.5F}, problem));
    CHECK(fl::laws::check_router(
        fl::expert_choice_over_tokens{.experts = experts, .capacity_factor = 1.5, .max_choices = k}, problem));
    CHECK(fl::laws::check_router(fl::expert_choice_over_tokens{.experts = experts, .max_choices = k, .scale = 0.5F,
                                                               .shares = {.divide_by_choices = true}}, problem));
  }
  static_assert(fl::batch_coupled<fl::expert_choice> && !fl::causal<fl::expert_choice>);
}

TEST_CASE("routers around expert choice are as coupled as it is, and keep its laws") {
  fl::laws::router_problem const problem{.tokens = 29, .seed = 4, .by_score = false};
  using inner = fl::expert_choice_over_tokens;
  using slots = fl::shared_slots<inner>;
  using normed = fl::normalised_weights<inner>;
  using zeros = fl::zero_experts<inner>;
  static_assert(fl::batch_coupled<slots> && fl::batch_coupled<normed> && fl::batch_coupled<zeros>);
  static_assert(!fl::batch_coupled<fl::shared_slots<fl::top_k>> && !fl::causal<slots>);
  CHECK(fl::laws::check_router(slots{.router = {.experts = 6, .max_choices = 3}}, problem));
  CHECK(fl::laws::check_router(normed{.router = {.experts = 6, .max_choices = 3}, .p = 2.0F}, problem));
  CHECK(fl::laws::check_router(zeros{.router = {.experts = 6, .max_choices = 3}, .zero = 2}, problem));
}

TEST_CASE("each expert takes its best tokens: the plain sort agrees, loads are even") {
  for (double const skew : {0.0, 1.0, 4.0}) {
    auto const logits = skewed(203, 8, skew, 11);
    fl::expert_choice const router{.experts = 8, .capacity_factor = 2.0};
    auto const out = route(router, logits.view());
    fl::index_t const places = router.capacity(203);
    CHECK(places == 51);  // 50.75
    CHECK(loads(out, 8) == std::vector<fl::index_t>(8, places));
    CHECK(router.overflow(logits.view(), {}, std::as_const(out).view()) == 0);
    std::vector<std::set<int>> want(203);
    for (int e = 0; e < 8; ++e) {
      std::vector<std::pair<float, int>> order;  // the float that the router sorts by, from the weights of everyone
      fl::token_choice<fl::softmax_score, fl::plain_selection, fl::not_renormalised> const all{.experts = 8, .k = 8};
      auto const shares = route(all, logits.view());
      for (int t = 0; t < 203; ++t) {
        for (int j = 0; j < 8; ++j) {
          if (fl::to_index(shares.view().experts(t, j)) == e) { order.emplace_back(-shares.view().weights(t, j), t); }
        }
      }
      std::sort(order.begin(), order.end());
      for (fl::index_t i = 0; i < places; ++i) { want[static_cast<std::size_t>(order[static_cast<std::size_t>(i)].second)].insert(e); }
    }
    for (fl::index_t t = 0; t < 203; ++t) {
      CHECK(experts_of(out, t) == want[static_cast<std::size_t>(t)]);
      auto const shares = row_shares(logits, t);
      for (fl::index_t j = 0; j < out.fan_out(); ++j) {
        fl::index_t const e = fl::to_index(out.view().experts(t, j));
        if (e >= 0) { CHECK(out.view().weights(t, j) == Approx(shares[static_cast<std::size_t>(e)]).epsilon(1e-5)); }
      }
    }
  }
}

TEST_CASE("shares over the tokens sum to one over an expert, divided by the choices of a token if asked") {
  auto const logits = skewed(40, 4, 1.0, 12);
  fl::expert_choice_over_tokens const all{.experts = 4, .capacity_factor = 4.0};  // everybody takes everybody
  auto const out = route(all, logits.view());
  double sums[4] = {};
  for (fl::index_t t = 0; t < 40; ++t) {
    CHECK(experts_of(out, t).size() == 4);
    for (fl::index_t j = 0; j < 4; ++j) { sums[fl::to_index(out.view().experts(t, j))] += static_cast<double>(out.view().weights(t, j)); }
  }
  for (double const sum : sums) { CHECK(sum == Approx(1.0)); }
  fl::expert_choice_over_tokens const divided{.experts = 4, .capacity_factor = 2.0, .shares = {.divide_by_choices = true}};
  auto plain = divided;
  plain.shares.divide_by_choices = false;
  auto const a = route(divided, logits.view()), b = route(plain, logits.view());
  for (fl::index_t t = 0; t < 40; ++t) {
    auto const count = static_cast<float>(experts_of(b, t).size());
    CHECK(experts_of(a, t) == experts_of(b, t));
    for (fl::index_t j = 0; j < 4; ++j) {
      if (count > 0) { CHECK(a.view().weights(t, j) == Approx(b.view().weights(t, j) / count)); }
    }
  }
}

TEST_CASE("a bound on the choices keeps the best and counts the rest, padding and masked experts take part in nothing") {
  auto const logits = skewed(64, 8, 2.0, 13);
  fl::expert_choice const free{.experts = 8, .capacity_factor = 3.0};
  fl::expert_choice const bound{.experts = 8, .capacity_factor = 3.0, .max_choices = 2};
  auto const all = route(free, logits.view()), some = route(bound, logits.view());
  fl::index_t lost = 0;
  for (fl::index_t t = 0; t < 64; ++t) {
    auto const wanted = experts_of(all, t);
    lost += std::max<fl::index_t>(0, static_cast<fl::index_t>(wanted.size()) - 2);
    for (fl::index_t j = 0; j < 2; ++j) { CHECK(some.view().experts(t, j) == all.view().experts(t, j)); }
  }
  CHECK(lost > 0);
  CHECK(bound.overflow(logits.view(), {}, std::as_const(some).view()) == lost);

  // Padding rows may hold anything: the others are routed as if they were not there.
  std::vector<std::uint8_t> valid(64, 1);
  for (std::size_t t = 1; t < 64; t += 2) { valid[t] = 0; }
  fl::matrix<float> rest(32, 8);
  for (fl::index_t t = 0; t < 32; ++t) {
    for (fl::index_t e = 0; e < 8; ++e) { rest(t, e) = logits.view()(2 * t, e); }
  }
  auto const masked = route(free, logits.view(), {.token_mask = valid}), alone = route(free, rest.view());
  for (fl::index_t t = 0; t < 32; ++t) {
    CHECK(experts_of(masked, 2 * t) == experts_of(alone, t));
    CHECK(experts_of(masked, 2 * t + 1).empty());
  }
}

TEST_CASE("capacity rounds halves to even and stays between its bounds") {
  fl::expert_choice const router{.experts = 8, .capacity_factor = 1.0, .min_capacity = 4};
  CHECK(router.capacity(0) == 0);
  CHECK(router.capacity(3) == 3);
  CHECK(router.capacity(8) == 4);
  CHECK(router.capacity(100) == 12);  // 12.5
  CHECK(router.capacity(108) == 14);  // 13.5
  CHECK(fl::expert_choice{.experts = 2, .capacity_factor = 1e300}.capacity(10) == 10);
  fl::matrix<float> const logits(4, 2);
  CHECK_THROWS_AS(route(fl::expert_choice{.experts = 2, .capacity_factor = 0.0}, logits.view()), fl::contract_violation);
  CHECK_THROWS_AS(route(fl::expert_choice{.experts = 2, .max_choices = 3}, logits.view()), fl::contract_violation);
}

TEST_CASE("Sinkhorn routers keep the laws, and are plain top-k in evaluation") {
  for (auto const& [experts, k] : {std::pair<int, int>{1, 1}, {3, 2}, {8, 1}, {20, 4}}) {
    CAPTURE(experts, k);
    fl::laws::router_problem const problem{.tokens = 37, .seed = 3};
    CHECK(fl::laws::check_router(fl::sinkhorn_router{.experts = experts, .k = k, .scale = 1.5F}, problem));
    CHECK(fl::laws::check_router(fl::alternating_sinkhorn_router{.experts = experts, .k = k}, problem));
  }
  auto const logits = skewed(50, 6, 2.0, 14);
  auto const got = route(fl::sinkhorn_router{.experts = 6, .k = 2}, logits.view(), {.phase = fl::phase::evaluate});
  auto const want = route(fl::softmax_top_k{.experts = 6, .k = 2}, logits.view());
  for (fl::index_t t = 0; t < 50; ++t) {
    for (fl::index_t j = 0; j < 2; ++j) {
      CHECK(got.view().experts(t, j) == want.view().experts(t, j));
      CHECK(got.view().weights(t, j) == want.view().weights(t, j));
    }
  }
}

TEST_CASE("Sinkhorn evens out loads in training, both iterations alike, and weights see the logits only") {
  for (fl::index_t const k : {1, 2}) {
    auto const logits = skewed(4096, 16, 1.5, 15);
    fl::sinkhorn_router const log_domain{.experts = 16, .k = k, .iteration = {.passes = 200, .tolerance = 1e-4}};
    fl::alternating_sinkhorn_router const parity{.experts = 16, .k = k, .iteration = {.tolerance = 1e-9}};
    auto const plain = loads(route(log_domain, logits.view(), {.phase = fl::phase::evaluate}), 16);
    auto const out = route(log_domain, logits.view()), other = route(parity, logits.view());
    auto const even = loads(out, 16);
    auto const worst = [&](std::vector<fl::index_t> const& counts) {
      return static_cast<double>(*std::max_element(counts.begin(), counts.end())) * 16.0 / static_cast<double>(4096 * k);
    };
    CHECK(worst(plain) > 2.0);
    CHECK(worst(even) < 1.5);
    fl::index_t differ = 0;
    for (fl::index_t t = 0; t < 4096; ++t) {
      differ += experts_of(out, t) != experts_of(other, t) ? 1 : 0;
      auto const shares = row_shares(logits, t);
      for (fl::index_t j = 0; j < k; ++j) {
        fl::index_t const e = fl::to_index(out.view().experts(t, j));
        double const logit = static_cast<double>(logits.view()(t, e));
        double const weight = k == 1 ? 1.0 / (1.0 + std::exp(-logit)) : shares[static_cast<std::size_t>(e)];
        REQUIRE(out.view().weights(t, j) == Approx(weight).epsilon(1e-5));
      }
    }
    CHECK(differ <= 8);  // both near one fixed point: only near-ties may fall differently
  }
}

TEST_CASE("token rounding keeps the laws") {
  for (auto const rounding : {fl::tile_rounding::down, fl::tile_rounding::up, fl::tile_rounding::nearest_even}) {
    for (auto const& [experts, k] : {std::pair<int, int>{1, 1}, {3, 2}, {8, 1}, {20, 4}}) {
      CAPTURE(experts, k);
      fl::token_rounding const free{.experts = experts, .k = k, .tile = 4, .rounding = rounding};
      CHECK(fl::laws::check_router(free, {.tokens = 37, .seed = 3, .by_score = false}));
      fl::token_rounding const bound{
          .experts = experts, .k = k, .scale = 2.0F, .tile = 5, .rounding = rounding, .max_choices = k};
      CHECK(fl::laws::check_router(bound, {.tokens = 37, .seed = 3}));
    }
  }
}

TEST_CASE("rounded counts are whole tiles, true choices go last and others come by their shares") {
  for (auto const rounding : {fl::tile_rounding::down, fl::tile_rounding::up, fl::tile_rounding::nearest_even}) {
    auto const logits = skewed(512, 8, 1.0, 16);
    fl::token_rounding const router{.experts = 8, .k = 2, .tile = 32, .rounding = rounding};
    auto const out = route(router, logits.view());
    auto const chosen = route(fl::softmax_top_k{.experts = 8, .k = 2}, logits.view());
    auto const before = loads(chosen, 8), after = loads(out, 8);
    for (int e = 0; e < 8; ++e) {
      auto const at = static_cast<std::size_t>(e);
      CHECK(after[at] == fl::round_to_tile(before[at], 32, rounding));
      float worst_kept = 2.0F, best_lost = -1.0F, worst_added = 2.0F, best_left = -1.0F;
      for (fl::index_t t = 0; t < 512; ++t) {
        auto const share = static_cast<float>(row_shares(logits, t)[at]);
        bool const chose = experts_of(chosen, t).count(e) > 0, has = experts_of(out, t).count(e) > 0;
        float& bound = chose ? (has ? worst_kept : best_lost) : (has ? worst_added : best_left);
        bound = has ? std::min(bound, share) : std::max(bound, share);
      }
      bool const drops = after[at] < before[at];
      CHECK((best_lost >= 0.0F) == drops);
      CHECK((worst_added <= 1.0F) == (after[at] > before[at]));
      if (drops) { CHECK(worst_kept >= best_lost * 0.9999F); }
      if (!drops && best_left >= 0.0F) { CHECK(worst_added >= best_left * 0.9999F); }
    }
  }
}

TEST_CASE("token rounding in evaluation is plain top-k, and few candidates are all taken") {
  auto const logits = skewed(10, 4, 1.0, 17);
  fl::token_rounding const router{.experts = 4, .k = 1, .tile = 128, .rounding = fl::tile_rounding::up};
  auto const out = route(router, logits.view());
  for (fl::index_t const load : loads(out, 4)) { CHECK((load == 0 || load == 10)); }
  auto const evaluated = route(router, logits.view(), {.phase = fl::phase::evaluate});
  auto const plain = route(fl::softmax_top_k{.experts = 4, .k = 1}, logits.view());
  for (fl::index_t t = 0; t < 10; ++t) {
    CHECK(evaluated.view().experts(t, 0) == plain.view().experts(t, 0));
    CHECK(experts_of(evaluated, t).size() == 1);
  }
  CHECK_THROWS_AS(route(fl::token_rounding{.experts = 4, .k = 3, .max_choices = 2}, logits.view()),
                  fl::contract_violation);
  CHECK_THROWS_AS(route(fl::token_rounding{.experts = 4, .k = 1, .tile = 0}, logits.view()), fl::contract_violation);
}
