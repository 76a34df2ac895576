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

#include <cstring>
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

/// The slots of each expert, one behind the other in memory: they are read far more often than they change. The first
/// ones of a list are near, the others far; what is appended is near.
class member_lists {
 public:
  [[nodiscard]] static std::size_t bytes(index_t slots, int stride) {
    return workspace_bytes<int>(pool_size(slots, stride)) + workspace_bytes<int>(slots) + workspace_bytes<index_t>(stride) * 2 +
           workspace_bytes<int>(stride) * 2;
  }
  member_lists(int experts, index_t slots, int stride, workspace& ws)
      : experts_(experts),
        size_(pool_size(slots, stride)),
        pool_(ws.take<int>(size_).data()),
        place_(ws.take<int>(slots).data()),
        first_(ws.take<index_t>(stride).data()),
        last_(ws.take<index_t>(stride).data()),
        count_(ws.take<int>(stride).data()),
        near_(ws.take<int>(stride).data()) {}

  /// Empty lists, with equal room.
  void clear() {
    for (int e = 0; e < experts_; ++e) {
      first_[e] = size_ * e / experts_;
      last_[e] = size_ * (e + 1) / experts_;
      count_[e] = 0;
      near_[e] = 0;
    }
  }
  [[nodiscard]] int size(int expert) const { return count_[expert]; }
  [[nodiscard]] int near(int expert) const { return near_[expert]; }
  [[nodiscard]] int const* begin(int expert) const { return pool_ + first_[expert]; }
  void append(int expert, int slot) {
    if (first_[expert] + count_[expert] == last_[expert]) { share_room(); }
    int const end = count_[expert]++;
    int const to = near_[expert]++;
    if (to != end) { put(expert, end, begin(expert)[to]); }
    put(expert, to, slot);
  }
  void remove(int expert, int slot) {
    int* const list = pool_ + first_[expert];
    int hole = place_[slot];
    int const end = --count_[expert];
    if (hole < near_[expert]) {
      int const last = --near_[expert];
      put(expert, hole, list[last]);
      hole = last;
    }
    if (hole != end) { put(expert, hole, list[end]); }
  }
  /// A slot of the list counts as near from now on.
  void make_near(int expert, int slot) {
    int const from = place_[slot];
    if (from < near_[expert]) { return; }
    int const to = near_[expert]++;
    int const other = begin(expert)[to];
    put(expert, from, other);
    put(expert, to, slot);
  }
  /// All slots of the list are far, or near.
  void all_far(int expert) { near_[expert] = 0; }
  void all_near(int expert) { near_[expert] = count_[expert]; }

 private:
  [[nodiscard]] static index_t pool_size(index_t slots, int stride) { return 2 * slots + 32 * index_t{stride}; }
  void put(int expert, int place, int slot) {
    pool_[first_[expert] + place] = slot;
    place_[slot] = place;
  }
  /// Give each list room for about as much again as it has: a list that grows comes back only after it has doubled.
  void share_room() {
    index_t used = 0;
    for (int e = 0; e < experts_; ++e) {
      std::memmove(pool_ + used, pool_ + first_[e], static_cast<std::size_t>(count_[e]) * sizeof(int));
      first_[e] = used;
      used += count_[e];
    }
    // From the last one on, since lists only move to the right now.
    index_t const spare = size_ - used;
    double const share = static_cast<double>(spare) / static_cast<double>(used + 16 * index_t{experts_});
    index_t end = size_;
    index_t before = used;
    for (int e = experts_; e-- > 0;) {
      before -= count_[e];
      index_t const begin = before + static_cast<index_t>(share * static_cast<double>(before + 16 * index_t{e}));
      std::memmove(pool_ + begin, pool_ + first_[e], static_cast<std::size_t>(count_[e]) * sizeof(int));
      first_[e] = begin;
      last_[e] = end;
      end = begin;
    }
  }

  int experts_;
  index_t size_;
  int* pool_;
  int* place_;  // of a slot in its list
  index_t* first_;
  index_t* last_;
  int* count_;
  int* near_;
};

template <class Value, class Sinks = sink_arcs>
class dense_flow {
 public:
  using integer = lane_integer<Value>;
  /// Slots of an expert for each of the others that are looked at each time, where the list is much longer.
  static constexpr int near_a_column = 16;

  [[nodiscard]] static std::size_t bytes(int tokens, int nodes, int fan_out) {
    int const stride = padded(nodes);
    index_t const slots = index_t{tokens} * fan_out;
    return workspace_bytes<float>(index_t{tokens} * stride) + workspace_bytes<float>(slots) +
           workspace_bytes<int>(slots) + member_lists::bytes(slots, stride) +
           workspace_bytes<integer>(index_t{nodes} * stride) + workspace_bytes<Value>(index_t{nodes} * stride) +
           workspace_bytes<float>(stride) * 2 +
           workspace_bytes<std::int32_t>(stride + 16) + workspace_bytes<index_t>(stride) * 2 + workspace_bytes<double>(stride) * 2;
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
        lists_(experts_, index_t{tokens} * fan_out, stride_, ws),
        who_(ws.take<integer>(index_t{search.nodes()} * stride_).data()),
        limit_(ws.take<Value>(index_t{search.nodes()} * stride_).data()),
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
      lists_.make_near(w, other);
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
    lists_.append(expert, slot);
  }
  void unlink(int slot, int expert) { lists_.remove(expert, slot); }

  void place_all() {
    float largest_price = 0.0F;
    for (int e = 0; e < experts_; ++e) {
      exact_[e] = static_cast<double>(search_.price()[e]);
      prices_[e] = static_cast<float>(search_.price()[e]);
      largest_price = std::max(largest_price, std::abs(prices_[e]));
      held_[e] = 0;
      room_held_[e] = -1;
    }
    lists_.clear();
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
    int const* const members = lists_.begin(u);
    int const count = lists_.near(u);
    for (int i = 0; i < count; ++i) {
      int const slot = members[i];
      int const token = fan_out_ == 1 ? slot : slot / fan_out_;
      Value const change = static_cast<Value>(own_[slot]) - static_cast<Value>(rows_[index_t{token} * stride_ + e]);
      if (change < least) {
        least = change;
        least_slot = slot;
        if (change <= bound) { break; }
      }
    }
    if (count < lists_.size(u) && beyond(least, limit_[index_t{u} * stride_ + e])) {
      rebuild_from_all(u);
      return true;
    }
    loss = least;
    who_[index_t{u} * stride_ + e] = least_slot;
    return least <= bound;
  }
  /// Whether a far slot might be better.
  [[nodiscard]] static bool beyond(Value least, Value limit) { return least > limit && limit > -infinite<Value>; }
  /// Recompute the losses out of u from its tokens.
  void rebuild(int u) {
    if (lists_.near(u) == lists_.size(u)) { return rebuild_from_all(u); }
    scan(u, lists_.near(u));
    Value const* const loss = search_.loss(u);
    Value const* const limit = limit_ + index_t{u} * stride_;
    for (int e = 0; e < experts_; ++e) {
      if (beyond(loss[e], limit[e])) { return rebuild_from_all(u); }
    }
    finish_row(u);
  }
  void rebuild_from_all(int u) {
    scan(u, lists_.size(u));
    separate(u);
    finish_row(u);
  }
  /// Losses out of u from the first tokens of its list.
  void scan(int u, int count) {
    int const* const members = lists_.begin(u);
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
        int const slot = members[i];
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
    for (int i = 0; i < count; ++i) { offer(u, members[i]); }
#endif
  }
  /// Of a long list, put those in front that can soon be the best of a column: only they are looked at until a loss rises
  /// beyond what the others cost at least.
  void separate(int u) {
    int const count = lists_.size(u);
    index_t const wanted = std::max<index_t>(count / 16, near_a_column * index_t{experts_});
    if (4 * wanted > count) { return lists_.all_near(u); }
    Value const* const loss = search_.loss(u);
    Value* const limit = limit_ + index_t{u} * stride_;
    int const* const members = lists_.begin(u);
    auto const change = [&](int slot, int e) {
      return static_cast<Value>(own_[slot]) - static_cast<Value>(rows_[index_t{slot / fan_out_} * stride_ + e]);
    };
    // How far as many as are wanted are from being the best, by a sample.
    constexpr int probes = 128;
    Value gaps[probes];
    for (int i = 0; i < probes; ++i) {
      int const slot = members[static_cast<int>(index_t{i} * count / probes)];
      Value gap = infinite<Value>;
      for (int e = 0; e < experts_; ++e) {
        Value const own = change(slot, e) - loss[e];  // NaN where nobody can go
        gap = own < gap ? own : gap;
      }
      gaps[i] = gap;
    }
    Value* const last = gaps + wanted * probes / count;
    std::nth_element(gaps, last, gaps + probes);
    Value const window = *last;
    for (int e = 0; e < stride_; ++e) { limit[e] = e < experts_ && loss[e] < infinite<Value> ? loss[e] + window : -infinite<Value>; }
    lists_.all_far(u);
    for (int i = 0; i < count; ++i) {
      int const slot = members[i];
      if (reaches(slot, limit)) { lists_.make_near(u, slot); }
    }
  }
  /// Whether moving a slot costs at most the limit of some column.
  [[nodiscard]] bool reaches(int slot, Value const* limit) const {
    float const* const row = rows_ + index_t{slot / fan_out_} * stride_;
    Value const own = static_cast<Value>(own_[slot]);
    bool any = false;
    for (int e = 0; e < stride_; ++e) { any |= own - static_cast<Value>(row[e]) <= limit[e]; }
    return any;
  }
  /// Let one slot of u offer its losses.
  void merge(int u, int slot) {
    offer(u, slot);
    finish_row(u);
  }
  void offer(int u, int slot) {
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
  member_lists lists_;
  integer* who_;
  Value* limit_;  // what moving a far slot costs at least, -inf where no far one can go
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
