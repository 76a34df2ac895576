// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Capacity formulas of eight systems: golden table and rounding traps (specification section 6, sources cited there).
#include <fairlead/dispatch/capacity.hpp>
#include <fairlead/dispatch/padded_places.hpp>

#include "support/catch.hpp"

#include <algorithm>
#include <limits>

namespace fl = fairlead;

TEST_CASE("each framework's formula gives its published number of places", "[capacity]") {
  // T = g = 100 tokens a rank, 8 experts, 2 choices, 4 ranks.
  CHECK(fl::megatron_capacity{.factor = 1.25}.places(100, 8, 2, 4) == 32);
  CHECK(fl::deepspeed_capacity{.factor = 1.25}.places(100, 8, 1, 4) == 16);
  CHECK(fl::deepspeed_capacity{.factor = 1.25}.places(100, 8, 2, 4) == 32);
  CHECK(fl::tutel_capacity{.factor = 1.25}.places(100, 8, 2, 4) == 32);
  CHECK(fl::megablocks_capacity{.factor = 1.25}.places(400, 8, 2, 4) == 125);
  CHECK(fl::mesh_capacity{.factor = 1.25}.places(100, 8, 2, 4) == 15);
  CHECK(fl::flaxformer_capacity{.factor = 1.25}.places(100, 8, 2, 4) == 16);
  CHECK(fl::stable_capacity{.factor = 1.25}.places(100, 8, 1, 4) == 125);

  CHECK(fl::megatron_capacity{.factor = 1.0}.places(100, 8, 2, 4) == 25);
  CHECK(fl::deepspeed_capacity{.factor = 1.0}.places(100, 8, 1, 4) == 13);
  CHECK(fl::deepspeed_capacity{.factor = 1.0}.places(100, 8, 2, 4) == 25);
  CHECK(fl::tutel_capacity{.factor = 1.0}.places(100, 8, 2, 4) == 26);
  CHECK(fl::megablocks_capacity{.factor = 1.0}.places(400, 8, 2, 4) == 100);
  CHECK(fl::mesh_capacity{.factor = 1.0}.places(100, 8, 2, 4) == 12);
  CHECK(fl::flaxformer_capacity{.factor = 1.0}.places(100, 8, 2, 4) == 12);  // 12.5 rounds half to even
  CHECK(fl::stable_capacity{.factor = 1.0}.places(100, 8, 1, 4) == 100);
}

TEST_CASE("formulas round where their framework rounds", "[capacity]") {
  // 200/4 * 1.1 is 55.00000000000001 in double and 55 in fp32.
  CHECK(fl::megatron_capacity{.factor = 1.1}.places(200, 4, 1, 1) == 56);
  CHECK(fl::deepspeed_capacity{.factor = 1.1, .minimum = 0}.places(200, 4, 1, 1) == 55);
  // 50/4 * 1.2 is 15 in double and 15.0000002 in fp32.
  CHECK(fl::megatron_capacity{.factor = 1.2}.places(50, 4, 1, 1) == 15);
  CHECK(fl::deepspeed_capacity{.factor = 1.2, .minimum = 0}.places(50, 4, 1, 1) == 16);
  // Halves: 2.5 -> 2, 3.5 -> 4.
  CHECK(fl::flaxformer_capacity{.factor = 1.0, .minimum = 0}.places(20, 8, 1, 1) == 2);
  CHECK(fl::flaxformer_capacity{.factor = 1.0, .minimum = 0}.places(28, 8, 1, 1) == 4);
  // Tutel truncates before it multiplies by the choices: 2 * int(1.25 * 3), not int(2 * 1.25 * 3).
  CHECK(fl::tutel_capacity{.factor = 1.25}.places(20, 8, 2, 1) == 6);
}

TEST_CASE("a rank never reserves more places than it has tokens", "[capacity]") {
  CHECK(fl::megatron_capacity{.factor = 100.0}.places(7, 2, 2, 1) == 7);
  CHECK(fl::deepspeed_capacity{.factor = 100.0}.places(7, 2, 2, 1) == 7);
  CHECK(fl::deepspeed_capacity{.factor = 0.1, .minimum = 10}.places(7, 2, 2, 1) == 7);
  CHECK(fl::tutel_capacity{.factor = 100.0}.places(7, 2, 2, 1) == 7);
  CHECK(fl::tutel_capacity{.factor = 1e300}.places(7, 2, 2, 1) == 7);
  CHECK(fl::megablocks_capacity{.factor = 100.0}.places(7, 2, 2, 1) == 7);
  CHECK(fl::mesh_capacity{.factor = 100.0}.places(7, 2, 2, 1) == 7);
  CHECK(fl::mesh_capacity{.factor = 1.0, .minimum = 4}.places(2, 8, 1, 1) == 2);
  CHECK(fl::flaxformer_capacity{.factor = 100.0}.places(7, 2, 2, 1) == 7);
}

TEST_CASE("minimum, alignment and the zero factor follow the framework", "[capacity]") {
  CHECK(fl::deepspeed_capacity{.factor = 1.0, .minimum = 8}.places(16, 8, 1, 1) == 8);
  CHECK(fl::deepspeed_capacity{.factor = 1.0}.places(16, 8, 1, 1) == 4);
  CHECK(fl::mesh_capacity{.factor = 1.0}.places(16, 8, 1, 1) == 4);
  CHECK(fl::flaxformer_capacity{.factor = 1.0}.places(16, 8, 1, 1) == 4);
  CHECK(fl::tutel_capacity{.factor = 1.0, .alignment = 8}.places(100, 8, 2, 4) == 32);
  CHECK(fl::tutel_capacity{.factor = 100.0, .alignment = 8}.places(100, 8, 2, 4) == 104);  // aligned after the clamp
  CHECK(fl::megatron_capacity{.factor = 0.0}.places(100, 8, 2, 4) == 0);
  CHECK(fl::megablocks_capacity{.factor = 0.0}.places(100, 8, 2, 4) == fl::unlimited_places);
  CHECK(fl::megablocks_capacity{.factor = 0.01}.places(100, 8, 2, 4) == fl::unlimited_places);
  CHECK(fl::stable_capacity{.factor = 100.0}.places(100, 8, 1, 4) == 10000);
  CHECK(fl::stable_capacity{.factor = 1e300}.places(100, 8, 1, 4) == fl::unlimited_places);
}

TEST_CASE("no token needs no place", "[capacity]") {
  CHECK(fl::megatron_capacity{}.places(0, 8, 2, 4) == 0);
  CHECK(fl::deepspeed_capacity{}.places(0, 8, 2, 4) == 0);
  CHECK(fl::tutel_capacity{.alignment = 8}.places(0, 8, 2, 4) == 0);
  CHECK(fl::mesh_capacity{}.places(0, 8, 2, 4) == 0);
  CHECK(fl::flaxformer_capacity{}.places(0, 8, 2, 4) == 0);
  CHECK(fl::stable_capacity{}.places(0, 8, 2, 4) == 0);
}

TEST_CASE("scopes say whose copies compete", "[capacity]") {
  STATIC_REQUIRE(fl::dropless::scope == fl::capacity_scope::none);
  STATIC_REQUIRE(fl::megatron_capacity::scope == fl::capacity_scope::rank);
  STATIC_REQUIRE(fl::megablocks_capacity::scope == fl::capacity_scope::global);
  STATIC_REQUIRE(fl::stable_capacity::scope == fl::capacity_scope::receiver);
  STATIC_REQUIRE(fl::fixed_capacity<fl::capacity_scope::global>::scope == fl::capacity_scope::global);
  CHECK(fl::dropless{}.places(100, 8, 2, 4) == fl::unlimited_places);
  CHECK(fl::fixed_capacity{.count = 3}.places(100, 8, 2, 4) == 3);
  CHECK(fl::fixed_capacity{.count = 300}.places(100, 8, 2, 4) == 300);
  constexpr auto at_compile_time = fl::megatron_capacity{.factor = 1.25}.places(100, 8, 2, 4);
  STATIC_REQUIRE(at_compile_time == 32);
}

TEST_CASE("a bad policy field is refused", "[capacity]") {
  CHECK_THROWS_AS(fl::megatron_capacity{.factor = -1.0}.places(1, 1, 1, 1), fl::contract_violation);
  CHECK_THROWS_AS(fl::megatron_capacity{}.places(1, 0, 1, 1), fl::contract_violation);
  CHECK_THROWS_AS(fl::megatron_capacity{}.places(-1, 1, 1, 1), fl::contract_violation);
  CHECK_THROWS_AS(fl::deepspeed_capacity{.minimum = -1}.places(1, 1, 1, 1), fl::contract_violation);
  CHECK_THROWS_AS(fl::tutel_capacity{.factor = std::numeric_limits<double>::quiet_NaN()}.places(1, 1, 1, 1), fl::contract_violation);
  CHECK_THROWS_AS(fl::tutel_capacity{.alignment = 0}.places(1, 1, 1, 1), fl::contract_violation);
  CHECK_THROWS_AS(fl::fixed_capacity{.count = -1}.places(1, 1, 1, 1), fl::contract_violation);
}

TEST_CASE("Tutel's factors of zero and below follow the largest load", "[capacity]") {
  // The framework: k int(f ceil(T / E)), the largest load, or the smaller of both; then up to the alignment.
  auto const framework = [](double factor, fl::index_t load, fl::index_t tokens, fl::index_t experts, fl::index_t k, fl::index_t alignment) {
    fl::index_t const mean = (tokens + experts - 1) / experts;
    fl::index_t const bound = k * static_cast<fl::index_t>((factor < 0 ? -factor : factor) * static_cast<double>(mean));
    fl::index_t const places = factor > 0.0 ? bound : factor == 0.0 ? load : std::min(load, bound);
    return (places + alignment - 1) / alignment * alignment;
  };
  for (double const factor : {1.25, 0.5, 0.0, -1.25, -0.5}) {
    for (fl::index_t const load : {7, 31, 32, 33, 90}) {
      for (fl::index_t const alignment : {1, 8}) {
        fl::tutel_capacity const policy{.factor = factor, .alignment = alignment};
        CAPTURE(factor, load, alignment);
        CHECK(fl::padded_places(policy, load, 100, 8, 2, 4) == framework(factor, load, 100, 8, 2, alignment));
        // The same copies are dropped as with the framework's number of places.
        CHECK(std::min(load, policy.places(100, 8, 2, 4)) == std::min(load, framework(factor, load, 100, 8, 2, alignment)));
      }
    }
  }
  CHECK(fl::tutel_capacity{.factor = 0.0}.places(100, 8, 2, 4) == fl::unlimited_places);
  CHECK(fl::tutel_capacity{.factor = -1.25}.places(100, 8, 2, 4) == 32);
  CHECK(fl::tutel_alignment(2, 4) == 8);
  CHECK(fl::tutel_alignment(64, 4) == 256);
  CHECK(fl::tutel_alignment(65, 4) == 384);  // above 256: multiples of 128
}

TEST_CASE("buffers padded to capacity hold what each framework allocates", "[capacity]") {
  // DeepSpeed without drops: the largest load of all ranks, up to a multiple of the tensor-parallel ranks.
  CHECK(fl::padded_places(fl::dropless{}, 37, 100, 8, 2, 4) == 37);
  CHECK(fl::padded_places(fl::dropless{}, 37, 100, 8, 2, 4, 4) == 40);
  CHECK(fl::padded_places(fl::dropless{}, 0, 0, 8, 2, 4, 4) == 0);
  // MegaBlocks: factor 0 means the largest load.
  CHECK(fl::padded_places(fl::megablocks_capacity{.factor = 0.0}, 90, 400, 8, 2, 4) == 90);
  CHECK(fl::padded_places(fl::megablocks_capacity{.factor = 1.0}, 90, 400, 8, 2, 4) == 100);
  // Megatron pads to the capacity; a capacity above the tokens is cut (the framework's mask and rows then disagree).
  CHECK(fl::padded_places(fl::megatron_capacity{.factor = 1.25}, 3, 100, 8, 2, 4) == 32);
  CHECK(fl::padded_places(fl::megatron_capacity{.factor = 100.0}, 3, 100, 8, 2, 4) == 100);
  CHECK_THROWS_AS(fl::padded_places(fl::dropless{}, -1, 100, 8, 2, 4), fl::contract_violation);
  CHECK_THROWS_AS(fl::padded_places(fl::dropless{}, 1, 100, 8, 2, 4, 0), fl::contract_violation);
}
