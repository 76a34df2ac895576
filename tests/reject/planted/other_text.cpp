// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The harness must complain: the section fails for another reason than the one named.
int control();
#if defined(REJECT_nothing)  // expect: a text that no compiler prints
static_assert(sizeof(int) == 0, "other");
#endif
