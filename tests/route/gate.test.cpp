// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "support/catch.hpp"

#include <fairlead/exec/serial.hpp>
#include <fairlead/laws/gate.hpp>
#include <fairlead/route/linear_gate.hpp>

namespace fl = fairlead;

namespace {
// linear_gate whose token gradient is half as large as it should be, or whose parameters' gradient is lost.
struct faulty_gate : fl::linear_gate<> {
  bool loses_parameters = false;
  template <class Backend>
  void backward(Backend const& on, std::span<float const> parameters, fl::matrix_view<float const> tokens,
                fl::matrix_view<float const> grad_logits, std::span<float> grad_parameters,
                fl::matrix_view<float> grad_tokens, fl::workspace& ws) const {
    fl::linear_gate<>::backward(on, parameters, tokens, grad_logits, grad_parameters, grad_tokens, ws);
    if (loses_parameters) {
      grad_parameters[3] = 0.0F;
    } else {
      grad_tokens(1, 2) += 1.0F;
    }
  }
};
}  // namespace

TEST_CASE("linear_gate keeps the laws of a gate") {
  CHECK(fl::laws::check_gate(fl::linear_gate<>{.width = 6, .experts = 4}, fl::serial{}, {}));
  CHECK(fl::laws::check_gate(fl::linear_gate<>{.width = 1, .experts = 1}, fl::serial{},
                             {.tokens = 1, .width = 1, .experts = 1}));
}

TEST_CASE("the law kit of gates names planted faults") {
  faulty_gate gate;
  gate.width = 6;
  gate.experts = 4;
  CHECK(fl::laws::check_gate(gate, fl::serial{}, {}).reason().find("of a token") != std::string::npos);
  gate.loses_parameters = true;
  CHECK(fl::laws::check_gate(gate, fl::serial{}, {}).reason().find("of a parameter") != std::string::npos);
}
