// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The device text of the token-choice routers: a warp a row, the same bits as the host text.
#include <fairlead/cuda/memory.cuh>
#include <fairlead/cuda/warp_top_k.cuh>
#include <fairlead/core/workspace.hpp>
#include <fairlead/route/detail/route_rows.hpp>
#include <fairlead/route/selection.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

inline constexpr unsigned whole_warp = 0xFFFFFFFFU;
inline constexpr int route_warps = 4;  // rows a block works on
// Six blocks a multiprocessor leave 80 registers a thread; without the hint ptxas aims at fewer and spills around the
// slow path of the correctly rounded division.
inline constexpr int route_blocks = 6;
inline constexpr index_t rows_in_shared = 512;  // most experts whose row scratch fits into shared memory
[[nodiscard]] __device__ inline int lane_number() { return static_cast<int>(threadIdx.x) % 32; }

// `softmax_of` by a warp. Lane i keeps partial sum i % 16; a lane's value and that of the lane 16 above are added in
// ascending order of experts, and the tree is the host's, so the bits are.
__device__ inline softmax_row warp_softmax(float const* logits, int experts) {
  int const lane = lane_number();
  float best = minus_infinity;
  for (int e = lane; e < experts; e += 32) { best = logits[e] > best ? logits[e] : best; }
  for (int distance = 16; distance > 0; distance /= 2) {
    float const other = __shfl_xor_sync(whole_warp, best, distance);
    best = other > best ? other : best;
  }
  softmax_row row;
  if (!(best > minus_infinity)) { return row; }
  row.largest = best < largest_float ? best : largest_float;
  float sum = 0.0F;
  for (int first = 0; first < experts; first += 32) {
    int const e = first + lane;
    float const value = e < experts ? numeric::exp(clean_logit(logits[e]) - row.largest) : 0.0F;
    float const above = __shfl_down_sync(whole_warp, value, 16);
    sum = numeric::sum(numeric::sum(sum, value), above);
  }
  for (int width = 8; width > 0; width /= 2) { sum = numeric::sum(sum, __shfl_down_sync(whole_warp, sum, width)); }
  row.sum = __shfl_sync(whole_warp, sum, 0);
  return row;
}

// `effective_row` by a warp; a lane takes four experts, because they share a block of random words.
template <class Noise>
__device__ void warp_effective_row(Noise const& noise, route_context const& context, index_t row, int experts,
                                   float const* logits, float* out) {
  for (int first = 4 * lane_number(); first < experts; first += 128) {
    std::array<std::uint32_t, 4> words{};
    if constexpr (Noise::active) {
      if (context.phase != phase::evaluate) { words = routing_words(context, row, first / 4, experts); }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      int const e = first + i;
      if (e >= experts) { break; }
      float value = logits[e];
      if constexpr (Noise::active) {
        if (context.phase != phase::evaluate) { value = noise.apply(value, words, static_cast<unsigned>(i), experts); }
      }
      if (!context.expert_mask.empty() && context.expert_mask[static_cast<std::size_t>(e)] == 0) { value = minus_infinity; }
      out[e] = value;
    }
  }
  __syncwarp();
}

// `score_row` by a warp.
template <class Score>
__device__ void warp_score_row(float const* logits, int experts, bool unit, float* scores) {
  softmax_row row;
  if constexpr (Score::over_row) { row = warp_softmax(logits, experts); }
  for (int e = lane_number(); e < experts; e += 32) {
    float const logit = clean_logit(logits[e]);
    float value = 0.0F;
    if constexpr (Score::over_row) {
      value = numeric::quotient(numeric::exp(logit - row.largest), unit ? row.sum : 1.0F);
    } else {
      value = Score::value(logit);
    }
    scores[e] = is_candidate(logits[e]) ? value : minus_infinity;
  }
  __syncwarp();
}

// `group_limited::keep` by a warp: a lane scores groups `lane` and `lane + 32`.
template <class Rule>
__device__ std::uint64_t warp_keep(group_limited<Rule> const& selection, float const* keys, int experts, index_t fan_out) {
  constexpr int most = static_cast<int>(most_group_terms);
  int const groups = static_cast<int>(selection.groups);
  int const size = experts / groups;
  int const wanted = static_cast<int>(Rule::terms(fan_out, selection.kept_groups));
  int const terms = wanted < most ? wanted : most;
  std::uint32_t mine[2] = {0U, 0U};
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    int const group = lane_number() + 32 * half;
    if (group >= groups) { continue; }
    float best[most];  // descending
    int found = 0;
    for (int i = 0; i < size; ++i) {
      float carry = keys[group * size + i];
      if (!is_candidate(carry)) { continue; }
#pragma unroll
      for (int j = 0; j < most; ++j) {
        if (j >= found) { break; }
        float const upper = carry > best[j] ? carry : best[j];
        carry = carry > best[j] ? best[j] : carry;
        best[j] = upper;
      }
      if (found < terms) {
#pragma unroll
        for (int j = 0; j < most; ++j) { best[j] = j == found ? carry : best[j]; }
        ++found;
      }
    }
    float sum = found > 0 ? best[0] : minus_infinity;
#pragma unroll
    for (int j = 1; j < most; ++j) { sum = j < found ? numeric::sum(sum, best[j]) : sum; }
    mine[half] = kernels::candidate_bits(found > 0 ? group_score(sum) : sum);
  }
  std::uint64_t kept = 0;
  for (index_t n = 0; n < selection.kept_groups; ++n) {
    bool const upper = mine[1] > mine[0];
    auto const winner = kernels::best_of_warp({upper ? mine[1] : mine[0], lane_number() + (upper ? 32 : 0)});
    if (winner.bits == 0U) { break; }
    kept |= std::uint64_t{1} << static_cast<unsigned>(winner.id);
    mine[0] = winner.id == lane_number() ? 0U : mine[0];
    mine[1] = winner.id == lane_number() + 32 ? 0U : mine[1];
  }
  return kept;
}

// `key_row` by a warp.
template <class Choice>
__device__ void warp_key_row(Choice const& choice, float const* logits, float const* bias, float* keys) {
  using score = typename Choice::score_type;
  using selection = typename Choice::selection_type;
  auto const experts = static_cast<int>(choice.experts());
  if (bias != nullptr) {
    warp_score_row<score>(logits, experts, true, keys);
    for (int e = lane_number(); e < experts; e += 32) { keys[e] = numeric::sum(keys[e], bias[e]); }
    __syncwarp();
  }
  if constexpr (selection::limits_groups) {
    float const* group_keys = keys;
    if (bias == nullptr) {
      if constexpr (selection::monotone) {
        group_keys = logits;
      } else {
        warp_score_row<score>(logits, experts, false, keys);
      }
    }
    std::uint64_t const kept = warp_keep(choice.selection, group_keys, experts, choice.k);
    int const size = experts / static_cast<int>(choice.selection.groups);
    __syncwarp();
    for (int e = lane_number(); e < experts; e += 32) {
      bool const keeps = ((kept >> static_cast<unsigned>(e / size)) & 1U) != 0;
      keys[e] = keeps ? (bias == nullptr ? logits[e] : keys[e]) : minus_infinity;
    }
    __syncwarp();
  }
}

// Adds slot after slot, as the host does; slot j is value[j / 32] of lane j % 32.
__device__ inline float sum_of_slots(float const (&value)[2], int fan_out) {
  float total = 0.0F;
  for (int j = 0; j < fan_out; ++j) {
    total = numeric::sum(total, __shfl_sync(whole_warp, j < 32 ? value[0] : value[1], j % 32));
  }
  return total;
}

// `weighting::weights` by a warp, a lane a slot (two for more than 32).
template <class Score, class Renormalisation>
__device__ void warp_weights(float const (&chosen)[2], int fan_out, float scale, softmax_row const& row, float (&weight)[2]) {
  using rule = weighting<Score, Renormalisation>;
  float const logit[2] = {clean_logit(chosen[0]), clean_logit(chosen[1])};
  float total = 1.0F;
  if constexpr (rule::over_chosen || rule::needs_row) {
    float largest = row.largest;
    if constexpr (rule::over_chosen) {
      largest = logit[0] > logit[1] ? logit[0] : logit[1];
      for (int distance = 16; distance > 0; distance /= 2) {
        float const other = __shfl_xor_sync(whole_warp, largest, distance);
        largest = other > largest ? other : largest;
      }
      largest = largest > minus_infinity ? largest : 0.0F;
    }
    for (int h = 0; h < 2; ++h) { weight[h] = numeric::exp(logit[h] - largest); }
    total = row.sum;
    if constexpr (rule::over_chosen) {
      total = sum_of_slots(weight, fan_out);
      total = total > 0.0F ? total : 1.0F;
    }
  } else {
    for (int h = 0; h < 2; ++h) {
      float const value = Score::value(logit[h] > minus_infinity ? logit[h] : 0.0F);
      weight[h] = logit[h] > minus_infinity ? value : 0.0F;
    }
    if (rule::renormalised && fan_out > 1) { total = numeric::sum(sum_of_slots(weight, fan_out), rule::tiny); }
  }
  for (int h = 0; h < 2; ++h) { weight[h] = numeric::product(numeric::quotient(weight[h], total), scale); }
}

// Where a warp keeps the effective logits and the keys of its row: shared memory, or global for long rows.
struct warp_rows {
  float* effective;
  float* keys;
  [[nodiscard]] __device__ static warp_rows of(float* shared, float* scratch, index_t stride) {
    index_t const warp = threadIdx.x / 32;
    index_t const number = blockIdx.x * static_cast<index_t>(route_warps) + warp;
    float* const mine = scratch == nullptr ? shared + warp * 2 * stride : scratch + number * 2 * stride;
    return {mine, mine + stride};
  }
};

template <int Items, class Choice>
__global__ void __launch_bounds__(32 * route_warps, route_blocks)
    route_rows(Choice choice, matrix_view<float const> logits, route_context context, float const* bias,
               routing_view out, float* scratch, bool changes) {
  extern __shared__ float route_shared[];
  using score = typename Choice::score_type;
  using renormalisation = typename Choice::renormalisation_type;
  auto const experts = static_cast<int>(choice.experts());
  int const fan_out = static_cast<int>(choice.k);
  int const lane = lane_number();
  auto const rows = warp_rows::of(route_shared, scratch, route_stride(experts));
  for (index_t row = blockIdx.x * static_cast<index_t>(route_warps) + threadIdx.x / 32; row < logits.rows();
       row += gridDim.x * static_cast<index_t>(route_warps)) {
    std::int32_t id[2] = {-1, -1};
    float chosen[2] = {minus_infinity, minus_infinity};
    softmax_row soft;
    if (is_valid(context, row)) {
      float const* effective = logits.row(row);
      if (changes) {
        warp_effective_row(choice.noise, context, row, experts, effective, rows.effective);
        effective = rows.effective;
      }
      float const* keys = effective;
      if (bias != nullptr || Choice::selection_type::limits_groups) {
        warp_key_row(choice, effective, bias, rows.keys);
        keys = rows.keys;
      }
      kernels::warp_ranking<Items> ranking(keys, experts);
      for (int j = 0; j < fan_out; ++j) {
        auto const winner = ranking.next();
        if (winner.bits == 0U) { break; }
        if (j % 32 == lane) { j < 32 ? id[0] = winner.id : id[1] = winner.id; }
      }
      for (int h = 0; h < 2; ++h) { chosen[h] = id[h] < 0 ? minus_infinity : effective[id[h]]; }
      if constexpr (weighting<score, renormalisation>::needs_row) { soft = warp_softmax(effective, experts); }
      __syncwarp();  // the next row overwrites the scratch
    }
    float weight[2];
    warp_weights<score, renormalisation>(chosen, fan_out, choice.scale, soft, weight);
    for (int h = 0; h < 2; ++h) {
      int const slot = lane + 32 * h;
      if (slot < fan_out) {
        out.experts(row, slot) = static_cast<expert_id>(id[h]);
        out.weights(row, slot) = weight[h];
      }
    }
  }
}

// `gradient_row` by a warp. What hangs on the chosen slots only is computed by one lane, with the host's text.
template <class Choice>
__global__ void __launch_bounds__(32 * route_warps, route_blocks)
    route_gradient_rows(Choice choice, matrix_view<float const> logits, route_context context, const_routing_view out,
                        matrix_view<float const> grad_weights, matrix_view<float> grad_logits, float* scratch,
                        bool changes) {
  extern __shared__ float route_shared[];
  __shared__ float slots[route_warps][4][max_fan_out];
  using weights = weighting<typename Choice::score_type, typename Choice::renormalisation_type>;
  auto const experts = static_cast<int>(choice.experts());
  int const fan_out = static_cast<int>(choice.k);
  int const lane = lane_number();
  auto& [chosen, weight, grad_weight, grad_chosen] = slots[threadIdx.x / 32];
  auto const rows = warp_rows::of(route_shared, scratch, route_stride(experts));
  for (index_t row = blockIdx.x * static_cast<index_t>(route_warps) + threadIdx.x / 32; row < logits.rows();
       row += gridDim.x * static_cast<index_t>(route_warps)) {
    float* const grad = rows.keys;
    bool any = false;
    for (int j = lane; j < fan_out; j += 32) {
      auto const expert = static_cast<std::int32_t>(out.experts(row, j));
      any = any || expert >= 0;
      chosen[j] = expert < 0 ? minus_infinity
                             : effective_logit(choice.noise, context, row, expert, experts, logits(row, expert));
      grad_weight[j] = grad_weights(row, j);
    }
    any = __any_sync(whole_warp, any) != 0;
    float const* effective = logits.row(row);
    softmax_row soft;
    float factor = 0.0F;
    if (any) {
      if constexpr (weights::needs_row) {
        if (changes) {
          warp_effective_row(choice.noise, context, row, experts, effective, rows.effective);
          effective = rows.effective;
        }
        soft = warp_softmax(effective, experts);
      }
      __syncwarp();
      if (lane == 0) { factor = weights::gradient(chosen, grad_weight, fan_out, choice.scale, soft, weight, grad_chosen); }
      factor = __shfl_sync(whole_warp, factor, 0);
    }
    for (int e = lane; e < experts; e += 32) {
      grad[e] = 0.0F;
      if constexpr (weights::needs_row) {
        if (any) {
          grad[e] = numeric::product(-factor, numeric::quotient(numeric::exp(clean_logit(effective[e]) - soft.largest), soft.sum));
        }
      }
    }
    __syncwarp();
    for (int j = lane; any && j < fan_out; j += 32) {
      auto const expert = static_cast<std::int32_t>(out.experts(row, j));
      if (expert >= 0) { grad[expert] = numeric::sum(grad[expert], grad_chosen[j]); }  // ids of a row are distinct
    }
    __syncwarp();
    for (int e = lane; e < experts; e += 32) {
      float value = grad[e];
      if (value != 0.0F) { value = numeric::product(value, effective_slope(choice.noise, context, row, e, experts)); }
      grad_logits(row, e) = value;
    }
    __syncwarp();
  }
}

// What both directions need to launch: grid, shared memory, or scratch rows of the workspace for long rows.
struct route_launch {
  unsigned blocks;
  unsigned shared;
  float* scratch;
  [[nodiscard]] static route_launch of(index_t tokens, index_t experts, workspace& ws) {
    index_t const pair = 2 * route_stride(experts);
    if (experts <= rows_in_shared) {
      return {kernels::grid_size(tokens, route_warps), static_cast<unsigned>(route_warps * pair * sizeof(float)), nullptr};
    }
    // The host's scratch has two rows for each of 16 lanes a part; a row may have gone to the bias.
    index_t const parts = std::min(route_parts, (tokens + route_lanes - 1) / route_lanes);
    index_t const blocks = (parts * route_lanes - 1) / route_warps;
    return {kernels::grid_size(tokens, route_warps, blocks), 0U, ws.take<float>(blocks * route_warps * pair).data()};
  }
};

template <class Choice>
void launch_route(cudaStream_t stream, Choice const& choice, matrix_view<float const> logits,
                  route_context const& context, float const* bias, routing_view out, workspace& ws) {
  auto const launch = route_launch::of(logits.rows(), choice.experts(), ws);
  bool const changes = changes_logits<typename Choice::noise_type>(context);
  auto const run = [&](auto items) {
    route_rows<items.value><<<launch.blocks, 32 * route_warps, launch.shared, stream>>>(choice, logits, context, bias, out,
                                                                                      launch.scratch, changes);
  };
  index_t const experts = choice.experts();
  if (experts <= 64) {
    run(std::integral_constant<int, 2>{});
  } else if (experts <= 128) {
    run(std::integral_constant<int, 4>{});
  } else if (experts <= 256) {
    run(std::integral_constant<int, 8>{});
  } else if (experts <= 512) {
    run(std::integral_constant<int, 16>{});
  } else {
    run(std::integral_constant<int, 0>{});
  }
  kernels::check_launch("route");
}

template <class Choice>
void launch_route_gradient(cudaStream_t stream, Choice const& choice, matrix_view<float const> logits,
                           route_context const& context, const_routing_view out, matrix_view<float const> grad_weights,
                           matrix_view<float> grad_logits, workspace& ws) {
  auto const launch = route_launch::of(logits.rows(), choice.experts(), ws);
  bool const changes = changes_logits<typename Choice::noise_type>(context);
  route_gradient_rows<<<launch.blocks, 32 * route_warps, launch.shared, stream>>>(choice, logits, context, out, grad_weights,
                                                                               grad_logits, launch.scratch, changes);
  kernels::check_launch("route backward");
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
