// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What this machine can do at best, measured in the process that runs the bench; and how to compare with it.
///
/// All rates are cached: the first caller pays. All are the best of several runs, because a ceiling is a best case.
#include "support/axes.hpp"

#include <fairlead/core/buffer.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <map>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#if !defined(FAIRLEAD_BENCH_NO_BLAS) && __has_include(<cblas.h>)
#  include <cblas.h>
#  define FAIRLEAD_BENCH_BLAS 1
#else
#  define FAIRLEAD_BENCH_BLAS 0
#endif

namespace fl_bench {

/// @brief Time one call.
/// @param work what to call
/// @returns @unit{seconds} wall time
template <class Work>
double seconds_of(Work&& work) {
  auto const start = std::chrono::steady_clock::now();
  work();
  benchmark::ClobberMemory();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// @brief Time the best of several calls, after one that does not count.
/// @param work what to call
/// @param least number of calls at least
/// @param budget @unit{seconds} go on that long
/// @returns @unit{seconds} of the fastest call
template <class Work>
double best_seconds_of(Work&& work, int least = 5, double budget = 0.5) {
  work();
  double best = seconds_of(work);
  double spent = best;
  for (int call = 1; call < least || spent < budget; ++call) {
    double const now = seconds_of(work);
    spent += now;
    best = std::min(best, now);
  }
  return best;
}

/// @param values any numbers; sorted in place
/// @returns their median, 0 if there are none
inline double median_of(std::vector<double>& values) {
  if (values.empty()) { return 0.0; }
  std::sort(values.begin(), values.end());
  std::size_t const middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : 0.5 * (values[middle - 1] + values[middle]);
}

namespace detail {

template <class Key, class Measure>
double cached(std::map<Key, double>& known, Key const& key, Measure&& measure) {
  auto const found = known.find(key);
  if (found != known.end()) { return found->second; }
  return known[key] = measure();
}

}  // namespace detail

/// Bytes of the arrays behind the stream rates when nothing else is asked for.
inline constexpr index_t stream_bytes = index_t{256} << 20;

/// @brief How fast one core sums an array.
/// @param bytes size of the array: the default is far from any private cache; pass the size of the real input to
///        compare with reads that may hit the same caches
/// @returns @unit{bytes/second} read
inline double stream_read_rate(index_t bytes = stream_bytes) {
  static std::map<index_t, double> known;
  return detail::cached(known, bytes, [bytes] {
    fairlead::buffer<std::uint64_t> from(std::max<index_t>(bytes / 8, 1));
    std::fill_n(from.data(), from.size(), std::uint64_t{1});
    double const seconds = best_seconds_of([&from] {
      std::uint64_t sum = 0;
      for (std::uint64_t const value : from.span()) { sum += value; }
      benchmark::DoNotOptimize(sum);
    });
    return static_cast<double>(from.size() * 8) / seconds;
  });
}

/// @brief How fast one core copies between two arrays that stay allocated.
/// @param bytes size of each array
/// @returns @unit{bytes/second} read + written
inline double stream_copy_rate(index_t bytes = stream_bytes) {
  static std::map<index_t, double> known;
  return detail::cached(known, bytes, [bytes] {
    fairlead::buffer<std::uint64_t> from(std::max<index_t>(bytes / 8, 1)), to(from.size());
    std::fill_n(from.data(), from.size(), std::uint64_t{1});
    std::fill_n(to.data(), to.size(), std::uint64_t{0});
    double const seconds = best_seconds_of([&from, &to] {
      std::memcpy(to.data(), from.data(), static_cast<std::size_t>(from.size()) * 8);
      benchmark::DoNotOptimize(to.data());
    });
    return static_cast<double>(2 * from.size() * 8) / seconds;
  });
}

/// @brief How fast one core computes a = b + 3 c in fp32.
/// @param bytes size of each of the three arrays
/// @returns @unit{bytes/second} read + written, without the read that a write-allocating cache adds
inline double triad_rate(index_t bytes = stream_bytes) {
  static std::map<index_t, double> known;
  return detail::cached(known, bytes, [bytes] {
    index_t const count = std::max<index_t>(bytes / 4, 1);
    fairlead::buffer<float> a(count), b(count), c(count);
    std::fill_n(a.data(), count, 0.0F);
    std::fill_n(b.data(), count, 1.0F);
    std::fill_n(c.data(), count, 2.0F);
    double const seconds = best_seconds_of([&a, &b, &c, count] {
      float* const to = a.data();
      float const* const left = b.data();
      float const* const right = c.data();
      for (index_t i = 0; i < count; ++i) { to[i] = left[i] + 3.0F * right[i]; }
      benchmark::DoNotOptimize(a.data());
    });
    return static_cast<double>(3 * count * 4) / seconds;
  });
}

/// @brief How fast one core gathers random rows into an array that stays allocated.
/// @param width @unit{elements} row width, fp32
/// @param rows_in rows to gather from
/// @param rows_out rows gathered: each input row about rows_out / rows_in times, in random order
/// @returns @unit{bytes/second} read + written
inline double row_gather_rate(index_t width, index_t rows_in = 8192, index_t rows_out = 16384) {
  static std::map<std::tuple<index_t, index_t, index_t>, double> known;
  return detail::cached(known, std::tuple(width, rows_in, rows_out), [=] {
    fairlead::matrix<float> from(rows_in, width), to(rows_out, width);
    fill_normal(from.span(), 77);
    std::vector<index_t> order(static_cast<std::size_t>(rows_out));
    for (std::size_t i = 0; i < order.size(); ++i) { order[i] = static_cast<index_t>(i) % rows_in; }
    for (std::size_t i = order.size(); i > 1; --i) {
      auto const word = fairlead::philox::draw(axes::seed, 78, i)[0];
      std::swap(order[i - 1], order[fairlead::philox::below(word, static_cast<std::uint32_t>(i))]);
    }
    std::size_t const row_bytes = static_cast<std::size_t>(width) * sizeof(float);
    double const seconds = best_seconds_of([&] {
      for (index_t row = 0; row < rows_out; ++row) {
        std::memcpy(to.data() + row * width, from.data() + order[static_cast<std::size_t>(row)] * width, row_bytes);
      }
      benchmark::DoNotOptimize(to.data());
    });
    return 2.0 * static_cast<double>(rows_out * width) * sizeof(float) / seconds;
  });
}

/// Sizes of C[rows x cols] += A[rows x depth] B[depth x cols].
struct gemm_shape {
  index_t rows = 512;    ///< rows of A and C
  index_t cols = 1024;   ///< columns of B and C
  index_t depth = 4096;  ///< columns of A, rows of B
  /// Floating-point operations of one product.
  [[nodiscard]] double flop() const noexcept {
    return 2.0 * static_cast<double>(rows) * static_cast<double>(cols) * static_cast<double>(depth);
  }
  /// Order, for caching.
  friend auto operator<=>(gemm_shape const&, gemm_shape const&) = default;
};

/// Whether this binary has a BLAS; without one the GEMM rates are 0 and their counters are left out.
inline constexpr bool has_blas = FAIRLEAD_BENCH_BLAS == 1;

namespace detail {

struct gemm_operands {
  explicit gemm_operands(gemm_shape s)
      : shape(s), a(s.rows, s.depth), b(s.depth, s.cols), c(s.rows, s.cols) {
    fill_normal(a.span(), 79, 0.1F);
    fill_normal(b.span(), 80, 0.1F);
  }
  void multiply() {
#if FAIRLEAD_BENCH_BLAS
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, static_cast<int>(shape.rows), static_cast<int>(shape.cols),
                static_cast<int>(shape.depth), 1.0F, a.data(), static_cast<int>(shape.depth), b.data(),
                static_cast<int>(shape.cols), 0.0F, c.data(), static_cast<int>(shape.cols));
#endif
    benchmark::DoNotOptimize(c.data());
  }
  gemm_shape shape;
  fairlead::matrix<float> a, b, c;
};

}  // namespace detail

/// @brief How fast one call of the BLAS multiplies. One thread only if the environment says so: the run script sets
/// OPENBLAS_NUM_THREADS=1, nothing in a binary does.
/// @param shape sizes of the product
/// @returns @unit{flop/second}, 0 without a BLAS
inline double gemm_rate(gemm_shape shape = {}) {
  static std::map<gemm_shape, double> known;
  return detail::cached(known, shape, [shape] {
    if (!has_blas) { return 0.0; }
    detail::gemm_operands operands(shape);
    return shape.flop() / best_seconds_of([&operands] { operands.multiply(); }, 5, 0.5);
  });
}

/// @brief How fast two threads multiply, each with its own one-thread call.
/// @param shape sizes of each of the two products
/// @returns @unit{flop/second} of both together, 0 without a BLAS
inline double gemm_rate_two_threads(gemm_shape shape = {}) {
  static std::map<gemm_shape, double> known;
  return detail::cached(known, shape, [shape] {
    if (!has_blas) { return 0.0; }
    detail::gemm_operands mine(shape), other(shape);
    // Enough products a thread that starting it does not count.
    int const calls = static_cast<int>(std::clamp(4e9 / shape.flop(), 1.0, 1000.0));
    double const seconds = best_seconds_of(
        [&mine, &other, calls] {
          std::thread helper([&other, calls] {
            for (int call = 0; call < calls; ++call) { other.multiply(); }
          });
          for (int call = 0; call < calls; ++call) { mine.multiply(); }
          helper.join();
        },
        5, 0.5);
    return 2.0 * calls * shape.flop() / seconds;
  });
}

/// @brief Add `fraction_of_stream`: bytes moved per second over the copy rate.
/// @param state the running bench (UseRealTime() if several threads work)
/// @param bytes read + written by one iteration
/// @param rate ceiling; the copy rate by default
inline void report_fraction_of_stream(benchmark::State& state, double bytes, double rate = 0.0) {
  double const ceiling = rate > 0.0 ? rate : stream_copy_rate();
  state.counters["fraction_of_stream"] =
      benchmark::Counter(bytes / ceiling, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["bytes_per_second"] =
      benchmark::Counter(bytes, benchmark::Counter::kIsIterationInvariantRate, benchmark::Counter::kIs1024);
}

/// @brief Add `fraction_of_gather`: bytes moved per second over the random row gather of the same sizes.
/// @param state the running bench
/// @param bytes read + written by one iteration
/// @param width @unit{elements} row width
/// @param rows_in rows to gather from
/// @param rows_out rows gathered
inline void report_fraction_of_gather(benchmark::State& state, double bytes, index_t width, index_t rows_in,
                                      index_t rows_out) {
  state.counters["fraction_of_gather"] = benchmark::Counter(bytes / row_gather_rate(width, rows_in, rows_out),
                                                            benchmark::Counter::kIsIterationInvariantRate);
}

/// @brief Add `fraction_of_gemm`: operations per second over a GEMM rate.
/// @param state the running bench (UseRealTime() if several threads work)
/// @param flop operations of one iteration
/// @param rate ceiling: `gemm_rate(shape)` or `gemm_rate_two_threads(shape)`; 0 = no counter
inline void report_fraction_of_gemm(benchmark::State& state, double flop, double rate) {
  state.counters["flop_per_second"] = benchmark::Counter(flop, benchmark::Counter::kIsIterationInvariantRate);
  if (rate > 0.0) {
    state.counters["fraction_of_gemm"] = benchmark::Counter(flop / rate, benchmark::Counter::kIsIterationInvariantRate);
    state.counters["gemm_ceiling"] = benchmark::Counter(rate);
  }
}

/// @brief Add `reads_of_scores`: time of one iteration over the time of reading its input once at the stream rate.
/// @param state the running bench
/// @param bytes size of the scores
inline void report_reads_of_scores(benchmark::State& state, double bytes) {
  auto const inverse = static_cast<benchmark::Counter::Flags>(benchmark::Counter::kIsIterationInvariantRate |
                                                              benchmark::Counter::kInvert);
  state.counters["reads_of_scores"] = benchmark::Counter(bytes / stream_read_rate(), inverse);
}

/// What an interleaved comparison found.
struct comparison {
  double peer_seconds;  ///< median time of the peer
  double ours_seconds;  ///< median time of our code
  double ratio;         ///< median of peer / ours over the rounds: above 1 = ours is faster
};

/// @brief Run peer and our code by turns, so that both meet the same machine.
/// @param peer callable
/// @param ours callable
/// @param rounds how many times each
/// @returns the medians
template <class Peer, class Ours>
comparison interleaved(Peer&& peer, Ours&& ours, int rounds = 21) {
  peer();
  ours();
  std::vector<double> peers, own, ratios;
  for (int round = 0; round < rounds; ++round) {
    // Who goes first changes, so that neither always finds the other's cache.
    bool const peer_first = round % 2 == 0;
    double const first = peer_first ? seconds_of(peer) : seconds_of(ours);
    double const second = peer_first ? seconds_of(ours) : seconds_of(peer);
    peers.push_back(peer_first ? first : second);
    own.push_back(peer_first ? second : first);
    ratios.push_back(peers.back() / own.back());
  }
  return {median_of(peers), median_of(own), median_of(ratios)};
}

/// @brief The loop of a bench that runs a peer beside our code: reports our time and the counters `peer_seconds` and
/// `speedup_over_peer` (medians). Register it with `->UseManualTime()`.
/// @param state the running bench
/// @param peer callable
/// @param ours callable
template <class Peer, class Ours>
void run_interleaved(benchmark::State& state, Peer&& peer, Ours&& ours) {
  std::vector<double> peers, ratios;
  bool peer_first = true;
  for (auto _ : state) {
    double const first = peer_first ? seconds_of(peer) : seconds_of(ours);
    double const second = peer_first ? seconds_of(ours) : seconds_of(peer);
    double const peer_time = peer_first ? first : second;
    double const own_time = peer_first ? second : first;
    state.SetIterationTime(own_time);
    peers.push_back(peer_time);
    ratios.push_back(peer_time / own_time);
    peer_first = !peer_first;
  }
  state.counters["peer_seconds"] = benchmark::Counter(median_of(peers));
  state.counters["speedup_over_peer"] = benchmark::Counter(median_of(ratios));
}

}  // namespace fl_bench
