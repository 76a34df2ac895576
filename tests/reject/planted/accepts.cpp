// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The harness must complain: the section compiles.
int control();
#if defined(REJECT_nothing)  // expect: anything
int misuse();
#endif
