// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Compare tokens and experts by angle: logits that cannot grow without bound.
#include <fairlead/concepts/gate.hpp>
#include <fairlead/concepts/gemm.hpp>
#include <fairlead/exec/gemm_reference.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/route/linear_gate.hpp>

#include <algorithm>
#include <cmath>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Compute logits = exp(min(tau, log limit)) cos(P token, c_e) with a projection P and a vector c_e an expert.
///
/// Norms below 1e-12 count as 1e-12, so that a zero token has zero logits. The parameter "temperature" holds
/// tau - log 2, which is zero at the start. Where tau is above log limit it gets no gradient.
/// Deviation: the projection of the source has a bias; here it has none.
/// @tparam Gemm how products are computed (`gemm_on`, host)
/// @determinism equal bits at any number of threads
/// @source{Tutel, gates/cosine_top}
template <class Gemm = gemm::reference>
struct cosine_gate {
  index_t width = 0;         ///< columns of a token
  index_t experts = 0;       ///< number of logits
  index_t projected = 256;   ///< columns of the projected token, >= 1
  double limit = 100.0;      ///< largest scale of the cosine, > 0
  Gemm gemm{};               ///< how products are computed

  /// @returns blocks "projection" @shape{projected x width}, "experts" @shape{experts x projected}, "temperature"
  [[nodiscard]] fairlead::parameter_layout parameter_layout() const {
    FAIRLEAD_EXPECTS(width >= 1 && experts >= 1 && projected >= 1, "a gate needs a width, experts and projected columns",
                     width, experts, projected);
    fairlead::parameter_layout layout;
    layout.add("projection", projected, width, 1.0 / std::sqrt(static_cast<double>(width)));
    layout.add("experts", experts, projected, 0.01);
    layout.add("temperature", 1, 1, 0.0, false);
    return layout;
  }
  /// @param tokens number of tokens
  /// @returns projected tokens and their gradients, unit vectors of the experts and their gradients, norms
  [[nodiscard]] std::size_t workspace_bytes(index_t tokens) const noexcept {
    return 2 * fairlead::workspace_bytes<float>(tokens * projected) +
           2 * fairlead::workspace_bytes<float>(experts * projected) + fairlead::workspace_bytes<float>(tokens * experts) +
           2 * fairlead::workspace_bytes<float>(tokens) + fairlead::workspace_bytes<float>(experts);
  }
  /// @brief Compute the logits.
  /// @param on host backend
  /// @param parameters as `parameter_layout` says
  /// @param tokens @shape{tokens x width}
  /// @param[out] logits overwritten. @shape{tokens x experts}
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(tokens (width + experts) projected), no allocation
  template <host_backend Backend>
  void forward(Backend const& on, std::span<float const> parameters, matrix_view<float const> tokens,
               matrix_view<float> logits, workspace& ws) const {
    check(parameters, tokens, logits);
    workspace::scope const scope(ws);
    parts const p = prepare(on, parameters, tokens, ws);
    multiply(on, transpose::yes, 0.0F, p.tokens, p.experts, logits);
    on.for_each(logits.rows(), scale_row{logits, logits, p.scale});
  }
  /// @brief Add the gradients of parameters and tokens.
  /// @param on host backend
  /// @param parameters as `parameter_layout` says
  /// @param tokens @shape{tokens x width}
  /// @param grad_logits @shape{tokens x experts}
  /// @param[in,out] grad_parameters added to
  /// @param[in,out] grad_tokens added to. @shape{tokens x width}
  /// @param ws at least `workspace_bytes(tokens)`
  /// @throws contract_violation (level 1) on a shape mismatch
  /// @complexity O(tokens (width + experts) projected), no allocation
  template <host_backend Backend>
  void backward(Backend const& on, std::span<float const> parameters, matrix_view<float const> tokens,
                matrix_view<float const> grad_logits, std::span<float> grad_parameters, matrix_view<float> grad_tokens,
                workspace& ws) const {
    check(parameters, tokens, grad_logits);
    FAIRLEAD_EXPECTS(grad_parameters.size() == parameters.size(), "one gradient a parameter", grad_parameters.size());
    workspace::scope const scope(ws);
    auto const layout = parameter_layout();
    index_t const rows = tokens.rows();
    parts const p = prepare(on, parameters, tokens, ws);
    // Scaled gradients of the cosines, and what each row adds to that of the scale.
    matrix_view<float> const grad_cosine(ws.take<float>(rows * experts).data(), rows, experts);
    on.for_each(rows, scale_row{grad_logits, grad_cosine, p.scale});
    auto const added = ws.take<float>(rows);
    matrix_view<float> const grad_projected(ws.take<float>(rows * projected).data(), rows, projected);
    multiply(on, transpose::no, 0.0F, grad_cosine, p.experts, grad_projected);
    on.for_each(rows, dot_row{p.tokens, grad_projected, added.data()});
    if (p.learns_scale) {
      // sum_e grad_e scale cos_e of a row is the product of the unit token with its gradient.
      double sum = 0.0;
      for (float const value : added) { sum += static_cast<double>(value); }
      grad_parameters.back() += static_cast<float>(sum);
    }
    matrix_view<float> const grad_units(ws.take<float>(experts * projected).data(), experts, projected);
    for (index_t e = 0; e < experts; ++e) { std::fill_n(grad_units.row(e), projected, 0.0F); }
    add_columns(on, grad_cosine, p.tokens, grad_units);
    on.for_each(rows, through_norm{p.tokens, p.token_norms, grad_projected, grad_projected, false});
    on.for_each(experts, through_norm{p.experts, p.expert_norms, grad_units, layout.view(1, grad_parameters.data()), true});
    add_columns(on, grad_projected, tokens, layout.view(0, grad_parameters.data()));
    multiply(on, transpose::no, 1.0F, grad_projected, layout.view(0, parameters.data()), grad_tokens);
  }

 private:
  static constexpr float least_norm = 1e-12F;
  struct parts {
    matrix_view<float> tokens;   // unit rows
    matrix_view<float> experts;  // unit rows
    float* token_norms;
    float* expert_norms;
    float scale;
    bool learns_scale;
  };
  struct scale_row {
    matrix_view<float const> in;
    matrix_view<float> out;
    float scale;
    void operator()(index_t t) const {
      for (index_t e = 0; e < in.cols(); ++e) { out(t, e) = in(t, e) * scale; }
    }
  };
  struct dot_row {
    matrix_view<float const> a, b;
    float* out;
    void operator()(index_t t) const {
      float sum = 0.0F;
      for (index_t c = 0; c < a.cols(); ++c) { sum += a(t, c) * b(t, c); }
      out[t] = sum;
    }
  };
  // Divides a row by its norm; squares of large elements overflow fp32.
  struct unit_row {
    matrix_view<float const> in;
    matrix_view<float> out;
    float* norms;
    void operator()(index_t t) const {
      double sum = 0.0;
      for (index_t c = 0; c < in.cols(); ++c) { sum += static_cast<double>(in(t, c)) * static_cast<double>(in(t, c)); }
      float const norm = std::max(static_cast<float>(std::sqrt(sum)), least_norm);
      norms[t] = norm;
      for (index_t c = 0; c < in.cols(); ++c) { out(t, c) = in(t, c) / norm; }
    }
  };
  // From the gradient of a unit row to that of the row.
  struct through_norm {
    matrix_view<float const> unit;
    float const* norms;
    matrix_view<float const> grad;
    matrix_view<float> out;
    bool adds;
    void operator()(index_t t) const {
      float along = 0.0F;
      if (norms[t] > least_norm) {
        for (index_t c = 0; c < unit.cols(); ++c) { along += unit(t, c) * grad(t, c); }
      }
      for (index_t c = 0; c < unit.cols(); ++c) {
        float const value = (grad(t, c) - along * unit(t, c)) / norms[t];
        out(t, c) = adds ? out(t, c) + value : value;
      }
    }
  };
  template <class Backend>
  void multiply(Backend const& on, transpose op, float beta, matrix_view<float const> a, matrix_view<float const> b,
                matrix_view<float> c) const {
    detail::gate_rows<Gemm, Backend> const rows{gemm, on, op, beta, a, b, c};
    on.for_each((a.rows() + rows.block - 1) / rows.block, rows);
  }
  // c += a^T b
  template <class Backend>
  void add_columns(Backend const& on, matrix_view<float const> a, matrix_view<float const> b, matrix_view<float> c) const {
    detail::gate_cols<Gemm, Backend> const cols{gemm, on, a, b, c};
    on.for_each((b.cols() + cols.block - 1) / cols.block, cols);
  }
  template <class Backend>
  [[nodiscard]] parts prepare(Backend const& on, std::span<float const> parameters, matrix_view<float const> tokens,
                              workspace& ws) const {
    auto const layout = parameter_layout();
    index_t const rows = tokens.rows();
    parts p{{ws.take<float>(rows * projected).data(), rows, projected},
            {ws.take<float>(experts * projected).data(), experts, projected},
            ws.take<float>(rows).data(), ws.take<float>(experts).data(), 0.0F, false};
    multiply(on, transpose::yes, 0.0F, tokens, layout.view(0, parameters.data()), p.tokens);
    on.for_each(rows, unit_row{p.tokens, p.tokens, p.token_norms});
    on.for_each(experts, unit_row{layout.view(1, parameters.data()), p.experts, p.expert_norms});
    double const tau = static_cast<double>(parameters.back()) + std::log(2.0);
    p.learns_scale = tau <= std::log(limit);
    p.scale = static_cast<float>(std::exp(std::min(tau, std::log(limit))));
    return p;
  }
  void check(std::span<float const> parameters, matrix_view<float const> tokens, matrix_view<float const> logits) const {
    FAIRLEAD_EXPECTS(static_cast<index_t>(parameters.size()) == parameter_layout().size(),
                     "the parameters must be those of parameter_layout()", parameters.size());
    FAIRLEAD_EXPECTS(limit > 0.0, "the largest scale must be positive", limit);
    FAIRLEAD_EXPECTS(tokens.cols() == width && logits.cols() == experts && tokens.rows() == logits.rows(),
                     "tokens x width in, tokens x experts out", tokens.cols(), logits.cols(), tokens.rows(), logits.rows());
  }
};
static_assert(gate_on<cosine_gate<>, serial>);

FAIRLEAD_NAMESPACE_END
