// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
// Run a composed layer on some in-process ranks and collect what a single rank would have computed.
#include <fairlead/comm/inproc.hpp>
#include <fairlead/exec/serial.hpp>
#include <fairlead/expert/dense_ffn.hpp>
#include <fairlead/expert/gated_ffn.hpp>
#include <fairlead/layer/moe_layer.hpp>
#include <fairlead/route/linear_gate.hpp>
#include <fairlead/route/top_k.hpp>

#include "layer/reference.hpp"

#include <map>
#include <vector>

namespace layer_test {

namespace fl = fairlead;
using fl::index_t;
inline constexpr std::uint64_t seed = 7;

// Tokens of each rank: uneven, and from three ranks on rank 1 has none.
inline std::vector<index_t> ragged(index_t tokens, index_t ranks) {
  std::vector<index_t> count(static_cast<std::size_t>(ranks), 0);
  index_t left = tokens;
  for (index_t r = 0; r + 1 < ranks; ++r) {
    index_t const take = r == 1 && ranks >= 3 ? 0 : left * (r + 1) / (ranks + 2);
    count[static_cast<std::size_t>(r)] = take;
    left -= take;
  }
  count.back() = left;
  return count;
}

template <class Layer>
reference::problem problem_of(Layer const& layer, reference::sizes size) {
  reference::problem in;
  in.size = size;
  in.tokens = reference::random(size.tokens * size.width, 1);
  in.grad_out = reference::random(size.tokens * size.width, 2);
  in.gate = reference::initial(layer.gate.parameter_layout(), seed, fl::detail::gate_stream);
  for (index_t e = 0; e < size.experts; ++e) {
    in.experts.push_back(reference::initial(layer.expert.parameter_layout(), seed, static_cast<std::uint64_t>(e)));
  }
  if (size.shared) { in.shared = reference::initial(layer.shared.parameter_layout(), seed, fl::detail::shared_stream); }
  return in;
}

struct rank_result {
  index_t first_token = 0;
  std::vector<float> out, grad_tokens, grad_gate, grad_shared;
  std::map<index_t, std::vector<float>> grad_experts;
  bool replicas_agree = true;
  fl::step_report report;
};

struct collected {
  std::vector<float> out, grad_tokens;
  std::vector<rank_result> ranks;
};

// The default way to run a step; pipelines pass their own.
struct whole_step {
  template <class Layer, class State>
  fl::step_report operator()(Layer const& layer, State& state, fl::matrix_view<float const> tokens, fl::matrix_view<float> out,
                             fl::matrix_view<float const> grad_out, fl::matrix_view<float> grad_tokens) const {
    auto record = layer.make_record(state);
    auto const report = layer.forward(state, tokens, out, record);
    layer.backward(state, record, grad_out, grad_tokens);
    return report;
  }
};

template <class Layer, class State>
void collect_parameters(Layer const& layer, State& state, rank_result& mine) {
  layer.each_parameter(state, [&mine](fl::parameter_array<float> const& p) {
    std::vector<float> const g(p.gradients.begin(), p.gradients.end());
    if (p.scope == fl::parameter_scope::expert) {
      auto const [at, fresh] = mine.grad_experts.emplace(fl::to_index(p.expert), g);
      if (!fresh && at->second != g) { mine.replicas_agree = false; }
    } else if (mine.grad_gate.empty()) {
      mine.grad_gate = g;
    } else {
      mine.grad_shared = g;
    }
  });
}

// One training step on one rank: its part of the tokens in, its part of everything out.
template <class Backend, class Layer, class Comm, class Step = whole_step>
rank_result run_rank(Backend const& on, Layer const& layer, reference::problem const& in, Comm comm, Step step = {}) {
  auto const counts = ragged(in.size.tokens, comm.size());
  index_t const width = in.size.width;
  auto const rank = static_cast<std::size_t>(comm.rank());
  index_t first = 0;
  for (std::size_t r = 0; r < rank; ++r) { first += counts[r]; }
  index_t const mine = counts[rank];
  fl::matrix<float> tokens(mine, width), out(mine, width), grad_out(mine, width), grad_tokens(mine, width);
  for (index_t i = 0; i < mine * width; ++i) {
    tokens.data()[i] = static_cast<float>(in.tokens[static_cast<std::size_t>(first * width + i)]);
    grad_out.data()[i] = static_cast<float>(in.grad_out[static_cast<std::size_t>(first * width + i)]);
  }
  auto state = layer.make_state(on, comm, {.max_tokens = in.size.tokens, .seed = seed});
  rank_result result;
  result.first_token = first;
  result.report = step(layer, state, std::as_const(tokens).view(), out.view(), std::as_const(grad_out).view(), grad_tokens.view());
  layer.reduce_gradients(state);
  collect_parameters(layer, state, result);
  result.out.assign(out.span().begin(), out.span().end());
  result.grad_tokens.assign(grad_tokens.span().begin(), grad_tokens.span().end());
  return result;
}

// Puts an adaptor around a communicator, or none.
struct bare {
  template <class Comm>
  Comm operator()(Comm comm) const {
    return comm;
  }
};

// Runs one training step on every rank of a world. The layer's state lives only in the body.
template <class Backend, class Layer, class Step = whole_step, class Wrap = bare>
collected run(Backend const& on, Layer const& layer, reference::problem const& in, index_t ranks, Step step = {}, Wrap wrap = {}) {
  fl::inproc::world world{ranks};
  auto results = world.run([&](fl::inproc::communicator comm) { return run_rank(on, layer, in, wrap(comm), step); });
  collected all;
  for (auto& r : results) {
    all.out.insert(all.out.end(), r.out.begin(), r.out.end());
    all.grad_tokens.insert(all.grad_tokens.end(), r.grad_tokens.begin(), r.grad_tokens.end());
    all.ranks.push_back(std::move(r));
  }
  return all;
}

// Largest relative distance of the parameter gradients that a rank holds; huge if replicas differ.
inline double parameter_distance(rank_result const& got, reference::result const& want) {
  if (!got.replicas_agree) { return 1e9; }
  double worst = reference::distance(got.grad_gate, want.grad_gate);
  if (!want.grad_shared.empty()) { worst = std::max(worst, reference::distance(got.grad_shared, want.grad_shared)); }
  for (auto const& [expert, gradient] : got.grad_experts) {
    worst = std::max(worst, reference::distance(gradient, want.grad_experts[static_cast<std::size_t>(expert)]));
  }
  return worst;
}

// The same for all that one rank has; each rank of a launched program looks at its own part.
inline double rank_distance(rank_result const& got, reference::result const& want, index_t width) {
  auto const part = [&](std::vector<double> const& whole) {
    auto const from = whole.begin() + got.first_token * width;
    return std::vector<double>(from, from + static_cast<std::ptrdiff_t>(got.out.size()));
  };
  return std::max({reference::distance(got.out, part(want.out)), reference::distance(got.grad_tokens, part(want.grad_tokens)),
                   parameter_distance(got, want)});
}

// Largest relative distance over everything a training step produces.
inline double distance(collected const& got, reference::result const& want) {
  double worst = std::max(reference::distance(got.out, want.out), reference::distance(got.grad_tokens, want.grad_tokens));
  std::size_t seen = 0;
  for (auto const& rank : got.ranks) {
    worst = std::max(worst, parameter_distance(rank, want));
    seen += rank.grad_experts.size();
  }
  return seen >= want.grad_experts.size() ? worst : 1e9;
}

}  // namespace layer_test
