// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/workload/assignment_scores.hpp>

#include "support/catch.hpp"

#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace fl = fairlead;
namespace wl = fairlead::workload;
using fl::index_t;

namespace {

constexpr std::uint64_t seed = 11;

bool same_row(fl::matrix_view<float const> a, index_t row_a, fl::matrix_view<float const> b, index_t row_b) {
  return std::memcmp(a.row(row_a), b.row(row_b), static_cast<std::size_t>(a.cols()) * sizeof(float)) == 0;
}

double excess(fl::matrix_view<float const> scores) {
  std::vector<index_t> load(static_cast<std::size_t>(scores.cols()));
  for (index_t t = 0; t < scores.rows(); ++t) {
    auto const* const row = scores.row(t);
    ++load[static_cast<std::size_t>(std::max_element(row, row + scores.cols()) - row)];
  }
  double over = 0.0;
  double const mean = static_cast<double>(scores.rows()) / static_cast<double>(scores.cols());
  for (index_t const n : load) { over += std::max(0.0, static_cast<double>(n) - mean); }
  return over / static_cast<double>(scores.rows());
}

}  // namespace

TEST_CASE("every score of every kind is an exact multiple of 2^-16 in fp32", "[workload]") {
  for (wl::score_kind const kind : wl::all_score_kinds) {
    INFO(wl::name(kind));
    auto const scores = wl::assignment_scores{.tokens = 700, .experts = 48, .kind = kind, .seed = seed}.make();
    bool on_grid = true;
    float largest = 0.0F;
    for (float const score : scores.span()) {
      double const scaled = static_cast<double>(score) * wl::assignment_scores::score_scale;
      on_grid = on_grid && scaled == std::nearbyint(scaled);
      largest = std::max(largest, std::fabs(score));
    }
    CHECK(on_grid);
    CHECK(largest < 128.0F);
    CHECK(largest > 0.5F);
  }
}

TEST_CASE("scores are named by seed and global row", "[workload]") {
  for (wl::score_kind const kind : wl::all_score_kinds) {
    INFO(wl::name(kind));
    wl::assignment_scores const what{.tokens = 90, .experts = 17, .kind = kind, .seed = seed};
    auto const all = what.make();
    auto part_of = what;
    part_of.tokens = 20;
    part_of.first_token = 60;
    auto const part = part_of.make();
    bool equal = true;
    for (index_t t = 0; t < 20; ++t) { equal = equal && same_row(part.view(), t, all.view(), 60 + t); }
    CHECK(equal);
    auto other_seed = what;
    other_seed.seed = seed + 1;
    CHECK(std::memcmp(other_seed.make().data(), all.data(), all.span().size_bytes()) != 0);
  }
  CHECK(wl::assignment_scores{.tokens = 0, .experts = 5, .kind = wl::score_kind::cluster}.make().rows() == 0);
  CHECK(wl::assignment_scores{.tokens = 3, .experts = 0, .kind = wl::score_kind::rounded}.make().cols() == 0);
  CHECK_THROWS_AS((wl::assignment_scores{.tokens = -1, .experts = 1}.make()), fl::contract_violation);
}

TEST_CASE("each kind has the property that names it", "[workload]") {
  auto const make = [](wl::score_kind kind) {
    return wl::assignment_scores{.tokens = 4096, .experts = 32, .kind = kind, .seed = seed}.make();
  };
  auto const normal = make(wl::score_kind::normal);
  double sum = 0.0, squares = 0.0;
  for (float const value : normal.span()) { sum += value, squares += static_cast<double>(value) * value; }
  double const n = 4096.0 * 32.0;
  CHECK(std::fabs(sum / n) < 5.0 / std::sqrt(n));
  CHECK(squares / n == Approx(1.0).margin(5.0 * std::sqrt(2.0 / n)));
  CHECK(excess(normal.view()) < 0.06);

  auto const cluster = make(wl::score_kind::cluster);
  CHECK(excess(cluster.view()) > 0.2);
  auto const rounded = make(wl::score_kind::rounded);
  bool is_rounding = true;
  for (std::size_t i = 0; i < cluster.span().size(); ++i) {
    is_rounding = is_rounding && rounded.span()[i] == static_cast<float>(fl::bfloat16(cluster.span()[i]));
  }
  CHECK(is_rounding);

  auto const ties = make(wl::score_kind::ties);
  std::map<float, int> levels;
  for (float const value : ties.span()) { ++levels[value]; }
  REQUIRE(levels.size() == 8);
  for (auto const& [level, count] : levels) { CHECK(count == Approx(n / 8).margin(6.0 * std::sqrt(n / 8))); }

  auto const same = make(wl::score_kind::same);
  int descending = 0;
  for (index_t t = 0; t < 4096; ++t) { descending += same(t, 0) > same(t, 16) && same(t, 16) > same(t, 31) ? 1 : 0; }
  CHECK(descending > 4000);

  auto const token = make(wl::score_kind::token);
  std::map<std::vector<float>, int> rows;
  for (index_t t = 0; t < 4096; ++t) {
    ++rows[std::vector<float>(token.view().row(t), token.view().row(t) + 32)];
  }
  CHECK(rows.size() < 2500);
  int most = 0;
  for (auto const& [row, count] : rows) { most = std::max(most, count); }
  double const share = wl::zipf_shares(5000, 1.0)[0];
  CHECK(most == Approx(4096 * share).margin(6.0 * std::sqrt(4096 * share)));
}

TEST_CASE("redrawing replaces the stated share of the rows and nothing else", "[workload]") {
  for (wl::score_kind const kind : wl::all_score_kinds) {
    INFO(wl::name(kind));
    wl::assignment_scores const what{.tokens = 400, .experts = 24, .kind = kind, .seed = seed};
    auto const before = what.make();
    auto after = what.make();
    CHECK(what.redraw_rows(after.view(), 0.05, 1) == 20);
    index_t changed = 0;
    for (index_t t = 0; t < 400; ++t) { changed += same_row(before.view(), t, after.view(), t) ? 0 : 1; }
    CHECK(changed <= 20);
    CHECK(changed >= 14);  // a token may draw its old id again
    auto other = what.make();
    what.redraw_rows(other.view(), 0.05, 2);
    CHECK(std::memcmp(other.data(), after.data(), other.span().size_bytes()) != 0);
    CHECK(what.redraw_rows(other.view(), 0.0, 3) == 0);
    CHECK_THROWS_AS(what.redraw_rows(other.view(), 1.5, 1), fl::contract_violation);
    CHECK_THROWS_AS(what.redraw_rows(other.view(), 0.5, 0), fl::contract_violation);
  }
}
