// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/schedule/equal_split.hpp>
#include <fairlead/schedule/sole_replica.hpp>

#include <fairlead/core/matrix.hpp>
#include <fairlead/laws/token_scheduler.hpp>

#include <limits>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::count_t;
using fl::expert_id;
using fl::index_t;

namespace {

expert_id e(int number) { return static_cast<expert_id>(number); }

// Two ranks: expert 0 on both, expert 1 on rank 0 only, expert 2 three times.
fl::placement replicated() {
  std::vector<index_t> const offsets{0, 4, 7};
  std::vector<expert_id> const slots{e(0), e(1), e(2), e(2), e(2), expert_id::none, e(0)};
  return {3, offsets, slots};
}

std::vector<count_t> row_of(fl::matrix<count_t> const& schedule, index_t row) {
  return {schedule.view().row(row), schedule.view().row(row) + schedule.cols()};
}

fl::matrix<count_t> load_of(std::vector<std::vector<count_t>> const& rows) {
  fl::matrix<count_t> load(static_cast<index_t>(rows.size()), static_cast<index_t>(rows.front().size()));
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (std::size_t c = 0; c < rows[r].size(); ++c) { load(static_cast<index_t>(r), static_cast<index_t>(c)) = rows[r][c]; }
  }
  return load;
}

}  // namespace

TEST_CASE("sole_replica sends every copy to the first replica", "[schedule]") {
  fl::placement const where = replicated();
  auto const load = load_of({{5, 1, 7}, {2, 0, 4}});
  fl::matrix<count_t> out(2, where.replicas());
  fl::workspace ws;
  fl::report const ended = fl::sole_replica{}.schedule(load.view(), where, out.view(), ws);
  REQUIRE(ended);
  CHECK(row_of(out, 0) == std::vector<count_t>{5, 0, 1, 7, 0, 0});
  CHECK(row_of(out, 1) == std::vector<count_t>{2, 0, 0, 4, 0, 0});
  CHECK(ended.value == 19.0);  // all of it lands on rank 0
}

TEST_CASE("equal_split rotates the remainder by source rank", "[schedule]") {
  fl::placement const where = replicated();
  auto const load = load_of({{5, 1, 7}, {5, 0, 7}, {0, 3, 8}});
  fl::matrix<count_t> out(3, where.replicas());
  fl::workspace ws;
  fl::report const ended = fl::equal_split{}.schedule(load.view(), where, out.view(), ws);
  REQUIRE(ended);
  CHECK(row_of(out, 0) == std::vector<count_t>{3, 2, 1, 3, 2, 2});
  CHECK(row_of(out, 1) == std::vector<count_t>{2, 3, 0, 2, 3, 2});
  CHECK(row_of(out, 2) == std::vector<count_t>{0, 0, 3, 3, 2, 3});
  // Rank 0 hosts replicas 0 of expert 0, the one of expert 1, and two of expert 2.
  CHECK(ended.value == static_cast<double>((3 + 2 + 0) + (1 + 0 + 3) + (3 + 2) + (2 + 3) + (3 + 2)));
}

TEST_CASE("schedulers keep the laws at many sizes", "[schedule][laws]") {
  fl::laws::token_scheduler_problem problem;
  for (index_t const ranks : {1, 2, 3, 8}) {
    for (index_t const experts : {1, 3, 16}) {
      for (index_t const extra : {0, 1, 9}) {
        problem.ranks = ranks;
        problem.experts = experts;
        problem.extra_slots = extra;
        problem.seed = static_cast<std::uint64_t>(100 * ranks + 10 * experts + extra);
        CHECK(fl::laws::check_token_scheduler(fl::sole_replica{}, problem));
        CHECK(fl::laws::check_token_scheduler(fl::equal_split{}, problem));
      }
    }
  }
}

TEST_CASE("equal_split gives replicas counts that differ by at most one a source", "[schedule]") {
  fl::placement const where = replicated();
  fl::workspace ws;
  for (count_t copies = 0; copies < 40; ++copies) {
    auto const load = load_of({{copies, copies, copies}, {copies, 0, copies}, {copies, 1, copies}});
    fl::matrix<count_t> out(3, where.replicas());
    REQUIRE(fl::equal_split{}.schedule(load.view(), where, out.view(), ws));
    for (index_t source = 0; source < 3; ++source) {
      for (index_t expert = 0; expert < 3; ++expert) {
        auto const first = where.replica_offset(e(static_cast<int>(expert)));
        auto const count = static_cast<index_t>(where.replicas(e(static_cast<int>(expert))).size());
        count_t least = std::numeric_limits<count_t>::max(), most = 0;
        for (index_t r = first; r < first + count; ++r) {
          least = std::min(least, out(source, r));
          most = std::max(most, out(source, r));
        }
        CHECK(most - least <= 1);
      }
    }
    // Three sources with equal loads and three replicas: the rotation makes the sums of expert 2 equal.
    index_t const first = where.replica_offset(e(2));
    CHECK(out(0, first) + out(1, first) + out(2, first) == copies);
    CHECK(out(0, first + 1) + out(1, first + 1) + out(2, first + 1) == copies);
  }
}

TEST_CASE("schedulers accept counts near the largest", "[schedule]") {
  count_t const most = std::numeric_limits<count_t>::max();
  fl::placement const where = replicated();
  auto const load = load_of({{most, most, most}, {most, most, most}});
  fl::matrix<count_t> out(2, where.replicas());
  fl::workspace ws;
  fl::report const ended = fl::sole_replica{}.schedule(load.view(), where, out.view(), ws);
  REQUIRE(ended);
  CHECK(ended.value == 6.0 * static_cast<double>(most));
  REQUIRE(fl::equal_split{}.schedule(load.view(), where, out.view(), ws));
  CHECK(fl::conserves(load.view(), where, out.view()));
}

TEST_CASE("schedulers name a wrong shape", "[schedule][contract]") {
  fl::placement const where = replicated();
  fl::matrix<count_t> load(2, 3), narrow(2, 2), out(2, where.replicas()), small(2, 5), short_out(1, where.replicas());
  fl::workspace ws;
  auto const refuses = [&](auto const& scheduler) {
    CHECK_THROWS_AS(scheduler.schedule(narrow.view(), where, out.view(), ws), fl::contract_violation);
    CHECK_THROWS_AS(scheduler.schedule(load.view(), where, small.view(), ws), fl::contract_violation);
    CHECK_THROWS_AS(scheduler.schedule(load.view(), where, short_out.view(), ws), fl::contract_violation);
#if FAIRLEAD_CONTRACT_LEVEL >= 2
    load(1, 1) = -1;
    CHECK_THROWS_AS(scheduler.schedule(load.view(), where, out.view(), ws), fl::contract_violation);
    load(1, 1) = 0;
#endif
  };
  refuses(fl::sole_replica{});
  refuses(fl::equal_split{});
}

TEST_CASE("schedulers accept no rank, no expert and no slot", "[schedule]") {
  fl::placement const nothing;
  fl::matrix<count_t> load(0, 0), out(0, 0), loads_of_none(2, 0), outs_of_none(2, 0);
  fl::workspace ws;
  CHECK(fl::sole_replica{}.schedule(load.view(), nothing, out.view(), ws));
  CHECK(fl::equal_split{}.schedule(loads_of_none.view(), nothing, outs_of_none.view(), ws));
}
