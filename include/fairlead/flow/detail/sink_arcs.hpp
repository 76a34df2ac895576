// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Lower and upper capacities as flow between experts and one more node, the sink.
#include <fairlead/flow/detail/price_search.hpp>

#include <algorithm>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Of a set of sinks an engine wants start, room, refresh, touches, capacity, move, and the node.
/// Expert e sends y(e) copies to the sink, lower <= y <= upper. Where lower = upper everywhere there is no sink: a node
/// then lacks or exceeds its capacity directly.
struct sink_arcs {
  int experts = 0;
  int sink = -1;                   ///< node, or -1
  index_t const* lower = nullptr;  ///< clamped to the copies there are. @shape{experts}
  index_t const* upper = nullptr;  ///< @shape{experts}
  index_t* sent = nullptr;         ///< y. @shape{experts}

  /// Nodes of the graph.
  [[nodiscard]] static int nodes(int experts, bool equality) { return experts + (equality ? 0 : 1); }

  /// Set excess and sink arcs from the copies each expert holds; a price's sign decides which bound binds.
  template <class Value>
  void start(price_search<Value>& search, index_t const* held, index_t copies) const {
    index_t* const excess = search.excess();
    if (sink < 0) {
      for (int e = 0; e < experts; ++e) { excess[e] = held[e] - upper[e]; }
      return;
    }
    index_t total = 0;
    for (int e = 0; e < experts; ++e) {
      Value const price = search.price()[e] - search.price()[sink];
      sent[e] = price > 0 ? upper[e] : price < 0 ? lower[e] : std::clamp(held[e], lower[e], upper[e]);
      excess[e] = held[e] - sent[e];
      total += sent[e];
      refresh(search, e);
    }
    excess[sink] = total - copies;
  }
  /// What an expert that holds `held` copies has left: decides ties, more first.
  [[nodiscard]] index_t room(int expert, index_t held) const { return upper[expert] - held; }
  /// The sink's arcs of one expert, after its row was rewritten or its flow changed.
  template <class Value>
  void refresh(price_search<Value>& search, int expert) const {
    search.loss(expert)[sink] = sent[expert] < upper[expert] ? Value{0} : infinite<Value>;
    search.loss(sink)[expert] = sent[expert] > lower[expert] ? Value{0} : infinite<Value>;
  }
  [[nodiscard]] bool touches(int u, int v) const noexcept { return sink >= 0 && (u == sink || v == sink); }
  [[nodiscard]] index_t capacity(int u, int v) const {
    return v == sink ? upper[u] - sent[u] : sent[v] - lower[v];
  }
  template <class Value>
  void move(price_search<Value>& search, int u, int v, index_t amount) const {
    int const expert = v == sink ? u : v;
    sent[expert] += v == sink ? amount : -amount;
    refresh(search, expert);
  }
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
