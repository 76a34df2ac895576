// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/parameters.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/core/row_groups.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

namespace expert_test {

using fairlead::index_t;

// Activations and their derivatives, written from their definitions in double.
struct scalar_function {
  double (*value)(double);
  double (*derivative)(double);
};
inline double logistic(double x) { return 1.0 / (1.0 + std::exp(-x)); }
inline double gelu(double x) { return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0))); }
inline double gelu_slope(double x) {
  return 0.5 * (1.0 + std::erf(x / std::sqrt(2.0))) + x * std::exp(-x * x / 2.0) / std::sqrt(2.0 * 3.14159265358979323846);
}
inline double tanh_argument(double x) { return std::sqrt(2.0 / 3.14159265358979323846) * (x + 0.044715 * x * x * x); }
inline double gelu_tanh(double x) { return 0.5 * x * (1.0 + std::tanh(tanh_argument(x))); }
inline double gelu_tanh_slope(double x) {
  double const t = std::tanh(tanh_argument(x));
  return 0.5 * (1.0 + t) +
         0.5 * x * (1.0 - t * t) * std::sqrt(2.0 / 3.14159265358979323846) * (1.0 + 3.0 * 0.044715 * x * x);
}
inline double silu(double x) { return x * logistic(x); }
inline double silu_slope(double x) { return logistic(x) + x * logistic(x) * (1.0 - logistic(x)); }
inline double relu(double x) { return x > 0.0 ? x : 0.0; }
inline double relu_slope(double x) { return x > 0.0 ? 1.0 : 0.0; }

// A bank with inputs, parameters and an incoming gradient, laid out with a row stride and padding between groups.
template <class Expert>
struct bank {
  using value = typename Expert::value_type;
  Expert expert;
  std::vector<index_t> counts, offsets;
  index_t rows = 0;
  fairlead::matrix<value> in, kept, out, grad_out, grad_in;
  std::vector<std::vector<value>> parameters, gradients;
  std::vector<value const*> parameter_pointers;
  std::vector<value*> gradient_pointers;
  static constexpr index_t gap = 3;  // unused columns at the end of each row

  bank(Expert e, std::vector<index_t> group_counts, index_t padding, std::uint64_t seed = 1)
      : expert(e), counts(std::move(group_counts)) {
    offsets.push_back(0);
    for (index_t const count : counts) { offsets.push_back(offsets.back() + count + padding); }
    rows = offsets.back();
    for (auto* m : {&in, &out, &grad_out, &grad_in}) { *m = fairlead::matrix<value>(rows, e.width + gap); }
    kept = fairlead::matrix<value>(rows, e.kept_width() + gap);
    fill(in.span(), seed, 1, 1.0);
    fill(grad_out.span(), seed, 2, 1.0);
    index_t const size = e.parameter_layout().size();
    for (std::size_t g = 0; g < counts.size(); ++g) {
      parameters.emplace_back(static_cast<std::size_t>(size));
      gradients.emplace_back(static_cast<std::size_t>(size));
      fill(std::span<value>(parameters.back()), seed, 100 + g, 0.4);
      fill(std::span<value>(gradients.back()), seed, 500 + g, 1.0);
    }
    for (auto& p : parameters) { parameter_pointers.push_back(p.data()); }
    for (auto& g : gradients) { gradient_pointers.push_back(g.data()); }
    // What must stay untouched is recognised by this number.
    for (auto* m : {&out, &grad_in, &kept}) { std::fill_n(m->data(), m->rows() * m->cols(), value{77}); }
  }
  static void fill(std::span<value> values, std::uint64_t seed, std::uint64_t stream, double scale) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<value>(scale * fairlead::philox::normal(seed, stream, i));
    }
  }
  template <class Element>
  static fairlead::matrix_view<Element> inner(Element* data, index_t r, index_t cols) {
    return {data, r, cols, cols + gap};
  }
  fairlead::row_groups groups() const { return {offsets, counts}; }
  fairlead::matrix_view<value const> x() const { return inner<value const>(in.data(), rows, expert.width); }
  fairlead::matrix_view<value> y() { return inner<value>(out.data(), rows, expert.width); }
  fairlead::matrix_view<value> pre() { return inner<value>(kept.data(), rows, expert.kept_width()); }

  template <class Backend>
  void forward(Backend const& on, bool keep = true) {
    fairlead::arena<> memory(expert.workspace_bytes(rows, on.concurrency()));
    auto ws = memory.view();
    expert.forward(on, parameter_pointers, groups(), x(), keep ? pre() : fairlead::matrix_view<value>(nullptr, rows, 0),
                   y(), ws);
    if (ws.used() != 0) { throw std::runtime_error("workspace not rewound"); }
  }
  template <class Backend>
  void backward(Backend const& on) {
    fairlead::arena<> memory(expert.workspace_bytes(rows, on.concurrency()));
    auto ws = memory.view();
    expert.backward(on, parameter_pointers, gradient_pointers, groups(), x(), pre(),
                    inner<value const>(grad_out.data(), rows, expert.width),
                    inner<value>(grad_in.data(), rows, expert.width), ws);
  }
};

// Everything in double by plain loops over one row at a time.
template <class Expert>
struct exact {
  std::vector<std::vector<double>> out, grad_in, gradients;

  exact(bank<Expert> const& b, scalar_function f, bool gated) {
    index_t const width = b.expert.width, hidden = b.expert.hidden, streams = gated ? 2 : 1;
    for (std::size_t g = 0; g < b.counts.size(); ++g) {
      gradients.emplace_back(b.gradients[g].begin(), b.gradients[g].end());
    }
    out.assign(static_cast<std::size_t>(b.rows), std::vector<double>(static_cast<std::size_t>(width)));
    grad_in = out;
    auto const at = [](auto const& v, index_t i) { return static_cast<double>(v[static_cast<std::size_t>(i)]); };
    for (std::size_t g = 0; g < b.counts.size(); ++g) {
      auto const& p = b.parameters[g];
      auto& d = gradients[g];
      index_t const b1 = streams * hidden * width, w2 = b1 + (b.expert.bias ? streams * hidden : 0),
                    b2 = w2 + width * hidden;
      for (index_t r = b.offsets[g]; r < b.offsets[g] + b.counts[g]; ++r) {
        auto const row = static_cast<std::size_t>(r);
        std::vector<double> pre(static_cast<std::size_t>(streams * hidden)), h(static_cast<std::size_t>(hidden)),
            dh(static_cast<std::size_t>(hidden));
        for (index_t u = 0; u < streams * hidden; ++u) {
          double sum = b.expert.bias ? at(p, b1 + u) : 0.0;
          for (index_t i = 0; i < width; ++i) { sum += at(p, u * width + i) * static_cast<double>(b.in(r, i)); }
          pre[static_cast<std::size_t>(u)] = sum;
        }
        for (index_t u = 0; u < hidden; ++u) {
          h[static_cast<std::size_t>(u)] = f.value(at(pre, u)) * (gated ? at(pre, hidden + u) : 1.0);
        }
        for (index_t o = 0; o < width; ++o) {
          double sum = b.expert.bias ? at(p, b2 + o) : 0.0;
          double const dy = static_cast<double>(b.grad_out(r, o));
          for (index_t u = 0; u < hidden; ++u) {
            sum += at(p, w2 + o * hidden + u) * at(h, u);
            dh[static_cast<std::size_t>(u)] += dy * at(p, w2 + o * hidden + u);
            d[static_cast<std::size_t>(w2 + o * hidden + u)] += dy * at(h, u);
          }
          if (b.expert.bias) { d[static_cast<std::size_t>(b2 + o)] += dy; }
          out[row][static_cast<std::size_t>(o)] = sum;
        }
        for (index_t u = 0; u < streams * hidden; ++u) {
          index_t const unit = u % hidden;
          double slope = at(dh, unit);
          if (!gated) {
            slope *= f.derivative(at(pre, unit));
          } else if (u < hidden) {
            slope *= f.derivative(at(pre, unit)) * at(pre, hidden + unit);
          } else {
            slope *= f.value(at(pre, unit));
          }
          if (b.expert.bias) { d[static_cast<std::size_t>(b1 + u)] += slope; }
          for (index_t i = 0; i < width; ++i) {
            d[static_cast<std::size_t>(u * width + i)] += slope * static_cast<double>(b.in(r, i));
            grad_in[row][static_cast<std::size_t>(i)] += slope * at(p, u * width + i);
          }
        }
      }
    }
  }
};

// The largest difference, relative to the largest magnitude of the exact array.
template <class Expert>
std::string compare(bank<Expert> const& b, exact<Expert> const& e, double tolerance, bool with_gradients) {
  double worst_out = 0.0, worst_in = 0.0, worst_parameter = 0.0, scale_out = 1.0, scale_in = 1.0, scale_parameter = 1.0;
  for (std::size_t g = 0; g < b.counts.size(); ++g) {
    for (index_t r = b.offsets[g]; r < b.offsets[g + 1]; ++r) {
      bool const used = r < b.offsets[g] + b.counts[g];
      for (index_t i = 0; i < b.expert.width + b.gap; ++i) {
        double const o = static_cast<double>(b.out(r, i)), d = static_cast<double>(b.grad_in(r, i));
        if (!used || i >= b.expert.width) {
          if (o != 77.0 || d != 77.0) { return "a row or column out of use was written"; }
          continue;
        }
        double const eo = e.out[static_cast<std::size_t>(r)][static_cast<std::size_t>(i)];
        double const ed = e.grad_in[static_cast<std::size_t>(r)][static_cast<std::size_t>(i)];
        worst_out = std::max(worst_out, std::abs(o - eo));
        scale_out = std::max(scale_out, std::abs(eo));
        if (with_gradients) { worst_in = std::max(worst_in, std::abs(d - ed)); }
        scale_in = std::max(scale_in, std::abs(ed));
      }
    }
    for (std::size_t i = 0; with_gradients && i < b.gradients[g].size(); ++i) {
      worst_parameter = std::max(worst_parameter, std::abs(static_cast<double>(b.gradients[g][i]) - e.gradients[g][i]));
      scale_parameter = std::max(scale_parameter, std::abs(e.gradients[g][i]));
    }
  }
  if (!(worst_out <= tolerance * scale_out)) { return "output differs by " + std::to_string(worst_out); }
  if (!(worst_in <= tolerance * scale_in)) { return "input gradient differs by " + std::to_string(worst_in); }
  if (!(worst_parameter <= tolerance * scale_parameter)) {
    return "parameter gradient differs by " + std::to_string(worst_parameter);
  }
  return "equal";
}

}  // namespace expert_test
