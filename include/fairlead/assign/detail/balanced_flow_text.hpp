// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Capacities as the demand of the exact transport solver.
#include <fairlead/flow/transport.hpp>

FAIRLEAD_NAMESPACE_BEGIN
namespace detail {

/// Each expert takes between a lower and an upper number of copies.
template <class Score>
class capacity_demand {
 public:
  using sinks_type = sink_arcs;
  static constexpr bool all_pairs = false;

  explicit capacity_demand(assignment_problem<Score> const& problem)
      : problem_(problem), experts_(static_cast<int>(problem.experts())), equality_(problem.equality()) {}

  [[nodiscard]] static std::size_t bytes(int stride) { return workspace_bytes<index_t>(stride) * 5; }
  [[nodiscard]] bool has_sink() const noexcept { return !equality_; }

  /// Clamp the capacities to the copies there are; false if they cannot be met together.
  bool take(index_t tokens, int stride, workspace& ws) {
    tokens_ = tokens;
    index_t const copies = tokens * problem_.fan_out;
    lower_ = ws.take<index_t>(stride).data();
    upper_ = ws.take<index_t>(stride).data();
    sample_lower_ = ws.take<index_t>(stride).data();
    sample_upper_ = ws.take<index_t>(stride).data();
    sent_ = ws.take<index_t>(stride).data();
    std::fill_n(sent_, stride, index_t{0});
    index_t least = 0;
    index_t most = 0;
    for (int e = 0; e < experts_; ++e) {
      auto const i = static_cast<std::size_t>(e);
      lower_[e] = problem_.lower[i];
      upper_[e] = std::min(problem_.upper[i], copies + 1);  // above: no bound, and as such never at a price
      least += std::min(lower_[e], copies + 1);
      most += upper_[e];
    }
    return least <= copies && most >= copies;
  }
  [[nodiscard]] sink_arcs whole() const { return arcs(lower_, upper_); }
  [[nodiscard]] sink_arcs sample(index_t size) const {
    index_t sum = 0;
    for (int e = 0; e < experts_; ++e) {
      if (equality_) {
        index_t const before = sum * size / tokens_;
        sum += upper_[e];
        sample_lower_[e] = sample_upper_[e] = sum * size / tokens_ - before;
      } else {
        sample_lower_[e] = lower_[e] * size / tokens_;
        sample_upper_[e] = std::min((upper_[e] * size + tokens_ - 1) / tokens_, size * problem_.fan_out + 1);
      }
    }
    return arcs(sample_lower_, sample_upper_);
  }
  /// What a priced capacity leaves unused is the distance between the bound and the value; flow conservation says that it
  /// is none, up to rounding.
  [[nodiscard]] double slack(double const* prices) const {
    double sum = 0.0;
    for (int e = 0; e < experts_ && !equality_; ++e) {
      sum += prices[e] * static_cast<double>((prices[e] > 0 ? upper_[e] : lower_[e]) - sent_[e]);
    }
    return sum;
  }

 private:
  [[nodiscard]] sink_arcs arcs(index_t const* lower, index_t const* upper) const {
    return {experts_, equality_ ? -1 : experts_, lower, upper, sent_};
  }

  assignment_problem<Score> const& problem_;
  int experts_;
  bool equality_;
  index_t tokens_ = 0;
  index_t* lower_ = nullptr;
  index_t* upper_ = nullptr;
  index_t* sample_lower_ = nullptr;
  index_t* sample_upper_ = nullptr;
  index_t* sent_ = nullptr;
};

template <class Score, class Backend>
assignment_report solve_balanced(flow_tuning const& tuning, Backend const& on, assignment_problem<Score> const& problem,
                                 assignment_result const& result, workspace& ws) {
  capacity_demand<Score> demand(problem);
  return transport_solve<Score, Backend, capacity_demand<Score>>(tuning, on, problem, result, demand, ws).run();
}

}  // namespace detail
FAIRLEAD_NAMESPACE_END
