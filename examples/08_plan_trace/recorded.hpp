// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Where the loads come from: a NumPy file, a CSV file, or a seed.
#include "options.hpp"

#include <fairlead/core/load.hpp>
#include <fairlead/workload/drifting_load.hpp>
#include <fairlead/workload/trace.hpp>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace plan_trace {

/// @brief Loads by record and layer, in one block.
struct recorded {
  index_t records = 0;                ///< records
  index_t layers = 0;                 ///< layers of a record
  index_t ranks = 0;                  ///< source ranks of a load
  index_t experts = 0;                ///< experts of a load
  std::vector<fl::count_t> counts;    ///< @shape{records x layers x ranks x experts}

  /// @param record a record
  /// @param layer a layer
  /// @returns the load of one layer in one record @shape{ranks x experts}
  [[nodiscard]] fl::load_view load(index_t record, index_t layer) const {
    return {counts.data() + (record * layers + layer) * ranks * experts, ranks, experts};
  }
};

/// @brief Read a CSV file with the columns record,layer,rank,expert,copies (any order of lines; missing ones are 0).
/// @param path the file
/// @returns its loads
/// @throws std::runtime_error that names the line
inline recorded read_csv(std::string const& path) {
  std::ifstream file(path);
  if (!file) { throw std::runtime_error(path + ": cannot be opened"); }
  struct line_values {
    index_t value[5];
  };
  std::vector<line_values> lines;
  std::string text;
  recorded made;
  index_t number = 0;
  while (std::getline(file, text)) {
    ++number;
    if (!text.empty() && text.back() == '\r') { text.pop_back(); }
    if (text.empty() || (number == 1 && text.find_first_not_of("0123456789,.- ") != std::string::npos)) { continue; }  // a heading
    line_values one{};
    char const* at = text.data();
    char const* const end = text.data() + text.size();
    for (int column = 0; column < 5; ++column) {
      auto const [after, error] = std::from_chars(at, end, one.value[column]);
      bool const last = column == 4;
      if (error != std::errc{} || one.value[column] < 0 || one.value[column] > INT32_MAX || (last ? after != end : after == end || *after != ',')) {
        throw std::runtime_error(path + ":" + std::to_string(number) + ": expected record,layer,rank,expert,copies, not '" + text + "'");
      }
      at = after + 1;
    }
    made.records = std::max(made.records, one.value[0] + 1);
    made.layers = std::max(made.layers, one.value[1] + 1);
    made.ranks = std::max(made.ranks, one.value[2] + 1);
    made.experts = std::max(made.experts, one.value[3] + 1);
    lines.push_back(one);
  }
  if (lines.empty()) { throw std::runtime_error(path + ": holds no loads"); }
  double const cells = static_cast<double>(made.records) * static_cast<double>(made.layers) * static_cast<double>(made.ranks) * static_cast<double>(made.experts);
  if (cells > 1e9) { throw std::runtime_error(path + ": its largest numbers ask for more than 1e9 counts; are the columns in order?"); }
  made.counts.assign(static_cast<std::size_t>(cells), -1);  // not named yet
  for (line_values const& one : lines) {
    auto const at = ((one.value[0] * made.layers + one.value[1]) * made.ranks + one.value[2]) * made.experts + one.value[3];
    fl::count_t& count = made.counts[static_cast<std::size_t>(at)];
    if (count >= 0) {
      throw std::runtime_error(path + ": two lines begin with " + std::to_string(one.value[0]) + "," + std::to_string(one.value[1]) + "," +
                               std::to_string(one.value[2]) + "," + std::to_string(one.value[3]));
    }
    count = static_cast<fl::count_t>(one.value[4]);
  }
  std::replace(made.counts.begin(), made.counts.end(), fl::count_t{-1}, fl::count_t{0});
  return made;
}

/// @brief Refuse loads that schedules cannot count: the copies of an expert over all ranks have to stay below 2^31.
/// @param made the loads
/// @param path the file that they come from
/// @throws std::runtime_error that names the load
inline void check_totals(recorded const& made, std::string const& path) {
  std::vector<index_t> totals(static_cast<std::size_t>(made.experts));
  for (index_t record = 0; record < made.records; ++record) {
    for (index_t layer = 0; layer < made.layers; ++layer) {
      fl::sum_over_ranks(made.load(record, layer), totals);
      for (std::size_t e = 0; e < totals.size(); ++e) {
        if (totals[e] <= INT32_MAX) { continue; }
        throw std::runtime_error(path + ": record " + std::to_string(record) + ", layer " + std::to_string(layer) + ": expert " + std::to_string(e) + " has " +
                                 std::to_string(totals[e]) + " copies; schedules count below 2^31");
      }
    }
  }
}

/// @brief Get the loads that the options ask for.
/// @param given the options
/// @returns the loads
/// @throws std::runtime_error that says what is wrong with the file
inline recorded get_loads(options const& given) {
  recorded made;
  if (given.trace.empty()) {
    // Early training drifts fast: a persistence of 0.98 a record moves about 4 % of the copies from one record to the next.
    made = {.records = given.records == 0 ? 120 : given.records, .layers = given.layers == 0 ? 4 : given.layers,
            .ranks = given.made_ranks, .experts = given.made_experts, .counts = {}};
    for (index_t layer = 0; layer < made.layers; ++layer) {
      auto const loads = fl::workload::drifting_load{.ranks = made.ranks, .experts = made.experts, .copies = given.made_copies, .skew = 1.0,
                                                     .spread = 0.8, .persistence = 0.98, .rank_spread = 0.1,
                                                     .seed = given.seed + 1000 * static_cast<std::uint64_t>(layer)}
                             .make(made.records);
      made.counts.resize(static_cast<std::size_t>(made.records * made.layers * made.ranks * made.experts));
      for (index_t record = 0; record < made.records; ++record) {
        auto const from = loads[static_cast<std::size_t>(record)].span();
        std::copy(from.begin(), from.end(), made.counts.begin() + (record * made.layers + layer) * made.ranks * made.experts);
      }
    }
    check_totals(made, "--made-copies");
    return made;
  }
  if (given.trace.size() > 4 && given.trace.substr(given.trace.size() - 4) == ".csv") {
    made = read_csv(given.trace);
  } else {
    auto const read = fl::workload::trace::read(given.trace);
    auto const& outer = read.outer_shape();
    made.records = outer.empty() ? 1 : outer.front();
    made.layers = made.records == 0 ? 0 : read.size() / made.records;
    made.ranks = read.ranks();
    made.experts = read.experts();
    for (index_t i = 0; i < read.size(); ++i) {
      auto const load = read.load(i);
      made.counts.insert(made.counts.end(), load.data(), load.data() + made.ranks * made.experts);
    }
  }
  check_totals(made, given.trace);
  index_t const layers = given.layers == 0 ? made.layers : std::min(given.layers, made.layers);
  index_t const records = given.records == 0 ? made.records : std::min(given.records, made.records);
  if (layers != made.layers || records != made.records) {
    recorded less{.records = records, .layers = layers, .ranks = made.ranks, .experts = made.experts, .counts = {}};
    for (index_t record = 0; record < records; ++record) {
      auto const begin = made.counts.begin() + record * made.layers * made.ranks * made.experts;
      less.counts.insert(less.counts.end(), begin, begin + layers * made.ranks * made.experts);
    }
    return less;
  }
  return made;
}

}  // namespace plan_trace
