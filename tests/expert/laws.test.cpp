// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/exec/threads.hpp>
#include <fairlead/expert/dense_ffn.hpp>
#include <fairlead/expert/gated_ffn.hpp>
#include <fairlead/laws/expert.hpp>

#include <algorithm>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

namespace {

enum class flaw {
  none, mixes_rows, wrong_group, writes_behind, forgets_bias, overwrites_gradients, wrong_slope, counts_padding, skips_rows
};

// y = x * scale + shift per column, with one planted flaw.
template <flaw Flaw>
struct affine {
  using value_type = double;
  index_t width = 3;
  index_t input_width() const { return width; }
  index_t output_width() const { return width; }
  index_t kept_width() const { return 0; }
  fl::parameter_layout parameter_layout() const {
    fl::parameter_layout layout;
    layout.add("scale", 1, width, 1.0).add("shift", 1, width, 0.0, false);
    return layout;
  }
  std::size_t workspace_bytes(index_t, index_t) const { return 0; }

  template <class Backend>
  void forward(Backend const&, std::span<double const* const> parameters, fl::row_groups groups,
               fl::matrix_view<double const> in, fl::matrix_view<double>, fl::matrix_view<double> out,
               fl::workspace&) const {
    for (index_t g = 0; g < groups.size(); ++g) {
      double const* const p = parameters[static_cast<std::size_t>(Flaw == flaw::wrong_group ? 0 : g)];
      for (index_t r = groups.first(g); r < groups.first(g) + groups.count(g); ++r) {
        if (Flaw == flaw::skips_rows && r == groups.first(g) && groups.count(g) > 2) { continue; }
        for (index_t c = 0; c < width; ++c) {
          double x = in(r, c);
          if (Flaw == flaw::mixes_rows && r > groups.first(g)) { x += 0.01 * in(r - 1, c); }
          out(r, c) = x * p[c] + p[width + c];
        }
        if (Flaw == flaw::writes_behind) { out.row(r)[width] = 0.0; }
      }
    }
  }
  template <class Backend>
  void backward(Backend const&, std::span<double const* const> parameters, std::span<double* const> gradients,
                fl::row_groups groups, fl::matrix_view<double const> in, fl::matrix_view<double const>,
                fl::matrix_view<double const> grad_out, fl::matrix_view<double> grad_in, fl::workspace&) const {
    for (index_t g = 0; g < groups.size(); ++g) {
      double const* const p = parameters[static_cast<std::size_t>(g)];
      double* const d = gradients[static_cast<std::size_t>(g)];
      if (Flaw == flaw::overwrites_gradients) { std::fill_n(d, 2 * width, 0.0); }
      index_t const end = Flaw == flaw::counts_padding ? groups.offsets[static_cast<std::size_t>(g) + 1]
                                                       : groups.first(g) + groups.count(g);
      for (index_t r = groups.first(g); r < end; ++r) {
        for (index_t c = 0; c < width; ++c) {
          double const dy = grad_out(r, c);
          d[c] += dy * in(r, c) * (Flaw == flaw::wrong_slope ? 1.001 : 1.0);
          if (Flaw != flaw::forgets_bias) { d[width + c] += dy; }
          grad_in(r, c) = dy * p[c];
        }
      }
    }
  }
};
static_assert(fl::trainable_on<affine<flaw::none>, fl::serial>);

bool mentions(fl::laws::verdict const& v, char const* text) {
  INFO(v);
  return !v && v.reason().find(text) != std::string::npos;
}

}  // namespace

TEST_CASE("the library's experts keep the laws of experts", "[expert][laws]") {
  CHECK(fl::laws::check_expert(fl::dense_ffn<double, fl::gelu>{.width = 3, .hidden = 5}));
  CHECK(fl::laws::check_expert(fl::dense_ffn<double, fl::silu>{.width = 4, .hidden = 3, .bias = false}, {.seed = 5}));
  CHECK(fl::laws::check_expert(fl::dense_ffn<float>{.width = 3, .hidden = 5}));
  CHECK(fl::laws::check_expert(fl::gated_ffn<double>{.width = 3, .hidden = 5}));
  CHECK(fl::laws::check_expert(fl::gated_ffn<double, fl::gelu_tanh>{.width = 2, .hidden = 4, .bias = true}, {}, fl::threads{3}));
  CHECK(fl::laws::check_expert(fl::gated_ffn<float>{.width = 3, .hidden = 5}, {.counts = {0, 0}}));
  CHECK(fl::laws::check_expert(fl::gated_ffn<float>{.width = 3, .hidden = 5}, {.counts = {}}));
}

TEST_CASE("an expert without backward is checked forward only", "[expert][laws]") {
  CHECK(fl::laws::check_expert(affine<flaw::none>{}));
}

TEST_CASE("the expert laws reject planted violations and say which", "[expert][laws]") {
  CHECK(mentions(fl::laws::check_expert(affine<flaw::mixes_rows>{}), "depends on the other rows"));
  CHECK(mentions(fl::laws::check_expert(affine<flaw::wrong_group>{}), "alone gives other rows"));
  CHECK(mentions(fl::laws::check_expert(affine<flaw::writes_behind>{}), "wrote outside"));
  CHECK(mentions(fl::laws::check_expert(affine<flaw::skips_rows>{}), "without a finite result"));
  CHECK(mentions(fl::laws::check_expert(affine<flaw::forgets_bias>{}), "differences give"));
  CHECK(mentions(fl::laws::check_expert(affine<flaw::wrong_slope>{}), "differences give"));
  CHECK(mentions(fl::laws::check_expert(affine<flaw::overwrites_gradients>{}), "must be added"));
  CHECK(mentions(fl::laws::check_expert(affine<flaw::counts_padding>{}), "no rows"));
}
