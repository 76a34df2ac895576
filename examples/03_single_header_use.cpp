// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// One header, plain arrays: a router inside a program that knows nothing else of the library.
#include <fairlead/route/top_k.hpp>

#include <array>
#include <cmath>
#include <cstdio>

namespace fl = fairlead;

int main() {
  constexpr fl::index_t tokens = 3, experts = 4, k = 2;
  // Your memory, row by row: one row of logits a token.
  std::array<float, tokens * experts> const logits{0.1F, 2.0F, -1.0F, 1.0F,   //
                                                   3.0F, 3.0F, 3.0F, -2.0F,  // ties: the lower expert comes first
                                                   -4.0F, 0.0F, 0.5F, 0.5F};
  std::array<fl::expert_id, tokens * k> chosen{};
  std::array<float, tokens * k> weights{};

  fl::top_k const router{.experts = experts, .k = k};
  fl::arena<> memory(router.workspace_bytes(tokens));  // once; route itself never allocates
  fl::workspace scratch = memory.view();
  router.route(fl::serial{}, fl::matrix_view<float const>(logits.data(), tokens, experts),
               {.phase = fl::phase::evaluate},
               {{chosen.data(), tokens, k}, {weights.data(), tokens, k}}, scratch);

  for (std::size_t t = 0; t < tokens; ++t) {
    std::printf("token %zu: expert %lld with %.3f, expert %lld with %.3f\n", t,
                static_cast<long long>(fl::to_index(chosen[t * k])), static_cast<double>(weights[t * k]),
                static_cast<long long>(fl::to_index(chosen[t * k + 1])), static_cast<double>(weights[t * k + 1]));
  }

  std::array<int, tokens * k> const expected{1, 3, 0, 1, 2, 3};
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (fl::to_index(chosen[i]) != expected[i]) { return 1; }
  }
  // softmax over the two chosen logits 2 and 1
  return std::abs(weights[0] - 1.0F / (1.0F + std::exp(-1.0F))) < 1e-6F ? 0 : 1;
}
