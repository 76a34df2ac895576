// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What a communicator of host memory answers to a backend of device memory, and checks that all of them share.
#include <fairlead/concepts/communicator.hpp>
#include <fairlead/core/contract.hpp>

#include <span>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

template <class Backend>
struct refuse_device_memory {
  static_assert(sizeof(Backend) == 0,
                "fairlead: this communicator moves host memory, and the backend works on device memory. Use "
                "fairlead::nccl::communicator (<fairlead/comm/nccl.cuh>) with device backends.");
};

/// Overloads that take device backends and return no operation: the capability concepts are false for them, and a call
/// says what to use instead.
struct host_memory_only {
  template <device_backend Backend, class... Rest>
  void all_to_all_v(Backend const&, Rest const&...) const { (void)refuse_device_memory<Backend>{}; }
  template <device_backend Backend, class... Rest>
  void all_gather(Backend const&, Rest const&...) const { (void)refuse_device_memory<Backend>{}; }
  template <device_backend Backend, class... Rest>
  void all_reduce(Backend const&, Rest const&...) const { (void)refuse_device_memory<Backend>{}; }
  template <device_backend Backend, class... Rest>
  void reduce_scatter(Backend const&, Rest const&...) const { (void)refuse_device_memory<Backend>{}; }
  template <device_backend Backend, class... Rest>
  void broadcast(Backend const&, Rest const&...) const { (void)refuse_device_memory<Backend>{}; }
  template <device_backend Backend, class... Rest>
  void send(Backend const&, Rest const&...) const { (void)refuse_device_memory<Backend>{}; }
  template <device_backend Backend, class... Rest>
  void receive(Backend const&, Rest const&...) const { (void)refuse_device_memory<Backend>{}; }
};

inline void expect_offsets(std::span<index_t const> offsets, index_t ranks, void const* data) {
  FAIRLEAD_EXPECTS(static_cast<index_t>(offsets.size()) == ranks + 1, "give one offset a rank and the end",
                   offsets.size(), ranks);
  FAIRLEAD_EXPECTS(data != nullptr || offsets.back() == offsets.front(), "a null buffer needs empty messages",
                   offsets.back());
#if FAIRLEAD_CONTRACT_LEVEL >= 2
  for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
    FAIRLEAD_EXPECTS_2(offsets[i] >= 0 && offsets[i] <= offsets[i + 1], "offsets must ascend", offsets[i],
                       offsets[i + 1]);
  }
#endif
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
