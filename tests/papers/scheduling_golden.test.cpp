// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Worked examples of splits and routers: two layouts of a small instance, remainders of node-local routing, and EPLB's
// placement of the FlashLB example.
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/topology.hpp>
#include <fairlead/laws/replica_split.hpp>
#include <fairlead/laws/source_router.hpp>
#include <fairlead/schedule/equal_shares.hpp>
#include <fairlead/schedule/local_node_even.hpp>
#include <fairlead/schedule/proportional.hpp>
#include <fairlead/schedule/staircase.hpp>
#include <fairlead/schedule/tiered.hpp>
#include <fairlead/schedule/water_fill.hpp>

#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::count_t;
using fl::expert_id;
using fl::index_t;

namespace {

// Two slots a rank.
fl::placement layout(index_t experts, std::vector<int> const& table) {
  std::vector<index_t> offsets;
  std::vector<expert_id> slots;
  for (std::size_t i = 0; i <= table.size(); i += 2) { offsets.push_back(static_cast<index_t>(i)); }
  for (int const e : table) { slots.push_back(static_cast<expert_id>(e)); }
  return {experts, offsets, slots};
}

// Four ranks on two nodes; load (27, 10, 6, 5).
fl::matrix<count_t> small_load() {
  std::vector<count_t> const rows{8, 2, 1, 1, 6, 3, 2, 1, 9, 1, 1, 1, 4, 4, 2, 2};
  fl::matrix<count_t> load(4, 4);
  std::copy(rows.begin(), rows.end(), load.data());
  return load;
}
fl::placement layout_a() { return layout(4, {0, 2, 0, 1, 0, 1, 0, 3}); }
fl::placement layout_b() { return layout(4, {0, 3, 1, 2, 0, 3, 1, 2}); }
fl::topology two_nodes() { return {4, 2, 2}; }

std::vector<index_t> loads_of(fl::placement const& where, fl::matrix<count_t> const& out) {
  std::vector<count_t> shares(static_cast<std::size_t>(where.replicas()), 0);
  for (index_t source = 0; source < out.rows(); ++source) {
    for (std::size_t column = 0; column < shares.size(); ++column) { shares[column] += out(source, static_cast<index_t>(column)); }
  }
  return fl::laws::detail::rank_loads(where, shares);
}

index_t crossing(fl::topology const& cluster, fl::placement const& where, fl::matrix<count_t> const& out) {
  index_t sum = 0;
  for (index_t e = 0; e < where.experts(); ++e) {
    index_t column = where.replica_offset(static_cast<expert_id>(e));
    for (fl::replica const& copy : where.replicas(static_cast<expert_id>(e))) {
      for (index_t source = 0; source < out.rows(); ++source) {
        sum += cluster.node_of(source) != cluster.node_of(fl::to_index(copy.rank)) ? out(source, column) : 0;
      }
      ++column;
    }
  }
  return sum;
}

template <class Split>
std::vector<count_t> shares_of(Split const& rule, fl::placement const& where, std::vector<index_t> const& totals) {
  std::vector<count_t> shares(static_cast<std::size_t>(where.replicas()), -1);
  fl::arena<> memory(rule.workspace_bytes(where));
  auto ws = memory.view();
  REQUIRE(rule.split(totals, where, shares, ws));
  return shares;
}

}  // namespace

TEST_CASE("LAER-MoE, lite routing on two layouts: loads and copies that cross nodes", "[papers]") {
  auto const load = small_load();
  fl::topology const cluster = two_nodes();
  for (bool const rotate : {false, true}) {
    fl::local_node_even const lite{cluster, rotate};
    fl::placement const a = layout_a();
    fl::placement const b = layout_b();
    fl::arena<> memory(std::max(lite.workspace_bytes(a), lite.workspace_bytes(b)));
    auto ws = memory.view();
    fl::matrix<count_t> out_a(4, a.replicas());
    CHECK(lite.schedule(load.view(), a, out_a.view(), ws).value == 13.0);
    CHECK(loads_of(a, out_a) == std::vector<index_t>{13, 12, 12, 11});
    CHECK(crossing(cluster, a, out_a) == 5);
    fl::matrix<count_t> out_b(4, b.replicas());
    CHECK(lite.schedule(load.view(), b, out_b.view(), ws).value == 16.0);
    CHECK(loads_of(b, out_b) == std::vector<index_t>{16, 8, 16, 8});
    CHECK(crossing(cluster, b, out_b) == 0);
  }
}

TEST_CASE("water filling alone on the two layouts", "[papers]") {
  std::vector<index_t> const totals{27, 10, 6, 5};
  CHECK(fl::laws::detail::rank_loads(layout_a(), shares_of(fl::water_fill{}, layout_a(), totals)) == std::vector<index_t>{13, 12, 12, 11});
  CHECK(fl::laws::detail::rank_loads(layout_b(), shares_of(fl::water_fill{}, layout_b(), totals)) == std::vector<index_t>{16, 8, 16, 8});
  // The least possible: 12 over all ranks for A, (27 + 5) / 2 on ranks {0, 2} for B.
  CHECK(fl::laws::detail::least_largest_load(layout_a(), totals) == 12);
  CHECK(fl::laws::detail::least_largest_load(layout_b(), totals) == 16);
}

TEST_CASE("LAER-MoE, whole quotas of lite routing and of the rotated form", "[papers]") {
  // Expert 0 twice on the source's node of four ranks, and once elsewhere.
  std::vector<index_t> const offsets{0, 1, 1, 1, 2, 3, 3, 3, 3};
  std::vector<expert_id> const slots{expert_id{0}, expert_id{0}, expert_id{0}};
  fl::placement const near(1, offsets, slots);
  fl::topology const cluster(8, 0, 4);
  std::vector<count_t> quota(3);
  CHECK(fl::local_node_even{cluster, false}.row(std::vector<count_t>{7}, fl::rank_id{1}, near, quota));
  CHECK(quota == std::vector<count_t>{4, 3, 0});
  // Three replicas, none on the source's node.
  std::vector<index_t> const far_offsets{0, 0, 0, 0, 0, 1, 2, 3, 3};
  fl::placement const far(1, far_offsets, slots);
  CHECK(fl::local_node_even{cluster, false}.row(std::vector<count_t>{8}, fl::rank_id{1}, far, quota));
  CHECK(quota == std::vector<count_t>{3, 3, 2});
  CHECK(fl::local_node_even{cluster, true}.row(std::vector<count_t>{8}, fl::rank_id{1}, far, quota));
  CHECK(quota == std::vector<count_t>{2, 3, 3});
}

TEST_CASE("EPLB's placement of the FlashLB example: equal shares, water filling, and the least possible", "[papers]") {
  std::vector<index_t> const totals{600, 560, 120, 120, 20, 10, 10, 10};
  fl::placement const where = layout(8, {0, 1, 2, 1, 3, 1, 0, 4, 0, 5, 0, 6, 0, 7, 1, 1});
  auto const equal = fl::laws::detail::rank_loads(where, shares_of(fl::equal_shares{}, where, totals));
  CHECK(equal == std::vector<index_t>{232, 232, 232, 140, 130, 130, 130, 224});
  auto const filled = fl::laws::detail::rank_loads(where, shares_of(fl::water_fill{}, where, totals));
  CHECK(filled == std::vector<index_t>{170, 290, 290, 140, 130, 130, 130, 170});
  CHECK(fl::laws::detail::least_largest_load(where, totals) == 200);
}

TEST_CASE("routers agree with the layouts: copies that stay on rank and on node", "[papers]") {
  auto const load = small_load();
  fl::placement const a = layout_a();
  std::vector<index_t> const totals{27, 10, 6, 5};
  auto const shares = shares_of(fl::water_fill{}, a, totals);
  auto const route = [&](auto const& router) {
    fl::matrix<count_t> out(4, a.replicas());
    fl::arena<> memory(router.workspace_bytes(a));
    auto ws = memory.view();
    fl::report const ended = router.route(load.view(), a, shares, out.view(), ws);
    REQUIRE(ended);
    return ended.value;
  };
  auto const most = static_cast<double>(fl::laws::detail::most_local_copies(load.view(), a, shares));
  CHECK(route(fl::staircase{}) == most);
  CHECK(route(fl::tiered{two_nodes()}) == most);
  CHECK(route(fl::proportional{}) == most);
}
