// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/concepts/slot_admission.hpp>
#include <fairlead/concepts/slot_router.hpp>
#include <fairlead/concepts/speed_rule.hpp>

#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

namespace {

struct one_server {
  index_t servers() const { return 1; }
  double energy(index_t, double) const { return 0.0; }
  double cap(index_t) const { return 1.0; }
  double budget(index_t) const { return 0.0; }
  double sustained(index_t) const { return 1.0; }
  double best_service(index_t, double, double) const { return 1.0; }
};
struct by_id {
  unsigned rank(fl::slot_view const&, index_t, index_t server) const { return static_cast<unsigned>(server); }
};
static_assert(fl::tie_break<by_id>);
struct no_rank {};
static_assert(!fl::tie_break<no_rank>);
struct ranks_by_pointer {
  void* rank(fl::slot_view const&, index_t, index_t) const { return nullptr; }
};
static_assert(!fl::tie_break<ranks_by_pointer>);

// Everything to server 0.
struct minimal {
  std::size_t workspace_bytes(index_t, index_t, index_t) const { return 0; }
  void route(fl::slot_view const& view, one_server const&, by_id const&, fl::matrix_view<fl::expert_id> choice,
             std::span<index_t> counts, fl::workspace&) const {
    for (index_t t = 0; t < view.tokens(); ++t) { choice(t, 0) = fl::expert_id{0}; }
    counts[0] = view.tokens();
  }
};
static_assert(fl::slot_router<minimal, one_server, by_id>);
static_assert(!fl::slot_router<minimal, one_server, no_rank>);
static_assert(!fl::slot_router<minimal, int, by_id>);
struct no_route {
  std::size_t workspace_bytes(index_t, index_t, index_t) const { return 0; }
};
static_assert(!fl::slot_router<no_route, one_server, by_id>);
struct no_workspace_bytes {
  void route(fl::slot_view const&, one_server const&, by_id const&, fl::matrix_view<fl::expert_id>, std::span<index_t>,
             fl::workspace&) const {}
};
static_assert(!fl::slot_router<no_workspace_bytes, one_server, by_id>);
struct returns_counts {
  std::size_t workspace_bytes(index_t, index_t, index_t) const { return 0; }
  int route(fl::slot_view const&, one_server const&, by_id const&, fl::matrix_view<fl::expert_id>, std::span<index_t>,
            fl::workspace&) const {
    return 0;
  }
};
static_assert(!fl::slot_router<returns_counts, one_server, by_id>);

struct full_speed {
  void speeds(fl::slot_view const&, one_server const& servers, std::span<index_t const>, std::span<double> service) const {
    service[0] = servers.cap(0);
  }
};
static_assert(fl::speed_rule<full_speed, one_server>);
static_assert(!fl::speed_rule<full_speed, int>);
struct no_speeds {};
static_assert(!fl::speed_rule<no_speeds, one_server>);
struct returns_speeds {
  double speeds(fl::slot_view const&, one_server const&, std::span<index_t const>, std::span<double>) const { return 0.0; }
};
static_assert(!fl::speed_rule<returns_speeds, one_server>);

struct every_other {
  index_t admit(fl::slot_offer const& offer) const { return offer.arrivals / 2; }
};
static_assert(fl::slot_admission<every_other>);
static_assert(!fl::slot_admission<no_rank>);
struct admits_nothing_said {
  void admit(fl::slot_offer const&) const {}
};
static_assert(!fl::slot_admission<admits_nothing_said>);

}  // namespace

TEST_CASE("minimal parts of a slot do their work through the concepts alone", "[concepts]") {
  auto const through_the_concept = []<class Router, class Rule>(Router const& router, Rule const& rule)
    requires(fl::slot_router<Router, one_server, by_id> && fl::speed_rule<Rule, one_server>)
  {
    std::vector<float> const scores(3, 1.0F);
    std::vector<double> const zero(1, 0.0);
    fl::slot_view const view{.scores = {scores.data(), 3, 1}, .backlog = zero, .energy_debt = zero};
    std::vector<fl::expert_id> choice(3);
    std::vector<index_t> counts(1);
    std::vector<double> service(1);
    fl::workspace none;
    router.route(view, one_server{}, by_id{}, {choice.data(), 3, 1}, counts, none);
    rule.speeds(view, one_server{}, counts, service);
    return static_cast<double>(counts[0]) + service[0];
  };
  CHECK(through_the_concept(minimal{}, full_speed{}) == 4.0);
  CHECK(every_other{}.admit({.arrivals = 5}) == 2);
}
