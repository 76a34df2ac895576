// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/exec/threads.hpp>
#include <fairlead/expert/dense_ffn.hpp>
#include <fairlead/expert/gated_ffn.hpp>

#include "expert/reference.hpp"
#include "support/catch.hpp"

namespace fl = fairlead;
using expert_test::bank;
using expert_test::exact;
using fl::index_t;

namespace {

template <class Expert>
void against_plain_loops(Expert expert, expert_test::scalar_function f, bool gated) {
  double const tolerance = std::is_same_v<typename Expert::value_type, float> ? 3e-5 : 1e-12;
  for (std::vector<index_t> const& counts :
       {std::vector<index_t>{5}, std::vector<index_t>{0, 7, 1, 0, 30}, std::vector<index_t>{0, 0}, std::vector<index_t>{}}) {
    for (index_t const padding : {0, 4}) {
      bank<Expert> b(expert, counts, counts.size() > 1 ? padding : 0);
      exact<Expert> const e(b, f, gated);
      auto grad_in_before = b.grad_in.span();
      (void)grad_in_before;
      b.forward(fl::serial{});
      b.backward(fl::serial{});
      CHECK(expert_test::compare(b, e, tolerance, true) == "equal");
      bank<Expert> not_kept(expert, counts, counts.size() > 1 ? padding : 0);
      not_kept.forward(fl::serial{}, false);
      bool same = true;
      for (index_t i = 0; i < b.out.rows() * b.out.cols(); ++i) { same = same && b.out.data()[i] == not_kept.out.data()[i]; }
      CHECK(same);
    }
  }
}

}  // namespace

TEST_CASE("a dense bank equals plain loops in double for every activation", "[expert]") {
  against_plain_loops(fl::dense_ffn<float, fl::gelu>{.width = 9, .hidden = 21}, {expert_test::gelu, expert_test::gelu_slope}, false);
  against_plain_loops(fl::dense_ffn<double, fl::gelu>{.width = 9, .hidden = 21}, {expert_test::gelu, expert_test::gelu_slope}, false);
  against_plain_loops(fl::dense_ffn<float, fl::gelu_tanh>{.width = 16, .hidden = 8}, {expert_test::gelu_tanh, expert_test::gelu_tanh_slope}, false);
  against_plain_loops(fl::dense_ffn<double, fl::relu>{.width = 5, .hidden = 33}, {expert_test::relu, expert_test::relu_slope}, false);
  against_plain_loops(fl::dense_ffn<float, fl::silu>{.width = 1, .hidden = 1}, {expert_test::silu, expert_test::silu_slope}, false);
  against_plain_loops(fl::dense_ffn<double, fl::gelu_tanh>{.width = 5, .hidden = 12, .bias = false}, {expert_test::gelu_tanh, expert_test::gelu_tanh_slope}, false);
}

TEST_CASE("a gated bank equals plain loops in double, with and without bias", "[expert]") {
  against_plain_loops(fl::gated_ffn<float, fl::silu>{.width = 9, .hidden = 21}, {expert_test::silu, expert_test::silu_slope}, true);
  against_plain_loops(fl::gated_ffn<double, fl::silu>{.width = 9, .hidden = 21, .bias = true}, {expert_test::silu, expert_test::silu_slope}, true);
  against_plain_loops(fl::gated_ffn<float, fl::relu>{.width = 16, .hidden = 40, .bias = true}, {expert_test::relu, expert_test::relu_slope}, true);
  against_plain_loops(fl::gated_ffn<double, fl::gelu>{.width = 3, .hidden = 7}, {expert_test::gelu, expert_test::gelu_slope}, true);
}

TEST_CASE("groups and hidden layers of several pieces equal plain loops, on any number of threads", "[expert]") {
  auto const several_pieces = [](auto const& expert, bool gated) {
    bank<std::decay_t<decltype(expert)>> one(expert, {3, 9, 0, 5}, 1);
    exact<std::decay_t<decltype(expert)>> const e(one, {expert_test::silu, expert_test::silu_slope}, gated);
    one.forward(fl::serial{});
    one.backward(fl::serial{});
    return expert_test::compare(one, e, 1e-12, true);
  };
  CHECK(several_pieces(fl::dense_ffn<double, fl::silu>{.width = 4, .hidden = 4100}, false) == "equal");
  CHECK(several_pieces(fl::gated_ffn<double, fl::silu>{.width = 3, .hidden = 4100, .bias = true}, true) == "equal");

  fl::gated_ffn<float> const narrow{.width = 3, .hidden = 5};
  std::vector<index_t> const many{3000, 1, 1600, 1535};
  bank<fl::gated_ffn<float>> serial(narrow, many, 0);
  exact<fl::gated_ffn<float>> const rows(serial, {expert_test::silu, expert_test::silu_slope}, true);
  serial.forward(fl::serial{});
  serial.backward(fl::serial{});
  CHECK(expert_test::compare(serial, rows, 3e-5, true) == "equal");
  for (int const count : {1, 2, 5}) {
    bank<fl::gated_ffn<float>> team(narrow, many, 0);
    team.forward(fl::threads{count});
    team.backward(fl::threads{count});
    CHECK(team.gradients == serial.gradients);
    CHECK(std::equal(team.out.span().begin(), team.out.span().end(), serial.out.span().begin()));
    CHECK(std::equal(team.grad_in.span().begin(), team.grad_in.span().end(), serial.grad_in.span().begin()));
    CHECK(std::equal(team.kept.span().begin(), team.kept.span().end(), serial.kept.span().begin()));
  }
}

TEST_CASE("shapes that do not fit are refused", "[expert]") {
  fl::dense_ffn<float> const expert{.width = 4, .hidden = 6};
  bank<fl::dense_ffn<float>> b(expert, {2, 3}, 0);
  fl::arena<> memory(expert.workspace_bytes(b.rows, 1));
  auto ws = memory.view();
  fl::serial const on;
  auto const call = [&](auto in, auto kept, auto out) { expert.forward(on, b.parameter_pointers, b.groups(), in, kept, out, ws); };
  CHECK_NOTHROW(call(b.x(), b.pre(), b.y()));
  CHECK_THROWS_AS(call(fl::matrix_view<float const>(b.in.data(), b.rows, 3), b.pre(), b.y()), fl::contract_violation);
  CHECK_THROWS_AS(call(b.x(), fl::matrix_view<float>(b.kept.data(), b.rows, 5), b.y()), fl::contract_violation);
  CHECK_THROWS_AS(call(b.x(), b.pre(), b.y().rows(0, b.rows - 1)), fl::contract_violation);
  b.parameter_pointers.pop_back();
  CHECK_THROWS_AS(call(b.x(), b.pre(), b.y()), fl::contract_violation);
  fl::workspace empty;
  b.parameter_pointers.push_back(b.parameters[1].data());
  CHECK_THROWS_AS(expert.forward(on, b.parameter_pointers, b.groups(), b.x(), b.pre(), b.y(), empty), fl::contract_violation);
}

TEST_CASE("an expert's layout names its blocks in memory order and lets only matrices decay", "[expert]") {
  auto const dense = fl::dense_ffn<float>{.width = 4, .hidden = 6}.parameter_layout();
  CHECK(dense.size() == 6 * 4 + 6 + 4 * 6 + 4);
  CHECK(dense[0].decays);
  CHECK_FALSE(dense[1].decays);
  CHECK_FALSE(dense[3].decays);
  CHECK(fl::dense_ffn<float>{.width = 4, .hidden = 6, .bias = false}.parameter_layout().size() == 48);
  auto const gated = fl::gated_ffn<float>{.width = 4, .hidden = 6}.parameter_layout();
  CHECK(gated.size() == 12 * 4 + 4 * 6);
  CHECK(gated[0].rows == 12);
  CHECK(fl::gated_ffn<float>{.width = 4, .hidden = 6}.kept_width() == 12);
}
