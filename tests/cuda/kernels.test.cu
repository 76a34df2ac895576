// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Backend, matrix products, experts, row movement and numbering on a device against their serial twins.
#include <fairlead/core/bfloat16.hpp>
#include <fairlead/cuda/counting.cuh>
#include <fairlead/dispatch/rows.cuh>
#include <fairlead/exec/cuda_stream.cuh>
#include <fairlead/exec/gemm_reference.cuh>
#include <fairlead/exec/serial.hpp>
#include <fairlead/expert/dense_ffn.cuh>
#include <fairlead/expert/gated_ffn.cuh>
#include <fairlead/optim/adamw.cuh>
#include <fairlead/optim/sgd.cuh>

#include "cuda/support.cuh"

#include <algorithm>
#include <limits>
#include <vector>

namespace {
namespace fl = fairlead;
using fl::index_t;
using fairlead_test::distance;
using fairlead_test::download;
using fairlead_test::normals;
using fairlead_test::upload;

struct count_call {
  std::int32_t* calls;
  FAIRLEAD_HD void operator()(index_t i) const { ++calls[i]; }
};

template <class Value, class Backend>
std::vector<Value> multiply(Backend const& on, fl::transpose op_a, fl::transpose op_b, index_t m, index_t n, index_t k, Value beta) {
  index_t const a_rows = op_a == fl::transpose::no ? m : k, a_cols = op_a == fl::transpose::no ? k : m;
  index_t const b_rows = op_b == fl::transpose::no ? k : n, b_cols = op_b == fl::transpose::no ? n : k;
  index_t const a_stride = a_cols + 3, b_stride = b_cols + 1, c_stride = n + 2;
  auto const a = upload(on, normals<Value>(a_rows * a_stride + 1, 1));
  auto const b = upload(on, normals<Value>(b_rows * b_stride + 1, 2));
  auto old = normals<Value>(m * c_stride + 1, 3);
  for (index_t i = 0; beta == Value{0} && i < m; ++i) {  // must not be read
    for (index_t j = 0; j < n; ++j) { old[static_cast<std::size_t>(i * c_stride + j)] = std::numeric_limits<Value>::quiet_NaN(); }
  }
  auto c = upload(on, old);
  fl::gemm::reference{}.multiply(on, op_a, op_b, Value{2}, fl::matrix_view<Value const>(a.data(), a_rows, a_cols, a_stride),
                                 fl::matrix_view<Value const>(b.data(), b_rows, b_cols, b_stride), beta,
                                 fl::matrix_view<Value>(c.data(), m, n, c_stride));
  return download(on, c);
}

template <class Value>
struct row_results {
  std::vector<Value> gathered, combined, summed, rows, added;
  std::vector<float> grad_weights;
};

template <class Value, class Backend>
row_results<Value> move_rows(Backend const& on, index_t tokens, index_t fan_out, index_t width, index_t skew) {
  index_t const copies = tokens * fan_out;
  std::vector<std::int32_t> sources(static_cast<std::size_t>(copies)), places(sources.size());
  std::vector<float> weights(sources.size());
  for (std::size_t i = 0; i < sources.size(); ++i) {
    sources[i] = i % 11 == 3 ? fl::no_row : static_cast<std::int32_t>(i * 7 % sources.size());
    places[i] = i % 13 == 5 ? fl::no_row : i % 17 == 2 ? fl::own_row : static_cast<std::int32_t>(sources.size() - 1 - i);
    weights[i] = fl::philox::uniform(1, 1, i);
  }
  auto const source_memory = upload(on, sources);
  auto const place_memory = upload(on, places);
  auto const weight_memory = upload(on, weights);
  auto const token_memory = upload(on, normals<Value>(tokens * width + skew, 1));
  auto const grad_memory = upload(on, normals<Value>(tokens * width + skew, 2));
  auto row_memory = upload(on, normals<Value>(copies * width + skew, 3));
  auto gathered = upload(on, normals<Value>(copies * width, 4));
  auto combined = upload(on, normals<Value>(tokens * width, 5));
  auto summed = upload(on, normals<Value>(tokens * width, 6));
  auto added = upload(on, normals<Value>(tokens * width, 7));
  fl::buffer<float, typename Backend::memory_space> grad_weights(copies);
  fl::matrix_view<Value const> const in(token_memory.data() + skew, tokens, width), grad(grad_memory.data() + skew, tokens, width);
  fl::matrix_view<Value> const rows(row_memory.data() + skew, copies, width);
  fl::matrix_view<std::int32_t const> const index(place_memory.data(), tokens, fan_out);
  fl::matrix_view<float const> const weight(weight_memory.data(), tokens, fan_out);
  fl::gather_rows{fan_out}(on, in, source_memory.span(), fl::matrix_view<Value>(gathered.data(), copies, width));
  fl::combine_rows{}(on, fl::matrix_view<Value const>(rows), index, weight, in, fl::matrix_view<Value>(combined.data(), tokens, width));
  fl::combine_rows{}(on, fl::matrix_view<Value const>(rows), index, fl::matrix_view<float const>{}, fl::matrix_view<Value const>{},
                     fl::matrix_view<Value>(summed.data(), tokens, width));
  fl::combine_rows_backward{}(on, grad, index, weight, in, rows, fl::matrix_view<float>(grad_weights.data(), tokens, fan_out));
  fl::add_own_rows{}(on, grad, index, weight, fl::matrix_view<Value>(added.data(), tokens, width));
  return {download(on, gathered), download(on, combined), download(on, summed), download(on, row_memory), download(on, added),
          download(on, grad_weights)};
}

template <class Value>
void compare_rows(index_t tokens, index_t fan_out, index_t width, index_t skew, double tolerance) {
  fl::cuda_stream_owner const stream;
  auto const device = move_rows<Value>(stream.get(), tokens, fan_out, width, skew);
  auto const host = move_rows<Value>(fl::serial{}, tokens, fan_out, width, skew);
  INFO("tokens " << tokens << ", fan_out " << fan_out << ", width " << width << ", skew " << skew);
  REQUIRE(distance(device.gathered, host.gathered) == 0.0);
  REQUIRE(distance(device.combined, host.combined) < tolerance);
  REQUIRE(distance(device.summed, host.summed) < tolerance);
  REQUIRE(distance(device.rows, host.rows) == 0.0);
  REQUIRE(distance(device.added, host.added) < tolerance);
  REQUIRE(distance(device.grad_weights, host.grad_weights) < 1e-5);
}

template <class Value>
struct expert_results {
  std::vector<Value> out, kept_nothing, grad_in, gradients;
};

template <class Expert, class Backend>
auto run_expert(Expert const& expert, Backend const& on, index_t fewer_bytes) {
  using value = typename Expert::value_type;
  using space = typename Backend::memory_space;
  std::vector<index_t> const offsets{0, 16, 16, 96, 112}, counts{13, 0, 80, 1};
  fl::row_groups const groups{offsets, counts};
  index_t const rows = groups.rows(), size = expert.parameter_layout().size();
  auto const parameters = upload(on, normals<value>(4 * size, 1));
  auto gradients = upload(on, normals<value>(4 * size, 2));
  auto const in = upload(on, normals<value>(rows * expert.width, 3));
  auto const grad_out = upload(on, normals<value>(rows * expert.width, 4));
  auto out = upload(on, normals<value>(rows * expert.width, 5));
  auto other = upload(on, normals<value>(rows * expert.width, 5));
  auto grad_in = upload(on, normals<value>(rows * expert.width, 6));
  fl::buffer<value, space> kept(rows * expert.kept_width());
  std::vector<value const*> where;
  std::vector<value*> to;
  for (index_t g = 0; g < 4; ++g) {
    where.push_back(parameters.data() + g * size);
    to.push_back(gradients.data() + g * size);
  }
  fl::arena<space> memory(expert.workspace_bytes(rows, 1) / static_cast<std::size_t>(fewer_bytes));
  auto ws = memory.view();
  auto const view = [&](auto& b) { return fl::matrix_view(b.data(), rows, expert.width); };
  fl::matrix_view<value> const kept_view(kept.data(), rows, expert.kept_width());
  expert.forward(on, where, groups, view(in), kept_view, view(out), ws);
  expert.forward(on, where, groups, view(in), fl::matrix_view<value>{}, view(other), ws);
  expert.backward(on, where, to, groups, view(in), fl::matrix_view<value const>(kept_view), view(grad_out), view(grad_in), ws);
  REQUIRE(ws.used() == 0);
  return expert_results<value>{download(on, out), download(on, other), download(on, grad_in), download(on, gradients)};
}

template <class Expert>
void compare_expert(Expert const& expert, double tolerance) {
  fl::cuda_stream_owner const stream;
  auto const host = run_expert(expert, fl::serial{}, 1);
  for (index_t const fewer_bytes : {1, 8}) {  // a small workspace cuts the groups into pieces
    auto const device = run_expert(expert, stream.get(), fewer_bytes);
    REQUIRE(distance(device.out, host.out) < tolerance);
    REQUIRE(device.kept_nothing == device.out);
    REQUIRE(distance(device.grad_in, host.grad_in) < tolerance);
    REQUIRE(distance(device.gradients, host.gradients) < tolerance);
  }
}

template <class Value, class Optimizer, class Backend>
std::vector<Value> train(Optimizer const& optimizer, Backend const& on) {
  fl::parameter_layout layout;
  layout.add("weights", 7, 50, 1.0).add("bias", 1, 13, 0.0, false).add("frozen", 3, 9, 1.0);
  layout.freeze(2);
  auto values = upload(on, normals<Value>(layout.size(), 1));
  auto state = optimizer.template make_state<Value>(on, layout.size());
  for (std::int64_t step = 1; step <= 3; ++step) {
    auto const gradients = upload(on, normals<Value>(layout.size(), 1 + static_cast<std::uint64_t>(step)));
    optimizer.update(on, layout, values.span(), gradients.span(), state, step);
    on.wait();
  }
  auto const moved = download(on, values), start = normals<Value>(layout.size(), 1);
  REQUIRE(std::equal(moved.begin() + layout[2].offset, moved.end(), start.begin() + layout[2].offset));
  REQUIRE(!std::equal(moved.begin(), moved.begin() + layout[2].offset, start.begin()));
  return moved;
}

}  // namespace

TEST_CASE("a stream calls every index once, also more of them than threads, and reports its failures") {
  FAIRLEAD_NEEDS_DEVICES(1);
  fl::cuda_stream_owner const stream;
  auto const on = stream.get();
  index_t const n = 100000;
  fl::buffer<std::int32_t, fl::device_space> calls(n);
  on.fill_zero(calls.data(), static_cast<std::size_t>(n) * sizeof(std::int32_t));
  on.for_each(n, count_call{calls.data()});
  on.for_each(0, count_call{nullptr});
  REQUIRE(download(on, calls) == std::vector<std::int32_t>(static_cast<std::size_t>(n), 1));
  REQUIRE(on.concurrency() >= 1);
  REQUIRE_THROWS_AS(fl::kernels::check(cudaErrorInvalidValue, "testing"), fl::cuda_error);
  try {
    fl::kernels::check(cudaErrorInvalidValue, "testing");
  } catch (fl::cuda_error const& error) {
    REQUIRE(error.code() == cudaErrorInvalidValue);
    REQUIRE(std::string(error.what()).find("testing") == 0);
  }
}

TEST_CASE("pinned memory stages a copy in both directions") {
  FAIRLEAD_NEEDS_DEVICES(1);
  fl::cuda_stream_owner const stream;
  auto const on = stream.get();
  fl::buffer<float, fl::pinned_space> there(100), back(100);
  for (index_t i = 0; i < 100; ++i) { there[i] = static_cast<float>(i); }
  fl::buffer<float, fl::device_space> device(100), copy(100);
  on.from_host(device.data(), there.data(), 400);
  on.copy(copy.data(), device.data(), 400);
  on.to_host(back.data(), copy.data(), 400);
  on.wait();
  REQUIRE(std::vector<float>(back.data(), back.data() + 100) == std::vector<float>(there.data(), there.data() + 100));
}

TEST_CASE("the reference product on a device equals the host's in every orientation") {
  FAIRLEAD_NEEDS_DEVICES(1);
  fl::cuda_stream_owner const stream;
  struct shape { index_t m, n, k; };
  for (shape const s : {shape{70, 65, 33}, shape{1, 130, 17}, shape{5, 5, 0}, shape{0, 4, 3}, shape{64, 64, 64}}) {
    for (auto const op_a : {fl::transpose::no, fl::transpose::yes}) {
      for (auto const op_b : {fl::transpose::no, fl::transpose::yes}) {
        INFO("m " << s.m << ", n " << s.n << ", k " << s.k);
        REQUIRE(distance(multiply<float>(stream.get(), op_a, op_b, s.m, s.n, s.k, 0.0F),
                         multiply<float>(fl::serial{}, op_a, op_b, s.m, s.n, s.k, 0.0F)) < 1e-5);
        REQUIRE(distance(multiply<double>(stream.get(), op_a, op_b, s.m, s.n, s.k, 0.5),
                         multiply<double>(fl::serial{}, op_a, op_b, s.m, s.n, s.k, 0.5)) < 1e-13);
      }
    }
  }
}

TEST_CASE("a product on a device has the same bits however its rows are cut") {
  FAIRLEAD_NEEDS_DEVICES(1);
  fl::cuda_stream_owner const stream;
  auto const on = stream.get();
  auto const a = upload(on, normals(100 * 40, 1));
  auto const b = upload(on, normals(40 * 30, 2));
  fl::buffer<float, fl::device_space> whole(100 * 30), cut(100 * 30);
  fl::matrix_view<float const> const left(a.data(), 100, 40), right(b.data(), 40, 30);
  fl::matrix_view<float> const all(whole.data(), 100, 30), pieces(cut.data(), 100, 30);
  fl::gemm::reference const product;
  product.multiply(on, fl::transpose::no, fl::transpose::no, 1.0F, left, right, 0.0F, all);
  for (index_t first = 0; first < 100; first += 7) {
    index_t const rows = std::min<index_t>(7, 100 - first);
    product.multiply(on, fl::transpose::no, fl::transpose::no, 1.0F, left.rows(first, rows), right, 0.0F, pieces.rows(first, rows));
  }
  REQUIRE(download(on, whole) == download(on, cut));
}

TEST_CASE("rows are moved and combined on a device as on the host, aligned or not") {
  FAIRLEAD_NEEDS_DEVICES(1);
  compare_rows<float>(37, 2, 64, 0, 1e-6);
  compare_rows<float>(37, 3, 67, 1, 1e-6);
  compare_rows<float>(5, 2, 1100, 0, 1e-6);
  compare_rows<double>(5, 1, 130, 0, 1e-14);
  compare_rows<double>(3, 2, 131, 1, 1e-14);
  compare_rows<fl::bfloat16>(9, 40, 256, 0, 1e-2);
  compare_rows<fl::bfloat16>(9, 2, 33, 3, 1e-2);
  compare_rows<float>(0, 2, 16, 0, 1e-6);
}

TEST_CASE("copies are numbered in line, whatever the order, the tiles and the number of experts") {
  FAIRLEAD_NEEDS_DEVICES(1);
  fl::cuda_stream_owner const stream;
  auto const on = stream.get();
  struct shape { index_t tokens, fan_out, experts, tiles; };
  for (shape const s : {shape{0, 2, 4, 1}, shape{1, 1, 1, 1}, shape{3000, 4, 64, 8}, shape{9000, 2, 7, 1}, shape{700, 3, 3000, 4}, shape{600, 8, 9000, 2}}) {
    index_t const copies = s.tokens * s.fan_out;
    std::vector<fl::expert_id> chosen(static_cast<std::size_t>(copies));
    std::vector<std::int32_t> list(chosen.size());
    for (std::size_t i = 0; i < chosen.size(); ++i) {
      auto const words = fl::philox::draw(1, 2, i);
      chosen[i] = words[0] % 9U == 0U ? fl::expert_id::none
                  : words[1] % 2U == 0U ? fl::expert_id{0}
                                      : static_cast<fl::expert_id>(words[2] % static_cast<std::uint32_t>(s.experts));
      list[i] = static_cast<std::int32_t>(chosen.size() - 1 - i);
    }
    auto const chosen_memory = upload(on, chosen);
    auto const list_memory = upload(on, list);
    for (int kind = 0; kind < 3; ++kind) {
      fl::kernels::copy_order const on_device{kind == 2 ? list_memory.data() : nullptr, s.tokens, s.fan_out, kind == 1};
      fl::kernels::copy_order const on_host{kind == 2 ? list.data() : nullptr, s.tokens, s.fan_out, kind == 1};
      std::vector<std::int32_t> positions(chosen.size()), totals(static_cast<std::size_t>(2 * s.experts), 0);
      for (index_t place = 0; place < copies; ++place) {
        auto const copy = static_cast<std::size_t>(on_host.copy(place));
        auto const expert = static_cast<std::int32_t>(chosen[copy]);
        positions[copy] = expert < 0 ? -1 : totals[static_cast<std::size_t>(expert)]++;
      }
      for (index_t e = 0; e < s.experts; ++e) { totals[static_cast<std::size_t>(e + s.experts)] = totals[static_cast<std::size_t>(e)]; }
      fl::buffer<std::int32_t, fl::device_space> scratch(s.tiles * s.experts), totals_memory(2 * s.experts), positions_memory(copies);
      fl::kernels::number_copies(on.native(), chosen_memory.data(), copies, s.experts, on_device, scratch.data(), s.tiles,
                                 totals_memory.data(), positions_memory.data());
      INFO("copies " << copies << ", experts " << s.experts << ", order " << kind);
      REQUIRE(download(on, positions_memory) == positions);
      REQUIRE(download(on, totals_memory) == totals);
    }
  }
}

TEST_CASE("experts on a device equal the host's, forward and backward, with any workspace that holds a row") {
  FAIRLEAD_NEEDS_DEVICES(1);
  compare_expert(fl::dense_ffn<float, fl::relu>{.width = 24, .hidden = 40}, 5e-5);
  compare_expert(fl::dense_ffn<float, fl::gelu>{.width = 24, .hidden = 40, .bias = false}, 5e-5);
  compare_expert(fl::dense_ffn<double, fl::gelu_tanh>{.width = 9, .hidden = 17}, 1e-12);
  compare_expert(fl::gated_ffn<float, fl::silu>{.width = 20, .hidden = 33}, 5e-5);
  compare_expert(fl::gated_ffn<double, fl::gelu>{.width = 8, .hidden = 12, .bias = true}, 1e-12);
}

TEST_CASE("optimizers move parameters on a device as on the host") {
  FAIRLEAD_NEEDS_DEVICES(1);
  fl::cuda_stream_owner const stream;
  fl::sgd const plain{.rate = 0.1, .decay = 0.2}, heavy{.rate = 0.1, .momentum = 0.9, .decay = 0.2};
  fl::adamw const adaptive{.rate = 0.05, .decay = 0.3};
  REQUIRE(distance(train<float>(plain, stream.get()), train<float>(plain, fl::serial{})) < 1e-6);
  REQUIRE(distance(train<double>(heavy, stream.get()), train<double>(heavy, fl::serial{})) < 1e-14);
  REQUIRE(distance(train<float>(adaptive, stream.get()), train<float>(adaptive, fl::serial{})) < 1e-6);
  REQUIRE(distance(train<double>(adaptive, stream.get()), train<double>(adaptive, fl::serial{})) < 1e-14);
}
