// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/cluster/cost_presets.hpp>
#include <fairlead/cluster/overlap.hpp>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

TEST_CASE("the relative extra is the quotient of the two times", "[cluster]") {
  for (index_t const experts : {8, 16, 64}) {
    for (index_t const slots : {1, 2, 4}) {
      fl::optimizer_traffic const one{.experts = experts,
                                      .ranks = 64,
                                      .slots_per_rank = slots,
                                      .gradient_bytes = 3.0e6,
                                      .weight_bytes = 2.0e6,
                                      .optimizer_bytes = 16.0e6,
                                      .host_bytes_per_s = 32.0e9,
                                      .network_bytes_per_s = 12.5e9};
      CHECK(one.spread_step_s() / one.tied_step_s() - 1.0 == Approx(one.extra()).margin(1e-12));
      CHECK(one.grouped_s(1, one.weight_bytes) == Approx(one.spread_s(one.weight_bytes)));
      CHECK(one.grouped_s(2, one.weight_bytes) > one.grouped_s(1, one.weight_bytes));
      CHECK(one.deduplicated_bytes() <= one.moved_bytes());
      fl::optimizer_traffic device = one;
      device.host_bytes_per_s = 1e30;
      CHECK(device.extra() == Approx(one.extra_on_device()).margin(1e-12));
    }
  }
}

TEST_CASE("31 instead of 64 pairs on the test bed, when consecutive slots are served once", "[cluster]") {
  fl::optimizer_traffic const bed = fl::presets::symi_testbed;
  CHECK(bed.deduplicated_bytes() / (bed.gradient_bytes + bed.weight_bytes) == Approx(31.0));
  CHECK(bed.moved_bytes() / (bed.gradient_bytes + bed.weight_bytes) == Approx(64.0));
}

TEST_CASE("the overlap threshold is slots x flops / (choices x bandwidth)", "[cluster][papers]") {
  CHECK(fl::overlap_tokens(2, 312e12, 2, 12.5e9) == Approx(25.0e3).epsilon(2e-3));
  CHECK(fl::overlap_tokens(2, 312e12, 2, 12.5e9 * 32.0 / 24.0) == Approx(18.7e3).epsilon(2e-3));
  CHECK(fl::overlap_tokens(4, 312e12, 2, 12.5e9) == Approx(2 * fl::overlap_tokens(2, 312e12, 2, 12.5e9)));
  // Above the threshold computing takes longer than fetching.
  double const hidden = 4096.0;
  double const expert_hidden = 14336.0;
  double const tokens = fl::overlap_tokens(2, 312e12, 2, 12.5e9);
  double const compute = tokens * 2.0 * 6.0 * hidden * expert_hidden / 312e12;
  double const fetch = 3.0 * 2.0 * hidden * expert_hidden * 2.0 / 12.5e9;
  CHECK(compute == Approx(fetch));
  CHECK_THROWS_AS(fl::overlap_tokens(2, 312e12, 0, 12.5e9), fl::contract_violation);
  CHECK_THROWS_AS(fl::overlap_tokens(2, 312e12, 2, 0.0), fl::contract_violation);
}

TEST_CASE("the overlap degree is the whole number of experts that travel in the time", "[cluster]") {
  CHECK(fl::overlap_degree(1.0, 10.0, 3.0) == 3);
  CHECK(fl::overlap_degree(1.0, 9.0, 3.0) == 3);
  CHECK(fl::overlap_degree(1.0, 8.9, 3.0) == 2);
  CHECK(fl::overlap_degree(0.0, 8.9, 3.0) == 0);
  CHECK(fl::overlap_degree(1e30, 1e30, 1.0) == 2147483647);
  CHECK_THROWS_AS(fl::overlap_degree(1.0, 1.0, 0.0), fl::contract_violation);
}

TEST_CASE("bandwidth steps up at the published sizes", "[cluster][papers]") {
  auto const steps = fl::presets::prophet_steps;
  CHECK(steps.bytes_per_s(1.0) == 0.75e9);
  CHECK(steps.bytes_per_s(128.0 * 1024) == 0.75e9);
  CHECK(steps.bytes_per_s(128.0 * 1024 + 1) == 2.0e9);
  CHECK(steps.bytes_per_s(256.0 * 1024 + 1) == 5.25e9);
  CHECK(steps.bytes_per_s(1024.0 * 1024) == 5.25e9);
  CHECK(steps.bytes_per_s(1e12) == 12.5e9);
  CHECK(fl::flat_bandwidth{3.0}.bytes_per_s(1e6) == 3.0);
}

TEST_CASE("times of an expert follow from its shape and the machine", "[cluster][papers]") {
  fl::expert_times const times = fl::presets::fastermoe_default;
  CHECK(times.row_s() == Approx(2048.0 * 4.0 / 6.25e9));
  CHECK(times.compute_s() == Approx(4.0 * 2.0 * 2048.0 * 2048.0 / 11.5e12));
  CHECK(times.weight_bytes() == Approx(2.0 * 2048.0 * 4096.0 * 4.0));  // two matrices of 2048 x 4096 in fp32
  CHECK(times.broadcast_s() == Approx(times.weight_bytes() / 6.25e9));
  CHECK(times.revised_broadcast_s() == Approx(8.0 * times.broadcast_s()));
}
