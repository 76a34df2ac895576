// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Golden values of StableMoE (routing specification, section 5.6), recomputed from the definition.
#include <fairlead/balance/over_under_loss.hpp>
#include <fairlead/core/matrix.hpp>

#include "support/catch.hpp"

#include <array>
#include <cmath>
#include <vector>

namespace fl = fairlead;

TEST_CASE("the balance loss of four tokens on two experts has the golden value and gradient") {
  // Assigned (expert, score): (0, .5), (0, 1.0), (0, -.3), (1, .2): n = (3, 1), mean 2. The sum over tokens is the golden
  // value; a signal gives the mean over tokens, so its parts are a quarter.
  std::array<int, 4> const experts{0, 0, 0, 1};
  std::array<float, 4> const scores{0.5F, 1.0F, -0.3F, 0.2F};
  fl::matrix<float> logits(4, 2), grad(4, 2);
  fl::routing<> routed(4, 1);
  for (fl::index_t t = 0; t < 4; ++t) {
    auto const at = static_cast<std::size_t>(t);
    logits(t, 0) = logits(t, 1) = -9.0F;
    logits(t, experts[at]) = scores[at];
    grad(t, 0) = grad(t, 1) = 0.0F;
    routed.view().experts(t, 0) = static_cast<fl::expert_id>(experts[at]);
  }
  fl::over_under_loss const loss;
  CHECK(loss.coefficient == 0.3);
  auto state = loss.make_state(2);
  loss.accumulate(std::vector<fl::index_t>{3, 1}, 4, state);
  fl::arena<> memory(loss.workspace_bytes(4, 2));
  fl::workspace ws = memory.view();
  double const value = loss.add_gradient(fl::serial{}, logits.view(), routed.view(), {}, std::as_const(state), 4.0, grad.view(), ws);
  CHECK(std::abs(4.0 * value - 0.1843862094) < 1e-7);
  std::array<double, 4> const golden{0.0352505568, 0.0294917900, 0.0366687468, -0.0371274859};
  for (fl::index_t t = 0; t < 4; ++t) {
    auto const at = static_cast<std::size_t>(t);
    CHECK(std::abs(static_cast<double>(grad(t, experts[at])) - golden[at]) < 1e-8);
    CHECK(grad(t, 1 - experts[at]) == 0.0F);
  }
}
