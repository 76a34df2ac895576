// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The phases of `distributed_flow`: an expert graph that all ranks hold alike, rows that each holds alone.
#include <fairlead/assign/detail/distributed_passes.hpp>
#include <fairlead/concepts/assignment_solver.hpp>
#include <fairlead/concepts/communicator.hpp>
#include <fairlead/core/assignment.hpp>
#include <fairlead/core/workspace.hpp>
#include <fairlead/flow/token_runs.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

[[nodiscard]] constexpr std::size_t distributed_run_bytes(index_t runs, index_t experts, index_t fan_out, index_t ranks,
                                                          index_t rows_per_message) noexcept {
  index_t const nodes = experts + 1;
  index_t const packet_rows = std::min(rows_per_message, std::max<index_t>(experts, 1));
  return workspace_bytes<double>(experts * experts) + workspace_bytes<double>(packet_rows * experts) +
         workspace_bytes<double>(runs * (experts + fan_out + 1)) + workspace_bytes<std::int64_t>(runs * experts) +
         2 * workspace_bytes<double>(nodes) + 3 * workspace_bytes<std::int64_t>(nodes) +
         workspace_bytes<std::int64_t>(runs * 4) + 2 * workspace_bytes<index_t>(nodes) +
         workspace_bytes<std::int64_t>((ranks + 2) * nodes) + 7 * workspace_bytes<std::int32_t>(nodes) +
         workspace_bytes<expert_id>(fan_out);
}

template <class Backend, class Comm, class Score>
class distributed_run {
 public:
  distributed_run(Backend const& on, Comm& comm, assignment_problem<Score> const& problem,
                  assignment_result const& result, workspace& ws, index_t rows_per_message)
      : on_(on),
        comm_(comm),
        experts_(problem.experts()),
        sink_(problem.experts()),
        equality_(problem.equality()),
        packet_rows_(std::min(rows_per_message, std::max<index_t>(experts_, 1))),
        warm_(problem.warm_prices),
        lower_(problem.lower),
        given_upper_(problem.upper),
        result_(result) {
    index_t const runs = token_runs{problem.tokens()}.count();
    index_t const nodes = experts_ + 1;
    pass_.scores = problem.scores;
    pass_.mask = problem.token_mask;
    pass_.owner = result.owner;
    pass_.fan_out = problem.fan_out;
    rows_ = ws.take<double>(experts_ * experts_);
    packet_ = ws.take<double>(packet_rows_ * experts_);
    pass_.keys = ws.take<double>(runs * (experts_ + problem.fan_out + 1)).data();
    pass_.sums = ws.take<std::int64_t>(runs * experts_).data();
    price_ = ws.take<double>(nodes);
    distance_ = ws.take<double>(nodes);
    load_ = ws.take<std::int64_t>(nodes);
    through_ = ws.take<std::int64_t>(nodes);
    surplus_ = ws.take<std::int64_t>(nodes);
    pass_.found = ws.take<std::int64_t>(runs * 4).data();
    upper_ = ws.take<index_t>(nodes);
    ends_ = ws.take<index_t>(nodes);
    std::span<std::int64_t> const counts = ws.take<std::int64_t>((comm.size() + 2) * nodes);
    mine_ = counts.first(static_cast<std::size_t>(nodes));
    take_ = counts.subspan(static_cast<std::size_t>(nodes), static_cast<std::size_t>(nodes));
    all_ = counts.subspan(static_cast<std::size_t>(2 * nodes));
    parent_ = ws.take<std::int32_t>(nodes);
    next_ = ws.take<std::int32_t>(nodes);
    tail_ = ws.take<std::int32_t>(nodes);
    settled_ = ws.take<std::int32_t>(nodes);
    used_ = ws.take<std::int32_t>(nodes);
    dirty_ = ws.take<std::int32_t>(nodes);
    list_ = ws.take<std::int32_t>(nodes);
    before_ = ws.take<expert_id>(problem.fan_out);
    pass_.prices = price_.data();
  }

  /// Level 3: a rank with other capacities would wait for messages that nobody sends.
  void expect_agreement() {
#if FAIRLEAD_CONTRACT_LEVEL >= 3
    std::uint64_t hash = 1469598103934665603U;
    auto const add = [&hash](std::uint64_t value) { hash = (hash ^ value) * 1099511628211U; };
    add(static_cast<std::uint64_t>(experts_));
    add(static_cast<std::uint64_t>(pass_.fan_out));
    add(static_cast<std::uint64_t>(packet_rows_));
    for (index_t const c : lower_) { add(static_cast<std::uint64_t>(c)); }
    for (index_t const c : given_upper_) { add(static_cast<std::uint64_t>(c)); }
    for (double const p : warm_) { add(std::bit_cast<std::uint64_t>(p)); }
    auto const mine = static_cast<std::int64_t>(hash >> 1U);
    std::array<std::int64_t, 2> same{mine, -mine};
    comm_.all_reduce(on_, std::span<std::int64_t>(same), reduction::minimum).wait();
    FAIRLEAD_EXPECTS_3(same[0] == -same[1], "ranks disagree on experts, fan_out, capacities or warm prices",
                       comm_.rank());
#endif
  }

  distributed_assignment_report solve(index_t sweeps, index_t max_phases) {
    std::fill(price_.begin(), price_.end(), 0.0);
    bool possible = count_tokens();
    if (possible && copies_ > 0) {
      start_prices(sweeps);
      choose();
      bool best = true;
      outcome last = outcome::pushed;
      while (last == outcome::pushed) {
        if (best && report_.iterations >= max_phases && unbalanced()) {
          best = false;  // from here on tokens move by capacity alone
          report_.status = status::iteration_limit;
          std::fill(dirty_.begin(), dirty_.end() - 1, 1);
        }
        last = phase(best);
      }
      possible = last == outcome::balanced;
    }
    if (!possible) {
      report_.status = status::infeasible;
      on_.for_each(runs(), clear_owners<Score>{pass_});
    }
    finish(possible);
    return report_;
  }

 private:
  enum class outcome { pushed, balanced, stuck };
  static constexpr double infinity = std::numeric_limits<double>::infinity();

  [[nodiscard]] index_t runs() const noexcept { return token_runs{pass_.scores.rows()}.count(); }
  [[nodiscard]] static std::size_t at(index_t i) noexcept { return static_cast<std::size_t>(i); }
  [[nodiscard]] double& row(index_t from, index_t to) noexcept { return rows_[at(from * experts_ + to)]; }

  template <class Value>
  void reduce(std::span<Value> values, reduction op) {
    comm_.all_reduce(on_, values, op).wait();
    ++report_.messages;
    report_.message_numbers += static_cast<index_t>(values.size());
  }

  /// Whether the sums allow an assignment; sets copies and upper capacities that cannot overflow.
  bool count_tokens() {
    on_.for_each(runs(), survey_run<Score>{pass_});
    ++report_.scans;
    std::array<std::int64_t, 2> sums{0, 0};
    std::array<double, 2> range{-infinity, -infinity};  // of -score and of score
    for (index_t r = 0; r < runs(); ++r) {
      sums[0] += pass_.found[4 * r];
      sums[1] += pass_.found[4 * r + 1];
      range[0] = std::max(range[0], std::bit_cast<double>(pass_.found[4 * r + 2]));
      range[1] = std::max(range[1], std::bit_cast<double>(pass_.found[4 * r + 3]));
    }
    reduce(std::span<std::int64_t>(sums), reduction::sum);
    reduce(std::span<double>(range), reduction::maximum);
    copies_ = sums[0] * pass_.fan_out;
    range_ = range[0] > -infinity ? range[0] + range[1] : 0.0;
    index_t least = 0, most = 0;
    for (index_t e = 0; e < experts_; ++e) {
      if (lower_[at(e)] > copies_) { return false; }
      // One more than there are copies is as good as endless: sums cannot overflow, and no price is left on it.
      upper_[at(e)] = std::min(given_upper_[at(e)], copies_ + 1);
      least += lower_[at(e)];
      most += upper_[at(e)];
    }
    return sums[1] == 0 && least <= copies_ && copies_ <= most;
  }

  /// Soft loads, in integers, so that neither the order nor the place of the rows matters.
  void start_prices(index_t sweeps) {
    if (!warm_.empty()) { std::copy(warm_.begin(), warm_.end(), price_.begin()); }
    if (!warm_.empty() || pass_.fan_out == experts_ || !(range_ > 0.0) || !(range_ < infinity)) { return; }
    double temperature = range_ / 30.0;
    double const cooling = sweeps > 1 ? std::pow(30.0 / 400.0, 1.0 / static_cast<double>(sweeps - 1)) : 1.0;
    for (index_t sweep = 0; sweep < sweeps; ++sweep, temperature *= cooling) {
      on_.for_each(runs(), soft_run<Score>{pass_, 1.0 / temperature});
      ++report_.scans;
      std::fill(load_.begin(), load_.end(), 0);
      for (index_t r = 0; r < runs(); ++r) {
        for (index_t e = 0; e < experts_; ++e) { load_[at(e)] += pass_.sums[r * experts_ + e]; }
      }
      reduce(load_.first(at(experts_)), reduction::sum);
      for (index_t e = 0; e < experts_; ++e) {
        double& price = price_[at(e)];
        double const load = static_cast<double>(load_[at(e)]) / soft_unit;
        auto const least = static_cast<double>(lower_[at(e)]), most = static_cast<double>(upper_[at(e)]);
        // A price above 0 says that the expert is full, one below 0 that it is as empty as it may be.
        double const wanted = price > 0.0 ? most : price < 0.0 ? least : std::clamp(load, least, most);
        double const moved = price + temperature * std::log((load + 1e-3) / (wanted + 1e-3));
        price = equality_ || moved * price >= 0.0 ? moved : 0.0;
      }
    }
  }

  /// Every token takes its best by score - price; the sink takes what prices say, and the rest is surplus.
  void choose() {
    on_.for_each(runs(), choose_run<Score>{pass_});
    ++report_.scans;
    std::fill(load_.begin(), load_.end(), 0);
    for (index_t r = 0; r < runs(); ++r) {
      for (index_t e = 0; e < experts_; ++e) { load_[at(e)] += pass_.sums[r * experts_ + e]; }
    }
    reduce(load_.first(at(experts_)), reduction::sum);
    std::int64_t taken = 0;
    for (index_t e = 0; e < experts_; ++e) {
      index_t const least = lower_[at(e)], most = upper_[at(e)];
      through_[at(e)] = price_[at(e)] > 0.0   ? most
                        : price_[at(e)] < 0.0 ? least
                                              : std::clamp<index_t>(load_[at(e)], least, most);
      surplus_[at(e)] = load_[at(e)] - through_[at(e)];
      taken += through_[at(e)];
    }
    surplus_[at(sink_)] = taken - copies_;
    std::fill(dirty_.begin(), dirty_.end() - 1, 1);
  }

  [[nodiscard]] bool unbalanced() const noexcept {
    return std::any_of(surplus_.begin(), surplus_.end(), [](std::int64_t s) { return s > 0; });
  }

  /// Reduce the arc costs of the experts that changed.
  void refresh(bool best) {
    index_t count = 0;
    for (index_t e = 0; e < experts_; ++e) {
      if (dirty_[at(e)] != 0) { list_[at(count++)] = static_cast<std::int32_t>(e); }
      dirty_[at(e)] = 0;
    }
    for (index_t first = 0; first < count; first += packet_rows_) {
      index_t const held = std::min(packet_rows_, count - first);
      on_.for_each(held, losses_of_expert<Score>{pass_, list_.data() + first, packet_.data(), best});
      reduce(packet_.first(at(held * experts_)), reduction::minimum);
      for (index_t i = 0; i < held; ++i) {
        std::copy_n(packet_.data() + i * experts_, experts_, &row(list_[at(first + i)], 0));
      }
    }
  }

  /// One search on the expert graph, the same on every rank, and the moves along its disjoint paths.
  outcome phase(bool best) {
    if (!unbalanced()) { return outcome::balanced; }
    ++report_.iterations;
    refresh(best);
    index_t const goals = search(best);
    if (goals == 0) { return outcome::stuck; }
    if (best) { raise_prices(distance_[at(ends_[at(goals - 1)])]); }
    index_t const paths = disjoint_paths(goals);
    count_moves(best);
    index_t const before = report_.augmentations;
    push(paths);
    move(best);
    // The nearest path always carries something; the comparison bounds the loop even so.
    return report_.augmentations > before ? outcome::pushed : outcome::stuck;
  }

  [[nodiscard]] double arc(index_t from, index_t to, bool best) noexcept {
    if (from == sink_) { return through_[at(to)] > lower_[at(to)] ? (best ? relative(from, to, 0.0) : 0.0) : infinity; }
    if (to == sink_) {
      return through_[at(from)] < upper_[at(from)] ? (best ? relative(from, to, 0.0) : 0.0) : infinity;
    }
    return best ? relative(from, to, row(from, to)) : row(from, to);
  }
  /// Below 0 by rounding only.
  [[nodiscard]] double relative(index_t from, index_t to, double loss) const noexcept {
    return std::max(0.0, loss + (price_[at(to)] - price_[at(from)]));
  }

  /// Shortest distances from everything that has too much. @returns number of nodes that have too little and are
  /// reached, in `ends_` by distance.
  index_t search(bool best) {
    for (index_t v = 0; v <= sink_; ++v) {
      distance_[at(v)] = surplus_[at(v)] > 0 ? 0.0 : infinity;
      parent_[at(v)] = -1;
      settled_[at(v)] = 0;
    }
    index_t goals = 0;
    for (index_t step = 0; step <= sink_; ++step) {
      index_t u = -1;
      for (index_t v = 0; v <= sink_; ++v) {
        if (settled_[at(v)] == 0 && distance_[at(v)] < infinity && (u < 0 || distance_[at(v)] < distance_[at(u)])) {
          u = v;
        }
      }
      if (u < 0) { break; }
      settled_[at(u)] = 1;
      if (surplus_[at(u)] < 0) { ends_[at(goals++)] = u; }
      for (index_t v = 0; v <= sink_; ++v) {
        if (settled_[at(v)] != 0) { continue; }
        double const through = distance_[at(u)] + arc(u, v, best);
        if (through < distance_[at(v)]) {
          distance_[at(v)] = through;
          parent_[at(v)] = static_cast<std::int32_t>(u);
        }
      }
    }
    return goals;
  }

  /// Afterwards no arc gains anything, and the arcs of the search tree cost nothing.
  void raise_prices(double farthest) {
    for (index_t v = 0; v <= sink_; ++v) { price_[at(v)] -= std::min(distance_[at(v)], farthest); }
  }

  /// Choose paths of the tree that share no expert: then no two of them want the same copy. The sink has no copies.
  index_t disjoint_paths(index_t goals) {
    std::fill(used_.begin(), used_.end(), 0);
    std::fill(next_.begin(), next_.end(), -1);
    index_t paths = 0;
    for (index_t i = 0; i < goals; ++i) {
      index_t const goal = ends_[at(i)];
      bool free = true;
      for (index_t v = goal; v >= 0; v = parent_[at(v)]) { free = free && (v == sink_ || used_[at(v)] == 0); }
      if (!free) { continue; }
      for (index_t v = goal; v >= 0; v = parent_[at(v)]) {
        used_[at(v)] = 1;
        index_t const from = parent_[at(v)];
        if (from >= 0 && from != sink_ && v != sink_) { next_[at(from)] = static_cast<std::int32_t>(v); }
      }
      ends_[at(paths++)] = goal;
    }
    return paths;
  }

  /// How many copies each rank can move along each arc of the paths without losing more than the cheapest.
  void count_moves(bool best) {
    arcs_ = 0;
    for (index_t e = 0; e < experts_; ++e) {
      tail_[at(e)] = next_[at(e)] >= 0 ? static_cast<std::int32_t>(arcs_++) : -1;
    }
    std::fill_n(mine_.begin(), arcs_, 0);
    if (arcs_ == 0) { return; }
    tied_copies<Score> const tied{pass_, rows_.data(), next_.data(), tail_.data(), before_.data(), best};
    tied.count(mine_.data());
    auto const used = mine_.first(at(arcs_));
    comm_.all_gather(on_, std::span<std::int64_t const>(used), all_.first(at(arcs_ * comm_.size()))).wait();
    ++report_.messages;
    report_.message_numbers += arcs_;
  }

  [[nodiscard]] std::int64_t tied_on(index_t expert) const noexcept {
    std::int64_t sum = 0;
    for (index_t r = 0; r < comm_.size(); ++r) { sum += all_[at(r * arcs_ + tail_[at(expert)])]; }
    return sum;
  }

  /// Decide how many copies each path carries, and book them; `take_` is this rank's part of each arc.
  void push(index_t paths) {
    std::fill(take_.begin(), take_.end(), 0);
    for (index_t i = 0; i < paths; ++i) {
      index_t const goal = ends_[at(i)];
      std::int64_t amount = -surplus_[at(goal)];
      index_t root = goal;
      for (index_t v = goal; parent_[at(v)] >= 0; v = root) {
        root = parent_[at(v)];
        amount = std::min(amount, root == sink_ ? through_[at(v)] - lower_[at(v)]
                                  : v == sink_  ? upper_[at(root)] - through_[at(root)]
                                                : tied_on(root));
      }
      amount = std::max<std::int64_t>(std::min(amount, surplus_[at(root)]), 0);
      report_.augmentations += amount;
      surplus_[at(goal)] += amount;
      surplus_[at(root)] -= amount;
      for (index_t v = goal; parent_[at(v)] >= 0; v = parent_[at(v)]) {
        index_t const from = parent_[at(v)];
        if (from == sink_) {
          through_[at(v)] -= amount;
        } else if (v == sink_) {
          through_[at(from)] += amount;
        } else if (amount > 0) {
          std::int64_t earlier = 0;
          for (index_t r = 0; r < comm_.rank(); ++r) { earlier += all_[at(r * arcs_ + tail_[at(from)])]; }
          take_[at(from)] = std::clamp<std::int64_t>(amount - earlier, 0, mine_[at(tail_[at(from)])]);
          dirty_[at(from)] = dirty_[at(v)] = 1;
        }
      }
    }
  }

  void move(bool best) {
    if (arcs_ == 0) { return; }
    tied_copies<Score> const tied{pass_, rows_.data(), next_.data(), tail_.data(), before_.data(), best};
    tied.move(take_.data(), dirty_.data());
    if (pass_.fan_out == 1) { return; }
    // A token that moved may now go where it came from: the rows of its other experts changed as well.
    for (index_t e = 0; e < experts_; ++e) { mine_[at(e)] = dirty_[at(e)]; }
    reduce(mine_.first(at(experts_)), reduction::maximum);
    for (index_t e = 0; e < experts_; ++e) { dirty_[at(e)] = mine_[at(e)] != 0 ? 1 : 0; }
  }

  /// Order the owners, state the prices, and prove the bound with them.
  void finish(bool possible) {
    if (!possible) { std::fill(price_.begin(), price_.end(), 0.0); }
    double const shift = equality_ && experts_ > 0 ? *std::min_element(price_.begin(), price_.end() - 1)
                                                   : price_[at(sink_)];
    for (index_t e = 0; e < experts_; ++e) { price_[at(e)] -= shift; }
    if (!result_.prices.empty()) { std::copy_n(price_.begin(), experts_, result_.prices.begin()); }
    if (!possible) {
      report_.bound = -infinity;
      return;
    }
    on_.for_each(runs(), certify_run<Score>{pass_});
    ++report_.scans;
    std::array<double, 2> sums{0.0, 0.0};
    for (index_t r = 0; r < runs(); ++r) {
      sums[0] += std::bit_cast<double>(pass_.found[4 * r]);
      sums[1] += std::bit_cast<double>(pass_.found[4 * r + 1]);
    }
    reduce(std::span<double>(sums), reduction::sum);
    report_.value = sums[0];
    report_.bound = sums[1];
    for (index_t e = 0; e < experts_ && copies_ > 0; ++e) {
      double const price = price_[at(e)];
      report_.bound += price * static_cast<double>(price > 0.0 ? upper_[at(e)] : lower_[at(e)]);
    }
    // The loop can only end early by a fault of arithmetic: then say so rather than claim a proof.
    double const unit = std::max(range_ * static_cast<double>(copies_), std::fabs(report_.value));
    if (report_.status == status::ok && report_.bound - report_.value > 1e-9 * unit) {
      report_.status = status::iteration_limit;
    }
  }

  Backend const& on_;
  Comm& comm_;
  index_t experts_, sink_;
  bool equality_;
  index_t packet_rows_;
  std::span<double const> warm_;
  std::span<index_t const> lower_, given_upper_;
  assignment_result result_;
  distributed_pass<Score> pass_;
  distributed_assignment_report report_;
  index_t copies_ = 0, arcs_ = 0;
  double range_ = 0.0;
  std::span<double> rows_, packet_, price_, distance_;
  std::span<std::int64_t> load_, through_, surplus_, mine_, take_, all_;
  std::span<index_t> upper_, ends_;
  std::span<std::int32_t> parent_, next_, tail_, settled_, used_, dirty_, list_;
  std::span<expert_id> before_;
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
