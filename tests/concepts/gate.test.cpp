// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/concepts/gate.hpp>
#include <fairlead/exec/serial.hpp>

#include "support/catch.hpp"

#include <string>

namespace fl = fairlead;
using fl::index_t;

namespace {

// The minimal model, cut into its members so that each can be left out.
struct has_layout {
  fl::parameter_layout parameter_layout() const { return {}; }
};
struct has_workspace {
  std::size_t workspace_bytes(index_t) const { return 0; }
};
struct has_forward {
  template <class Backend>
  void forward(Backend const&, std::span<float const>, fl::matrix_view<float const>, fl::matrix_view<float>, fl::workspace&) const {}
};
struct has_backward {
  template <class Backend>
  void backward(Backend const&, std::span<float const>, fl::matrix_view<float const>, fl::matrix_view<float const>,
                std::span<float>, fl::matrix_view<float>, fl::workspace&) const {}
};
template <class... Members>
struct model : Members... {};

struct wrong_layout {
  index_t parameter_layout() const { return 0; }
};
struct wrong_workspace {
  std::string workspace_bytes(index_t) const { return {}; }
};
struct wrong_forward {
  template <class Backend>
  bool forward(Backend const&, std::span<float const>, fl::matrix_view<float const>, fl::matrix_view<float>, fl::workspace&) const { return true; }
};
struct changes_parameters {
  template <class Backend>
  void forward(Backend const&, std::span<float>, fl::matrix_view<float const>, fl::matrix_view<float>, fl::workspace&) const {}
};
struct wrong_backward {
  template <class Backend>
  double backward(Backend const&, std::span<float const>, fl::matrix_view<float const>, fl::matrix_view<float const>,
                  std::span<float>, fl::matrix_view<float>, fl::workspace&) const { return 0.0; }
};
struct not_const {
  template <class Backend>
  void forward(Backend const&, std::span<float const>, fl::matrix_view<float const>, fl::matrix_view<float>, fl::workspace&) {}
};

template <class Gate>
constexpr bool is_gate = fl::gate_on<Gate, fl::serial>;

}  // namespace

TEST_CASE("a gate is a type with four members, each of which is needed", "[concepts]") {
  STATIC_REQUIRE(is_gate<model<has_layout, has_workspace, has_forward, has_backward>>);
  STATIC_REQUIRE_FALSE(is_gate<model<has_workspace, has_forward, has_backward>>);
  STATIC_REQUIRE_FALSE(is_gate<model<has_layout, has_forward, has_backward>>);
  STATIC_REQUIRE_FALSE(is_gate<model<has_layout, has_workspace, has_backward>>);
  STATIC_REQUIRE_FALSE(is_gate<model<has_layout, has_workspace, has_forward>>);
}

TEST_CASE("a gate with a wrong return, changed parameters or a changing self is refused", "[concepts]") {
  STATIC_REQUIRE_FALSE(is_gate<model<wrong_layout, has_workspace, has_forward, has_backward>>);
  STATIC_REQUIRE_FALSE(is_gate<model<has_layout, wrong_workspace, has_forward, has_backward>>);
  STATIC_REQUIRE_FALSE(is_gate<model<has_layout, has_workspace, wrong_forward, has_backward>>);
  STATIC_REQUIRE_FALSE(is_gate<model<has_layout, has_workspace, changes_parameters, has_backward>>);
  STATIC_REQUIRE_FALSE(is_gate<model<has_layout, has_workspace, not_const, has_backward>>);
  STATIC_REQUIRE_FALSE(is_gate<model<has_layout, has_workspace, has_forward, wrong_backward>>);
  STATIC_REQUIRE_FALSE(fl::gate_on<model<has_layout, has_workspace, has_forward, has_backward>, int>);
}
