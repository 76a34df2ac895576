// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/order.hpp>
#include <fairlead/workload/adversarial_scores.hpp>
#include <fairlead/workload/drifting_load.hpp>
#include <fairlead/workload/skewed_logits.hpp>
#include <fairlead/workload/token_rows.hpp>
#include <fairlead/workload/zipf.hpp>

#include "support/catch.hpp"

#include <cstring>
#include <set>
#include <string>

namespace fl = fairlead;
namespace wl = fairlead::workload;

TEST_CASE("token rows are standard normal and named by their global row", "[workload]") {
  auto const all = wl::token_rows{.rows = 400, .width = 64, .seed = 7}.make();
  double sum = 0.0;
  double squares = 0.0;
  for (float const value : all.span()) {
    sum += value;
    squares += static_cast<double>(value) * value;
  }
  double const n = 400.0 * 64.0;
  CHECK(std::fabs(sum / n) < 5.0 / std::sqrt(n));
  CHECK(squares / n == Approx(1.0).margin(5.0 * std::sqrt(2.0 / n)));

  auto const part = wl::token_rows{.rows = 3, .width = 64, .seed = 7, .first_row = 100}.make();
  CHECK(std::memcmp(part.data(), all.view().row(100), 3 * 64 * sizeof(float)) == 0);
  auto const narrow = wl::token_rows{.rows = 101, .width = 5, .seed = 7}.make();
  CHECK(std::memcmp(narrow.view().row(100), all.view().row(100), 5 * sizeof(float)) == 0);
  auto const other = wl::token_rows{.rows = 1, .width = 64, .seed = 8}.make();
  CHECK(std::memcmp(other.data(), all.data(), 64 * sizeof(float)) != 0);
  CHECK(wl::token_rows{}.make().rows() == 0);
  CHECK_THROWS_AS((wl::token_rows{.rows = -1}.make()), fl::contract_violation);
}

TEST_CASE("zipf shares and counts follow the law", "[workload]") {
  auto const shares = wl::zipf_shares(4, 1.0);
  double const harmonic = 1.0 + 1.0 / 2 + 1.0 / 3 + 1.0 / 4;
  for (std::size_t i = 0; i < 4; ++i) { CHECK(shares[i] == Approx(1.0 / static_cast<double>(i + 1) / harmonic)); }
  CHECK(wl::zipf_counts(4, 25, 1.0) == std::vector<fl::index_t>{12, 6, 4, 3});
  CHECK(wl::zipf_counts(4, 6, 0.0) == std::vector<fl::index_t>{2, 2, 1, 1});
  CHECK(wl::zipf_counts(0, 0, 1.0).empty());
  CHECK(wl::zipf_counts(3, 0, 1.0) == std::vector<fl::index_t>{0, 0, 0});
  CHECK_THROWS_AS(wl::zipf_counts(0, 3, 1.0), fl::contract_violation);
  CHECK_THROWS_AS(wl::zipf_shares(3, -1.0), fl::contract_violation);
}

TEST_CASE("apportioned numbers add up and stay within one of the exact shares", "[workload]") {
  for (fl::index_t experts : {1, 2, 7, 64, 257}) {
    for (fl::index_t total : {0, 1, 6, 4096, 1000003}) {
      for (double exponent : {0.0, 0.7, 3.0}) {
        auto const shares = wl::zipf_shares(experts, exponent);
        auto const counts = wl::apportion(shares, total);
        fl::index_t sum = 0;
        bool close = true;
        for (std::size_t i = 0; i < counts.size(); ++i) {
          sum += counts[i];
          close = close && std::fabs(static_cast<double>(counts[i]) - shares[i] * static_cast<double>(total)) < 1.0 + 1e-6;
        }
        CHECK(sum == total);
        CHECK(close);
      }
    }
  }
}

TEST_CASE("a shuffle is a permutation that the seed names", "[workload]") {
  auto const ids = wl::shuffled_ids(50, 3);
  CHECK(std::set<std::int32_t>(ids.begin(), ids.end()).size() == 50);
  CHECK(*std::max_element(ids.begin(), ids.end()) == 49);
  CHECK(ids == wl::shuffled_ids(50, 3));
  CHECK(ids != wl::shuffled_ids(50, 4));
  CHECK(wl::shuffled_ids(0, 1).empty());
  // Uniform: each of the 6 orders of three ids about 1000 times in 6000.
  std::array<int, 27> hits{};
  for (std::uint64_t seed = 0; seed < 6000; ++seed) {
    auto const order = wl::shuffled_ids(3, seed);
    ++hits[static_cast<std::size_t>(order[0] * 9 + order[1] * 3 + order[2])];
  }
  int orders = 0;
  for (int const hit : hits) {
    if (hit == 0) { continue; }
    ++orders;
    CHECK(std::abs(hit - 1000) < 150);
  }
  CHECK(orders == 6);
}

TEST_CASE("the best expert of skewed logits follows the zipf shares", "[workload]") {
  constexpr fl::index_t tokens = 20000;
  constexpr fl::index_t experts = 6;
  auto const logits = wl::skewed_logits{.tokens = tokens, .experts = experts, .skew = 1.2, .seed = 5, .popularity_seed = 9}.make();
  auto const shares = wl::zipf_shares(experts, 1.2);
  auto const order = wl::shuffled_ids(experts, 9);
  std::vector<double> hits(experts, 0.0);
  for (fl::index_t token = 0; token < tokens; ++token) {
    float const* const row = logits.view().row(token);
    hits[static_cast<std::size_t>(std::max_element(row, row + experts) - row)] += 1.0;
  }
  for (std::size_t i = 0; i < experts; ++i) {
    double const expected = shares[i];
    double const deviation = std::sqrt(expected * (1.0 - expected) / tokens);
    CHECK(std::fabs(hits[static_cast<std::size_t>(order[i])] / tokens - expected) < 5.0 * deviation);
  }
  auto const part =
      wl::skewed_logits{.tokens = 2, .experts = experts, .skew = 1.2, .seed = 5, .first_token = 77, .popularity_seed = 9}.make();
  CHECK(std::memcmp(part.data(), logits.view().row(77), 2 * experts * sizeof(float)) == 0);
}

TEST_CASE("drifting loads keep their sums and drift as persistence says", "[workload]") {
  wl::drifting_load const description{.ranks = 4, .experts = 32, .copies = 4096, .spread = 0.8, .persistence = 0.9, .seed = 11};
  auto const loads = description.make(20);
  REQUIRE(loads.size() == 20);
  for (auto const& load : loads) {
    for (fl::index_t rank = 0; rank < 4; ++rank) {
      fl::index_t sum = 0;
      bool negative = false;
      for (fl::index_t e = 0; e < 32; ++e) {
        sum += load(rank, e);
        negative = negative || load(rank, e) < 0;
      }
      CHECK(sum == 4096);
      CHECK_FALSE(negative);
    }
  }
  auto const again = description.at(13);
  CHECK(std::memcmp(again.data(), loads[13].data(), 4 * 32 * sizeof(fl::count_t)) == 0);

  auto const change = [](double persistence) {
    auto const sequence =
        wl::drifting_load{.ranks = 1, .experts = 64, .copies = 65536, .spread = 0.8, .persistence = persistence, .rank_spread = 0.0, .seed = 2}.make(10);
    double total = 0.0;
    for (std::size_t m = 1; m < sequence.size(); ++m) {
      for (fl::index_t e = 0; e < 64; ++e) { total += std::abs(sequence[m](0, e) - sequence[m - 1](0, e)); }
    }
    return total;
  };
  CHECK(change(1.0) == 0.0);
  CHECK(change(0.99) > 0.0);
  CHECK(change(0.99) < 0.5 * change(0.0));
  CHECK_THROWS_AS((wl::drifting_load{.persistence = 1.5}.at(0)), fl::contract_violation);
  CHECK(wl::drifting_load{.ranks = 0}.at(0).rows() == 0);
}

TEST_CASE("every adversarial pattern is what its name says", "[workload]") {
  for (wl::adversarial const pattern : wl::all_adversarial) {
    INFO(wl::name(pattern));
    auto const scores = wl::adversarial_scores{.tokens = 8, .experts = 6, .pattern = pattern, .seed = 3}.make();
    auto const same = wl::adversarial_scores{.tokens = 8, .experts = 6, .pattern = pattern, .seed = 3}.make();
    CHECK(std::memcmp(scores.data(), same.data(), 48 * sizeof(float)) == 0);
    bool finite = true;
    for (float const score : scores.span()) { finite = finite && std::isfinite(score); }
    CHECK(finite == wl::all_finite(pattern));
    CHECK(wl::adversarial_scores{.pattern = pattern}.make().rows() == 0);
    CHECK(wl::adversarial_scores{.tokens = 3, .experts = 1, .pattern = pattern}.make().cols() == 1);
  }
  auto const make = [](wl::adversarial pattern) {
    return wl::adversarial_scores{.tokens = 8, .experts = 6, .pattern = pattern, .seed = 3}.make();
  };
  auto const rows = make(wl::adversarial::duplicate_rows);
  CHECK(std::memcmp(rows.view().row(0), rows.view().row(7), 6 * sizeof(float)) == 0);
  auto const columns = make(wl::adversarial::duplicate_columns);
  CHECK(columns(5, 2) == columns(5, 3));
  auto const few = make(wl::adversarial::too_few_finite);
  for (fl::index_t token = 0; token < 8; ++token) {
    int candidates = 0;
    for (fl::index_t e = 0; e < 6; ++e) { candidates += fl::is_candidate(few(token, e)) ? 1 : 0; }
    CHECK(candidates == 1);
  }
  auto const nans = make(wl::adversarial::nan_entries);
  CHECK(std::set<std::string_view>{wl::name(wl::adversarial::all_equal), wl::name(wl::adversarial::huge)}.count("huge") == 1);
  int signs = 0;
  for (float const score : nans.span()) { signs += std::isnan(score) && std::signbit(score) ? 1 : 0; }
  CHECK(signs == 4);
  auto const zeros = make(wl::adversarial::signed_zeros);
  int negative = 0;
  for (float const score : zeros.span()) {
    CHECK(score == 0.0F);
    negative += std::signbit(score) ? 1 : 0;
  }
  CHECK(negative > 0);
  CHECK(negative < 48);
}
