// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/metrics/induced_density.hpp>

#include <fairlead/core/philox.hpp>

#include <bit>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;
using fl::metrics::density;

namespace {

density densest(std::vector<std::uint64_t> const& hosts, std::vector<index_t> const& loads, density const* limit = nullptr) {
  fl::arena<> memory(fl::metrics::enumerated_density::workspace_bytes(static_cast<index_t>(loads.size())));
  fl::workspace ws = memory.view();
  density const found = fl::metrics::enumerated_density{}.evaluate(hosts, loads, ws, limit);
  CHECK(ws.used() == 0);
  return found;
}

index_t confined(std::vector<std::uint64_t> const& hosts, std::vector<index_t> const& loads, std::uint64_t set) {
  index_t sum = 0;
  for (std::size_t e = 0; e < hosts.size(); ++e) { sum += (hosts[e] & ~set) == 0 ? loads[e] : 0; }
  return sum;
}

density by_definition(std::vector<std::uint64_t> const& hosts, std::vector<index_t> const& loads, int ranks) {
  density best;
  for (std::uint64_t set = 1; set < (std::uint64_t{1} << static_cast<unsigned>(ranks)); ++set) {
    density const one{.load = confined(hosts, loads, set), .ranks = std::popcount(set), .set = set};
    if (fl::metrics::denser(one, best)) { best = one; }
  }
  return best;
}

struct instance {
  std::vector<std::uint64_t> hosts;
  std::vector<index_t> loads;
};
instance random_instance(std::uint64_t number, int ranks, int experts, index_t largest) {
  instance made;
  for (int e = 0; e < experts; ++e) {
    auto const words = fl::philox::draw(7, number, static_cast<std::uint64_t>(e));
    std::uint64_t set = std::uint64_t{1} << (words[0] % static_cast<unsigned>(ranks));
    for (unsigned extra = 0; extra < words[1] % 3; ++extra) { set |= std::uint64_t{1} << ((words[2] >> (8 * extra)) % static_cast<unsigned>(ranks)); }
    made.hosts.push_back(set);
    made.loads.push_back(words[3] % 5 == 0 ? 0 : static_cast<index_t>(words[3]) % largest + (words[3] % 7 == 1 ? 3 * largest : 0));
  }
  return made;
}

}  // namespace

TEST_CASE("the densest set of ranks is the best of all sets", "[metrics][density]") {
  for (std::uint64_t number = 0; number < 600; ++number) {
    int const ranks = 1 + static_cast<int>(number % 10);
    instance const one = random_instance(number, ranks, 1 + static_cast<int>(number % 17), number % 2 == 0 ? 100 : index_t{1} << 45U);
    density const found = densest(one.hosts, one.loads);
    density const wanted = by_definition(one.hosts, one.loads, ranks);
    INFO("instance " << number);
    REQUIRE(found.status == fl::status::ok);
    REQUIRE(found.load * wanted.ranks == wanted.load * found.ranks);
    if (found.load > 0) {  // the set proves the value
      REQUIRE(std::popcount(found.set) == found.ranks);
      REQUIRE(confined(one.hosts, one.loads, found.set) == found.load);
    }
  }
}

TEST_CASE("sets that do not fit one block are found too", "[metrics][density]") {
  for (std::uint64_t number = 0; number < 4; ++number) {
    int const ranks = 14 + static_cast<int>(number % 2);
    instance one = random_instance(1000 + number, ranks, 40, 1000);
    density const wanted = by_definition(one.hosts, one.loads, ranks);
    density const found = densest(one.hosts, one.loads);
    REQUIRE(found.load * wanted.ranks == wanted.load * found.ranks);
    // The same ranks, spread over the 64 bits of a word.
    for (std::uint64_t& set : one.hosts) {
      std::uint64_t wide = 0;
      for (int r = 0; r < ranks; ++r) { wide |= ((set >> static_cast<unsigned>(r)) & 1U) << static_cast<unsigned>(4 * r + 3); }
      set = wide;
    }
    density const moved = densest(one.hosts, one.loads);
    REQUIRE(moved.load == found.load);
    REQUIRE(moved.ranks == found.ranks);
    REQUIRE(confined(one.hosts, one.loads, moved.set) == moved.load);
  }
}

TEST_CASE("a limit is answered with a denser set, or with the densest", "[metrics][density]") {
  int above = 0;
  for (std::uint64_t number = 0; number < 300; ++number) {
    instance const one = random_instance(number, 8, 12, 50);
    density const exact = densest(one.hosts, one.loads);
    density const limit{.load = 40 + static_cast<index_t>(number), .ranks = 3};
    density const found = densest(one.hosts, one.loads, &limit);
    if (fl::metrics::denser(exact, limit)) {
      ++above;
      REQUIRE(fl::metrics::denser(found, limit));
      REQUIRE(confined(one.hosts, one.loads, found.set) == found.load);
    } else {
      REQUIRE(found.load * exact.ranks == exact.load * found.ranks);
    }
  }
  CHECK(above > 30);
  CHECK(above < 270);
}

TEST_CASE("the densest set of small placements is as computed by hand", "[metrics][density]") {
  // Two layouts of the worked example of four ranks: experts 0 and 3 confined to ranks 0 and 2 carry (27 + 5) / 2.
  density const pairs = densest({0b0101, 0b1010, 0b1010, 0b0101}, {27, 10, 6, 5});
  CHECK(pairs.load == 32);
  CHECK(pairs.ranks == 2);
  CHECK(pairs.set == 0b0101);
  CHECK(pairs.ceiling() == 16);
  density const spread = densest({0b1111, 0b0110, 0b0001, 0b1000}, {27, 10, 6, 5});
  CHECK(spread.load == 48);
  CHECK(spread.ranks == 4);
  CHECK(spread.value() == 12.0);
}

TEST_CASE("no load, lost experts and too many ranks are answered, not computed", "[metrics][density]") {
  CHECK(densest({}, {}).value() == 0.0);
  CHECK(densest({1, 2}, {0, 0}).load == 0);
  CHECK(densest({0, 2}, {0, 5}).load == 5);
  CHECK(densest({0, 2}, {1, 5}).status == fl::status::lost_expert);
  std::vector<std::uint64_t> hosts;
  for (unsigned r = 0; r < 40; ++r) { hosts.push_back(std::uint64_t{1} << r); }
  CHECK(densest(hosts, std::vector<index_t>(40, 1)).status == fl::status::unsupported);
  std::vector<index_t> few(40, 0);
  few[39] = 9;
  CHECK(densest(hosts, few).load == 9);  // ranks without load do not count
}

TEST_CASE("the density of a placement counts distinct hosts", "[metrics][density]") {
  using fl::expert_id;
  std::vector<index_t> const offsets{0, 2, 2, 5};
  std::vector<expert_id> const slots{expert_id{0}, expert_id{0}, expert_id{1}, expert_id{0}, expert_id::none};
  fl::placement const where(2, offsets, slots);
  fl::arena<> memory(fl::metrics::induced_density_bytes(2));
  fl::workspace ws = memory.view();
  std::vector<index_t> const even{10, 2};
  density const found = fl::metrics::induced_density(where, even, ws);
  CHECK(found.load == 12);
  CHECK(found.ranks == 2);
  CHECK(found.set == 0b101);
  std::vector<std::uint64_t> hosts(2);
  fl::metrics::host_masks(offsets, slots, hosts);
  CHECK(hosts == std::vector<std::uint64_t>{0b101, 0b100});
}

TEST_CASE("densities are compared exactly however large the loads", "[metrics][density]") {
  index_t const load = (index_t{1} << 62U) - 1;
  CHECK(fl::metrics::denser({.load = load, .ranks = 5}, {.load = load, .ranks = 7}));
  CHECK_FALSE(fl::metrics::denser({.load = load, .ranks = 7}, {.load = load, .ranks = 5}));
  CHECK(fl::metrics::denser({.load = load, .ranks = 64}, {.load = load - 1, .ranks = 64}));
  CHECK_FALSE(fl::metrics::denser({.load = load, .ranks = 3}, {.load = load, .ranks = 3}));
}
