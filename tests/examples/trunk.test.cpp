// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "support/catch.hpp"

#include "common/trunk.hpp"

#include <fairlead/exec/gemm_reference.hpp>
#include <fairlead/exec/serial.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

namespace fl = fairlead;
using fl::index_t;
using trunk = language_model::trunk<double, fl::gemm::reference>;

namespace {

// Something non-linear in the place of the experts: y = tanh(1.5 x).
constexpr double slope = 1.5;

struct batch {
  std::vector<std::int32_t> contexts;
  std::vector<std::int32_t> targets;
};

batch make_batch(trunk const& model, index_t rows) {
  batch made;
  auto const word = [&](std::uint64_t i) {
    return static_cast<std::int32_t>(
        fl::philox::below(fl::philox::draw(5, 1, i)[0], static_cast<std::uint32_t>(model.vocabulary)));
  };
  for (index_t i = 0; i < rows * model.context; ++i) { made.contexts.push_back(word(static_cast<std::uint64_t>(i))); }
  for (index_t i = 0; i < rows; ++i) { made.targets.push_back(word(static_cast<std::uint64_t>(1000 + i))); }
  return made;
}

double loss(trunk const& model, std::span<double const> parameters, batch const& data, trunk::activations& kept) {
  fl::serial const on;
  auto const rows = static_cast<index_t>(data.targets.size());
  fl::matrix<double> output(rows, model.width);
  model.enter(on, parameters, data.contexts, kept);
  for (index_t i = 0; i < rows * model.width; ++i) { output.data()[i] = std::tanh(slope * kept.layer_input.data()[i]); }
  return model.leave(on, parameters, output.view(), data.targets, kept);
}

std::vector<double> gradient(trunk const& model, std::span<double const> parameters, batch const& data, double scale,
                             trunk::activations& kept) {
  fl::serial const on;
  auto const rows = static_cast<index_t>(data.targets.size());
  std::vector<double> made(parameters.size(), 0.0);
  static_cast<void>(loss(model, parameters, data, kept));
  fl::matrix<double> grad_output(rows, model.width), grad_input(rows, model.width);
  model.leave_backward(on, parameters, data.targets, scale, kept, made, grad_output.view());
  for (index_t i = 0; i < rows * model.width; ++i) {
    double const y = std::tanh(slope * kept.layer_input.data()[i]);
    grad_input.data()[i] = grad_output.data()[i] * slope * (1.0 - y * y);
  }
  model.enter_backward(on, parameters, data.contexts, grad_output.view(), grad_input.view(), kept, made);
  return made;
}

std::vector<double> random_parameters(trunk const& model) {
  auto const layout = model.parameter_layout();
  std::vector<double> values(static_cast<std::size_t>(layout.size()));
  // Every value random, gains and biases too: zeros would hide errors.
  for (std::size_t i = 0; i < values.size(); ++i) { values[i] = 0.4 * fl::philox::normal(3, 0, i); }
  return values;
}

}  // namespace

TEST_CASE("the gradient of every trunk parameter equals central differences", "[examples][trunk]") {
  trunk const model{.vocabulary = 11, .context = 3, .embedding = 4, .width = 6};
  batch const data = make_batch(model, 7);
  auto kept = model.make_activations(7);
  std::vector<double> parameters = random_parameters(model);
  double const scale = 0.25;
  std::vector<double> const analytic = gradient(model, parameters, data, scale, kept);
  double largest = 0.0;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    double const step = 1e-5, middle = parameters[i];
    parameters[i] = middle + step;
    double const above = loss(model, parameters, data, kept);
    parameters[i] = middle - step;
    double const below = loss(model, parameters, data, kept);
    parameters[i] = middle;
    double const numeric = scale * (above - below) / (2.0 * step);
    INFO("parameter " << i);
    REQUIRE(analytic[i] == Approx(numeric).margin(1e-8).epsilon(1e-6));
    largest = std::max(largest, std::abs(numeric));
  }
  REQUIRE(largest > 0.01);  // the comparison above was not between zeros
}

TEST_CASE("gradients of two half batches add up to the gradient of the whole batch", "[examples][trunk]") {
  trunk const model{.vocabulary = 9, .context = 2, .embedding = 3, .width = 4};
  batch const whole = make_batch(model, 6);
  auto kept = model.make_activations(6);
  std::vector<double> const parameters = random_parameters(model);
  std::vector<double> const expected = gradient(model, parameters, whole, 1.0 / 6.0, kept);
  batch const first{{whole.contexts.begin(), whole.contexts.begin() + 2 * 2}, {whole.targets.begin(), whole.targets.begin() + 2}};
  batch const second{{whole.contexts.begin() + 2 * 2, whole.contexts.end()}, {whole.targets.begin() + 2, whole.targets.end()}};
  std::vector<double> const a = gradient(model, parameters, first, 1.0 / 6.0, kept);
  std::vector<double> const b = gradient(model, parameters, second, 1.0 / 6.0, kept);
  for (std::size_t i = 0; i < expected.size(); ++i) { REQUIRE(a[i] + b[i] == Approx(expected[i]).margin(1e-13)); }
}

TEST_CASE("an untrained trunk with zero weights above predicts every word alike", "[examples][trunk]") {
  trunk const model{.vocabulary = 16, .context = 2, .embedding = 3, .width = 4};
  batch const data = make_batch(model, 5);
  auto kept = model.make_activations(8);
  std::vector<double> parameters = random_parameters(model);
  auto const layout = model.parameter_layout();
  for (index_t const block : {index_t{trunk::last_weight}, index_t{trunk::last_bias}}) {
    std::fill_n(parameters.begin() + layout[block].offset, layout[block].size(), 0.0);
  }
  REQUIRE(loss(model, parameters, data, kept) == Approx(5.0 * std::log(16.0)).epsilon(1e-12));
}

TEST_CASE("a batch without rows has no loss and no gradient", "[examples][trunk]") {
  trunk const model{.vocabulary = 5, .context = 2, .embedding = 3, .width = 4};
  auto kept = model.make_activations(4);
  std::vector<double> const parameters = random_parameters(model);
  std::vector<double> const made = gradient(model, parameters, {}, 1.0, kept);
  REQUIRE(std::all_of(made.begin(), made.end(), [](double x) { return x == 0.0; }));
  REQUIRE(loss(model, parameters, {}, kept) == 0.0);
}
