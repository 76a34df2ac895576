// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#undef FAIRLEAD_CONTRACT_LEVEL
#define FAIRLEAD_CONTRACT_LEVEL 3
#define FAIRLEAD_TEST_REPORT contract_level_3
#include "contract_level.inc"
