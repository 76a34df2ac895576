// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Two-stage routing as a composition: learns, distils, switches once, freezes, resumes; with balanced first stage,
// tokens exchanged between ranks, capacity at the receiver.
#include <fairlead/balance/distillation_loss.hpp>
#include <fairlead/balance/on_backbone.hpp>
#include <fairlead/balance/over_under_loss.hpp>
#include <fairlead/balance/signals.hpp>
#include <fairlead/balance/z_loss.hpp>
#include <fairlead/comm/alone.hpp>
#include <fairlead/layer/shuffled.hpp>
#include <fairlead/metrics/fluctuation.hpp>
#include <fairlead/optim/adamw.hpp>
#include <fairlead/route/balanced_choice.hpp>
#include <fairlead/route/distilled_gate.hpp>
#include <fairlead/route/two_stage.hpp>

#include "layer/support.hpp"
#include "route/small_exact_solver.hpp"
#include "support/catch.hpp"

#include <array>
#include <cmath>
#include <vector>

namespace fl = fairlead;
using fl::index_t;

namespace {

constexpr index_t width = 8, total = 96, vocabulary = 24, kinds = 4, experts = 4;
constexpr std::uint64_t switch_step = 60;

float normal(std::uint64_t stream, index_t i) { return static_cast<float>(fl::philox::normal(31, stream, static_cast<std::uint64_t>(i))); }

// Tokens of a step: ids at random, hidden states about the centre of the id, so that the best expert of an id wavers.
struct batch {
  std::vector<std::int32_t> ids;
  fl::matrix<float> tokens{total, width}, targets{total, width};
  explicit batch(std::uint64_t step) {
    for (index_t t = 0; t < total; ++t) {
      auto const word = fl::philox::draw(32, step, static_cast<std::uint64_t>(t))[0];
      ids.push_back(static_cast<std::int32_t>(word % static_cast<std::uint32_t>(vocabulary)));
      index_t const id = ids.back(), kind = id % kinds;
      for (index_t c = 0; c < width; ++c) { tokens(t, c) = normal(1, kind * width + c) + 0.3F * normal(2, id * width + c) + 0.3F * normal(1000 + step, t * width + c); }
      for (index_t r = 0; r < width; ++r) {
        float sum = 0.0F;
        for (index_t c = 0; c < width; ++c) { sum += normal(3, (kind * width + r) * width + c) * tokens(t, c); }
        targets(t, r) = sum / std::sqrt(static_cast<float>(width));
      }
    }
  }
};

template <class Features, class First = fl::top_k_sigmoid, class Dispatcher = fl::exchange<>>
auto compose(Features features, First first = {.experts = experts}, std::uint64_t turn = switch_step, Dispatcher dispatcher = {}) {
  return fl::moe_layer{.gate = fl::distilled_gate<Features>{.backbone = {.width = width, .experts = experts}, .features = features, .switch_step = turn},
                       .router = fl::two_stage<First>{.first = first, .switch_step = turn},
                       .signal = fl::all_of(fl::over_under_loss{.switch_step = turn}, fl::distillation_loss{.switch_step = turn}),
                       .dispatcher = dispatcher,
                       .expert = fl::gated_ffn<float>{.width = width, .hidden = 12}};
}
auto by_id(std::uint64_t turn = switch_step) { return compose(fl::token_embedding{.vocabulary = vocabulary, .width = 6}, fl::top_k_sigmoid{.experts = experts}, turn); }

// What a checkpoint holds: parameters and moments of this rank, updates done, step.
struct checkpoint {
  std::vector<std::vector<float>> values{}, first{}, second{};
  std::int64_t updates = 0;
  std::uint64_t step = 0;
};

// One rank of a training run.
template <class Layer, class Comm>
class trainer {
 public:
  trainer(Layer const& layer, Comm comm) : layer_(layer), comm_(comm), state_(layer.make_state(fl::serial{}, comm, {.max_tokens = total, .seed = 5})), record_(layer.make_record(state_)) {
    auto const counts = layer_test::ragged(total, comm.size());
    for (index_t r = 0; r < comm.rank(); ++r) { first_ += counts[static_cast<std::size_t>(r)]; }
    count_ = counts[static_cast<std::size_t>(comm.rank())];
    layer_.each_parameter(state_, [&](fl::parameter_array<float> const& p) {
      moments_.push_back(optimizer_.make_state<float>(fl::serial{}, static_cast<index_t>(p.values.size())));
    });
  }
  [[nodiscard]] auto& inner() {
    if constexpr (requires { state_.inner; }) { return state_.inner; } else { return state_; }
  }
  [[nodiscard]] auto& state() { return state_; }
  // Loss of the task and of the signals, over all ranks.
  std::array<double, 2> step() {
    batch const all(inner().step);
    fl::matrix<float> out(count_, width), grad(count_, width), grad_tokens(count_, width);
    auto context = layer_.default_context(state_, fl::phase::train);
    context.token_ids = std::span<std::int32_t const>(all.ids).subspan(static_cast<std::size_t>(first_), static_cast<std::size_t>(count_));
    report = layer_.forward(state_, all.tokens.view().rows(first_, count_), out.view(), record_, context);
    std::array<double, 2> losses{};
    for (index_t t = 0; t < count_; ++t) {
      for (index_t c = 0; c < width; ++c) {
        float const error = out(t, c) - all.targets(first_ + t, c);
        losses[0] += 0.5 * static_cast<double>(error) * static_cast<double>(error) / total;
        grad(t, c) = error / static_cast<float>(total);
      }
    }
    layer_.backward(state_, record_, std::as_const(grad).view(), grad_tokens.view());
    if constexpr (requires { record_.inner; }) { losses[1] = record_.inner.signal_loss; } else { losses[1] = record_.signal_loss; }
    comm_.all_reduce(fl::serial{}, std::span<double>(losses), fl::reduction::sum).wait();
    layer_.reduce_gradients(state_);
    ++updates_;
    std::size_t array = 0;
    layer_.each_parameter(state_, [&](fl::parameter_array<float> const& p) { optimizer_.update(fl::serial{}, *p.layout, p.values, p.gradients, moments_[array++], updates_); });
    layer_.zero_gradients(state_);
    layer_.end_global_batch(state_);
    return losses;
  }
  // Experts and outputs of one token of each id, in evaluation.
  std::pair<std::vector<fl::expert_id>, std::vector<float>> experts_of_ids(std::uint64_t stream) {
    fl::matrix<float> tokens(vocabulary, width), out(vocabulary, width);
    std::vector<std::int32_t> ids;
    for (index_t id = 0; id < vocabulary; ++id) {
      ids.push_back(static_cast<std::int32_t>(id));
      for (index_t c = 0; c < width; ++c) { tokens(id, c) = normal(1, id % kinds * width + c) + 0.3F * normal(2, id * width + c) + 0.3F * normal(5000 + stream, id * width + c); }
    }
    auto context = layer_.default_context(state_, fl::phase::evaluate);
    context.token_ids = ids;
    auto seen = layer_.make_record(state_);
    (void)layer_.forward(state_, std::as_const(tokens).view(), out.view(), seen, context);
    auto const routed = [&] { if constexpr (requires { seen.inner; }) { return std::as_const(seen.inner.routing).view(); } else { return std::as_const(seen.routing).view(); } }();
    std::vector<fl::expert_id> result;
    for (index_t t = 0; t < vocabulary; ++t) { result.push_back(routed.experts(t, 0)); }
    return {result, std::vector<float>(out.span().begin(), out.span().end())};
  }
  [[nodiscard]] std::vector<float> block(index_t from) {
    auto const values = std::as_const(inner().gate.values).span();
    auto const& layout = inner().gate.layout;
    auto const backbone = static_cast<std::ptrdiff_t>(layout[0].size());
    return from == 0 ? std::vector<float>(values.begin(), values.begin() + backbone) : std::vector<float>(values.begin() + backbone, values.end());
  }
  [[nodiscard]] checkpoint save() {
    checkpoint saved{.updates = updates_, .step = inner().step};
    layer_.each_parameter(state_, [&](fl::parameter_array<float> const& p) { saved.values.emplace_back(p.values.begin(), p.values.end()); });
    for (auto const& m : moments_) {
      saved.first.emplace_back(m.first.span().begin(), m.first.span().end());
      saved.second.emplace_back(m.second.span().begin(), m.second.span().end());
    }
    return saved;
  }
  void restore(checkpoint const& saved) {
    std::size_t array = 0;
    layer_.each_parameter(state_, [&](fl::parameter_array<float> const& p) { std::copy(saved.values[array].begin(), saved.values[array].end(), p.values.begin()); ++array; });
    for (std::size_t i = 0; i < moments_.size(); ++i) {
      std::copy(saved.first[i].begin(), saved.first[i].end(), moments_[i].first.span().begin());
      std::copy(saved.second[i].begin(), saved.second[i].end(), moments_[i].second.span().begin());
    }
    updates_ = saved.updates;
    inner().step = saved.step;
  }
  fl::step_report report;

 private:
  Layer layer_;
  Comm comm_;
  typename Layer::template state_type<fl::serial, Comm> state_;
  typename Layer::template record_type<fl::serial, Comm> record_;
  fl::adamw optimizer_{.rate = 1e-2, .decay = 0.1};
  std::vector<fl::adamw_state<float, fl::host_space>> moments_;
  index_t first_ = 0, count_ = 0;
  std::int64_t updates_ = 0;
};

struct course {
  std::vector<double> task, signals;
  bool light_moved = true;       // every update of the first stage moved the light router
  bool light_kept = true;        // no update of the second stage did, by one bit
  bool backbone_moved = true;    // every update of both stages moved the backbone's centroids
  double flips_before = 0.0, flips_after = 1.0, after = 1.0;
  double agreement = 0.0;        // share of ids that both routers send to the same expert at the switch
  double first_stage_load = 0.0; // largest load over the mean in the first stage, worst step
  std::vector<float> gate;
};

template <class Layer>
course train(Layer const& layer, index_t ranks, std::uint64_t steps = 120) {
  fl::inproc::world world{ranks};
  auto const results = world.run([&](fl::inproc::communicator comm) {
    trainer<Layer, fl::inproc::communicator> run(layer, comm);
    course seen;
    fl::arena<> memory(fl::metrics::fluctuation_tracker::memory_bytes(vocabulary, 1));
    fl::workspace ws = memory.view();
    fl::metrics::fluctuation_tracker tracker(vocabulary, 1, ws);
    auto const look = [&](std::uint64_t stream) {
      auto ids = run.experts_of_ids(stream).first;
      fl::routing<> out(vocabulary, 1);
      for (index_t t = 0; t < vocabulary; ++t) {
        out.view().experts(t, 0) = ids[static_cast<std::size_t>(t)];
        out.view().weights(t, 0) = 1.0F;
      }
      tracker.observe(std::as_const(out).view());
      return ids;
    };
    for (std::uint64_t step = 0; step < steps; ++step) {
      std::vector<fl::expert_id> teacher;
      if (step == switch_step) {
        seen.flips_before = tracker.flips();
        tracker.restart();
      } else if (step + 1 == switch_step) {
        teacher = run.experts_of_ids(step).first;
      }
      auto const light = run.block(1), backbone = run.block(0);
      auto const losses = run.step();
      seen.task.push_back(losses[0]);
      seen.signals.push_back(losses[1]);
      bool const moved = run.block(1) != light;
      (step < switch_step ? seen.light_moved : seen.light_kept) &= step < switch_step ? moved : !moved;
      seen.backbone_moved &= run.block(0) != backbone;
      if (step < switch_step) { seen.first_stage_load = std::max(seen.first_stage_load, run.report.imbalance()); }
      auto const ids = look(step);
      if (step + 1 == switch_step) {  // evaluation is in the second stage now: compare with the first one's choice
        index_t same = 0;
        for (std::size_t i = 0; i < ids.size(); ++i) { same += ids[i] == teacher[i] ? 1 : 0; }
        seen.agreement = static_cast<double>(same) / static_cast<double>(vocabulary);
      }
    }
    seen.flips_after = tracker.flips();
    seen.after = tracker.share_after(0.0);
    auto const gate = std::as_const(run.inner().gate.values).span();
    seen.gate.assign(gate.begin(), gate.end());
    return seen;
  });
  for (auto const& r : results) {
    CHECK(r.gate == results[0].gate);
    CHECK(r.flips_after == results[0].flips_after);
  }
  return results[0];
}

void keeps_its_promises(course const& seen) {
  CAPTURE(seen.task.front(), seen.task.back(), seen.signals.front(), seen.signals[switch_step - 1], seen.agreement, seen.flips_before);
  CHECK(seen.task.back() < 0.5 * seen.task.front());
  CHECK(seen.signals[switch_step - 1] < 0.5 * seen.signals.front());
  CHECK(seen.agreement > 0.8);
  CHECK(seen.light_moved);
  CHECK(seen.light_kept);
  CHECK(seen.backbone_moved);
  for (std::size_t s = switch_step; s < seen.signals.size(); ++s) { CHECK(seen.signals[s] == 0.0); }
  CHECK(seen.flips_before > 0.0);
  CHECK(seen.flips_after == 0.0);
  CHECK(seen.after == 0.0);
}

}  // namespace

TEST_CASE("Two-stage routing learns on 1, 2 and 4 ranks: it distils, switches once, and the routing of an id never changes again") {
  for (index_t const ranks : {1, 2, 4}) {
    CAPTURE(ranks);
    keeps_its_promises(train(by_id(), ranks));
  }
}

TEST_CASE("Two-stage routing by pairs and by five ids in a row distils and freezes as well") {
  course const pairs = train(compose(fl::bigram_embedding{.vocabulary = vocabulary, .width = 6, .sequence_length = 8}), 2);
  CHECK(pairs.signals[switch_step - 1] < 0.8 * pairs.signals.front());
  CHECK((pairs.light_moved && pairs.light_kept && pairs.flips_after == 0.0));
  course const five = train(compose(fl::convolution_embedding{.vocabulary = vocabulary, .width = 6, .sequence_length = 8}), 2);
  CHECK(five.signals[switch_step - 1] < 0.8 * five.signals.front());
  CHECK((five.light_moved && five.light_kept && five.flips_after == 0.0));
}

TEST_CASE("A balanced first stage with tokens exchanged between ranks keeps loads even until the switch and is distilled by affinity") {
  using balanced = fl::balanced_choice<small::exact_solver>;
  for (index_t const ranks : {1, 2}) {
    CAPTURE(ranks);
    auto const layer = compose(fl::token_embedding{.vocabulary = vocabulary, .width = 6}, balanced{.experts = experts});
    course const seen = train(fl::shuffled<decltype(layer)>{layer}, ranks, 100);
    CAPTURE(seen.first_stage_load, seen.signals.front(), seen.signals[switch_step - 1]);
    CHECK(seen.first_stage_load < 1.001);
    CHECK(seen.signals[switch_step - 1] < 0.5 * seen.signals.front());
    CHECK(seen.light_kept);
    CHECK(seen.flips_after == 0.0);
  }
}

TEST_CASE("A run restored from parameters, moments and step goes on bit for bit, from either stage") {
  constexpr std::uint64_t turn = 12;
  auto const layer = by_id(turn);
  for (std::uint64_t const stop : {std::uint64_t{7}, turn - 1, turn, turn + 5}) {
    CAPTURE(stop);
    fl::inproc::world world{2};
    auto const equal = world.run([&](fl::inproc::communicator comm) {
      using run_type = trainer<std::remove_const_t<decltype(layer)>, fl::inproc::communicator>;
      run_type whole(layer, comm);
      checkpoint saved;
      for (std::uint64_t s = 0; s < turn + 10; ++s) {
        if (s == stop) { saved = whole.save(); }
        (void)whole.step();
      }
      run_type resumed(layer, comm);
      resumed.restore(saved);
      auto const before = resumed.experts_of_ids(1);
      for (std::uint64_t s = stop; s < turn + 10; ++s) { (void)resumed.step(); }
      bool const routes_on = stop < turn || before.first == resumed.experts_of_ids(2).first;
      return routes_on && whole.save().values == resumed.save().values && whole.experts_of_ids(3) == resumed.experts_of_ids(3);
    });
    for (bool const rank : equal) { CHECK(rank); }
  }
}

TEST_CASE("A recomputed pass of either stage gives the same bits") {
  constexpr std::uint64_t turn = 2;
  auto const layer = by_id(turn);
  auto state = layer.make_state(fl::serial{}, fl::alone{}, {.max_tokens = total, .seed = 1});
  auto record = layer.make_record(state), again = layer.make_record(state);
  batch const all(3);
  fl::matrix<float> out(total, width), repeated(total, width);
  for (int step = 0; step < 4; ++step) {
    auto context = layer.default_context(state, fl::phase::train);
    context.token_ids = all.ids;
    (void)layer.forward(state, all.tokens.view(), out.view(), record, context);
    context.phase = fl::phase::recompute;
    (void)layer.forward(state, all.tokens.view(), repeated.view(), again, context);
    CHECK(std::equal(out.span().begin(), out.span().end(), repeated.span().begin()));
    CHECK(state.step == static_cast<std::uint64_t>(step + 1));
    CHECK(state.trained_step == static_cast<std::uint64_t>(step));
  }
}

TEST_CASE("With a context of its own the step counts updates, however many passes an update has") {
  auto const layer = by_id(2);
  auto state = layer.make_state(fl::serial{}, fl::alone{}, {.max_tokens = total, .seed = 1});
  auto record = layer.make_record(state);
  batch const all(3);
  fl::matrix<float> out(total, width);
  for (std::uint64_t update = 0; update < 4; ++update) {
    for (int micro = 0; micro < 3; ++micro) {
      auto context = layer.default_context(state, fl::phase::train);
      context.step = update;
      context.token_ids = all.ids;
      (void)layer.forward(state, all.tokens.view(), out.view(), record, context);
    }
    index_t frozen = 0;
    layer.each_parameter(state, [&](fl::parameter_array<float> const& p) {
      for (auto const& block : p.layout->blocks()) { frozen += block.frozen ? 1 : 0; }
    });
    CHECK(frozen == (update < 2 ? 0 : 2));
  }
}

TEST_CASE("A layer whose gate and router change stage at different steps is refused") {
  auto layer = by_id(5);
  layer.router.switch_step = 6;
  CHECK_THROWS_AS(layer.make_state(fl::serial{}, fl::alone{}, {.max_tokens = 4, .seed = 1}), fl::contract_violation);
}

TEST_CASE("With capacity at the receiver an overflow token comes out of the residual block exactly as it went in") {
  auto const run = [](auto overflow, index_t ranks) {
    using exchange = fl::exchange<fl::stable_capacity, fl::token_order, decltype(overflow)>;
    auto const layer = compose(fl::token_embedding{.vocabulary = vocabulary, .width = 6}, fl::top_k_sigmoid{.experts = experts}, 1,
                               exchange{.capacity = {.factor = 0.1}});
    fl::inproc::world world{ranks};
    return world.run([&](fl::inproc::communicator comm) {
      auto state = layer.make_state(fl::serial{}, comm, {.max_tokens = total, .seed = 5});
      auto record = layer.make_record(state);
      batch const all(9 + static_cast<std::uint64_t>(comm.rank()));
      fl::matrix<float> out(total, width);
      struct outcome {
        double dropped = 0.0;
        index_t exact = 0, returned = 0;
      } seen;
      for (int stage = 0; stage < 2; ++stage) {
        auto context = layer.default_context(state, fl::phase::train);
        context.token_ids = all.ids;
        auto const report = layer.forward(state, all.tokens.view(), out.view(), record, context);
        seen.dropped += report.dropped_share() * static_cast<double>(total);
        auto const routed = std::as_const(record.routing).view();
        for (index_t t = 0; t < total; ++t) {
          bool zero = true, own = true, same = true;
          for (index_t c = 0; c < width; ++c) {
            float const h = all.tokens(t, c);
            zero = zero && out(t, c) == 0.0F;
            own = own && out(t, c) == routed.weights(t, 0) * h;
            same = same && h + out(t, c) == h;
          }
          seen.exact += zero && same ? 1 : 0;
          seen.returned += own ? 1 : 0;
        }
      }
      return seen;
    });
  };
  for (index_t const ranks : {1, 2}) {
    CAPTURE(ranks);
    auto const dropped = run(fl::drop{}, ranks);
    auto const returned = run(fl::identity{}, ranks);
    double shares = 0.0;
    index_t exact = 0, own = 0;
    for (auto const& r : dropped) {
      shares += r.dropped;
      exact += r.exact;
    }
    for (auto const& r : returned) { own += r.returned; }
    CHECK(std::abs(shares - static_cast<double>(exact)) < 1e-6 * shares);
    CHECK(exact > total / 4);
    CHECK(own == exact);
  }
}
