// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Printed figures of traffic: SYMI (arXiv 2504.19925), section 3; LAER-MoE (arXiv 2602.11686), section 3.2, eq. 1 and
// the example of 4 ranks on 2 nodes.
#include <fairlead/cluster/cost_presets.hpp>
#include <fairlead/cluster/overlap.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/plan.hpp>
#include <fairlead/metrics/traffic.hpp>
#include <fairlead/schedule/local_node_even.hpp>

#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::count_t;
using fl::expert_id;
using fl::index_t;

TEST_CASE("the worked example of the spread optimizer comes out as printed", "[cluster][papers]") {
  fl::optimizer_traffic const gpt3 = fl::presets::symi_gpt3;
  CHECK(gpt3.tied_step_s() == Approx(0.2691).epsilon(2e-4));
  CHECK(gpt3.spread_step_s() == Approx(0.2732).epsilon(2e-4));
  CHECK(gpt3.extra() == Approx(0.0152).epsilon(3e-3));
  CHECK(gpt3.extra_on_device() == Approx(0.0154).epsilon(3e-3));
  CHECK(gpt3.moved_bytes() == Approx(27.6e12).epsilon(2e-3));
  CHECK(gpt3.state_bytes() == Approx(1.73e12).epsilon(2e-3));
  CHECK(gpt3.move_weights_s() == Approx(0.0675));
  CHECK(gpt3.move_state_s() == Approx(0.54));
  CHECK(fl::presets::symi_testbed.extra() == Approx(0.22).epsilon(1e-2));
}

TEST_CASE("two layouts of one load: five copies cross nodes, or none", "[papers]") {
  fl::topology const cluster(4, 2, 2);
  std::vector<std::vector<count_t>> const rows{{8, 2, 1, 1}, {6, 3, 2, 1}, {9, 1, 1, 1}, {4, 4, 2, 2}};
  fl::matrix<count_t> load(4, 4);
  for (index_t r = 0; r < 4; ++r) {
    for (index_t e = 0; e < 4; ++e) { load(r, e) = rows[static_cast<std::size_t>(r)][static_cast<std::size_t>(e)]; }
  }
  auto const crossing = [&](std::vector<int> const& table) {
    std::vector<expert_id> slots;
    for (int const e : table) { slots.push_back(static_cast<expert_id>(e)); }
    fl::placement const where = fl::make_placement(cluster, 4, slots, fl::replica_meaning::equal_share);
    fl::matrix<count_t> schedule(4, where.replicas());
    fl::workspace none;
    REQUIRE(fl::local_node_even{.cluster = cluster}.schedule(load.view(), where, schedule.view(), none).status ==
            fl::status::ok);
    auto const counted = fl::metrics::count_copies(cluster, where, schedule.view());
    CHECK(counted.total() == 48);
    return counted.remote;
  };
  CHECK(crossing({0, 2, 0, 1, 0, 1, 0, 3}) == 5);
  CHECK(crossing({0, 3, 1, 2, 0, 3, 1, 2}) == 0);
}
