// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Compiled once and linked to every test: with Catch2 v2 the runner is the slow part.
#if __has_include(<catch2/catch_all.hpp>)
#  include <catch2/catch_session.hpp>
int main(int count, char** arguments) { return Catch::Session().run(count, arguments); }
#else
#  define CATCH_CONFIG_MAIN
#  include <catch2/catch.hpp>
#endif
