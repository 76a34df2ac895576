// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The kit holds our signals, and finds planted violations.
#include <fairlead/balance/load_balance_loss.hpp>
#include <fairlead/balance/signals.hpp>
#include <fairlead/balance/z_loss.hpp>
#include <fairlead/laws/balance_signal.hpp>

#include "support/catch.hpp"

#include <string>

namespace fl = fairlead;
using fl::index_t;

namespace {

enum class fault { none, factor, sign, assigns, loss_scaled, constant_loss, padding, forgets_nothing, collapse };

// A right signal with one planted fault.
template <fault Fault>
struct planted {
  fl::load_balance_loss<fl::softmax_share, fl::global_batch_scope> inner{.coefficient = 1.0};
  auto make_state(index_t experts) const { return inner.make_state(experts); }
  void accumulate(std::span<index_t const> counts, index_t tokens, fl::load_balance_state& state) const {
    inner.accumulate(counts, tokens, state);
  }
  template <fl::execution_backend Backend>
  double add_gradient(Backend const& on, fl::matrix_view<float const> logits, fl::const_routing_view routing,
                      fl::route_context const& context, fl::load_balance_state const& state, double scale,
                      fl::matrix_view<float> grad, fl::workspace& ws) const {
    auto seen = context;
    if (Fault == fault::padding) { seen.token_mask = {}; }
    if (Fault == fault::assigns) {
      for (index_t t = 0; t < grad.rows(); ++t) { std::fill_n(grad.row(t), grad.cols(), 0.0F); }
    }
    double const factor = Fault == fault::factor ? 1.1 : (Fault == fault::sign || Fault == fault::collapse ? -1.0 : 1.0);
    double const loss = inner.add_gradient(on, logits, routing, seen, state, scale * factor, grad, ws);
    if (Fault == fault::loss_scaled) { return loss * scale; }
    if (Fault == fault::constant_loss) { return logits.rows() == 0 ? 0.0 : 1.0; }
    return Fault == fault::collapse ? -loss : loss;
  }
  void end_global_batch(fl::load_balance_state& state) const {
    if (Fault != fault::forgets_nothing) { inner.end_global_batch(state); }
  }
  std::size_t workspace_bytes(index_t tokens, index_t experts) const { return inner.workspace_bytes(tokens, experts); }
};

template <fault Fault>
std::string reason(bool even_is_best = true) {
  return fl::laws::check_balance_signal(planted<Fault>{}, {.even_is_best = even_is_best}).reason();
}
bool names(std::string const& text, std::string const& law) {
  INFO(text);
  bool const found = text.find(law) != std::string::npos;
  CHECK(found);
  return found;
}

}  // namespace

TEST_CASE("every signal of the library keeps the laws", "[balance][laws]") {
  for (index_t experts : {2, 3, 6, 9}) {
    for (index_t fan_out = 1; fan_out < std::min<index_t>(experts, 4); ++fan_out) {
      for (std::uint64_t seed = 1; seed < 4; ++seed) {
        fl::laws::balance_signal_problem const even{
            .tokens = 11, .experts = experts, .fan_out = fan_out, .seed = seed, .even_is_best = true};
        fl::laws::balance_signal_problem any = even;
        any.even_is_best = false;
        CHECK(fl::laws::check_balance_signal(fl::switch_loss{.coefficient = 1.0}, even));
        CHECK(fl::laws::check_balance_signal(fl::load_balance_loss<fl::sigmoid_share>{.coefficient = 0.1}, even));
        CHECK(fl::laws::check_balance_signal(
            fl::load_balance_loss<fl::softmax_share, fl::sequence_scope>{.coefficient = 1.0, .scope = {.length = 4}}, any));
        CHECK(fl::laws::check_balance_signal(
            fl::load_balance_loss<fl::sigmoid_share, fl::global_batch_scope>{.coefficient = 1.0}, even));
        CHECK(fl::laws::check_balance_signal(fl::z_loss{}, any));
        CHECK(fl::laws::check_balance_signal(fl::all_of(fl::switch_loss{}, fl::z_loss{}), any));
      }
    }
  }
}

TEST_CASE("the kit finds each planted violation and names the law", "[balance][laws]") {
  CHECK(reason<fault::none>().empty());
  CHECK(names(reason<fault::factor>(), "equals differences"));
  CHECK(names(reason<fault::sign>(), "equals differences"));
  CHECK(names(reason<fault::constant_loss>(), "equals differences"));
  CHECK(names(reason<fault::assigns>(), "added to what is there"));
  CHECK(names(reason<fault::loss_scaled>(), "does not depend on scale"));
  CHECK(names(reason<fault::padding>(), "padded rows"));
  CHECK(names(reason<fault::forgets_nothing>(), "forgets the batch"));
  CHECK(names(reason<fault::collapse>(), "even routing costs less"));
  CHECK(reason<fault::collapse>(false).empty());
}
