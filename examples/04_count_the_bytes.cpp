// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// What does an exchange cost, and what is overlap worth? Wrap the communicator; the code that uses it stays the same.
#include <fairlead/comm/counted.hpp>
#include <fairlead/comm/inproc.hpp>
#include <fairlead/comm/throttled.hpp>
#include <fairlead/exec/serial.hpp>

#include <cstdio>
#include <memory>
#include <span>
#include <vector>

namespace fl = fairlead;
using fl::index_t;

// Time that only passes when somebody waits: the delays below are computed, not lived through.
struct simulated_clock {
  std::shared_ptr<double> now = std::make_shared<double>(0.0);
  double now_s() const { return *now; }
  void sleep_until_s(double seconds) const { *now = seconds; }
};

struct costs {
  index_t bytes = 0;            // that left this rank
  index_t messages = 0;         // that left this rank
  double apart_s = 0.0;         // exchange, then compute
  double overlapped_s = 0.0;    // compute while the rows are on their way
  float received = 0.0F;        // a checksum, to see that adaptors change nothing
};

// Every rank sends `rows` rows of `width` floats to every rank, itself included.
template <class Comm>
costs exchange_rows(Comm comm, index_t rows, index_t width) {
  fl::serial const on;
  simulated_clock const clock;
  fl::counted counting(comm);                                     // bytes and messages
  fl::throttled slow(counting, {.alpha_s = 10e-6, .beta_s_per_byte = 1e-9}, clock);  // 10 us + 1 GB/s

  index_t const ranks = slow.size();
  std::vector<index_t> offsets;
  for (index_t r = 0; r <= ranks; ++r) { offsets.push_back(r * rows * width); }
  std::vector<float> send(static_cast<std::size_t>(offsets.back()), static_cast<float>(slow.rank() + 1));
  std::vector<float> receive(send.size());

  double const compute_s = 200e-6;
  costs result;
  double start = clock.now_s();
  slow.all_to_all_v(on, send.data(), offsets, receive.data(), offsets).wait();
  *clock.now += compute_s;  // stands for work
  result.apart_s = clock.now_s() - start;

  start = clock.now_s();
  auto pending = slow.all_to_all_v(on, send.data(), offsets, receive.data(), offsets);
  *clock.now += compute_s;
  pending.wait();
  result.overlapped_s = clock.now_s() - start;

  fl::traffic const moved = counting.counters().of(fl::collective::all_to_all_v);
  result.bytes = moved.bytes_out / 2;  // of one of the two exchanges
  result.messages = moved.messages_out / 2;
  for (float const value : receive) { result.received += value; }
  return result;
}

int main() {
  index_t const ranks = 4, rows = 128, width = 128;
  fl::inproc::world world(ranks);
  std::vector<costs> const all = world.run([&](fl::inproc::communicator comm) { return exchange_rows(comm, rows, width); });
  costs const& mine = all.front();
  std::printf("rank 0 sends %lld messages, %lld bytes\n", static_cast<long long>(mine.messages),
              static_cast<long long>(mine.bytes));
  std::printf("exchange, then compute: %.0f us; compute during the exchange: %.0f us\n", 1e6 * mine.apart_s,
              1e6 * mine.overlapped_s);

  bool good = true;
  for (costs const& c : all) {
    good = good && c.messages == ranks - 1 && c.bytes == (ranks - 1) * rows * width * 4;  // own rows are not traffic
    good = good && c.overlapped_s < c.apart_s && c.received == static_cast<float>((1 + 2 + 3 + 4) * rows * width);
  }
  return good ? 0 : 1;
}
