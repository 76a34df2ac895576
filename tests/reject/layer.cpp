// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Compositions that cannot work: the message says which part, and what to put there.
#include <fairlead/comm/alone.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/expert/gated_ffn.hpp>
#include <fairlead/layer/moe_layer.hpp>
#include <fairlead/layer/shuffled.hpp>
#include <fairlead/route/distilled_gate.hpp>
#include <fairlead/route/linear_gate.hpp>
#include <fairlead/route/top_k.hpp>
#include <fairlead/route/two_stage.hpp>

namespace fl = fairlead;

struct empty {};
using gate = fl::linear_gate<>;
using expert = fl::gated_ffn<>;

// A device backend and a communicator of its memory, as far as the concepts look.
struct device_space {
  static void* allocate(std::size_t) { return nullptr; }
  static void deallocate(void*, std::size_t) noexcept {}
};
struct device : fl::serial {
  using memory_space = device_space;
};
static_assert(fl::execution_backend<device> && !fl::host_backend<device>);

template <class Layer, class Backend = fl::serial, class Comm = fl::alone>
void make(Layer const& layer, Backend const& on = {}, Comm comm = {}) {
  auto state = layer.make_state(on, comm, {.max_tokens = 4});
  auto record = layer.make_record(state);
  (void)record;
}

void positive() {
  make(fl::moe_layer{.gate = gate{.width = 4, .experts = 2}, .router = fl::top_k{.experts = 2, .k = 1}, .expert = expert{.width = 4, .hidden = 4}});
}

#if defined(REJECT_router)  // expect: .router must model fairlead::router_on | fairlead::top_k
void reject() { make(fl::moe_layer{.gate = gate{}, .router = empty{}, .expert = expert{}}); }
#endif

#if defined(REJECT_shuffled_neighbours)  // expect: needs rows in the order of the text | take token_embedding
void reject() {
  using stages = fl::distilled_gate<fl::bigram_embedding>;
  fl::moe_layer const layer{.gate = stages{.backbone = {.width = 4, .experts = 2}, .features = {.vocabulary = 5, .width = 3}},
                            .router = fl::two_stage<>{.first = {.experts = 2}}, .expert = expert{.width = 4, .hidden = 4}};
  fl::shuffled<std::remove_const_t<decltype(layer)>> const misuse{layer};
  (void)misuse;
}
#endif

#if defined(REJECT_gate)  // expect: .gate must model fairlead::gate_on | fairlead::linear_gate
void reject() { make(fl::moe_layer{.gate = empty{}, .router = fl::top_k{.experts = 2, .k = 1}, .expert = expert{}}); }
#endif

#if defined(REJECT_expert)  // expect: .expert must model fairlead::expert_on | fairlead::gated_ffn
struct half_an_expert {
  using value_type = float;
};
void reject() { make(fl::moe_layer{.gate = gate{}, .router = fl::top_k{.experts = 2, .k = 1}, .expert = half_an_expert{}}); }
#endif

#if defined(REJECT_shared)  // expect: .shared must model fairlead::expert_on, or be left out
void reject() {
  make(fl::moe_layer{.gate = gate{}, .router = fl::top_k{.experts = 2, .k = 1}, .expert = expert{}, .shared = empty{}});
}
#endif

#if defined(REJECT_signal)  // expect: .signal must model fairlead::balance_signal_on | fairlead::no_signal
void reject() {
  make(fl::moe_layer{.gate = gate{}, .router = fl::top_k{.experts = 2, .k = 1}, .signal = empty{}, .expert = expert{}});
}
#endif

#if defined(REJECT_planner)  // expect: .planner must model fairlead::planner | fairlead::contiguous_placement
void reject() {
  make(fl::moe_layer{.gate = gate{}, .router = fl::top_k{.experts = 2, .k = 1}, .planner = empty{}, .expert = expert{}});
}
#endif

#if defined(REJECT_scheduler)  // expect: .scheduler must model fairlead::token_scheduler | fairlead::sole_replica
void reject() {
  make(fl::moe_layer{.gate = gate{}, .router = fl::top_k{.experts = 2, .k = 1}, .scheduler = empty{}, .expert = expert{}});
}
#endif

#if defined(REJECT_dispatcher)  // expect: .dispatcher must model fairlead::dispatcher_on | fairlead::exchange
void reject() {
  make(fl::moe_layer{.gate = gate{}, .router = fl::top_k{.experts = 2, .k = 1}, .dispatcher = empty{}, .expert = expert{}});
}
#endif

#if defined(REJECT_store)  // expect: .store must model fairlead::store_policy_on | fairlead::local_parameters
void reject() {
  make(fl::moe_layer{.gate = gate{}, .router = fl::top_k{.experts = 2, .k = 1}, .expert = expert{}, .store = empty{}});
}
#endif

#if defined(REJECT_backend)  // expect: give an execution backend such as fairlead::serial
void reject() {
  make(fl::moe_layer{.gate = gate{}, .router = fl::top_k{.experts = 2, .k = 1}, .expert = expert{}}, empty{});
}
#endif

#if defined(REJECT_communicator)  // expect: give a communicator such as fairlead::alone
void reject() {
  make(fl::moe_layer{.gate = gate{}, .router = fl::top_k{.experts = 2, .k = 1}, .expert = expert{}}, fl::serial{}, empty{});
}
#endif

#if defined(REJECT_memory)  // expect: must work on the same memory | a device backend needs a device communicator
void reject() {
  make(fl::moe_layer{.gate = gate{}, .router = fl::top_k{.experts = 2, .k = 1}, .expert = expert{}}, device{}, fl::alone{});
}
#endif

#if defined(REJECT_collectives)  // expect: the communicator needs all_to_all_v, all_gather and all_reduce
struct lonely {
  using memory_space = fl::host_space;
  [[nodiscard]] fl::index_t rank() const { return 0; }
  [[nodiscard]] fl::index_t size() const { return 1; }
  void barrier() const {}
};
void reject() {
  make(fl::moe_layer{.gate = gate{}, .router = fl::top_k{.experts = 2, .k = 1}, .expert = expert{}}, fl::serial{}, lonely{});
}
#endif

#if defined(REJECT_capacity)  // expect: the capacity must model fairlead::capacity_policy
void reject() { (void)fl::exchange<empty>{}.workspace_bytes(1, 1, 1); }
#endif

#if defined(REJECT_order)  // expect: the order must model fairlead::service_order
void reject() { (void)fl::exchange<fl::dropless, empty>{}.workspace_bytes(1, 1, 1); }
#endif

#if defined(REJECT_overflow)  // expect: the overflow action must model fairlead::overflow_policy
void reject() { (void)fl::exchange<fl::dropless, fl::token_order, empty>{}.workspace_bytes(1, 1, 1); }
#endif

#if defined(REJECT_reassigning)  // expect: decides on the source rank: use a capacity of scope rank
void reject() {
  using all_ranks = fl::fixed_capacity<fl::capacity_scope::global>;
  (void)fl::exchange<all_ranks, fl::token_order, fl::next_choice>{}.workspace_bytes(1, 1, 1);
}
#endif

#if defined(REJECT_deduplicated_on_device)  // expect: .dispatcher must model fairlead::dispatcher_on
#  include <fairlead/dispatch/deduplicated_exchange.hpp>
struct device_comm {
  using memory_space = device_space;
  [[nodiscard]] fl::index_t rank() const { return 0; }
  [[nodiscard]] fl::index_t size() const { return 1; }
  void barrier() const {}
  template <class Value>
  fl::alone::finished all_to_all_v(device const&, Value const*, std::span<fl::index_t const>, Value*, std::span<fl::index_t const>) const { return {}; }
  template <class Value>
  fl::alone::finished all_gather(device const&, std::span<Value const>, std::span<Value>) const { return {}; }
  template <class Value>
  fl::alone::finished all_reduce(device const&, std::span<Value>, fl::reduction) const { return {}; }
};
void reject() {
  make(fl::moe_layer{.gate = gate{}, .router = fl::top_k{.experts = 2, .k = 1}, .dispatcher = fl::deduplicated_exchange<>{}, .expert = expert{}},
       device{}, device_comm{});
}
#endif
