// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Exact balanced assignment over the pairs whose worth at given prices is near the best of their token.
///
/// One pass over the scores keeps, for each token, what lies within `window` of the choice; most tokens have no
/// alternative and are done. The copies that can move from expert u to v are a list for each pair (u, v) whose head
/// holds the least loss. If no price moved against another by more than the window, what was left out cannot matter:
/// that is the certificate.
#include <fairlead/flow/detail/dense_flow.hpp>
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/assignment.hpp>

#include <cstdint>
#include <limits>
#include <utility>

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
  static constexpr int most_entries = 256;     ///< of one token
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
  float* window = nullptr;             ///< how far the kept entries reach, one a block
  std::uint8_t* starved = nullptr;     ///< a token of the block has fewer than fan_out allowed experts

  [[nodiscard]] static int blocks(index_t tokens) { return static_cast<int>((tokens + block_tokens - 1) / block_tokens); }
  /// Room of a token on average. Beyond one choice what is near lies on both sides of the last one.
  [[nodiscard]] static constexpr int entries_per_token(int experts, int fan_out) {
    return std::min(experts, fan_out == 1 ? 32 : 40);
  }
  /// A token with m entries, w of them wanted, has w (m - w) moves.
  [[nodiscard]] static constexpr int moves_per_token(int experts, int fan_out) {
    return entries_per_token(experts, fan_out) * std::min(fan_out, 8);
  }
  [[nodiscard]] static index_t entries(index_t tokens, int experts, int fan_out) {
    return index_t{blocks(tokens)} * block_tokens * entries_per_token(experts, fan_out);
  }
  [[nodiscard]] static std::size_t bytes(index_t tokens, int experts, int fan_out) {
    index_t const count = blocks(tokens);
    return workspace_bytes<std::int32_t>(entries(tokens, experts, fan_out)) + workspace_bytes<float>(entries(tokens, experts, fan_out)) +
           workspace_bytes<open_token>(count * block_tokens) + workspace_bytes<int>(count) +
           workspace_bytes<int>(count * experts) + workspace_bytes<float>(count) + workspace_bytes<std::uint8_t>(count);
  }
  candidate_table(int row_count, int expert_count, int row_stride, int choices, workspace& ws)
      : experts(expert_count), stride(row_stride), fan_out(choices), tokens(row_count) {
    index_t const count = blocks(row_count);
    entry_expert = ws.take<std::int32_t>(entries(row_count, expert_count, choices)).data();
    entry_score = ws.take<float>(entries(row_count, expert_count, choices)).data();
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
  float* scratch;          ///< @shape{blocks x scratch_size}

  int most = candidate_table::most_entries;  ///< kept of one token
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
    int entry = begin * candidate_table::entries_per_token(table.experts, fan_out);
    int const last_entry = entry + candidate_table::block_tokens * candidate_table::entries_per_token(table.experts, fan_out);
    int moves_left = candidate_table::block_tokens * candidate_table::moves_per_token(table.experts, fan_out);
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
      int const affordable = (moves_left - 2 * (end - i - 1)) / wanted;
      int const room = std::min({last_entry - entry - 2 * (end - i - 1), most,
                                 affordable > 0 ? wanted + affordable : 0});
      if (count > room) {
        reach = std::min(reach, thin_out(token, worth, ids, count, room, wanted, settled, held, least, next));
        count = std::min(count, room);
        if (wanted == 0) { continue; }
      }
      moves_left -= wanted * (count - wanted);
      table.open[begin + open++] = {token, entry, static_cast<std::int16_t>(count), static_cast<std::int16_t>(wanted)};
      for (int j = 0; j < count; ++j, ++entry) {
        bool const kept = keep && std::find(earlier, earlier + fan_out, ids[j]) != earlier + fan_out;
        table.entry_expert[entry] = kept ? ids[j] | candidate_table::kept_mark : ids[j];
        table.entry_score[entry] = clean_score(row[ids[j]]);
      }
    }
    table.open_count[block] = open;
    table.window[block] = std::min(reach, window);
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
    if (std::all_of(ids, ids + count, [&](std::int32_t e) { return worth[e] == worth[ids[0]]; }) && room >= wanted && wanted > 0) {
      // Equal all of them: a run of the ring, from a place of the token's own.
      std::uint32_t mixed = (start ^ start >> 15U) * 0x7FEB352DU;
      mixed ^= mixed >> 16U;
      std::rotate(ids, ids + mixed % static_cast<std::uint32_t>(count), ids + count);
      return 0.0F;
    }
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
///
/// The moves from u to v that the start allows lie side by side, in a segment of the pair (u, v); a segment is sorted when
/// its first move is used up, and from then on a head steps over moves that are closed. Moves that only a moved copy
/// opens are a short list beside it.
template <class Sinks = sink_arcs>
class candidate_flow {
 public:
  using search_type = price_search<double>;

  [[nodiscard]] static std::size_t bytes(index_t tokens, int nodes, int fan_out) {
    int const experts = nodes;
    index_t const pairs = index_t{nodes} * padded(nodes);
    index_t const open = candidate_table::blocks(tokens) * index_t{candidate_table::block_tokens};
    return workspace_bytes<item>(most_moves(tokens, experts, fan_out)) + workspace_bytes<extra>(most_moves(tokens, experts, fan_out)) +
           workspace_bytes<std::uint8_t>(candidate_table::entries(tokens, experts, fan_out)) + workspace_bytes<int>(open) +
           workspace_bytes<int>(pairs + 1) + workspace_bytes<int>(pairs) * 3 + workspace_bytes<index_t>(padded(nodes));
  }
  [[nodiscard]] static index_t most_moves(index_t tokens, int experts, int fan_out) {
    return index_t{candidate_table::blocks(tokens)} * candidate_table::block_tokens * candidate_table::moves_per_token(experts, fan_out);
  }

  candidate_flow(search_type& search, Sinks const& arcs, candidate_table const& table, workspace& ws)
      : search_(search), arcs_(arcs), table_(table), stride_(search.stride()), pairs_(index_t{search.nodes()} * stride_) {
    items_ = ws.take<item>(most_moves(table.tokens, table.experts, table.fan_out)).data();
    extras_ = ws.take<extra>(most_moves(table.tokens, table.experts, table.fan_out)).data();
    chosen_ = ws.take<std::uint8_t>(candidate_table::entries(table.tokens, table.experts, table.fan_out)).data();
    extra_of_ = ws.take<int>(candidate_table::blocks(table.tokens) * index_t{candidate_table::block_tokens}).data();
    segment_ = ws.take<int>(pairs_ + 1).data();
    head_ = ws.take<int>(pairs_).data();
    beside_ = ws.take<int>(pairs_).data();
    who_ = ws.take<int>(pairs_).data();
    held_ = ws.take<index_t>(stride_).data();
  }

  /// Choose for all open tokens and start the flow. An earlier choice that is still as good as the best, up to rounding,
  /// is kept. Returns the number of copies above capacity.
  index_t start(index_t copies) {
    int const experts = table_.experts;
    std::fill_n(segment_, pairs_ + 1, 0);
    std::fill_n(head_, pairs_, -1);
    std::fill_n(beside_, pairs_, -1);
    std::fill_n(who_, pairs_, nobody);
    std::fill_n(held_, experts, index_t{0});
    unused_ = -1;
    extra_count_ = 0;
    int const blocks = candidate_table::blocks(table_.tokens);
    for (int b = 0; b < blocks; ++b) {
      for (int e = 0; e < experts; ++e) { held_[e] += table_.held[index_t{b} * experts + e]; }
    }
    double largest_price = 0.0;
    for (int e = 0; e < experts; ++e) { largest_price = std::max(largest_price, std::abs(search_.price()[e])); }
    each_open([&](int a, open_token const& open) {
      choose(open, largest_price);
      extra_of_[a] = -1;
      std::int32_t const* const expert = table_.entry_expert + open.first;
      for (int i = 0; i < open.wanted; ++i) {
        int* const row = segment_ + index_t{expert[i]} * stride_;
        for (int j = open.wanted; j < open.count; ++j) { ++row[expert[j]]; }
      }
    });
    int sum = 0;
    for (index_t at = 0; at <= pairs_; ++at) { sum += std::exchange(segment_[at], sum); }
    each_open([&](int a, open_token const& open) {
      std::int32_t const* const expert = table_.entry_expert + open.first;
      for (int i = 0; i < open.wanted; ++i) {
        for (int j = open.wanted; j < open.count; ++j) {
          index_t const at = index_t{expert[i]} * stride_ + expert[j];
          int const place = segment_[at]++;
          double const loss = loss_of(open, i, j);
          items_[place] = {loss, a, static_cast<std::int16_t>(i), static_cast<std::int16_t>(j)};
          offer(at, loss, place);
        }
      }
    });
    for (index_t at = pairs_; at > 0; --at) { segment_[at] = segment_[at - 1]; }
    segment_[0] = 0;
    arcs_.start(search_, held_, copies);
    index_t surplus = 0;
    for (int v = 0; v < search_.nodes(); ++v) { surplus += std::max<index_t>(search_.excess()[v], 0); }
    return surplus;
  }

  search_end run(double most_rise) { return search_.run(*this, most_rise); }

  /// Write the chosen experts behind the settled ones.
  void write(matrix_view<expert_id> owner) {
    each_open([&](int, open_token const& open) {
      int slot = table_.fan_out - open.wanted;
      for (int j = open.first; j < open.first + open.count; ++j) {
        if (chosen_[j] != 0) { owner(open.token, slot++) = static_cast<expert_id>(table_.entry_expert[j]); }
      }
    });
  }

  [[nodiscard]] index_t capacity(int u, int v) const { return arcs_.touches(u, v) ? arcs_.capacity(u, v) : 1; }
  void move(int u, int v, index_t amount) {
    if (arcs_.touches(u, v)) {
      arcs_.move(search_, u, v, amount);
      return;
    }
    item const moved = who(index_t{u} * stride_ + v);
    open_token const& open = table_.open[moved.open];
    std::int32_t const* const expert = table_.entry_expert + open.first;
    std::uint8_t* const chosen = chosen_ + open.first;
    chosen[moved.from] = 0;
    chosen[moved.to] = 1;
    drop_closed(moved.open);
    for (int j = 0; j < open.count; ++j) {
      if (chosen[j] == 0 && j != moved.from) { renew(u, expert[j], moved.open, moved.from, j); }
      if (chosen[j] != 0) { renew(expert[j], v, moved.open, j, moved.to); }
    }
    renew(u, v, moved.open, moved.from, moved.to);
    for (int j = 0; j < open.count; ++j) {
      if (chosen[j] == 0) { reopen(moved.open, moved.to, j); }
      if (chosen[j] != 0 && j != moved.to) { reopen(moved.open, j, moved.from); }
    }
  }

 private:
  static constexpr int nobody = std::numeric_limits<int>::min();

  /// One possible move of one copy: from entry `from` to entry `to` of its token.
  struct item {
    double loss;
    int open;
    std::int16_t from;
    std::int16_t to;
  };
  /// A move that the start did not allow: in the list of its pair and in that of its token.
  struct extra {
    item move;
    int next;
    int previous;
    int next_of_token;
  };

  template <class Function>
  void each_open(Function const& f) {
    int const blocks = candidate_table::blocks(table_.tokens);
    for (int b = 0; b < blocks; ++b) {
      int const base = b * candidate_table::block_tokens;
      for (int a = base; a < base + table_.open_count[b]; ++a) { f(a, table_.open[a]); }
    }
  }
  [[nodiscard]] auto room(int expert) const { return arcs_.room(expert, held_[expert]); }
  [[nodiscard]] double loss_of(open_token const& open, int from, int to) const {
    float const* const score = table_.entry_score + open.first;
    return static_cast<double>(score[from]) - static_cast<double>(score[to]);
  }
  [[nodiscard]] bool is_open(item const& move) const {
    std::uint8_t const* const chosen = chosen_ + table_.open[move.open].first;
    return chosen[move.from] != 0 && chosen[move.to] == 0;
  }
  /// The move behind a pair's loss: in its segment, or (complemented) beside it.
  [[nodiscard]] item const& who(index_t at) const {
    int const id = who_[at];
    return id >= 0 ? items_[id] : extras_[~id].move;
  }
  void offer(index_t at, double loss, int id) {
    double& least = search_.loss(0)[at];
    if (loss < least) {
      least = loss;
      who_[at] = id;
    }
  }

  /// Selection by worth; the chosen entries come first.
  void choose(open_token const& open, double largest_price) {
    std::int32_t* const expert = table_.entry_expert + open.first;
    float* const score = table_.entry_score + open.first;
    double const* const price = search_.price();
    std::uint8_t* const kept = chosen_ + open.first;  // until the choice is made
    for (int j = 0; j < open.count; ++j) {
      kept[j] = (expert[j] & candidate_table::kept_mark) != 0 ? 1 : 0;
      expert[j] &= ~candidate_table::kept_mark;
    }
    for (int i = 0; i < open.wanted; ++i) {
      int best = i;
      double best_worth = 0.0;
      for (int j = i; j < open.count; ++j) {
        double worth = static_cast<double>(score[j]) - price[expert[j]];
        if (kept[j] != 0) { worth += (std::abs(static_cast<double>(score[j])) + largest_price) * 0x1p-42; }
        bool const first = j == i || worth > best_worth;
        if (first || (worth == best_worth && kept[best] == 0 && (kept[j] != 0 || room(expert[j]) > room(expert[best])))) {
          best = j;
          best_worth = worth;
        }
      }
      std::swap(expert[i], expert[best]);
      std::swap(score[i], score[best]);
      std::swap(kept[i], kept[best]);
      ++held_[expert[i]];
    }
    for (int j = 0; j < open.count; ++j) { kept[j] = j < open.wanted ? 1 : 0; }
  }

  /// The least open move of a pair, after the one that was the least closed.
  void refresh(index_t at) {
    int const begin = segment_[at];
    int const end = segment_[at + 1];
    int& head = head_[at];
    if (head < 0) {
      std::sort(items_ + begin, items_ + end, before);
      head = begin;
    }
    while (head < end && !is_open(items_[head])) { ++head; }
    double& least = search_.loss(0)[at];
    least = head < end ? items_[head].loss : infinite<double>;
    who_[at] = head < end ? head : nobody;
    for (int id = beside_[at]; id >= 0; id = extras_[id].next) { offer(at, extras_[id].move.loss, ~id); }
  }
  [[nodiscard]] static bool before(item const& a, item const& b) {
    if (a.loss != b.loss) { return a.loss < b.loss; }
    if (a.open != b.open) { return a.open < b.open; }
    return a.from != b.from ? a.from < b.from : a.to < b.to;
  }
  /// A move of the pair (u, v) closed: look for another one if it was the least.
  void renew(int u, int v, int open, int from, int to) {
    index_t const at = index_t{u} * stride_ + v;
    int const id = who_[at];
    if (id == nobody) { return; }
    item const& least = who(at);
    if (least.open == open && least.from == from && least.to == to) { refresh(at); }
  }
  /// Take the closed moves of a token out of the lists beside the segments.
  void drop_closed(int open) {
    for (int* link = &extra_of_[open]; *link >= 0;) {
      int const id = *link;
      extra& e = extras_[id];
      if (is_open(e.move)) {
        link = &e.next_of_token;
        continue;
      }
      index_t const at = pair_of(e.move);
      (e.previous >= 0 ? extras_[e.previous].next : beside_[at]) = e.next;
      if (e.next >= 0) { extras_[e.next].previous = e.previous; }
      *link = e.next_of_token;
      bool const least = who_[at] == ~id;
      e.next = unused_;
      unused_ = id;
      if (least) { refresh(at); }
    }
  }
  [[nodiscard]] index_t pair_of(item const& move) const {
    std::int32_t const* const expert = table_.entry_expert + table_.open[move.open].first;
    return index_t{expert[move.from]} * stride_ + expert[move.to];
  }
  /// A move is open again, or for the first time.
  void reopen(int open_id, int from, int to) {
    open_token const& open = table_.open[open_id];
    item const move{loss_of(open, from, to), open_id, static_cast<std::int16_t>(from), static_cast<std::int16_t>(to)};
    index_t const at = pair_of(move);
    if (from < open.wanted && to >= open.wanted) {
      // In its segment. While that is not sorted its least move was never closed, and this one is not less.
      int& head = head_[at];
      if (head < 0) { return; }
      int const place = static_cast<int>(std::lower_bound(items_ + segment_[at], items_ + segment_[at + 1], move, before) - items_);
      head = std::min(head, place);
      offer(at, move.loss, place);
      return;
    }
    int id = unused_;
    if (id >= 0) {
      unused_ = extras_[id].next;
    } else {
      id = extra_count_++;
    }
    int const next = beside_[at];
    extras_[id] = {move, next, -1, extra_of_[open_id]};
    if (next >= 0) { extras_[next].previous = id; }
    beside_[at] = id;
    extra_of_[open_id] = id;
    offer(at, move.loss, ~id);
  }

  search_type& search_;
  Sinks const& arcs_;
  candidate_table const& table_;
  int stride_;
  index_t pairs_;
  item* items_;
  extra* extras_;
  std::uint8_t* chosen_;
  int* extra_of_;
  int* segment_;
  int* head_;
  int* beside_;
  int* who_;
  index_t* held_;
  int unused_ = -1;
  int extra_count_ = 0;
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
