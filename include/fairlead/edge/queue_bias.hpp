// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Lyapunov routing for ranks of a data center: a router's bias that follows the backlog of each rank.
#include <fairlead/comm/alone.hpp>
#include <fairlead/concepts/bias_controller.hpp>
#include <fairlead/core/contract.hpp>
#include <fairlead/exec/serial.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Keep a virtual queue of copies for each rank; every expert of a rank gets the bias - Q / (V x mean load).
///
/// `lyapunov_linear` with ranks as servers and without energy: choosing by score + this bias is choosing by `V' score - Q`.
/// A rank that serves slowly keeps a backlog, and tokens go elsewhere until it has caught up. Rates come from measurements:
/// call `measure` or `gather_rates`; until every rank has one, ranks count as equally fast. Works as the controller of
/// any biased router: `with_controller<sigmoid_bias_top_k, queue_bias>`, named `queue_biased_choice` in
/// `layer/queue_biased_choice.hpp`. Experts have one replica each; ranks without experts do not count.
/// @source{2512.06784, routing per slot (reconstructed); ranks as servers and the normalised V are this library's extension}
struct queue_bias {
  index_t ranks = 0;        ///< servers; 0 = every expert is one
  double utility = 10.0;    ///< V: mean loads of a rank that weigh as much as one unit of score, > 0
  double interval_ms = 0.0; ///< time between global batches, >= 0; 0 = as long as all ranks together need. @unit{ms}
  double smoothing = 0.2;   ///< share of a new measurement in a rate, in (0, 1]

  /// What is carried between global batches.
  struct state_type {
    std::vector<double> backlog;        ///< Q of each server. @unit{copies} @shape{servers}
    std::vector<double> copies_per_ms;  ///< measured rates, 0 = none yet; equal on every rank. @shape{servers}
    std::vector<double> arrivals;       ///< copies of the last global batch. @shape{servers}
    std::vector<std::int32_t> rank_of;  ///< server of each expert; change it after a new placement. @shape{experts}
    /// @brief Visit the arrays of the state.
    /// @param self the state
    /// @param f called with a span of each array
    template <class Self, class Function>
    static void each_array(Self& self, Function&& f) {
      f(std::span(self.backlog));
      f(std::span(self.copies_per_ms));
      f(std::span(self.arrivals));
      f(std::span(self.rank_of));
    }
  };
  /// @param experts number of experts
  /// @returns empty queues, no rates; rank r has the experts of `contiguous_placement`
  /// @throws contract_violation (level 1) on bad fields; std::bad_alloc
  [[nodiscard]] state_type make_state(index_t experts) const {
    check();
    index_t const servers = ranks == 0 ? experts : ranks;
    state_type state;
    state.backlog.assign(static_cast<std::size_t>(servers), 0.0);
    state.copies_per_ms.assign(static_cast<std::size_t>(servers), 0.0);
    state.arrivals.assign(static_cast<std::size_t>(servers), 0.0);
    state.rank_of.resize(static_cast<std::size_t>(experts));
    for (index_t r = 0; r < servers; ++r) {
      for (index_t e = r * experts / servers; e < (r + 1) * experts / servers; ++e) {
        state.rank_of[static_cast<std::size_t>(e)] = static_cast<std::int32_t>(r);
      }
    }
    return state;
  }
  /// @returns 0
  [[nodiscard]] constexpr std::size_t workspace_bytes(index_t, index_t, index_t) const noexcept { return 0; }

  /// @brief Take a measurement of one server. Every rank must take the same ones.
  /// @param server the server
  /// @param copies copies that it served, >= 0; none says nothing, in whatever time
  /// @param milliseconds time that this took, > 0, or 0 for no copies. @unit{ms}
  /// @param[in,out] state its rate
  /// @throws contract_violation (level 1) if there is no such server, on a time that is not positive, or a rate beyond all
  /// numbers
  void measure(index_t server, double copies, double milliseconds, state_type& state) const {
    check();
    FAIRLEAD_EXPECTS(server >= 0 && server < static_cast<index_t>(state.backlog.size()), "no such server", server,
                     state.backlog.size());
    double const fresh = copies / milliseconds;
    FAIRLEAD_EXPECTS(copies == 0.0 ? milliseconds >= 0.0 : milliseconds > 0.0 && fresh > 0.0 && std::isfinite(fresh),
                     "a measurement is a number of copies, not negative, in a positive time", copies, milliseconds);
    if (copies == 0.0) { return; }
    double& rate = state.copies_per_ms[static_cast<std::size_t>(server)];
    rate = rate == 0.0 ? fresh : rate + smoothing * (fresh - rate);
  }
  /// @brief Take a measurement of every rank: each gives its own.
  /// @param on execution backend
  /// @param comm communicator of as many ranks as servers
  /// @param copies copies that this rank served
  /// @param milliseconds time that this took, > 0, or 0 for no copies. @unit{ms}
  /// @param[in,out] state rates, equal on every rank afterwards
  /// @throws contract_violation (level 1) if ranks and servers differ in number, or on a bad measurement
  /// @collective all ranks
  template <execution_backend Backend, communicator Comm>
    requires has_all_gather<Comm, double, Backend>
  void gather_rates(Backend const& on, Comm& comm, double copies, double milliseconds, state_type& state) const {
    FAIRLEAD_EXPECTS(static_cast<index_t>(comm.size()) == static_cast<index_t>(state.backlog.size()),
                     "gather_rates needs one rank a server: set `ranks` to the size of the communicator", comm.size(),
                     state.backlog.size());
    measure(comm.rank(), copies, milliseconds, state);
    double const own = state.copies_per_ms[static_cast<std::size_t>(comm.rank())];
    comm.all_gather(on, std::span<double const>(&own, 1), std::span<double>(state.copies_per_ms)).wait();
  }

  /// @brief Let a global batch arrive and be served, and write the biases.
  /// @param on any backend, not used
  /// @param comm any communicator, not used
  /// @param counts copies per expert over the global batch, equal on every rank. @shape{experts}
  /// @param[in,out] state queues
  /// @param[out] bias 0 for the experts of the emptiest rank, less for others. @shape{experts}
  /// @throws contract_violation (level 1) on a shape mismatch or bad fields; (level 2) on a server that is not there
  /// @complexity O(experts + servers), no allocation
  /// @determinism equal on every rank, if the rates are
  template <execution_backend Backend, communicator Comm>
  void end_global_batch([[maybe_unused]] Backend const& on, [[maybe_unused]] Comm& comm, std::span<index_t const> counts,
                        state_type& state, std::span<float> bias) const {
    check();
    FAIRLEAD_EXPECTS(counts.size() == bias.size() && counts.size() == state.rank_of.size(), "one count and one bias an expert",
                     counts.size(), bias.size(), state.rank_of.size());
    std::size_t const servers = state.backlog.size();
    // A rank without experts serves nobody: neither its empty queue nor its rate is compared with others.
    constexpr double idle = -1.0;
    std::fill(state.arrivals.begin(), state.arrivals.end(), idle);
    double total = 0.0;
    for (std::size_t e = 0; e < counts.size(); ++e) {
      FAIRLEAD_EXPECTS_2(state.rank_of[e] >= 0 && static_cast<std::size_t>(state.rank_of[e]) < servers,
                         "every expert needs a server", e, state.rank_of[e]);
      double& own = state.arrivals[static_cast<std::size_t>(state.rank_of[e])];
      own = std::max(own, 0.0) + static_cast<double>(counts[e]);
      total += static_cast<double>(counts[e]);
    }
    double rates = 0.0;
    double busy = 0.0;
    bool measured = true;
    for (std::size_t r = 0; r < servers; ++r) {
      if (state.arrivals[r] == idle) { continue; }
      busy += 1.0;
      rates += state.copies_per_ms[r];
      measured = measured && state.copies_per_ms[r] > 0.0;
    }
    double const mean = total / busy;
    double least = std::numeric_limits<double>::infinity();
    for (std::size_t r = 0; r < servers; ++r) {
      if (state.arrivals[r] == idle) {
        state.arrivals[r] = 0.0;
        state.backlog[r] = 0.0;
        continue;
      }
      if (total == 0.0) { continue; }
      double const own = state.copies_per_ms[r];
      double const service = !measured ? mean : interval_ms > 0.0 ? own * interval_ms : total * own / rates;
      state.backlog[r] = std::max(state.backlog[r] + state.arrivals[r] - service, 0.0);
      least = std::min(least, state.backlog[r]);
    }
    if (total == 0.0) { return; }
    for (std::size_t e = 0; e < bias.size(); ++e) {
      double const behind = state.backlog[static_cast<std::size_t>(state.rank_of[e])] - least;
      bias[e] = behind == 0.0 ? 0.0F : static_cast<float>(-behind / (utility * mean));
    }
  }

 private:
  void check() const {
    FAIRLEAD_EXPECTS(ranks >= 0, "the number of ranks must not be negative", ranks);
    FAIRLEAD_EXPECTS(utility > 0.0 && std::isfinite(utility), "V must be positive: it is what backlogs are divided by", utility);
    FAIRLEAD_EXPECTS(interval_ms >= 0.0, "the time between global batches must not be negative", interval_ms);
    FAIRLEAD_EXPECTS(smoothing > 0.0 && smoothing <= 1.0, "smoothing must be in (0, 1]", smoothing);
  }
};
static_assert(bias_controller_on<queue_bias, serial, alone>);

FAIRLEAD_NAMESPACE_END
