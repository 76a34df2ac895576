// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/concepts/energy_model.hpp>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

namespace {

// No more than the concept asks for: one server that serves one copy a slot for nothing.
struct minimal {
  index_t servers() const { return 1; }
  double energy(index_t, double) const { return 0.0; }
  double cap(index_t) const { return 1.0; }
  double budget(index_t) const { return 0.0; }
  double sustained(index_t) const { return 1.0; }
  double best_service(index_t, double, double) const { return 1.0; }
};
static_assert(fl::energy_model<minimal>);
static_assert(!fl::has_nearest_service<minimal>);

struct no_servers {
  double energy(index_t, double) const { return 0.0; }
  double cap(index_t) const { return 1.0; }
  double budget(index_t) const { return 0.0; }
  double sustained(index_t) const { return 1.0; }
  double best_service(index_t, double, double) const { return 1.0; }
};
static_assert(!fl::energy_model<no_servers>);
struct no_energy {
  index_t servers() const { return 1; }
  double cap(index_t) const { return 1.0; }
  double budget(index_t) const { return 0.0; }
  double sustained(index_t) const { return 1.0; }
  double best_service(index_t, double, double) const { return 1.0; }
};
static_assert(!fl::energy_model<no_energy>);
struct no_cap {
  index_t servers() const { return 1; }
  double energy(index_t, double) const { return 0.0; }
  double budget(index_t) const { return 0.0; }
  double sustained(index_t) const { return 1.0; }
  double best_service(index_t, double, double) const { return 1.0; }
};
static_assert(!fl::energy_model<no_cap>);
struct no_budget {
  index_t servers() const { return 1; }
  double energy(index_t, double) const { return 0.0; }
  double cap(index_t) const { return 1.0; }
  double sustained(index_t) const { return 1.0; }
  double best_service(index_t, double, double) const { return 1.0; }
};
static_assert(!fl::energy_model<no_budget>);
struct no_sustained {
  index_t servers() const { return 1; }
  double energy(index_t, double) const { return 0.0; }
  double cap(index_t) const { return 1.0; }
  double budget(index_t) const { return 0.0; }
  double best_service(index_t, double, double) const { return 1.0; }
};
static_assert(!fl::energy_model<no_sustained>);
struct no_best_service {
  index_t servers() const { return 1; }
  double energy(index_t, double) const { return 0.0; }
  double cap(index_t) const { return 1.0; }
  double budget(index_t) const { return 0.0; }
  double sustained(index_t) const { return 1.0; }
};
static_assert(!fl::energy_model<no_best_service>);
struct whole_joules : minimal {
  int energy(index_t, double) const { return 0; }
};
static_assert(!fl::energy_model<whole_joules>, "energies are doubles: whole numbers would hide what a copy costs");

}  // namespace

TEST_CASE("the minimal energy model does its work through the concept alone", "[concepts]") {
  auto const through_the_concept = [](fl::energy_model auto const& servers) {
    return servers.best_service(0, 2.0, 0.5) + fl::nearest_service(servers, 0, 0.25, 0.0);
  };
  CHECK(through_the_concept(minimal{}) == 1.25);
}
