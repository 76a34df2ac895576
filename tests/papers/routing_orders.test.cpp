// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Golden vectors of the selection orders: row (2, 1, 0, -1), k = 2, fp64 values rounded to ten digits.
#include "support/catch.hpp"

#include <fairlead/balance/sign_bias.hpp>
#include <fairlead/comm/alone.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/route/biased_token_choice.hpp>
#include <fairlead/route/top_k.hpp>

#include <array>
#include <vector>

namespace fl = fairlead;

namespace {

struct answer {
  std::vector<int> ids;
  std::vector<double> weights;
  std::vector<double> gradient;
};

template <class Router>
answer ask(Router const& router, std::vector<float> const& row, std::vector<float> const& bias = {}) {
  auto const experts = static_cast<fl::index_t>(row.size());
  fl::arena<> memory(router.workspace_bytes(1));
  fl::workspace ws = memory.view();
  fl::matrix_view<float const> const logits(row.data(), 1, experts);
  fl::routing<> out(1, router.fan_out());
  fl::matrix<float> grad_weights(1, router.fan_out());
  fl::matrix<float> grad_logits(1, experts);
  for (fl::index_t j = 0; j < router.fan_out(); ++j) { grad_weights(0, j) = j == 0 ? 1.0F : -0.5F; }
  fl::route_context const context{.phase = fl::phase::evaluate};
  if constexpr (fl::has_state<Router>) {
    fl::expert_bias<> const state{bias, {}};
    router.route(fl::serial{}, logits, context, state, out.view(), ws);
    router.backward(fl::serial{}, logits, context, state, out.view(), grad_weights.view(), grad_logits.view(), ws);
  } else {
    router.route(fl::serial{}, logits, context, out.view(), ws);
    router.backward(fl::serial{}, logits, context, out.view(), grad_weights.view(), grad_logits.view(), ws);
  }
  answer result;
  for (fl::index_t j = 0; j < router.fan_out(); ++j) {
    result.ids.push_back(static_cast<int>(out.view().experts(0, j)));
    result.weights.push_back(static_cast<double>(out.view().weights(0, j)));
  }
  for (fl::index_t e = 0; e < experts; ++e) { result.gradient.push_back(static_cast<double>(grad_logits(0, e))); }
  return result;
}

void require_near(std::vector<double> const& got, std::vector<double> const& want, double margin = 2e-7) {
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i);
    CHECK(got[i] == Approx(want[i]).margin(margin).epsilon(0));
  }
}

std::vector<float> const row{2.0F, 1.0F, 0.0F, -1.0F};
std::vector<int> const first_two{0, 1};
std::vector<float> const v6{-3.0F, -0.2F, -0.5F, -0.4F, -4.0F, 0.3F, -0.1F, -2.0F};

}  // namespace

TEST_CASE("V1: softmax_top_k weighs by the full softmax, and its gradient reaches all logits") {
  auto const got = ask(fl::softmax_top_k{.experts = 4, .k = 2}, row);
  CHECK(got.ids == first_two);
  require_near(got.weights, {0.6439142599, 0.2368828181});
  require_near(got.gradient, {0.3055547980, -0.2429168988, -0.0457919736, -0.0168459257});
}

TEST_CASE("V2: top_k weighs by the softmax over the chosen, and its gradient stays with the chosen") {
  auto const got = ask(fl::top_k{.experts = 4, .k = 2}, row);
  CHECK(got.ids == first_two);
  require_near(got.weights, {0.7310585786, 0.2689414214});
  require_near(got.gradient, {0.2949178999, -0.2949178999, 0.0, 0.0});
}

TEST_CASE("V2: softmax_top_k_renormalised gives the same values by another order") {
  auto const got = ask(fl::softmax_top_k_renormalised{.experts = 4, .k = 2}, row);
  CHECK(got.ids == first_two);
  require_near(got.weights, {0.7310585786, 0.2689414214});
  require_near(got.gradient, {0.2949178999, -0.2949178999, 0.0, 0.0});
}

TEST_CASE("V3: sigmoid_top_k divides by the sum of the chosen sigmoids") {
  auto const got = ask(fl::sigmoid_top_k{.experts = 4, .k = 2}, row);
  CHECK(got.ids == first_two);
  require_near(got.weights, {0.5464491032, 0.4535508968});
  require_near(got.gradient, {0.0443153219, -0.0999826636, 0.0, 0.0});
}

TEST_CASE("V4: top_k_sigmoid weighs by the sigmoid") {
  auto const got = ask(fl::top_k_sigmoid{.experts = 4, .k = 2}, row);
  CHECK(got.ids == first_two);
  require_near(got.weights, {0.8807970780, 0.7310585786});
  require_near(got.gradient, {0.1049935854, -0.0983059666, 0.0, 0.0});
}

TEST_CASE("V5: sqrt_softplus_top_k divides by the sum of the chosen scores") {
  auto const got = ask(fl::sqrt_softplus_top_k{.experts = 4, .k = 2}, row);
  CHECK(got.ids == first_two);
  require_near(got.weights, {0.5599803737, 0.4400196263});
  require_near(got.gradient, {0.0765295556, -0.1028743302, 0.0, 0.0});
}

TEST_CASE("S5: the bias changes the choice and not the weight") {
  auto const got = ask(fl::sigmoid_bias_top_k{.experts = 4, .k = 2}, row, {0.0F, 0.0F, 0.0F, 0.7F});
  CHECK(got.ids == std::vector<int>{3, 0});
  require_near(got.weights, {0.2339152960, 0.7660847040});
}

TEST_CASE("V6: experts outside the kept groups are masked with -inf, not 0") {
  fl::sigmoid_bias_group_top_k const router{
      .experts = 8, .k = 3, .selection = {.groups = 4, .kept_groups = 2}};
  auto const got = ask(router, v6, std::vector<float>(8, -1.0F));
  CHECK(got.ids == std::vector<int>{6, 3, 2});
  require_near(got.weights, {0.3788425952, 0.3200579940, 0.3010994108});
}

TEST_CASE("V6: the maximum rule keeps other groups than the top-two rule") {
  fl::biased_token_choice<fl::sigmoid_score, fl::group_limited<fl::group_maximum>> const router{
      .experts = 8, .k = 3, .selection = {.groups = 4, .kept_groups = 2}};
  auto const got = ask(router, v6, std::vector<float>(8, -1.0F));
  CHECK(got.ids == std::vector<int>{5, 6, 7});
  require_near(got.weights, {0.4915368405, 0.4064640456, 0.1019991138});
}

TEST_CASE("V7: where sigmoids underflow the tiny denominator shows, and nothing is NaN") {
  fl::sigmoid_top_k const router{.experts = 2, .k = 2};
  require_near(ask(router, {-17.0F, -18.0F}).weights, {0.73106, 0.26894}, 1e-5);
  require_near(ask(router, {-50.0F, -51.0F}).weights, {0.0187917, 0.0069131}, 1e-7);
  auto const tiny = ask(router, {-100.0F, -101.0F}).weights;
  CHECK(tiny[0] + tiny[1] == Approx(5e-24).epsilon(0.1));
  CHECK(ask(router, {-200.0F, -201.0F}).weights == std::vector<double>{0.0, 0.0});
}

TEST_CASE("V10: the sign rule moves each bias by its step against its load") {
  fl::with_controller<fl::sigmoid_bias_top_k, fl::sign_bias> const router{
      .experts = 4, .k = 1, .controller = {.step = 1e-3F}};
  auto state = router.make_state();
  std::array<fl::index_t, 4> const counts{10, 2, 6, 6};
  fl::alone comm;
  router.observe(fl::serial{}, comm, counts, state);
  CHECK(state.values == std::vector<float>{-1e-3F, 1e-3F, 0.0F, 0.0F});
}
