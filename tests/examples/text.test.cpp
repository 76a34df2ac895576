// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "support/catch.hpp"

#include "common/text.hpp"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

using namespace language_model;

namespace {
struct temporary_file {
  std::filesystem::path path;
  temporary_file(std::string const& name, std::string const& content)
      : path(std::filesystem::temp_directory_path() / ("fairlead_text_test_" + name)) {
    std::ofstream(path, std::ios::binary) << content;
  }
  temporary_file(temporary_file const&) = delete;
  temporary_file& operator=(temporary_file const&) = delete;
  ~temporary_file() { std::filesystem::remove(path); }
};
std::string message_of(std::string const& path) {
  try {
    static_cast<void>(read_text(path));
  } catch (text_error const& error) { return error.what(); }
  return "";
}
}  // namespace

TEST_CASE("a missing, an unreadable and an empty text file are named in the error", "[examples][text]") {
  REQUIRE_THAT(message_of("no/such/file.txt"), Catch::Contains("no/such/file.txt") && Catch::Contains("No such file"));
  REQUIRE_THAT(message_of(std::filesystem::temp_directory_path().string()), Catch::Contains("cannot read"));
  temporary_file const empty("empty", ""), blank("blank", " \n\t\n");
  REQUIRE_THAT(message_of(empty.path.string()), Catch::Contains("is empty"));
  REQUIRE_THAT(message_of(blank.path.string()), Catch::Contains("is empty"));
  temporary_file const good("good", "In the beginning\n");
  REQUIRE(read_text(good.path.string()) == "In the beginning\n");
}

TEST_CASE("words are lower case, punctuation and line ends stand alone", "[examples][text]") {
  REQUIRE(split_words("Let there be Light: and\nDavid's 12 caf\xC3\xA9s.") ==
          std::vector<std::string>{"let", "there", "be", "light", ":", "and", "\n", "david's", "12", "caf\xC3\xA9s", "."});
  REQUIRE(split_words("").empty());
}

TEST_CASE("the vocabulary holds the most frequent training words in a fixed order", "[examples][text]") {
  std::string text;
  for (int i = 0; i < 100; ++i) { text += "a b a c "; }
  for (int i = 0; i < 21; ++i) { text += "z "; }  // the last 5 per cent: only validation sees it
  corpus const made = corpus::make(text, 3, 2);
  REQUIRE(made.vocabulary == std::vector<std::string>{"<unknown>", "a", "b"});
  REQUIRE(made.train.size() == 400);
  REQUIRE(made.validation.size() == 21);
  REQUIRE(std::vector<std::int32_t>(made.train.begin(), made.train.begin() + 4) == std::vector<std::int32_t>{1, 2, 1, 0});
  REQUIRE(std::all_of(made.validation.begin(), made.validation.end(), [](std::int32_t id) { return id == corpus::unknown; }));
}

TEST_CASE("a text too short for validation is refused", "[examples][text]") {
  REQUIRE_THROWS_WITH(corpus::make("a few words only", 10, 8), Catch::Contains("only 4 words"));
}

TEST_CASE("the sampler visits every position once an epoch", "[examples][text]") {
  for (index_t const count : {1, 2, 3, 10, 97, 1000, 12345}) {
    sampler const order(count);
    std::vector<int> visits(static_cast<std::size_t>(count), 0);
    for (index_t i = 0; i < 2 * count; ++i) { ++visits.at(static_cast<std::size_t>(order.position(i))); }
    REQUIRE(std::all_of(visits.begin(), visits.end(), [](int n) { return n == 2; }));
  }
}

TEST_CASE("a context is followed by its target", "[examples][text]") {
  std::vector<std::int32_t> const tokens{10, 11, 12, 13};
  std::vector<std::int32_t> context(2);
  REQUIRE(copy_context(tokens, 1, context) == 13);
  REQUIRE(context == std::vector<std::int32_t>{11, 12});
}

TEST_CASE("generated text is the same for the same seed and differs for another", "[examples][text]") {
  REQUIRE(generated_text(600, 1) == generated_text(600, 1));
  REQUIRE(generated_text(600, 1) != generated_text(600, 2));
  REQUIRE(split_words(generated_text(600, 1)).size() >= 600);
}
