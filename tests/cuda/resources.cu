// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Every kernel of the library, for resources.py: compiled for real architectures, never run.
#include <fairlead/comm/nccl.cuh>
#include <fairlead/core/bfloat16.hpp>
#include <fairlead/cuda.cuh>
#include <fairlead/exec/gemm_cublas.cuh>
#include <fairlead/expert/dense_ffn.cuh>
#include <fairlead/expert/gated_ffn.cuh>
#include <fairlead/route/linear_gate.hpp>
#include <fairlead/schedule/column_rules.hpp>

#include <span>

namespace fl = fairlead;
using fl::index_t;

template <class Router>
void routes(Router const& router, fl::cuda_stream on, fl::matrix_view<float> m, fl::routing_view out, fl::workspace& ws) {
  fl::route_context const context;
  if constexpr (fl::has_state<Router>) {
    auto const state = router.make_state();
    router.route(on, m, context, state, out, ws);
    router.backward(on, m, context, state, out, m, m, ws);
  } else {
    router.route(on, m, context, out, ws);
    router.backward(on, m, context, out, m, m, ws);
  }
}

template <class Value>
void rows(fl::cuda_stream on, fl::matrix_view<Value> m, fl::matrix_view<std::int32_t const> index, fl::matrix_view<float> w) {
  fl::gather_rows{}(on, fl::matrix_view<Value const>(m), std::span<std::int32_t const>(index.data(), 1), m);
  fl::combine_rows{}(on, fl::matrix_view<Value const>(m), index, fl::matrix_view<float const>(w), fl::matrix_view<Value const>(m), m);
  fl::combine_rows_backward{}(on, fl::matrix_view<Value const>(m), index, fl::matrix_view<float const>(w),
                              fl::matrix_view<Value const>(m), m, w);
  fl::add_own_rows{}(on, fl::matrix_view<Value const>(m), index, fl::matrix_view<float const>(w), m);
}

template <class Expert>
void experts(Expert const& expert, fl::cuda_stream on, fl::matrix_view<float> m, fl::workspace& ws) {
  expert.forward(on, {}, {}, m, m, m, ws);
  expert.backward(on, {}, {}, {}, m, m, m, m, ws);
}

template <class Exchange>
void dispatches(Exchange const& exchange, fl::cuda_stream on, fl::nccl::communicator& comm, fl::const_routing_view routed,
                fl::exchange_plan<fl::device_space>& plan, fl::placement const& where, fl::workspace& ws) {
  exchange.admit(on, routed, {}, 1, plan, ws);
  exchange.plan(on, comm, routed, where, {}, plan, ws);
}

template <class Score>
void auctions(fl::cuda_stream on, fl::matrix_view<Score> scores, fl::matrix_view<fl::expert_id> owner, fl::workspace& ws) {
  fl::jacobi_auction{}.solve_batch(on, fl::assignment_batch<Score>{.scores = scores}, owner, {}, {}, ws);
}

void schedules(fl::cuda_stream on, fl::nccl::communicator& comm, fl::load_view load, fl::column_view const& where, fl::node_table<fl::device_space> const& nodes,
               fl::matrix_view<index_t> totals, fl::matrix_view<fl::count_t> out, fl::copy_pieces const& pieces, fl::workspace& ws) {
  fl::gather_load{}.gather(on, comm, {}, out, ws);
  fl::sum_over_ranks(on, load, std::span<index_t>());
  fl::min_max_waves{}.solve_batch(on, where, totals, out, {}, ws);
  fl::route_staircase(on, where, load, {}, false, out);
  fl::spread_on_nodes(on, where, nodes, load, true, out, nullptr);
  fl::copy_slots{}.assign(on, {}, {}, where, {}, {}, ws);
  fl::deal_copies(on, {}, pieces, {}, ws);
}

void everything(fl::cuda_stream on, fl::nccl::communicator& comm, fl::gemm::cublas cublas, fl::matrix_view<float> m,
                fl::matrix_view<double> d, fl::matrix_view<fl::bfloat16> b, fl::matrix_view<std::int32_t const> index,
                fl::routing_view out, fl::exchange_plan<fl::device_space>& plan, fl::placement const& where, fl::workspace& ws) {
  routes(fl::top_k{}, on, m, out, ws);
  routes(fl::softmax_top_k{}, on, m, out, ws);
  routes(fl::sigmoid_top_k{}, on, m, out, ws);
  routes(fl::sigmoid_bias_group_top_k{}, on, m, out, ws);
  routes(fl::with_noise<fl::top_k, fl::fixed_noise>{}, on, m, out, ws);
  routes(fl::hash_table_top_k{}, on, m, out, ws);
  routes(fl::table_choice<fl::row_by_position, fl::softmax_score, fl::not_renormalised>{}, on, m, out, ws);
  routes(fl::gshard_top_2{}, on, m, out, ws);
  auctions(on, m, out.experts, ws);
  auctions(on, b, out.experts, ws);
  rows(on, m, index, m);
  rows(on, d, index, m);
  rows(on, b, index, m);
  experts(fl::dense_ffn<float, fl::gelu>{}, on, m, ws);
  experts(fl::gated_ffn<float, fl::silu>{}, on, m, ws);
  experts(fl::dense_ffn<float, fl::relu, fl::gemm::cublas>{}, on, m, ws);
  fl::gemm::reference{}.multiply(on, fl::transpose::yes, fl::transpose::no, 1.0, d, d, 0.0, d);
  cublas.multiply(on, fl::transpose::no, fl::transpose::no, fl::bfloat16(1.0F), b, b, fl::bfloat16(), b);
  cublas.multiply_groups<fl::cuda_stream, float>(on, fl::transpose::no, fl::transpose::yes, 1.0F, {}, {}, 0.0F, {}, ws);
  dispatches(fl::exchange<>{}, on, comm, out, plan, where, ws);
  dispatches(fl::exchange<fl::megatron_capacity, fl::choice_major_order, fl::drop_and_renormalise>{}, on, comm, out, plan, where, ws);
  fl::linear_gate<fl::gemm::cublas>{}.forward(on, {}, m, m, ws);
}
