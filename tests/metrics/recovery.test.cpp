// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/metrics/placement_recovery.hpp>

#include <bit>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
namespace metrics = fl::metrics;
using fl::expert_id;
using fl::index_t;

namespace {

std::vector<double> survivors(std::vector<std::uint64_t> const& sets, index_t units) {
  metrics::exact_recovery const method;
  auto const experts = static_cast<index_t>(sets.size());
  fl::arena<> memory(method.workspace_bytes(units, experts));
  fl::workspace ws = memory.view();
  std::vector<double> counts(static_cast<std::size_t>(units) + 1, -1.0);
  CHECK(method.count({sets.data(), experts, 1}, units, counts, ws) == fl::status::ok);
  return counts;
}

std::vector<double> by_definition(std::vector<std::uint64_t> const& sets, int units) {
  std::vector<double> counts(static_cast<std::size_t>(units) + 1, 0.0);
  for (std::uint64_t dead = 0; dead < (std::uint64_t{1} << static_cast<unsigned>(units)); ++dead) {
    bool good = true;
    for (std::uint64_t const set : sets) { good = good && (set & ~dead) != 0; }
    counts[static_cast<std::size_t>(std::popcount(dead))] += good ? 1.0 : 0.0;
  }
  return counts;
}

std::vector<std::uint64_t> random_sets(std::uint64_t number, int units, int experts, unsigned size) {
  std::vector<std::uint64_t> sets;
  for (int e = 0; e < experts; ++e) {
    std::uint64_t set = 0;
    for (unsigned r = 0; r < size; ++r) {
      set |= std::uint64_t{1} << (fl::philox::draw(11, number, static_cast<std::uint64_t>(e) * 8 + r)[0] % static_cast<unsigned>(units));
    }
    sets.push_back(set);
  }
  return sets;
}

fl::placement one_expert_a_slot(index_t experts, index_t ranks, std::vector<int> const& table) {
  std::vector<index_t> offsets;
  auto const width = static_cast<index_t>(table.size()) / ranks;
  for (index_t r = 0; r <= ranks; ++r) { offsets.push_back(r * width); }
  std::vector<expert_id> slots;
  for (int const e : table) { slots.push_back(static_cast<expert_id>(e)); }
  return {experts, offsets, slots};
}

}  // namespace

TEST_CASE("sets of failures that spare every expert are counted as by going through all sets", "[metrics][recovery]") {
  for (std::uint64_t number = 0; number < 200; ++number) {
    int const units = 1 + static_cast<int>(number % 12);
    auto const sets = random_sets(number, units, static_cast<int>(number % 9), 1 + static_cast<unsigned>(number % 4));
    INFO("instance " << number);
    REQUIRE(survivors(sets, units) == by_definition(sets, units));
  }
}

TEST_CASE("units beyond one table are counted by groups", "[metrics][recovery]") {
  for (std::uint64_t number = 0; number < 6; ++number) {
    int const units = 16 + static_cast<int>(number % 3);
    // Few small sets fall apart into groups; many entangle all units.
    auto const sets = random_sets(500 + number, units, number < 3 ? 4 : 25, 2 + static_cast<unsigned>(number % 2));
    INFO("instance " << number);
    REQUIRE(survivors(sets, units) == by_definition(sets, units));
  }
}

TEST_CASE("a thousand units in disjoint pairs have the closed form", "[metrics][recovery]") {
  constexpr index_t units = 1000;
  index_t const words = metrics::set_words(units);
  constexpr index_t experts = 400;
  std::vector<std::uint64_t> bits(static_cast<std::size_t>(experts * words), 0);
  for (index_t e = 0; e < experts; ++e) {
    for (index_t u = 2 * (e % 100); u < 2 * (e % 100) + 2 + e / 100; ++u) {  // supersets of the pairs do not matter
      bits[static_cast<std::size_t>(e * words + u / 64)] |= std::uint64_t{1} << static_cast<unsigned>(u % 64);
    }
  }
  metrics::exact_recovery const method;
  fl::arena<> memory(method.workspace_bytes(units, experts));
  fl::workspace ws = memory.view();
  fl::metrics::recovery const two = method.evaluate({bits.data(), experts, words}, units, units - 2, ws);
  REQUIRE(two.status == fl::status::ok);
  CHECK(two.probability == Approx(1.0 - 100.0 / (500.0 * 999.0)).epsilon(1e-12));
  // Three failures: a pair and any other unit.
  CHECK(method.evaluate({bits.data(), experts, words}, units, units - 3, ws).probability ==
        Approx(1.0 - 100.0 * 998.0 / (1000.0 * 999.0 * 998.0 / 6.0)).epsilon(1e-12));
}

TEST_CASE("an entangled placement of many units is refused by the exact method and sampled by the other", "[metrics][recovery]") {
  std::vector<int> ring;  // expert e on ranks e and e + 1 of 40
  for (int r = 0; r < 40; ++r) { ring.insert(ring.end(), {r, (r + 39) % 40}); }
  fl::placement const where = one_expert_a_slot(40, 40, ring);
  metrics::sampled_recovery const sampled{.samples = 4000, .seed = 3};
  fl::arena<> memory(std::max(metrics::recovery_bytes(where), metrics::recovery_bytes(where, sampled)));
  fl::workspace ws = memory.view();
  CHECK(metrics::recovery_probability(where, 37, ws).status == fl::status::unsupported);
  metrics::recovery const estimate = metrics::recovery_probability(where, 37, ws, sampled);
  // Three failures without two neighbours on a ring of 40: 40/37 * C(37,3) of C(40,3).
  double const exact = 40.0 / 37.0 * 7770.0 / 9880.0;
  CHECK(estimate.low < exact);
  CHECK(exact < estimate.high);
  CHECK(estimate.high - estimate.low < 0.03);
  CHECK(metrics::recovery_probability(where, 37, ws, sampled).probability == estimate.probability);
  CHECK(metrics::recovery_probability(where, 40, ws, sampled).probability == 1.0);
  CHECK(metrics::recovery_probability(where, 0, ws, sampled).probability == 0.0);
}

TEST_CASE("the interval of a sample covers the exact value about as often as it says", "[metrics][recovery]") {
  fl::placement const where = one_expert_a_slot(4, 8, {0, 0, 1, 1, 2, 2, 3, 3});
  int covered = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    metrics::sampled_recovery const sampled{.samples = 300, .seed = seed};
    fl::arena<> memory(std::max(metrics::recovery_bytes(where), metrics::recovery_bytes(where, sampled)));
    fl::workspace ws = memory.view();
    double const exact = metrics::recovery_probability(where, 5, ws).probability;
    CHECK(exact == Approx(32.0 / 56.0));  // three dead ranks of 8 in three different pairs: C(4,3) * 8
    metrics::recovery const estimate = metrics::recovery_probability(where, 5, ws, sampled);
    covered += estimate.low <= exact && exact <= estimate.high ? 1 : 0;
  }
  CHECK(covered >= 180);  // 190 expected at 95 %, standard deviation 3
}

TEST_CASE("ranks that fail together are one unit", "[metrics][recovery]") {
  // Experts 0 and 1 twice each on ranks 0 to 3.
  fl::placement const where = one_expert_a_slot(2, 4, {0, 1, 0, 1});
  fl::arena<> memory(metrics::recovery_bytes(where));
  fl::workspace ws = memory.view();
  CHECK(metrics::min_failures_to_lose(where, ws) == 2);
  CHECK(metrics::recovery_probability(where, 3, ws).probability == 1.0);
  std::vector<index_t> const nodes{0, 0, 1, 1};    // each node has both experts
  std::vector<index_t> const racks{0, 1, 0, 1};    // each rack has one expert twice
  CHECK(metrics::min_failures_to_lose(where, ws, nodes, 2) == 2);
  CHECK(metrics::min_failures_to_lose(where, ws, racks, 2) == 1);
  CHECK(metrics::recovery_probability(where, 1, ws, metrics::exact_recovery{}, nodes, 2).probability == 1.0);
  CHECK(metrics::recovery_probability(where, 1, ws, metrics::exact_recovery{}, racks, 2).probability == 0.0);
}

TEST_CASE("lost experts and no experts have defined recovery", "[metrics][recovery]") {
  CHECK(survivors({0, 3}, 2) == std::vector<double>{0, 0, 0});
  CHECK(survivors({}, 2) == std::vector<double>{1, 2, 1});
  CHECK(survivors({0}, 20) == std::vector<double>(21, 0.0));
  fl::placement const lost = one_expert_a_slot(2, 2, {0, 0});
  fl::arena<> memory(metrics::recovery_bytes(lost));
  fl::workspace ws = memory.view();
  CHECK(metrics::min_failures_to_lose(lost, ws) == 0);
  CHECK(metrics::recovery_probability(lost, 2, ws).probability == 0.0);
  CHECK_THROWS_AS(metrics::recovery_probability(lost, 3, ws), fl::contract_violation);
}
