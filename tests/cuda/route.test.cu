// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Token-choice routers: the device must choose what the host chooses, bit for bit.
#include <fairlead/exec/serial.hpp>
#include <fairlead/route/biased_token_choice.cuh>
#include <fairlead/route/fixed_choice.cuh>
#include <fairlead/route/gshard_top_2.cuh>
#include <fairlead/route/switch_top_1.hpp>
#include <fairlead/route/top_k.cuh>

#include "cuda/support.cuh"

#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

namespace {
namespace fl = fairlead;
using fl::index_t;
using fairlead_test::download;
using fairlead_test::upload;

// Rows that break selections: ties, equal zeros, NaN, infinities, too few candidates, subnormal and saturated numbers.
std::vector<float> adversarial_logits(index_t tokens, index_t experts) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> logits(static_cast<std::size_t>(tokens * experts));
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t e = 0; e < experts; ++e) {
      auto const i = static_cast<std::size_t>(t * experts + e);
      float const x = static_cast<float>(fl::philox::normal(5, 1, i));
      auto const word = fl::philox::draw(5, 2, i)[0];
      float value = x;
      switch (t % 16) {
        case 1: value = 0.25F; break;                                        // all equal
        case 2: value = std::floor(2.0F * x); break;                         // many ties
        case 3: value = word % 2U != 0U ? 0.0F : -0.0F; break;               // zeros of both signs
        case 4: value = nan; break;
        case 5: value = word % 3U != 0U ? nan : x; break;
        case 6: value = -infinity; break;
        case 7: value = e == experts / 2 ? 1.0F : -infinity; break;          // one candidate
        case 8: value = word % 5U == 0U ? infinity : x; break;               // several largest
        case 9: value = 100.0F * x; break;                                   // saturated scores
        case 10: value = x * 1e-42F; break;                                  // subnormal
        case 11: value = static_cast<float>(e); break;                       // ascending
        case 12: value = -static_cast<float>(e); break;                      // descending
        case 13: value = word % 2U != 0U ? std::numeric_limits<float>::max() : -std::numeric_limits<float>::max(); break;
        case 14: value = -50.0F - 0.001F * x; break;                         // tiny scores, near ties
        case 15: value = -3e38F; break;                                      // sums below the range of fp32
        default: break;
      }
      logits[i] = value;
    }
  }
  return logits;
}

struct result {
  std::vector<fl::expert_id> ids;
  std::vector<float> weights, grad_logits;
};

struct call {
  index_t tokens;
  bool masked;
  fl::phase phase = fl::phase::train;
};

template <class Router, class Backend>
result run(Router router, call const& how, Backend const& on) {
  using space = typename Backend::memory_space;
  index_t const experts = router.experts();
  index_t const tokens = how.tokens;
  auto const logits_memory = upload(on, adversarial_logits(tokens, experts));
  std::vector<std::uint8_t> token_mask(static_cast<std::size_t>(tokens)), expert_mask(static_cast<std::size_t>(experts));
  for (std::size_t t = 0; t < token_mask.size(); ++t) { token_mask[t] = t % 5 != 3 ? 1 : 0; }
  for (std::size_t e = 0; e < expert_mask.size(); ++e) { expert_mask[e] = e % 3 != 1 ? 1 : 0; }
  auto const token_mask_memory = upload(on, token_mask);
  auto const expert_mask_memory = upload(on, expert_mask);
  auto const grad_memory = upload(on, fairlead_test::normals(tokens * router.fan_out(), 9));
  fl::route_context context{.phase = how.phase, .seed = 11, .step = 4, .first_token = 1000};
  if (how.masked) {
    context.token_mask = token_mask_memory.span();
    context.expert_mask = expert_mask_memory.span();
  }
  // Table routers: ids that repeat no expert in a row, some of them none.
  std::vector<std::int32_t> token_ids(static_cast<std::size_t>(tokens));
  for (std::size_t t = 0; t < token_ids.size(); ++t) { token_ids[t] = static_cast<std::int32_t>(t * 5 % token_ids.size()); }
  auto const token_id_memory = upload(on, token_ids);
  context.token_ids = token_id_memory.span();
  std::vector<fl::expert_id> table;
  for (index_t i = 0; i < tokens * router.fan_out(); ++i) {
    index_t const expert = (i / router.fan_out() * 3 + i % router.fan_out()) % experts;
    table.push_back(i % 13 == 12 ? fl::expert_id::none : static_cast<fl::expert_id>(expert));
  }
  auto const table_memory = upload(on, table);
  if constexpr (requires { router.table; }) { router.table = {table_memory.data(), tokens, router.fan_out()}; }
  fl::arena<space> memory(router.workspace_bytes(tokens));
  fl::workspace ws = memory.view();
  fl::routing<space> routed(tokens, router.fan_out());
  fl::buffer<float, space> grad_logits_memory(tokens * experts);
  fl::matrix_view<float const> const logits(logits_memory.data(), tokens, experts);
  fl::matrix_view<float const> const grad_weights(grad_memory.data(), tokens, router.fan_out());
  fl::matrix_view<float> const grad_logits(grad_logits_memory.data(), tokens, experts);
  auto const out = routed.view();
  if constexpr (fl::has_state<Router>) {
    auto state = router.make_state();
    for (std::size_t e = 0; e < state.values.size(); ++e) { state.values[e] = 0.01F * static_cast<float>(e % 7); }
    router.route(on, logits, context, state, out, ws);
    router.backward(on, logits, context, state, out, grad_weights, grad_logits, ws);
  } else {
    router.route(on, logits, context, out, ws);
    router.backward(on, logits, context, out, grad_weights, grad_logits, ws);
  }
  REQUIRE(ws.used() == 0);
  return {download(on, out.experts.data(), tokens * router.fan_out()),
          download(on, out.weights.data(), tokens * router.fan_out()), download(on, grad_logits_memory)};
}

bool same_bits(std::vector<float> const& a, std::vector<float> const& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

template <class Router>
void compare(char const* name, Router const& router, call const& how) {
  fl::cuda_stream_owner const stream;
  auto const device = run(router, how, stream.get());
  auto const host = run(router, how, fl::serial{});
  INFO(name << ", experts " << router.experts() << ", k " << router.fan_out() << ", tokens " << how.tokens << ", masked " << how.masked);
  REQUIRE(device.ids == host.ids);
  REQUIRE(same_bits(device.weights, host.weights));
  REQUIRE(fairlead_test::distance(device.grad_logits, host.grad_logits) < 1e-6);
}

template <class Router>
void sweep(char const* name) {
  struct size { index_t experts, k; };
  for (size const s : {size{1, 1}, size{8, 2}, size{64, 8}, size{200, 4}, size{256, 40}, size{512, 16}, size{600, 3}}) {
    Router router{.experts = s.experts, .k = s.k, .scale = 1.5F};
    if constexpr (Router::selection_type::limits_groups) {
      if (s.experts % 8 != 0 || s.k > s.experts / 2) { continue; }
      router.selection = {.groups = 8, .kept_groups = 4};
    }
    compare(name, router, {37, false});
    compare(name, router, {37, true, fl::phase::evaluate});
  }
}

}  // namespace

TEST_CASE("every token-choice router gives the host's ids and weights on a device, bit for bit") {
  FAIRLEAD_NEEDS_DEVICES(1);
  sweep<fl::top_k>("top_k");
  sweep<fl::softmax_top_k>("softmax_top_k");
  sweep<fl::sigmoid_top_k>("sigmoid_top_k");
  sweep<fl::top_k_sigmoid>("top_k_sigmoid");
  sweep<fl::sqrt_softplus_top_k>("sqrt_softplus_top_k");
  sweep<fl::softmax_group_top_k>("softmax_group_top_k");
}

TEST_CASE("biased and group-limited routers choose by the host's keys, softmax sums included") {
  FAIRLEAD_NEEDS_DEVICES(1);
  sweep<fl::sigmoid_bias_top_k>("sigmoid_bias_top_k");
  sweep<fl::sigmoid_bias_group_top_k>("sigmoid_bias_group_top_k");
  sweep<fl::biased_token_choice<fl::softmax_score, fl::plain_selection>>("softmax + bias");
  sweep<fl::token_choice<fl::softmax_score, fl::group_limited<fl::group_top_share_sum>, fl::not_renormalised>>("group share sum");
  // Sums of raw logits leave the range of fp32: such groups keep their candidates.
  sweep<fl::token_choice<fl::raw_score, fl::group_limited<fl::group_top_two_sum>, fl::softmax_over_chosen>>("group sums of logits");
}

TEST_CASE("noise is the same random number on host and device") {
  FAIRLEAD_NEEDS_DEVICES(1);
  for (auto const phase : {fl::phase::train, fl::phase::evaluate, fl::phase::recompute}) {
    compare("jitter", fl::with_noise<fl::softmax_top_k, fl::multiplicative_jitter>{.experts = 61, .k = 4}, {50, true, phase});
    compare("normal", fl::with_noise<fl::top_k, fl::fixed_noise>{.experts = 130, .k = 6}, {50, false, phase});
    compare("long rows", fl::with_noise<fl::sigmoid_bias_top_k, fl::fixed_noise>{.experts = 700, .k = 6}, {20, true, phase});
  }
}

TEST_CASE("zero tokens and tokens beyond one wave of long rows are routed") {
  FAIRLEAD_NEEDS_DEVICES(1);
  compare("none", fl::top_k{.experts = 16, .k = 2}, {0, false});
  compare("one", fl::top_k{.experts = 1000, .k = 2}, {1, false});
  compare("many", fl::softmax_top_k{.experts = 520, .k = 2}, {200, false});
}

TEST_CASE("groups of every number and size, and up to 64 choices, are those of the host") {
  FAIRLEAD_NEEDS_DEVICES(1);
  struct shape { index_t experts, k, groups, kept; };
  for (shape const s : {shape{8, 3, 4, 2}, shape{64, 8, 64, 8}, shape{64, 1, 1, 1}, shape{60, 12, 15, 7}, shape{512, 64, 8, 4},
                        shape{256, 8, 8, 4}, shape{640, 8, 40, 5}, shape{512, 64, 64, 63}}) {
    auto const both = [&](char const* name, auto router) {
      router.experts = s.experts;
      router.k = s.k;
      router.selection = {.groups = s.groups, .kept_groups = s.kept};
      compare(name, router, {21, false});
      compare(name, router, {21, true});
    };
    using bias_max = fl::biased_token_choice<fl::sigmoid_score, fl::group_limited<fl::group_maximum>>;
    using bias_share = fl::biased_token_choice<fl::sigmoid_score, fl::group_limited<fl::group_top_share_sum>>;
    both("bias, sum of two", fl::sigmoid_bias_group_top_k{});
    both("bias, maximum", bias_max{});
    both("maximum of logits", fl::softmax_group_top_k{});
    if (s.k / s.kept <= 16) { both("bias, share sum", bias_share{}); }
  }
  for (index_t const experts : {64, 100, 512, 601}) {
    compare("all slots", fl::sigmoid_bias_top_k{.experts = experts, .k = 64}, {21, true});
    compare("all slots", fl::top_k{.experts = experts, .k = 64}, {21, false});
  }
}

TEST_CASE("negative biased keys: no masked group gets a token on a device") {
  FAIRLEAD_NEEDS_DEVICES(1);
  fl::cuda_stream_owner const stream;
  auto const on = stream.get();
  auto const logits = upload(on, std::vector<float>{-3.0F, -0.2F, -0.5F, -0.4F, -4.0F, 0.3F, -0.1F, -2.0F});
  auto const route = [&](auto router) {
    auto state = router.make_state();
    for (auto& value : state.values) { value = -1.0F; }
    fl::arena<fl::device_space> memory(router.workspace_bytes(1));
    fl::workspace ws = memory.view();
    fl::routing<fl::device_space> routed(1, 3);
    auto const out = routed.view();
    router.route(on, {logits.data(), 1, 8}, {}, state, out, ws);
    return std::pair{download(on, out.experts.data(), 3), download(on, out.weights.data(), 3)};
  };
  auto const id = [](int e) { return static_cast<fl::expert_id>(e); };
  auto const [sum_ids, sum_weights] = route(fl::sigmoid_bias_group_top_k{.experts = 8, .k = 3, .selection = {.groups = 4, .kept_groups = 2}});
  REQUIRE(sum_ids == std::vector<fl::expert_id>{id(6), id(3), id(2)});
  REQUIRE(fairlead_test::distance(sum_weights, std::vector<double>{0.3788425952, 0.3200579940, 0.3010994108}) < 1e-6);
  using by_maximum = fl::biased_token_choice<fl::sigmoid_score, fl::group_limited<fl::group_maximum>>;
  auto const [max_ids, max_weights] = route(by_maximum{.experts = 8, .k = 3, .selection = {.groups = 4, .kept_groups = 2}});
  REQUIRE(max_ids == std::vector<fl::expert_id>{id(5), id(6), id(7)});
  REQUIRE(fairlead_test::distance(max_weights, std::vector<double>{0.4915368405, 0.4064640456, 0.1019991138}) < 1e-6);
}

TEST_CASE("routers by table, switch and GShard routers are the host's on a device") {
  FAIRLEAD_NEEDS_DEVICES(1);
  for (index_t const experts : {2, 8, 70, 600}) {
    for (bool const masked : {false, true}) {
      index_t const k = experts < 40 ? 2 : 40;
      compare("hash table", fl::hash_table_top_k{.experts = experts, .k = k}, {37, masked});
      compare("external ids", fl::external_ids{.experts = experts, .k = k}, {37, masked});
      using shares = fl::table_choice<fl::row_by_token_id, fl::softmax_score, fl::not_renormalised>;
      compare("shares of the row", shares{.experts = experts, .k = k}, {37, masked});
      compare("switch", fl::switch_top_1{.experts = experts}, {37, masked});
      for (auto const keep : {fl::keep_second::always, fl::keep_second::never, fl::keep_second::above_threshold, fl::keep_second::random}) {
        compare("gshard", fl::gshard_top_2{.experts = experts, .training = keep}, {37, masked});
      }
    }
  }
  compare("gshard, evaluation", fl::gshard_top_2{.experts = 16, .evaluation = fl::keep_second::never}, {20, false, fl::phase::evaluate});
}
