// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What host and device text of the auction share: the grid of the scores, a token's bid, the order of phases.
#include <fairlead/core/assignment.hpp>
#include <fairlead/core/bfloat16.hpp>
#include <fairlead/core/workspace.hpp>

#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

inline constexpr std::uint32_t forbidden_step = 0xFFFFFFFFU;     // score of a pair that must not be used
inline constexpr std::uint32_t raises_bid = 0x80000000U;         // list entry of a holder who may raise its bid
inline constexpr std::uint32_t no_expert = 0xFFFFFFFFU;
inline constexpr std::int64_t no_value = std::numeric_limits<std::int64_t>::min();
inline constexpr index_t sum_lanes = 256;                        // partial sums of value and bound

// Largest finite number of a score type.
template <class Score>
inline constexpr float largest_auction_score = std::numeric_limits<float>::max();
template <>
inline constexpr float largest_auction_score<bfloat16> = std::bit_cast<float>(0x7F7F0000U);

// A score as the solver sees it: -inf for NaN, the largest finite number for +inf.
template <class Score>
[[nodiscard]] FAIRLEAD_HD inline float auction_score(Score score) noexcept {
  float const value = static_cast<float>(score);
  if (!(value > -std::numeric_limits<float>::infinity())) { return -std::numeric_limits<float>::infinity(); }
  return value < largest_auction_score<Score> ? value : largest_auction_score<Score>;
}

[[nodiscard]] FAIRLEAD_HD inline double power_of_two(int exponent) noexcept {
  return std::bit_cast<double>(static_cast<std::uint64_t>(exponent + 1023) << 52U);
}

// The grid on which scores become integers: score x scale, rounded to nearest even, plus offset. The scale is a power of
// two, so that products are exact, and fine enough for all bits of the largest scores.
struct auction_grid {
  double scale = 1.0;
  std::uint32_t offset = 0;

  // Prices stay below 8 (experts + 1)^2 2^bits, and must fit into 63 bits.
  [[nodiscard]] FAIRLEAD_HD static int bits_for(index_t experts) noexcept {
    int width = 0;
    while ((index_t{1} << width) < experts + 1) { ++width; }
    int const bits = 57 - 2 * width;
    return bits < 30 ? bits : 30;
  }
  [[nodiscard]] FAIRLEAD_HD static auction_grid of(float largest, index_t experts) noexcept {
    int const bits = bits_for(experts);
    auto const offset = std::uint32_t{1} << static_cast<unsigned>(bits);
    if (!(largest > 0.0F)) { return {power_of_two(bits + 149), offset}; }  // all zero: on any grid, so on the finest
    auto const pattern = std::bit_cast<std::uint64_t>(static_cast<double>(largest));
    int const exponent = static_cast<int>(pattern >> 52U) - 1022;  // largest < 2^exponent
    return {power_of_two(bits - exponent), offset};
  }
  [[nodiscard]] FAIRLEAD_HD std::uint32_t step(float score) const noexcept {
    constexpr double rounder = 6755399441055744.0;  // 1.5 x 2^52: the sum has no bits left of the point's right
    double const rounded = (static_cast<double>(score) * scale + rounder) - rounder;
    return static_cast<std::uint32_t>(static_cast<std::int64_t>(rounded) + static_cast<std::int64_t>(offset));
  }
};

// The best value of a row, who has it, and the best value of the others. `rank` counts experts from the token's own
// start: tied tokens spread over tied experts instead of all bidding for the first.
struct best_two {
  std::int64_t first = no_value;
  std::int64_t second = no_value;
  std::uint32_t rank = no_expert;

  FAIRLEAD_HD void see(std::int64_t value, std::uint32_t its_rank) noexcept {
    if (value > first || (value == first && its_rank < rank)) {
      second = first;
      first = value;
      rank = its_rank;
    } else if (value > second) {
      second = value;
    }
  }
  FAIRLEAD_HD void merge(best_two const& other) noexcept {
    bool const wins = other.first > first || (other.first == first && other.rank < rank);
    std::int64_t const loser = wins ? first : other.first;
    std::int64_t const behind = wins ? other.second : second;
    second = loser > behind ? loser : behind;
    if (wins) {
      first = other.first;
      rank = other.rank;
    }
  }
};

// How an auction stands, and what it does next.
enum class auction_step : std::uint32_t { round, open_phase, finish };

struct auction_control {
  std::int64_t factor = 1;       // score steps times this are the units of prices
  std::int64_t range = 0;        // of the scores, in units of prices
  std::int64_t epsilon = 1;
  std::int64_t floor_top = 0;    // highest price at the start of the phase
  std::int64_t limit = 0;        // a price that no feasible problem reaches
  std::int64_t bids = 0;         // rows looked at
  std::uint32_t rounds = 0;
  std::uint32_t phases = 0;      // complete ones
  std::uint32_t served = 0;      // experts with capacity
  std::uint32_t valid = 0;       // tokens that are not masked
  std::uint32_t unassigned = 0;
  std::uint32_t fresh = 0;       // first round of a phase: tokens prefer the expert of the phase before
  std::uint32_t rushed = 0;      // no time left: end the first phase anyhow
  std::uint32_t infeasible = 0;
  std::uint32_t begun = 0;
  std::uint32_t limited = 0;     // ended at the cap of rounds
  std::uint32_t list = 0;        // which list of active tokens is read
  std::uint32_t active = 0;      // its length
  std::uint32_t next_active = 0;
  std::uint32_t next_unassigned = 0;
  std::uint32_t cursor = 0;
  std::uint32_t in_grid = 0;     // device: the next round is run by the whole grid
  std::uint32_t finished = 0;    // device
  // Facts about the scores, collected first.
  std::uint32_t largest_bits = 0;                    // of |score| of pairs that may be used
  std::uint32_t least_step = 0xFFFFFFFFU;
  std::uint32_t most_step = 0;
  std::uint32_t idle_bits = 0;                       // ordered bits of the best score at experts without capacity
  std::uint32_t empty_rows = 0;                      // valid tokens that no expert may take

  FAIRLEAD_HD void set_limit() noexcept {
    // An unassigned token of a feasible problem reaches an expert with room over at most `served` others; each step of
    // that path costs at most range + epsilon (docs/algorithms/assign.md).
    limit = floor_top + static_cast<std::int64_t>(served) * (range + epsilon) + 1;
  }
  // First epsilon, from what is known about the scores.
  FAIRLEAD_HD void begin(index_t first_divisor) noexcept {
    factor = static_cast<std::int64_t>(served) + 1;
    range = most_step >= least_step ? static_cast<std::int64_t>(most_step - least_step) * factor : 0;
    std::int64_t const share = range / first_divisor;
    epsilon = share > 1 ? share : 1;
    begun = 1;
  }
  [[nodiscard]] FAIRLEAD_HD std::int64_t highest_floor() const noexcept {
    return static_cast<std::int64_t>(served) * (range + 1);
  }
  FAIRLEAD_HD void open_phase(std::int64_t top) noexcept {
    floor_top = top;
    set_limit();
    unassigned = valid;
    active = valid;
    list = 0;
    fresh = 1;
    next_active = next_unassigned = cursor = 0;
  }
  // Between two rounds.
  [[nodiscard]] FAIRLEAD_HD auction_step next(index_t divisor, index_t most_rounds) noexcept {
    if (infeasible != 0) { return auction_step::finish; }
    if (begun == 1) {
      begun = 2;
      return valid == 0 ? auction_step::finish : auction_step::open_phase;
    }
    if (unassigned == 0) {
      ++phases;
      limited = rushed;
      if (epsilon <= 1 || rushed != 0) { return auction_step::finish; }
      epsilon = epsilon / divisor > 1 ? epsilon / divisor : 1;
      return auction_step::open_phase;
    }
    if (static_cast<index_t>(rounds) >= most_rounds && rushed == 0) {
      if (phases > 0) {
        limited = 1;
        return auction_step::finish;
      }
      rushed = 1;
      epsilon = epsilon > range ? epsilon : range;
      set_limit();
    }
    return auction_step::round;
  }
  FAIRLEAD_HD void end_round() noexcept {
    bids += active;
    ++rounds;
    fresh = 0;
    active = next_active;
    unassigned = next_unassigned;
    next_active = next_unassigned = cursor = 0;
    list ^= 1U;
  }
};

// The price up to which a token wants an expert: there its value is epsilon below the best of the others.
[[nodiscard]] FAIRLEAD_HD inline std::int64_t highest_bid(auction_control const& control, std::int64_t price,
                                                          std::int64_t value, std::int64_t others) noexcept {
  if (others == no_value) { return control.limit; }
  std::int64_t const bid = price + (value - others) + control.epsilon;
  return bid < control.limit ? bid : control.limit;
}

// Memory of `problems` auctions of equal shape, one behind the other in each array.
struct auction_memory {
  std::uint32_t* steps;      // [tokens x experts] scores on the grid
  std::int64_t* price;       // [experts]
  std::int64_t* bid;         // [tokens] the last bid
  double* surplus;           // [tokens] best value - price at the end
  double* final_price;       // [experts]
  std::uint32_t* target;     // [tokens] the expert bid for
  std::uint32_t* complete;   // [tokens] the expert in the last complete phase
  std::uint32_t* active[2];  // [tokens] who bids in this round and in the next
  std::uint32_t* wanted;     // [tokens] device: the expert that entry i of the list bids for, none for raised bids
  std::uint32_t* hold;       // [tokens] holders, expert after expert
  std::uint32_t* list;       // [2 tokens] scratch
  std::uint32_t* capacity;   // [experts]
  std::uint32_t* offset;     // [experts] first holder
  std::uint32_t* held;       // [experts] number of holders
  std::uint32_t* count;      // [experts] bidders in this round
  std::uint32_t* raised;     // [experts] whether holders raised their bids
  auction_control* control;  // [1]
  index_t tokens;
  index_t experts;

  [[nodiscard]] static constexpr std::size_t bytes(index_t problems, index_t tokens, index_t experts) noexcept {
    return workspace_bytes<std::uint32_t>(problems * tokens * experts) +
           workspace_bytes<std::int64_t>(problems * experts) + workspace_bytes<std::int64_t>(problems * tokens) +
           workspace_bytes<double>(problems * tokens) + workspace_bytes<double>(problems * experts) +
           6 * workspace_bytes<std::uint32_t>(problems * tokens) + workspace_bytes<std::uint32_t>(2 * problems * tokens) +
           5 * workspace_bytes<std::uint32_t>(problems * experts) + workspace_bytes<auction_control>(problems);
  }
  [[nodiscard]] static auction_memory take(workspace& ws, index_t problems, index_t tokens, index_t experts) {
    auction_memory memory{};
    memory.tokens = tokens;
    memory.experts = experts;
    memory.steps = ws.take<std::uint32_t>(problems * tokens * experts).data();
    memory.price = ws.take<std::int64_t>(problems * experts).data();
    memory.bid = ws.take<std::int64_t>(problems * tokens).data();
    memory.surplus = ws.take<double>(problems * tokens).data();
    memory.final_price = ws.take<double>(problems * experts).data();
    for (std::uint32_t** const each : {&memory.target, &memory.complete, &memory.active[0], &memory.active[1],
                                      &memory.wanted, &memory.hold}) {
      *each = ws.take<std::uint32_t>(problems * tokens).data();
    }
    memory.list = ws.take<std::uint32_t>(2 * problems * tokens).data();
    for (std::uint32_t** const each : {&memory.capacity, &memory.offset, &memory.held, &memory.count, &memory.raised}) {
      *each = ws.take<std::uint32_t>(problems * experts).data();
    }
    memory.control = ws.take<auction_control>(problems).data();
    return memory;
  }
  // The part of one problem.
  [[nodiscard]] FAIRLEAD_HD auction_memory of(index_t problem) const noexcept {
    auction_memory part = *this;
    index_t const rows = problem * tokens;
    index_t const cols = problem * experts;
    part.steps += rows * experts;
    part.price += cols;
    part.bid += rows;
    part.surplus += rows;
    part.final_price += cols;
    part.target += rows;
    part.complete += rows;
    part.active[0] += rows;
    part.active[1] += rows;
    part.wanted += rows;
    part.hold += rows;
    part.list += 2 * rows;
    part.capacity += cols;
    part.offset += cols;
    part.held += cols;
    part.count += cols;
    part.raised += cols;
    part.control += problem;
    return part;
  }
};

// Where a token bids, and up to which price.
struct token_bid {
  std::uint32_t expert = no_expert;
  std::int64_t bid = 0;
};
// `seen` is the scan of the row, in ranks from `start`; `value_at(e)` the score less the price of e. A holder who raises
// its bid stays; in the first round of a phase a token stays where it was if that costs at most epsilon.
template <class ValueAt>
[[nodiscard]] FAIRLEAD_HD token_bid decide_bid(auction_control const& control, std::int64_t const* price,
                                               index_t experts, std::uint32_t start, best_two const& seen,
                                               std::uint32_t stays_at, bool raises, ValueAt const& value_at) noexcept {
  if (seen.first == no_value) { return {}; }
  std::uint32_t const shifted = seen.rank + start;
  std::uint32_t const best = shifted < static_cast<std::uint32_t>(experts) ? shifted : shifted - static_cast<std::uint32_t>(experts);
  if (stays_at != no_expert) {
    std::int64_t const value = value_at(stays_at);
    std::int64_t const others = stays_at == best ? seen.second : seen.first;
    if (raises || others == no_value || value >= others - control.epsilon) {
      return {stays_at, highest_bid(control, price[stays_at], value, others)};
    }
  }
  return {best, highest_bid(control, price[best], seen.first, seen.second)};
}

// Final price of an expert, in the unit of the scores; without capacity it is above every wish.
[[nodiscard]] FAIRLEAD_HD inline double price_in_scores(std::int64_t units, auction_control const& control,
                                                        auction_grid const& grid) noexcept {
  return static_cast<double>(units) / (static_cast<double>(control.factor) * grid.scale);
}
[[nodiscard]] FAIRLEAD_HD inline double idle_price(std::int64_t top, auction_control const& control,
                                                   auction_grid const& grid) noexcept {
  double const price = price_in_scores(top, control, grid);
  if (control.idle_bits == 0) { return price; }
  std::uint32_t const bits = control.idle_bits;  // the inverse of ordered_bits
  auto const best = std::bit_cast<float>((bits & 0x80000000U) != 0 ? bits & 0x7FFFFFFFU : ~bits);
  double const least = (static_cast<double>(control.least_step) - static_cast<double>(grid.offset) - 1.0) / grid.scale;
  double const above = static_cast<double>(best) - least;
  return price + (above > 0.0 ? above : 0.0);
}

// A price to start from, in units, at least 0 and at most the range.
[[nodiscard]] FAIRLEAD_HD inline bool is_finite_price(double price) noexcept {
  return price - price == 0.0;
}
[[nodiscard]] FAIRLEAD_HD inline std::int64_t warm_units(double price, double least, auction_control const& control,
                                                         auction_grid const& grid) noexcept {
  double const units = (price - least) * (static_cast<double>(control.factor) * grid.scale);
  if (!is_finite_price(price) || !(units > 0.0)) { return 0; }
  auto const range = static_cast<double>(control.range);
  return units < range ? static_cast<std::int64_t>(units) : control.range;
}

// What the result says. `value` and `bound` come out of sums in one fixed order: 256 partial sums and a tree.
[[nodiscard]] FAIRLEAD_HD inline assignment_report auction_report(auction_control const& control, double value,
                                                                  double bound) noexcept {
  assignment_report report;
  report.status = control.infeasible != 0 ? status::infeasible
                  : control.limited != 0  ? status::iteration_limit
                                          : status::ok;
  report.iterations = static_cast<index_t>(control.rounds);
  report.augmentations = control.bids;
  report.scans = 2 + (control.valid == 0 ? 0 : (control.bids + control.valid - 1) / static_cast<std::int64_t>(control.valid));
  if (control.infeasible == 0) {
    report.value = value;
    report.bound = bound;
  }
  return report;
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
