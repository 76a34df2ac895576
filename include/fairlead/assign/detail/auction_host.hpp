// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The host text of the auction: one problem, its bids in parallel, its experts in order.
#include <fairlead/assign/detail/auction_rules.hpp>
#include <fairlead/concepts/execution_backend.hpp>
#include <fairlead/core/order.hpp>

#include <algorithm>
#include <cmath>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

inline constexpr index_t auction_block = 256;  // rows of one call of a parallel loop
[[nodiscard]] constexpr index_t auction_blocks(index_t rows) noexcept { return (rows + auction_block - 1) / auction_block; }

template <class Score>
struct auction_input {
  matrix_view<Score const> scores;
  index_t const* capacity = nullptr;
  std::uint8_t const* mask = nullptr;  // or null
  double const* warm = nullptr;        // or null
};

// Rows to the grid.
template <class Score>
struct quantise_rows {
  auction_input<Score> in;
  auction_memory memory;
  auction_grid grid;
  void operator()(index_t block) const {
    index_t const last = std::min((block + 1) * auction_block, memory.tokens);
    for (index_t t = block * auction_block; t < last; ++t) {
      std::uint32_t* const steps = memory.steps + t * memory.experts;
      bool const valid = in.mask == nullptr || in.mask[t] != 0;
      for (index_t e = 0; e < memory.experts; ++e) {
        float const score = auction_score(in.scores(t, e));
        steps[e] = valid && memory.capacity[e] != 0 && is_candidate(score) ? grid.step(score) : forbidden_step;
      }
    }
  }
};

// Bids of some active tokens; prices stand still meanwhile.
struct bid_rows {
  auction_memory memory;
  auction_control control;
  void operator()(index_t block) const {
    index_t const last = std::min((block + 1) * auction_block, static_cast<index_t>(control.active));
    for (index_t i = block * auction_block; i < last; ++i) { bid(memory.active[control.list][i]); }
  }
  void bid(std::uint32_t entry) const {
    bool const raises = (entry & raises_bid) != 0;
    std::uint32_t const t = entry & ~raises_bid;
    auto const experts = static_cast<std::uint32_t>(memory.experts);
    std::uint32_t const* const steps = memory.steps + static_cast<index_t>(t) * memory.experts;
    auto const value_at = [&](std::uint32_t e) {
      return static_cast<std::int64_t>(steps[e]) * control.factor - memory.price[e];
    };
    std::uint32_t const start = t % experts;
    best_two const seen = scan(steps, experts, start);
    std::uint32_t const stays_at = raises                ? memory.target[t]
                                   : control.fresh != 0 && control.phases > 0 ? memory.complete[t]
                                                                              : no_expert;
    auto const decided = decide_bid(control, memory.price, memory.experts, start, seen, stays_at, raises, value_at);
    if (raises) {
      memory.bid[t] = std::max(memory.bid[t], decided.bid);
    } else {
      memory.target[t] = decided.expert;
      memory.bid[t] = decided.bid;
    }
  }
  // In three passes over a piece of the row that a compiler turns into vectors: values and their best, who has it (from
  // the token's own start on), the best of the others.
  [[nodiscard]] best_two scan(std::uint32_t const* steps, std::uint32_t experts, std::uint32_t start) const {
    constexpr std::uint32_t piece = 128;
    std::int64_t const factor = control.factor;
    std::int64_t values[piece];
    best_two best;
    for (std::uint32_t first = 0; first < experts; first += piece) {
      std::uint32_t const count = std::min(piece, experts - first);
      best_two here;
      std::uint32_t const* const step = steps + first;
      std::int64_t const* const price = memory.price + first;
      std::int64_t largest = no_value;
      for (std::uint32_t i = 0; i < count; ++i) {
        auto const wide = static_cast<std::int64_t>(step[i]);
        std::int64_t const worth = wide * factor - price[i];
        values[i] = wide == static_cast<std::int64_t>(forbidden_step) ? no_value : worth;
      }
      for (std::uint32_t i = 0; i < count; ++i) { largest = values[i] > largest ? values[i] : largest; }
      here.first = largest;
      if (here.first == no_value || here.first < best.second) { continue; }
      std::uint32_t holder = start > first && start < first + count ? start - first : 0;
      while (values[holder] != here.first) { holder = holder + 1 < count ? holder + 1 : 0; }
      values[holder] = no_value;
      std::int64_t second = no_value;
      for (std::uint32_t i = 0; i < count; ++i) { second = values[i] > second ? values[i] : second; }
      here.second = second;
      here.rank = first + holder >= start ? first + holder - start : first + holder + experts - start;
      best.merge(here);
    }
    return best;
  }
};

// Best value - price of each token, for the bound.
template <class Score>
struct surplus_rows {
  auction_input<Score> in;
  auction_memory memory;
  void operator()(index_t block) const {
    index_t const last = std::min((block + 1) * auction_block, memory.tokens);
    for (index_t t = block * auction_block; t < last; ++t) {
      double best = 0.0;
      bool any = false;
      for (index_t e = 0; e < memory.experts && (in.mask == nullptr || in.mask[t] != 0); ++e) {
        float const score = auction_score(in.scores(t, e));
        if (!is_candidate(score)) { continue; }
        double const value = static_cast<double>(score) - memory.final_price[e];
        best = any && best >= value ? best : value;
        any = true;
      }
      memory.surplus[t] = best;
    }
  }
};

// Rounds of bids of one problem. Every step is a function of sets, so that a device reaches the same state.
template <class Score, class Policy>
class host_auction {
 public:
  host_auction(Policy const& policy, auction_input<Score> const& in, auction_memory const& memory)
      : policy_(policy), in_(in), memory_(memory), state_(*memory.control) {}

  template <class Backend>
  assignment_report solve(Backend const& on, matrix_view<expert_id> owner, std::span<double> prices) {
    state_ = auction_control{};
    auction_grid const grid = prepare(on);
    bool more = true;
    while (more) {
      switch (state_.next(policy_.divisor, policy_.most_rounds)) {
        case auction_step::round: round(on); break;
        case auction_step::open_phase: open_phase(); break;
        case auction_step::finish: more = false; break;
      }
    }
    return finish(on, grid, owner, prices);
  }

 private:
  [[nodiscard]] bool valid(index_t t) const { return in_.mask == nullptr || in_.mask[t] != 0; }

  template <class Backend>
  auction_grid prepare(Backend const& on) {
    index_t copies = 0;
    float largest = 0.0F;
    for (index_t e = 0; e < memory_.experts; ++e) {
      index_t const capacity = std::min(in_.capacity[e], memory_.tokens + 1);
      memory_.capacity[e] = static_cast<std::uint32_t>(capacity);
      memory_.offset[e] = static_cast<std::uint32_t>(std::min(copies, memory_.tokens));
      copies += capacity;
      state_.served += capacity > 0 ? 1 : 0;
    }
    for (index_t t = 0; t < memory_.tokens; ++t) {
      if (!valid(t)) { continue; }
      ++state_.valid;
      for (index_t e = 0; e < memory_.experts; ++e) {
        float const score = auction_score(in_.scores(t, e));
        if (!is_candidate(score)) { continue; }
        if (memory_.capacity[e] == 0) {
          state_.idle_bits = std::max(state_.idle_bits, ordered_bits(score));
        } else {
          largest = std::max(largest, std::fabs(score));
        }
      }
    }
    auto const grid = auction_grid::of(largest, memory_.experts);
    on.for_each(auction_blocks(memory_.tokens), quantise_rows<Score>{in_, memory_, grid});
    for (index_t t = 0; t < memory_.tokens; ++t) {
      std::uint32_t least = forbidden_step;
      for (index_t e = 0; e < memory_.experts; ++e) {
        std::uint32_t const step = memory_.steps[t * memory_.experts + e];
        least = std::min(least, step);
        state_.most_step = std::max(state_.most_step, step == forbidden_step ? 0U : step);
      }
      state_.least_step = std::min(state_.least_step, least);
      if (least == forbidden_step && valid(t)) { state_.infeasible = 1; }
    }
    if (copies != static_cast<index_t>(state_.valid)) { state_.infeasible = 1; }
    state_.begin(in_.warm != nullptr ? policy_.warm_divisor : policy_.first_divisor);
    start_prices(grid);
    return grid;
  }

  // Warm prices, lifted so that the least is 0 and cut at the range: no optimal prices are further apart unless pairs
  // are forbidden.
  void start_prices(auction_grid const& grid) {
    double least = 0.0;
    bool any = false;
    for (index_t e = 0; e < memory_.experts && in_.warm != nullptr; ++e) {
      if (memory_.capacity[e] == 0 || !is_finite_price(in_.warm[e])) { continue; }
      least = any && least <= in_.warm[e] ? least : in_.warm[e];
      any = true;
    }
    for (index_t e = 0; e < memory_.experts; ++e) {
      memory_.price[e] = in_.warm == nullptr ? 0 : warm_units(in_.warm[e], least, state_, grid);
    }
  }

  void open_phase() {
    std::int64_t const least = least_price();
    std::int64_t const highest = state_.highest_floor();
    std::int64_t top = 0;
    for (index_t e = 0; e < memory_.experts; ++e) {
      memory_.price[e] = std::min(memory_.price[e] - least, highest);
      if (memory_.capacity[e] != 0) { top = std::max(top, memory_.price[e]); }
      memory_.held[e] = memory_.count[e] = memory_.raised[e] = 0;
    }
    std::uint32_t entries = 0;
    for (index_t t = 0; t < memory_.tokens; ++t) {
      if (state_.phases > 0) { memory_.complete[t] = memory_.target[t]; }
      if (valid(t)) { memory_.active[0][entries++] = static_cast<std::uint32_t>(t); }
    }
    state_.open_phase(top);
  }

  template <class Backend>
  void round(Backend const& on) {
    index_t const active = state_.active;
    bid_rows const bids{memory_, state_};
    if (active > auction_block) {
      on.for_each(auction_blocks(active), bids);
    } else {
      bids(0);
    }
    std::uint32_t const* const entries = memory_.active[state_.list];
    for (index_t i = 0; i < active; ++i) {
      std::uint32_t const t = entries[i] & ~raises_bid;
      std::uint32_t const e = memory_.target[t];
      if ((entries[i] & raises_bid) != 0) {
        memory_.raised[e] = 1;
      } else if (e == no_expert || memory_.price[e] >= state_.limit) {
        state_.infeasible = 1;
        return;
      } else {
        ++memory_.count[e];
      }
    }
    // Bidders, expert after expert, behind the place where an expert's holders are compared with them.
    std::uint32_t* const bidders = memory_.list + memory_.tokens;
    std::uint32_t place = 0;
    for (index_t e = 0; e < memory_.experts; ++e) {
      std::uint32_t const count = memory_.count[e];
      memory_.count[e] = place;
      place += count;
    }
    for (index_t i = 0; i < active; ++i) {
      if ((entries[i] & raises_bid) == 0) { bidders[memory_.count[memory_.target[entries[i]]]++] = entries[i]; }
    }
    std::uint32_t first = 0;
    for (index_t e = 0; e < memory_.experts; ++e) {
      std::uint32_t const last = memory_.count[e];
      if (last != first || memory_.raised[e] != 0) { settle(e, bidders + first, last - first); }
      memory_.count[e] = memory_.raised[e] = 0;
      first = last;
    }
    state_.end_round();
  }

  // The best `capacity` bids of holders and bidders stay; the price is the least of them once all places are taken.
  void settle(index_t e, std::uint32_t const* bidders, std::uint32_t count) {
    std::uint32_t const capacity = memory_.capacity[e];
    std::uint32_t* const hold = memory_.hold + memory_.offset[e];
    std::uint32_t& held = memory_.held[e];
    std::uint32_t* const next = memory_.active[state_.list ^ 1U];
    std::int64_t const* const bid = memory_.bid;
    std::uint32_t rejected = 0;
    if (held + count <= capacity) {
      std::copy(bidders, bidders + count, hold + held);
      held += count;
    } else if (count == 1) {
      // The common case at the end of a phase needs no selection, only the worst holder.
      std::uint32_t worst = 0;
      for (std::uint32_t i = 1; i < capacity; ++i) { worst = wins(hold[worst], hold[i]) ? i : worst; }
      bool const better = wins(bidders[0], hold[worst]);
      next[state_.next_active++] = better ? hold[worst] : bidders[0];
      if (better) { hold[worst] = bidders[0]; }
      rejected = 1;
    } else {
      std::uint32_t* const all = memory_.list;  // bidders and holders are different tokens: they fit into one half
      rejected = held + count - capacity;
      std::copy(hold, hold + held, all);
      std::copy(bidders, bidders + count, all + held);
      std::nth_element(all, all + capacity, all + held + count, [&](auto a, auto b) { return wins(a, b); });
      std::copy(all, all + capacity, hold);
      for (std::uint32_t i = 0; i < rejected; ++i) { next[state_.next_active++] = all[capacity + i]; }
      held = capacity;
    }
    state_.next_unassigned += rejected;
    if (held < capacity) { return; }
    std::int64_t price = bid[hold[0]];
    for (std::uint32_t i = 1; i < capacity; ++i) { price = std::min(price, bid[hold[i]]); }
    memory_.price[e] = price;
    if (rejected == 0) { return; }
    for (std::uint32_t i = 0; i < capacity; ++i) {
      if (bid[hold[i]] <= price + state_.epsilon) { next[state_.next_active++] = hold[i] | raises_bid; }
    }
  }
  [[nodiscard]] bool wins(std::uint32_t a, std::uint32_t b) const {
    return memory_.bid[a] != memory_.bid[b] ? memory_.bid[a] > memory_.bid[b] : a < b;
  }
  [[nodiscard]] std::int64_t least_price() const {
    std::int64_t least = std::numeric_limits<std::int64_t>::max();
    for (index_t e = 0; e < memory_.experts; ++e) {
      if (memory_.capacity[e] != 0) { least = std::min(least, memory_.price[e]); }
    }
    return least;
  }

  template <class Backend>
  assignment_report finish(Backend const& on, auction_grid const& grid, matrix_view<expert_id> owner,
                           std::span<double> prices) {
    bool const solved = state_.infeasible == 0;
    bool const current = state_.limited == 0 || state_.rushed != 0;
    std::uint32_t const* const answer = current ? memory_.target : memory_.complete;
    for (index_t t = 0; t < memory_.tokens; ++t) {
      owner(t, 0) = solved && valid(t) ? static_cast<expert_id>(static_cast<std::int32_t>(answer[t])) : expert_id::none;
    }
    set_final_prices(grid, solved && state_.valid > 0);
    std::copy(memory_.final_price, memory_.final_price + (prices.empty() ? 0 : memory_.experts), prices.begin());
    on.for_each(auction_blocks(memory_.tokens), surplus_rows<Score>{in_, memory_});
    return report(owner);
  }
  [[nodiscard]] assignment_report report(matrix_view<expert_id const> owner) const {
    double value[sum_lanes] = {};
    double bound[sum_lanes] = {};
    for (index_t t = 0; t < memory_.tokens; ++t) {
      index_t const e = to_index(owner(t, 0));
      if (e >= 0) { value[t % sum_lanes] += static_cast<double>(auction_score(in_.scores(t, e))); }
      bound[t % sum_lanes] += memory_.surplus[t];
    }
    for (index_t e = 0; e < memory_.experts; ++e) {
      double& lane = bound[e % sum_lanes];
      lane = std::fma(static_cast<double>(memory_.capacity[e]), memory_.final_price[e], lane);
    }
    for (index_t width = sum_lanes / 2; width > 0; width /= 2) {
      for (index_t i = 0; i < width; ++i) {
        value[i] += value[i + width];
        bound[i] += bound[i + width];
      }
    }
    return auction_report(state_, value[0], bound[0]);
  }
  void set_final_prices(auction_grid const& grid, bool solved) {
    std::int64_t const least = solved ? least_price() : 0;
    std::int64_t top = 0;
    for (index_t e = 0; e < memory_.experts && solved; ++e) {
      if (memory_.capacity[e] != 0) { top = std::max(top, memory_.price[e] - least); }
    }
    for (index_t e = 0; e < memory_.experts; ++e) {
      memory_.final_price[e] = !solved                     ? 0.0
                               : memory_.capacity[e] != 0 ? price_in_scores(memory_.price[e] - least, state_, grid)
                                                          : idle_price(top, state_, grid);
    }
  }

  Policy policy_;
  auction_input<Score> in_;
  auction_memory memory_;
  auction_control& state_;
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
