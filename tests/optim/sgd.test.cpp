// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/optim/adamw.hpp>
#include <fairlead/optim/sgd.hpp>
#include <fairlead/exec/threads.hpp>

#include <array>
#include <vector>

#include "optim/reference.hpp"
#include "support/catch.hpp"

namespace fl = fairlead;

TEST_CASE("three steps of descent with momentum and decay are those computed by hand", "[optim]") {
  // p = 2, g = 1 at every step, rate 0.5, momentum 0.5, decay 0.5.
  // 1: v = 1 + 1 = 2, p = 1;  2: v = 1 + 1.5 = 2.5, p = -0.25;  3: v = 1.25 + 0.875 = 2.125, p = -1.3125
  fl::parameter_layout layout;
  layout.add("w", 1, 1, 0.0);
  fl::sgd const policy{.rate = 0.5, .momentum = 0.5, .decay = 0.5};
  fl::serial const on;
  auto state = policy.make_state<float>(on, 1);
  std::array<float, 1> p{2.0F};
  std::array<float, 1> const g{1.0F};
  std::array<float, 3> const expected{1.0F, -0.25F, -1.3125F};
  for (int step = 1; step <= 3; ++step) {
    policy.update(on, layout, std::span<float>(p), g, state, step);
    CHECK(p[0] == expected[static_cast<std::size_t>(step - 1)]);
  }
}

TEST_CASE("descent equals a double computation over blocks with and without decay, on any number of threads", "[optim]") {
  fl::parameter_layout const layout = optim_test::two_blocks();
  for (double const momentum : {0.0, 0.9}) {
    fl::sgd const policy{.rate = 0.05, .momentum = momentum, .decay = 0.1};
    std::vector<float> p = optim_test::normals(layout.size(), 1), team_p = p;
    std::vector<double> p_exact(p.begin(), p.end()), v_exact(p.size(), 0.0);
    fl::serial const on;
    fl::threads const team{3};
    auto state = policy.make_state<float>(on, layout.size());
    auto team_state = policy.make_state<float>(team, layout.size());
    CHECK(state.velocity.size() == (momentum == 0.0 ? 0 : layout.size()));
    for (int step = 1; step <= 5; ++step) {
      std::vector<float> const g = optim_test::normals(layout.size(), 10 + static_cast<std::uint64_t>(step));
      policy.update(on, layout, std::span<float>(p), g, state, step);
      policy.update(team, layout, std::span<float>(team_p), g, team_state, step);
      for (std::size_t i = 0; i < p.size(); ++i) {
        double const decay = static_cast<fl::index_t>(i) < layout[1].offset ? 0.1 : 0.0;
        v_exact[i] = momentum * v_exact[i] + static_cast<double>(g[i]) + decay * p_exact[i];
        p_exact[i] -= 0.05 * v_exact[i];
      }
    }
    double worst = 0.0;
    for (std::size_t i = 0; i < p.size(); ++i) { worst = std::max(worst, std::abs(static_cast<double>(p[i]) - p_exact[i])); }
    CHECK(worst < 2e-6);
    CHECK(p == team_p);
  }
}

TEST_CASE("descent refuses sizes and fields that do not fit, and takes an empty layout", "[optim]") {
  fl::serial const on;
  fl::parameter_layout layout;
  fl::sgd const policy{};
  auto none = policy.make_state<float>(on, 0);
  policy.update(on, layout, std::span<float>(), {}, none, 1);
  layout.add("w", 1, 3, 0.0);
  std::vector<float> p(3), g(2), full(3);
  CHECK_THROWS_AS(policy.update(on, layout, std::span<float>(p), g, none, 1), fl::contract_violation);
  CHECK_THROWS_AS(policy.update(on, layout, std::span<float>(p), full, none, 0), fl::contract_violation);
  fl::sgd const heavy{.momentum = 0.5};
  CHECK_THROWS_AS(heavy.update(on, layout, std::span<float>(p), full, none, 1), fl::contract_violation);
  fl::sgd const wrong{.momentum = 1.0};
  CHECK_THROWS_AS(wrong.update(on, layout, std::span<float>(p), full, none, 1), fl::contract_violation);
}

TEST_CASE("a frozen block keeps values and moments bit for bit while its neighbours move, whatever the decay", "[optim]") {
  fl::parameter_layout layout;
  layout.add("before", 3, 7, 0.0).add("frozen", 200, 100, 0.0).add("after", 1, 5, 0.0);
  auto const size = static_cast<std::size_t>(layout.size());
  auto const inside = [&](std::size_t i) { auto const at = static_cast<fl::index_t>(i); return at >= layout[1].offset && at < layout[2].offset; };
  fl::threads const team{3};
  auto const check = [&](auto const& policy, auto const& moments_of) {
    std::vector<float> p = optim_test::normals(layout.size(), 1);
    auto state = policy.template make_state<float>(team, layout.size());
    layout.freeze(1, false);
    policy.update(team, layout, std::span<float>(p), optim_test::normals(layout.size(), 2), state, 1);
    auto const before = p;
    std::vector<std::vector<float>> const moments = moments_of(state);
    layout.freeze(1);
    for (int step = 2; step < 6; ++step) {
      policy.update(team, layout, std::span<float>(p), optim_test::normals(layout.size(), 10 + static_cast<std::uint64_t>(step)), state, step);
    }
    std::vector<std::vector<float>> const now = moments_of(state);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < size; ++i) {
      wrong += (p[i] == before[i]) != inside(i) ? 1 : 0;
      for (std::size_t m = 0; m < now.size(); ++m) { wrong += (now[m][i] == moments[m][i]) != inside(i) ? 1 : 0; }
    }
    CHECK(wrong == 0);
  };
  auto const copy = [](auto const& buffer) { return std::vector<float>(buffer.span().begin(), buffer.span().end()); };
  check(fl::sgd{.rate = 0.05, .momentum = 0.9, .decay = 0.1}, [&](auto const& state) { return std::vector<std::vector<float>>{copy(state.velocity)}; });
  check(fl::sgd{.rate = 0.05, .decay = 0.1}, [&](auto const&) { return std::vector<std::vector<float>>{}; });
  check(fl::adamw{.rate = 0.05, .decay = 0.1}, [&](auto const& state) { return std::vector<std::vector<float>>{copy(state.first), copy(state.second)}; });
}
