// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/assign/distributed_flow.hpp>
#include <fairlead/comm/alone.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/exec/threads.hpp>
#include <fairlead/workload/assignment_scores.hpp>

#include "support/catch.hpp"

#include <vector>

namespace fl = fairlead;
namespace wl = fairlead::workload;
using fl::index_t;

namespace {

struct answer {
  fl::distributed_assignment_report report;
  std::vector<fl::expert_id> owner;
  std::vector<double> prices;
};

template <class Backend>
answer solve(Backend const& on, fl::matrix_view<float const> scores, index_t fan_out) {
  fl::distributed_flow const solver;
  index_t const tokens = scores.rows(), experts = scores.cols();
  std::vector<index_t> capacity(static_cast<std::size_t>(experts));
  fl::even_capacity(tokens * fan_out, capacity);
  answer found;
  found.owner.resize(static_cast<std::size_t>(tokens * fan_out));
  found.prices.resize(static_cast<std::size_t>(experts));
  fl::arena<> memory(solver.workspace_bytes(tokens, experts, fan_out, 1));
  fl::workspace ws = memory.view();
  fl::alone comm;
  fl::assignment_problem<float> const problem{.scores = scores, .fan_out = fan_out, .lower = capacity,
                                              .upper = capacity, .token_mask = {}, .warm_prices = {}};
  found.report = solver.solve(on, comm, problem,
                              {.owner = {found.owner.data(), tokens, fan_out}, .prices = found.prices}, ws);
  CHECK(ws.used() == 0);
  return found;
}

}  // namespace

TEST_CASE("the distributed solver answers with the same bits at any number of threads", "[assign]") {
  for (auto const kind : wl::all_score_kinds) {
    for (index_t const fan_out : {1, 3}) {
      INFO(wl::name(kind) << " k " << fan_out);
      auto const scores = wl::assignment_scores{.tokens = 1100, .experts = 12, .kind = kind, .seed = 2}.make();
      auto const one = solve(fl::serial{}, scores.view(), fan_out);
      CHECK(one.report.status == fl::status::ok);
      for (int const count : {2, 3}) {
        auto const many = solve(fl::threads{.count = count}, scores.view(), fan_out);
        CHECK(many.owner == one.owner);
        CHECK(many.prices == one.prices);
        CHECK(many.report.value == one.report.value);
        CHECK(many.report.bound == one.report.bound);
        CHECK(many.report.iterations == one.report.iterations);
      }
    }
  }
}
