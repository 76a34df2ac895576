// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The only source of sizes, skews and seeds of the benches.
#include <fairlead/core/ids.hpp>
#include <fairlead/core/matrix.hpp>
#include <fairlead/core/philox.hpp>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace fl_bench {

using fairlead::index_t;

/// @brief Write parts one behind the other (g++ 12 warns falsely about `"text" + std::to_string(n)` at -O3).
/// @param parts text and numbers
/// @returns the text
template <class... Parts>
std::string text_of(Parts const&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

namespace axes {

/// Seed of every bench; a bench separates its inputs by the stream.
inline constexpr std::uint64_t seed = 20260117;

/// Whether a short run was asked for (`bench/run.sh --quick`): benches then leave out their largest cases.
inline bool quick() noexcept { return std::getenv("FAIRLEAD_BENCH_QUICK") != nullptr; }

/// Exponents of the Zipf law of expert popularity: even, mild, strong.
inline constexpr std::array<double, 3> skews{0.0, 0.5, 1.0};

/// Sizes of a routing problem.
struct routing_case {
  index_t tokens;   ///< tokens
  index_t experts;  ///< experts
  index_t fan_out;  ///< experts a token
  /// "T8192_E64_k2"
  [[nodiscard]] std::string name() const {
    return text_of("T", tokens, "_E", experts, "_k", fan_out);
  }
};
/// Routers and permutation: E in 64..256, k in 1..8, and one small and one large outlier.
inline constexpr std::array<routing_case, 8> routing_cases{{{8192, 8, 2},
                                                            {8192, 64, 1},
                                                            {8192, 64, 2},
                                                            {8192, 64, 8},
                                                            {8192, 128, 8},
                                                            {8192, 256, 1},
                                                            {8192, 256, 8},
                                                            {65536, 256, 8}}};
/// The two cases that the permutation is judged by.
inline constexpr std::array<routing_case, 2> permutation_cases{{{8192, 64, 2}, {8192, 256, 8}}};

/// Sizes of a row movement problem (permute, combine, exchange).
struct rows_case {
  index_t tokens;   ///< tokens
  index_t experts;  ///< experts
  index_t fan_out;  ///< experts a token
  index_t width;    ///< row width in elements
  /// "T8192_D1024_k2"
  [[nodiscard]] std::string name() const {
    return text_of("T", tokens, "_D", width, "_k", fan_out);
  }
};
/// Row movements, most quoted case first.
inline constexpr std::array<rows_case, 4> rows_cases{
    {{8192, 64, 2, 1024}, {8192, 64, 2, 512}, {8192, 64, 2, 4096}, {8192, 64, 8, 1024}}};

/// Sizes of a layer of experts.
struct layer_case {
  index_t tokens;   ///< tokens
  index_t width;    ///< token width D
  index_t hidden;   ///< hidden width F of an expert
  index_t experts;  ///< experts
  index_t fan_out;  ///< experts a token
  /// "T2048_D512_F2048_E8_k2"
  [[nodiscard]] std::string name() const {
    return text_of("T", tokens, "_D", width, "_F", hidden, "_E", experts, "_k", fan_out);
  }
};
/// Whole layers and expert networks: the two that targets name, then many small experts.
inline constexpr std::array<layer_case, 3> layer_cases{
    {{2048, 512, 2048, 8, 2}, {8192, 512, 2048, 8, 2}, {2048, 512, 512, 64, 4}}};

/// Sizes of a balanced assignment.
struct assignment_case {
  index_t tokens;       ///< tokens
  index_t experts;      ///< experts
  index_t fan_out = 1;  ///< experts a token
  bool quick = true;    ///< whether short runs hold it
  /// "16384x128", "8192x64k8"
  [[nodiscard]] std::string name() const {
    return fan_out == 1 ? text_of(tokens, "x", experts) : text_of(tokens, "x", experts, "k", fan_out);
  }
};
/// Balanced assignments: tokens / experts grows from 64 to 256; two with eight experts a token.
inline constexpr std::array<assignment_case, 9> assignment_cases{{{512, 8},
                                                                  {1024, 16},
                                                                  {2048, 32},
                                                                  {4096, 64},
                                                                  {8192, 64},
                                                                  {16384, 128},
                                                                  {8192, 64, 8},
                                                                  {8192, 256, 8, false},
                                                                  {65536, 256, 1, false}}};
/// Sizes of a choice of servers.
struct choice_case {
  index_t servers;      ///< servers
  index_t tokens;       ///< tokens of a slot
  index_t fan_out = 3;  ///< servers a token
  bool quick = true;    ///< whether short runs hold it
  /// "J10_N390_K3"
  [[nodiscard]] std::string name() const { return text_of("J", servers, "_N", tokens, "_K", fan_out); }
};
/// An edge network's slot and a data center's batch first; then growth in tokens, then in servers.
inline constexpr std::array<choice_case, 10> choice_cases{{{10, 390},
                                                           {256, 16384, 3, false},
                                                           {10, 1560},
                                                           {10, 6240},
                                                           {10, 24960, 3, false},
                                                           {64, 1024},
                                                           {64, 4096},
                                                           {64, 16384, 3, false},
                                                           {16, 4096},
                                                           {256, 4096, 3, false}}};
/// Slots of an edge network: the paper's, and a data center's batch.
inline constexpr std::array<choice_case, 2> slot_cases{{{10, 390}, {256, 16384, 3, false}}};
/// Slots that peers solve too: the paper's, and a larger one.
inline constexpr std::array<choice_case, 2> slot_peer_cases{{{10, 390}, {32, 1024, 3, false}}};
/// Arrivals of the recorded slots over the most that can be carried: as reported for the paper, and more than that.
inline constexpr double slot_load = 0.86;
inline constexpr double slot_overload = 1.15;
/// Spread of the gate's favours.
inline constexpr double slot_skew = 0.5;
/// Slots that grow in tokens at 10 servers.
inline constexpr std::array<choice_case, 6> slot_growth_tokens_10{
    {{10, 100}, {10, 390}, {10, 1560}, {10, 6240}, {10, 25000, 3, false}, {10, 100000, 3, false}}};
/// Slots that grow in tokens at 64 servers.
inline constexpr std::array<choice_case, 4> slot_growth_tokens_64{
    {{64, 1024}, {64, 4096}, {64, 16384, 3, false}, {64, 65536, 3, false}}};
/// Slots that grow in servers at 4096 tokens.
inline constexpr std::array<choice_case, 7> slot_growth_servers{
    {{8, 4096}, {16, 4096}, {32, 4096}, {64, 4096}, {128, 4096}, {256, 4096, 3, false}, {512, 4096, 3, false}}};
/// Balanced assignments of the solvers that are not measured against peers, and of the distributed solver.
inline constexpr std::array<assignment_case, 3> assignment_solver_cases{
    {{1024, 16}, {4096, 64}, {16384, 128, 1, false}}};
/// Growth of an assignment in tokens at 64 experts: 2^10 ... 2^18.
inline constexpr std::array<assignment_case, 9> assignment_growth_tokens{{{1024, 64},
                                                                          {2048, 64},
                                                                          {4096, 64},
                                                                          {8192, 64},
                                                                          {16384, 64},
                                                                          {32768, 64, 1, false},
                                                                          {65536, 64, 1, false},
                                                                          {131072, 64, 1, false},
                                                                          {262144, 64, 1, false}}};
/// Growth of an assignment in experts at 16384 tokens.
inline constexpr std::array<assignment_case, 7> assignment_growth_experts{{{16384, 8},
                                                                           {16384, 16},
                                                                           {16384, 32},
                                                                           {16384, 64},
                                                                           {16384, 128},
                                                                           {16384, 256, 1, false},
                                                                           {16384, 512, 1, false}}};

/// Ranks of the in-process worlds.
inline constexpr std::array<int, 3> ranks{1, 2, 4};

/// Ranks of clusters that grow.
inline constexpr std::array<index_t, 10> growth_ranks{8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};

/// Sizes of a min-max split.
struct split_case {
  index_t ranks;     ///< ranks
  index_t experts;   ///< experts
  index_t replicas;  ///< distinct hosts of each expert
  double skew;       ///< exponent of the Zipf law of expert loads
  bool redraw;       ///< loads change owners every micro-batch; else 10 % lognormal noise
  bool quick = false;  ///< whether short runs hold it
  /// "64x256x4/zipf0.5/drift"
  [[nodiscard]] std::string name() const {
    return text_of(ranks, "x", experts, "x", replicas, "/zipf", skew, redraw ? "/redraw" : "/drift");
  }
};
/// Min-max splits: one node to four, then one to sixteen racks.
inline constexpr std::array<split_case, 17> split_cases{{{8, 32, 2, 0.5, true, true},
                                                         {8, 32, 2, 0.5, false, true},
                                                         {8, 32, 2, 1.0, true, true},
                                                         {8, 64, 2, 1.0, true},
                                                         {16, 64, 2, 0.5, true, true},
                                                         {16, 64, 2, 0.5, false, true},
                                                         {16, 64, 2, 1.0, true},
                                                         {32, 256, 2, 0.5, true},
                                                         {64, 256, 2, 0.5, true},
                                                         {64, 256, 2, 0.5, false},
                                                         {64, 256, 2, 1.0, false, true},
                                                         {64, 256, 4, 0.5, true},
                                                         {64, 256, 4, 0.5, false, true},
                                                         {64, 256, 4, 1.0, true},
                                                         {256, 256, 4, 0.5, true},
                                                         {256, 256, 4, 0.5, false},
                                                         {256, 256, 4, 1.0, false}}};
/// Min-max splits that grow: without linear programs as peers.
inline constexpr std::array<split_case, 8> split_growth_cases{{{64, 512, 2, 0.5, true},
                                                               {256, 1024, 2, 0.5, true},
                                                               {1024, 4096, 2, 1.0, true, true},
                                                               {1024, 4096, 2, 0.3, true, true},
                                                               {1024, 4096, 4, 0.3, true, true},
                                                               {4096, 8192, 2, 0.3, true},
                                                               {4096, 8192, 4, 0.3, true},
                                                               {4096, 8192, 4, 1.0, true}}};
/// Sizes of a layout problem: nodes of 8 ranks.
struct layout_case {
  index_t ranks;          ///< ranks
  index_t experts;        ///< experts
  index_t slots;          ///< slots of a rank
  bool dense = false;     ///< whether a peer that holds ranks x experts x ranks numbers runs beside it
  bool quick = true;      ///< whether short runs hold it
  /// "1024x32x16"
  [[nodiscard]] std::string name() const { return text_of(ranks, "x", experts, "x", slots); }
};
/// The published table of planner times: 32 experts, 64 to 1024 ranks, 1 to 16 slots.
inline constexpr std::array<layout_case, 20> layout_cases{
    {{64, 32, 1, true},          {64, 32, 2, true},           {64, 32, 4, true},           {64, 32, 8, true},
     {64, 32, 16, true},         {256, 32, 1, true, false},   {256, 32, 2, true},          {256, 32, 4, true, false},
     {256, 32, 8, true, false},  {256, 32, 16, true, false},  {512, 32, 1, false, false},  {512, 32, 2, false, false},
     {512, 32, 4, false, false}, {512, 32, 8, false, false},  {512, 32, 16, false, false}, {1024, 32, 1, false, false},
     {1024, 32, 2},              {1024, 32, 4, false, false}, {1024, 32, 8, false, false}, {1024, 32, 16}}};

/// Sizes of a choice of numbers of replicas.
struct count_case {
  index_t experts;    ///< experts
  index_t slots;      ///< slots of all ranks
  bool quick = true;  ///< whether short runs hold it
  /// "64x4096"
  [[nodiscard]] std::string name() const { return text_of(experts, "x", slots); }
};
/// Numbers of replicas: scarce and plentiful slots, and one very large cluster.
inline constexpr std::array<count_case, 5> count_cases{{{64, 128}, {64, 4096}, {256, 288}, {256, 4096}, {8192, 32768, false}}};

/// Sizes of a placement with two replicas of every expert.
struct graph_case {
  index_t ranks;          ///< ranks
  index_t slots;          ///< slots of a rank
  bool enumerated = true; ///< few enough ranks to look at all sets of them
  /// "8x4"
  [[nodiscard]] std::string name() const { return text_of(ranks, "x", slots); }
};
/// Graphs: the four of the paper, one too large to look at all sets of ranks.
inline constexpr std::array<graph_case, 5> graph_cases{{{8, 2}, {8, 4}, {8, 8}, {16, 4}, {256, 8, false}}};
/// Ranks of which all sets are looked at; four slots each.
inline constexpr std::array<index_t, 4> enumerated_ranks{8, 12, 16, 20};

/// Sizes of a placement that is to survive failures.
struct resilience_case {
  index_t nodes;    ///< nodes
  index_t slots;    ///< slots of a node
  index_t experts;  ///< experts
  double skew;      ///< exponent of the Zipf law of their loads
  /// "N10_c6_E8_s0"
  [[nodiscard]] std::string name() const { return text_of("N", nodes, "_c", slots, "_E", experts, "_s", skew); }
};
/// Resilience: the three models of the paper on ten nodes, even and skewed, and a larger cluster.
inline constexpr std::array<resilience_case, 6> resilience_cases{
    {{10, 6, 8, 0.0}, {10, 6, 8, 1.0}, {10, 6, 12, 1.0}, {10, 6, 16, 1.0}, {16, 4, 32, 1.0}, {64, 4, 64, 1.0}}};

/// Sizes of a re-planning of all layers of a model.
struct packing_case {
  index_t layers;     ///< layers planned together
  index_t experts;    ///< experts of a layer
  index_t slots;      ///< slots of all ranks
  index_t ranks;      ///< ranks
  index_t nodes;      ///< nodes; 1 = without groups
  index_t groups;     ///< groups of experts that stay on a node
  bool quick = true;  ///< whether short runs hold it
  /// "58x256x288x32"
  [[nodiscard]] std::string name() const { return text_of(layers, "x", experts, "x", slots, "x", ranks); }
};
/// Re-planning of the size that DeepSeek-V3 is served with, and its larger and smaller clusters.
inline constexpr std::array<packing_case, 6> packing_cases{{{58, 256, 288, 32, 4, 8},
                                                            {58, 256, 320, 64, 8, 8},
                                                            {58, 256, 512, 128, 8, 8},
                                                            {58, 256, 288, 8, 1, 1, false},
                                                            {58, 256, 288, 144, 1, 1, false},
                                                            {58, 256, 320, 320, 1, 1, false}}};

}  // namespace axes

/// @brief Fill with standard normal numbers.
/// @param values[out] the numbers
/// @param stream separates the inputs of one bench
/// @param scale factor
inline void fill_normal(std::span<float> values, std::uint64_t stream, float scale = 1.0F) {
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = scale * static_cast<float>(fairlead::philox::normal(axes::seed, stream, i));
  }
}

/// @brief Make router scores whose mean differs by expert such that popularity is skewed like a Zipf law.
/// @param tokens rows
/// @param experts columns
/// @param skew exponent; 0 = even
/// @param stream separates the inputs of one bench
/// @returns normal noise plus -skew * log(rank of the expert in a shuffled order)
inline fairlead::matrix<float> make_scores(index_t tokens, index_t experts, double skew, std::uint64_t stream = 1) {
  fairlead::matrix<float> scores(tokens, experts);
  fill_normal(scores.span(), stream);
  std::vector<index_t> order(static_cast<std::size_t>(experts));
  for (std::size_t e = 0; e < order.size(); ++e) { order[e] = static_cast<index_t>(e); }
  for (std::size_t e = order.size(); e > 1; --e) {
    auto const other = fairlead::philox::below(fairlead::philox::draw(axes::seed, stream + 1000, e)[0],
                                               static_cast<std::uint32_t>(e));
    std::swap(order[e - 1], order[other]);
  }
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t e = 0; e < experts; ++e) {
      scores(t, e) -= static_cast<float>(skew * std::log(1.0 + static_cast<double>(order[static_cast<std::size_t>(e)])));
    }
  }
  return scores;
}

/// @brief Make the choices of a router: distinct experts a token, popularity by a Zipf law.
/// @param tokens rows
/// @param experts number of experts
/// @param fan_out columns, <= experts
/// @param skew exponent; 0 = even
/// @param stream separates the inputs of one bench
/// @returns expert ids
inline fairlead::matrix<fairlead::expert_id> make_choices(index_t tokens, index_t experts, index_t fan_out, double skew,
                                                          std::uint64_t stream = 1) {
  std::vector<double> sums(static_cast<std::size_t>(experts));
  double sum = 0.0;
  for (std::size_t e = 0; e < sums.size(); ++e) { sums[e] = sum += std::pow(1.0 + static_cast<double>(e), -skew); }
  fairlead::matrix<fairlead::expert_id> choices(tokens, fan_out);
  std::uint64_t draw = 0;
  for (index_t t = 0; t < tokens; ++t) {
    for (index_t k = 0; k < fan_out;) {
      double const target = sum * static_cast<double>(fairlead::philox::uniform(axes::seed, stream, draw++));
      std::size_t e = 0;
      while (e + 1 < sums.size() && sums[e] <= target) { ++e; }
      auto const expert = static_cast<fairlead::expert_id>(e);
      bool taken = false;
      for (index_t j = 0; j < k; ++j) { taken = taken || choices(t, j) == expert; }
      if (!taken) { choices(t, k++) = expert; }
    }
  }
  return choices;
}

}  // namespace fl_bench
