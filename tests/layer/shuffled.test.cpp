// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Layers whose tokens are exchanged at random between ranks, and BASE: balanced assignment inside of one.
#include <fairlead/comm/alone.hpp>
#include <fairlead/core/initial_values.hpp>
#include <fairlead/layer/shuffled.hpp>
#include <fairlead/optim/adamw.hpp>
#include <fairlead/optim/clip_by_norm.hpp>
#include <fairlead/route/balanced_choice.hpp>

#include "layer/support.hpp"
#include "route/small_exact_solver.hpp"
#include "support/catch.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <set>
#include <vector>

namespace fl = fairlead;
using fl::index_t;

namespace {

constexpr double rounding = 2e-5;

template <class Router>
auto compose(Router router, index_t width, index_t hidden) {
  return fl::shuffled{.layer = fl::moe_layer{.gate = fl::linear_gate<>{.width = width, .experts = router.experts()},
                                             .router = router,
                                             .expert = fl::dense_ffn<float>{.width = width, .hidden = hidden}}};
}

using base_router = fl::balanced_choice<small::exact_solver, fl::priced_evaluation>;

fl::matrix<float> rows_of(std::vector<double> const& values, index_t first, index_t count, index_t width) {
  fl::matrix<float> made(count, width);
  for (index_t i = 0; i < count * width; ++i) { made.data()[i] = static_cast<float>(values[static_cast<std::size_t>(first * width + i)]); }
  return made;
}

index_t first_of(std::vector<index_t> const& counts, index_t rank) {
  return std::accumulate(counts.begin(), counts.begin() + rank, index_t{0});
}

}  // namespace

TEST_CASE("A causal layer computes the same with and without the exchange, outputs and gradients, on ragged ranks") {
  auto const layer = compose(fl::top_k{.experts = 6, .k = 2}, 5, 7);
  auto const in = layer_test::problem_of(layer.layer, {.tokens = 41, .width = 5, .hidden = 7, .experts = 6, .fan_out = 2});
  auto const want = reference::solve(in);
  for (index_t const ranks : {1, 2, 3, 4, 8}) {
    CAPTURE(ranks);
    CHECK(layer_test::distance(layer_test::run(fl::serial{}, layer, in, ranks), want) < rounding);
  }
}

TEST_CASE("Every rank sees an even share of the tokens of all ranks, with their ids and masks, and evaluation moves nothing") {
  auto const layer = compose(fl::top_k{.experts = 4, .k = 1}, 3, 4);
  std::vector<index_t> const counts{30, 0, 7, 22};  // 59
  struct seen {
    std::vector<std::int32_t> ids, again, other_step;
    bool rows_match = true, masks_match = true, evaluates_own = true;
    index_t first_token = 0;
  };
  fl::inproc::world world{4};
  auto const results = world.run([&](fl::inproc::communicator comm) {
    index_t const first = first_of(counts, comm.rank()), count = counts[static_cast<std::size_t>(comm.rank())];
    fl::matrix<float> tokens(count, 3), output(count, 3);
    std::vector<std::int32_t> ids;
    std::vector<std::uint8_t> mask;
    for (index_t t = 0; t < count; ++t) {
      ids.push_back(static_cast<std::int32_t>(first + t));
      mask.push_back((first + t) % 5 == 0 ? 0 : 1);
      tokens(t, 0) = static_cast<float>(first + t);
    }
    auto state = layer.make_state(fl::serial{}, comm, {.max_tokens = 30, .seed = 3});
    auto record = layer.make_record(state);
    seen mine;
    auto const look = [&](fl::phase why, std::uint64_t step) {
      (void)layer.forward(state, std::as_const(tokens).view(), output.view(), record,
                          {.phase = why, .seed = 9, .step = step, .first_token = first, .token_mask = mask, .token_ids = ids});
      auto const inside = record.inner.context.token_ids;
      return std::vector<std::int32_t>(inside.begin(), inside.end());
    };
    mine.ids = look(fl::phase::train, 1);
    for (std::size_t i = 0; i < mine.ids.size(); ++i) {
      mine.rows_match = mine.rows_match && record.inner.tokens(static_cast<index_t>(i), 0) == static_cast<float>(mine.ids[i]);
      mine.masks_match = mine.masks_match && record.inner.context.token_mask[i] == (mine.ids[i] % 5 == 0 ? 0 : 1);
    }
    mine.first_token = record.inner.context.first_token;
    mine.again = look(fl::phase::recompute, 1);
    mine.other_step = look(fl::phase::train, 2);
    mine.evaluates_own = look(fl::phase::evaluate, 1) == ids && !record.exchanged;
    return mine;
  });
  std::multiset<std::int32_t> all;
  index_t expected_first = 0;
  bool moved = false;
  for (std::size_t r = 0; r < 4; ++r) {
    auto const& mine = results[r];
    CHECK(static_cast<index_t>(mine.ids.size()) == (r < 3 ? 15 : 14));
    CHECK(mine.rows_match);
    CHECK(mine.masks_match);
    CHECK(mine.evaluates_own);
    CHECK(mine.again == mine.ids);
    moved = moved || mine.other_step != mine.ids;
    CHECK(mine.first_token == expected_first);
    expected_first += static_cast<index_t>(mine.ids.size());
    all.insert(mine.ids.begin(), mine.ids.end());
    // Each source gives its even part.
    CHECK(std::count_if(mine.ids.begin(), mine.ids.end(), [](std::int32_t id) { return id < 30; }) >= 7);
  }
  CHECK(moved);
  CHECK(all.size() == 59);
  CHECK(std::set<std::int32_t>(all.begin(), all.end()).size() == 59);
}

TEST_CASE("Where a token goes is random over steps: each rank gets it about equally often") {
  auto const layer = compose(fl::top_k{.experts = 2, .k = 1}, 2, 2);
  fl::inproc::world world{4};
  constexpr index_t steps = 400;
  auto const visits = world.run([&](fl::inproc::communicator comm) {
    fl::matrix<float> tokens(8, 2), output(8, 2);
    auto state = layer.make_state(fl::serial{}, comm, {.max_tokens = 8, .seed = 3});
    auto record = layer.make_record(state);
    std::vector<std::int32_t> ids(8);
    std::iota(ids.begin(), ids.end(), static_cast<std::int32_t>(8 * comm.rank()));
    std::vector<index_t> seen(32, 0);
    for (std::uint64_t step = 0; step < steps; ++step) {
      (void)layer.forward(state, std::as_const(tokens).view(), output.view(), record, {.seed = 1, .step = step, .token_ids = ids});
      for (std::int32_t const id : record.inner.context.token_ids) { ++seen[static_cast<std::size_t>(id)]; }
    }
    return seen;
  });
  for (auto const& rank : visits) {
    for (index_t const count : rank) { CHECK(std::abs(static_cast<double>(count) - 100.0) < 45.0); }  // over 5 deviations
  }
}

TEST_CASE("Ids on some ranks only are refused, but a rank without tokens needs none") {
  auto const layer = compose(fl::top_k{.experts = 2, .k = 1}, 2, 2);
  for (bool const complete : {true, false}) {
    fl::inproc::world world{3};
    auto const attempt = [&] {
      return world.run([&](fl::inproc::communicator comm) {
        index_t const count = comm.rank() == 1 ? 0 : 4;
        fl::matrix<float> tokens(count, 2), output(count, 2);
        std::vector<std::int32_t> const ids(static_cast<std::size_t>(comm.rank() == 2 && !complete ? 0 : count), 1);
        auto state = layer.make_state(fl::serial{}, comm, {.max_tokens = 4});
        auto record = layer.make_record(state);
        return layer.forward(state, std::as_const(tokens).view(), output.view(), record, {.token_ids = ids}).tokens;
      });
    };
    if (complete) {
      CHECK(attempt() == std::vector<index_t>{8, 8, 8});
    } else {
      CHECK_THROWS_AS(attempt(), fl::contract_violation);
    }
  }
}

TEST_CASE("BASE: loads are exactly tokens / experts, and output and gradients are those of a plain layer in double precision") {
  constexpr index_t width = 6, hidden = 9, experts = 5, total = 120;  // experts are no multiple of ranks
  auto const layer = compose(base_router{.experts = experts}, width, hidden);
  reference::sizes const size{.tokens = total, .width = width, .hidden = hidden, .experts = experts, .fan_out = 1};
  auto const in = layer_test::problem_of(layer.layer, size);
  for (index_t const ranks : {1, 2, 4}) {
    CAPTURE(ranks);
    // Even after the exchange: 120, 60 or 30 tokens a rank.
    std::vector<index_t> const counts = ranks == 1 ? std::vector<index_t>{120} : ranks == 2 ? std::vector<index_t>{100, 20} : std::vector<index_t>{50, 0, 60, 10};
    struct seen {
      layer_test::rank_result result;
      std::vector<std::pair<std::int32_t, index_t>> assigned;  // token, expert
      std::vector<index_t> loads;
    };
    fl::inproc::world world{ranks};
    auto const results = world.run([&](fl::inproc::communicator comm) {
      index_t const first = first_of(counts, comm.rank()), count = counts[static_cast<std::size_t>(comm.rank())];
      auto const tokens = rows_of(in.tokens, first, count, width), grad_out = rows_of(in.grad_out, first, count, width);
      fl::matrix<float> out(count, width), grad_tokens(count, width);
      std::vector<std::int32_t> ids(static_cast<std::size_t>(count));
      std::iota(ids.begin(), ids.end(), static_cast<std::int32_t>(first));
      auto state = layer.make_state(fl::serial{}, comm, {.max_tokens = total, .seed = layer_test::seed});
      auto record = layer.make_record(state);
      seen mine;
      mine.result.report = layer.forward(state, tokens.view(), out.view(), record, {.seed = 4, .step = 2, .first_token = first, .token_ids = ids});
      mine.loads = state.inner.totals;
      for (index_t t = 0; t < record.inner.routing.tokens(); ++t) {
        auto const where = std::as_const(record.inner.routing).view().experts(t, 0);
        mine.assigned.emplace_back(record.inner.context.token_ids.empty() ? static_cast<std::int32_t>(t) : record.inner.context.token_ids[static_cast<std::size_t>(t)], fl::to_index(where));
      }
      layer.backward(state, record, grad_out.view(), grad_tokens.view());
      layer.reduce_gradients(state);
      layer_test::collect_parameters(layer, state, mine.result);
      mine.result.out.assign(out.span().begin(), out.span().end());
      mine.result.grad_tokens.assign(grad_tokens.span().begin(), grad_tokens.span().end());
      return mine;
    });

    // The plain layer, for the assignment that was found.
    reference::result want;
    want.out.assign(total * width, 0.0);
    want.grad_tokens.assign(total * width, 0.0);
    want.grad_gate.assign(experts * width, 0.0);
    want.grad_experts.assign(experts, std::vector<double>(in.experts[0].size(), 0.0));
    std::set<std::int32_t> served;
    for (auto const& rank : results) {
      std::vector<index_t> own(experts, 0);
      for (auto const& [token, e] : rank.assigned) {
        REQUIRE(e >= 0);
        served.insert(token);
        ++own[static_cast<std::size_t>(e)];
        auto const t = static_cast<std::size_t>(token), at = static_cast<std::size_t>(e);
        double const* const x = in.tokens.data() + t * width;
        double const* const grad = in.grad_out.data() + t * width;
        double logit = 0.0;
        for (std::size_t d = 0; d < width; ++d) { logit += in.gate[at * width + d] * x[d]; }
        double const alpha = 1.0 / (1.0 + std::exp(-logit));
        std::array<double, width> y{}, grad_y{};
        reference::expert(size, in.experts[at].data(), x, y.data(), nullptr, nullptr, nullptr);
        double slope = 0.0;
        for (std::size_t d = 0; d < width; ++d) {
          want.out[t * width + d] = alpha * y[d];
          grad_y[d] = alpha * grad[d];
          slope += grad[d] * y[d];
        }
        slope *= alpha * (1.0 - alpha);
        reference::expert(size, in.experts[at].data(), x, nullptr, grad_y.data(), want.grad_tokens.data() + t * width, want.grad_experts[at].data());
        for (std::size_t d = 0; d < width; ++d) {
          want.grad_gate[at * width + d] += slope * x[d];
          want.grad_tokens[t * width + d] += slope * in.gate[at * width + d];
        }
      }
      CHECK(own == std::vector<index_t>(experts, total / ranks / experts));
      CHECK(rank.loads == std::vector<index_t>(experts, total / experts));
      CHECK(rank.result.report.imbalance() == 1.0);
    }
    CHECK(served.size() == static_cast<std::size_t>(total));
    layer_test::collected all;
    for (auto const& rank : results) {
      all.out.insert(all.out.end(), rank.result.out.begin(), rank.result.out.end());
      all.grad_tokens.insert(all.grad_tokens.end(), rank.result.grad_tokens.begin(), rank.result.grad_tokens.end());
      all.ranks.push_back(rank.result);
    }
    CHECK(layer_test::distance(all, want) < rounding);
  }
}

namespace {

constexpr index_t wide = 8, batch = 96, kinds = 4;

// Tokens of four kinds, each with a linear map of its own; `unequal` kinds of very different frequency.
struct task {
  fl::matrix<float> tokens{batch, wide}, targets{batch, wide};
  task() {
    for (index_t t = 0; t < batch; ++t) {
      index_t const kind = t % 8 < 4 ? 0 : t % kinds;
      for (index_t c = 0; c < wide; ++c) {
        auto const centre = static_cast<float>(fl::philox::normal(1, static_cast<std::uint64_t>(kind), static_cast<std::uint64_t>(c)));
        tokens(t, c) = centre + 0.5F * static_cast<float>(fl::philox::normal(2, 0, static_cast<std::uint64_t>(t * wide + c)));
      }
      for (index_t r = 0; r < wide; ++r) {
        double sum = 0.0;
        for (index_t c = 0; c < wide; ++c) {
          sum += fl::philox::normal(3, static_cast<std::uint64_t>(kind), static_cast<std::uint64_t>(r * wide + c)) * static_cast<double>(tokens(t, c));
        }
        targets(t, r) = static_cast<float>(sum / std::sqrt(static_cast<double>(wide)));
      }
    }
  }
};

struct course {
  std::vector<double> losses;
  bool even = true;        // every training step
  bool starts_as_identity = true;
  double evaluated = 0.0;  // load of the busiest expert over the mean, frozen prices
  fl::balanced_prices prices;
  std::vector<float> gate;
};

// y = x + layer(x), as in BASE: centroids orthogonal with gain 0.1, second matrices zero, clipping by shared gradients.
course train_base(index_t ranks, index_t steps) {
  auto const layer = compose(base_router{.experts = 6, .evaluation = {.keep = 0.8}}, wide, 16);
  task const all;
  std::vector<index_t> const counts = ranks == 1 ? std::vector<index_t>{96} : ranks == 2 ? std::vector<index_t>{70, 26} : std::vector<index_t>{40, 0, 36, 20};
  fl::inproc::world world{ranks};
  auto results = world.run([&](fl::inproc::communicator comm) {
    fl::serial const on;
    course mine;
    index_t const first = first_of(counts, comm.rank()), count = counts[static_cast<std::size_t>(comm.rank())];
    auto const tokens = all.tokens.view().rows(first, count);
    auto state = layer.make_state(on, comm, {.max_tokens = batch, .seed = 11});
    auto record = layer.make_record(state);
    fl::adamw const optimizer{.rate = 1e-2};
    std::vector<fl::adamw_state<float, fl::host_space>> moments;
    layer.each_parameter(state, [&](fl::parameter_array<float> const& p) {
      if (p.scope == fl::parameter_scope::expert) {
        fl::fill(fl::named_block(*p.layout, "down", p.values), 0.0F);
      } else {
        fl::orthogonalise(fl::named_block(*p.layout, "gate", p.values), 0.1);
      }
      moments.push_back(optimizer.make_state<float>(on, static_cast<index_t>(p.values.size())));
    });
    fl::matrix<float> output(count, wide), grad(count, wide), grad_tokens(count, wide);
    for (index_t step = 1; step <= steps; ++step) {
      auto const report = layer.forward(state, tokens, output.view(), record);
      mine.even = mine.even && report.imbalance() == 1.0 && report.tokens == batch;
      std::array<double, 1> loss{0.0};
      for (index_t t = 0; t < count; ++t) {
        for (index_t c = 0; c < wide; ++c) {
          if (step == 1) { mine.starts_as_identity = mine.starts_as_identity && output(t, c) == 0.0F; }
          float const error = tokens(t, c) + output(t, c) - all.targets(first + t, c);
          loss[0] += 0.5 * static_cast<double>(error) * static_cast<double>(error) / batch;
          grad(t, c) = error / static_cast<float>(batch);
        }
      }
      comm.all_reduce(on, std::span<double>(loss), fl::reduction::sum).wait();
      mine.losses.push_back(loss[0]);
      layer.backward(state, record, std::as_const(grad).view(), grad_tokens.view());
      layer.reduce_gradients(state);
      std::vector<fl::gradient_array<float>> arrays;
      layer.each_parameter(state, [&](fl::parameter_array<float> const& p) {
        arrays.push_back({p.gradients, p.scope == fl::parameter_scope::replicated});
      });
      (void)fl::clip_by_norm{.limit = 0.1}(on, comm, std::span<fl::gradient_array<float> const>(arrays));
      std::size_t array = 0;
      layer.each_parameter(state, [&](fl::parameter_array<float> const& p) {
        optimizer.update(on, *p.layout, p.values, p.gradients, moments[array++], step);
      });
      layer.zero_gradients(state);
      layer.end_global_batch(state);
    }
    auto const report = layer.forward(state, tokens, output.view(), record, layer.default_context(state, fl::phase::evaluate));
    mine.evaluated = report.imbalance();
    mine.prices = state.inner.router;
    mine.gate.assign(state.inner.gate.values.span().begin(), state.inner.gate.values.span().end());
    return mine;
  });
  for (auto const& r : results) {
    CHECK(r.gate == results[0].gate);
    CHECK(r.prices.frozen == results[0].prices.frozen);
    CHECK(r.losses == results[0].losses);
    CHECK(r.even);
    CHECK(r.starts_as_identity);
  }
  return results[0];
}

}  // namespace

TEST_CASE("BASE learns over 1, 2 and 4 ranks with even loads at every step, starting as the identity") {
  for (index_t const ranks : {1, 2, 4}) {
    CAPTURE(ranks);
    auto const seen = train_base(ranks, 120);
    CAPTURE(seen.losses.front(), seen.losses.back(), seen.evaluated);
    CHECK(seen.losses.back() * 4.0 < seen.losses.front());
    CHECK(seen.prices.batches == 120);
    CHECK(seen.prices.fallbacks == 0);
    CHECK(seen.evaluated < 2.0);
  }
}
