// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/matrix.hpp>
#include <fairlead/workload/gate_scores.hpp>
#include <fairlead/workload/poisson_arrivals.hpp>

#include "support/catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

namespace fl = fairlead;
namespace wl = fairlead::workload;
using fl::index_t;

namespace {

// Sum of the law up to k, term by term in logarithms: an independent way to the probabilities.
std::vector<double> poisson_law(double mean, index_t last) {
  std::vector<double> law;
  double log_factorial = 0.0;
  for (index_t k = 0; k <= last; ++k) {
    if (k > 0) { log_factorial += std::log(static_cast<double>(k)); }
    law.push_back(std::exp(static_cast<double>(k) * std::log(mean) - mean - log_factorial));
  }
  return law;
}

}  // namespace

TEST_CASE("arrivals have the mean and the variance of the Poisson law", "[workload]") {
  for (double const mean : {0.05, 1.0, 9.7, 15.999, 16.0, 390.0, 520.5, 1e5, 3e9}) {
    CAPTURE(mean);
    index_t const draws = mean > 1e6 ? 50 : mean > 1e4 ? 2000 : 20000;
    wl::poisson_arrivals const arrivals{.mean = mean, .seed = 11};
    double sum = 0.0;
    double squares = 0.0;
    for (index_t slot = 0; slot < draws; ++slot) {
      double const off = static_cast<double>(arrivals.at(static_cast<std::uint64_t>(slot))) - mean;
      sum += off;
      squares += off * off;
    }
    auto const n = static_cast<double>(draws);
    CHECK(std::fabs(sum / n) < 4.0 * std::sqrt(mean / n));
    // Fourth central moment of the law: mean + 3 mean^2.
    CHECK(std::fabs(squares / n - mean) < 4.0 * std::sqrt((mean + 2.0 * mean * mean) / n));
  }
}

TEST_CASE("arrivals follow the Poisson law by Pearson's statistic", "[workload]") {
  for (double const mean : {0.3, 4.0, 15.5, 16.5, 37.0, 390.0}) {
    CAPTURE(mean);
    constexpr index_t draws = 40000;
    auto const law = poisson_law(mean, static_cast<index_t>(mean + 12.0 * std::sqrt(mean) + 20.0));
    REQUIRE(std::accumulate(law.begin(), law.end(), 0.0) == Approx(1.0).epsilon(1e-9));
    std::vector<double> seen(law.size(), 0.0);
    wl::poisson_arrivals const arrivals{.mean = mean, .seed = 5};
    for (index_t slot = 0; slot < draws; ++slot) {
      auto const n = static_cast<std::size_t>(arrivals.at(static_cast<std::uint64_t>(slot)));
      REQUIRE(n < seen.size());
      seen[n] += 1.0;
    }
    // Neighbours share a cell until 20 draws are expected in it.
    double statistic = 0.0;
    double cells = 0.0;
    double expected = 0.0;
    double counted = 0.0;
    double rest = static_cast<double>(draws);
    for (std::size_t k = 0; k < law.size(); ++k) {
      expected += law[k] * static_cast<double>(draws);
      counted += seen[k];
      if (expected >= 20.0 && rest - expected >= 20.0) {
        statistic += (counted - expected) * (counted - expected) / expected;
        rest -= expected;
        cells += 1.0;
        expected = counted = 0.0;
      }
    }
    statistic += (counted - rest) * (counted - rest) / rest;
    // Degrees of freedom = cells, since the last one is extra; mean of the statistic, variance twice that.
    CHECK(statistic < cells + 4.0 * std::sqrt(2.0 * cells) + 4.0);
    CHECK(statistic > cells - 4.0 * std::sqrt(2.0 * cells) - 4.0);
  }
}

TEST_CASE("arrivals are a function of seed and slot, and slots differ", "[workload]") {
  wl::poisson_arrivals const a{.mean = 390.0, .seed = 1};
  wl::poisson_arrivals const b{.mean = 390.0, .seed = 2};
  std::vector<index_t> forward;
  for (std::uint64_t slot = 0; slot < 200; ++slot) { forward.push_back(a.at(slot)); }
  index_t same_seed = 0;
  index_t other_seed = 0;
  for (std::uint64_t slot = 200; slot-- > 0;) {
    same_seed += a.at(slot) == forward[slot] ? 1 : 0;
    other_seed += b.at(slot) == forward[slot] ? 1 : 0;
  }
  CHECK(same_seed == 200);
  CHECK(other_seed < 30);
  // Neighbouring slots are not correlated.
  double product = 0.0;
  for (std::size_t i = 1; i < forward.size(); ++i) {
    product += (static_cast<double>(forward[i]) - 390.0) * (static_cast<double>(forward[i - 1]) - 390.0);
  }
  CHECK(std::fabs(product / 199.0 / 390.0) < 4.0 / std::sqrt(199.0));
  CHECK(wl::poisson_arrivals{.mean = 0.0, .seed = 3}.at(7) == 0);
}

TEST_CASE("arrivals refuse means that are no means", "[workload]") {
  for (double const mean : {-1.0, -0.0001, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN(), 0x1p41}) {
    CHECK_THROWS_AS((wl::poisson_arrivals{.mean = mean}.at(0)), fl::contract_violation);
  }
}

TEST_CASE("gate scores are rows of a softmax whose random share is that of the published setting", "[workload]") {
  constexpr index_t tokens = 20000;
  fl::matrix<float> scores(tokens, 10);
  wl::gate_scores{.servers = 10, .seed = 3}.fill(0, scores.view());
  double best = 0.0;
  std::vector<double> column(10, 0.0);
  for (index_t t = 0; t < tokens; ++t) {
    std::vector<double> row(scores.view().row(t), scores.view().row(t) + 10);
    double const sum = std::accumulate(row.begin(), row.end(), 0.0);
    REQUIRE(sum == Approx(1.0).margin(1e-5));
    REQUIRE(*std::min_element(row.begin(), row.end()) > 0.0);
    for (std::size_t j = 0; j < 10; ++j) { column[j] += row[j] / static_cast<double>(tokens); }
    std::sort(row.rbegin(), row.rend());
    best += row[0] + row[1] + row[2];
  }
  // Three servers by chance have 0.3 of the mass: .474 of what the three best have.
  CHECK(0.3 * static_cast<double>(tokens) / best == Approx(0.474).margin(0.002));
  for (double const share : column) { CHECK(share == Approx(0.1).margin(0.003)); }
}

TEST_CASE("gate scores undo to normal logits with the bias of the server", "[workload]") {
  // Differences of logarithms of a row are differences of logits: bias(a) - bias(b) + N(0, 2).
  constexpr index_t tokens = 20000;
  wl::gate_scores const gate{.servers = 3, .skew = 1.5, .seed = 4, .popularity_seed = 9};
  fl::matrix<float> scores(tokens, 3);
  gate.fill(12, scores.view());
  for (index_t other = 1; other < 3; ++other) {
    double sum = 0.0;
    double squares = 0.0;
    for (index_t t = 0; t < tokens; ++t) {
      double const difference = std::log(static_cast<double>(scores(t, 0)) / static_cast<double>(scores(t, other)));
      double const off = difference - (gate.bias(0) - gate.bias(other));
      sum += off;
      squares += off * off;
    }
    CHECK(std::fabs(sum / tokens) < 4.0 * std::sqrt(2.0 / tokens));
    CHECK(squares / tokens == Approx(2.0).margin(4.0 * std::sqrt(8.0 / tokens)));
  }
  // Over many servers, biases have the deviation that was asked for.
  double squares = 0.0;
  for (index_t server = 0; server < 4000; ++server) { squares += gate.bias(server) * gate.bias(server); }
  CHECK(std::sqrt(squares / 4000.0) == Approx(1.5).margin(4.0 * 1.5 / std::sqrt(8000.0)));
}

TEST_CASE("gate scores are named by seeds, slot and row", "[workload]") {
  wl::gate_scores const gate{.servers = 7, .skew = 0.5, .seed = 4, .popularity_seed = 9};
  auto const of = [](wl::gate_scores const& which, std::uint64_t slot, index_t tokens) {
    fl::matrix<float> scores(tokens, which.servers);
    which.fill(slot, scores.view());
    return scores;
  };
  auto const all = of(gate, 3, 50);
  auto const few = of(gate, 3, 20);
  CHECK(std::memcmp(all.data(), few.data(), 20 * 7 * sizeof(float)) == 0);
  for (auto const& other : {of({.servers = 7, .skew = 0.5, .seed = 5, .popularity_seed = 9}, 3, 50), of(gate, 4, 50),
                            of({.servers = 7, .skew = 0.5, .seed = 4, .popularity_seed = 8}, 3, 50)}) {
    index_t equal = 0;
    for (index_t i = 0; i < 350; ++i) { equal += other.data()[i] == all.data()[i] ? 1 : 0; }
    CHECK(equal < 5);
  }
  // A skew of zero does not look at the popularity.
  CHECK(std::memcmp(of({.servers = 7, .seed = 4, .popularity_seed = 9}, 3, 5).data(), of({.servers = 7, .seed = 4}, 3, 5).data(),
                    5 * 7 * sizeof(float)) == 0);
  // Views with a stride are filled row by row, and nothing beside them.
  fl::matrix<float> wide(4, 9);
  std::fill_n(wide.data(), 36, -1.0F);
  gate.fill(3, {wide.data(), 4, 7, 9});
  bool same = true;
  for (index_t t = 0; t < 4; ++t) {
    for (index_t j = 0; j < 7; ++j) { same = same && wide(t, j) == all(t, j); }
    same = same && wide(t, 7) == -1.0F && wide(t, 8) == -1.0F;
  }
  CHECK(same);
}

TEST_CASE("gate scores survive large skews and refuse wrong shapes", "[workload]") {
  fl::matrix<float> scores(30, 10);
  wl::gate_scores{.servers = 10, .skew = 200.0, .seed = 1}.fill(0, scores.view());
  bool finite = true;
  for (float const value : scores.span()) { finite = finite && value >= 0.0F && value <= 1.0F; }
  CHECK(finite);
  wl::gate_scores{.servers = 10, .skew = wl::gate_scores::max_skew, .seed = 1}.fill(0, scores.view());
  for (index_t t = 0; t < 30; ++t) { CHECK(std::count(scores.view().row(t), scores.view().row(t) + 10, 1.0F) == 1); }
  CHECK_THROWS_AS((wl::gate_scores{.servers = 10, .skew = 1e31}.fill(0, scores.view())), fl::contract_violation);
  wl::gate_scores{.servers = 10}.fill(0, {});
  fl::matrix<float> one(3, 1);
  wl::gate_scores{.servers = 1}.fill(0, one.view());
  CHECK(one(2, 0) == 1.0F);
  CHECK_THROWS_AS((wl::gate_scores{.servers = 9}.fill(0, scores.view())), fl::contract_violation);
  CHECK_THROWS_AS((wl::gate_scores{.servers = 10, .skew = -1.0}.fill(0, scores.view())), fl::contract_violation);
  CHECK_THROWS_AS((wl::gate_scores{.servers = 10, .skew = std::numeric_limits<double>::infinity()}.fill(0, scores.view())), fl::contract_violation);
}
