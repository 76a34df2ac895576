// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// A device backend with what works on host memory only. No CUDA is needed to be told so.
#include <fairlead/comm/alone.hpp>
#include <fairlead/comm/inproc.hpp>
#include <fairlead/core/routing.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/layer/moe_layer.hpp>
#include <fairlead/expert/dense_ffn.hpp>
#include <fairlead/route/linear_gate.hpp>
#include <fairlead/route/top_k.hpp>

#include <span>

namespace fl = fairlead;

struct other_space {
  static void* allocate(std::size_t bytes);
  static void deallocate(void* block, std::size_t bytes);
};
struct device {  // what every device backend looks like from here
  using memory_space = other_space;
  template <class Function>
  void for_each(fl::index_t, Function) const {}
  [[nodiscard]] fl::index_t concurrency() const { return 1; }
  void copy(void*, void const*, std::size_t) const {}
  void fill_zero(void*, std::size_t) const {}
  void to_host(void*, void const*, std::size_t) const {}
  void from_host(void*, void const*, std::size_t) const {}
  void wait() const {}
};
static_assert(fl::device_backend<device>);

using layer_type = fl::moe_layer<fl::linear_gate<>, fl::top_k, fl::dense_ffn<>>;

inline void control(fl::alone comm, fl::serial on, fl::top_k router, fl::matrix_view<float const> logits,
                    fl::routing_view out, fl::workspace& ws, std::span<float> values, layer_type const& layer) {
  comm.all_reduce(on, values, fl::reduction::sum).wait();
  router.route(on, logits, {}, out, ws);
  (void)layer.make_state(on, comm, {.max_tokens = 1});
}

#if defined(REJECT_host_communicator_with_device_backend)  // expect: this communicator moves host memory | fairlead::nccl::communicator
inline void misuse(fl::alone comm, device on, std::span<float> values) { comm.all_reduce(on, values, fl::reduction::sum); }
#endif

#if defined(REJECT_inproc_ranks_with_device_backend)  // expect: this communicator moves host memory | fairlead::nccl::communicator
inline void misuse(fl::inproc::communicator comm, device on, std::span<float> values) {
  comm.broadcast(on, values, fl::index_t{0});
}
#endif

#if defined(REJECT_router_without_device_text)  // expect: include the component's .cuh
inline void misuse(fl::top_k router, device on, fl::matrix_view<float const> logits, fl::routing_view out, fl::workspace& ws) {
  router.route(on, logits, {}, out, ws);
}
#endif

#if defined(REJECT_layer_of_two_memories)  // expect: communicator and backend must work on the same memory
inline void misuse(layer_type const& layer, device on, fl::alone comm) { (void)layer.make_state(on, comm, {.max_tokens = 1}); }
#endif
