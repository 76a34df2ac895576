// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Communicators that count or delay carry the same bits.
#include <fairlead/comm/counted.hpp>
#include <fairlead/comm/throttled.hpp>
#include <fairlead/dispatch/deduplicated_exchange.hpp>

#include "layer/support.hpp"
#include "support/catch.hpp"

#include <memory>

namespace fl = fairlead;
using fl::index_t;

namespace {

constexpr reference::sizes sizes{.tokens = 47, .width = 10, .hidden = 12, .experts = 5, .fan_out = 2};

template <class Dispatcher>
auto compose() {
  return fl::moe_layer{.gate = fl::linear_gate<>{.width = sizes.width, .experts = sizes.experts},
                       .router = fl::top_k{.experts = sizes.experts, .k = sizes.fan_out},
                       .dispatcher = Dispatcher{},
                       .expert = fl::dense_ffn<float>{.width = sizes.width, .hidden = sizes.hidden}};
}

// Time passes only while somebody sleeps.
struct idle_clock {
  std::shared_ptr<double> now = std::make_shared<double>(0.0);
  double now_s() const { return *now; }
  void sleep_until_s(double seconds) const { *now = seconds; }
};

struct counting {
  template <class Comm>
  fl::counted<Comm> operator()(Comm comm) const {
    return fl::counted<Comm>(comm);
  }
};
struct delaying {
  template <class Comm>
  fl::throttled<Comm, idle_clock> operator()(Comm comm) const {
    return {comm, {.alpha_s = 1e-3, .beta_s_per_byte = 1e-6}, idle_clock{}};
  }
};
struct counting_and_delaying {
  template <class Comm>
  auto operator()(Comm comm) const {
    return counting{}(delaying{}(comm));
  }
};

void same_bits(layer_test::collected const& got, layer_test::collected const& want) {
  CHECK(got.out == want.out);
  CHECK(got.grad_tokens == want.grad_tokens);
  for (std::size_t r = 0; r < want.ranks.size(); ++r) {
    CHECK(got.ranks[r].grad_gate == want.ranks[r].grad_gate);
    CHECK(got.ranks[r].grad_experts == want.ranks[r].grad_experts);
  }
}

}  // namespace

TEST_CASE("A layer computes the same bits over communicators that count and delay") {
  auto const layer = compose<fl::exchange<>>();
  auto const in = layer_test::problem_of(layer, sizes);
  for (index_t const ranks : {1, 3}) {
    CAPTURE(ranks);
    layer_test::whole_step const step;
    auto const want = layer_test::run(fl::serial{}, layer, in, ranks);
    CHECK(layer_test::distance(want, reference::solve(in)) < 2e-5);
    same_bits(layer_test::run(fl::serial{}, layer, in, ranks, step, counting{}), want);
    same_bits(layer_test::run(fl::serial{}, layer, in, ranks, step, delaying{}), want);
    same_bits(layer_test::run(fl::serial{}, layer, in, ranks, step, counting_and_delaying{}), want);
  }
}

TEST_CASE("The bytes that the step report states are those that a counting communicator sees") {
  auto const layer = compose<fl::exchange<>>();
  auto const in = layer_test::problem_of(layer, sizes);
  auto const counts = layer_test::ragged(sizes.tokens, 3);
  struct seen {
    index_t bytes = 0, stated = 0, exchanges = 0;
    double delay_s = 0.0;
  };
  fl::inproc::world world{3};
  auto const all = world.run([&](fl::inproc::communicator inner) {
    idle_clock const clock;
    fl::throttled<fl::inproc::communicator, idle_clock> const slow(inner, {.beta_s_per_byte = 1e-6}, clock);
    fl::counted<fl::throttled<fl::inproc::communicator, idle_clock>> comm(slow);
    auto state = layer.make_state(fl::serial{}, comm, {.max_tokens = sizes.tokens, .seed = layer_test::seed});
    auto record = layer.make_record(state);
    fl::matrix<float> tokens(counts[static_cast<std::size_t>(comm.rank())], sizes.width), out(tokens.rows(), sizes.width);
    for (index_t i = 0; i < tokens.rows() * sizes.width; ++i) { tokens.data()[i] = static_cast<float>(in.tokens[static_cast<std::size_t>(i)]); }
    comm.counters().reset();
    double const before = clock.now_s();
    auto const report = layer.forward(state, std::as_const(tokens).view(), out.view(), record);
    auto const& counters = comm.counters();
    return seen{counters.of(fl::collective::all_to_all_v).bytes_out, report.rows_crossing_bytes,
                counters.calls(fl::collective::all_to_all_v), clock.now_s() - before};
  });
  index_t bytes = 0;
  for (auto const& rank : all) {
    bytes += rank.bytes;
    CHECK(rank.exchanges == 2);
    CHECK(rank.delay_s >= 1e-6 * static_cast<double>(rank.bytes) * 0.999);
  }
  CHECK(bytes > 0);
  CHECK(bytes == all[0].stated);
}
