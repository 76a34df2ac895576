// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Figures of published machines and models, with sources and units.
#include <fairlead/cluster/bandwidth.hpp>
#include <fairlead/cluster/expert_times.hpp>
#include <fairlead/cluster/optimizer_traffic.hpp>

FAIRLEAD_NAMESPACE_BEGIN
/// Figures of published machines and models.
namespace presets {

/// @brief Defaults of the shadowing policy: 50 Gb/s, 11.5 TFLOP/s, experts of width 2048 with twice that hidden, fp32.
/// @source{FasterMoE, code: fmoe/fastermoe/shadow_policy.py}
inline constexpr expert_times fastermoe_default{
    .net_bytes_per_s = 6.25e9, .flops_per_s = 11.5e12, .hidden_ratio = 2.0, .width = 2048.0, .bytes_per_element = 4.0};

/// @brief All-to-all bandwidth by size: to 128 KB 0.75 GB/s, to 256 KB 2, to 1 MB 5.25, above 12.5 (KB = 1024 B).
/// @source{2411.10003, code: load-balancing/search_algorithm.py}
inline constexpr step_bandwidth prophet_steps{.limits = {128.0 * 1024, 256.0 * 1024, 1024.0 * 1024},
                                              .rates = {0.75e9, 2.0e9, 5.25e9, 12.5e9}};

/// @brief One layer like GPT-3's (175 B) with 64 experts on 2048 ranks: PCIe 64 GB/s, network 400 Gb/s.
/// @source{2504.19925, section 3: the worked example}
inline constexpr optimizer_traffic symi_gpt3{.experts = 64,
                                             .ranks = 2048,
                                             .slots_per_rank = 2,
                                             .gradient_bytes = 3.375e9,
                                             .weight_bytes = 3.375e9,
                                             .optimizer_bytes = 27.0e9,
                                             .host_bytes_per_s = 64.0e9,
                                             .network_bytes_per_s = 50.0e9};

/// @brief The 16-GPU cluster of that paper: PCIe 32 GB/s, network 100 Gb/s. Ratios do not depend on the size of an
/// expert; the bytes here are those of 14.2 million fp16 parameters, this library's choice.
/// @source{2504.19925, section 5: setup}
inline constexpr optimizer_traffic symi_testbed{.experts = 16,
                                                .ranks = 16,
                                                .slots_per_rank = 4,
                                                .gradient_bytes = 28.4e6,
                                                .weight_bytes = 28.4e6,
                                                .optimizer_bytes = 227.2e6,
                                                .host_bytes_per_s = 32.0e9,
                                                .network_bytes_per_s = 12.5e9};

}  // namespace presets
FAIRLEAD_NAMESPACE_END
