// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Convex costs of the servers' counts as the demand of the exact transport solver.
#include <fairlead/flow/detail/transport_solve.hpp>

#include <cmath>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// A caller's marginal costs in the unit of the scores, below a level that most servers share.
///
/// A common level changes nothing, as the number of copies is fixed; without it fp32 keeps its digits for what differs.
/// +inf and NaN close a server for further copies; numbers beyond 1e30 scores count as 1e30.
template <class Marginal>
struct scaled_marginal {
  static constexpr double most = 1e30;
  Marginal const* marginal = nullptr;
  expert_id const* order = nullptr;  ///< server of a column, or null
  double level = 0.0;
  double unit = 1.0;

  [[nodiscard]] index_t server(index_t column) const { return order == nullptr ? column : to_index(order[column]); }
  /// Of one more copy beyond `copies`, in the caller's unit.
  [[nodiscard]] double raw(index_t column, index_t copies) const {
    auto const cost = static_cast<double>((*marginal)(server(column), copies));
    return cost == cost ? cost : infinite<double>;
  }
  [[nodiscard]] double operator()(index_t column, index_t copies) const {
    double const cost = raw(column, copies);
    return cost < infinite<double> ? std::clamp((cost - level) / unit, -most, most) : infinite<double>;
  }
};

/// Each server sends its copies to the sink; the next one costs its marginal.
template <class Marginal>
struct convex_sinks {
  int experts = 0;
  int sink = 0;
  scaled_marginal<Marginal> const* cost = nullptr;
  index_t tokens = 0;       ///< of the whole problem
  index_t size = 0;         ///< tokens of the sample: the most copies a server can hold
  index_t* sent = nullptr;  ///< copies a server sends. @shape{experts}
  double* up = nullptr;     ///< cost of one copy more. @shape{experts}
  double* down = nullptr;   ///< cost of the last copy. @shape{experts}

  /// Of the copy after `copies`. In a sample one copy stands for several.
  [[nodiscard]] double marginal(int server, index_t copies) const {
    return (*cost)(server, size == tokens ? copies : (2 * copies + 1) * tokens / (2 * size));
  }
  /// Send what the prices ask for.
  template <class Value>
  void start(price_search<Value>& search, index_t const* held, index_t copies) const {
    // A price that was found as a marginal may have lost its last digits since.
    double const lost = 16.0 * static_cast<double>(std::numeric_limits<Value>::epsilon());
    double const level = static_cast<double>(search.price()[sink]);
    index_t total = 0;
    for (int e = 0; e < experts; ++e) {
      double const price = static_cast<double>(search.price()[e]) - level;
      double const slack = lost * (std::abs(static_cast<double>(search.price()[e])) + std::abs(level));
      index_t const n = offer(e, price, held[e], slack);
      sent[e] = n;
      search.excess()[e] = held[e] - n;
      total += n;
      renew(e);
      refresh(search, e);
    }
    search.excess()[sink] = total - copies;
  }
  /// What a server offers at a price: of a range of equally good numbers the one nearest to what is wanted.
  [[nodiscard]] index_t offer(int server, double price, index_t wanted, double slack = 0.0) const {
    if (wanted > 0 && marginal(server, wanted - 1) > price + slack) {
      return boundary(server, 0, wanted - 1, [&](double c) { return c <= price + slack; });
    }
    if (wanted < size && marginal(server, wanted) < price - slack) {
      return boundary(server, wanted + 1, size, [&](double c) { return c < price - slack; });
    }
    return wanted;
  }
  [[nodiscard]] double room(int server, index_t held) const {
    return held < size ? -marginal(server, held) : -infinite<double>;
  }
  template <class Value>
  void refresh(price_search<Value>& search, int server) const {
    search.loss(server)[sink] = static_cast<Value>(up[server]);
    search.loss(sink)[server] = static_cast<Value>(-down[server]);
  }
  [[nodiscard]] bool touches(int u, int v) const noexcept { return u == sink || v == sink; }
  /// Copies that move at the cost of the first.
  [[nodiscard]] index_t capacity(int u, int v) const {
    if (v == sink) {
      index_t const n = sent[u];
      double const first = up[u];
      return n >= size ? 0 : boundary(u, n + 1, size, [&](double c) { return c <= first; }) - n;
    }
    index_t const n = sent[v];
    double const last = down[v];
    return n == 0 ? 0 : n - boundary(v, 0, n - 1, [&](double c) { return c < last; });
  }
  template <class Value>
  void move(price_search<Value>& search, int u, int v, index_t amount) const {
    int const server = v == sink ? u : v;
    sent[server] += v == sink ? amount : -amount;
    renew(server);
    refresh(search, server);
  }

 private:
  void renew(int server) const {
    index_t const n = sent[server];
    up[server] = n < size ? marginal(server, n) : infinite<double>;
    // Marginals that should be equal may differ in the last digit, downwards too: no gain from there and back.
    down[server] = n > 0 ? std::min(marginal(server, n - 1), up[server]) : -infinite<double>;
  }
  /// The first number of copies in [begin, end] whose next copy does not pass; most often it is near `begin`.
  template <class Passes>
  [[nodiscard]] index_t boundary(int server, index_t begin, index_t end, Passes const& passes) const {
    index_t step = 1;
    while (begin < end) {
      index_t const probe = step > 0 ? std::min(begin + step, end) - 1 : begin + (end - begin) / 2;
      if (passes(marginal(server, probe))) {
        begin = probe + 1;
        step *= 2;
      } else {
        end = probe;
        step = 0;
      }
    }
    return begin;
  }
};

template <class Marginal>
class convex_demand {
 public:
  using sinks_type = convex_sinks<Marginal>;
  /// Scores count for little beside steep costs: what is near a token's choice is then everything, and no window helps.
  static constexpr bool all_pairs = true;

  convex_demand(scaled_marginal<Marginal> const& cost, int servers) : cost_(cost), servers_(servers) {}

  [[nodiscard]] static std::size_t bytes(int stride) {
    return workspace_bytes<index_t>(stride) + workspace_bytes<double>(stride) * 2;
  }
  [[nodiscard]] bool has_sink() const noexcept { return true; }
  bool take(index_t tokens, int stride, workspace& ws) {
    tokens_ = tokens;
    sent_ = ws.take<index_t>(stride).data();
    up_ = ws.take<double>(stride).data();
    down_ = ws.take<double>(stride).data();
    return true;
  }
  [[nodiscard]] sinks_type whole() const { return sample(tokens_); }
  [[nodiscard]] sinks_type sample(index_t size) const {
    return {servers_, servers_, &cost_, tokens_, size, sent_, up_, down_};
  }
  /// The certificate is made from the caller's numbers, not from the scaled ones.
  [[nodiscard]] double slack(double const*) const { return 0.0; }

 private:
  scaled_marginal<Marginal> const& cost_;
  int servers_;
  index_t tokens_ = 0;
  index_t* sent_ = nullptr;
  double* up_ = nullptr;
  double* down_ = nullptr;
};

/// A level near what a copy costs where it is balanced, and the unit: the scale, or where that is nothing beside the
/// costs, a fraction of these.
template <class Marginal>
void set_level(scaled_marginal<Marginal>& cost, index_t servers, index_t tokens, index_t copies, double scale,
               std::span<double> scratch) {
  index_t const typical = std::min(tokens - 1, copies / servers);
  auto const smallest = [&](index_t at, index_t rank) {
    index_t count = 0;
    for (index_t j = 0; j < servers; ++j) {
      double const value = cost.raw(j, at);
      if (std::abs(value) < infinite<double>) { scratch[static_cast<std::size_t>(count++)] = value; }
    }
    if (count == 0) { return 0.0; }
    auto const wanted = scratch.begin() + std::min(rank, count - 1);
    std::nth_element(scratch.begin(), wanted, scratch.begin() + count);
    return *wanted;
  };
  // Penalties in place of capacities must not set the level: small differences would drown in them. Each token needs
  // fan_out servers, so that as many first copies are paid for at least.
  double const least = smallest(0, copies / tokens - 1);
  cost.level = smallest(typical, (servers - 1) / 2);
  if (std::abs(cost.level) > 0x1p20 * (std::abs(least) + scale)) { cost.level = least; }
  // The largest, not a median: what is clamped to `most` cannot be told apart.
  double largest = 0.0;
  auto const look = [&](index_t at) {
    for (index_t j = 0; j < servers; ++j) {
      double const size = std::abs(cost.raw(j, at) - cost.level);
      if (size < infinite<double>) { largest = std::max(largest, size); }
    }
  };
  look(0);
  look(typical);
  // Without scores every step counts; beside scores those that nobody reaches may be clamped.
  if (scale == 0.0) { look(tokens - 1); }
  cost.unit = scale > 0.0 ? std::max(scale, largest * 0x1p-90) : largest > 0.0 ? largest : 1.0;
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
