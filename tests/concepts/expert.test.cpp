// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/concepts/expert.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/laws/expert.hpp>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

namespace {

// y = scale x: no more than the concept asks for.
struct minimal {
  using value_type = float;
  index_t input_width() const { return 2; }
  index_t output_width() const { return 2; }
  index_t kept_width() const { return 0; }
  fl::parameter_layout parameter_layout() const { return fl::parameter_layout{}.add("scale", 1, 1, 1.0); }
  std::size_t workspace_bytes(index_t, index_t) const { return 0; }
  template <class Backend>
  void forward(Backend const&, std::span<float const* const> parameters, fl::row_groups groups,
               fl::matrix_view<float const> in, fl::matrix_view<float>, fl::matrix_view<float> out,
               fl::workspace&) const {
    for (index_t g = 0; g < groups.size(); ++g) {
      for (index_t r = groups.first(g); r < groups.first(g) + groups.count(g); ++r) {
        for (index_t c = 0; c < 2; ++c) { out(r, c) = *parameters[static_cast<std::size_t>(g)] * in(r, c); }
      }
    }
  }
};
static_assert(fl::expert_on<minimal, fl::serial>);
static_assert(!fl::trainable_on<minimal, fl::serial>, "it has no backward");

#define LACKS(name, member) \
  struct name : minimal {   \
   private:                 \
    using minimal::member;  \
  };                        \
  static_assert(!fl::expert_on<name, fl::serial>)
LACKS(no_value_type, value_type);
LACKS(no_input_width, input_width);
LACKS(no_output_width, output_width);
LACKS(no_kept_width, kept_width);
LACKS(no_layout, parameter_layout);
LACKS(no_workspace, workspace_bytes);
LACKS(no_forward, forward);
#undef LACKS

struct returns_count : minimal {
  template <class... Arguments>
  int forward(Arguments&&...) const {
    return 0;
  }
};
static_assert(!fl::expert_on<returns_count, fl::serial>);
struct layout_as_size : minimal {
  index_t parameter_layout() const { return 1; }
};
static_assert(!fl::expert_on<layout_as_size, fl::serial>);

}  // namespace

TEST_CASE("the minimal expert keeps the laws of experts", "[concepts]") {
  CHECK(fl::laws::check_expert(minimal{}));
}
