// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// What the translation units contract_level_<n>.cpp report about the level that each is compiled with.
#include <string>

struct contract_level_report {
  int fired = 0;                ///< bit 0, 1, 2: FAIRLEAD_EXPECTS, _2, _3 threw on a false condition
  int evaluated = 0;            ///< the same bits: the condition was evaluated
  bool view_threw = false;      ///< a level-1 check inside the library
  std::string type_name;        ///< mangled name of contract_violation
};
contract_level_report contract_level_0();
contract_level_report contract_level_1();
contract_level_report contract_level_2();
contract_level_report contract_level_3();
