// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/matrix.hpp>
#include <fairlead/metrics/load.hpp>

#include "support/catch.hpp"

#include <cmath>
#include <vector>

namespace fl = fairlead;
namespace metrics = fairlead::metrics;
using counts = std::vector<fl::index_t>;

namespace {
std::span<fl::index_t const> view(counts const& values) { return values; }
}  // namespace

TEST_CASE("load metrics have their textbook values", "[metrics]") {
  counts const loads = {6, 2, 2, 2};
  CHECK(metrics::total(view(loads)) == 12.0);
  CHECK(metrics::imbalance(view(loads)) == 2.0);
  CHECK(metrics::max_violation(view(loads)) == 1.0);
  CHECK(metrics::coefficient_of_variation(view(loads)) == Approx(std::sqrt(3.0) / 3.0));
  double const entropy = -(0.5 * std::log(0.5) + 3.0 / 6.0 * std::log(1.0 / 6.0));
  CHECK(metrics::normalised_entropy(view(loads)) == Approx(entropy / std::log(4.0)));
  std::vector<float> const shares = {0.75F, 0.25F};
  CHECK(metrics::imbalance(std::span<float const>(shares)) == 1.5);
}

TEST_CASE("even, one-sided and absent loads are the ends of every scale", "[metrics]") {
  for (std::size_t n : {1U, 2U, 7U, 64U}) {
    counts const even(n, 5);
    CHECK(metrics::imbalance(view(even)) == 1.0);
    CHECK(metrics::max_violation(view(even)) == 0.0);
    CHECK(metrics::coefficient_of_variation(view(even)) == 0.0);
    CHECK(metrics::normalised_entropy(view(even)) == Approx(1.0));
    counts one(n, 0);
    one[n / 2] = 9;
    CHECK(metrics::imbalance(view(one)) == static_cast<double>(n));
    CHECK(metrics::coefficient_of_variation(view(one)) == Approx(std::sqrt(static_cast<double>(n) - 1.0)));
    CHECK(metrics::normalised_entropy(view(one)) == (n == 1 ? 1.0 : 0.0));
    counts const zero(n, 0);
    CHECK(metrics::imbalance(view(zero)) == 1.0);
    CHECK(metrics::max_violation(view(zero)) == 0.0);
    CHECK(metrics::coefficient_of_variation(view(zero)) == 0.0);
    CHECK(metrics::normalised_entropy(view(zero)) == 1.0);
  }
  CHECK(metrics::imbalance(view({})) == 1.0);
  CHECK(metrics::coefficient_of_variation(view({})) == 0.0);
  CHECK(metrics::normalised_entropy(view({})) == 1.0);
}

TEST_CASE("drop rate counts what capacity cuts off", "[metrics]") {
  CHECK(metrics::drop_rate(8, 6) == 0.25);
  CHECK(metrics::drop_rate(0, 0) == 0.0);
  CHECK_THROWS_AS(metrics::drop_rate(3, 4), fl::contract_violation);
  CHECK_THROWS_AS(metrics::drop_rate(3, -1), fl::contract_violation);
  fl::matrix<fl::count_t> load(2, 2);
  load(0, 0) = 5;
  load(1, 0) = 1;
  load(1, 1) = 4;
  CHECK(metrics::drop_rate(load.view(), 3) == 0.3);
  CHECK(metrics::drop_rate(load.view(), 0) == 1.0);
  CHECK(metrics::drop_rate(load.view(), 5) == 0.0);
  CHECK(metrics::imbalance(fl::load_view(load.view())) == 1.2);
  CHECK(metrics::imbalance(fl::load_view()) == 1.0);
}

TEST_CASE("padding waste counts rows without a token", "[metrics]") {
  counts const offsets = {0, 4, 8, 8};
  counts const used = {3, 1, 0};
  CHECK(metrics::padding_waste(fl::row_groups{offsets, used}) == 0.5);
  CHECK(metrics::padding_waste(fl::row_groups{}) == 0.0);
  CHECK(metrics::padding_waste(view(used), 4) == Approx(8.0 / 12.0));
  CHECK(metrics::padding_waste(view({}), 4) == 0.0);
  CHECK_THROWS_AS(metrics::padding_waste(view(used), 2), fl::contract_violation);
}
