// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/comm/alone.hpp>
#include <fairlead/comm/inproc.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/optim/clip_by_norm.hpp>

#include "support/catch.hpp"

#include <limits>
#include <vector>

namespace fl = fairlead;

namespace {

struct seen {
  double norm;
  std::vector<float> gate, expert;
};

seen clip(fl::clip_by_norm const& policy, fl::index_t ranks, std::vector<float> gate, std::vector<float> expert) {
  fl::inproc::world world{ranks};
  auto results = world.run([&](fl::inproc::communicator comm) {
    seen mine{0.0, gate, expert};
    std::vector<fl::gradient_array<float>> const arrays{
        {mine.gate}, {.gradients = mine.expert, .shared = false, .replicas = 2.0}};
    mine.norm = policy(fl::serial{}, comm, std::span<fl::gradient_array<float> const>(arrays));
    return mine;
  });
  for (auto const& result : results) { CHECK(result.norm == results[0].norm); }
  return results[0];
}

}  // namespace

TEST_CASE("The norm of the shared gradients alone scales all gradients") {
  auto const got = clip({.limit = 1.0}, 3, {3.0F, 4.0F}, {100.0F});
  CHECK(got.norm == Approx(5.0));
  CHECK(got.gate[0] == Approx(0.6));
  CHECK(got.gate[1] == Approx(0.8));
  CHECK(got.expert[0] == Approx(20.0));
}

TEST_CASE("With experts the norm counts each once over ranks and replicas") {
  // 4 ranks hold an expert of two replicas each: 4 * 8 / 2 = 16, and 3^2 = 9 of the gate.
  auto const got = clip({.limit = 1.0, .norm_of = fl::clip_norm::everything}, 4, {3.0F}, {2.0F, 2.0F});
  CHECK(got.norm == Approx(5.0));
  CHECK(got.gate[0] == Approx(0.6));
  CHECK(got.expert[1] == Approx(0.4));
}

TEST_CASE("Gradients at or below the limit, and those without a finite norm, stay as they are") {
  CHECK(clip({.limit = 5.0}, 1, {3.0F, 4.0F}, {1.0F}).gate[0] == 3.0F);
  auto const broken = clip({.limit = 1.0}, 2, {std::numeric_limits<float>::infinity(), 4.0F}, {1.0F});
  CHECK(!std::isfinite(broken.norm));
  CHECK(broken.gate[1] == 4.0F);
  CHECK(clip({.limit = 1.0}, 2, {}, {}).norm == 0.0);
  CHECK_THROWS_AS(clip({.limit = 0.0}, 1, {1.0F}, {}), fl::contract_violation);
}
