// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// The law kit of token schedulers must fail on schedulers that break one law each.
#include <fairlead/laws/token_scheduler.hpp>
#include <fairlead/schedule/equal_split.hpp>

#include <string>

#include "support/catch.hpp"

namespace fl = fairlead;
using fl::count_t;
using fl::index_t;

namespace {

// Does what equal_split does, then spoils it.
template <class Spoil>
struct spoiled {
  Spoil spoil;
  fl::report schedule(fl::load_view load, fl::placement const& where, fl::token_schedule_view out,
                      fl::workspace& ws) const {
    fl::report ended = fl::equal_split{}.schedule(load, where, out, ws);
    spoil(load, where, out, ended, ws);
    return ended;
  }
  [[nodiscard]] std::size_t workspace_bytes(fl::placement const&) const { return 0; }
};
template <class Spoil>
spoiled<Spoil> spoil(Spoil how) {
  return {how};
}

struct greedy_of_scratch {
  fl::report schedule(fl::load_view load, fl::placement const& where, fl::token_schedule_view out,
                      fl::workspace& ws) const {
    auto const scratch = ws.take<int>(1);
    scratch[0] = 0;
    return fl::equal_split{}.schedule(load, where, out, ws);
  }
  [[nodiscard]] std::size_t workspace_bytes(fl::placement const&) const { return 0; }
};

// Adds into out without clearing it first.
struct accumulating {
  fl::report schedule(fl::load_view load, fl::placement const& where, fl::token_schedule_view out,
                      fl::workspace&) const {
    for (index_t expert = 0; expert < where.experts(); ++expert) {
      auto const id = static_cast<fl::expert_id>(expert);
      for (index_t source = 0; source < load.rows(); ++source) {
        if (where.replicas(id).empty()) {
          if (load(source, expert) != 0) { return {.status = fl::status::lost_expert}; }
        } else {
          out(source, where.replica_offset(id)) += load(source, expert);
        }
      }
    }
    return {};
  }
  [[nodiscard]] std::size_t workspace_bytes(fl::placement const&) const { return 0; }
};

// Ignores lost experts.
struct careless {
  fl::report schedule(fl::load_view load, fl::placement const& where, fl::token_schedule_view out,
                      fl::workspace&) const {
    for (index_t source = 0; source < out.rows(); ++source) { std::fill_n(out.row(source), out.cols(), count_t{0}); }
    for (index_t expert = 0; expert < where.experts(); ++expert) {
      auto const id = static_cast<fl::expert_id>(expert);
      if (where.replicas(id).empty()) { continue; }
      for (index_t source = 0; source < load.rows(); ++source) {
        out(source, where.replica_offset(id)) = load(source, expert);
      }
    }
    return {};
  }
  [[nodiscard]] std::size_t workspace_bytes(fl::placement const&) const { return 0; }
};

std::string reason_of(fl::laws::verdict const& verdict) {
  CHECK_FALSE(verdict);
  return verdict.reason();
}
bool says(std::string const& text, char const* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("the token scheduler laws hold for a right scheduler", "[schedule][laws]") {
  CHECK(fl::laws::check_token_scheduler(spoil([](auto&&...) {})));
}

TEST_CASE("the token scheduler laws find a lost copy", "[schedule][laws]") {
  auto const loses = spoil([](auto, auto const&, fl::token_schedule_view out, auto&, auto&) {
    for (index_t i = 0; i < out.rows(); ++i) {
      if (out.cols() > 0 && out(i, 0) > 0) { --out(i, 0); }
    }
  });
  CHECK(says(reason_of(fl::laws::check_token_scheduler(loses)), "exactly one replica"));
}

TEST_CASE("the token scheduler laws find a negative count", "[schedule][laws]") {
  // Sums stay right: one replica gets a negative count, another one of the same expert the rest.
  auto const negative = spoil([](fl::load_view load, fl::placement const& where, fl::token_schedule_view out, auto&,
                                 auto&) {
    for (index_t expert = 0; expert < where.experts(); ++expert) {
      auto const id = static_cast<fl::expert_id>(expert);
      if (where.replicas(id).size() < 2) { continue; }
      index_t const column = where.replica_offset(id);
      out(0, column + 1) += out(0, column) + 1;
      out(0, column) = -1;
      (void)load;
    }
  });
  CHECK(says(reason_of(fl::laws::check_token_scheduler(negative)), "exactly one replica"));
}

TEST_CASE("the token scheduler laws find a dependence on what out held", "[schedule][laws]") {
  // The first call meets zeros and is right; the second meets other content.
  CHECK(says(reason_of(fl::laws::check_token_scheduler(accumulating{})), "whatever out and scratch held"));
}

TEST_CASE("the token scheduler laws find a write beyond out", "[schedule][laws]") {
  auto const overruns = spoil([](auto, auto const&, fl::token_schedule_view out, auto&, auto&) {
    if (out.stride() > out.cols()) { out.row(0)[out.cols()] = 1; }
  });
  CHECK(says(reason_of(fl::laws::check_token_scheduler(overruns)), "outside of out"));
}

TEST_CASE("the token scheduler laws find scratch beyond workspace_bytes", "[schedule][laws]") {
  CHECK(says(reason_of(fl::laws::check_token_scheduler(greedy_of_scratch{})), "workspace_bytes"));
}

TEST_CASE("the token scheduler laws find a silent loss", "[schedule][laws]") {
  CHECK(says(reason_of(fl::laws::check_token_scheduler(careless{})), "with load is reported"));
}

TEST_CASE("the token scheduler laws find a schedule that is not zero after a loss", "[schedule][laws]") {
  auto const dirty = spoil([](auto, auto const&, fl::token_schedule_view out, fl::report& ended, auto&) {
    if (ended.status == fl::status::lost_expert && !out.empty()) { out(0, 0) = 1; }
  });
  CHECK(says(reason_of(fl::laws::check_token_scheduler(dirty)), "zero when an expert is lost"));
}

TEST_CASE("the token scheduler laws find a wrong failure", "[schedule][laws]") {
  auto const gives_up = spoil([](auto, auto const&, auto, fl::report& ended, auto&) {
    ended.status = fl::status::infeasible;
  });
  CHECK(says(reason_of(fl::laws::check_token_scheduler(gives_up)), "ends well"));
}

namespace {
// Says what it needs to the byte, in a number that is no multiple of anything.
template <std::size_t Said>
struct odd_scratch {
  fl::report schedule(fl::load_view load, fl::placement const& where, fl::token_schedule_view out,
                      fl::workspace& ws) const {
    auto const scratch = ws.take<int>(16);
    scratch[0] = 0;
    return fl::equal_split{}.schedule(load, where, out, ws);
  }
  [[nodiscard]] std::size_t workspace_bytes(fl::placement const&) const { return Said; }
};
}  // namespace

TEST_CASE("a scheduler may ask for any number of bytes that suffices") {
  CHECK(fl::laws::check_token_scheduler(odd_scratch<100>{}));
  CHECK_FALSE(fl::laws::check_token_scheduler(odd_scratch<63>{}));
}
