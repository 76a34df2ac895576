// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Selection against a sort in double precision, on every width, and on threads against serial.
#include "support/catch.hpp"

#include <fairlead/balance/sign_bias.hpp>
#include <fairlead/comm/alone.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/exec/threads.hpp>
#include <fairlead/route/biased_token_choice.hpp>
#include <fairlead/route/fixed_choice.hpp>
#include <fairlead/route/gshard_top_2.hpp>
#include <fairlead/route/top_k.hpp>
#include <fairlead/workload/adversarial_scores.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

namespace fl = fairlead;

namespace {

template <class Router, class Backend>
fl::routing<> routed(Router const& router, Backend const& on, fl::matrix_view<float const> logits,
                     fl::route_context const& context) {
  fl::arena<> memory(router.workspace_bytes(logits.rows()));
  fl::workspace ws = memory.view();
  fl::routing<> out(logits.rows(), router.fan_out());
  if constexpr (fl::has_state<Router>) {
    auto state = router.make_state();
    for (std::size_t e = 0; e < state.values.size(); ++e) { state.values[e] = 0.01F * static_cast<float>(e % 7); }
    router.route(on, logits, context, state, out.view(), ws);
  } else {
    router.route(on, logits, context, out.view(), ws);
  }
  return out;
}

bool same_bits(fl::routing<> const& a, fl::routing<> const& b) {
  for (fl::index_t t = 0; t < a.tokens(); ++t) {
    for (fl::index_t j = 0; j < a.fan_out(); ++j) {
      if (a.view().experts(t, j) != b.view().experts(t, j) ||
          std::bit_cast<unsigned>(a.view().weights(t, j)) != std::bit_cast<unsigned>(b.view().weights(t, j))) {
        return false;
      }
    }
  }
  return true;
}

// Ids and weights of one row by a full sort, in double.
struct oracle {
  std::vector<int> ids;
  std::vector<double> weights;
};
oracle by_sorting(float const* row, fl::index_t experts, fl::index_t k) {
  std::vector<int> order;
  for (int e = 0; e < experts; ++e) {
    if (row[e] > -std::numeric_limits<float>::infinity()) { order.push_back(e); }
  }
  std::stable_sort(order.begin(), order.end(), [row](int a, int b) { return row[a] > row[b]; });
  order.resize(std::min(order.size(), static_cast<std::size_t>(k)));
  oracle result{order, {}};
  double sum = 0.0;
  auto const share = [&](int e) {
    double const limit = static_cast<double>(std::numeric_limits<float>::max());
    return std::exp(std::min(static_cast<double>(row[e]), limit) - std::min(static_cast<double>(row[order[0]]), limit));
  };
  for (int const e : order) { sum += share(e); }
  for (int const e : order) { result.weights.push_back(share(e) / sum); }
  return result;
}

}  // namespace

TEST_CASE("top_k equals a full sort for every width, on every adversarial pattern, with strided rows") {
  fl::index_t wrong_ids = 0, wrong_weights = 0, rows = 0;
  for (fl::index_t const experts : {1, 2, 3, 8, 60, 64, 160, 256, 384, 512}) {
    for (fl::index_t const k : {1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 40}) {
      if (k > experts) { continue; }
      for (auto const pattern : fl::workload::all_adversarial) {
        auto const scores = fl::workload::adversarial_scores{
            .tokens = 19, .experts = experts + 3, .pattern = pattern, .seed = 9}.make();
        fl::matrix_view<float const> const logits(scores.data(), 19, experts, experts + 3);
        auto const out = routed(fl::top_k{.experts = experts, .k = k}, fl::serial{}, logits, {});
        for (fl::index_t t = 0; t < 19; ++t, ++rows) {
          oracle const want = by_sorting(logits.row(t), experts, k);
          for (fl::index_t j = 0; j < k; ++j) {
            auto const at = static_cast<std::size_t>(j);
            bool const some = at < want.ids.size();
            wrong_ids += fl::to_index(out.view().experts(t, j)) != (some ? want.ids[at] : -1) ? 1 : 0;
            double const weight = some ? want.weights[at] : 0.0;
            wrong_weights += std::abs(static_cast<double>(out.view().weights(t, j)) - weight) < 2e-6 ? 0 : 1;
          }
        }
      }
    }
  }
  CHECK(rows > 10000);
  CHECK(wrong_ids == 0);
  CHECK(wrong_weights == 0);
}

TEST_CASE("threads give the same bits as serial") {
  auto const scores =
      fl::workload::adversarial_scores{.tokens = 1000, .experts = 64, .pattern = fl::workload::adversarial::sixteen_levels, .seed = 2}
          .make();
  fl::route_context const context{.seed = 4, .step = 2};
  auto const agrees = [&](auto const& router) {
    auto const one = routed(router, fl::serial{}, scores.view(), context);
    return same_bits(one, routed(router, fl::threads{3}, scores.view(), context)) &&
           same_bits(one, routed(router, fl::threads{8}, scores.view(), context));
  };
  CHECK(agrees(fl::top_k{.experts = 64, .k = 6}));
  CHECK(agrees(fl::softmax_top_k{.experts = 64, .k = 8}));
  CHECK(agrees(fl::with_noise<fl::softmax_top_k, fl::fixed_noise>{.experts = 64, .k = 2}));
  CHECK(agrees(fl::sigmoid_bias_group_top_k{.experts = 64, .k = 8, .selection = {.groups = 8, .kept_groups = 4}}));
  CHECK(agrees(fl::gshard_top_2{.experts = 64}));
}

TEST_CASE("noise follows the global token, and stops in evaluation") {
  auto const scores = fl::workload::adversarial_scores{.tokens = 40, .experts = 16, .seed = 2}.make();
  fl::with_noise<fl::top_k, fl::fixed_noise> const noisy{.experts = 16, .k = 2, .noise = {.deviation = 1.0F}};
  fl::route_context context{.seed = 4, .step = 2, .first_token = 100};
  auto const whole = routed(noisy, fl::serial{}, scores.view(), context);
  context.first_token = 120;
  auto const half = routed(noisy, fl::serial{}, scores.view().rows(20, 20), context);
  bool same = true;
  for (fl::index_t t = 0; t < 20; ++t) { same = same && half.view().experts(t, 0) == whole.view().experts(20 + t, 0); }
  CHECK(same);
  context.step = 3;
  CHECK_FALSE(same_bits(half, routed(noisy, fl::serial{}, scores.view().rows(20, 20), context)));
  context.phase = fl::phase::evaluate;
  CHECK(same_bits(routed(noisy, fl::serial{}, scores.view(), context),
                  routed(fl::top_k{.experts = 16, .k = 2}, fl::serial{}, scores.view(), context)));
}

TEST_CASE("one group, or all groups kept, is no limit") {
  auto const scores = fl::workload::adversarial_scores{.tokens = 50, .experts = 24, .seed = 8}.make();
  auto const plain = routed(fl::sigmoid_bias_top_k{.experts = 24, .k = 5}, fl::serial{}, scores.view(), {});
  for (auto const& [groups, kept] : {std::pair<int, int>{1, 1}, {4, 4}, {24, 24}}) {
    CAPTURE(groups);
    CHECK(same_bits(plain, routed(fl::sigmoid_bias_group_top_k{.experts = 24, .k = 5,
                                                               .selection = {.groups = groups, .kept_groups = kept}},
                                  fl::serial{}, scores.view(), {})));
  }
}

TEST_CASE("gshard_top_2 keeps a weak second choice as often as its weight says") {
  fl::matrix<float> scores(4000, 2);
  for (fl::index_t t = 0; t < scores.rows(); ++t) { scores(t, 0) = 3.0F; }  // second weight 0.0474, kept with 0.237
  fl::gshard_top_2 router{.experts = 2};
  auto const out = routed(router, fl::serial{}, scores.view(), {.seed = 1});
  fl::index_t kept = 0;
  for (fl::index_t t = 0; t < scores.rows(); ++t) { kept += out.view().experts(t, 1) != fl::expert_id::none ? 1 : 0; }
  CHECK(kept > 850);
  CHECK(kept < 1050);
  router.training = fl::keep_second::never;
  CHECK(routed(router, fl::serial{}, scores.view(), {}).view().experts(0, 1) == fl::expert_id::none);
}

TEST_CASE("a group whose best sum leaves the range of fp32 keeps its candidates") {
  using router = fl::token_choice<fl::raw_score, fl::group_limited<fl::group_top_two_sum>, fl::softmax_over_chosen>;
  fl::matrix<float> scores(2, 4);
  for (fl::index_t e = 0; e < 4; ++e) {
    scores(0, e) = -3e38F;
    scores(1, e) = e == 3 ? std::numeric_limits<float>::infinity() : 3e38F;
  }
  scores(1, 2) = 1.0F;
  for (fl::index_t const kept : {1, 2}) {
    auto const out = routed(router{.experts = 4, .k = 2, .selection = {.groups = 2, .kept_groups = kept}}, fl::serial{},
                            scores.view(), {});
    CHECK(out.view().experts(0, 0) == static_cast<fl::expert_id>(0));
    CHECK(out.view().experts(0, 1) == static_cast<fl::expert_id>(1));
    CHECK(out.view().weights(0, 0) == 0.5F);
    CHECK(out.view().experts(1, 0) == (kept == 1 ? static_cast<fl::expert_id>(0) : static_cast<fl::expert_id>(3)));
  }
}

namespace {

// What the catalogue of routing orders says, by sorting in double: every step is rounded to fp32 as the keys are.
struct limits {
  fl::index_t groups, kept, terms;  // terms 0: no group rule
};
double rounded(double x) {
  double const limit = static_cast<double>(std::numeric_limits<float>::max());
  return x > limit ? std::numeric_limits<double>::infinity() : x < -limit ? -limit : static_cast<double>(static_cast<float>(x));
}
std::vector<int> by_definition(float const* row, float const* bias, fl::index_t experts, fl::index_t k, limits rule) {
  double const limit = static_cast<double>(std::numeric_limits<float>::max());
  std::vector<double> keys, group_keys;
  std::vector<int> candidates;
  for (int e = 0; e < experts; ++e) {
    auto const x = static_cast<double>(row[e]);
    double const score = std::min(x, limit);
    keys.push_back(bias == nullptr ? x : rounded(score + static_cast<double>(bias[e])));
    group_keys.push_back(bias == nullptr && rule.terms > 1 ? score : keys.back());
    if (x > -std::numeric_limits<double>::infinity()) { candidates.push_back(e); }
  }
  if (rule.terms > 0) {
    std::vector<std::pair<double, int>> groups;  // minus the score, so that ascending is best first, lowest id first
    for (int g = 0; g < rule.groups; ++g) {
      std::vector<double> mine;
      for (int const e : candidates) {
        if (e / (experts / rule.groups) == g) { mine.push_back(group_keys[static_cast<std::size_t>(e)]); }
      }
      std::sort(mine.rbegin(), mine.rend());
      if (mine.empty()) { continue; }
      mine.resize(std::min(mine.size(), static_cast<std::size_t>(rule.terms)));
      double sum = mine[0];
      for (std::size_t i = 1; i < mine.size(); ++i) { sum = rounded(sum + mine[i]); }
      groups.emplace_back(-sum, g);
    }
    std::sort(groups.begin(), groups.end());
    groups.resize(std::min(groups.size(), static_cast<std::size_t>(rule.kept)));
    candidates.erase(std::remove_if(candidates.begin(), candidates.end(), [&](int e) {
      return std::none_of(groups.begin(), groups.end(), [&](auto const& g) { return g.second == e / (experts / rule.groups); });
    }), candidates.end());
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [&](int a, int b) { return keys[static_cast<std::size_t>(a)] > keys[static_cast<std::size_t>(b)]; });
  candidates.resize(static_cast<std::size_t>(k), -1);
  return candidates;
}

struct tally {
  fl::index_t wrong = 0, rows = 0;
  template <class Router>
  void add(Router const& router, limits rule) {
    constexpr fl::index_t tokens = 11;
    std::vector<float> bias;
    if constexpr (fl::has_state<Router>) {  // of the logits' size, positive and negative, with ties
      for (fl::index_t e = 0; e < router.experts(); ++e) { bias.push_back(0.5F * static_cast<float>(e * 5 % 7 - 3)); }
    }
    fl::arena<> memory(router.workspace_bytes(tokens));
    for (auto const pattern : fl::workload::all_adversarial) {
      auto const scores = fl::workload::adversarial_scores{
          .tokens = tokens, .experts = router.experts(), .pattern = pattern, .seed = 21}.make();
      fl::routing<> out(tokens, router.k);
      fl::workspace ws = memory.view();
      if constexpr (fl::has_state<Router>) {
        router.route(fl::serial{}, scores.view(), {}, fl::expert_bias<>{bias, {}}, out.view(), ws);
      } else {
        router.route(fl::serial{}, scores.view(), {}, out.view(), ws);
      }
      for (fl::index_t t = 0; t < tokens; ++t, ++rows) {
        auto const want = by_definition(scores.view().row(t), bias.empty() ? nullptr : bias.data(), router.experts(),
                                        router.k, rule);
        for (fl::index_t j = 0; j < router.k; ++j) {
          wrong += fl::to_index(out.view().experts(t, j)) != want[static_cast<std::size_t>(j)] ? 1 : 0;
        }
      }
    }
  }
};
template <class Rule>
tally every_limit() {
  using plain = fl::token_choice<fl::raw_score, fl::group_limited<Rule>, fl::softmax_over_chosen>;
  using biased = fl::biased_token_choice<fl::raw_score, fl::group_limited<Rule>, fl::softmax_over_chosen>;
  tally result;
  for (fl::index_t const experts : {12, 64}) {
    for (fl::index_t const groups : {fl::index_t{1}, fl::index_t{2}, fl::index_t{4}, experts}) {
      for (fl::index_t const kept : {fl::index_t{1}, fl::index_t{2}, fl::index_t{3}, groups}) {
        for (fl::index_t const k : {1, 2, 3, 5, 8, 12}) {
          if (kept > groups || k > kept * (experts / groups)) { continue; }
          limits const rule{groups, kept, Rule::terms(k, kept)};
          result.add(plain{.experts = experts, .k = k, .selection = {groups, kept}}, rule);
          result.add(biased{.experts = experts, .k = k, .selection = {groups, kept}}, rule);
        }
      }
    }
  }
  return result;
}

}  // namespace

TEST_CASE("group-limited and biased selection equal a sort in double, for every rule, limit and adversarial pattern") {
  auto const exact = [](tally const& found) {
    CHECK(found.rows > 10000);
    CHECK(found.wrong == 0);
  };
  exact(every_limit<fl::group_maximum>());
  exact(every_limit<fl::group_top_two_sum>());
  exact(every_limit<fl::group_top_share_sum>());
  tally plain;
  for (fl::index_t const experts : {1, 7, 12, 64}) {
    for (fl::index_t const k : {1, 2, 5, 12}) {
      if (k > experts) { continue; }
      plain.add(fl::biased_token_choice<fl::raw_score, fl::plain_selection, fl::softmax_over_chosen>{.experts = experts, .k = k},
                {1, 1, 0});
    }
  }
  CHECK(plain.rows > 2000);
  CHECK(plain.wrong == 0);
}

TEST_CASE("a group rule that would add more than 16 keys is refused") {
  fl::matrix<float> scores(1, 64);
  using router = fl::token_choice<fl::softmax_score, fl::group_limited<fl::group_top_share_sum>, fl::sum_over_chosen>;
  CHECK_NOTHROW(routed(router{.experts = 64, .k = 16, .selection = {.groups = 2, .kept_groups = 1}}, fl::serial{},
                       scores.view(), {}));
  CHECK_THROWS_WITH(routed(router{.experts = 64, .k = 17, .selection = {.groups = 2, .kept_groups = 1}}, fl::serial{},
                           scores.view(), {}),
                    Catch::Contains("keep more groups"));
}

TEST_CASE("an expert of the table that does not exist is refused, except for masked tokens") {
  fl::matrix<float> scores(2, 4);
  for (int const wrong : {-2, 4, 1000}) {
    CAPTURE(wrong);
    std::vector<fl::expert_id> const table{static_cast<fl::expert_id>(3), static_cast<fl::expert_id>(-1),
                                           static_cast<fl::expert_id>(0), static_cast<fl::expert_id>(wrong)};
    fl::matrix_view<fl::expert_id const> const view(table.data(), 2, 2);
    std::vector<std::int32_t> const ids{0, 1}, harmless{0, 0};
    fl::external_ids const external{.experts = 4, .k = 2, .table = view};
    fl::hash_table_top_k const hashed{.experts = 4, .k = 2, .table = view};
    CHECK_THROWS_AS(routed(external, fl::serial{}, scores.view(), {}), fl::contract_violation);
    CHECK_THROWS_WITH(routed(hashed, fl::serial{}, scores.view(), {.token_ids = ids}), Catch::Contains("id of the table"));
    CHECK_NOTHROW(routed(hashed, fl::serial{}, scores.view(), {.token_ids = harmless}));
    std::vector<std::uint8_t> const first_only{1, 0};
    CHECK_NOTHROW(routed(external, fl::serial{}, scores.view(), {.token_mask = first_only}));
  }
}

TEST_CASE("weights of another shape than the experts and scales that are no factor are refused") {
  fl::matrix<float> scores(3, 4);
  fl::routing<> right(3, 2), narrow(3, 1), short_one(2, 2);
  auto const writes = [&](auto const& router, fl::routing_view out) {
    fl::arena<> memory(router.workspace_bytes(3));
    fl::workspace ws = memory.view();
    router.route(fl::serial{}, scores.view(), {}, out, ws);
  };
  fl::top_k const top{.experts = 4, .k = 2};
  CHECK_NOTHROW(writes(top, right.view()));
  CHECK_THROWS_WITH(writes(top, {right.view().experts, narrow.view().weights}), Catch::Contains("weights must be"));
  CHECK_THROWS_WITH(writes(top, {right.view().experts, short_one.view().weights}), Catch::Contains("weights must be"));
  CHECK_THROWS_AS(writes(fl::gshard_top_2{.experts = 4}, {right.view().experts, narrow.view().weights}),
                  fl::contract_violation);
  for (float const scale : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    CAPTURE(scale);
    CHECK_THROWS_WITH(writes(fl::top_k{.experts = 4, .k = 2, .scale = scale}, right.view()), Catch::Contains("finite"));
    CHECK_THROWS_WITH(writes(fl::gshard_top_2{.experts = 4, .scale = scale}, right.view()), Catch::Contains("finite"));
  }
  CHECK_NOTHROW(writes(fl::top_k{.experts = 4, .k = 2, .scale = 0.0F}, right.view()));
  for (float const scale : {0.0F, -1.0F}) {
    CHECK_THROWS_WITH(writes(fl::gshard_top_2{.experts = 4, .scale = scale}, right.view()), Catch::Contains("positive"));
  }
}

TEST_CASE("a biased router refuses a step that moves nothing the right way, and counts of other experts") {
  std::vector<fl::index_t> const counts{3, 1};
  fl::alone comm;
  using router_type = fl::with_controller<fl::sigmoid_bias_top_k, fl::sign_bias>;
  for (float const step : {-1e-3F, std::nanf("")}) {
    router_type const router{.experts = 2, .k = 1, .controller = {.step = step}};
    auto state = router.make_state();
    CHECK_THROWS_WITH(router.observe(fl::serial{}, comm, counts, state), Catch::Contains("step"));
    CHECK(state.values == std::vector<float>{0.0F, 0.0F});
  }
  router_type const wider{.experts = 3, .k = 1};
  auto state = wider.make_state();
  CHECK_THROWS_WITH(wider.observe(fl::serial{}, comm, counts, state), Catch::Contains("one count"));
}

TEST_CASE("bad shapes and fields are refused with advice") {
  fl::matrix<float> scores(2, 4);
  CHECK_THROWS_AS(routed(fl::top_k{.experts = 4, .k = 5}, fl::serial{}, scores.view(), {}), fl::contract_violation);
  CHECK_THROWS_AS(routed(fl::top_k{.experts = 5, .k = 2}, fl::serial{}, scores.view(), {}), fl::contract_violation);
  CHECK_THROWS_WITH(routed(fl::softmax_group_top_k{.experts = 4, .k = 2, .selection = {.groups = 3}}, fl::serial{},
                           scores.view(), {}),
                    Catch::Contains("divide experts"));
}
