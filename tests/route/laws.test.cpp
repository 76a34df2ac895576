// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The law kit over every router, and the kit over routers with planted faults.
#include "support/catch.hpp"

#include <fairlead/laws/router.hpp>
#include <fairlead/route/biased_token_choice.hpp>
#include <fairlead/route/fixed_choice.hpp>
#include <fairlead/route/gshard_top_2.hpp>
#include <fairlead/route/switch_top_1.hpp>
#include <fairlead/route/top_k.hpp>

#include <algorithm>
#include <limits>
#include <vector>

namespace fl = fairlead;

TEMPLATE_TEST_CASE("every token-choice router keeps the laws", "", fl::top_k, fl::softmax_top_k,
                   fl::softmax_top_k_renormalised, fl::sigmoid_top_k, fl::top_k_sigmoid, fl::sqrt_softplus_top_k,
                   fl::sigmoid_bias_top_k, (fl::with_noise<fl::top_k, fl::fixed_noise>),
                   (fl::with_noise<fl::sigmoid_bias_top_k, fl::multiplicative_jitter>)) {
  for (auto const& [experts, k] : {std::pair<int, int>{1, 1}, {3, 2}, {8, 1}, {20, 4}}) {
    CAPTURE(experts, k);
    TestType const router{.experts = experts, .k = k, .scale = 1.5F};
    CHECK(fl::laws::check_router(router, {.tokens = 37, .skew = 1.0, .seed = 3}));
  }
}

TEMPLATE_TEST_CASE("group-limited routers keep the laws", "", fl::softmax_group_top_k, fl::sigmoid_bias_group_top_k,
                   (fl::token_choice<fl::softmax_score, fl::group_limited<fl::group_top_share_sum>,
                                     fl::sum_over_chosen, fl::multiplicative_jitter>)) {
  TestType const router{.experts = 16, .k = 4, .selection = {.groups = 4, .kept_groups = 2}};
  CHECK(fl::laws::check_router(router, {.tokens = 35, .skew = 0.5, .seed = 4, .best_win = false}));
  auto const unlimited = fl::laws::check_router(router, {.tokens = 35, .skew = 0.5, .seed = 4});
  CHECK_FALSE(unlimited);  // groups keep better experts out, or leave slots empty under masks
}

TEST_CASE("switch_top_1 and gshard_top_2 keep the laws") {
  CHECK(fl::laws::check_router(fl::switch_top_1{.experts = 8}, {.tokens = 33, .seed = 5}));
  CHECK(fl::laws::check_router(fl::gshard_top_2{.experts = 8}, {.tokens = 33, .seed = 6}));
  CHECK(fl::laws::check_router(fl::gshard_top_2{.experts = 8, .training = fl::keep_second::above_threshold},
                               {.tokens = 33, .seed = 6}));
}

TEST_CASE("table routers keep the laws") {
  std::vector<fl::expert_id> table;
  for (int row = 0; row < 64; ++row) {
    table.push_back(static_cast<fl::expert_id>(row % 8));
    table.push_back(static_cast<fl::expert_id>((row * 3 + 1) % 8 == row % 8 ? -1 : (row * 3 + 1) % 8));
  }
  fl::matrix_view<fl::expert_id const> const view(table.data(), 64, 2);
  CHECK(fl::laws::check_router(fl::hash_table_top_k{.experts = 8, .k = 2, .table = view},
                               {.tokens = 40, .seed = 7, .by_score = false}));
  CHECK(fl::laws::check_router(fl::external_ids{.experts = 8, .k = 2, .table = view},
                               {.tokens = 40, .seed = 7, .by_score = false}));
}

namespace {

enum class fault {
  none, duplicate, tie, peek, weight_on_none, nan_weight, nan_chosen, mask, forgets_row, gradient, lowest, one_short, empty
};

// Right except for one planted fault.
struct faulty {
  fault what = fault::none;
  fl::index_t n = 6;
  [[nodiscard]] fl::index_t experts() const { return n; }
  [[nodiscard]] fl::index_t fan_out() const { return 2; }
  [[nodiscard]] std::size_t workspace_bytes(fl::index_t tokens) const { return good().workspace_bytes(tokens); }
  [[nodiscard]] fl::top_k good() const { return {.experts = n, .k = 2, .selection = {}, .noise = {}}; }
  template <class Backend>
  void route(Backend const& on, fl::matrix_view<float const> logits, fl::route_context const& given,
             fl::routing_view out, fl::workspace& ws) const {
    fl::route_context context = given;
    if (what == fault::mask) { context.token_mask = {}; }
    if (what == fault::lowest) {
      fl::matrix<float> turned(logits.rows(), n);
      for (fl::index_t t = 0; t < logits.rows(); ++t) {
        for (fl::index_t e = 0; e < n; ++e) {
          turned(t, e) = fl::is_candidate(logits(t, e)) ? std::max(-logits(t, e), std::numeric_limits<float>::lowest())
                                                        : logits(t, e);
        }
      }
      good().route(on, turned.view(), context, out, ws);
      return;
    }
    good().route(on, logits, context, out, ws);
    for (fl::index_t t = 0; t < logits.rows(); ++t) {
      auto const none = [&](fl::index_t j) { return out.experts(t, j) == fl::expert_id::none; };
      if (what == fault::duplicate && !none(1)) { out.experts(t, 1) = out.experts(t, 0); }
      bool all_equal = true;
      for (fl::index_t e = 1; e < n; ++e) { all_equal = all_equal && logits(t, e) == logits(t, 0); }
      if (what == fault::tie && context.expert_mask.empty() && !none(1) && all_equal) {
        out.experts(t, 0) = static_cast<fl::expert_id>(n - 1);
      }
      if (what == fault::peek && !none(1) && logits(0, 0) > logits(t, 0)) {
        std::swap(out.experts(t, 0), out.experts(t, 1));
      }
      for (fl::index_t j = what == fault::empty ? 0 : 1; (what == fault::empty || what == fault::one_short) && j < 2; ++j) {
        out.experts(t, j) = fl::expert_id::none;
        out.weights(t, j) = 0.0F;
      }
      if (what == fault::weight_on_none && none(1)) { out.weights(t, 1) = 0.5F; }
      if (what == fault::nan_weight && none(1)) { out.weights(t, 1) = std::numeric_limits<float>::quiet_NaN(); }
      if (what == fault::nan_chosen && none(1) && !none(0)) {
        out.experts(t, 1) = static_cast<fl::expert_id>((fl::to_index(out.experts(t, 0)) + 1) % n);
      }
      if (what == fault::forgets_row && t == 3) { out.weights(t, 0) = -out.weights(t, 1); }
    }
  }
  template <class Backend>
  void backward(Backend const& on, fl::matrix_view<float const> logits, fl::route_context const& context,
                fl::const_routing_view out, fl::matrix_view<float const> grad_weights,
                fl::matrix_view<float> grad_logits, fl::workspace& ws) const {
    good().backward(on, logits, context, out, grad_weights, grad_logits, ws);
    if (what == fault::gradient && logits.rows() > 2) { grad_logits(2, 1) += 0.05F; }
  }
};

}  // namespace
template <>
inline constexpr bool fairlead::causal<faulty> = true;

TEST_CASE("the law kit passes a right router and names each planted fault") {
  fl::laws::router_problem const problem{.tokens = 24, .skew = 1.0, .seed = 3};
  CHECK(fl::laws::check_router(faulty{}, problem));
  auto const says = [&](fault what, char const* law) {
    auto const found = fl::laws::check_router(faulty{what}, problem);
    CAPTURE(found.reason());
    CHECK_FALSE(found);
    CHECK(found.reason().find(law) != std::string::npos);
  };
  says(fault::duplicate, "distinct");
  says(fault::tie, "of equal scores the lowest ids win");
  says(fault::peek, "batch-mates");
  says(fault::weight_on_none, "a slot without expert has weight 0");
  says(fault::nan_weight, "weights are finite");
  says(fault::nan_chosen, "never chosen");
  says(fault::mask, "a masked token is routed nowhere");
  says(fault::forgets_row, "batch-mates");
  says(fault::gradient, "central differences");
  says(fault::lowest, "the best scores win");
  says(fault::one_short, "no slot is none while candidates are left");
  says(fault::empty, "a token with a candidate has an expert");
  fl::laws::router_problem limited = problem;  // what a router under a group rule is held to
  limited.best_win = false;
  CHECK(fl::laws::check_router(faulty{fault::empty}, limited).reason().find("has an expert") != std::string::npos);
}
