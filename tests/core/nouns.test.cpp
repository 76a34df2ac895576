// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/bfloat16.hpp>
#include <fairlead/core/load.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/parameters.hpp>
#include <fairlead/core/report.hpp>
#include <fairlead/core/routing.hpp>
#include <fairlead/core/row_groups.hpp>

#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::count_t;
using fl::expert_id;
using fl::index_t;

static_assert(std::is_convertible_v<fl::routing_view, fl::const_routing_view>);
static_assert(!std::is_convertible_v<fl::const_routing_view, fl::routing_view>);
static_assert(std::is_trivially_copyable_v<fl::routing_view>, "kernels take it by value");
static_assert(fl::report{} && !fl::report{.status = fl::status::infeasible} &&
              !fl::report{.status = fl::status::lost_expert});
static_assert(!std::is_convertible_v<fl::report, bool>, "a report is tested, not computed with");

namespace {

constexpr fl::parameter_layout two_blocks() {
  fl::parameter_layout layout;
  layout.add("weight", 3, 4, 0.5).add("bias", 1, 4, 0.0, false);
  return layout;
}
static_assert(two_blocks().size() == 16 && two_blocks().blocks().size() == 2 && two_blocks()[1].offset == 12);
static_assert(two_blocks()[0].decays && !two_blocks()[1].decays && two_blocks()[0].size() == 12);

}  // namespace

TEST_CASE("a routing has one row a token and keeps its memory", "[core][routing]") {
  fl::routing<> chosen(6, 2);
  CHECK(chosen.tokens() == 6);
  CHECK(chosen.fan_out() == 2);
  fl::routing_view const view = chosen.view();
  view.experts(5, 1) = static_cast<expert_id>(9);
  view.weights(5, 1) = 0.25F;
  fl::const_routing_view const reading = view;
  CHECK(fl::to_index(reading.experts(5, 1)) == 9);
  CHECK(std::as_const(chosen).view().weights(5, 1) == 0.25F);
  CHECK(reading.tokens() == 6);
  CHECK(reading.fan_out() == 2);
  expert_id const* const first = view.experts.data();
  CHECK_FALSE(chosen.resize(3, 4));
  CHECK(chosen.view().experts.data() == first);
  CHECK_FALSE(chosen.resize(0, 4));
  CHECK(chosen.view().fan_out() == 4);
  CHECK(chosen.resize(7, 2));
}

TEST_CASE("a routing refuses a negative size and is empty when moved from", "[core][routing][contract]") {
  fl::routing<> chosen(2, 2);
  CHECK_THROWS_AS(chosen.resize(-1, 2), fl::contract_violation);
  CHECK_THROWS_AS(chosen.resize(-2, -2), fl::contract_violation);
  CHECK(chosen.resize(2, 2) == false);
  fl::routing<> const taken = std::move(chosen);
  CHECK(taken.tokens() == 2);
  CHECK(chosen.tokens() == 0);  // NOLINT(bugprone-use-after-move): the state is promised
  CHECK(chosen.view().experts.empty());
}

TEST_CASE("a load is summed over source ranks without overflow", "[core][load]") {
  fl::matrix<count_t> load(3, 2);
  count_t const most = std::numeric_limits<count_t>::max();
  for (index_t rank = 0; rank < 3; ++rank) {
    load(rank, 0) = most;
    load(rank, 1) = static_cast<count_t>(rank);
  }
  std::array<index_t, 2> totals{-1, -1};
  fl::sum_over_ranks(load.view(), totals);
  CHECK(totals[0] == 3 * index_t{most});
  CHECK(totals[1] == 3);
  fl::sum_over_ranks(load.view().rows(1, 0), totals);
  CHECK((totals[0] == 0 && totals[1] == 0));
  std::array<index_t, 3> wrong{};
  CHECK_THROWS_AS(fl::sum_over_ranks(load.view(), wrong), fl::contract_violation);
}

TEST_CASE("a load with a row stride is summed over its own columns", "[core][load]") {
  std::vector<count_t> values{1, 2, 100, 3, 4, 100};
  fl::load_view const load(values.data(), 2, 2, 3);
  std::array<index_t, 2> totals{};
  fl::sum_over_ranks(load, totals);
  CHECK((totals[0] == 4 && totals[1] == 6));
}

TEST_CASE("row groups tell used rows from padding", "[core][row_groups]") {
  std::array<index_t, 4> const offsets{0, 8, 8, 16};
  std::array<index_t, 3> const counts{5, 0, 8};
  fl::row_groups const groups{offsets, counts};
  CHECK(groups.size() == 3);
  CHECK(groups.first(2) == 8);
  CHECK(groups.count(0) == 5);
  CHECK(groups.rows() == 16);
  CHECK(groups.used() == 13);
  CHECK(fl::row_groups{}.rows() == 0);
  CHECK(fl::row_groups{}.used() == 0);
  CHECK(fl::row_groups{}.size() == 0);
}

TEST_CASE("a parameter layout places blocks one after the other", "[core][parameters]") {
  fl::parameter_layout const layout = two_blocks();
  CHECK(std::string(layout[0].name) == "weight");
  std::vector<float> values(16);
  auto const bias = layout.view(1, values.data());
  CHECK(bias.rows() == 1);
  CHECK(bias.cols() == 4);
  CHECK(bias.data() == values.data() + 12);
  auto const reading = layout.view(0, std::as_const(values).data());
  static_assert(std::is_same_v<decltype(reading), fl::matrix_view<float const> const>);
  CHECK(reading.rows() == 3);
}

TEST_CASE("a parameter layout refuses too many blocks and negative sizes", "[core][parameters][contract]") {
  fl::parameter_layout layout;
  CHECK_THROWS_AS(layout.add("x", -1, 2, 1.0), fl::contract_violation);
  for (index_t block = 0; block < fl::parameter_layout::max_blocks; ++block) { layout.add("x", 1, block, 1.0); }
  CHECK(layout.size() == 28);
  CHECK_THROWS_AS(layout.add("x", 1, 1, 1.0), fl::contract_violation);
  CHECK(layout.size() == 28);
}

TEST_CASE("initial parameters have the asked deviation and biases are zero", "[core][parameters]") {
  fl::parameter_layout layout;
  layout.add("weight", 200, 100, 0.25).add("bias", 1, 100, 0.0, false);
  std::vector<float> values(static_cast<std::size_t>(layout.size()), 7.0F);
  fl::initialise(layout, 3, 5, std::span(values));
  double sum = 0.0, squares = 0.0;
  for (std::size_t i = 0; i < 20000; ++i) {
    sum += static_cast<double>(values[i]);
    squares += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  }
  CHECK(std::abs(sum / 20000) < 0.25 * 5 / std::sqrt(20000.0));
  CHECK(std::abs(std::sqrt(squares / 20000) - 0.25) < 0.25 * 5 / std::sqrt(40000.0));
  for (std::size_t i = 20000; i < values.size(); ++i) { CHECK(values[i] == 0.0F); }
}

TEST_CASE("initial parameters depend on seed, stream and position only", "[core][parameters]") {
  fl::parameter_layout const layout = two_blocks();
  auto const made = [&layout](std::uint64_t seed, std::uint64_t stream) {
    std::vector<float> values(16, -1.0F);
    fl::initialise(layout, seed, stream, std::span(values));
    return values;
  };
  auto const first = made(1, 1);
  auto const other_expert = made(1, 2);
  CHECK(made(1, 1) == first);  // in any order of calls
  CHECK(other_expert != first);
  CHECK(made(2, 1) != first);
  // A block's values do not change when the same elements are cut into blocks another way.
  fl::parameter_layout cut;
  cut.add("top", 1, 4, 0.5).add("rest", 2, 4, 0.5).add("bias", 1, 4, 0.0);
  std::vector<float> values(16);
  fl::initialise(cut, 1, 1, std::span(values));
  CHECK(values == first);
}

TEST_CASE("initial parameters of other types are the rounded ones", "[core][parameters]") {
  fl::parameter_layout const layout = two_blocks();
  std::vector<double> exact(16);
  std::vector<float> single(16);
  std::vector<fl::bfloat16> half(16);
  fl::initialise(layout, 4, 4, std::span(exact));
  fl::initialise(layout, 4, 4, std::span(single));
  fl::initialise(layout, 4, 4, std::span(half));
  for (std::size_t i = 0; i < 16; ++i) {
    CHECK(single[i] == static_cast<float>(exact[i]));
    CHECK(half[i].bits == fl::bfloat16(single[i]).bits);
  }
  std::vector<float> wrong(15);
  CHECK_THROWS_AS(fl::initialise(layout, 1, 1, std::span(wrong)), fl::contract_violation);
}
