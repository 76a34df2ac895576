// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief One run: slots of arrivals that the controller routes and serves, and a model that learns from what is completed.
#include "../common/edge_strategies.hpp"
#include "../common/interrupt.hpp"
#include "learner.hpp"
#include "options.hpp"
#include "results.hpp"

#include <fairlead/core/philox.hpp>
#include <fairlead/edge/cubic_energy.hpp>
#include <fairlead/edge/lyapunov_controller.hpp>
#include <fairlead/edge/ties.hpp>
#include <fairlead/workload/poisson_arrivals.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <ctime>
#include <span>
#include <vector>

namespace edge_training {

/// Servers = experts, as reported for the paper.
inline constexpr index_t server_count = 10;
/// Experts of a token, as reported for the paper.
inline constexpr index_t chosen_count = 3;

/// @brief What a run is.
struct job {
  std::string strategy;    ///< name of the router
  double utility = 100.0;  ///< V
  std::uint64_t seed = 1;  ///< of arrivals, servers, parameters and ties
};

/// @returns processor seconds of this thread: runs beside it do not count
inline double processor_seconds() {
  std::timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// @brief Which training image each token is, drawn with replacement: the same for all strategies of a seed.
/// @param seed of the run
/// @param token number of the token
/// @param images number of training images
/// @returns number of the image
inline index_t image_of(std::uint64_t seed, index_t token, index_t images) {
  constexpr std::uint64_t stream = 0x696D61676573;
  auto const words = fl::philox::draw(seed, stream, static_cast<std::uint64_t>(token));
  return static_cast<index_t>(fl::philox::below(words[0], static_cast<std::uint32_t>(images)));
}

/// @brief Let the slots pass.
/// @tparam Router a model of `fairlead::slot_router`
/// @param what the run
/// @param router who gets which token
/// @param data images
/// @param chosen the options
/// @param tick called after each slot
/// @returns what was measured
template <class Router, class Tick>
outcome run(job const& what, Router const& router, data_set const& data, options const& chosen, Tick const& tick) {
  double const start = processor_seconds();
  outcome result{.name = what.strategy, .utility = what.utility, .seed = what.seed};

  fl::workload::poisson_arrivals const poisson{.mean = chosen.arrivals, .seed = what.seed};
  std::vector<index_t> arrivals(static_cast<std::size_t>(chosen.slots));
  index_t total = 0;
  for (std::size_t slot = 0; slot < arrivals.size(); ++slot) { total += arrivals[slot] = poisson.at(slot); }
  index_t const most_arrivals = *std::max_element(arrivals.begin(), arrivals.end());

  // Seeded streams apart from each other; every strategy of a seed has the same servers, arrivals, ties and first parameters.
  fl::lyapunov_controller const controller{.servers = fl::cubic_energy(examples::edge_servers(server_count, what.seed)),
                                           .fan_out = chosen_count,
                                           .weights = {.utility = what.utility, .gate = chosen.gate},
                                           .router = router,
                                           .speed = fl::closed_form_speed{},
                                           .order = fl::serve_same_slot{},
                                           .ties = fl::ties_seeded{.seed = what.seed},
                                           .admission = fl::accept_all{},
                                           .seed = what.seed};
  auto state = controller.make_state({.max_arrivals = most_arrivals, .max_waiting = total});
  fl::arena<> memory(controller.workspace_bytes(most_arrivals));

  // A slot completes at most a token for each copy that all servers can finish in it.
  double most_copies = 0.0;
  for (index_t j = 0; j < server_count; ++j) { most_copies += controller.servers.cap(j) + 1.0; }
  index_t const test_images = chosen.test == 0 ? data.test.size() : std::min(chosen.test, data.test.size());
  index_t const most_rows = std::max({most_arrivals, std::min(total, static_cast<index_t>(std::ceil(most_copies))), std::min<index_t>(test_images, 500)});
  learner model({.width = data.train.width, .hidden = chosen.hidden, .classes = class_count, .experts = server_count, .fan_out = chosen_count},
                most_rows, chosen.rate, what.seed);

  std::vector<fl::expert_id> choice_of(static_cast<std::size_t>(total * chosen_count));  // of every token: it may wait for long
  std::vector<fl::expert_id> best(static_cast<std::size_t>(most_arrivals * chosen_count));
  std::vector<index_t> numbers;
  std::vector<double> spent(static_cast<std::size_t>(server_count), 0.0);
  double mass = 0.0, best_mass = 0.0, waited = 0.0;

  for (index_t slot = 0; slot < chosen.slots; ++slot) {
    index_t const tokens = arrivals[static_cast<std::size_t>(slot)];
    numbers.clear();
    for (index_t i = 0; i < tokens; ++i) { numbers.push_back(image_of(what.seed, state.next_token + i, data.train.size())); }
    auto const scores = model.score(data.train, numbers);
    fl::workspace ws = memory.view();
    fl::slot_report const report = controller.step(scores, state, ws);

    std::copy_n(report.choice.data(), tokens * chosen_count, choice_of.begin() + report.first_token * chosen_count);
    fl::matrix_view<fl::expert_id> const gate_alone(best.data(), tokens, chosen_count);
    choose_best(scores, gate_alone);
    mass += report.gate_mass;
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t k = 0; k < chosen_count; ++k) { best_mass += static_cast<double>(scores(t, fl::to_index(gate_alone(t, k)))); }
    }
    for (std::size_t j = 0; j < spent.size(); ++j) { spent[j] += report.energy[j]; }

    // A token is learned from when its last copy is served: by the experts chosen at its arrival, but with the parameters
    // of now, its gate weights included. A server that answers late answers with what it has learned since.
    numbers.clear();
    for (std::size_t i = 0; i < report.completed.size(); ++i) {
      index_t const token = report.completed[i];
      numbers.push_back(image_of(what.seed, token, data.train.size()));
      std::copy_n(choice_of.begin() + token * chosen_count, chosen_count, model.choice(static_cast<index_t>(i)).begin());
      waited += static_cast<double>(report.delays[i]);
    }
    double const loss = model.learn(data.train, numbers);
    result.completed += static_cast<double>(numbers.size());

    bool const last = slot + 1 == chosen.slots;
    point now{.slot = slot + 1, .completed = result.completed, .backlog = state.total_backlog(), .loss = loss};
    if (last || (slot + 1) % chosen.every == 0) { now.accuracy = model.accuracy(data.test, test_images); }
    result.curve.push_back(now);
    tick();
    if (!last && examples::interrupt::came()) {
      result.interrupted = true;
      return result;
    }
  }

  auto const slots = static_cast<double>(chosen.slots);
  result.arrivals = static_cast<double>(total);
  result.waiting = static_cast<double>(state.under_way);
  result.accuracy = result.curve.back().accuracy;
  result.backlog = state.total_backlog();
  for (std::size_t j = 0; j < spent.size(); ++j) {
    result.overshoot = std::max(result.overshoot, spent[j] / slots - controller.servers.budget(static_cast<index_t>(j)));
    result.energy_debt += state.energy_debt[j];
  }
  result.gate_share = best_mass > 0.0 ? mass / best_mass : 1.0;
  result.delay = result.completed > 0.0 ? waited / result.completed : 0.0;
  result.seconds = processor_seconds() - start;
  return result;
}

}  // namespace edge_training
