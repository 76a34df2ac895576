// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Operations in flight of `mpi::communicator`: requests, pieces, second phases.
#include <fairlead/comm/detail/reduce.hpp>
#include <fairlead/comm/traffic.hpp>
#include <fairlead/core/buffer.hpp>
#include <fairlead/core/contract.hpp>

// The C interface is all we use, and MPI's old C++ one does not compile without warnings.
#ifndef OMPI_SKIP_MPICXX
#  define OMPI_SKIP_MPICXX 1
#endif
#ifndef MPICH_SKIP_MPICXX
#  define MPICH_SKIP_MPICXX 1
#endif
#include <mpi.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief A call of MPI failed.
class mpi_error : public std::runtime_error {
 public:
  /// @param call name of the call
  /// @param code what it returned
  mpi_error(char const* call, int code) : std::runtime_error(text(call, code)), code_(code) {}
  /// @returns MPI's error code
  [[nodiscard]] int code() const noexcept { return code_; }

 private:
  static std::string text(char const* call, int code) {
    std::array<char, MPI_MAX_ERROR_STRING> message{};
    int length = 0;
    std::string result = std::string(call) + " failed with code " + std::to_string(code);
    if (MPI_Error_string(code, message.data(), &length) == MPI_SUCCESS) { result += ": " + std::string(message.data()); }
    return result;
  }
  int code_;
};

/// @brief Sizes that decide how `mpi::communicator` moves data; the same on all ranks.
struct mpi_options {
  /// Longest piece of a message, 1 to 2^30; MPI counts are 32 bits wide. @unit{bytes}
  index_t piece_bytes = index_t{1} << 30;
  /// Reductions whose inputs of all ranks together are at most this long are gathered and added everywhere: one
  /// exchange instead of two. @unit{bytes}
  index_t gather_and_add_bytes = index_t{1} << 16;
};

namespace detail {

inline void check_mpi(int code, char const* call) {
  if (code != MPI_SUCCESS) [[unlikely]] { throw mpi_error(call, code); }
}

struct mpi_operation {
  bool open = false;      // started and not yet waited for
  bool complete = false;  // all data moved
  collective kind{};
  reduced_type type{};
  reduction op{};
  int second_tag = -1;  // >= 0: when the requests are done, add and exchange the sums under this tag
  bool adds = false;    // when the requests are done, add
  bool gathered = false;  // the inputs of all ranks lie in `inputs`, this rank's included
  std::byte const* own = nullptr;  // this rank's input of the reduction
  std::byte* out = nullptr;        // where the reduction goes
  std::byte* values = nullptr;     // all_reduce: all elements
  index_t count = 0;               // elements to add here
  index_t total = 0;               // all_reduce: all elements
  index_t width = 1;
  int error = MPI_SUCCESS;
  index_t expected = 0, arrived = 0;  // of the first short message
  std::vector<MPI_Request> requests;
  std::vector<index_t> lengths;  // of each request; -1 for those that receive no message of known length
  std::vector<MPI_Status> statuses;
  buffer<std::byte> inputs;  // [ranks x count] parts of the other ranks
};

class mpi_state {
 public:
  mpi_state(MPI_Comm parent, mpi_options options) : options_(options) {
    FAIRLEAD_EXPECTS(options.piece_bytes >= 1 && options.piece_bytes <= (index_t{1} << 30),
                     "piece_bytes must lie in [1, 2^30]", options.piece_bytes);
    int initialized = 0;
    check_mpi(MPI_Initialized(&initialized), "MPI_Initialized");
    FAIRLEAD_EXPECTS(initialized != 0, "initialise MPI first: make a fairlead::mpi::session in main");
    check_mpi(MPI_Comm_dup(parent, &comm_), "MPI_Comm_dup");
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
    int rank = 0, ranks = 0;
    check_mpi(MPI_Comm_rank(comm_, &rank), "MPI_Comm_rank");
    check_mpi(MPI_Comm_size(comm_, &ranks), "MPI_Comm_size");
    rank_ = rank;
    ranks_ = ranks;
    offered_.resize(size(2 * ranks_));
    wanted_.resize(size(2 * ranks_));
  }
  mpi_state(mpi_state const&) = delete;
  mpi_state& operator=(mpi_state const&) = delete;
  ~mpi_state() {
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (finalized == 0 && !abandoned_) { MPI_Comm_free(&comm_); }
  }
  [[nodiscard]] index_t rank() const noexcept { return rank_; }
  [[nodiscard]] index_t ranks() const noexcept { return ranks_; }

  std::size_t start_barrier() {
    auto [index, op] = fresh(collective::barrier);
    check_mpi(MPI_Ibarrier(comm_, request(op, -1)), "MPI_Ibarrier");
    return index;
  }
  std::size_t start_all_to_all(std::byte const* send, std::span<index_t const> send_offsets, std::byte* receive,
                               std::span<index_t const> receive_offsets, index_t width) {
    agree(collective::all_to_all_v, width, send_offsets, receive_offsets);
    // Before anything is posted: a message under way would outlive the exception.
    index_t const own = (send_offsets[size(rank_ + 1)] - send_offsets[size(rank_)]) * width;
    index_t const own_expected = (receive_offsets[size(rank_ + 1)] - receive_offsets[size(rank_)]) * width;
    FAIRLEAD_EXPECTS(own == own_expected, "what a rank sends must be as long as what the receiver expects", own,
                     own_expected);
    auto [index, op] = fresh(collective::all_to_all_v);
    int const tag = next_tag();
    copy(receive + receive_offsets[size(rank_)] * width, send + send_offsets[size(rank_)] * width, own);
    for (index_t i = 1; i < ranks_; ++i) {
      index_t const from = (rank_ + ranks_ - i) % ranks_;
      receive_pieces(op, receive + receive_offsets[size(from)] * width,
                     (receive_offsets[size(from + 1)] - receive_offsets[size(from)]) * width, from, tag);
    }
    for (index_t i = 1; i < ranks_; ++i) {
      index_t const to = (rank_ + i) % ranks_;
      send_pieces(op, send + send_offsets[size(to)] * width,
                  (send_offsets[size(to + 1)] - send_offsets[size(to)]) * width, to, tag);
    }
    return index;
  }
  std::size_t start_all_gather(std::byte const* send, std::byte* receive, index_t bytes) {
    agree(collective::all_gather, 0, bytes);
    auto [index, op] = fresh(collective::all_gather);
    int const tag = next_tag();
    std::byte* const place = receive + rank_ * bytes;
    if (send != place) { copy(place, send, bytes); }
    if (bytes * ranks_ <= options_.piece_bytes) {
      // MPI wants MPI_IN_PLACE on all ranks or on none, and this rank does not know where the others' elements lie.
      check_mpi(MPI_Iallgather(MPI_IN_PLACE, 0, MPI_BYTE, receive, static_cast<int>(bytes), MPI_BYTE, comm_,
                               request(op, -1)),
                "MPI_Iallgather");
      return index;
    }
    for (index_t i = 1; i < ranks_; ++i) {
      index_t const from = (rank_ + ranks_ - i) % ranks_;
      receive_pieces(op, receive + from * bytes, bytes, from, tag);
    }
    for (index_t i = 1; i < ranks_; ++i) { send_pieces(op, send, bytes, (rank_ + i) % ranks_, tag); }
    return index;
  }
  std::size_t start_all_reduce(std::byte* values, index_t count, index_t width, reduced_type type, reduction reduce) {
    agree(collective::all_reduce, signature(width, type, reduce), count);
    auto [index, op] = fresh(collective::all_reduce);
    op.type = type;
    op.op = reduce;
    op.width = width;
    op.adds = true;
    int const tag = next_tag();
    if (index_t const all = count * width * ranks_; all <= std::min(options_.gather_and_add_bytes, options_.piece_bytes)) {
      op.gathered = true;
      op.out = values;
      op.count = count;
      op.inputs.resize(all);
      check_mpi(MPI_Iallgather(values, static_cast<int>(count * width), MPI_BYTE, op.inputs.data(),
                               static_cast<int>(count * width), MPI_BYTE, comm_, request(op, -1)),
                "MPI_Iallgather");
      return index;
    }
    op.second_tag = next_tag();
    op.values = values;
    op.total = count;
    index_t const first = part_begin(count, ranks_, rank_);
    op.count = part_begin(count, ranks_, rank_ + 1) - first;
    op.own = values + first * width;
    op.out = values + first * width;
    op.inputs.resize(op.count * width * ranks_);
    for (index_t i = 1; i < ranks_; ++i) {
      index_t const from = (rank_ + ranks_ - i) % ranks_;
      receive_pieces(op, op.inputs.data() + from * op.count * width, op.count * width, from, tag);
    }
    for (index_t i = 1; i < ranks_; ++i) {
      index_t const to = (rank_ + i) % ranks_;
      index_t const begin = part_begin(count, ranks_, to);
      send_pieces(op, values + begin * width, (part_begin(count, ranks_, to + 1) - begin) * width, to, tag);
    }
    return index;
  }
  std::size_t start_reduce_scatter(std::byte const* send, std::byte* receive, index_t count, index_t width,
                                   reduced_type type, reduction reduce) {
    agree(collective::reduce_scatter, signature(width, type, reduce), count);
    auto [index, op] = fresh(collective::reduce_scatter);
    op.type = type;
    op.op = reduce;
    op.width = width;
    op.adds = true;
    op.count = count;
    op.own = send + rank_ * count * width;
    op.out = receive;
    op.inputs.resize(count * width * ranks_);
    int const tag = next_tag();
    for (index_t i = 1; i < ranks_; ++i) {
      index_t const from = (rank_ + ranks_ - i) % ranks_;
      receive_pieces(op, op.inputs.data() + from * count * width, count * width, from, tag);
    }
    for (index_t i = 1; i < ranks_; ++i) {
      index_t const to = (rank_ + i) % ranks_;
      send_pieces(op, send + to * count * width, count * width, to, tag);
    }
    return index;
  }
  std::size_t start_broadcast(std::byte* values, index_t bytes, index_t root) {
    agree(collective::broadcast, root, bytes);
    auto [index, op] = fresh(collective::broadcast);
    for (index_t at = 0; at < bytes; at += options_.piece_bytes) {
      check_mpi(MPI_Ibcast(values + at, static_cast<int>(std::min(options_.piece_bytes, bytes - at)), MPI_BYTE,
                           static_cast<int>(root), comm_, request(op, -1)),
                "MPI_Ibcast");
    }
    return index;
  }
  std::size_t start_send(std::byte const* values, index_t bytes, index_t to) {
    auto [index, op] = fresh(collective::send);
    send_pieces(op, values, bytes, to, message_tag, true);
    return index;
  }
  std::size_t start_receive(std::byte* values, index_t bytes, index_t from) {
    auto [index, op] = fresh(collective::receive);
    receive_pieces(op, values, bytes, from, message_tag, true);
    return index;
  }

  void wait(std::size_t index) {
    mpi_operation& op = *operations_[index];
    // Polling, and all operations: other ranks may wait for the sums of another one first. (MPI_Waitall of Open MPI 4.1
    // also never returns from a truncated message.)
    for (progress(); !op.complete; progress()) { std::this_thread::yield(); }
    op.open = false;
    check_mpi(op.error, "MPI_Testall");
    FAIRLEAD_EXPECTS(op.expected == op.arrived, "what a rank sends must be as long as what the receiver expects (bytes)",
                     op.expected, op.arrived);
  }
  // By a rank that unwinds. What all ranks have started completes; what the others never start must not hold us.
  void wait_briefly(std::size_t index) {
    mpi_operation& op = *operations_[index];
    auto const enough = std::chrono::steady_clock::now() + std::chrono::seconds(1);
    for (progress(); !op.complete; progress()) {
      if (abandoned_ || std::chrono::steady_clock::now() > enough) { return abandon(op); }
      std::this_thread::yield();
    }
    op.open = false;
  }

 private:
  // MPI guarantees tags up to 32767. Each collective has its own, since second phases start in any order.
  static constexpr int message_tag = 32767;
  static constexpr std::size_t size(index_t n) noexcept { return static_cast<std::size_t>(n); }
  static void copy(std::byte* to, std::byte const* from, index_t bytes) noexcept {
    if (bytes > 0) { std::memcpy(to, from, size(bytes)); }
  }
  static index_t signature(index_t width, reduced_type type, reduction op) noexcept {
    return width * 10000 + static_cast<index_t>(type) * 100 + static_cast<index_t>(op);
  }
  int next_tag() noexcept { return tag_ = (tag_ + 1) % message_tag; }

  struct handle {
    std::size_t index;
    mpi_operation& op;
  };
  // The operation stays open, so that nothing else takes its requests. Only receives can be taken back.
  void abandon(mpi_operation& op) noexcept {
    abandoned_ = true;
    for (std::size_t i = 0; i < op.requests.size(); ++i) {
      if (op.lengths[i] < 0 || op.requests[i] == MPI_REQUEST_NULL) { continue; }
      MPI_Cancel(&op.requests[i]);
      MPI_Request_free(&op.requests[i]);
    }
  }
  // A closed operation keeps its memory for the next one.
  handle fresh(collective kind) {
    FAIRLEAD_EXPECTS(!abandoned_, "an exception left an operation of this communicator under way: end the program, or "
                                  "go on with a new communicator");
    std::size_t index = 0;
    while (index < operations_.size() && operations_[index]->open) { ++index; }
    if (index == operations_.size()) { operations_.push_back(std::make_unique<mpi_operation>()); }
    mpi_operation& op = *operations_[index];
    op.open = true;
    op.complete = op.adds = op.gathered = false;
    op.kind = kind;
    op.second_tag = -1;
    op.error = MPI_SUCCESS;
    op.expected = op.arrived = 0;
    clear_requests(op);
    return {index, op};
  }
  static void clear_requests(mpi_operation& op) noexcept {
    op.requests.clear();
    op.lengths.clear();
    op.statuses.clear();
  }
  static MPI_Request* request(mpi_operation& op, index_t expected) {
    op.lengths.push_back(expected);
    op.statuses.emplace_back();
    op.requests.push_back(MPI_REQUEST_NULL);
    return &op.requests.back();
  }
  // Point-to-point messages travel even when empty, so that the next message does not take their place.
  void receive_pieces(mpi_operation& op, std::byte* to, index_t bytes, index_t from, int tag, bool empty_too = false) {
    for (index_t at = 0; at < bytes || (empty_too && at == 0); at += options_.piece_bytes) {
      index_t const length = std::min(options_.piece_bytes, bytes - at);
      check_mpi(MPI_Irecv(to + at, static_cast<int>(length), MPI_BYTE, static_cast<int>(from), tag, comm_,
                          request(op, length)),
                "MPI_Irecv");
    }
  }
  void send_pieces(mpi_operation& op, std::byte const* from, index_t bytes, index_t to, int tag,
                   bool empty_too = false) {
    for (index_t at = 0; at < bytes || (empty_too && at == 0); at += options_.piece_bytes) {
      index_t const length = std::min(options_.piece_bytes, bytes - at);
      check_mpi(MPI_Isend(from + at, static_cast<int>(length), MPI_BYTE, static_cast<int>(to), tag, comm_,
                          request(op, -1)),
                "MPI_Isend");
    }
  }

  // Advances every operation of this rank once.
  void progress() {
    for (auto const& each : operations_) {
      if (!each->open || each->complete) { continue; }
      int done = 0;
      int const code =
          MPI_Testall(static_cast<int>(each->requests.size()), each->requests.data(), &done, each->statuses.data());
      if (done != 0 || code != MPI_SUCCESS) { finish(*each, code); }
    }
  }
  // The requests of `op` are done.
  void finish(mpi_operation& op, int code) {
    if (code == MPI_ERR_IN_STATUS) {
      for (std::size_t i = 0; i < op.statuses.size(); ++i) {
        int const one = op.statuses[i].MPI_ERROR;
        if (one != MPI_SUCCESS && one != MPI_ERR_PENDING) { code = one; }
      }
    }
    if (code != MPI_SUCCESS && op.error == MPI_SUCCESS) {
      op.error = code;
    }
    for (std::size_t i = 0; code == MPI_SUCCESS && i < op.lengths.size(); ++i) {
      int arrived = 0;
      if (op.lengths[i] < 0) { continue; }
      MPI_Get_count(&op.statuses[i], MPI_BYTE, &arrived);
      if (arrived != op.lengths[i] && op.expected == op.arrived) {
        op.expected = op.lengths[i];
        op.arrived = arrived;
      }
    }
    clear_requests(op);
    int const tag = std::exchange(op.second_tag, -1);
    if (op.error != MPI_SUCCESS || !op.adds) {
      op.complete = true;
      return;
    }
    op.adds = false;
    index_t const part = op.count * op.width;
    reduce_in_rank_order(
        op.type, op.op, ranks_,
        [&op, part, this](index_t from) {
          return from == rank_ && !op.gathered ? op.own : op.inputs.data() + from * part;
        },
        op.out, op.count);
    if (tag < 0) {
      op.complete = true;
      return;
    }
    for (index_t i = 1; i < ranks_; ++i) {
      index_t const from = (rank_ + ranks_ - i) % ranks_;
      index_t const begin = part_begin(op.total, ranks_, from);
      index_t const end = part_begin(op.total, ranks_, from + 1);
      receive_pieces(op, op.values + begin * op.width, (end - begin) * op.width, from, tag);
    }
    for (index_t i = 1; i < ranks_; ++i) { send_pieces(op, op.out, part, (rank_ + i) % ranks_, tag); }
  }

  // Level 3: do all ranks start the same thing? Other operations move on meanwhile.
  void agree([[maybe_unused]] collective kind, [[maybe_unused]] index_t what, [[maybe_unused]] index_t length) {
#if FAIRLEAD_CONTRACT_LEVEL >= 3
    for (index_t r = 0; r < ranks_; ++r) { offered_[size(2 * r + 1)] = wanted_[size(2 * r + 1)] = length; }
    compare(kind, what);
#endif
  }
  void agree([[maybe_unused]] collective kind, [[maybe_unused]] index_t what,
             [[maybe_unused]] std::span<index_t const> out, [[maybe_unused]] std::span<index_t const> in) {
#if FAIRLEAD_CONTRACT_LEVEL >= 3
    for (index_t r = 0; r < ranks_; ++r) {
      offered_[size(2 * r + 1)] = out[size(r + 1)] - out[size(r)];
      wanted_[size(2 * r + 1)] = in[size(r + 1)] - in[size(r)];
    }
    compare(kind, what);
#endif
  }
#if FAIRLEAD_CONTRACT_LEVEL >= 3
  void compare(collective kind, index_t what) {
    for (index_t r = 0; r < ranks_; ++r) {
      offered_[size(2 * r)] = wanted_[size(2 * r)] = static_cast<index_t>(kind) + 100 * what;
    }
    found_.resize(offered_.size());
    MPI_Request pending = MPI_REQUEST_NULL;
    check_mpi(MPI_Ialltoall(offered_.data(), 2, MPI_INT64_T, found_.data(), 2, MPI_INT64_T, comm_, &pending),
              "MPI_Ialltoall");
    settle(pending);
    int const misfit = found_ == wanted_ ? 0 : 1;
    int misfits = 0;
    check_mpi(MPI_Iallreduce(&misfit, &misfits, 1, MPI_INT, MPI_SUM, comm_, &pending), "MPI_Iallreduce");
    settle(pending);
    FAIRLEAD_EXPECTS_3(misfits == 0,
                       "all ranks must start the same collectives in the same order, with lengths, types, reduction "
                       "and root that fit each other (values: ranks that saw a misfit, this rank's collective)",
                       misfits, kind);
  }
  void settle(MPI_Request& pending) {
    for (int done = 0; done == 0;) {
      progress();
      check_mpi(MPI_Test(&pending, &done, MPI_STATUS_IGNORE), "MPI_Test");
      if (done == 0) { std::this_thread::yield(); }
    }
  }
#endif

  mpi_options options_;
  MPI_Comm comm_ = MPI_COMM_NULL;
  index_t rank_ = 0;
  index_t ranks_ = 1;
  int tag_ = 0;
  bool abandoned_ = false;  // an exception left an operation under way
  std::vector<std::unique_ptr<mpi_operation>> operations_;
  std::vector<index_t> offered_, wanted_, found_;
};

}  // namespace detail
FAIRLEAD_NAMESPACE_END
