// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/comm/alone.hpp>
#include <fairlead/comm/inproc.hpp>
#include <fairlead/edge/lyapunov_linear.hpp>
#include <fairlead/edge/unmetered.hpp>
#include <fairlead/expert/gated_ffn.hpp>
#include <fairlead/laws/bias_controller.hpp>
#include <fairlead/laws/router.hpp>
#include <fairlead/layer/moe_layer.hpp>
#include <fairlead/layer/queue_biased_choice.hpp>
#include <fairlead/route/linear_gate.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "edge/slots.hpp"
#include "support/catch.hpp"

namespace fl = fairlead;
using fl::index_t;

namespace {

constexpr index_t experts = 8;

// Copies a rank, summed over global batches of one rank's program; `slow` is the rate of rank 1 of 4.
std::vector<double> shares_with(double slow, fl::queue_bias controller, int batches) {
  fl::queue_biased_choice const router{.experts = experts, .k = 2, .controller = controller};
  auto state = router.make_state();
  for (index_t r = 0; r < 4; ++r) { controller.measure(r, r == 1 ? slow : 1.0, 1.0, state.controller); }
  fl::arena<> memory(router.workspace_bytes(400));
  fl::routing routed(400, 2);
  std::vector<double> sums(4, 0.0);
  fl::alone comm;
  for (int batch = 0; batch < batches; ++batch) {
    fl::matrix<float> const logits = slots::softmax_scores(400, experts, 0.0, 6, static_cast<std::uint64_t>(batch));
    fl::workspace ws = memory.view();
    router.route(fl::serial{}, logits.view(), {}, state, routed.view(), ws);
    std::vector<index_t> counts(experts, 0);
    for (index_t t = 0; t < 400; ++t) {
      for (index_t k = 0; k < 2; ++k) { ++counts[static_cast<std::size_t>(routed.view().experts(t, k))]; }
    }
    router.observe(fl::serial{}, comm, counts, state);
    if (batch < batches / 2) { continue; }
    for (std::size_t e = 0; e < counts.size(); ++e) { sums[e / 2] += static_cast<double>(counts[e]); }
  }
  double total = 0.0;
  for (double const own : sums) { total += own; }
  for (double& own : sums) { own /= total; }
  return sums;
}

}  // namespace

TEST_CASE("the queue bias keeps the laws of bias controllers", "[edge]") {
  fl::alone comm;
  CHECK(fl::laws::check_bias_controller(fl::queue_bias{.utility = 20.0}, fl::serial{}, comm, {.tokens = 160}));
  fl::inproc::world world{3};
  std::vector<std::string> reasons(3);
  world.run([&](fl::inproc::communicator rank) {
    reasons[static_cast<std::size_t>(rank.rank())] =
        fl::laws::check_bias_controller(fl::queue_bias{.utility = 20.0}, fl::serial{}, rank, {.tokens = 160}).reason();
  });
  CHECK(reasons == std::vector<std::string>(3));
}

TEST_CASE("queue-biased choice is a router like others", "[edge]") {
  CHECK(fl::laws::check_router(fl::queue_biased_choice{.experts = experts, .k = 2, .controller = {.ranks = 4}},
                               {.tokens = 40, .seed = 4}));
}

TEST_CASE("a rank that serves at a quarter of the rate gets a quarter of the copies", "[edge]") {
  std::vector<double> const even = shares_with(1.0, {.ranks = 4, .utility = 10.0}, 40);
  for (double const own : even) { CHECK(own == Approx(0.25).margin(0.02)); }
  std::vector<double> const lagging = shares_with(0.25, {.ranks = 4, .utility = 10.0}, 200);
  CHECK(lagging[1] == Approx(0.25 / 3.25).margin(0.02));
  CHECK(lagging[0] == Approx(1.0 / 3.25).margin(0.03));
}

TEST_CASE("choosing by score and bias is the linear rule with ranks as servers", "[edge]") {
  // One expert a server, so that both see the same queues; V of the linear rule is V x mean load here.
  fl::queue_bias const controller{.utility = 2.0};
  auto state = controller.make_state(experts);
  std::vector<float> bias(experts, 0.0F);
  fl::alone comm;
  std::vector<index_t> const counts{40, 10, 5, 25, 0, 60, 30, 30};  // mean 25
  controller.end_global_batch(fl::serial{}, comm, counts, state, bias);
  std::vector<double> queues;
  for (index_t const own : counts) { queues.push_back(std::max(static_cast<double>(own) - 25.0, 0.0)); }
  CHECK(state.backlog == queues);

  fl::matrix<float> const scores = slots::softmax_scores(200, experts, 1.0, 3, 0);
  std::vector<double> const zeros(experts, 0.0);
  fl::slot_view const view{.scores = scores.view(), .backlog = queues, .energy_debt = zeros, .weights = {.utility = 50.0}, .fan_out = 3};
  std::vector<fl::expert_id> choice(600);
  std::vector<index_t> sent(experts);
  fl::arena<> memory(4096);
  fl::workspace ws = memory.view();
  fl::lyapunov_linear{}.route(view, fl::unmetered(std::vector<double>(experts, 25.0)), fl::ties_by_id{}, {choice.data(), 200, 3}, sent, ws);
  for (index_t t = 0; t < 200; ++t) {
    std::vector<index_t> order{0, 1, 2, 3, 4, 5, 6, 7};
    std::sort(order.begin(), order.end(), [&](index_t a, index_t b) {
      float const first = scores(t, a) + bias[static_cast<std::size_t>(a)];
      float const second = scores(t, b) + bias[static_cast<std::size_t>(b)];
      return first != second ? first > second : a < b;
    });
    for (index_t k = 0; k < 3; ++k) { CHECK(fl::to_index(choice[static_cast<std::size_t>(3 * t + k)]) == order[static_cast<std::size_t>(k)]); }
  }
}

TEST_CASE("rates are gathered, smoothed, and served for the time between batches", "[edge]") {
  fl::queue_bias const controller{.ranks = 2, .utility = 1.0, .interval_ms = 10.0, .smoothing = 0.5};
  fl::inproc::world world{2};
  std::vector<fl::queue_bias::state_type> states(2);
  world.run([&](fl::inproc::communicator comm) {
    auto state = controller.make_state(4);
    controller.gather_rates(fl::serial{}, comm, comm.rank() == 0 ? 80.0 : 20.0, 10.0, state);
    controller.gather_rates(fl::serial{}, comm, comm.rank() == 0 ? 40.0 : 20.0, 10.0, state);
    std::vector<float> bias(4);
    std::vector<index_t> const counts{50, 50, 30, 10};
    controller.end_global_batch(fl::serial{}, comm, counts, state, bias);
    states[static_cast<std::size_t>(comm.rank())] = state;
  });
  for (auto const& state : states) {
    CHECK(state.copies_per_ms == std::vector<double>{6.0, 2.0});
    CHECK(state.backlog == std::vector<double>{40.0, 20.0});
    CHECK(state.rank_of == std::vector<std::int32_t>{0, 0, 1, 1});
  }
}

TEST_CASE("ranks without experts change nothing", "[edge]") {
  // Ranks 0 and 3 of 6 have no expert, and nobody measures them.
  fl::queue_bias const few{.ranks = 4};
  fl::queue_bias const many{.ranks = 6};
  auto few_state = few.make_state(4);
  auto many_state = many.make_state(4);
  CHECK(many_state.rank_of == std::vector<std::int32_t>{1, 2, 4, 5});
  for (index_t e = 0; e < 4; ++e) {
    few.measure(e, static_cast<double>(e + 1), 1.0, few_state);
    many.measure(many_state.rank_of[static_cast<std::size_t>(e)], static_cast<double>(e + 1), 1.0, many_state);
  }
  fl::alone comm;
  std::vector<float> few_bias(4), many_bias(4);
  for (std::uint64_t batch = 0; batch < 50; ++batch) {
    std::vector<index_t> counts(4, 0);
    for (std::uint64_t e = 0; e < 4; ++e) { counts[e] = static_cast<index_t>(fl::philox::below(fl::philox::draw(5, batch, e)[0], 9)); }
    few.end_global_batch(fl::serial{}, comm, counts, few_state, few_bias);
    many.end_global_batch(fl::serial{}, comm, counts, many_state, many_bias);
    CHECK(many_bias == few_bias);
    CHECK(*std::max_element(many_bias.begin(), many_bias.end()) == 0.0F);
  }
  CHECK(many_state.backlog[0] == 0.0);
  CHECK(many_state.arrivals[3] == 0.0);
}

TEST_CASE("a rank that served nothing in no time has nothing to say", "[edge]") {
  fl::queue_bias const controller{.ranks = 2};
  auto state = controller.make_state(4);
  controller.measure(0, 0.0, 0.0, state);
  CHECK(state.copies_per_ms[0] == 0.0);
  controller.measure(0, 6.0, 2.0, state);
  controller.measure(0, 0.0, 0.0, state);
  CHECK(state.copies_per_ms[0] == 3.0);
  CHECK_THROWS_AS(controller.measure(0, 0.0, -1.0, state), fl::contract_violation);
  CHECK_THROWS_AS(controller.measure(0, 1e308, 1e-308, state), fl::contract_violation);
  CHECK_THROWS_AS(controller.measure(0, 1.0, std::numeric_limits<double>::infinity(), state), fl::contract_violation);
  CHECK(state.copies_per_ms[0] == 3.0);
}

TEST_CASE("bad fields and measurements say what to do", "[edge]") {
  CHECK(slots::violation([] { (void)fl::queue_bias{.ranks = -1}.make_state(4); }).find("ranks") != std::string::npos);
  CHECK(slots::violation([] { (void)fl::queue_bias{.utility = 0.0}.make_state(4); }).find("V must be positive") != std::string::npos);
  CHECK(slots::violation([] { (void)fl::queue_bias{.smoothing = 0.0}.make_state(4); }).find("smoothing") != std::string::npos);
  fl::queue_bias const controller{.ranks = 2};
  auto state = controller.make_state(4);
  CHECK(slots::violation([&] { controller.measure(2, 1.0, 1.0, state); }).find("no such server") != std::string::npos);
  CHECK(slots::violation([&] { controller.measure(0, 1.0, 0.0, state); }).find("positive time") != std::string::npos);
  CHECK(slots::violation([&] { controller.measure(0, -1.0, 1.0, state); }).find("not negative") != std::string::npos);
  fl::alone comm;
  CHECK(slots::violation([&] { controller.gather_rates(fl::serial{}, comm, 1.0, 1.0, state); }).find("one rank a server") != std::string::npos);
}

TEST_CASE("a layer with queue-biased choice sends fewer copies to a rank that lags", "[edge]") {
  fl::inproc::world world{2};
  std::vector<double> shares(2);
  std::vector<double> backlogs(2);
  world.run([&](fl::inproc::communicator comm) {
    fl::moe_layer layer{.gate = fl::linear_gate{.width = 8, .experts = 4},
                        .router = fl::queue_biased_choice{.experts = 4, .k = 1, .controller = {.ranks = 2, .utility = 5.0}},
                        .expert = fl::gated_ffn<float>{.width = 8, .hidden = 4}};
    auto state = layer.make_state(fl::serial{}, comm, {.max_tokens = 64, .seed = 3});
    auto record = layer.make_record(state);
    layer.router.controller.gather_rates(fl::serial{}, comm, comm.rank() == 0 ? 30.0 : 10.0, 1.0, state.router.controller);
    fl::matrix<float> tokens(64, 8), output(64, 8);
    double own = 0.0, all = 0.0;
    for (std::uint64_t step = 0; step < 120; ++step) {
      for (index_t t = 0; t < 64; ++t) {
        for (index_t c = 0; c < 8; ++c) {
          tokens(t, c) = static_cast<float>(fl::philox::normal(9, step * 2 + static_cast<std::uint64_t>(comm.rank()), static_cast<std::uint64_t>(t * 8 + c)));
        }
      }
      (void)layer.forward(state, tokens.view(), output.view(), record);
      if (step >= 60) {
        own += static_cast<double>(state.global_counts[0] + state.global_counts[1]);
        all += 128.0;
      }
      layer.end_global_batch(state);
    }
    shares[static_cast<std::size_t>(comm.rank())] = own / all;
    backlogs[static_cast<std::size_t>(comm.rank())] = state.router.controller.backlog[1];
  });
  CHECK(shares[0] == shares[1]);
  CHECK(shares[0] == Approx(0.75).margin(0.05));
  CHECK(backlogs[0] == backlogs[1]);
  CHECK(backlogs[0] > 0.0);
}
