// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The law kits of splits and source routers must fail on rules that break one law each.
#include <fairlead/laws/replica_split.hpp>
#include <fairlead/laws/source_router.hpp>
#include <fairlead/schedule/equal_shares.hpp>
#include <fairlead/schedule/staircase.hpp>
#include <fairlead/schedule/water_fill.hpp>

#include <string>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::count_t;
using fl::index_t;

namespace {

bool says(fl::laws::verdict const& verdict, char const* part) {
  CHECK_FALSE(verdict);
  INFO(verdict.reason());
  return verdict.reason().find(part) != std::string::npos;
}

// Does what equal_shares does, then spoils it.
template <class Spoil>
struct spoiled_split {
  Spoil spoil;
  std::size_t bytes = 0;
  fl::report split(std::span<index_t const> totals, fl::placement const& where, std::span<count_t> shares, fl::workspace& ws) const {
    fl::report ended = fl::equal_shares{}.split(totals, where, shares, ws);
    spoil(totals, where, shares, ended, ws);
    return ended;
  }
  [[nodiscard]] std::size_t workspace_bytes(fl::placement const&) const { return bytes; }
};
template <class Spoil>
spoiled_split<Spoil> spoil_split(Spoil how, std::size_t bytes = 0) {
  return {how, bytes};
}

struct claims_optimal : fl::equal_shares {};
// Reaches the optimum of placements with one replica an expert, but says nothing of it.
struct silent_optimal : fl::water_fill {};

struct adding_split {
  fl::report split(std::span<index_t const> totals, fl::placement const& where, std::span<count_t> shares, fl::workspace& ws) const {
    std::vector<count_t> fresh(shares.size());
    fl::report const ended = fl::equal_shares{}.split(totals, where, fresh, ws);
    bool const stale = !shares.empty() && shares[0] == 1234567;
    for (std::size_t i = 0; i < shares.size(); ++i) { shares[i] = fresh[i]; }
    if (stale && shares.size() > 1 && where.replicas(static_cast<fl::expert_id>(0)).size() > 1 && shares[0] > 0) {
      --shares[0];
      ++shares[1];
    }
    return ended;
  }
  [[nodiscard]] std::size_t workspace_bytes(fl::placement const&) const { return 0; }
};

// Does what staircase does, then spoils it.
template <class Spoil>
struct spoiled_router {
  Spoil spoil;
  fl::report route(fl::load_view load, fl::placement const& where, std::span<count_t const> shares, fl::token_schedule_view out, fl::workspace& ws) const {
    fl::report ended = fl::staircase{}.route(load, where, shares, out, ws);
    spoil(load, where, shares, out, ended);
    return ended;
  }
  [[nodiscard]] std::size_t workspace_bytes(fl::placement const& where) const { return fl::staircase{}.workspace_bytes(where); }
};
template <class Spoil>
spoiled_router<Spoil> spoil_router(Spoil how) {
  return {how};
}

// Fills in order and claims to keep local copies.
struct claims_local {
  fl::report route(fl::load_view load, fl::placement const& where, std::span<count_t const> shares, fl::token_schedule_view out, fl::workspace& ws) const {
    fl::workspace::scope const scope(ws);
    fl::detail::row_walk walk(where, ws);
    walk.begin(load, shares, out);
    walk.fill(out, false);
    index_t local = 0;
    for (index_t e = 0; e < where.experts(); ++e) {
      index_t column = where.replica_offset(static_cast<fl::expert_id>(e));
      for (fl::replica const& copy : where.replicas(static_cast<fl::expert_id>(e))) { local += out(fl::to_index(copy.rank), column++); }
    }
    return {.value = static_cast<double>(local)};
  }
  [[nodiscard]] std::size_t workspace_bytes(fl::placement const& where) const { return fl::staircase{}.workspace_bytes(where); }
};

struct short_of_scratch : fl::staircase {
  [[nodiscard]] std::size_t workspace_bytes(fl::placement const& where) const { return fl::staircase::workspace_bytes(where) - 64; }
};

}  // namespace

template <>
inline constexpr bool fl::optimal_split<claims_optimal> = true;
template <>
inline constexpr bool fl::optimal_split<silent_optimal> = true;
template <>
inline constexpr bool fl::keeps_local<claims_local> = true;

TEST_CASE("the split laws hold for right rules at many sizes", "[schedule][laws]") {
  fl::laws::replica_split_problem problem;
  for (index_t const ranks : {1, 2, 3, 8, 20}) {
    for (index_t const experts : {1, 3, 16}) {
      for (index_t const extra : {0, 1, 25}) {
        problem.ranks = ranks;
        problem.experts = experts;
        problem.extra_slots = extra;
        problem.seed = static_cast<std::uint64_t>(100 * ranks + 10 * experts + extra);
        problem.cases = ranks == 8 ? 16 : 24;
        CHECK(fl::laws::check_replica_split(fl::equal_shares{}, problem));
        CHECK(fl::laws::check_replica_split(fl::water_fill{}, problem));
      }
    }
  }
}

TEST_CASE("the split laws find shares that do not sum to the total", "[schedule][laws]") {
  auto const rule = spoil_split([](auto, auto const&, std::span<count_t> shares, auto&, auto&) {
    for (count_t& share : shares) {
      if (share > 0) { --share; break; }
    }
  });
  CHECK(says(fl::laws::check_replica_split(rule), "sum to its total"));
}

TEST_CASE("the split laws find a negative share", "[schedule][laws]") {
  auto const rule = spoil_split([](auto, fl::placement const& where, std::span<count_t> shares, auto&, auto&) {
    for (index_t e = 0; e < where.experts(); ++e) {
      auto const id = static_cast<fl::expert_id>(e);
      if (where.replicas(id).size() < 2) { continue; }
      auto const at = static_cast<std::size_t>(where.replica_offset(id));
      if (shares[at] > 1000) { continue; }
      shares[at + 1] += shares[at] + 1;
      shares[at] = -1;
    }
  });
  CHECK(says(fl::laws::check_replica_split(rule), "no share is negative"));
}

TEST_CASE("the split laws find a silent loss", "[schedule][laws]") {
  auto const rule = spoil_split([](auto, auto const&, auto, fl::report& ended, auto&) { ended.status = fl::status::ok; });
  CHECK(says(fl::laws::check_replica_split(rule), "a lost expert with load is reported"));
}

TEST_CASE("the split laws find shares after a loss", "[schedule][laws]") {
  auto const rule = spoil_split([](auto, auto const&, std::span<count_t> shares, fl::report& ended, auto&) {
    if (ended.status == fl::status::lost_expert && !shares.empty()) { shares[0] = 1; }
  });
  CHECK(says(fl::laws::check_replica_split(rule), "zero when an expert is lost"));
}

TEST_CASE("the split laws find a rule that gives up", "[schedule][laws]") {
  auto const rule = spoil_split([](auto, auto const&, auto, fl::report& ended, auto&) { ended.status = fl::status::infeasible; });
  CHECK(says(fl::laws::check_replica_split(rule), "ends well"));
}

TEST_CASE("the split laws find a wrong value and a wrong bound", "[schedule][laws]") {
  auto const value = spoil_split([](auto, auto const&, auto, fl::report& ended, auto&) { ended.value += 1.0; });
  CHECK(says(fl::laws::check_replica_split(value), "largest number of copies of a rank"));
  auto const bound = spoil_split([](auto, auto const&, auto, fl::report& ended, auto&) { ended.bound = ended.value; });
  CHECK(says(fl::laws::check_replica_split(bound), "above the least load"));
}

TEST_CASE("the split laws find a rule that is optimal in name only", "[schedule][laws]") {
  CHECK(says(fl::laws::check_replica_split(claims_optimal{}), "optimal split"));
  // One replica an expert: nothing to choose, but the bound of 0 proves nothing.
  CHECK(says(fl::laws::check_replica_split(silent_optimal{}, {.extra_slots = 0}), "proves its value"));
}

TEST_CASE("the split laws find a dependence on old content", "[schedule][laws]") {
  CHECK(says(fl::laws::check_replica_split(adding_split{}), "whatever shares and scratch held"));
  auto const scratch = spoil_split([](auto, auto const&, std::span<count_t> shares, auto&, fl::workspace& ws) {
    auto const old = ws.take<unsigned char>(1);
    if (old[0] != 0 && !shares.empty()) { ++shares[0]; }
  }, 64);
  CHECK(says(fl::laws::check_replica_split(scratch), "whatever shares and scratch held"));
}

TEST_CASE("the split laws find too little announced scratch and a write beyond the shares", "[schedule][laws]") {
  auto const greedy = spoil_split([](auto, auto const&, auto, auto&, fl::workspace& ws) { (void)ws.take<int>(1); });
  CHECK(says(fl::laws::check_replica_split(greedy), "workspace_bytes"));
  auto const overruns = spoil_split([](auto, auto const&, std::span<count_t> shares, auto&, auto&) { *(shares.data() + shares.size()) = 1; });
  CHECK(says(fl::laws::check_replica_split(overruns), "outside of the shares"));
}

TEST_CASE("the router laws hold for the staircase at many sizes", "[schedule][laws]") {
  fl::laws::source_router_problem problem;
  for (index_t const ranks : {1, 2, 3, 8}) {
    for (index_t const experts : {1, 3, 16}) {
      for (index_t const extra : {0, 1, 25}) {
        problem.ranks = ranks;
        problem.experts = experts;
        problem.extra_slots = extra;
        problem.seed = static_cast<std::uint64_t>(100 * ranks + 10 * experts + extra);
        CHECK(fl::laws::check_source_router(fl::staircase{}, problem));
        CHECK(fl::laws::check_source_router(fl::staircase{.rotate = true}, problem));
      }
    }
  }
}

TEST_CASE("the router laws find a lost copy and a wrong column", "[schedule][laws]") {
  auto const loses = spoil_router([](auto, auto const&, auto, fl::token_schedule_view out, auto&) {
    for (index_t c = 0; c < out.cols(); ++c) {
      if (out(0, c) > 0) { --out(0, c); return; }
    }
  });
  CHECK(says(fl::laws::check_source_router(loses), "rows sum to the load"));
  auto const shifts = spoil_router([](auto, fl::placement const& where, auto, fl::token_schedule_view out, auto&) {
    for (index_t e = 0; e < where.experts(); ++e) {
      auto const id = static_cast<fl::expert_id>(e);
      index_t const c = where.replica_offset(id);
      for (index_t s = 0; s < out.rows() && where.replicas(id).size() > 1; ++s) {
        if (out(s, c) > 0) { --out(s, c); ++out(s, c + 1); return; }
      }
    }
  });
  CHECK(says(fl::laws::check_source_router(shifts), "columns sum to the shares"));
}

TEST_CASE("the router laws find a wrong report", "[schedule][laws]") {
  auto const value = spoil_router([](auto, auto const&, auto, auto, fl::report& ended) { ended.value += 1.0; });
  CHECK(says(fl::laws::check_source_router(value), "stay on their rank"));
  auto const gives_up = spoil_router([](auto, auto const&, auto, auto, fl::report& ended) { ended.status = fl::status::infeasible; });
  CHECK(says(fl::laws::check_source_router(gives_up), "ends well"));
  CHECK(says(fl::laws::check_source_router(claims_local{}), "as many copies as possible"));
}

TEST_CASE("the router laws find a write beyond out, old content and too little scratch", "[schedule][laws]") {
  auto const overruns = spoil_router([](auto, auto const&, auto, fl::token_schedule_view out, auto&) {
    if (out.stride() > out.cols()) { out.row(0)[out.cols()] = 1; }
  });
  CHECK(says(fl::laws::check_source_router(overruns), "outside of out"));
  auto const by_stride = spoil_router([](auto, auto const&, auto, fl::token_schedule_view out, auto&) {
    if (out.stride() > out.cols() && !out.empty()) { ++out(0, 0); }
  });
  CHECK(says(fl::laws::check_source_router(by_stride), "whatever out and scratch held"));
  CHECK(says(fl::laws::check_source_router(short_of_scratch{}), "workspace_bytes"));
}
