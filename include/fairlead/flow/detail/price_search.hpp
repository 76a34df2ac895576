// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Successive shortest paths on the graph of experts, many paths a search.
///
/// A node is an expert; with bounds there is one more, the sink. `loss(u, v)` is what it costs to move one copy from u to
/// v at best; `loss(u, v) - price(u) + price(v)` is never negative. A search grows shortest-path trees from every node
/// with too many copies, raises the prices of what it has settled, and moves copies along all tree paths that are still
/// shortest. Who moves is the mover's business: an engine keeps the losses.
#include <fairlead/flow/detail/vectors.hpp>
#include <fairlead/core/ids.hpp>
#include <fairlead/core/workspace.hpp>

#include <algorithm>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

enum class search_end {
  balanced,  ///< nothing is left to move
  stuck,     ///< no arc leaves what the trees have reached
  far,       ///< prices may not rise further
  limit      ///< too many searches
};

/// What the mover of a search must offer: the number of copies that can go from u to v now, and the move itself.
template <class Mover>
concept flow_mover = requires(Mover& mover, int node, index_t amount) {
  { mover.capacity(node, node) } -> std::same_as<index_t>;
  { mover.move(node, node, amount) } -> std::same_as<void>;
};

template <class Value>
class price_search {
 public:
  using integer = lane_integer<Value>;

  [[nodiscard]] static std::size_t bytes(int nodes) {
    int const stride = padded(nodes);
    return workspace_bytes<Value>(index_t{nodes} * stride) + workspace_bytes<Value>(stride) * 5 +
           workspace_bytes<integer>(stride) + workspace_bytes<int>(stride) * 3 + workspace_bytes<index_t>(stride) +
           workspace_bytes<std::uint8_t>(stride);
  }

  price_search(int nodes, workspace& ws)
      : nodes_(nodes),
        stride_(padded(nodes)),
        loss_(ws.take<Value>(index_t{nodes} * stride_).data()),
        price_(ws.take<Value>(stride_).data()),
        level_(ws.take<Value>(stride_).data()),
        key_(ws.take<Value>(stride_).data()),
        settled_level_(ws.take<Value>(stride_).data()),
        start_(ws.take<Value>(stride_).data()),
        parent_(ws.take<integer>(stride_).data()),
        root_(ws.take<int>(stride_).data()),
        order_(ws.take<int>(stride_).data()),
        sinks_(ws.take<int>(stride_).data()),
        excess_(ws.take<index_t>(stride_).data()),
        served_(ws.take<std::uint8_t>(stride_).data()) {
    clear();
  }
  /// No losses, prices zero, nothing to move.
  void clear() {
    std::fill_n(loss_, index_t{nodes_} * stride_, infinite<Value>);
    std::fill_n(price_, stride_, Value{0});
    std::fill_n(excess_, stride_, index_t{0});
    order_count_ = 0;
  }

  [[nodiscard]] int nodes() const noexcept { return nodes_; }
  [[nodiscard]] int stride() const noexcept { return stride_; }
  /// Row u: the least loss of a move from u to each node; +inf where there is none. Padding stays +inf.
  [[nodiscard]] Value* loss(int u) const noexcept { return loss_ + index_t{u} * stride_; }
  [[nodiscard]] Value* price() const noexcept { return price_; }
  /// Copies above (positive) or below (negative) what a node shall hold.
  [[nodiscard]] index_t* excess() const noexcept { return excess_; }
  [[nodiscard]] index_t augmentations() const noexcept { return augmentations_; }
  [[nodiscard]] index_t searches() const noexcept { return searches_; }

  /// Balance all nodes. Each search moves at least one copy all the way, so that the number of searches is bounded by the
  /// excess; `limit` guards against rounding. Rises of prices from where they started differ by at most
  /// `most_rise`.
  template <class Mover>
  search_end run(Mover& mover, Value most_rise = infinite<Value>) {
    static_assert(flow_mover<Mover>);
    std::copy_n(price_, stride_, start_);
    index_t limit = 64;
    for (int v = 0; v < nodes_; ++v) { limit += 2 * std::max<index_t>(excess_[v], 0); }
    for (index_t search = 0;; ++search) {
      int trees = 0;
      for (int v = 0; v < nodes_; ++v) { trees += excess_[v] > 0 ? 1 : 0; }
      if (trees == 0) { return search_end::balanced; }
      if (search >= limit) { return search_end::limit; }
      Value least_rise = infinite<Value>;
      for (int v = 0; v < nodes_; ++v) { least_rise = std::min(least_rise, price_[v] - start_[v]); }
      bool const far = grow(trees, most_rise + least_rise);
      if (sink_count_ > 0) { augment(mover); }
      if (far) { return search_end::far; }
      if (sink_count_ == 0) { return search_end::stuck; }
    }
  }

  /// Whether the last search settled a node. After a search that got stuck: no kept arc leaves the settled nodes.
  [[nodiscard]] bool settled(int node) const {
    return std::find(order_, order_ + order_count_, node) != order_ + order_count_;
  }
  /// Raise the prices of all settled nodes.
  void raise_settled(Value step) {
    for (int i = 0; i < order_count_; ++i) { price_[order_[i]] += step; }
  }

 private:
  /// Settle nodes by (distance, id) until half of the trees have reached a node that lacks copies, or until a
  /// price would rise too far: then true.
  bool grow(int trees, Value most_rise) {
    ++searches_;
    for (int v = 0; v < stride_; ++v) {
      level_[v] = infinite<Value>;
      key_[v] = infinite<Value>;
    }
    order_count_ = 0;
    sink_count_ = 0;
    int root_count = 0;
    for (int v = 0; v < nodes_; ++v) {
      if (excess_[v] <= 0) { continue; }
      level_[v] = -price_[v];
      key_[v] = Value{0};
      parent_[v] = -1;
      root_[v] = v;
      served_[v] = 0;
      if (root_count++ == 0) { next_ = v; }
    }
    int found = 0;
    bool far = false;
    Value distance{0};
    Value farthest = infinite<Value>;
    for (;;) {
      int const u = next_;
      Value const level = level_[u];
      if (parent_[u] >= 0) { root_[u] = root_[parent_[u]]; }
      order_[order_count_++] = u;
      settled_level_[u] = level;
      farthest = std::min(farthest, most_rise + start_[u] + level);
      key_[u] = infinite<Value>;
      level_[u] = -infinite<Value>;
      if (excess_[u] < 0) {
        sinks_[sink_count_++] = u;
        std::uint8_t& served = served_[root_[u]];
        found += served == 0 ? 1 : 0;
        served = 1;
        if (2 * found >= trees) { break; }
      }
      Value const nearest = relax(u, level, distance);
      if (!(nearest < infinite<Value>)) { break; }
      far = nearest > farthest;
      distance = far ? std::max(farthest, distance) : nearest;
      if (far) { break; }
    }
    for (int i = 0; i < order_count_; ++i) {
      int const v = order_[i];
      price_[v] = distance - settled_level_[v];
    }
    return far;
  }

  /// Reach further from u, and find the nearest node that is not settled (lowest id on ties).
  Value relax(int u, Value level, Value distance) {
    Value const* const row = loss(u);
#if FAIRLEAD_DETAIL_VECTORS
    using kind = vector_of<Value>;
    using vector = typename kind::type;
    using mask = typename kind::mask;
    vector const zero = {};
    mask const zero_id = {};
    vector const at = zero + level;
    vector const here = zero + distance;
    mask const from = zero_id + static_cast<integer>(u);
    vector best = zero + infinite<Value>;
    mask where = zero_id;
    mask block = zero_id;
    for (int i = 0; i < stride_; i += kind::lanes) {
      vector const reached = at + load_lanes<vector>(row + i);
      vector const old = load_lanes<vector>(level_ + i);
      mask const nearer = reached < old;
      vector const far = reached + load_lanes<vector>(price_ + i);
      vector const clamped = far > here ? far : here;  // rounding must not undercut what is settled
      vector const key = nearer ? clamped : load_lanes<vector>(key_ + i);
      store_lanes(level_ + i, nearer ? reached : old);
      store_lanes(key_ + i, key);
      store_lanes(parent_ + i, nearer ? from : load_lanes<mask>(parent_ + i));
      mask const wins = key < best;
      best = wins ? key : best;
      where = wins ? block : where;
      block += kind::lanes;
    }
    Value nearest = infinite<Value>;
    int id = stride_;
    unsigned hits = equals_least(best, nearest);
    for (; hits != 0; hits &= hits - 1) {
      int const lane = __builtin_ctz(hits);
      id = std::min(id, static_cast<int>(where[lane]) + lane);
    }
    next_ = id;
    return nearest;
#else
    Value nearest = infinite<Value>;
    next_ = 0;
    for (int i = 0; i < stride_; ++i) {
      Value const reached = level + row[i];
      if (reached < level_[i]) {
        level_[i] = reached;
        key_[i] = std::max(reached + price_[i], distance);
        parent_[i] = u;
      }
      if (key_[i] < nearest) {
        nearest = key_[i];
        next_ = i;
      }
    }
    return nearest;
#endif
  }

  /// Whether the arc into v on its tree path is still a shortest one.
  [[nodiscard]] bool still_shortest(int v) const {
    int const u = static_cast<int>(parent_[v]);
    return settled_level_[u] + loss(u)[v] <= settled_level_[v];
  }

  template <class Mover>
  void augment(Mover& mover) {
    for (int i = 0; i < sink_count_; ++i) {
      int const sink = sinks_[i];
      int const root = root_[sink];
      index_t amount = std::min(excess_[root], -excess_[sink]);
      if (amount <= 0) { continue; }
      bool open = true;
      for (int v = sink; v != root && open; v = static_cast<int>(parent_[v])) {
        open = still_shortest(v);
        amount = std::min(amount, open ? mover.capacity(static_cast<int>(parent_[v]), v) : 0);
      }
      if (!open || amount <= 0) { continue; }
      ++augmentations_;
      // From the sink up: should rounding close an arc on the way, what was moved is still counted right.
      for (int v = sink; v != root && still_shortest(v); v = static_cast<int>(parent_[v])) {
        int const u = static_cast<int>(parent_[v]);
        mover.move(u, v, amount);
        excess_[u] -= amount;
        excess_[v] += amount;
      }
    }
  }

  int nodes_;
  int stride_;
  Value* loss_;
  Value* price_;
  Value* level_;
  Value* key_;
  Value* settled_level_;
  Value* start_;
  integer* parent_;
  int* root_;
  int* order_;
  int* sinks_;
  index_t* excess_;
  std::uint8_t* served_;
  int next_ = 0;
  int order_count_ = 0;
  int sink_count_ = 0;
  index_t augmentations_ = 0;
  index_t searches_ = 0;
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
