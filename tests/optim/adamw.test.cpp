// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/optim/adamw.hpp>
#include <fairlead/exec/threads.hpp>

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "optim/reference.hpp"
#include "support/catch.hpp"

namespace fl = fairlead;

TEST_CASE("two steps of AdamW are those computed by hand", "[optim]") {
  // beta1 = beta2 = 0.5, epsilon too small to matter, decay 0.1, rate 0.5, p = 1; g = 2, then -1.
  // 1: m = 1, v = 2, m' = 2, v' = 4, p = 0.95 - 0.5 * 2 / 2 = 0.45
  // 2: m = 0, p = 0.95 * 0.45 = 0.4275; with g = 1 instead: m = 1, v = 1.5, m' = 4/3, v' = 2,
  //    p = 0.4275 - 0.5 * (4/3) / sqrt(2)
  fl::parameter_layout layout;
  layout.add("w", 1, 1, 0.0);
  fl::adamw const policy{.rate = 0.5, .first_decay = 0.5, .second_decay = 0.5, .epsilon = 1e-200, .decay = 0.1};
  fl::serial const on;
  for (double const second : {-1.0, 1.0}) {
    auto state = policy.make_state<double>(on, 1);
    std::array<double, 1> p{1.0};
    policy.update(on, layout, std::span<double>(p), std::array<double, 1>{2.0}, state, 1);
    CHECK(p[0] == Approx(0.45).epsilon(1e-14));
    CHECK(state.first[0] == 1.0);
    CHECK(state.second[0] == 2.0);
    policy.update(on, layout, std::span<double>(p), std::array<double, 1>{second}, state, 2);
    CHECK(p[0] == Approx(second < 0.0 ? 0.4275 : 0.4275 - 0.5 * (4.0 / 3.0) / std::sqrt(2.0)).epsilon(1e-14));
  }
}

TEST_CASE("the first step of AdamW has the size of the rate, whatever the gradient's size", "[optim]") {
  fl::parameter_layout layout;
  layout.add("w", 1, 4, 0.0, false);
  fl::adamw const policy{.rate = 0.125, .epsilon = 1e-30};
  fl::serial const on;
  auto state = policy.make_state<float>(on, 4);
  std::vector<float> p(4, 1.0F);
  policy.update(on, layout, std::span<float>(p), std::vector<float>{1e-6F, -1e-3F, 1.0F, -1e6F}, state, 1);
  CHECK(p[0] == Approx(0.875));
  CHECK(p[1] == Approx(1.125));
  CHECK(p[2] == Approx(0.875));
  CHECK(p[3] == Approx(1.125));
}

TEST_CASE("AdamW equals a double computation over blocks with and without decay, on any number of threads", "[optim]") {
  fl::parameter_layout const layout = optim_test::two_blocks();
  fl::adamw const policy{.rate = 0.01, .second_decay = 0.95, .decay = 0.5};
  std::vector<float> p = optim_test::normals(layout.size(), 1), team_p = p;
  std::vector<double> exact(p.begin(), p.end()), m(p.size(), 0.0), v(p.size(), 0.0);
  fl::serial const on;
  fl::threads const team{3};
  auto state = policy.make_state<float>(on, layout.size());
  auto team_state = policy.make_state<float>(team, layout.size());
  for (int step = 1; step <= 6; ++step) {
    std::vector<float> g = optim_test::normals(layout.size(), 10 + static_cast<std::uint64_t>(step));
    g[3] = 0.0F;
    policy.update(on, layout, std::span<float>(p), g, state, step);
    policy.update(team, layout, std::span<float>(team_p), g, team_state, step);
    for (std::size_t i = 0; i < p.size(); ++i) {
      double const slope = static_cast<double>(g[i]);
      if (static_cast<fl::index_t>(i) < layout[1].offset) { exact[i] -= 0.01 * 0.5 * exact[i]; }
      m[i] = 0.9 * m[i] + 0.1 * slope;
      v[i] = 0.95 * v[i] + 0.05 * slope * slope;
      exact[i] -= 0.01 * (m[i] / (1.0 - std::pow(0.9, step))) / (std::sqrt(v[i] / (1.0 - std::pow(0.95, step))) + 1e-8);
    }
  }
  double worst = 0.0;
  for (std::size_t i = 0; i < p.size(); ++i) { worst = std::max(worst, std::abs(static_cast<double>(p[i]) - exact[i])); }
  CHECK(worst < 2e-6);
  CHECK(p == team_p);
}

TEST_CASE("AdamW refuses sizes, steps and fields that do not fit", "[optim]") {
  fl::serial const on;
  fl::parameter_layout layout;
  layout.add("w", 1, 3, 0.0);
  fl::adamw const policy{};
  auto state = policy.make_state<float>(on, 3);
  auto small = policy.make_state<float>(on, 2);
  std::vector<float> p(3), g(3);
  CHECK_NOTHROW(policy.update(on, layout, std::span<float>(p), g, state, 1));
  CHECK_THROWS_AS(policy.update(on, layout, std::span<float>(p), g, small, 1), fl::contract_violation);
  CHECK_THROWS_AS(policy.update(on, layout, std::span<float>(p), g, state, 0), fl::contract_violation);
  for (double const epsilon : {0.0, -1e-8, 1e-60, 1e60, std::numeric_limits<double>::infinity(), std::nan("")}) {
    CAPTURE(epsilon);
    fl::adamw const unbounded{.epsilon = epsilon};  // 1e-60 is 0 and 1e60 no number in float
    CHECK_THROWS_AS(unbounded.update(on, layout, std::span<float>(p), g, state, 1), fl::contract_violation);
  }
  fl::adamw const wrong{.second_decay = 1.0};
  CHECK_THROWS_AS(wrong.update(on, layout, std::span<float>(p), g, state, 1), fl::contract_violation);
}
