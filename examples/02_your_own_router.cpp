// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Your own router: no base class, no registration. The concept names what is missing, and the law kit checks what no
// concept can say. Then it stands in a layer like any router of the library.
#include <fairlead/comm/inproc.hpp>
#include <fairlead/concepts/router.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/expert/gated_ffn.hpp>
#include <fairlead/laws/router.hpp>
#include <fairlead/layer/moe_layer.hpp>
#include <fairlead/route/linear_gate.hpp>
#include <fairlead/workload/token_rows.hpp>

#include <cstdint>
#include <cstdio>
#include <limits>
#include <vector>

namespace fl = fairlead;
using fl::index_t;

// Token i goes to the experts i, i + 1, ... (modulo their number): balanced by construction, deaf to the logits.
struct rotating {
  index_t n = 0;  // experts
  index_t k = 0;  // experts a token

  index_t experts() const { return n; }
  index_t fan_out() const { return k; }
  std::size_t workspace_bytes(index_t) const { return 0; }

  template <fl::host_backend Backend>
  void route(Backend const& on, fl::matrix_view<float const> logits, fl::route_context const& context,
             fl::routing_view out, fl::workspace&) const {
    on.for_each(logits.rows(), [=, *this](index_t row) {
      bool const padding = !context.token_mask.empty() && context.token_mask[static_cast<std::size_t>(row)] == 0;
      // The choices left to a token: a masked expert, and one without a finite logit, is never chosen.
      index_t slot = 0;
      for (index_t step = 0; step < n && slot < k && !padding; ++step) {
        index_t const expert = (context.first_token + row + step) % n;
        bool const masked = !context.expert_mask.empty() && context.expert_mask[static_cast<std::size_t>(expert)] == 0;
        float const logit = logits(row, expert);
        if (masked || !(logit > -std::numeric_limits<float>::infinity())) { continue; }
        out.experts(row, slot) = static_cast<fl::expert_id>(expert);
        out.weights(row, slot++) = 1.0F / static_cast<float>(k);
      }
      for (; slot < k; ++slot) {
        out.experts(row, slot) = fl::expert_id::none;
        out.weights(row, slot) = 0.0F;
      }
    });
    on.wait();
  }
};
static_assert(fl::router_on<rotating, fl::serial>);  // the compiler names what is missing

int main() {
  fl::laws::verdict const verdict = fl::laws::check_router(rotating{8, 2}, {.tokens = 64, .by_score = false});
  if (!verdict) {
    std::printf("not a router: %s\n", verdict.reason().c_str());
    return 1;
  }

  fl::inproc::world world(2);
  auto const reports = world.run([](fl::inproc::communicator comm) {
    fl::moe_layer const layer{
        .gate = fl::linear_gate<>{.width = 16, .experts = 8},
        .router = rotating{8, 2},
        .expert = fl::gated_ffn<>{.width = 16, .hidden = 32},
    };
    auto state = layer.make_state(fl::serial{}, comm, {.max_tokens = 64});
    auto record = layer.make_record(state);
    auto const tokens = fl::workload::token_rows{.rows = 64, .width = 16, .seed = static_cast<std::uint64_t>(comm.rank())}.make();
    fl::matrix<float> output(64, 16);
    return layer.forward(state, tokens.view(), output.view(), record);
  });
  fl::step_report const& report = reports.front();
  std::printf("%lld tokens, busiest expert / mean %.2f, %lld bytes of rows between ranks\n",
              static_cast<long long>(report.tokens), report.imbalance(), static_cast<long long>(report.rows_crossing_bytes));
  return report.imbalance() == 1.0 ? 0 : 1;
}
