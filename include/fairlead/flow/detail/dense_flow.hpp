// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Exact balanced assignment over all columns of a block of rows that lies in cache.
///
/// The losses out of an expert are recomputed from the rows of its tokens whenever one of them leaves: with the rows in
/// cache and whole vectors at a time that is cheaper than any list of candidates. In fp32 it makes prices for larger
/// problems, in fp64 it is the solver of small ones.
#include <fairlead/flow/detail/score_rows.hpp>
#include <fairlead/flow/detail/sink_arcs.hpp>

#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Choose `fan_out` of `count` candidates: value descending, then preferred, then more room, then lower id.
/// Reorders `ids`, the chosen ones first. `value(id)` is exact.
template <class ValueOf, class Before>
inline void choose_first(std::int32_t* ids, int count, int wanted, ValueOf const& value, Before const& tie) {
  for (int i = 0; i < wanted; ++i) {
    int best = i;
    double best_value = value(ids[i]);
    for (int j = i + 1; j < count; ++j) {
      double const v = value(ids[j]);
      if (v > best_value || (v == best_value && tie(ids[j], ids[best]))) {
        best = j;
        best_value = v;
      }
    }
    std::swap(ids[i], ids[best]);
  }
}

template <class Value, class Sinks = sink_arcs>
class dense_flow {
 public:
  using integer = lane_integer<Value>;

  [[nodiscard]] static std::size_t bytes(int tokens, int nodes, int fan_out) {
    int const stride = padded(nodes);
    index_t const slots = index_t{tokens} * fan_out;
    return workspace_bytes<float>(index_t{tokens} * stride) + workspace_bytes<float>(slots) +
           workspace_bytes<int>(slots) * 3 + workspace_bytes<int>(stride) + workspace_bytes<integer>(index_t{nodes} * stride) +
           workspace_bytes<int>(tokens) + workspace_bytes<float>(stride) * 2 + workspace_bytes<std::int32_t>(stride + 16) +
           workspace_bytes<index_t>(stride) * 2 + workspace_bytes<double>(stride) * 2;
  }

  dense_flow(price_search<Value>& search, Sinks const& arcs, int tokens, int fan_out, workspace& ws)
      : search_(search),
        arcs_(arcs),
        tokens_(tokens),
        fan_out_(fan_out),
        experts_(arcs.experts),
        stride_(search.stride()),
        rows_(ws.take<float>(index_t{tokens} * stride_).data()),
        own_(ws.take<float>(index_t{tokens} * fan_out).data()),
        expert_(ws.take<int>(index_t{tokens} * fan_out).data()),
        next_(ws.take<int>(index_t{tokens} * fan_out).data()),
        previous_(ws.take<int>(index_t{tokens} * fan_out).data()),
        head_(ws.take<int>(stride_).data()),
        who_(ws.take<integer>(index_t{search.nodes()} * stride_).data()),
        members_(ws.take<int>(tokens).data()),
        worth_(ws.take<float>(stride_).data()),
        prices_(ws.take<float>(stride_).data()),
        ids_(ws.take<std::int32_t>(stride_ + 16).data()),
        held_(ws.take<index_t>(stride_).data()),
        exact_(ws.take<double>(stride_).data()),
        room_(ws.take<double>(stride_).data()),
        room_held_(ws.take<index_t>(stride_).data()) {}

  /// Row i becomes `from`; false if fewer than fan_out pairs of it are allowed.
  template <class Score>
  bool load(int i, Score const* from) {
    return read_row(from, experts_, stride_, rows_ + index_t{i} * stride_) >= fan_out_;
  }

  /// Assign all loaded rows from the prices of the search on. Afterwards the search holds the prices.
  search_end solve() {
    place_all();
    arcs_.start(search_, held_, index_t{tokens_} * fan_out_);
    for (int u = 0; u < experts_; ++u) { rebuild(u); }
    return search_.run(*this);
  }

  /// Expert of slot j of row i.
  [[nodiscard]] int expert(int i, int j) const { return expert_[index_t{i} * fan_out_ + j]; }

  [[nodiscard]] index_t capacity(int u, int v) const { return arcs_.touches(u, v) ? arcs_.capacity(u, v) : 1; }
  void move(int u, int v, index_t amount) {
    if (arcs_.touches(u, v)) {
      arcs_.move(search_, u, v, amount);
      return;
    }
    int const slot = static_cast<int>(who_[index_t{u} * stride_ + v]);
    int const token = slot / fan_out_;
    float* const row = rows_ + index_t{token} * stride_;
    row[u] = own_[slot];
    own_[slot] = row[v];
    row[v] = -infinite<float>;
    unlink(slot, u);
    link(slot, v);
    left(u, slot);
    merge(v, slot);
    for (int j = 0; j < fan_out_ && fan_out_ > 1; ++j) {
      int const other = token * fan_out_ + j;
      if (other == slot) { continue; }
      // It may go to u again, and no longer to v.
      int const w = expert_[other];
      if (who_[index_t{w} * stride_ + v] == other) { renew(w, v); }
      Value const change = static_cast<Value>(own_[other]) - static_cast<Value>(row[u]);
      if (change < search_.loss(w)[u]) {
        search_.loss(w)[u] = change;
        who_[index_t{w} * stride_ + u] = other;
      }
    }
  }

 private:
  /// What a tie is decided by; kept, since where all is equal it is asked for again and again.
  double room(int expert) {
    if (room_held_[expert] != held_[expert]) {
      room_held_[expert] = held_[expert];
      room_[expert] = static_cast<double>(arcs_.room(expert, held_[expert]));
    }
    return room_[expert];
  }
  void link(int slot, int expert) {
    expert_[slot] = expert;
    previous_[slot] = -1;
    next_[slot] = head_[expert];
    if (head_[expert] >= 0) { previous_[head_[expert]] = slot; }
    head_[expert] = slot;
  }
  void unlink(int slot, int expert) {
    int const before = previous_[slot];
    int const after = next_[slot];
    (before >= 0 ? next_[before] : head_[expert]) = after;
    if (after >= 0) { previous_[after] = before; }
  }

  void place_all() {
    float largest_price = 0.0F;
    for (int e = 0; e < experts_; ++e) {
      exact_[e] = static_cast<double>(search_.price()[e]);
      prices_[e] = static_cast<float>(search_.price()[e]);
      largest_price = std::max(largest_price, std::abs(prices_[e]));
      held_[e] = 0;
      room_held_[e] = -1;
      head_[e] = -1;
    }
    float top[64];
    for (int i = 0; i < tokens_; ++i) {
      float* const row = rows_ + index_t{i} * stride_;
      float best = price_row(row, experts_, stride_, prices_, worth_);
      float const slack = rounding_slack(best, largest_price);
      if (fan_out_ > 1) {
        if (fan_out_ <= 64) {
          largest_values(worth_, experts_, fan_out_, top);
          best = top[fan_out_ - 1];
        } else {
          best = -greatest_float;
        }
      }
      int count = collect_at_least(worth_, stride_, best - slack, ids_);
      if (count < fan_out_) {  // numbers so large that rounding hid some
        count = 0;
        for (int e = 0; e < experts_; ++e) {
          if (row[e] > -infinite<float>) { ids_[count++] = e; }
        }
      }
      auto const value = [&](std::int32_t e) { return static_cast<double>(row[e]) - exact_[e]; };
      auto const tie = [&](std::int32_t a, std::int32_t b) {
        double const room_a = room(a);
        double const room_b = room(b);
        return room_a != room_b ? room_a > room_b : a < b;
      };
      if (count > fan_out_) { choose_first(ids_, count, fan_out_, value, tie); }
      for (int j = 0; j < fan_out_; ++j) {
        int const slot = i * fan_out_ + j;
        int const e = ids_[j];
        own_[slot] = row[e];
        row[e] = -infinite<float>;
        ++held_[e];
        link(slot, e);
      }
    }
  }

  /// A slot has left u: find other tokens for the moves that it stood for.
  void left(int u, int slot) {
    integer const* const who = who_ + index_t{u} * stride_;
    int stale = 0;
    for (int e = 0; e < experts_; ++e) { stale += who[e] == slot ? 1 : 0; }
    int missed = 0;
    for (int e = 0; e < experts_ && stale > 0; ++e) {
      if (who[e] != slot) { continue; }
      // A column reads one score from every row: all of them are cheaper together, but where ties end the search at once.
      // The wider the rows, the more columns have to miss.
      if (missed * 128 >= stride_ && stale > stride_ / 16) { return rebuild(u); }
      missed += e != u && !renew(u, e) ? 1 : 0;
      --stale;
    }
    finish_row(u);
  }
  /// Recompute the loss of one move from the tokens of u; whether one of them is as good as what was best before.
  bool renew(int u, int e) {
    Value& loss = search_.loss(u)[e];
    Value const bound = loss;
    Value least = infinite<Value>;
    int least_slot = -1;
    for (int slot = head_[u]; slot >= 0; slot = next_[slot]) {
      int const token = fan_out_ == 1 ? slot : slot / fan_out_;
      Value const change = static_cast<Value>(own_[slot]) - static_cast<Value>(rows_[index_t{token} * stride_ + e]);
      if (change < least) {
        least = change;
        least_slot = slot;
        if (change <= bound) { break; }
      }
    }
    loss = least;
    who_[index_t{u} * stride_ + e] = least_slot;
    return least <= bound;
  }
  /// Recompute the losses out of u from its tokens.
  void rebuild(int u) {
    int count = 0;
    for (int slot = head_[u]; slot >= 0; slot = next_[slot]) { members_[count++] = slot; }
    Value* const loss = search_.loss(u);
    integer* const who = who_ + index_t{u} * stride_;
#if FAIRLEAD_DETAIL_VECTORS
    using kind = vector_of<Value>;
    using vector = typename kind::type;
    using mask = typename kind::mask;
    vector const zero = {};
    mask const zero_id = {};
    for (int e = 0; e < stride_; e += kind::lanes) {
      vector least = zero + infinite<Value>;
      mask slot_of = zero_id - 1;
      for (int i = 0; i < count; ++i) {
        int const slot = members_[i];
        int const token = fan_out_ == 1 ? slot : slot / fan_out_;
        vector const change =
            (zero + static_cast<Value>(own_[slot])) - kind::load_scores(rows_ + index_t{token} * stride_ + e);
        mask const less = change < least;
        least = less ? change : least;
        slot_of = less ? zero_id + static_cast<integer>(slot) : slot_of;
      }
      store_lanes(loss + e, least);
      store_lanes(who + e, slot_of);
    }
#else
    for (int e = 0; e < stride_; ++e) { loss[e] = infinite<Value>; }
    for (int i = 0; i < count; ++i) { merge(u, members_[i]); }
    (void)who;
#endif
    finish_row(u);
  }
  /// Let one slot of u offer its losses.
  void merge(int u, int slot) {
    int const token = fan_out_ == 1 ? slot : slot / fan_out_;
    float const* const row = rows_ + index_t{token} * stride_;
    Value* const loss = search_.loss(u);
    integer* const who = who_ + index_t{u} * stride_;
    Value const own = static_cast<Value>(own_[slot]);
    for (int e = 0; e < experts_; ++e) {
      Value const change = own - static_cast<Value>(row[e]);
      if (change < loss[e]) {
        loss[e] = change;
        who[e] = slot;
      }
    }
    finish_row(u);
  }
  void finish_row(int u) {
    search_.loss(u)[u] = infinite<Value>;
    if (arcs_.sink >= 0) { arcs_.refresh(search_, u); }
  }

  price_search<Value>& search_;
  Sinks const& arcs_;
  int tokens_;
  int fan_out_;
  int experts_;
  int stride_;
  float* rows_;
  float* own_;
  int* expert_;
  int* next_;
  int* previous_;
  int* head_;
  integer* who_;
  int* members_;
  float* worth_;
  float* prices_;
  std::int32_t* ids_;
  index_t* held_;
  double* exact_;
  double* room_;
  index_t* room_held_;
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
