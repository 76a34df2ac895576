// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The course of an exact solve: prices from samples, then rounds over all rows until the certificate holds.
///
/// What the experts take is a `Demand`: capacities, or convex costs. It says whether there is a sink, makes the sinks of
/// the whole problem and of a sample of its rows, what its prices leave between value and bound, and whether every problem
/// is to be solved over all pairs at once.
#include <fairlead/flow/detail/candidate_flow.hpp>
#include <fairlead/core/assignment.hpp>

#include <cmath>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// What decides about time, not about the result's value.
struct flow_tuning {
  index_t dense_scores = 1 << 16;   ///< problems up to this many scores are solved over all pairs
  index_t sample_scores = 1 << 18;  ///< samples too
  int kept = 0;                     ///< pairs a token keeps in the first pass; 0 = what the first prices say
  int centre_sweeps = 2;            ///< of the prices to the middle of their ranges
};

/// Moves and slots are numbered in 32 bits.
inline void check_flow_size(index_t tokens, index_t experts, index_t fan_out) {
  FAIRLEAD_EXPECTS(tokens < (index_t{1} << (fan_out <= 1 ? 25 : 22)) && experts <= 32768 && tokens * fan_out < (index_t{1} << 31),
                   "too large for 32-bit numbers: fewer than 2^25 tokens (2^22 beyond one choice), at most 32768 experts",
                   tokens, experts, fan_out);
}

template <class Score>
struct assigned_value {
  static constexpr index_t block_tokens = 1024;
  matrix_view<Score const> scores;
  matrix_view<expert_id> owner;
  std::uint8_t const* mask;
  double const* prices;
  double* sums;
  bool sort;
  void operator()(index_t block) const {
    index_t const end = std::min(scores.rows(), (block + 1) * block_tokens);
    double sum = 0.0;
    for (index_t t = block * block_tokens; t < end; ++t) {
      if (mask != nullptr && mask[t] == 0) { continue; }
      Score const* const row = scores.row(t);
      expert_id* const mine = owner.row(t);
      auto const worth = [&](expert_id e) {
        return assignable(row[to_index(e)]) - prices[to_index(e)];
      };
      if (sort) {
        std::sort(mine, mine + owner.cols(), [&](expert_id a, expert_id b) {
          double const worth_a = worth(a);
          double const worth_b = worth(b);
          return worth_a != worth_b ? worth_a > worth_b : a < b;
        });
      }
      for (index_t j = 0; j < owner.cols(); ++j) {
        sum += assignable(row[to_index(mine[j])]);
      }
    }
    sums[block] = sum;
  }
};

template <class Score, class Backend, class Demand>
class transport_solve {
  using sinks_type = typename Demand::sinks_type;

 public:
  [[nodiscard]] static std::size_t bytes(index_t tokens, index_t experts, index_t fan_out) {
    int const nodes = static_cast<int>(experts) + 1;
    int const stride = padded(nodes);
    int const choices = static_cast<int>(std::max<index_t>(fan_out, 1));
    std::size_t const common = workspace_bytes<double>(stride) * 2 + workspace_bytes<float>(stride) * 3 +
                               Demand::bytes(stride) + workspace_bytes<int>(tokens) * 2 +
                               workspace_bytes<double>(tokens / assigned_value<Score>::block_tokens + 1);
    // All pairs: small problems, and the last resort.
    std::size_t const dense = price_search<double>::bytes(nodes) + dense_flow<double, sinks_type>::bytes(static_cast<int>(tokens), nodes, choices);
    if constexpr (Demand::all_pairs) { return common + dense; }
    std::size_t const large =
        price_search<double>::bytes(nodes) + candidate_table::bytes(tokens, static_cast<int>(experts), choices) +
        candidate_flow<sinks_type>::bytes(tokens, nodes, choices) +
        workspace_bytes<float>(candidate_table::blocks(tokens) * candidate_pass<Score>::scratch_size(stride));
    return common + std::max(dense, large);
  }

  transport_solve(flow_tuning const& tuning, Backend const& on, assignment_problem<Score> const& problem,
                  assignment_result const& result, Demand& demand, workspace& ws)
      : tuning_(tuning),
        on_(on),
        problem_(problem),
        result_(result),
        demand_(demand),
        ws_(ws),
        experts_(static_cast<int>(problem.experts())),
        fan_out_(static_cast<int>(problem.fan_out)),
        tokens_(problem.valid_tokens()),
        copies_(tokens_ * problem.fan_out) {}

  assignment_report run() {
    workspace::scope const scope(ws_);
    equality_ = !demand_.has_sink();
    stride_ = padded(sink_arcs::nodes(experts_, equality_));
    prices_ = ws_.take<double>(stride_).data();
    base_ = ws_.take<double>(stride_).data();
    narrow_ = ws_.take<float>(stride_).data();
    std::fill_n(prices_, stride_, 0.0);
    for (int e = 0; e < experts_ && !problem_.warm_prices.empty(); ++e) {
      double const price = problem_.warm_prices[static_cast<std::size_t>(e)];
      if (std::isfinite(price)) { prices_[e] = std::clamp(price, -1e30, 1e30); }
    }
    bool const fits = demand_.take(tokens_, stride_, ws_);
    for (index_t t = 0; t < problem_.tokens(); ++t) {
      if (!problem_.token_mask.empty() && problem_.token_mask[static_cast<std::size_t>(t)] == 0) {
        std::fill_n(result_.owner.row(t), fan_out_, expert_id::none);
      }
    }
    if (!fits) { return fail(status::infeasible); }
    if (copies_ == 0) {
      std::fill_n(prices_, experts_, 0.0);
      return finish();
    }
    // Rows that take part, when some do not.
    if (tokens_ != problem_.tokens()) {
      int* const valid = ws_.take<int>(tokens_).data();
      int count = 0;
      for (index_t t = 0; t < problem_.tokens(); ++t) {
        if (problem_.token_mask[static_cast<std::size_t>(t)] != 0) { valid[count++] = static_cast<int>(t); }
      }
      valid_ = valid;
    }
    if (problem_.warm_prices.empty() && tuning_.kept == 0) { start_from_samples(); }
    if constexpr (Demand::all_pairs) {
      return solve_over_all_pairs();
    } else {
      return tokens_ * stride_ <= tuning_.dense_scores ? solve_over_all_pairs() : solve_in_rounds();
    }
  }

 private:
  [[nodiscard]] int row(index_t i) const { return valid_ == nullptr ? static_cast<int>(i) : valid_[i]; }

  assignment_report fail(status why) {
    for (index_t t = 0; t < problem_.tokens(); ++t) { std::fill_n(result_.owner.row(t), fan_out_, expert_id::none); }
    std::fill(result_.prices.begin(), result_.prices.end(), 0.0);
    report_.status = why;
    report_.value = 0.0;
    report_.bound = why == status::infeasible ? -infinite<double> : infinite<double>;
    return report_;
  }

  /// All pairs in fp64.
  assignment_report solve_over_all_pairs() {
    workspace::scope const scope(ws_);
    price_search<double> search(sink_arcs::nodes(experts_, equality_), ws_);
    sinks_type const sinks = demand_.whole();
    dense_flow<double, sinks_type> flow(search, sinks, static_cast<int>(tokens_), fan_out_, ws_);
    std::copy_n(prices_, experts_, search.price());
    for (index_t i = 0; i < tokens_; ++i) {
      if (!flow.load(static_cast<int>(i), problem_.scores.row(row(i)))) { return fail(status::infeasible); }
    }
    search_end const end = flow.solve();
    report_.augmentations += search.augmentations();
    report_.iterations += search.searches();
    report_.scans += 1;
    if (end != search_end::balanced) { return fail(end == search_end::stuck ? status::infeasible : status::iteration_limit); }
    for (index_t i = 0; i < tokens_; ++i) {
      for (int j = 0; j < fan_out_; ++j) {
        result_.owner(row(i), j) = static_cast<expert_id>(flow.expert(static_cast<int>(i), j));
      }
    }
    centre(search, nullptr, 0.0);
    take_prices(search);
    return finish();
  }

  /// Move one price after the other to the middle of the range in which the assignment stays optimal. With `base`, prices
  /// moved from there and stay within `window` of each other.
  void centre(price_search<double> const& search, double const* base, double window) {
    if (result_.prices.empty()) { return; }
    int const nodes = search.nodes();
    double* const price = search.price();
    double down = -infinite<double>;
    double up = infinite<double>;
    if (base != nullptr) {
      double least = infinite<double>;
      double most = -infinite<double>;
      for (int e = 0; e < experts_; ++e) {
        least = std::min(least, price[e] - base[e]);
        most = std::max(most, price[e] - base[e]);
      }
      double const spare = std::max(0.0, (window - (most - least)) / 2);
      down = least - spare;
      up = most + spare;
    }
    for (int sweep = 0; sweep < tuning_.centre_sweeps; ++sweep) {
      for (int e = 0; e < experts_; ++e) {
        // price(u) - price(v) <= loss(u, v) for all pairs of nodes
        double least = base == nullptr ? -infinite<double> : base[e] + down;
        double most = base == nullptr ? infinite<double> : base[e] + up;
        double const* const out = search.loss(e);
        double const* const in = search.loss(0) + e;
        for (int v = 0; v < nodes; ++v) {
          most = std::min(most, price[v] + out[v]);
          least = std::max(least, price[v] - in[index_t{v} * stride_]);
        }
        // Without a limit on one side there is no middle; rounding may have crossed the limits.
        if (least < most && std::isfinite(least) && std::isfinite(most)) { price[e] = least / 2 + most / 2; }
      }
    }
  }

  void take_prices(price_search<double> const& search) {
    double const zero = equality_ ? 0.0 : search.price()[experts_];
    for (int e = 0; e < experts_; ++e) { prices_[e] = search.price()[e] - zero; }
  }

  /// Prices from samples that grow fourfold.
  void start_from_samples() {
    index_t const first = std::max<index_t>(Demand::all_pairs ? 16 : 32, 2 * index_t{experts_} / fan_out_);
    int levels = 0;
    while ((tokens_ >> 2 * (levels + 1)) >= first) { ++levels; }
    for (int level = 0; level < levels; ++level) {
      index_t const size = tokens_ >> 2 * (levels - level);
      std::copy_n(prices_, experts_, base_);
      // With a few tokens an expert, all pairs are quick wherever they lie; and the first prices need them.
      if constexpr (Demand::all_pairs) {
        solve_dense_sample(static_cast<int>(size));
      } else if (level < 2 || size * stride_ <= tuning_.sample_scores) {
        solve_dense_sample(static_cast<int>(size));
      } else {
        solve_sample(static_cast<int>(size));
      }
      // Both prices are off by what a sample is off; the finer one by half as much as the coarser one.
      if (level > 0) { drift_ = root_mean_square_change(); }
    }
  }
  [[nodiscard]] double root_mean_square_change() const {
    double sum = 0.0;
    double squares = 0.0;
    for (int e = 0; e < experts_; ++e) {
      double const change = prices_[e] - base_[e];
      sum += change;
      squares += change * change;
    }
    double const mean = sum / experts_;
    return std::sqrt(std::max(0.0, squares / experts_ - mean * mean));
  }
  /// Row i of a sample of `size`: one of each stretch, at a place that no period of the data can follow.
  [[nodiscard]] int sampled(index_t i, index_t size) const {
    index_t const begin = i * tokens_ / size;
    index_t const end = (i + 1) * tokens_ / size;
    auto mixed = static_cast<std::uint64_t>(i) * 0x9E3779B97F4A7C15ULL;
    mixed ^= mixed >> 32U;
    return row(begin + static_cast<index_t>(mixed % static_cast<std::uint64_t>(end - begin)));
  }
  void solve_dense_sample(int size) {
    workspace::scope const scope(ws_);
    price_search<float> search(sink_arcs::nodes(experts_, equality_), ws_);
    sinks_type const sinks = demand_.sample(size);
    dense_flow<float, sinks_type> flow(search, sinks, size, fan_out_, ws_);
    for (int e = 0; e < experts_; ++e) { search.price()[e] = static_cast<float>(prices_[e]); }
    for (int i = 0; i < size; ++i) {
      if (!flow.load(i, problem_.scores.row(sampled(i, size)))) { return; }
    }
    (void)flow.solve();
    report_.augmentations += search.augmentations();
    report_.iterations += search.searches();
    float const zero = equality_ ? 0.0F : search.price()[experts_];
    for (int e = 0; e < experts_; ++e) {
      double const price = static_cast<double>(search.price()[e] - zero);
      if (std::isfinite(price)) { prices_[e] = price; }
    }
  }
  void solve_sample(int size) {
    workspace::scope const scope(ws_);
    int* const rows = ws_.take<int>(size).data();
    for (int i = 0; i < size; ++i) { rows[i] = sampled(i, size); }
    row_source<Score> const source{problem_.scores, rows, size};
    double window = near_choice(6);
    if (drift_ >= 0.0) { window = std::min(window, 3.0 * drift_); }
    price_search<double> search(sink_arcs::nodes(experts_, equality_), ws_);
    sinks_type const sinks = demand_.sample(size);
    candidate_table const table(size, experts_, stride_, fan_out_, ws_);
    candidate_flow<sinks_type> flow(search, sinks, table, ws_);
    if (!scan(source, table, window, {}, false)) { return; }
    std::copy_n(prices_, experts_, search.price());
    flow.start(index_t{size} * fan_out_);
    (void)flow.run(infinite<double>);  // stuck or not: prices are a start
    report_.augmentations += search.augmentations();
    report_.iterations += search.searches();
    take_prices(search);
  }

  /// How near to its last choice a token has `alternatives` more, for every other token.
  [[nodiscard]] double near_choice(int alternatives) {
    workspace::scope const scope(ws_);
    int const wanted = std::min(fan_out_ + alternatives, experts_);
    int const probes = static_cast<int>(std::min<index_t>(tokens_, 64));
    float* const worth = ws_.take<float>(stride_).data();
    float* const top = ws_.take<float>(stride_).data();
    float margins[64];
    narrow_prices();
    for (int i = 0; i < probes; ++i) {
      float const best = price_row(problem_.scores.row(sampled(i, probes)), experts_, stride_, narrow_, worth);
      largest_worth_ = std::max(largest_worth_, std::abs(best) <= greatest_float ? std::abs(best) : 0.0F);
      largest_values(worth, experts_, wanted, top);
      float const margin = top[fan_out_ - 1] - top[wanted - 1];
      margins[i] = margin >= 0.0F ? margin : greatest_float;  // forbidden ones, or too few
    }
    std::nth_element(margins, margins + probes / 2, margins + probes);
    return margins[probes / 2];
  }
  /// What fp32 may have lost, with a margin.
  [[nodiscard]] double rounding() {
    narrow_prices();
    return static_cast<double>(largest_price_ + largest_worth_) * 0x1p-18;
  }
  void narrow_prices() {
    largest_price_ = 0.0F;
    for (int e = 0; e < experts_; ++e) {
      narrow_[e] = static_cast<float>(prices_[e]);
      largest_price_ = std::max(largest_price_, std::abs(narrow_[e]));
    }
  }
  /// One pass over the rows; false if a token has too few allowed experts.
  bool scan(row_source<Score> const& rows, candidate_table const& table, double window, matrix_view<expert_id> owner,
            bool keep, int most = candidate_table::most_entries) {
    workspace::scope const scope(ws_);
    narrow_prices();
    int const blocks = candidate_table::blocks(rows.count);
    float* const scratch = ws_.take<float>(blocks * candidate_pass<Score>::scratch_size(stride_)).data();
    on_.for_each(blocks, candidate_pass<Score>{rows, table, narrow_, largest_price_,
                                               static_cast<float>(std::min(window, 1e30)), owner, scratch, most,
                                               static_cast<std::uint32_t>(report_.scans), keep});
    reach_ = infinite<double>;
    bool fed = true;
    for (int b = 0; b < blocks; ++b) {
      reach_ = std::min(reach_, static_cast<double>(table.window[b]));
      fed = fed && table.starved[b] == 0;
    }
    return fed;
  }

  assignment_report solve_in_rounds() {
    bool proved = false;
    assignment_report const report = pass_after_pass(proved);
    // Scores so far apart that fp32 cannot tell what is near, or more ties than the passes keep: slow, but sure.
    return proved ? report : solve_over_all_pairs();
  }

  assignment_report pass_after_pass(bool& proved) {
    workspace::scope const scope(ws_);
    row_source<Score> const source{problem_.scores, valid_, static_cast<int>(tokens_)};
    price_search<double> search(sink_arcs::nodes(experts_, equality_), ws_);
    sinks_type const sinks = demand_.whole();
    candidate_table const table(static_cast<int>(tokens_), experts_, stride_, fan_out_, ws_);
    candidate_flow<sinks_type> flow(search, sinks, table, ws_);
    double window = near_choice(6);
    // Where most tokens have many experts that are equally good, a few of them are enough to be fair to all.
    bool const all_tie = window == 0.0 && fan_out_ == 1;
    if (drift_ >= 0.0) { window = std::min(window, 3.0 * drift_); }
    constexpr int most_rounds = 64;
    proved = true;
    bool owned = false;  // whether `owner` holds the choices of an earlier pass
    for (int round = 0, narrowed = 0; round < most_rounds; ++round) {
      ++report_.scans;
      // Prices from fp32 samples are off by rounding: a window below that would see no ties.
      double const least_window = rounding();
      window = std::max(window, least_window);
      bool const pruned = tuning_.kept > 0 && round == 0;
      if (pruned) { window = 1e30; }
      int const entries = pruned                  ? std::min(tuning_.kept + fan_out_, candidate_table::most_entries)
                          : all_tie && round == 0 ? 4
                                                  : candidate_table::most_entries;
      if (!scan(source, table, window, result_.owner, owned, entries)) { break; }  // infeasible, or beyond fp32
      if (!pruned && !(all_tie && round == 0) && reach_ < window / 4 && window > 4 * least_window && narrowed < 8) {
        // More was near than a token keeps. A pass that keeps everything in a smaller window never loses ground.
        ++narrowed;
        window = std::max(window / 4, reach_);
        continue;
      }
      search.clear();
      std::copy_n(prices_, experts_, search.price());
      std::copy_n(prices_, experts_, base_);
      index_t const searches = search.searches();
      index_t const moved = search.augmentations();
      index_t const surplus = flow.start(copies_);
      bool const ties = reach_ < window / 4;
      // Within the pass's reach every pair that was left out stays worse than its token's choice, and no pass loses what
      // an earlier one has balanced. The first one has little to lose: it goes to the end, and where prices far apart
      // have moved far, most often a second pass finds that nothing was wrong. Where ties had to be thinned out there is
      // no reach.
      search_end const end = flow.run(ties || round == 0 ? infinite<double> : reach_);
      report_.augmentations += search.augmentations() - moved;
      report_.iterations += search.searches() - searches;
      flow.write(result_.owner);
      owned = true;
      double least = infinite<double>;
      double most = -infinite<double>;
      for (int e = 0; e < experts_; ++e) {
        least = std::min(least, search.price()[e] - base_[e]);
        most = std::max(most, search.price()[e] - base_[e]);
      }
      if (end == search_end::balanced && most - least <= reach_) {
        centre(search, base_, reach_);
        take_prices(search);
        return finish();
      }
      if (end == search_end::stuck) {
        // No kept pair leaves the settled experts. Their tokens' best pair outside is the next step of the prices.
        ++report_.scans;
        double const step = leave_settled(search, source);
        if (!(step < infinite<double>)) { return fail(status::infeasible); }
        search.raise_settled(step);
        take_prices(search);
        window = pruned ? std::max(near_choice(6), 2.0 * step) : std::max(window, 2.0 * step);
      } else {
        take_prices(search);
        if (end == search_end::balanced) {
          window = std::min(0.3 * near_choice(3), (most - least) / 4);
        } else if (2 * (search.augmentations() - moved) < surplus) {
          window *= 2.0;
        }
      }
    }
    proved = false;
    return {};
  }

  /// The least reduced loss of any pair from a settled expert to one that is not.
  [[nodiscard]] double leave_settled(price_search<double> const& search, row_source<Score> const& rows) const {
    double best = infinite<double>;
    double const* const price = search.price();
    for (int i = 0; i < rows.count; ++i) {
      int const token = rows.token(i);
      Score const* const scores = problem_.scores.row(token);
      expert_id const* const mine = result_.owner.row(token);
      double worst = infinite<double>;
      for (int j = 0; j < fan_out_; ++j) {
        int const e = static_cast<int>(mine[j]);
        if (search.settled(e)) { worst = std::min(worst, assignable(scores[e]) - price[e]); }
      }
      if (!(worst < infinite<double>)) { continue; }
      for (int e = 0; e < experts_; ++e) {
        if (search.settled(e) || std::find(mine, mine + fan_out_, static_cast<expert_id>(e)) != mine + fan_out_) { continue; }
        double const score = assignable(scores[e]);
        best = std::min(best, worst - (score - price[e]));
      }
    }
    return best;
  }

  /// Value, bound and normalised prices of a proved optimum.
  assignment_report finish() {
    if (equality_ && experts_ > 0) {
      double const least = *std::min_element(prices_, prices_ + experts_);
      for (int e = 0; e < experts_; ++e) { prices_[e] -= least; }
    }
    double value = 0.0;
    if (copies_ > 0) {
      workspace::scope const scope(ws_);
      using body = assigned_value<Score>;
      index_t const blocks = (problem_.tokens() + body::block_tokens - 1) / body::block_tokens;
      double* const sums = ws_.take<double>(blocks).data();
      on_.for_each(blocks, body{problem_.scores, result_.owner,
                                valid_ == nullptr ? nullptr : problem_.token_mask.data(), prices_, sums, fan_out_ > 1});
      for (index_t b = 0; b < blocks; ++b) { value += sums[b]; }
    }
    double const slack = demand_.slack(prices_);
    std::copy_n(prices_, result_.prices.size(), result_.prices.begin());
    report_.status = status::ok;
    report_.value = value;
    report_.bound = value + std::max(slack, 0.0);
    return report_;
  }

  flow_tuning const& tuning_;
  Backend const& on_;
  assignment_problem<Score> const& problem_;
  assignment_result const& result_;
  Demand& demand_;
  workspace& ws_;
  int experts_;
  int fan_out_;
  index_t tokens_;
  index_t copies_;
  bool equality_ = true;
  int stride_ = 0;
  double* prices_ = nullptr;
  double* base_ = nullptr;
  float* narrow_ = nullptr;
  int const* valid_ = nullptr;
  float largest_price_ = 0.0F;
  float largest_worth_ = 0.0F;
  double drift_ = -1.0;
  double reach_ = 0.0;
  assignment_report report_{};
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
