// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The peers that the benches compare with do what their authors' code does.
#include "support/peers/fairseq_auction.hpp"

#include <fairlead/core/matrix.hpp>
#include <fairlead/workload/assignment_scores.hpp>

#include "support/catch.hpp"

#include <algorithm>
#include <initializer_list>
#include <utility>
#include <vector>

namespace fl = fairlead;
namespace wl = fairlead::workload;
using fl::index_t;

namespace {

fl::matrix<float> rows(std::initializer_list<std::initializer_list<float>> values) {
  fl::matrix<float> result(static_cast<index_t>(values.size()), static_cast<index_t>(values.begin()->size()));
  index_t t = 0;
  for (auto const& row : values) {
    std::copy(row.begin(), row.end(), result.view().row(t));
    ++t;
  }
  return result;
}

bool lowest_token_first(std::pair<float, std::int32_t> const& a, std::pair<float, std::int32_t> const& b) {
  return a.first > b.first || (a.first == b.first && a.second < b.second);
}

double value(fl::matrix_view<float const> scores, fl_bench::auction_outcome const& outcome) {
  double sum = 0.0;
  for (std::size_t e = 0; e < outcome.tokens_of.size(); ++e) {
    for (auto const t : outcome.tokens_of[e]) { sum += static_cast<double>(scores(t, static_cast<index_t>(e))); }
  }
  return sum;
}

using groups = std::vector<std::vector<std::int32_t>>;

groups sorted(groups lists) {
  for (auto& list : lists) { std::sort(list.begin(), list.end()); }
  return lists;
}

}  // namespace

TEST_CASE("the auction peer reproduces the worked examples of the published auction", "[assign]") {
  auto const tie = rows({{9, 8}, {8, 2}, {7, 6}, {1, 5}});
  auto const first = fl_bench::fairseq_auction(tie.view(), 100, 60.0, lowest_token_first);
  REQUIRE(first.valid(4));
  CHECK(first.rounds == 2);
  CHECK(sorted(first.tokens_of) == groups{{0, 1}, {2, 3}});
  CHECK(value(tie.view(), first) == 28.0);

  auto const unique = rows({{6, 17, 13}, {25, 3, 8}, {8, 7, 2}, {26, 9, 11}, {19, 5, 1}, {22, 14, 1}});
  auto const second = fl_bench::fairseq_auction(unique.view(), 100, 60.0, lowest_token_first);
  REQUIRE(second.valid(6));
  CHECK(second.rounds == 9);
  CHECK(sorted(second.tokens_of) == groups{{1, 3}, {0, 5}, {2, 4}});
  CHECK(value(unique.view(), second) == 85.0);  // the optimum is 89
}

TEST_CASE("the auction peer refuses shapes on which the published auction never ends", "[assign]") {
  auto const uneven = wl::assignment_scores{.tokens = 1000, .experts = 16}.make();
  CHECK_FALSE(fl_bench::fairseq_auction(uneven.view()).valid(1000));
  auto const one = wl::assignment_scores{.tokens = 8, .experts = 1}.make();
  CHECK_FALSE(fl_bench::fairseq_auction(one.view()).valid(8));
  auto const capped = wl::assignment_scores{.tokens = 1024, .experts = 16}.make();
  auto const outcome = fl_bench::fairseq_auction(capped.view(), 1);
  CHECK_FALSE(outcome.finished);
  CHECK(outcome.rounds == 1);
}

TEST_CASE("the auction peer loses tokens when scores tie in no fixed order", "[assign]") {
  bool lost = false;
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    auto const few = wl::assignment_scores{.tokens = 1024, .experts = 16, .kind = wl::score_kind::ties, .seed = seed};
    lost = lost || !fl_bench::fairseq_auction(few.make().view(), 2000).valid(1024);
  }
  CHECK(lost);
  fl::matrix<float> equal(256, 8);
  std::fill(equal.span().begin(), equal.span().end(), 1.0F);
  CHECK(fl_bench::fairseq_auction(equal.view(), 2000, 60.0, lowest_token_first).valid(256));
}

TEST_CASE("the auction peer comes close on scores without ties", "[assign]") {
  auto const scores = wl::assignment_scores{.tokens = 1024, .experts = 16, .seed = 3}.make();
  auto const outcome = fl_bench::fairseq_auction(scores.view());
  REQUIRE(outcome.valid(1024));
  double best_rows = 0.0;  // no assignment is worth more than every token at its best
  for (index_t t = 0; t < 1024; ++t) {
    best_rows += static_cast<double>(*std::max_element(scores.view().row(t), scores.view().row(t) + 16));
  }
  CHECK(value(scores.view(), outcome) <= best_rows);
  CHECK(value(scores.view(), outcome) > 0.98 * best_rows);
}
