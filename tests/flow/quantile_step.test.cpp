// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/flow/quantile_step.hpp>
#include <fairlead/workload/adversarial_scores.hpp>

#include "support/catch.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

namespace fl = fairlead;
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

// By full sorts, straight from the definition.
std::vector<double> sorted_step(fl::matrix<float> const& scores, fl::index_t fan_out,
                                std::vector<fl::index_t> const& capacity, std::vector<std::uint8_t> const& mask,
                                std::vector<double> const& prices) {
  auto const experts = static_cast<std::size_t>(scores.cols());
  std::vector<std::vector<double>> offers(experts);
  for (fl::index_t t = 0; t < scores.rows(); ++t) {
    if (!mask.empty() && mask[static_cast<std::size_t>(t)] == 0) { continue; }
    std::vector<double> keys;
    for (std::size_t e = 0; e < experts; ++e) {
      double const score = fl::assignable(scores(t, static_cast<fl::index_t>(e)));
      if (score > -infinity) { keys.push_back(score - prices[e]); }
    }
    std::sort(keys.begin(), keys.end(), std::greater<>{});
    double const alpha = keys.size() > static_cast<std::size_t>(fan_out) ? keys[static_cast<std::size_t>(fan_out)] : -infinity;
    for (std::size_t e = 0; e < experts; ++e) {
      double const score = fl::assignable(scores(t, static_cast<fl::index_t>(e)));
      if (score > -infinity) { offers[e].push_back(score - alpha); }
    }
  }
  std::vector<double> next(prices);
  for (std::size_t e = 0; e < experts; ++e) {
    std::sort(offers[e].begin(), offers[e].end(), std::greater<>{});
    auto const c = static_cast<std::size_t>(capacity[e]);
    if (c < offers[e].size()) {
      if (offers[e][c] < infinity) { next[e] = offers[e][c]; }
    } else if (c == offers[e].size() && c > 0) {
      next[e] = std::min(prices[e], offers[e][c - 1]);
    }
  }
  return next;
}

std::vector<double> step(fl::matrix_view<float const> scores, fl::index_t fan_out,
                         std::vector<fl::index_t> const& capacity, std::vector<std::uint8_t> const& mask,
                         std::vector<double> const& prices) {
  fl::arena<> memory(fl::quantile_step_bytes(scores.rows(), scores.cols(), fan_out));
  fl::workspace ws = memory.view();
  std::vector<double> next(prices.size(), 1e9);
  fl::quantile_step(fl::serial{}, scores, fan_out, capacity, mask, prices, next, ws);
  REQUIRE(ws.used() == 0);
  return next;
}

}  // namespace

TEST_CASE("A quantile step equals full sorts of the definition on every adversarial pattern") {
  for (auto const pattern : fl::workload::all_adversarial) {
    for (auto const& [tokens, experts] : {std::pair{0, 3}, {1, 2}, {7, 5}, {300, 3}, {600, 37}}) {
      auto const scores = fl::workload::adversarial_scores{tokens, experts, pattern, 5}.make();
      for (fl::index_t fan_out = 1; fan_out < std::min(experts, 4); ++fan_out) {
        std::vector<fl::index_t> capacity(static_cast<std::size_t>(experts));
        fl::even_capacity(tokens * fan_out, capacity);
        capacity[0] = 0;
        capacity.back() = tokens;
        std::vector<std::uint8_t> mask(static_cast<std::size_t>(tokens), 1);
        for (std::size_t t = 0; t < mask.size(); t += 3) { mask[t] = 0; }
        std::vector<double> prices(static_cast<std::size_t>(experts));
        for (std::size_t e = 0; e < prices.size(); ++e) { prices[e] = 0.25 * static_cast<double>(e % 5) - 0.5; }
        INFO(fl::workload::name(pattern) << ", " << tokens << " x " << experts << ", fan-out " << fan_out);
        REQUIRE(step(scores.view(), fan_out, capacity, {}, prices) == sorted_step(scores, fan_out, capacity, {}, prices));
        REQUIRE(step(scores.view(), fan_out, capacity, mask, prices) ==
                sorted_step(scores, fan_out, capacity, mask, prices));
      }
    }
  }
}

TEST_CASE("A quantile step leaves prices alone where there is no choice") {
  auto const scores = fl::workload::adversarial_scores{9, 3, fl::workload::adversarial::one_dominant, 1}.make();
  std::vector<double> const prices{0.5, -1.0, 2.0};
  REQUIRE(step(scores.view(), 3, {9, 9, 9}, {}, prices) == prices);
  REQUIRE(step(scores.view(), 0, {0, 0, 0}, {}, prices) == prices);
  REQUIRE(step(scores.view(), 1, {10, 10, 10}, {}, prices) == prices);
  REQUIRE(step(fl::matrix_view<float const>(nullptr, 0, 3), 1, {0, 0, 0}, {}, prices) == prices);
}

TEST_CASE("A quantile step reads strided scores and bfloat16") {
  fl::matrix<float> wide(40, 11);
  fl::matrix<float> tight(40, 7);
  fl::matrix<fl::bfloat16> half(40, 7);
  for (fl::index_t t = 0; t < 40; ++t) {
    for (fl::index_t e = 0; e < 11; ++e) { wide(t, e) = 1e6F; }
    for (fl::index_t e = 0; e < 7; ++e) {
      half(t, e) = fl::bfloat16(static_cast<float>(fl::philox::normal(3, 1, static_cast<std::uint64_t>(t * 7 + e))));
      tight(t, e) = half(t, e);
      wide(t, e) = tight(t, e);
    }
  }
  std::vector<fl::index_t> capacity(7);
  fl::even_capacity(80, capacity);
  std::vector<double> const prices(7, 0.0);
  auto const expected = step(tight.view(), 2, capacity, {}, prices);
  REQUIRE(step(fl::matrix_view<float const>(wide.data(), 40, 7, 11), 2, capacity, {}, prices) == expected);
  std::vector<double> next(7);
  fl::arena<> memory(fl::quantile_step_bytes(40, 7, 2));
  fl::workspace ws = memory.view();
  fl::quantile_step(fl::serial{}, fl::matrix_view<fl::bfloat16 const>(half.view()), 2, capacity, {}, prices, next, ws);
  REQUIRE(next == expected);
}

TEST_CASE("Subtracting the mean leaves a sum of about zero") {
  std::vector<double> prices{14.0, 0.0, 0.0};
  fl::subtract_mean(prices);
  REQUIRE(prices[0] == Approx(28.0 / 3));
  REQUIRE(std::fabs(prices[0] + prices[1] + prices[2]) < 1e-12);
  fl::subtract_mean({});
}

TEST_CASE("A quantile step refuses shapes that do not fit") {
  fl::matrix<float> scores(4, 3);
  std::vector<fl::index_t> capacity(3, 1);
  std::vector<double> prices(3), next(2);
  fl::workspace ws;
  REQUIRE_THROWS_AS(fl::quantile_step(fl::serial{}, fl::matrix_view<float const>(scores.view()), 1, capacity, {}, prices,
                                      next, ws), fl::contract_violation);
  REQUIRE_THROWS_AS(fl::quantile_step(fl::serial{}, fl::matrix_view<float const>(scores.view()), 4, capacity, {}, prices,
                                      prices, ws), fl::contract_violation);
}
