// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Golden values of the orders beyond S9 and of the biased ones' gradients: row (2, 1, 0, -1), k = 2, and what frameworks
// drop, against their definitions.
#include "support/catch.hpp"

#include <fairlead/comm/alone.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/dispatch/capacity.hpp>
#include <fairlead/dispatch/exchange.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/place/contiguous.hpp>
#include <fairlead/route/biased_token_choice.hpp>
#include <fairlead/route/fixed_choice.hpp>
#include <fairlead/route/noisy_top_k.hpp>
#include <fairlead/route/sampled_choice.hpp>
#include <fairlead/route/top_k.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace fl = fairlead;
using fl::index_t;

namespace {

std::vector<float> const row{2.0F, 1.0F, 0.0F, -1.0F};

struct answer {
  std::vector<int> ids;
  std::vector<double> weights, gradient;
};
template <class Router, class... State>
answer ask(Router const& router, fl::route_context const& context, State const&... state) {
  fl::arena<> memory(router.workspace_bytes(1));
  fl::workspace ws = memory.view();
  fl::matrix_view<float const> const logits(row.data(), 1, 4);
  fl::routing<> out(1, 2);
  fl::matrix<float> grad_weights(1, 2), grad_logits(1, 4);
  grad_weights(0, 0) = 1.0F;
  grad_weights(0, 1) = -0.5F;
  router.route(fl::serial{}, logits, context, state..., out.view(), ws);
  router.backward(fl::serial{}, logits, context, state..., std::as_const(out).view(), std::as_const(grad_weights).view(), grad_logits.view(), ws);
  answer a;
  for (index_t j = 0; j < 2; ++j) {
    a.ids.push_back(static_cast<int>(out.view().experts(0, j)));
    a.weights.push_back(static_cast<double>(out.view().weights(0, j)));
  }
  for (index_t e = 0; e < 4; ++e) { a.gradient.push_back(static_cast<double>(grad_logits(0, e))); }
  return a;
}
void require_near(std::vector<double> const& got, std::vector<double> const& want) {
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i, got[i], want[i]);
    CHECK(std::abs(got[i] - want[i]) <= 2e-7);
  }
}
// Runs loops backwards and says that it has four threads.
struct backwards : fl::serial {
  template <class Function>
  void for_each(index_t n, Function f) const {
    for (index_t i = n; i > 0; --i) { f(i - 1); }
  }
  [[nodiscard]] index_t concurrency() const noexcept { return 4; }
};
double logistic(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// Scores in double as a router's weights, k = 8 of many tokens: skewed to make experts overflow.
fl::routing<> skewed_routing(index_t tokens, index_t experts, index_t k, std::uint64_t seed) {
  fl::matrix<float> logits(tokens, experts);
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t e = 0; e < experts; ++e) {
      double const noise = fl::philox::normal(seed, static_cast<std::uint64_t>(t), static_cast<std::uint64_t>(e));
      logits(t, e) = static_cast<float>(std::round(4.0 * noise) / 4.0 - 0.3 * static_cast<double>(e));  // ties
    }
  }
  fl::softmax_top_k const router{.experts = experts, .k = k};
  fl::arena<> memory(router.workspace_bytes(tokens));
  fl::workspace ws = memory.view();
  fl::routing<> out(tokens, k);
  router.route(fl::serial{}, logits.view(), {}, out.view(), ws);
  return out;
}
template <class Dispatcher>
std::vector<char> kept_copies(Dispatcher const& dispatcher, fl::routing<> const& routed, index_t experts) {
  fl::alone comm;
  fl::serial on;
  auto const where = fl::contiguous_placement{}.initial(1, experts);
  fl::exchange_plan<> plan;
  fl::arena<> memory(dispatcher.workspace_bytes(routed.tokens() * routed.fan_out(), experts, 1));
  auto ws = memory.view();
  dispatcher.admit(on, routed.view(), {}, experts, plan, ws);
  fl::matrix<fl::count_t> kept(1, experts);
  dispatcher.limit(plan.count_row.as_matrix(1, 2 * experts + 1), where, routed.fan_out(), kept.view());
  dispatcher.plan(on, comm, routed.view(), where, std::as_const(kept).view(), plan, ws);
  std::vector<char> result;
  for (std::int32_t const at : plan.copy_to_outer.span()) { result.push_back(at >= 0 ? 1 : 0); }
  return result;
}

}  // namespace

TEST_CASE("S5: the gradient goes to the chosen sigmoids, none to the bias or the best logits left out") {
  auto const got = ask(fl::sigmoid_bias_top_k{.experts = 4, .k = 2}, {.phase = fl::phase::evaluate},
                       fl::expert_bias{{0.0F, 0.0F, 0.0F, 0.7F}});
  CHECK(got.ids == std::vector<int>{3, 0});
  double const a = logistic(-1.0), b = logistic(2.0), sum = a + b;
  // w = (a, b) / sum and g = (1, -1/2): d/da = 1.5 b / sum^2, d/db = -1.5 a / sum^2.
  require_near(got.gradient, {-1.5 * a / (sum * sum) * b * (1.0 - b), 0.0, 0.0, 1.5 * b / (sum * sum) * a * (1.0 - a)});
}

TEST_CASE("S10: a hash table chooses, sqrt(softplus) of the logits there weighs") {
  std::vector<fl::expert_id> const table{fl::expert_id{3}, fl::expert_id{2}, fl::expert_id{0}, fl::expert_id{1}};
  std::vector<std::int32_t> const second{1}, first{0};
  fl::hash_table_top_k const router{.experts = 4, .k = 2, .table = {table.data(), 2, 2}};
  auto const known = ask(router, {.phase = fl::phase::evaluate, .token_ids = second});
  CHECK(known.ids == std::vector<int>{0, 1});
  require_near(known.weights, {0.5599803737, 0.4400196263});  // V5
  require_near(known.gradient, {0.0765295556, -0.1028743302, 0.0, 0.0});
  auto const other = ask(router, {.phase = fl::phase::evaluate, .token_ids = first});
  CHECK(other.ids == std::vector<int>{3, 2});
  double const sum = 0.5596978538 + 0.8325546112;
  require_near(other.weights, {0.5596978538 / sum, 0.8325546112 / sum});
}

TEST_CASE("S11: ids from outside, weighed by the softmax over the logits there") {
  std::vector<fl::expert_id> const table{fl::expert_id{2}, fl::expert_id{0}};
  auto const got = ask(fl::external_ids{.experts = 4, .k = 2, .table = {table.data(), 1, 2}}, {.phase = fl::phase::evaluate});
  CHECK(got.ids == std::vector<int>{2, 0});
  double const w = logistic(-2.0);
  require_near(got.weights, {w, 1.0 - w});
  require_near(got.gradient, {-1.5 * w * (1.0 - w), 0.0, 1.5 * w * (1.0 - w), 0.0});
}

TEST_CASE("Megatron's drop by probability keeps the best copies of each expert, ties by token") {
  index_t const tokens = 60, experts = 6, k = 3;
  auto const routed = skewed_routing(tokens, experts, k, 5);
  fl::megatron_capacity const capacity{.factor = 0.8};
  index_t const places = capacity.places(tokens, experts, k, 1);
  std::vector<char> by_weight(static_cast<std::size_t>(tokens * k), 0), by_position = by_weight;
  for (index_t e = 0; e < experts; ++e) {
    std::vector<index_t> copies;
    for (index_t c = 0; c < tokens * k; ++c) {
      if (fl::to_index(routed.view().experts(c / k, c % k)) == e) { copies.push_back(c); }
    }
    for (std::size_t i = 0; i < copies.size() && static_cast<index_t>(i) < places; ++i) { by_position[static_cast<std::size_t>(copies[i])] = 1; }
    std::stable_sort(copies.begin(), copies.end(), [&](index_t a, index_t b) {
      return routed.view().weights(a / k, a % k) > routed.view().weights(b / k, b % k);
    });
    for (std::size_t i = 0; i < copies.size() && static_cast<index_t>(i) < places; ++i) { by_weight[static_cast<std::size_t>(copies[i])] = 1; }
  }
  REQUIRE(by_weight != by_position);
  CHECK(kept_copies(fl::exchange<fl::megatron_capacity, fl::weight_order>{.capacity = capacity}, routed, experts) == by_weight);
  CHECK(kept_copies(fl::exchange<fl::megatron_capacity>{.capacity = capacity}, routed, experts) == by_position);
}

TEST_CASE("no token left behind: four choices tried round by round, each served once, by its definition") {
  index_t const tokens = 60, experts = 6, k = 4;
  auto const routed = skewed_routing(tokens, experts, k, 6);
  for (index_t const places : {0, 1, 8, 10, 60}) {
    CAPTURE(places);
    std::vector<char> want(static_cast<std::size_t>(tokens * k), 0);
    std::vector<bool> served(static_cast<std::size_t>(tokens), false);
    std::vector<index_t> count(static_cast<std::size_t>(experts), 0);
    for (index_t j = 0; j < k; ++j) {
      for (index_t t = 0; t < tokens; ++t) {
        auto const e = static_cast<std::size_t>(fl::to_index(routed.view().experts(t, j)));
        if (served[static_cast<std::size_t>(t)] || count[e] >= places) { continue; }
        ++count[e];
        served[static_cast<std::size_t>(t)] = true;
        want[static_cast<std::size_t>(t * k + j)] = 1;
      }
    }
    fl::exchange<fl::fixed_capacity<>, fl::token_order, fl::next_choice> const policy{.capacity = {places}};
    CHECK(kept_copies(policy, routed, experts) == want);
  }
}

TEST_CASE("noise and draws do not depend on the order in which rows are handled") {
  auto const equal = [](auto const& router) {
    index_t const tokens = 300, columns = fl::logit_columns(router), k = router.fan_out();
    fl::matrix<float> logits(tokens, columns), grad_weights(tokens, k), one(tokens, columns), two(tokens, columns);
    std::uint64_t index = 0;
    for (float& l : logits.span()) { l = static_cast<float>(fl::philox::normal(1, 2, index++)); }
    for (float& g : grad_weights.span()) { g = static_cast<float>(fl::philox::normal(1, 3, index++)); }
    fl::arena<> memory(router.workspace_bytes(tokens));
    fl::workspace ws = memory.view();
    fl::routing<> a(tokens, k), b(tokens, k);
    fl::route_context const context{.seed = 9};
    router.route(fl::serial{}, logits.view(), context, a.view(), ws);
    router.route(backwards{}, logits.view(), context, b.view(), ws);
    router.backward(fl::serial{}, logits.view(), context, std::as_const(a).view(), std::as_const(grad_weights).view(), one.view(), ws);
    router.backward(backwards{}, logits.view(), context, std::as_const(b).view(), std::as_const(grad_weights).view(), two.view(), ws);
    auto const bytes = static_cast<std::size_t>(tokens * k) * 4;
    return std::memcmp(a.view().experts.data(), b.view().experts.data(), bytes) == 0 &&
           std::memcmp(a.view().weights.data(), b.view().weights.data(), bytes) == 0 &&
           std::memcmp(one.data(), two.data(), one.span().size_bytes()) == 0;
  };
  CHECK(equal(fl::noisy_top_k{.experts = 12, .k = 3}));
  CHECK(equal(fl::sampled_top_k{.experts = 12, .k = 3, .certain = 1}));
}
