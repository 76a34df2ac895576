// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Controllers with parts that do not fit: the message names the part, and what to take instead.
#include <fairlead/edge/frozen_routers.hpp>
#include <fairlead/edge/lyapunov_controller.hpp>
#include <fairlead/edge/unmetered.hpp>

namespace fl = fairlead;

template <class... Parts>
void make() {
  (void)sizeof(fl::lyapunov_controller<Parts...>);
}
struct nothing {};

void positive() {
  make<>();
  make<fl::queue_first, fl::fixed_speed, fl::unmetered, fl::serve_next_slot, fl::ties_rotating, fl::bounded_backlog>();
}

#if defined(REJECT_router)  // expect: router must model fairlead::slot_router (concepts/slot_router.hpp), e.g. lyapunov_linear
void reject() { make<nothing>(); }
#endif

#if defined(REJECT_speed)  // expect: speed must model fairlead::speed_rule (concepts/speed_rule.hpp), e.g. closed_form_speed
void reject() { make<fl::lyapunov_linear, nothing>(); }
#endif

#if defined(REJECT_servers)  // expect: servers must model fairlead::energy_model (concepts/energy_model.hpp)
void reject() { make<fl::lyapunov_linear, fl::closed_form_speed, nothing>(); }
#endif

#if defined(REJECT_order)  // expect: order must say serves_arrivals, e.g. serve_same_slot
void reject() { make<fl::lyapunov_linear, fl::closed_form_speed, fl::cubic_energy, nothing>(); }
#endif

#if defined(REJECT_ties)  // expect: ties must model fairlead::tie_break (concepts/slot_router.hpp), e.g. ties_by_id
void reject() { make<fl::lyapunov_linear, fl::closed_form_speed, fl::cubic_energy, fl::serve_same_slot, nothing>(); }
#endif

#if defined(REJECT_admission)  // expect: admission must model fairlead::slot_admission, e.g. accept_all
void reject() {
  make<fl::lyapunov_linear, fl::closed_form_speed, fl::cubic_energy, fl::serve_same_slot, fl::ties_by_id, nothing>();
}
#endif
