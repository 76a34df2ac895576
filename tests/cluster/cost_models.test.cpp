// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/cluster/alpha_beta_cost.hpp>
#include <fairlead/cluster/layer_time.hpp>
#include <fairlead/cluster/nic_cost.hpp>
#include <fairlead/cluster/summed_cost.hpp>
#include <fairlead/cluster/tile_cost.hpp>
#include <fairlead/laws/cost_model.hpp>

#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::count_t;
using fl::index_t;

namespace {

fl::nic_cost const nic{.bytes_per_copy = 8192.0, .intra_bytes_per_s = 200e9, .inter_bytes_per_s = 12.5e9};
fl::alpha_beta_cost const messages{.bytes_per_copy = 8192.0,
                                   .intra_latency_s = 3e-6,
                                   .inter_latency_s = 11e-6,
                                   .intra_bytes_per_s = 200e9,
                                   .inter_bytes_per_s = 12.5e9};
fl::tile_cost const tiles{.seconds_per_copy = 1.5e-6, .tile = 16, .launch_s = 5e-6, .weight_read_s = 40e-6, .passes = 3.0};
fl::layer_time const layer{.seconds_per_copy = 1.5e-6,
                           .tile = 8,
                           .bytes_per_copy = 8192.0,
                           .bytes_per_s = 12.5e9,
                           .latency_s = 20e-6,
                           .scheduler_s = 7e-6};

struct problem {
  fl::topology cluster;
  fl::placement where;
  fl::matrix<count_t> schedule;
};

problem random_problem(std::uint64_t number) {
  fl::laws::detail::case_numbers draw(17, number);
  problem made;
  made.cluster = fl::laws::detail::random_cluster(draw, 1 + draw.below(7), 1, 4);
  made.where = fl::make_placement(made.cluster, 5, fl::laws::detail::random_table(draw, made.cluster.slots(), 5));
  made.schedule = fl::matrix<count_t>(made.cluster.ranks(), made.where.replicas());
  for (count_t& count : made.schedule.span()) { count = draw.below(3) == 0 ? 0 : static_cast<count_t>(draw.below(60)); }
  return made;
}

// (source, destination) -> copies, straight from the definition of a schedule.
std::map<std::pair<index_t, index_t>, index_t> pairs_of(problem const& p) {
  std::map<std::pair<index_t, index_t>, index_t> pairs;
  for (index_t e = 0; e < p.where.experts(); ++e) {
    auto const expert = static_cast<fl::expert_id>(e);
    for (std::size_t r = 0; r < p.where.replicas(expert).size(); ++r) {
      for (index_t source = 0; source < p.cluster.ranks(); ++source) {
        index_t const copies = p.schedule(source, p.where.replica_offset(expert) + static_cast<index_t>(r));
        if (copies > 0) { pairs[{source, fl::to_index(p.where.replicas(expert)[r].rank)}] += copies; }
      }
    }
  }
  return pairs;
}

double rows_time(problem const& p, index_t tile, double per_row, double launch, double least) {
  std::vector<double> rank(static_cast<std::size_t>(p.cluster.ranks()), 0.0);
  for (index_t r = 0; r < p.cluster.ranks(); ++r) {
    for (index_t slot = 0; slot < p.cluster.slots(r); ++slot) {
      index_t const column = p.where.replica_at(static_cast<fl::rank_id>(r), static_cast<fl::local_slot_id>(slot));
      index_t rows = 0;
      for (index_t source = 0; column >= 0 && source < p.cluster.ranks(); ++source) { rows += p.schedule(source, column); }
      if (rows > 0) {
        double const whole = std::ceil(static_cast<double>(rows) / static_cast<double>(tile)) * static_cast<double>(tile);
        rank[static_cast<std::size_t>(r)] += launch + std::max(whole * per_row, least);
      }
    }
  }
  double largest = 0.0;
  for (double const one : rank) { largest = std::max(largest, one); }
  return largest;
}

template <class Model>
fl::step_cost cost_of(Model const& model, problem const& p) {
  fl::arena<> memory(model.workspace_bytes(p.cluster, p.where.experts()));
  fl::workspace ws = memory.view();
  return model.cost(p.cluster, p.where, p.schedule.view(), ws);
}

}  // namespace

TEST_CASE("every cost model keeps the laws", "[cluster][laws]") {
  for (index_t const ranks : {1, 2, 6}) {
    fl::laws::cost_model_problem const wanted{.ranks = ranks};
    CHECK(fl::laws::check_cost_model(nic, wanted));
    fl::nic_cost shared = nic;
    shared.inter_port = fl::port_owner::node;
    CHECK(fl::laws::check_cost_model(shared, wanted));
    CHECK(fl::laws::check_cost_model(messages, wanted));
    CHECK(fl::laws::check_cost_model(tiles, wanted));
    CHECK(fl::laws::check_cost_model(layer, wanted));
    CHECK(fl::laws::check_cost_model(fl::summed_cost<fl::nic_cost, fl::tile_cost>{nic, tiles}, wanted));
  }
}

TEST_CASE("models agree with sums over pairs of ranks", "[cluster]") {
  for (std::uint64_t number = 0; number < 60; ++number) {
    problem const p = random_problem(number);
    auto const pairs = pairs_of(p);
    auto const ranks = static_cast<std::size_t>(p.cluster.ranks());
    std::vector<double> near_out(ranks), near_in(ranks), far_out(ranks), far_in(ranks), out(ranks), in(ranks), all_out(ranks), all_in(ranks);
    std::vector<double> node_out(static_cast<std::size_t>(p.cluster.nodes())), node_in(node_out);
    for (auto const& [pair, copies] : pairs) {
      auto const [from, to] = pair;
      if (from == to) { continue; }
      auto const a = static_cast<std::size_t>(from);
      auto const b = static_cast<std::size_t>(to);
      auto const bytes = 8192.0 * static_cast<double>(copies);
      bool const near = p.cluster.node_of(from) == p.cluster.node_of(to);
      (near ? near_out : far_out)[a] += bytes;
      (near ? near_in : far_in)[b] += bytes;
      if (!near) {
        node_out[static_cast<std::size_t>(p.cluster.node_of(from))] += bytes;
        node_in[static_cast<std::size_t>(p.cluster.node_of(to))] += bytes;
      }
      double const time = (near ? 3e-6 : 11e-6) + bytes / (near ? 200e9 : 12.5e9);
      out[a] += time;
      in[b] += time;
      all_out[a] += bytes;
      all_in[b] += bytes;
    }
    double port = 0.0, node_port = 0.0, message = 0.0, most = 0.0;
    for (std::size_t r = 0; r < ranks; ++r) {
      double const near = std::max(near_out[r], near_in[r]) / 200e9;
      port = std::max({port, near, std::max(far_out[r], far_in[r]) / 12.5e9});
      node_port = std::max(node_port, near);
      message = std::max({message, out[r], in[r]});
      most = std::max({most, all_out[r], all_in[r]});
    }
    for (std::size_t n = 0; n < node_out.size(); ++n) { node_port = std::max({node_port, node_out[n] / 12.5e9, node_in[n] / 12.5e9}); }

    CHECK(cost_of(nic, p).communication_s == Approx(4.0 * port).epsilon(1e-12).margin(1e-300));
    CHECK(cost_of(nic, p).compute_s == 0.0);
    fl::nic_cost shared = nic;
    shared.inter_port = fl::port_owner::node;
    CHECK(cost_of(shared, p).communication_s == Approx(4.0 * node_port).epsilon(1e-12).margin(1e-300));
    CHECK(cost_of(messages, p).communication_s == Approx(4.0 * message).epsilon(1e-12).margin(1e-300));
    double const compute = rows_time(p, 16, 1.5e-6, 5e-6, 40e-6);
    CHECK(cost_of(tiles, p).compute_s == Approx(3.0 * compute).epsilon(1e-12).margin(1e-300));
    CHECK(cost_of(tiles, p).communication_s == 0.0);
    fl::step_cost const whole = cost_of(layer, p);
    CHECK(whole.communication_s == Approx(most > 0.0 ? 2.0 * (20e-6 + most / 12.5e9) : 0.0).epsilon(1e-12).margin(1e-300));
    CHECK(whole.compute_s == Approx(rows_time(p, 8, 1.5e-6, 0.0, 0.0) + 7e-6).epsilon(1e-12));
    fl::step_cost const both = cost_of(fl::summed_cost<fl::alpha_beta_cost, fl::tile_cost>{messages, tiles}, p);
    CHECK(both.total_s() == Approx(4.0 * message + 3.0 * compute).epsilon(1e-12));
  }
}

TEST_CASE("what stays on its rank is free, and one rank never communicates", "[cluster]") {
  fl::topology const one(1, 3);
  fl::placement const where = fl::make_placement(one, 3, std::vector<fl::expert_id>{fl::expert_id{0}, fl::expert_id{1}, fl::expert_id{2}});
  problem p{one, where, fl::matrix<count_t>(1, 3)};
  for (count_t& count : p.schedule.span()) { count = 1000; }
  CHECK(cost_of(nic, p).total_s() == 0.0);
  CHECK(cost_of(messages, p).total_s() == 0.0);
  CHECK(cost_of(layer, p).communication_s == 0.0);
  CHECK(cost_of(tiles, p).compute_s == Approx(3.0 * 3.0 * (5e-6 + 1008 * 1.5e-6)));
}

TEST_CASE("few rows cost as much as reading the weights, and tiles round up", "[cluster]") {
  fl::topology const one(1, 1);
  fl::placement const where = fl::make_placement(one, 1, std::vector<fl::expert_id>{fl::expert_id{0}});
  problem p{one, where, fl::matrix<count_t>(1, 1)};
  auto const seconds = [&](count_t rows) {
    p.schedule(0, 0) = rows;
    return cost_of(fl::tile_cost{.seconds_per_copy = 1.0, .tile = 8, .launch_s = 0.5, .weight_read_s = 20.0}, p).compute_s;
  };
  CHECK(seconds(0) == 0.0);
  CHECK(seconds(1) == 20.5);
  CHECK(seconds(16) == 20.5);
  CHECK(seconds(17) == 24.5);
  CHECK(seconds(24) == 24.5);
  CHECK(seconds(25) == 32.5);
}

TEST_CASE("cost models refuse what makes no sense", "[cluster][contract]") {
  problem p = random_problem(3);
  CHECK_THROWS_AS(cost_of(fl::nic_cost{}, p), fl::contract_violation);
  CHECK_THROWS_AS(cost_of(fl::alpha_beta_cost{}, p), fl::contract_violation);
  CHECK_THROWS_AS(cost_of(fl::layer_time{}, p), fl::contract_violation);
  CHECK_THROWS_AS(cost_of(fl::tile_cost{.tile = 0}, p), fl::contract_violation);
  p.schedule = fl::matrix<count_t>(p.cluster.ranks(), p.where.replicas() + 1);
  CHECK_THROWS_AS(cost_of(nic, p), fl::contract_violation);
  CHECK_THROWS_AS(cost_of(tiles, p), fl::contract_violation);
}

namespace {

// A correct model with one law broken, chosen by `fault`.
struct faulty {
  int fault = 0;
  mutable int calls = 0;
  [[nodiscard]] fl::step_cost cost(fl::topology const& cluster, fl::placement const& where, fl::const_token_schedule_view schedule,
                                   fl::workspace& ws) const {
    fl::step_cost result = nic.cost(cluster, where, schedule, ws);
    ++calls;
    if (fault == 1) { result.communication_s = -1.0; }
    if (fault == 2) { result.communication_s += calls; }
    double total = 0.0;
    for (index_t r = 0; r < schedule.rows(); ++r) {
      for (index_t c = 0; c < schedule.cols(); ++c) { total += schedule(r, c); }
    }
    if (fault == 3) { result.compute_s = 1.0 / (1.0 + total); }
    // Even totals are cheaper: no copies stay the cheapest, but one more may help.
    if (fault == 4) { result.compute_s = total == 0.0 ? 0.0 : 1.0 + std::fmod(total, 2.0); }
    if (fault == 5) {
      for (index_t c = 0; c < schedule.cols(); ++c) { result.compute_s += schedule(0, c); }
    }
    return result;
  }
  [[nodiscard]] std::size_t workspace_bytes(fl::topology const& cluster, index_t experts) const {
    std::size_t const bytes = nic.workspace_bytes(cluster, experts);
    return fault == 6 ? bytes / 2 : bytes;
  }
};

std::string reason_of(int fault) { return fl::laws::check_cost_model(faulty{fault}, {.ranks = 5}).reason(); }

}  // namespace

TEST_CASE("the cost model laws find one planted violation each", "[cluster][laws]") {
  CHECK(reason_of(0).empty());
  CHECK(reason_of(1).find("not negative") != std::string::npos);
  CHECK(reason_of(2).find("equal times") != std::string::npos);
  CHECK(reason_of(3).find("no more than some") != std::string::npos);
  CHECK(reason_of(4).find("one more copy") != std::string::npos);
  CHECK(reason_of(5).find("two ranks of a node") != std::string::npos);
  CHECK(reason_of(6).find("workspace_bytes") != std::string::npos);
  CHECK(fl::laws::check_cost_model(faulty{5}, {.ranks = 5, .ranks_alike = false}));
}
