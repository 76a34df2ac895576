// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Worked examples of routers that look at the batch: Megatron's Sinkhorn (V11), SonicMoE's token rounding (P4).
#include "support/catch.hpp"

#include <fairlead/core/matrix.hpp>
#include <fairlead/route/sinkhorn_router.hpp>
#include <fairlead/route/token_rounding.hpp>

#include <cmath>

namespace fl = fairlead;

TEST_CASE("V11: Megatron's Sinkhorn on four tokens and two experts") {
  float const values[4][2] = {{2, 0}, {1, 0}, {0, 0}, {3, 0}};
  fl::matrix_view<float const> const logits(&values[0][0], 4, 2);
  fl::arena<> memory(1 << 16);
  fl::workspace ws = memory.view();
  double prices[2] = {};
  auto const report = fl::alternating_sinkhorn{}.prices(fl::serial{}, {.scores = logits}, prices, ws);
  CHECK(report.status == fl::status::ok);
  CHECK(report.iterations == 8);
  double const plan[4][2] = {{.15561, .09438}, {.09439, .15562}, {.04561, .20440}, {.20439, .04561}};
  int const experts[4] = {0, 1, 1, 0};
  double const weights[4] = {0.8808, 0.5, 0.5, 0.9526};
  for (int t = 0; t < 4; ++t) {
    double const a = std::exp(static_cast<double>(values[t][0]) - prices[0]), b = std::exp(-prices[1]);
    CHECK(a / (a + b) / 4.0 == Approx(plan[t][0]).margin(2e-5));
    CHECK(b / (a + b) / 4.0 == Approx(plan[t][1]).margin(2e-5));
  }
  auto const check = [&](auto const& router) {
    fl::routing<> out(4, 1);
    fl::arena<> scratch(router.workspace_bytes(4));
    fl::workspace room = scratch.view();
    router.route(fl::serial{}, logits, {}, out.view(), room);
    for (int t = 0; t < 4; ++t) {
      CHECK(fl::to_index(out.view().experts(t, 0)) == experts[t]);
      CHECK(static_cast<double>(out.view().weights(t, 0)) == Approx(weights[t]).margin(5e-5));
    }
  };
  check(fl::alternating_sinkhorn_router{.experts = 2});
  check(fl::sinkhorn_router{.experts = 2});
}

TEST_CASE("P4: counts rounded to tiles of 128") {
  using enum fl::tile_rounding;
  fl::index_t const golden[6][4] = {{0, 0, 0, 0},         {5, 0, 128, 0},       {64, 0, 128, 0},
                                    {130, 128, 256, 128}, {192, 128, 256, 256}, {320, 256, 384, 256}};
  for (auto const& row : golden) {
    CHECK(fl::round_to_tile(row[0], 128, down) == row[1]);
    CHECK(fl::round_to_tile(row[0], 128, up) == row[2]);
    CHECK(fl::round_to_tile(row[0], 128, nearest_even) == row[3]);
  }
}
