// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The concept accepts a minimal model, and refuses models that lack one member or return the wrong type.
#include <fairlead/balance/exact_dual_bias.hpp>
#include <fairlead/balance/pid_bias.hpp>
#include <fairlead/balance/quantile_bias.hpp>
#include <fairlead/balance/sign_bias.hpp>
#include <fairlead/comm/alone.hpp>
#include <fairlead/comm/inproc.hpp>
#include <fairlead/concepts/bias_controller.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/route/biased_token_choice.hpp>

#include "support/catch.hpp"

#include <memory>

namespace fl = fairlead;

namespace {

struct minimal {
  int make_state(fl::index_t) const { return 0; }
  template <class Backend, class Comm>
  void end_global_batch(Backend const&, Comm&, std::span<fl::index_t const>, int&, std::span<float>) const {}
  std::size_t workspace_bytes(fl::index_t, fl::index_t, fl::index_t) const { return 0; }
};
struct no_state {
  template <class Backend, class Comm>
  void end_global_batch(Backend const&, Comm&, std::span<fl::index_t const>, int&, std::span<float>) const {}
  std::size_t workspace_bytes(fl::index_t, fl::index_t, fl::index_t) const { return 0; }
};
struct state_without_copies {
  std::unique_ptr<int> make_state(fl::index_t) const { return nullptr; }
  template <class Backend, class Comm>
  void end_global_batch(Backend const&, Comm&, std::span<fl::index_t const>, std::unique_ptr<int>&, std::span<float>) const {}
  std::size_t workspace_bytes(fl::index_t, fl::index_t, fl::index_t) const { return 0; }
};
struct no_end {
  int make_state(fl::index_t) const { return 0; }
  std::size_t workspace_bytes(fl::index_t, fl::index_t, fl::index_t) const { return 0; }
};
struct no_workspace {
  int make_state(fl::index_t) const { return 0; }
  template <class Backend, class Comm>
  void end_global_batch(Backend const&, Comm&, std::span<fl::index_t const>, int&, std::span<float>) const {}
};
struct wrong_result : minimal {
  template <class Backend, class Comm>
  bool end_global_batch(Backend const&, Comm&, std::span<fl::index_t const>, int&, std::span<float>) const { return true; }
};
struct moves_doubles : minimal {
  template <class Backend, class Comm>
  void end_global_batch(Backend const&, Comm&, std::span<fl::index_t const>, int&, std::span<double>) const {}
};
struct reads : minimal {
  template <class Backend>
  void accumulate(Backend const&, fl::matrix_view<float const>, fl::index_t, fl::route_context const&,
                  std::span<float const>, int&, fl::workspace&) const {}
};
struct reads_without_bias : minimal {
  template <class Backend>
  void accumulate(Backend const&, fl::matrix_view<float const>, fl::index_t, fl::route_context const&, int&,
                  fl::workspace&) const {}
};

template <class Controller>
constexpr bool models = fl::bias_controller_on<Controller, fl::serial, fl::alone>;

}  // namespace

TEST_CASE("a bias controller needs a state to copy, an end of the global batch, and to name its scratch") {
  STATIC_REQUIRE(models<minimal>);
  STATIC_REQUIRE_FALSE(models<no_state>);
  STATIC_REQUIRE_FALSE(models<state_without_copies>);
  STATIC_REQUIRE_FALSE(models<no_end>);
  STATIC_REQUIRE_FALSE(models<no_workspace>);
  STATIC_REQUIRE_FALSE(models<wrong_result>);
  STATIC_REQUIRE_FALSE(models<moves_doubles>);
}

TEST_CASE("reading scores is an opt-in") {
  STATIC_REQUIRE(models<reads>);
  STATIC_REQUIRE(fl::reads_scores_on<reads, fl::serial>);
  STATIC_REQUIRE_FALSE(fl::reads_scores_on<minimal, fl::serial>);
  STATIC_REQUIRE_FALSE(fl::reads_scores_on<reads_without_bias, fl::serial>);
}

TEST_CASE("the library's controllers model the concept, and routers learn only from those that read scores") {
  STATIC_REQUIRE(models<fl::frozen_bias>);
  STATIC_REQUIRE(models<fl::sign_bias>);
  STATIC_REQUIRE(models<fl::pid_bias>);
  STATIC_REQUIRE(models<fl::quantile_bias>);
  STATIC_REQUIRE(fl::bias_controller_on<fl::quantile_bias, fl::serial, fl::inproc::communicator>);
  STATIC_REQUIRE_FALSE(fl::reads_scores_on<fl::pid_bias, fl::serial>);
  using counts = fl::with_controller<fl::sigmoid_bias_top_k, fl::pid_bias>;
  using scores = fl::with_controller<fl::sigmoid_bias_top_k, fl::quantile_bias>;
  STATIC_REQUIRE(fl::has_collective_observe<counts, fl::serial, fl::alone>);
  STATIC_REQUIRE(fl::has_collective_observe<fl::sigmoid_bias_top_k, fl::serial, fl::alone>);
  STATIC_REQUIRE_FALSE(fl::has_observe<counts>);
  STATIC_REQUIRE_FALSE(fl::has_learning_route<counts, fl::serial>);
  STATIC_REQUIRE(fl::has_learning_route<scores, fl::serial>);
  STATIC_REQUIRE(std::is_same_v<fl::with_noise<scores, fl::fixed_noise>,
                                fl::with_controller<fl::with_noise<fl::sigmoid_bias_top_k, fl::fixed_noise>, fl::quantile_bias>>);
  STATIC_REQUIRE(fl::causal<scores>);
  // Only who learns from scores pays for them.
  scores const learner{.experts = 64, .k = 2};
  CHECK(learner.workspace_bytes(1000) >= 1000 * 64 * sizeof(float));
  CHECK(counts{.experts = 64, .k = 2}.workspace_bytes(1000) == fl::sigmoid_bias_top_k{.experts = 64, .k = 2}.workspace_bytes(1000));
}

TEST_CASE("a model of one's own moves the bias of a router") {
  fl::with_controller<fl::sigmoid_bias_top_k, minimal> const router{.experts = 4, .k = 1};
  auto state = router.make_state();
  fl::alone comm;
  router.observe(fl::serial{}, comm, std::vector<fl::index_t>{1, 2, 3, 4}, state);
  CHECK(state.values == std::vector<float>(4, 0.0F));
}
