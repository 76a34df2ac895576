// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/ids.hpp>

#include <limits>
#include <type_traits>

#include "support/catch.hpp"

namespace fl = fairlead;

static_assert(std::is_signed_v<fl::index_t> && sizeof(fl::index_t) == 8);
static_assert(sizeof(fl::expert_id) == 4, "ids travel in messages: 32 bits");
static_assert(!std::is_convertible_v<fl::expert_id, fl::slot_id>);
static_assert(!std::is_convertible_v<fl::expert_id, int> && !std::is_convertible_v<int, fl::expert_id>);
static_assert(fl::to_index(fl::expert_id{17}) == 17);
static_assert(fl::to_index(fl::rank_id::none) == -1 && fl::to_index(fl::token_id::none) == -1);
static_assert(fl::to_index(fl::slot_id::none) == -1 && fl::to_index(fl::local_slot_id::none) == -1);

TEST_CASE("ids become indices of 64 bits without loss", "[core][ids]") {
  for (std::int32_t const number : {std::numeric_limits<std::int32_t>::min(), -1, 0, 1, 65535, 65536,
                                    std::numeric_limits<std::int32_t>::max()}) {
    CHECK(fl::to_index(static_cast<fl::expert_id>(number)) == fl::index_t{number});
    CHECK(fl::to_index(static_cast<fl::local_slot_id>(number)) == fl::index_t{number});
  }
  // The widest product of the library in 64 bits: copies x width.
  fl::index_t const most = fl::to_index(static_cast<fl::token_id>(std::numeric_limits<std::int32_t>::max()));
  CHECK(most * 16384 / 16384 == most);
}
