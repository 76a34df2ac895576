// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/concepts/apportionment.hpp>

#include <algorithm>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

namespace {

// No more than the concept asks for: the first expert takes what is left over.
struct minimal {
  fl::report apportion(std::span<index_t const>, index_t slots, index_t, std::span<index_t> replicas, fl::workspace&) const {
    auto const experts = static_cast<index_t>(replicas.size());
    if (slots < experts) {
      std::fill(replicas.begin(), replicas.end(), index_t{0});
      return {.status = fl::status::infeasible};
    }
    std::fill(replicas.begin(), replicas.end(), index_t{1});
    if (experts > 0) { replicas[0] += slots - experts; }
    return {};
  }
  std::size_t workspace_bytes(index_t, index_t) const { return 0; }
};
static_assert(fl::apportionment<minimal>);

struct no_apportion {
  std::size_t workspace_bytes(index_t, index_t) const { return 0; }
};
static_assert(!fl::apportionment<no_apportion>);

struct no_workspace_bytes {
  fl::report apportion(std::span<index_t const>, index_t, index_t, std::span<index_t>, fl::workspace&) const { return {}; }
};
static_assert(!fl::apportionment<no_workspace_bytes>);

struct returns_status {
  fl::status apportion(std::span<index_t const>, index_t, index_t, std::span<index_t>, fl::workspace&) const { return {}; }
  std::size_t workspace_bytes(index_t, index_t) const { return 0; }
};
static_assert(!fl::apportionment<returns_status>, "how it ended is a report");

struct not_const {
  fl::report apportion(std::span<index_t const>, index_t, index_t, std::span<index_t>, fl::workspace&) { return {}; }
  std::size_t workspace_bytes(index_t, index_t) const { return 0; }
};
static_assert(!fl::apportionment<not_const>);

struct writes_loads {
  fl::report apportion(std::span<index_t>, index_t, index_t, std::span<index_t>, fl::workspace&) const { return {}; }
  std::size_t workspace_bytes(index_t, index_t) const { return 0; }
};
static_assert(!fl::apportionment<writes_loads>);

}  // namespace

TEST_CASE("the minimal rule for numbers of replicas does its work through the concept alone", "[concepts]") {
  auto const through_the_concept = [](fl::apportionment auto const& rule, index_t slots) {
    std::vector<index_t> const load{1, 2, 3};
    std::vector<index_t> replicas(3);
    fl::workspace ws;
    return rule.apportion(load, slots, 1, replicas, ws).status == fl::status::ok ? replicas : std::vector<index_t>{};
  };
  CHECK(through_the_concept(minimal{}, 5) == std::vector<index_t>{3, 1, 1});
  CHECK(through_the_concept(minimal{}, 2).empty());
}
