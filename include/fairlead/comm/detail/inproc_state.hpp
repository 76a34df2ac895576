// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The shared memory behind `inproc`: posted operations, who has read what, and how ranks sleep and wake.
#include <fairlead/comm/detail/reduce.hpp>
#include <fairlead/comm/traffic.hpp>
#include <fairlead/core/contract.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <span>
#include <stdexcept>
#include <thread>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace inproc {

/// @brief Thrown out of collectives when another rank of the world threw: the collective can never complete.
class aborted : public std::runtime_error {
 public:
  /// The message says what happened; the cause is what `world::run` rethrows.
  aborted() : std::runtime_error("fairlead::inproc: another rank threw, so this collective cannot complete") {}
};

}  // namespace inproc

namespace detail {

// How it works. Operation number s of every rank uses slot s % slots. Starting writes a post (pointers and lengths) and
// counts it; once all ranks have posted, each rank pulls its data straight from its peers' buffers, and counts itself
// done; when all are done, all buffers are free again. A counter of a slot only grows: generation g of the slot is
// complete when the counter reaches (g + 1) * ranks, so that nothing needs to be reset. A rank that waits also advances
// every other operation it has started, which is why ranks may wait in different orders. Every rank sleeps on its own
// epoch, which whoever completes a counter bumps.

struct alignas(64) inproc_post {
  collective kind{};
  reduced_type type{};
  reduction op{};
  index_t element_bytes = 0;
  index_t count = 0;  // elements, with the meaning of traffic_of(); unused by all_to_all_v
  index_t root = 0;
  std::byte const* send = nullptr;
  std::byte* receive = nullptr;
};

struct alignas(64) inproc_slot {
  std::atomic<std::int64_t> posted{0};
  std::atomic<std::int64_t> reduced{0};
  std::atomic<std::int64_t> done{0};
  std::atomic<std::int64_t> fault{0};  // operation number + 1 of the last faulty operation
  index_t rank = 0, peer = 0, mine = 0, theirs = 0;  // its numbers, written by the one that set `fault`
};

struct inproc_message {
  std::byte* data = nullptr;
  index_t bytes = 0;
};

// Messages from one rank to another.
struct alignas(64) inproc_channel {
  static constexpr index_t depth = 16;
  std::atomic<std::int64_t> sent{0};
  std::atomic<std::int64_t> done{0};
  std::atomic<std::int64_t> fault{std::numeric_limits<std::int64_t>::max()};  // first message of wrong length
  index_t fault_sent = 0, fault_expected = 0;
  std::int64_t receives = 0;  // started by the receiver, its own business
  inproc_message out[depth];
  inproc_message in[depth];
};

enum class inproc_stage : std::uint8_t { started, reduced, moved };

struct alignas(64) inproc_rank {
  std::atomic<std::uint32_t> epoch{0};
  std::atomic<std::int64_t> finished_at{std::numeric_limits<std::int64_t>::max()};  // operations started when it left
  // From here on only the rank itself looks.
  std::int64_t started = 0;
  std::int64_t first_open = 0;  // all operations before this one are moved
  std::int64_t open_receives = 0;
  std::vector<inproc_stage> stage;
  std::vector<unsigned char> open;  // started and not yet waited for
};

class inproc_state {
 public:
  inproc_state(index_t ranks, index_t slots)
      : ranks_(ranks),
        slots_(slots),
        spins_(ranks <= static_cast<index_t>(std::thread::hardware_concurrency()) ? 256 : 0),
        rank_(std::make_unique<inproc_rank[]>(size(ranks))),
        slot_(std::make_unique<inproc_slot[]>(size(slots))),
        post_(std::make_unique<inproc_post[]>(size(slots * ranks))),
        offsets_(size(slots * ranks * 2 * (ranks + 1))),
        channel_(std::make_unique<inproc_channel[]>(size(ranks * ranks))) {
    for (index_t r = 0; r < ranks; ++r) {
      rank_[size(r)].stage.resize(size(slots));
      rank_[size(r)].open.resize(size(slots));
    }
  }

  [[nodiscard]] index_t ranks() const noexcept { return ranks_; }

  // Between runs, when no rank thread exists.
  void reset() noexcept {
    aborted_.store(false);
    for (index_t r = 0; r < ranks_; ++r) {
      inproc_rank& own = rank_[size(r)];
      own.finished_at.store(std::numeric_limits<std::int64_t>::max());
      own.started = own.first_open = own.open_receives = 0;
      std::fill(own.open.begin(), own.open.end(), static_cast<unsigned char>(0));
    }
    for (index_t s = 0; s < slots_; ++s) {
      for (auto* counter : {&slot_[size(s)].posted, &slot_[size(s)].reduced, &slot_[size(s)].done,
                            &slot_[size(s)].fault}) {
        counter->store(0);
      }
    }
    for (index_t c = 0; c < ranks_ * ranks_; ++c) {
      inproc_channel& channel = channel_[size(c)];
      channel.sent.store(0);
      channel.done.store(0);
      channel.fault.store(std::numeric_limits<std::int64_t>::max());
      channel.receives = 0;
    }
  }
  void abort() noexcept {
    aborted_.store(true);
    wake_all();
  }
  // By a rank that unwinds with operations under way: afterwards nobody touches its buffers.
  void abandon() noexcept {
    abort();
    drain();
  }
  void finish(index_t rank) noexcept {
    rank_[size(rank)].finished_at.store(rank_[size(rank)].started);
    wake_all();
  }

  // Starts a collective and returns its number; never blocks unless a barrier `slots` operations ago is still read.
  std::int64_t start(index_t rank, inproc_post const& post, std::span<index_t const> send_offsets,
                     std::span<index_t const> receive_offsets) {
    inproc_rank& own = rank_[size(rank)];
    std::int64_t const number = own.started;
    index_t const s = number % slots_;
    FAIRLEAD_EXPECTS(own.open[size(s)] == 0,
                     "too many operations in flight: wait for older ones, or give the world a larger limit", slots_);
    if (aborted_.load()) { leave(); }
    inproc_slot& slot = slot_[size(s)];
    std::int64_t const free = number / slots_ * ranks_;
    if (slot.done.load(std::memory_order_acquire) < free) {
      block(rank, [&] { return slot.done.load(std::memory_order_acquire) >= free; }, number - slots_);
    }
    post_[size(s * ranks_ + rank)] = post;
    std::copy(send_offsets.begin(), send_offsets.end(), offsets(s, rank));
    std::copy(receive_offsets.begin(), receive_offsets.end(), offsets(s, rank) + ranks_ + 1);
    own.stage[size(s)] = inproc_stage::started;
    own.open[size(s)] = 1;
    own.started = number + 1;
    if (slot.posted.fetch_add(1) + 1 == free + ranks_) { wake_all(); }
    return number;
  }

  void wait(index_t rank, std::int64_t number) {
    inproc_rank& own = rank_[size(rank)];
    index_t const s = number % slots_;
    inproc_slot& slot = slot_[size(s)];
    std::int64_t const full = (number / slots_ + 1) * ranks_;
    bool const leaves_early = post_[size(s * ranks_ + rank)].kind == collective::barrier;  // it has no buffers
    block(
        rank,
        [&] {
          if (leaves_early && slot.fault.load() != number + 1) { return own.stage[size(s)] == inproc_stage::moved; }
          return slot.done.load(std::memory_order_acquire) >= full;
        },
        number);
    own.open[size(s)] = 0;
    FAIRLEAD_EXPECTS(slot.fault.load(std::memory_order_acquire) != number + 1,
                     "all ranks must start the same collectives in the same order, with lengths, types, reduction and "
                     "root that fit each other (values: rank, peer, what the rank gave, what the peer gave)",
                     slot.rank, slot.peer, slot.mine, slot.theirs);
  }

  std::int64_t start_send(index_t from, index_t to, std::byte const* data, index_t bytes) {
    inproc_channel& channel = this->channel(from, to);
    std::int64_t const number = channel.sent.load(std::memory_order_relaxed);
    if (aborted_.load()) { leave(); }
    if (number - channel.done.load(std::memory_order_acquire) >= inproc_channel::depth) {
      wait_send(from, to, number - inproc_channel::depth);
    }
    // The receiver only reads; the pointer is shared with the receiving side's ring, hence without const.
    channel.out[number % inproc_channel::depth] = {const_cast<std::byte*>(data), bytes};
    channel.sent.store(number + 1);
    wake(to);
    return number;
  }
  std::int64_t start_receive(index_t from, index_t to, std::byte* data, index_t bytes) {
    inproc_channel& channel = this->channel(from, to);
    std::int64_t const number = channel.receives;
    if (aborted_.load()) { leave(); }
    if (number - channel.done.load(std::memory_order_relaxed) >= inproc_channel::depth) {
      wait_receive(from, to, number - inproc_channel::depth);
    }
    channel.in[number % inproc_channel::depth] = {data, bytes};
    channel.receives = number + 1;
    ++rank_[size(to)].open_receives;
    return number;
  }
  void wait_send(index_t from, index_t to, std::int64_t number) { wait_message(from, channel(from, to), number, to, true); }
  void wait_receive(index_t from, index_t to, std::int64_t number) {
    wait_message(to, channel(from, to), number, from, false);
  }

 private:
  static constexpr std::size_t size(index_t n) noexcept { return static_cast<std::size_t>(n); }
  index_t* offsets(index_t slot, index_t rank) noexcept {
    return offsets_.data() + (slot * ranks_ + rank) * 2 * (ranks_ + 1);
  }
  inproc_channel& channel(index_t from, index_t to) noexcept { return channel_[size(from * ranks_ + to)]; }

  void wake(index_t rank) noexcept {
    rank_[size(rank)].epoch.fetch_add(1);
    rank_[size(rank)].epoch.notify_one();
  }
  void wake_all() noexcept {
    for (index_t r = 0; r < ranks_; ++r) { wake(r); }
  }

  // Nobody may unwind, and free a buffer, while a peer reads it: an abort first stops new reads, then waits for the
  // running ones (both flags are sequentially consistent: one side sees the other).
  bool begin_pull() noexcept {
    pulls_.fetch_add(1);
    if (!aborted_.load()) { return true; }
    pulls_.fetch_sub(1);
    return false;
  }
  void end_pull() noexcept { pulls_.fetch_sub(1); }
  void drain() noexcept {
    while (pulls_.load() != 0) { std::this_thread::yield(); }
  }
  [[noreturn]] void leave() {
    drain();
    throw inproc::aborted();
  }

  // Sleeps until `ready`, moving data in the meantime. `number` is a collective that all ranks have to start.
  template <class Ready>
  void block(index_t rank, Ready ready, std::int64_t number) {
    block(rank, ready, [this, number] {
      inproc_slot const& slot = slot_[size(number % slots_)];
      if (slot.posted.load() >= (number / slots_ + 1) * ranks_) { return; }
      for (index_t r = 0; r < ranks_; ++r) {
        FAIRLEAD_EXPECTS(rank_[size(r)].finished_at.load() > number,
                         "a rank left world::run without starting a collective that others wait for", r, number);
      }
    });
  }
  template <class Ready, class Hopeless>
    requires requires(Hopeless hopeless) { hopeless(); }
  void block(index_t rank, Ready ready, Hopeless hopeless) {
    inproc_rank& own = rank_[size(rank)];
    for (;;) {
      std::uint32_t const seen = own.epoch.load();
      progress(rank);
      if (ready()) { return; }
      if (aborted_.load()) { leave(); }
      hopeless();
      int spin = 0;
      while (spin < spins_ && own.epoch.load(std::memory_order_relaxed) == seen) { ++spin; }
      own.epoch.wait(seen);
    }
  }
  void wait_message(index_t rank, inproc_channel& channel, std::int64_t number, index_t peer,
                    bool sending) {
    block(
        rank, [&] { return channel.done.load(std::memory_order_acquire) > number; },
        [&] {
          // What the peer did before it left is visible once `gone` is.
          bool const gone = rank_[size(peer)].finished_at.load() != std::numeric_limits<std::int64_t>::max();
          std::int64_t const served = (sending ? channel.done : channel.sent).load();
          FAIRLEAD_EXPECTS(!gone || peer == rank || served > number,
                           "a rank left world::run without the send or receive that this rank waits for", peer);
        });
    FAIRLEAD_EXPECTS(channel.fault.load(std::memory_order_acquire) > number,
                     "a message must be as long as what its receiver expects (bytes sent, bytes expected)",
                     channel.fault_sent, channel.fault_expected);
  }

  void progress(index_t rank) noexcept {
    inproc_rank& own = rank_[size(rank)];
    for (std::int64_t number = own.first_open; number < own.started; ++number) {
      if (own.stage[size(number % slots_)] != inproc_stage::moved) { advance(rank, number); }
    }
    while (own.first_open < own.started && own.stage[size(own.first_open % slots_)] == inproc_stage::moved) {
      ++own.first_open;
    }
    for (index_t from = 0; own.open_receives > 0 && from < ranks_; ++from) { take_messages(from, rank); }
  }

  void take_messages(index_t from, index_t to) noexcept {
    inproc_channel& channel = this->channel(from, to);
    std::int64_t number = channel.done.load(std::memory_order_relaxed);
    while (number < channel.receives && number < channel.sent.load()) {
      inproc_message const& out = channel.out[number % inproc_channel::depth];
      inproc_message const& in = channel.in[number % inproc_channel::depth];
      if (!begin_pull()) { return; }
      if (out.bytes == in.bytes) {
        if (out.bytes > 0) { std::memcpy(in.data, out.data, size(out.bytes)); }
      } else if (channel.fault.load() > number) {
        channel.fault_sent = out.bytes;
        channel.fault_expected = in.bytes;
        channel.fault.store(number);
      }
      end_pull();
      channel.done.store(++number);
      --rank_[size(to)].open_receives;
      wake(from);
    }
  }

  void advance(index_t rank, std::int64_t number) noexcept {
    index_t const s = number % slots_;
    inproc_slot& slot = slot_[size(s)];
    inproc_stage& stage = rank_[size(rank)].stage[size(s)];
    std::int64_t const full = (number / slots_ + 1) * ranks_;
    inproc_post const& mine = post_[size(s * ranks_ + rank)];
    if (stage == inproc_stage::started) {
      if (slot.posted.load(std::memory_order_acquire) < full || !begin_pull()) { return; }
      bool const sound = fits(rank, s, number);
      if (sound) { pull(rank, s, mine); }
      end_pull();
      bool const last = slot.reduced.fetch_add(1) + 1 == full;
      stage = inproc_stage::reduced;
      if (last && (mine.kind == collective::all_reduce || !sound)) { wake_all(); }  // unsound: others may all_reduce
    }
    if (mine.kind == collective::all_reduce) {
      if (slot.reduced.load(std::memory_order_acquire) < full || !begin_pull()) { return; }
      if (slot.fault.load(std::memory_order_acquire) != number + 1) { gather_parts(rank, s, mine); }
      end_pull();
    }
    stage = inproc_stage::moved;
    if (slot.done.fetch_add(1) + 1 == full) { wake_all(); }
  }

  // Whether what this rank reads from its peers is what it expects; each rank looks at its own side, and the first
  // misfit is told to all.
  [[nodiscard]] bool fits(index_t rank, index_t s, std::int64_t number) noexcept {
#if FAIRLEAD_CONTRACT_LEVEL >= 1
    inproc_post const& mine = post_[size(s * ranks_ + rank)];
    for (index_t peer = 0; peer < ranks_; ++peer) {
      inproc_post const& theirs = post_[size(s * ranks_ + peer)];
      if (mine.kind != theirs.kind) {
        return report(s, number, rank, peer, static_cast<index_t>(mine.kind), static_cast<index_t>(theirs.kind));
      }
      if (mine.element_bytes != theirs.element_bytes) {
        return report(s, number, rank, peer, mine.element_bytes, theirs.element_bytes);
      }
      if (mine.type != theirs.type) {
        return report(s, number, rank, peer, static_cast<index_t>(mine.type), static_cast<index_t>(theirs.type));
      }
      if (mine.op != theirs.op) {
        return report(s, number, rank, peer, static_cast<index_t>(mine.op), static_cast<index_t>(theirs.op));
      }
      if (mine.root != theirs.root) { return report(s, number, rank, peer, mine.root, theirs.root); }
      if (mine.count != theirs.count) { return report(s, number, rank, peer, mine.count, theirs.count); }
      if (mine.kind == collective::all_to_all_v) {
        index_t const* const out = offsets(s, peer) + rank;
        index_t const* const in = offsets(s, rank) + ranks_ + 1 + peer;
        if (out[1] - out[0] != in[1] - in[0]) { return report(s, number, rank, peer, in[1] - in[0], out[1] - out[0]); }
      }
    }
#else
    (void)rank, (void)s, (void)number;
#endif
    return true;
  }
  bool report(index_t s, std::int64_t number, index_t rank, index_t peer, index_t mine, index_t theirs) noexcept {
    inproc_slot& slot = slot_[size(s)];
    std::int64_t before = slot.fault.load();
    if (before != number + 1 && slot.fault.compare_exchange_strong(before, number + 1)) {
      slot.rank = rank;
      slot.peer = peer;
      slot.mine = mine;
      slot.theirs = theirs;
    }
    return false;
  }

  void pull(index_t rank, index_t s, inproc_post const& mine) noexcept {
    index_t const width = mine.element_bytes;
    auto const post = [this, s](index_t peer) -> inproc_post const& { return post_[size(s * ranks_ + peer)]; };
    switch (mine.kind) {
      case collective::all_to_all_v:
        for (index_t i = 0; i < ranks_; ++i) {  // start beside oneself, so that not all read the same rank
          index_t const peer = (rank + i) % ranks_;
          index_t const* const out = offsets(s, peer) + rank;
          index_t const* const in = offsets(s, rank) + ranks_ + 1 + peer;
          copy(mine.receive + in[0] * width, post(peer).send + out[0] * width, (out[1] - out[0]) * width);
        }
        break;
      case collective::all_gather:
        for (index_t i = 0; i < ranks_; ++i) {
          index_t const peer = (rank + i) % ranks_;
          copy(mine.receive + peer * mine.count * width, post(peer).send, mine.count * width);
        }
        break;
      case collective::all_reduce: {
        index_t const first = part_begin(mine.count, ranks_, rank);
        index_t const count = part_begin(mine.count, ranks_, rank + 1) - first;
        reduce_in_rank_order(
            mine.type, mine.op, ranks_, [&](index_t peer) { return post(peer).send + first * width; },
            mine.receive + first * width, count);
        break;
      }
      case collective::reduce_scatter:
        reduce_in_rank_order(
            mine.type, mine.op, ranks_, [&](index_t peer) { return post(peer).send + rank * mine.count * width; },
            mine.receive, mine.count);
        break;
      case collective::broadcast: copy(mine.receive, post(mine.root).send, mine.count * width); break;
      case collective::send:
      case collective::receive:
      case collective::barrier: break;
    }
  }
  // Second half of all_reduce: every part from the rank that added it up.
  void gather_parts(index_t rank, index_t s, inproc_post const& mine) noexcept {
    for (index_t i = 1; i < ranks_; ++i) {
      index_t const peer = (rank + i) % ranks_;
      index_t const first = part_begin(mine.count, ranks_, peer);
      index_t const count = part_begin(mine.count, ranks_, peer + 1) - first;
      copy(mine.receive + first * mine.element_bytes,
           post_[size(s * ranks_ + peer)].send + first * mine.element_bytes, count * mine.element_bytes);
    }
  }
  static void copy(std::byte* to, std::byte const* from, index_t bytes) noexcept {
    if (bytes > 0 && to != from) { std::memcpy(to, from, size(bytes)); }
  }

  index_t ranks_;
  index_t slots_;
  int spins_;
  std::unique_ptr<inproc_rank[]> rank_;
  std::unique_ptr<inproc_slot[]> slot_;
  std::unique_ptr<inproc_post[]> post_;
  std::vector<index_t> offsets_;
  std::unique_ptr<inproc_channel[]> channel_;
  alignas(64) std::atomic<bool> aborted_{false};
  alignas(64) std::atomic<std::int64_t> pulls_{0};
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
