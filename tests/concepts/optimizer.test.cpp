// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/concepts/optimizer.hpp>
#include <fairlead/exec/serial.hpp>

#include <array>

#include "support/catch.hpp"

namespace fl = fairlead;

namespace {

struct nothing {};
// No more than the concept asks for: subtract the gradient.
struct minimal {
  template <class Value>
  nothing make_state(fl::serial const&, fl::index_t) const {
    return {};
  }
  void update(fl::serial const&, fl::parameter_layout const&, std::span<float> values, std::span<float const> gradients,
              nothing&, std::int64_t) const {
    for (std::size_t i = 0; i < values.size(); ++i) { values[i] -= gradients[i]; }
  }
};
static_assert(fl::optimizer_on<minimal, fl::serial, float>);
static_assert(!fl::optimizer_on<minimal, fl::serial, double>, "it updates floats only");

struct no_state : minimal {
 private:
  using minimal::make_state;
};
static_assert(!fl::optimizer_on<no_state, fl::serial, float>);
struct no_update {
  template <class Value>
  nothing make_state(fl::serial const&, fl::index_t) const {
    return {};
  }
};
static_assert(!fl::optimizer_on<no_update, fl::serial, float>);
struct returns_norm : no_update {
  float update(fl::serial const&, fl::parameter_layout const&, std::span<float>, std::span<float const>, nothing&,
               std::int64_t) const {
    return 0.0F;
  }
};
static_assert(!fl::optimizer_on<returns_norm, fl::serial, float>);
struct writes_gradients : no_update {
  void update(fl::serial const&, fl::parameter_layout const&, std::span<float>, std::span<float>, nothing&,
              std::int64_t) const {}
};
static_assert(!fl::optimizer_on<writes_gradients, fl::serial, float>);

}  // namespace

TEST_CASE("the minimal optimizer does its work through the concept alone", "[concepts]") {
  auto const through = [](fl::optimizer_on<fl::serial, float> auto const& optimizer) {
    auto state = optimizer.template make_state<float>(fl::serial{}, 1);
    fl::parameter_layout layout;
    layout.add("w", 1, 1, 0.0);
    std::array<float, 1> value{3.0F};
    optimizer.update(fl::serial{}, layout, std::span<float>(value), std::array<float, 1>{1.0F}, state, 1);
    return value[0];
  };
  CHECK(through(minimal{}) == 2.0F);
}
