// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Exact balanced assignment over the pairs whose worth at given prices is near the best of their token.
///
/// One pass over the scores keeps, for each token, what lies within `window` of the choice; most tokens have no
/// alternative and are done. The copies that can move from expert u to v are a list for each pair (u, v) whose head
/// holds the least loss. If no price moved against another by more than the window, what was left out cannot matter:
/// that is the certificate.
#include <fairlead/assign/detail/dense_flow.hpp>
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/assignment.hpp>

#include <cstdint>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Which rows a pass looks at: all of them, or a sample.
template <class Score>
struct row_source {
  matrix_view<Score const> scores;
  int const* tokens = nullptr;  ///< row numbers, or null for all rows
  int count = 0;
  [[nodiscard]] int token(int i) const { return tokens == nullptr ? i : tokens[i]; }
};

/// A token with alternatives: entries [first, first + count), of which `wanted` are to be chosen.
struct open_token {
  int token;
  int first;
  std::int16_t count;
  std::int16_t wanted;
};

/// What a pass leaves. Blocks of tokens write to places of their own, so that threads do not matter.
struct candidate_table {
  static constexpr int block_tokens = 512;
  static constexpr int entries_per_token = 16;  ///< room on average
  static constexpr int most_entries = 48;      ///< of one token
  static constexpr std::int32_t kept_mark = std::int32_t{1} << 30;  ///< on entries that were chosen before

  int experts = 0;
  int stride = 0;
  int fan_out = 1;
  int tokens = 0;
  std::int32_t* entry_expert = nullptr;
  float* entry_score = nullptr;
  open_token* open = nullptr;          ///< block b from b * block_tokens on
  int* open_count = nullptr;           ///< one a block
  int* held = nullptr;                 ///< copies that are settled. @shape{blocks x experts}
  float* window = nullptr;             ///< how far the kept entries reach, one a block; negative if some were left out
  std::uint8_t* starved = nullptr;     ///< a token of the block has fewer than fan_out allowed experts

  [[nodiscard]] static int blocks(index_t tokens) { return static_cast<int>((tokens + block_tokens - 1) / block_tokens); }
  [[nodiscard]] static index_t entries(index_t tokens) { return index_t{blocks(tokens)} * block_tokens * entries_per_token; }
  [[nodiscard]] static std::size_t bytes(index_t tokens, int experts) {
    index_t const count = blocks(tokens);
    return workspace_bytes<std::int32_t>(entries(tokens)) + workspace_bytes<float>(entries(tokens)) +
           workspace_bytes<open_token>(count * block_tokens) + workspace_bytes<int>(count) +
           workspace_bytes<int>(count * experts) + workspace_bytes<float>(count) + workspace_bytes<std::uint8_t>(count);
  }
  candidate_table(int row_count, int expert_count, int row_stride, int choices, workspace& ws)
      : experts(expert_count), stride(row_stride), fan_out(choices), tokens(row_count) {
    index_t const count = blocks(row_count);
    entry_expert = ws.take<std::int32_t>(entries(row_count)).data();
    entry_score = ws.take<float>(entries(row_count)).data();
    open = ws.take<open_token>(count * block_tokens).data();
    open_count = ws.take<int>(count).data();
    held = ws.take<int>(count * experts).data();
    window = ws.take<float>(count).data();
    starved = ws.take<std::uint8_t>(count).data();
  }
};

/// The pass over one block of tokens; a part has scratch of its own.
template <class Score>
struct candidate_pass {
  row_source<Score> rows;
  candidate_table table;
  float const* prices;     ///< fp32. @shape{stride}
  float largest_price;
  float window;            ///< half-open: everything within it is kept
  matrix_view<expert_id> owner;  ///< settled experts go here; empty for samples
  float* scratch;          ///< @shape{blocks of a wave x scratch_size}

  std::uint32_t salt = 0;  ///< of the order of ties; another one a pass
  bool keep = false;       ///< `owner` holds earlier choices: mark the entries that are among them

  [[nodiscard]] static index_t scratch_size(int stride) { return index_t{stride} * 4 + flow_padding; }

  void operator()(index_t block) const {
    int const stride = table.stride;
    int const fan_out = table.fan_out;
    float* const worth = scratch + block * scratch_size(stride);
    float* const top = worth + stride;
    auto* const earlier = reinterpret_cast<std::int32_t*>(top + stride);
    std::int32_t* const ids = earlier + stride;
    int* const held = table.held + block * table.experts;
    std::fill_n(held, table.experts, 0);
    int const begin = static_cast<int>(block) * candidate_table::block_tokens;
    int const end = std::min(begin + candidate_table::block_tokens, rows.count);
    int entry = begin * candidate_table::entries_per_token;
    int const last_entry = entry + candidate_table::block_tokens * candidate_table::entries_per_token;
    int open = 0;
    float reach = infinite<float>;
    bool starved = false;
    for (int i = begin; i < end; ++i) {
      int const token = rows.token(i);
      Score const* const row = rows.scores.row(token);
      float const best = price_row(row, table.experts, stride, prices, worth);
      float least = best;             // worth of the last choice
      float next = -infinite<float>;  // and of what comes after it; matters only beyond one choice
      if (fan_out > 1) {
        largest_values(worth, table.experts, fan_out + (fan_out < table.experts ? 1 : 0), top);
        least = top[fan_out - 1];
        if (fan_out < table.experts) { next = top[fan_out]; }
      }
      if (!(least > -infinite<float>)) {
        starved = true;
        continue;
      }
      float const margin = window + rounding_slack(best, largest_price) + (fan_out > 1 ? rounding_slack(least, largest_price) : 0.0F);
      int count = collect_at_least(worth, stride, std::max(least - margin, -greatest_float), ids);
      if (fan_out == 1 && count == 1) {
        ++held[ids[0]];
        settle(token, 0, ids[0]);
        continue;
      }
      if (keep) {
        for (int j = 0; j < fan_out; ++j) { earlier[j] = static_cast<std::int32_t>(owner(token, j)); }
      }
      // Beyond one choice: what is far above the first alternative stays.
      int settled = 0;
      if (fan_out > 1) {
        if (count <= fan_out) { next = -infinite<float>; }
        int kept = 0;
        for (int j = 0; j < count; ++j) {
          if (worth[ids[j]] > next + margin) {
            ++held[ids[j]];
            settle(token, settled++, ids[j]);
          } else {
            ids[kept++] = ids[j];
          }
        }
        count = kept;
        if (settled == fan_out) { continue; }
      }
      int wanted = fan_out - settled;
      int const room = std::min(last_entry - entry - 2 * (end - i - 1), int{candidate_table::most_entries});
      if (count > room) {
        reach = std::min(reach, thin_out(token, worth, ids, count, room, wanted, settled, held, least, next));
        count = std::min(count, room);
        if (wanted == 0) { continue; }
      }
      table.open[begin + open++] = {token, entry, static_cast<std::int16_t>(count), static_cast<std::int16_t>(wanted)};
      for (int j = 0; j < count; ++j, ++entry) {
        bool const kept = keep && std::find(earlier, earlier + fan_out, ids[j]) != earlier + fan_out;
        table.entry_expert[entry] = kept ? ids[j] | candidate_table::kept_mark : ids[j];
        table.entry_score[entry] = clean_score(row[ids[j]]);
      }
    }
    table.open_count[block] = open;
    table.window[block] = reach < window ? -1.0F : window;
    table.starved[block] = starved ? 1 : 0;
  }

 private:
  void settle(int token, int slot, int expert) const {
    if (!owner.empty()) { owner(token, slot) = static_cast<expert_id>(expert); }
  }
  /// Too many near the choice: keep the nearest, ties in an order of each token's own, so that equal tokens do not all
  /// keep the same. Returns how far what is kept reaches.
  float thin_out(int token, float const* worth, std::int32_t* ids, int& count, int room, int& wanted, int& settled,
                 int* held, float least, float next) const {
    std::uint32_t const start = static_cast<std::uint32_t>(token) * 0x9E3779B1U + salt * 0x85EBCA77U;
    auto const turned = [&](std::int32_t e) {
      std::uint32_t mixed = static_cast<std::uint32_t>(e) * 0xC2B2AE3DU ^ start;
      mixed = (mixed ^ mixed >> 16U) * 0x7FEB352DU;
      return mixed ^ mixed >> 15U;
    };
    std::sort(ids, ids + count, [&](std::int32_t a, std::int32_t b) {
      if (worth[a] != worth[b]) { return worth[a] > worth[b]; }
      std::uint32_t const turn_a = turned(a);
      std::uint32_t const turn_b = turned(b);
      return turn_a != turn_b ? turn_a < turn_b : a < b;
    });
    float reach = infinite<float>;
    int const surplus = std::max(0, wanted - room / 2);
    for (int j = 0; j < surplus; ++j) {
      ++held[ids[j]];
      settle(token, settled++, ids[j]);
      reach = std::min(reach, worth[ids[j]] - std::max(next, -greatest_float));
    }
    wanted -= surplus;
    std::copy(ids + surplus, ids + count, ids);
    count -= surplus;
    if (room < count) {
      // Half of what is kept is the nearest, half is drawn: numbers that differ by rounding only must not make equal
      // tokens keep the same.
      int const nearest = std::max(wanted, room / 2);
      reach = std::min(reach, least - worth[ids[nearest]]);
      std::sort(ids + nearest, ids + count, [&](std::int32_t a, std::int32_t b) {
        std::uint32_t const turn_a = turned(a);
        std::uint32_t const turn_b = turned(b);
        return turn_a != turn_b ? turn_a < turn_b : a < b;
      });
    }
    return std::max(reach, 0.0F);
  }
};

/// The flow over the kept pairs.
class candidate_flow {
 public:
  using search_type = price_search<double>;

  [[nodiscard]] static std::size_t bytes(index_t tokens, int nodes, int fan_out) {
    int const stride = padded(nodes);
    return workspace_bytes<node>(most_nodes(tokens, fan_out)) + workspace_bytes<int>(candidate_table::blocks(tokens) * index_t{candidate_table::block_tokens}) +
           workspace_bytes<int>(index_t{nodes} * stride) * 2 + workspace_bytes<index_t>(stride);
  }
  /// A token with m entries, w of them wanted, has w (m - w) moves; each holds at most `most_entries`.
  [[nodiscard]] static index_t most_nodes(index_t tokens, int fan_out) {
    index_t const entries = candidate_table::entries(tokens);
    return fan_out == 1 ? entries : entries * std::min(fan_out, candidate_table::most_entries / 2);
  }

  candidate_flow(search_type& search, sink_arcs const& arcs, candidate_table const& table, workspace& ws)
      : search_(search),
        arcs_(arcs),
        table_(table),
        stride_(search.stride()),
        nodes_(ws.take<node>(most_nodes(table.tokens, table.fan_out)).data()),
        first_node_(ws.take<int>(candidate_table::blocks(table.tokens) * index_t{candidate_table::block_tokens}).data()),
        head_(ws.take<int>(index_t{search.nodes()} * stride_).data()),
        who_(ws.take<int>(index_t{search.nodes()} * stride_).data()),
        held_(ws.take<index_t>(stride_).data()) {}

  /// Choose for all open tokens and start the flow. An earlier choice that is still as good as the best, up to rounding,
  /// is kept. Returns the number of copies above capacity.
  index_t start(index_t copies) {
    int const experts = table_.experts;
    std::fill_n(head_, index_t{search_.nodes()} * stride_, -1);
    std::fill_n(who_, index_t{search_.nodes()} * stride_, -1);
    std::fill_n(held_, experts, index_t{0});
    int const blocks = candidate_table::blocks(table_.tokens);
    for (int b = 0; b < blocks; ++b) {
      for (int e = 0; e < experts; ++e) { held_[e] += table_.held[index_t{b} * experts + e]; }
    }
    double const* const price = search_.price();
    double largest_price = 0.0;
    for (int e = 0; e < experts; ++e) { largest_price = std::max(largest_price, std::abs(price[e])); }
    int node_count = 0;
    for (int b = 0; b < blocks; ++b) {
      int const base = b * candidate_table::block_tokens;
      for (int a = base; a < base + table_.open_count[b]; ++a) {
        open_token const& open = table_.open[a];
        std::int32_t* const expert = table_.entry_expert + open.first;
        float* const score = table_.entry_score + open.first;
        std::uint64_t kept = 0;
        for (int j = 0; j < open.count; ++j) {
          if ((expert[j] & candidate_table::kept_mark) != 0) {
            expert[j] &= ~candidate_table::kept_mark;
            kept |= std::uint64_t{1} << j;
          }
        }
        // Selection by worth: the chosen entries come first.
        for (int i = 0; i < open.wanted; ++i) {
          int best = -1;
          double best_worth = 0.0;
          bool best_kept = false;
          for (int j = i; j < open.count; ++j) {
            double worth = static_cast<double>(score[j]) - price[expert[j]];
            bool const was = (kept >> j & 1U) != 0;
            if (was) { worth += (std::abs(static_cast<double>(score[j])) + largest_price) * 0x1p-42; }
            if (best < 0 || worth > best_worth ||
                (worth == best_worth && !best_kept && (was || room(expert[j]) > room(expert[best])))) {
              best = j;
              best_worth = worth;
              best_kept = was;
            }
          }
          bool const moved = (kept >> i & 1U) != 0;
          kept &= ~(std::uint64_t{1} << best | std::uint64_t{1} << i);
          kept |= moved ? std::uint64_t{1} << best : 0;
          std::swap(expert[i], expert[best]);
          std::swap(score[i], score[best]);
          ++held_[expert[i]];
        }
        first_node_[a] = node_count;
        int const others = open.count - open.wanted;
        for (int i = 0; i < open.wanted; ++i) {
          for (int j = 0; j < others; ++j) {
            node& n = nodes_[node_count + i * others + j];
            n.open = a;
            n.from = static_cast<std::int16_t>(i);
            n.to = static_cast<std::int16_t>(open.wanted + j);
            insert(node_count + i * others + j);
          }
        }
        node_count += open.wanted * others;
      }
    }
    arcs_.start(search_, held_, copies);
    index_t surplus = 0;
    for (int v = 0; v < search_.nodes(); ++v) { surplus += std::max<index_t>(search_.excess()[v], 0); }
    return surplus;
  }

  search_end run(double most_rise) { return search_.run(*this, most_rise); }

  /// Write the chosen experts behind the settled ones.
  void write(matrix_view<expert_id> owner) const {
    int const blocks = candidate_table::blocks(table_.tokens);
    for (int b = 0; b < blocks; ++b) {
      int const base = b * candidate_table::block_tokens;
      for (int a = base; a < base + table_.open_count[b]; ++a) {
        open_token const& open = table_.open[a];
        int const settled = table_.fan_out - open.wanted;
        for (int i = 0; i < open.wanted; ++i) {
          owner(open.token, settled + i) = static_cast<expert_id>(table_.entry_expert[open.first + i]);
        }
      }
    }
  }

  [[nodiscard]] index_t capacity(int u, int v) const { return arcs_.touches(u, v) ? arcs_.capacity(u, v) : 1; }
  void move(int u, int v, index_t amount) {
    if (arcs_.touches(u, v)) {
      arcs_.move(search_, u, v, amount);
      return;
    }
    node const moved = nodes_[who_[index_t{u} * stride_ + v]];
    open_token const& open = table_.open[moved.open];
    int const others = open.count - open.wanted;
    int const base = first_node_[moved.open];
    auto const each = [&](auto&& f) {
      for (int j = 0; j < others; ++j) { f(base + moved.from * others + j); }
      for (int i = 0; i < open.wanted; ++i) {
        if (i != moved.from) { f(base + i * others + (moved.to - open.wanted)); }
      }
    };
    each([&](int n) { remove(n); });
    std::swap(table_.entry_expert[open.first + moved.from], table_.entry_expert[open.first + moved.to]);
    std::swap(table_.entry_score[open.first + moved.from], table_.entry_score[open.first + moved.to]);
    each([&](int n) { insert(n); });
  }

 private:
  /// One possible move of one copy: from entry `from` to entry `to` of its token.
  struct node {
    double loss;
    int open;
    int next;
    int previous;
    std::int16_t from;
    std::int16_t to;
  };

  [[nodiscard]] index_t room(int expert) const { return arcs_.upper[expert] - held_[expert]; }
  [[nodiscard]] index_t cell(node const& n) const {
    int const first = table_.open[n.open].first;
    return index_t{table_.entry_expert[first + n.from]} * stride_ + table_.entry_expert[first + n.to];
  }
  void insert(int id) {
    node& n = nodes_[id];
    int const first = table_.open[n.open].first;
    n.loss = static_cast<double>(table_.entry_score[first + n.from]) - static_cast<double>(table_.entry_score[first + n.to]);
    index_t const at = cell(n);
    int const head = head_[at];
    n.next = head;
    n.previous = -1;
    if (head >= 0) { nodes_[head].previous = id; }
    head_[at] = id;
    double& least = search_.loss(0)[at];
    if (n.loss < least) {
      least = n.loss;
      who_[at] = id;
    }
  }
  void remove(int id) {
    node const& n = nodes_[id];
    index_t const at = cell(n);
    (n.previous >= 0 ? nodes_[n.previous].next : head_[at]) = n.next;
    if (n.next >= 0) { nodes_[n.next].previous = n.previous; }
    if (who_[at] != id) { return; }
    double& least = search_.loss(0)[at];
    double best = infinite<double>;
    int best_id = -1;
    for (int other = head_[at]; other >= 0; other = nodes_[other].next) {
      if (nodes_[other].loss < best) {
        best = nodes_[other].loss;
        best_id = other;
        if (best <= least) { break; }  // equals the one that left: none is less
      }
    }
    least = best;
    who_[at] = best_id;
  }

  search_type& search_;
  sink_arcs const& arcs_;
  candidate_table const& table_;
  int stride_;
  node* nodes_;
  int* first_node_;
  int* head_;
  int* who_;
  index_t* held_;
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
