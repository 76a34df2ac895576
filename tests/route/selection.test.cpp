// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Selection against a sort in double precision, on every width, and on threads against serial.
#include "support/catch.hpp"

#include <fairlead/core/matrix.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/exec/threads.hpp>
#include <fairlead/route/biased_token_choice.hpp>
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

TEST_CASE("bad shapes and fields are refused with advice") {
  fl::matrix<float> scores(2, 4);
  CHECK_THROWS_AS(routed(fl::top_k{.experts = 4, .k = 5}, fl::serial{}, scores.view(), {}), fl::contract_violation);
  CHECK_THROWS_AS(routed(fl::top_k{.experts = 5, .k = 2}, fl::serial{}, scores.view(), {}), fl::contract_violation);
  CHECK_THROWS_WITH(routed(fl::softmax_group_top_k{.experts = 4, .k = 2, .selection = {.groups = 3}}, fl::serial{},
                           scores.view(), {}),
                    Catch::Contains("divide experts"));
}
