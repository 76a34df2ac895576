// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/core/contract.hpp>
#include <fairlead/core/ids.hpp>

#include <set>
#include <string>
#include <type_traits>

#include "contract_level.hpp"
#include "support/catch.hpp"

namespace fl = fairlead;

TEST_CASE("a contract violation names file, line, condition, advice and values", "[core][contract]") {
  fl::index_t const rows = -3;
  unsigned line = 0;
  try {
    line = __LINE__ + 1;
    FAIRLEAD_EXPECTS(rows >= 0, "pass a size", rows, fl::expert_id{7}, "text", 2.5);
    FAIL("the check did not throw");
  } catch (fl::contract_violation const& violation) {
    std::string const text = violation.what();
    CHECK(violation.line() == line);
    CHECK(std::string(violation.file()).find("contract.test.cpp") != std::string::npos);
    CHECK(text.find("contract.test.cpp:" + std::to_string(line) + ":") != std::string::npos);
    CHECK(text.find("rows >= 0") != std::string::npos);
    CHECK(text.find("pass a size") != std::string::npos);
    CHECK(text.ends_with(": pass a size [-3, 7, text, 2.5]"));
  }
}

TEST_CASE("a contract violation without values has no brackets", "[core][contract]") {
  try {
    FAIRLEAD_EXPECTS(1 + 1 == 3, "count again");
    FAIL("the check did not throw");
  } catch (fl::contract_violation const& violation) {
    std::string const text = violation.what();
    CHECK(text.find("1 + 1 == 3: count again") != std::string::npos);
    CHECK(text.back() == 'n');
  }
}

TEST_CASE("a contract violation is a logic error and can be copied", "[core][contract]") {
  static_assert(std::is_base_of_v<std::logic_error, fl::contract_violation>);
  static_assert(std::is_nothrow_copy_constructible_v<fl::contract_violation>);
  fl::contract_violation const violation("text", "file", 3);
  fl::contract_violation const copy = violation;  // NOLINT(performance-unnecessary-copy-initialization)
  CHECK(std::string(copy.what()) == "text");
  CHECK(copy.line() == 3);
}

TEST_CASE("a check that holds is silent and can stand in an unbraced if", "[core][contract]") {
  bool reached = false;
  if (reached)
    FAIRLEAD_EXPECTS(false, "not reached");
  else
    reached = true;
  CHECK_NOTHROW([] { FAIRLEAD_EXPECTS(true, "fine", 1); }());
  CHECK(reached);
}

TEST_CASE("each contract level compiles in the checks up to it and evaluates no other", "[core][contract]") {
  contract_level_report const levels[] = {contract_level_0(), contract_level_1(), contract_level_2(),
                                          contract_level_3()};
  for (int level = 0; level <= 3; ++level) {
    INFO("level " << level);
    CHECK(levels[level].fired == (1 << level) - 1);
    CHECK(levels[level].evaluated == (1 << level) - 1);
    CHECK(levels[level].view_threw == (level >= 1));
  }
}

TEST_CASE("translation units of different contract levels hold different entities", "[core][contract]") {
  std::set<std::string> const names{contract_level_0().type_name, contract_level_1().type_name,
                                    contract_level_2().type_name, contract_level_3().type_name};
  CHECK(names.size() == 4);
}
