// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Slots of the edge controller, each router a symbol of its own for no_indirect_calls.py.
#include <fairlead/edge/frozen_routers.hpp>
#include <fairlead/edge/lyapunov_controller.hpp>
#include <fairlead/edge/lyapunov_exact.hpp>
#include <fairlead/edge/sequential_routers.hpp>

#include <vector>

namespace fl = fairlead;

template <class Controller>
[[gnu::noinline]] fl::slot_report hot_step(Controller const& controller, fl::matrix_view<float const> scores,
                                           fl::queue_state& state, fl::workspace& ws) {
  return controller.step(scores, state, ws);
}

namespace {

template <class Router, class Speed>
double run(Router router, Speed speed) {
  std::vector<fl::server_limits> const limits(4);
  fl::lyapunov_controller const controller{.servers = fl::cubic_energy(limits), .fan_out = 2, .router = router, .speed = speed,
                                           .ties = fl::ties_rotating{}};
  auto state = controller.make_state({.max_arrivals = 8, .max_waiting = 64});
  fl::arena<> memory(controller.workspace_bytes(8));
  fl::workspace ws = memory.view();
  std::vector<float> const scores(32, 0.25F);
  return hot_step(controller, {scores.data(), 8, 4}, state, ws).copies;
}

}  // namespace

int main() {
  double copies = run(fl::lyapunov_linear{}, fl::closed_form_speed{}) + run(fl::lyapunov_convex{}, fl::closed_form_speed{});
  copies += run(fl::exact_drift{}, fl::exact_drift_speed{}) + run(fl::score_first{}, fl::fixed_speed{});
  copies += run(fl::random_servers{}, fl::average_budget_speed{}) + run(fl::queue_first{}, fl::closed_form_speed{});
  copies += run(fl::energy_first{}, fl::closed_form_speed{}) + run(fl::max_weight{}, fl::closed_form_speed{});
  copies += run(fl::join_shortest_queue{}, fl::closed_form_speed{}) + run(fl::shortest_delay{}, fl::closed_form_speed{});
  return copies == 160.0 ? 0 : 1;
}
