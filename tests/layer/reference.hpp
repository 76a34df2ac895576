// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// A plain Mixture-of-Experts layer in double precision on one rank: loops over tokens, no buffers, no plan.
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/parameters.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace reference {

namespace fl = fairlead;
using fl::index_t;

struct sizes {
  index_t tokens = 0, width = 0, hidden = 0, experts = 0, fan_out = 0;
  index_t places = std::numeric_limits<index_t>::max();  // copies an expert takes, in (token, choice) order
  bool gated = false;          // SiLU-gated experts without bias; else GELU experts with bias
  bool own_row = false;        // dropped copies return weight * token
  bool shared = false;         // one more expert for all tokens
  double balance = 0.0;        // coefficient of E / (k T^2) * sum n_e * sum_t p_te
  double z = 0.0;              // coefficient of mean (logsumexp)^2
};

struct problem {
  sizes size;
  std::vector<double> tokens, grad_out, gate;
  std::vector<std::vector<double>> experts;  // parameters in the order of the layout
  std::vector<double> shared;
};

struct result {
  std::vector<double> out, grad_tokens, grad_gate, grad_shared;
  std::vector<std::vector<double>> grad_experts;
  index_t dropped = 0;
};

inline double gelu(double x) { return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0))); }
inline double gelu_slope(double x) {
  return 0.5 * (1.0 + std::erf(x / std::sqrt(2.0))) + x * std::exp(-0.5 * x * x) / std::sqrt(2.0 * 3.14159265358979323846);
}
inline double silu(double x) { return x / (1.0 + std::exp(-x)); }
inline double silu_slope(double x) {
  double const s = 1.0 / (1.0 + std::exp(-x));
  return s * (1.0 + x * (1.0 - s));
}

// One token through one expert; if grad_y is given, adds to grad_x and grad_p instead of writing y.
inline void expert(sizes const& s, double const* p, double const* x, double* y, double const* grad_y, double* grad_x,
                   double* grad_p) {
  auto const D = static_cast<std::size_t>(s.width), H = static_cast<std::size_t>(s.hidden);
  std::vector<double> pre(s.gated ? 2 * H : H, 0.0), act(H), slope_a(H), slope_b(H, 0.0);
  std::size_t const up = 0, up_rows = s.gated ? 2 * H : H, up_bias = up_rows * D;
  std::size_t const down = s.gated ? up_rows * D : up_bias + H, down_bias = down + D * H;
  for (std::size_t h = 0; h < up_rows; ++h) {
    double sum = s.gated ? 0.0 : p[up_bias + h];
    for (std::size_t d = 0; d < D; ++d) { sum += p[up + h * D + d] * x[d]; }
    pre[h] = sum;
  }
  for (std::size_t h = 0; h < H; ++h) {
    if (s.gated) {
      act[h] = silu(pre[h]) * pre[H + h];
      slope_a[h] = silu_slope(pre[h]) * pre[H + h];
      slope_b[h] = silu(pre[h]);
    } else {
      act[h] = gelu(pre[h]);
      slope_a[h] = gelu_slope(pre[h]);
    }
  }
  if (grad_y == nullptr) {
    for (std::size_t d = 0; d < D; ++d) {
      double sum = s.gated ? 0.0 : p[down_bias + d];
      for (std::size_t h = 0; h < H; ++h) { sum += p[down + d * H + h] * act[h]; }
      y[d] = sum;
    }
    return;
  }
  std::vector<double> grad_act(H, 0.0);
  for (std::size_t d = 0; d < D; ++d) {
    if (!s.gated) { grad_p[down_bias + d] += grad_y[d]; }
    for (std::size_t h = 0; h < H; ++h) {
      grad_p[down + d * H + h] += grad_y[d] * act[h];
      grad_act[h] += grad_y[d] * p[down + d * H + h];
    }
  }
  for (std::size_t r = 0; r < up_rows; ++r) {
    double const g = r < H ? grad_act[r] * slope_a[r] : grad_act[r - H] * slope_b[r - H];
    if (!s.gated) { grad_p[up_bias + r] += g; }
    for (std::size_t d = 0; d < D; ++d) {
      grad_p[up + r * D + d] += g * x[d];
      grad_x[d] += g * p[up + r * D + d];
    }
  }
}

// Top-k of the logits, softmax over the chosen, capacity in (token, choice) order.
inline result solve(problem const& in) {
  sizes const& s = in.size;
  auto const D = static_cast<std::size_t>(s.width), E = static_cast<std::size_t>(s.experts), K = static_cast<std::size_t>(s.fan_out);
  auto const T = static_cast<std::size_t>(s.tokens);
  result r;
  r.out.assign(T * D, 0.0);
  r.grad_tokens.assign(T * D, 0.0);
  r.grad_gate.assign(E * D, 0.0);
  r.grad_shared.assign(in.shared.size(), 0.0);
  for (auto const& e : in.experts) { r.grad_experts.emplace_back(e.size(), 0.0); }
  std::vector<index_t> used(E, 0);
  std::vector<double> pull(E, 0.0);  // gradient of the balance loss with respect to a probability
  for (std::size_t t = 0; t < T && s.balance != 0.0; ++t) {
    std::vector<double> logit(E, 0.0);
    for (std::size_t e = 0; e < E; ++e) {
      for (std::size_t d = 0; d < D; ++d) { logit[e] += in.gate[e * D + d] * in.tokens[t * D + d]; }
    }
    for (std::size_t j = 0; j < K; ++j) {
      auto const best = static_cast<std::size_t>(std::max_element(logit.begin(), logit.end()) - logit.begin());
      pull[best] += s.balance * static_cast<double>(E) / static_cast<double>(K * T * T);
      logit[best] = -std::numeric_limits<double>::infinity();
    }
  }
  for (std::size_t t = 0; t < T; ++t) {
    double const* const x = in.tokens.data() + t * D;
    double const* const grad_y = in.grad_out.data() + t * D;
    std::vector<double> logit(E, 0.0);
    for (std::size_t e = 0; e < E; ++e) {
      for (std::size_t d = 0; d < D; ++d) { logit[e] += in.gate[e * D + d] * x[d]; }
    }
    std::vector<std::size_t> order(E);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(),
              [&](std::size_t a, std::size_t b) { return logit[a] > logit[b] || (logit[a] == logit[b] && a < b); });
    std::vector<double> weight(K), grad_weight(K, 0.0);
    double sum = 0.0;
    for (std::size_t j = 0; j < K; ++j) { sum += weight[j] = std::exp(logit[order[j]] - logit[order[0]]); }
    for (double& w : weight) { w /= sum; }
    for (std::size_t j = 0; j < K; ++j) {
      std::size_t const e = order[j];
      std::vector<double> y(D), scaled(D);
      bool const placed = used[e] < s.places;
      used[e] += placed ? 1 : 0;
      r.dropped += placed ? 0 : 1;
      if (!placed && !s.own_row) { continue; }
      if (placed) {
        expert(s, in.experts[e].data(), x, y.data(), nullptr, nullptr, nullptr);
      } else {
        std::copy(x, x + D, y.begin());
      }
      for (std::size_t d = 0; d < D; ++d) {
        r.out[t * D + d] += weight[j] * y[d];
        grad_weight[j] += grad_y[d] * y[d];
        scaled[d] = weight[j] * grad_y[d];
      }
      if (placed) {
        expert(s, in.experts[e].data(), x, nullptr, scaled.data(), r.grad_tokens.data() + t * D, r.grad_experts[e].data());
      } else {
        for (std::size_t d = 0; d < D; ++d) { r.grad_tokens[t * D + d] += scaled[d]; }
      }
    }
    double mean = 0.0;
    for (std::size_t j = 0; j < K; ++j) { mean += weight[j] * grad_weight[j]; }
    for (std::size_t j = 0; j < K; ++j) {
      double const g = weight[j] * (grad_weight[j] - mean);
      for (std::size_t d = 0; d < D; ++d) {
        r.grad_gate[order[j] * D + d] += g * x[d];
        r.grad_tokens[t * D + d] += g * in.gate[order[j] * D + d];
      }
    }
    double all = 0.0, mean_pull = 0.0;
    for (double const l : logit) { all += std::exp(l); }
    for (std::size_t e = 0; e < E; ++e) { mean_pull += std::exp(logit[e]) / all * pull[e]; }
    for (std::size_t e = 0; e < E; ++e) {
      double const p = std::exp(logit[e]) / all;
      double const g = p * (pull[e] - mean_pull) + s.z * 2.0 * std::log(all) * p / static_cast<double>(T);
      for (std::size_t d = 0; d < D; ++d) {
        r.grad_gate[e * D + d] += g * x[d];
        r.grad_tokens[t * D + d] += g * in.gate[e * D + d];
      }
    }
    if (s.shared) {
      std::vector<double> y(D);
      expert(s, in.shared.data(), x, y.data(), nullptr, nullptr, nullptr);
      for (std::size_t d = 0; d < D; ++d) { r.out[t * D + d] += y[d]; }
      expert(s, in.shared.data(), x, nullptr, grad_y, r.grad_tokens.data() + t * D, r.grad_shared.data());
    }
  }
  return r;
}

inline std::vector<double> random(index_t count, std::uint64_t stream, double scale = 1.0) {
  std::vector<double> values(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<double>(static_cast<float>(scale * fl::philox::normal(99, stream, i)));
  }
  return values;
}

inline std::vector<double> initial(fl::parameter_layout const& layout, std::uint64_t seed, std::uint64_t stream) {
  std::vector<float> values(static_cast<std::size_t>(layout.size()));
  fl::initialise<float>(layout, seed, stream, values);
  return {values.begin(), values.end()};
}

// Largest |a - b| relative to the largest |b|.
template <class A>
double distance(A const& a, std::vector<double> const& b) {
  if (a.size() != b.size()) { return std::numeric_limits<double>::infinity(); }
  double worst = 0.0, scale = 1e-12;
  for (std::size_t i = 0; i < b.size(); ++i) {
    double const difference = std::abs(static_cast<double>(a[i]) - b[i]);
    if (!(difference <= worst)) { worst = difference; }  // NaN sticks
    scale = std::max(scale, std::abs(b[i]));
  }
  return worst / scale;
}

}  // namespace reference
