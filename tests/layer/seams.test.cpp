// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What comes later plugs in here: replicas, split tokens, parameters that appear just before use, pipelines. Most
// models of this file are made for the test; layer/ and dispatch/ know nothing of them.
#include <fairlead/balance/z_loss.hpp>
#include <fairlead/comm/counted.hpp>
#include <fairlead/dispatch/deduplicated_exchange.hpp>
#include <fairlead/place/greedy_max_replicas.hpp>
#include <fairlead/place/replicate_then_place.hpp>
#include <fairlead/place/replicated.hpp>
#include <fairlead/schedule/equal_split.hpp>

#include "layer/support.hpp"
#include "support/catch.hpp"

#include <array>
#include <limits>
#include <memory>

namespace fl = fairlead;
using fl::index_t;

namespace {

// Every even expert twice, on different ranks where there are several; the last rank has an empty slot.
struct doubled_even_experts {
  fl::placement initial(index_t ranks, index_t experts) const {
    std::vector<std::vector<fl::expert_id>> on(static_cast<std::size_t>(ranks));
    for (index_t e = 0; e < experts; ++e) {
      on[static_cast<std::size_t>(e % ranks)].push_back(static_cast<fl::expert_id>(e));
      if (e % 2 == 0) { on[static_cast<std::size_t>((e + 1) % ranks)].push_back(static_cast<fl::expert_id>(e)); }
    }
    on.back().push_back(fl::expert_id::none);
    std::vector<index_t> offsets{0};
    std::vector<fl::expert_id> slots;
    for (auto const& mine : on) {
      slots.insert(slots.end(), mine.begin(), mine.end());
      offsets.push_back(static_cast<index_t>(slots.size()));
    }
    return {experts, offsets, slots, fl::replica_meaning::host, 5};
  }
};
static_assert(fl::planner<doubled_even_experts>);

// As many slots on each rank as there are experts: with several ranks every expert has several replicas, some on one rank.
struct roomy {
  using shares = fl::replicate_then_place<fl::greedy_max_replicas, fl::contiguous_slots>;
  fl::placement initial(index_t ranks, index_t experts) const {
    return fl::replicated<shares>{.slots_per_rank = experts + 1}.initial(ranks, experts);
  }
};
static_assert(fl::planner<roomy>);

// The first replica gets a third, rounded by the source rank's number; the rest goes to the others in turn.
struct uneven_thirds {
  fl::report schedule(fl::load_view load, fl::placement const& where, fl::token_schedule_view out, fl::workspace&) const {
    for (index_t source = 0; source < load.rows(); ++source) {
      for (index_t e = 0; e < load.cols(); ++e) {
        auto const expert = static_cast<fl::expert_id>(e);
        auto const count = static_cast<index_t>(where.replicas(expert).size());
        fl::count_t left = load(source, e);
        for (index_t i = 0; i < count; ++i) {
          auto const take = i + 1 == count ? left : static_cast<fl::count_t>((left + source) / 3);
          out(source, where.replica_offset(expert) + i) = std::min(take, left);
          left -= std::min(take, left);
        }
      }
    }
    return {};
  }
  std::size_t workspace_bytes(fl::placement const&) const { return 0; }
};
static_assert(fl::token_scheduler<uneven_thirds>);

// Each rank keeps a slice of every expert; whole experts exist only between acquire and release.
class sliced_store {
 public:
  sliced_store(fl::placement where, index_t rank, fl::parameter_layout const& layout, std::uint64_t seed)
      : where_(std::move(where)), rank_(rank), size_(layout.size()), slice_((size_ + where_.ranks() - 1) / where_.ranks()) {
    index_t const experts = where_.experts();
    slices_.resize(static_cast<std::size_t>(experts * slice_));
    gathered_.resize(slices_.size() * static_cast<std::size_t>(where_.ranks()));
    sum_.resize(static_cast<std::size_t>(experts * size_));
    std::vector<float> whole(static_cast<std::size_t>(size_));
    for (index_t e = 0; e < experts; ++e) {
      fl::initialise<float>(layout, seed, static_cast<std::uint64_t>(e), whole);
      for (index_t i = 0; i < slice_ && rank_ * slice_ + i < size_; ++i) {
        slices_[static_cast<std::size_t>(e * slice_ + i)] = whole[static_cast<std::size_t>(rank_ * slice_ + i)];
      }
    }
    auto const slots = static_cast<std::size_t>(where_.slots(static_cast<fl::rank_id>(rank_)));
    for (std::size_t slot = 0; slot < slots; ++slot) {
      values_.push_back(std::make_unique<std::vector<float>>(size_, std::numeric_limits<float>::quiet_NaN()));
      gradients_.push_back(std::make_unique<std::vector<float>>(size_, 0.0F));
      value_pointers_.push_back(values_.back()->data());
      gradient_pointers_.push_back(gradients_.back()->data());
    }
  }
  template <class Backend, class Comm>
  void acquire(Backend const& on, Comm& comm) {
    comm.all_gather(on, std::span<float const>(slices_), std::span<float>(gathered_)).wait();
    auto const experts = where_.experts_on(static_cast<fl::rank_id>(rank_));
    for (std::size_t slot = 0; slot < experts.size(); ++slot) {
      if (experts[slot] == fl::expert_id::none) { continue; }
      for (index_t i = 0; i < size_; ++i) {
        index_t const from = i / slice_ * static_cast<index_t>(slices_.size()) + fl::to_index(experts[slot]) * slice_ + i % slice_;
        (*values_[slot])[static_cast<std::size_t>(i)] = gathered_[static_cast<std::size_t>(from)];
      }
    }
  }
  template <class Backend, class Comm>
  void release(Backend const&, Comm&) {  // nobody may use what is not there
    for (auto& v : values_) { std::fill(v->begin(), v->end(), std::numeric_limits<float>::quiet_NaN()); }
  }
  std::span<float const* const> values() const { return value_pointers_; }
  std::span<float* const> gradients() { return gradient_pointers_; }
  template <class Backend>
  void zero_gradients(Backend const&) {
    for (auto& g : gradients_) { std::fill(g->begin(), g->end(), 0.0F); }
  }
  template <class Backend, class Comm>
  void reduce_gradients(Backend const& on, Comm& comm) {
    std::fill(sum_.begin(), sum_.end(), 0.0F);
    auto const experts = where_.experts_on(static_cast<fl::rank_id>(rank_));
    for (std::size_t slot = 0; slot < experts.size(); ++slot) {
      for (index_t i = 0; i < size_ && experts[slot] != fl::expert_id::none; ++i) {
        sum_[static_cast<std::size_t>(fl::to_index(experts[slot]) * size_ + i)] += (*gradients_[slot])[static_cast<std::size_t>(i)];
      }
    }
    comm.all_reduce(on, std::span<float>(sum_), fl::reduction::sum).wait();
  }
  template <class Function>
  void each(Function&& f) {  // the optimizer of a sliced store owns slices; the test looks at whole sums
    for (index_t e = 0; e < where_.experts(); ++e) {
      f(static_cast<fl::expert_id>(e), std::span<float>(slices_).subspan(static_cast<std::size_t>(e * slice_), static_cast<std::size_t>(slice_)),
        std::span<float>(sum_).subspan(static_cast<std::size_t>(e * size_), static_cast<std::size_t>(size_)));
    }
  }

 private:
  fl::placement where_;
  index_t rank_, size_, slice_;
  std::vector<float> slices_, gathered_, sum_;
  std::vector<std::unique_ptr<std::vector<float>>> values_, gradients_;
  std::vector<float const*> value_pointers_;
  std::vector<float*> gradient_pointers_;
};

struct sliced_parameters {
  template <class Value, class Backend, class Comm>
  sliced_store make(Backend const&, Comm& comm, fl::placement const& where, fl::parameter_layout const& layout, std::uint64_t seed) const {
    return {where, comm.rank(), layout, seed};
  }
};

// Two chunks of each rank's tokens, the second one sent while the first one is computed, forward and backward.
struct two_chunk_pipeline {
  template <class Layer, class State>
  fl::step_report operator()(Layer const& layer, State& state, fl::matrix_view<float const> tokens, fl::matrix_view<float> out,
                             fl::matrix_view<float const> grad_out, fl::matrix_view<float> grad_tokens) const {
    index_t const half = tokens.rows() / 3, rest = tokens.rows() - half;
    auto a = layer.make_record(state);
    auto b = layer.make_record(state);
    auto const context = layer.default_context(state, fl::phase::train);
    layer.route(state, tokens.rows(0, half), a, context);
    layer.plan(state, a);
    layer.start_dispatch(state, a);
    layer.route(state, tokens.rows(half, rest), b, context);
    layer.plan(state, b);
    layer.start_dispatch(state, b);
    layer.finish_dispatch(state, a);
    layer.compute(state, a);
    layer.start_combine(state, a);
    layer.finish_dispatch(state, b);
    layer.compute(state, b);
    layer.start_combine(state, b);
    layer.finish_combine(state, a, out.rows(0, half));
    layer.finish_combine(state, b, out.rows(half, rest));

    layer.start_combine_backward(state, b, grad_out.rows(half, rest));
    layer.start_combine_backward(state, a, grad_out.rows(0, half));
    layer.finish_combine_backward(state, b);
    layer.compute_backward(state, b);
    layer.start_dispatch_backward(state, b);
    layer.finish_combine_backward(state, a);
    layer.compute_backward(state, a);
    layer.start_dispatch_backward(state, a);
    layer.finish_dispatch_backward(state, b, grad_out.rows(half, rest), grad_tokens.rows(half, rest));
    layer.finish_dispatch_backward(state, a, grad_out.rows(0, half), grad_tokens.rows(0, half));
    layer.route_backward(state, b, grad_out.rows(half, rest), grad_tokens.rows(half, rest));
    layer.route_backward(state, a, grad_out.rows(0, half), grad_tokens.rows(0, half));
    return a.report;
  }
};

// The same chunks, each done before the next begins.
struct two_chunks_in_turn {
  template <class Layer, class State>
  fl::step_report operator()(Layer const& layer, State& state, fl::matrix_view<float const> tokens, fl::matrix_view<float> out,
                             fl::matrix_view<float const> grad_out, fl::matrix_view<float> grad_tokens) const {
    index_t const half = tokens.rows() / 3, rest = tokens.rows() - half;
    (void)layer_test::whole_step{}(layer, state, tokens.rows(0, half), out.rows(0, half), grad_out.rows(0, half), grad_tokens.rows(0, half));
    return layer_test::whole_step{}(layer, state, tokens.rows(half, rest), out.rows(half, rest), grad_out.rows(half, rest), grad_tokens.rows(half, rest));
  }
};

constexpr double rounding = 2e-5;
reference::sizes const sizes{.tokens = 53, .width = 12, .hidden = 20, .experts = 6, .fan_out = 2};

template <class Planner = fl::contiguous_placement, class Scheduler = fl::sole_replica, class Dispatcher = fl::exchange<>, class Store = fl::local_parameters>
auto compose() {
  return fl::moe_layer{.gate = fl::linear_gate<>{.width = sizes.width, .experts = sizes.experts},
                       .router = fl::top_k{.experts = sizes.experts, .k = sizes.fan_out},
                       .planner = Planner{},
                       .scheduler = Scheduler{},
                       .dispatcher = Dispatcher{},
                       .expert = fl::dense_ffn<float>{.width = sizes.width, .hidden = sizes.hidden},
                       .store = Store{}};
}

template <class Layer, class Step = layer_test::whole_step>
void equals_reference(Layer const& layer, Step step = {}) {
  auto const in = layer_test::problem_of(layer, sizes);
  auto const want = reference::solve(in);
  for (index_t const ranks : {1, 2, 3, 4, 8}) {
    CAPTURE(ranks);
    CHECK(layer_test::distance(layer_test::run(fl::serial{}, layer, in, ranks, step), want) < rounding);
  }
}

}  // namespace

TEST_CASE("Experts with two replicas and a scheduler that splits their tokens equal the reference") {
  equals_reference(compose<doubled_even_experts, uneven_thirds>());
  equals_reference(compose<doubled_even_experts, uneven_thirds, fl::deduplicated_exchange<>>());
}

TEST_CASE("Planners made of load planners, with two replicas on one rank, equal the reference") {
  equals_reference(compose<fl::replicated<fl::proportional_in_order>, fl::equal_split>());
  equals_reference(compose<roomy, fl::equal_split>());
  equals_reference(compose<roomy, uneven_thirds, fl::deduplicated_exchange<>>());
}

TEST_CASE("Parameters that are materialised just before use equal the reference") {
  equals_reference(compose<fl::contiguous_placement, fl::sole_replica, fl::exchange<>, sliced_parameters>());
}

TEST_CASE("Two overlapped chunks with two live records equal the reference") {
  equals_reference(compose(), two_chunk_pipeline{});
  equals_reference(compose<fl::contiguous_placement, fl::sole_replica, fl::deduplicated_exchange<>>(), two_chunk_pipeline{});
}

TEST_CASE("Each of two live records differentiates its own auxiliary loss") {
  fl::moe_layer const layer{.gate = fl::linear_gate<>{.width = sizes.width, .experts = sizes.experts},
                            .router = fl::top_k{.experts = sizes.experts, .k = sizes.fan_out},
                            .signal = fl::z_loss{.coefficient = 0.5},
                            .expert = fl::dense_ffn<float>{.width = sizes.width, .hidden = sizes.hidden}};
  auto const in = layer_test::problem_of(layer, sizes);
  for (index_t const ranks : {1, 2}) {
    CAPTURE(ranks);
    auto const piped = layer_test::run(fl::serial{}, layer, in, ranks, two_chunk_pipeline{});
    auto const apart = layer_test::run(fl::serial{}, layer, in, ranks, two_chunks_in_turn{});
    auto const far = [](auto const& a, auto const& b) { return reference::distance(a, std::vector<double>(b.begin(), b.end())); };
    CHECK(far(piped.grad_tokens, apart.grad_tokens) < rounding);
    CHECK(far(piped.ranks[0].grad_gate, apart.ranks[0].grad_gate) < rounding);
  }
}

TEST_CASE("Replicas, split tokens, materialised parameters and a pipeline together equal the reference") {
  equals_reference(compose<doubled_even_experts, uneven_thirds, fl::exchange<>, sliced_parameters>(), two_chunk_pipeline{});
}

TEST_CASE("A token that has several experts on one rank crosses the wire once when deduplicated") {
  auto const row_bytes = [](auto const& layer, bool combine_too) {
    auto const in = layer_test::problem_of(layer, sizes);
    fl::inproc::world world{2};
    auto const bytes = world.run([&](fl::inproc::communicator inner) {
      fl::counted<fl::inproc::communicator> comm(inner);
      auto state = layer.make_state(fl::serial{}, comm, {.max_tokens = sizes.tokens, .seed = layer_test::seed});
      auto record = layer.make_record(state);
      fl::matrix<float> tokens(sizes.tokens, sizes.width), out(sizes.tokens, sizes.width);
      for (index_t i = 0; i < sizes.tokens * sizes.width; ++i) { tokens.data()[i] = static_cast<float>(in.tokens[static_cast<std::size_t>(i)]); }
      layer.route(state, std::as_const(tokens).view(), record, layer.default_context(state, fl::phase::train));
      layer.plan(state, record);
      comm.counters().reset();
      layer.start_dispatch(state, record);
      layer.finish_dispatch(state, record);
      if (combine_too) {
        layer.compute(state, record);
        layer.start_combine(state, record);
        layer.finish_combine(state, record, out.view());
      }
      // The rows a token needs on the other rank: one for each copy, or one in all.
      index_t copies = 0, pairs = 0;
      auto const routed = std::as_const(record.routing).view();
      for (index_t t = 0; t < sizes.tokens; ++t) {
        index_t there = 0;
        for (index_t j = 0; j < sizes.fan_out; ++j) { there += (fl::to_index(routed.experts(t, j)) >= 3) != (comm.rank() == 1) ? 1 : 0; }
        copies += there;
        pairs += there > 0 ? 1 : 0;
      }
      index_t const row = sizes.width * static_cast<index_t>(sizeof(float));
      return std::array<index_t, 3>{comm.counters().total().bytes_out, copies * row, pairs * row};
    });
    return bytes;
  };
  auto const plain = row_bytes(compose(), false);
  auto const once = row_bytes(compose<fl::contiguous_placement, fl::sole_replica, fl::deduplicated_exchange<>>(), false);
  for (std::size_t rank = 0; rank < 2; ++rank) {
    CHECK(plain[rank][0] == plain[rank][1]);
    CHECK(once[rank][0] == once[rank][2]);
    CHECK(once[rank][0] < plain[rank][0]);
  }
  auto const both_ways = row_bytes(compose<fl::contiguous_placement, fl::sole_replica, fl::deduplicated_exchange<>>(), true);
  CHECK(both_ways[0][0] == both_ways[0][2] + both_ways[1][2]);
}
