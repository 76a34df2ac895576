// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What is left of a training: the table and the CSV files.
#include "progress.hpp"

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace language_model {

/// @brief The result of one composition.
struct outcome {
  std::string name{};                ///< composition
  std::vector<step_numbers> curve{}; ///< every step
  index_t batch = 0;                 ///< tokens of a step, all ranks
  double validation_loss = 0.0;      ///< mean -log p over the validation text
  double train_imbalance = 1.0;      ///< most / mean copies of an expert, mean over the last steps
  double validation_imbalance = 1.0; ///< the same over the validation batches
  double dropped = 0.0;              ///< share of dropped copies over the last steps
  double exchanged_bytes = 0.0;      ///< bytes between ranks by the MoE layer for a training token
  double gradient_bytes = 0.0;       ///< bytes between ranks for replicated gradients in a step
  bool interrupted = false;          ///< stopped by a signal

  /// @returns seconds of training
  [[nodiscard]] double seconds() const { return curve.empty() ? 0.0 : curve.back().seconds; }
  /// @returns training tokens, all ranks
  [[nodiscard]] double tokens() const { return static_cast<double>(curve.size()) * static_cast<double>(batch); }
  /// @returns tokens a second
  [[nodiscard]] double speed() const { return seconds() > 0.0 ? tokens() / seconds() : 0.0; }
};

/// @brief Print the comparison.
/// @param outcomes one row each
inline void print_table(std::vector<outcome> const& outcomes) {
  std::printf("\n%-10s %6s %9s %10s %10s %10s %9s %12s %9s\n", "", "steps", "tokens", "validation", "train load",
              "valid load", "dropped", "bytes/token", "tokens/s");
  std::printf("%-10s %6s %9s %10s %10s %10s %9s %12s %9s\n", "layer", "", "", "perplexity", "max/mean", "max/mean",
              "(train)", "(exchange)", "");
  for (outcome const& row : outcomes) {
    std::printf("%-10s %6zu %9.0f %10.2f %10.3f %10.3f %8.2f%% %12.0f %9.0f%s\n", row.name.c_str(), row.curve.size(),
                row.tokens(), std::exp(row.validation_loss), row.train_imbalance, row.validation_imbalance,
                100.0 * row.dropped, row.exchanged_bytes, row.speed(), row.interrupted ? "  (interrupted)" : "");
  }
  std::fflush(stdout);
}

/// @brief Write curves.csv (a row a step) and summary.csv (a row a composition).
/// @param outcomes the results
/// @param folder made if needed
/// @throws std::runtime_error, std::filesystem::filesystem_error
inline void write_files(std::vector<outcome> const& outcomes, std::string const& folder) {
  std::filesystem::create_directories(folder);
  std::ofstream curves(std::filesystem::path(folder) / "curves.csv");
  curves.precision(9);
  curves << "composition,step,tokens,seconds,loss,load_max_over_mean,dropped_share\n";
  for (outcome const& result : outcomes) {
    for (step_numbers const& row : result.curve) {
      curves << result.name << ',' << row.step << ',' << row.step * result.batch << ',' << row.seconds << ','
             << row.loss << ',' << row.imbalance << ',' << row.dropped << '\n';
    }
  }
  std::ofstream summary(std::filesystem::path(folder) / "summary.csv");
  summary << "composition,steps,tokens,seconds,validation_loss,validation_perplexity,train_load_max_over_mean,"
             "validation_load_max_over_mean,dropped_share,exchanged_bytes_per_token,gradient_bytes_per_step,"
             "tokens_per_second,interrupted\n";
  for (outcome const& row : outcomes) {
    summary << row.name << ',' << row.curve.size() << ',' << row.tokens() << ',' << row.seconds() << ','
            << row.validation_loss << ',' << std::exp(row.validation_loss) << ',' << row.train_imbalance << ','
            << row.validation_imbalance << ',' << row.dropped << ',' << row.exchanged_bytes << ','
            << row.gradient_bytes << ',' << row.speed() << ',' << (row.interrupted ? 1 : 0) << '\n';
  }
  curves.close();
  summary.close();
  if (!curves || !summary) { throw std::runtime_error("cannot write the results to '" + folder + "'"); }
}

}  // namespace language_model
