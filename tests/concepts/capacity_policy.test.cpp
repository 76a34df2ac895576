// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/concepts/capacity_policy.hpp>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

namespace {

struct minimal {
  static constexpr fl::capacity_scope scope = fl::capacity_scope::rank;
  index_t places(index_t, index_t, index_t, index_t) const { return 1; }
};
struct no_scope {
  index_t places(index_t, index_t, index_t, index_t) const { return 1; }
};
struct no_places {
  static constexpr fl::capacity_scope scope = fl::capacity_scope::rank;
};
struct scope_of_another_type {
  static constexpr int scope = 1;
  index_t places(index_t, index_t, index_t, index_t) const { return 1; }
};
struct scope_known_late {
  fl::capacity_scope scope = fl::capacity_scope::rank;
  index_t places(index_t, index_t, index_t, index_t) const { return 1; }
};
struct fractional_places {
  static constexpr fl::capacity_scope scope = fl::capacity_scope::rank;
  double places(index_t, index_t, index_t, index_t) const { return 1.5; }
};

}  // namespace

TEST_CASE("a capacity policy is a constant scope and a whole number of places", "[concepts]") {
  STATIC_REQUIRE(fl::capacity_policy<minimal>);
  STATIC_REQUIRE_FALSE(fl::capacity_policy<no_scope>);
  STATIC_REQUIRE_FALSE(fl::capacity_policy<no_places>);
  STATIC_REQUIRE_FALSE(fl::capacity_policy<scope_of_another_type>);
  STATIC_REQUIRE_FALSE(fl::capacity_policy<scope_known_late>);
  STATIC_REQUIRE_FALSE(fl::capacity_policy<fractional_places>);
}
