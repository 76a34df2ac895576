// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Read a text and turn it into numbers: words, vocabulary, and the split into training and validation.
#include <fairlead/core/ids.hpp>
#include <fairlead/core/philox.hpp>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <unordered_map>
#include <utility>
#include <vector>

namespace language_model {
namespace fl = fairlead;
using fl::index_t;

/// @brief A text that cannot be used; `what()` says which file and why.
struct text_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// @brief Read a whole file.
/// @param path file name
/// @returns its bytes, at least one that is not white space
/// @throws text_error if it cannot be read or holds nothing
inline std::string read_text(std::string const& path) {
  auto const refuse = [&](std::string const& why) {
    return text_error("cannot read the text file '" + path + "': " + why + "; name a readable file with --text FILE");
  };
  std::error_code unused;
  if (std::filesystem::is_directory(path, unused)) { throw refuse("it is a folder"); }
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) { throw refuse(errno != 0 ? std::strerror(errno) : "it cannot be opened"); }
  std::string content{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (file.bad()) { throw refuse("read error"); }
  bool const blank = std::all_of(content.begin(), content.end(), [](unsigned char c) { return std::isspace(c) != 0; });
  if (blank) { throw text_error("the text file '" + path + "' is empty: name a file with some text in it"); }
  return content;
}

/// @brief Cut a text into lower-case words, single punctuation marks and line ends ("\n").
///
/// Bytes above 127 count as letters, so that UTF-8 words stay whole.
/// @param text the text
/// @returns its tokens
inline std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  auto const flush = [&] {
    if (!word.empty()) { words.push_back(std::exchange(word, {})); }
  };
  for (char const c : text) {
    auto const byte = static_cast<unsigned char>(c);
    if (byte >= 128 || std::isalnum(byte) != 0 || c == '\'') {
      word.push_back(static_cast<char>(byte < 128 ? std::tolower(byte) : byte));
      continue;
    }
    flush();
    if (c == '\n') {
      words.emplace_back("\n");
    } else if (std::isspace(byte) == 0) {
      words.emplace_back(1, c);
    }
  }
  flush();
  return words;
}

/// @brief A text as token ids.
struct corpus {
  static constexpr std::int32_t unknown = 0;  ///< id of every word outside the vocabulary
  std::vector<std::string> vocabulary;        ///< word of each id; id 0 is "<unknown>"
  std::vector<std::int32_t> train;            ///< first 95 per cent of the text
  std::vector<std::int32_t> validation;       ///< the rest

  /// @brief Number the words of a text: the most frequent ones of its training part get ids, the others are unknown.
  /// @param text the text
  /// @param most largest vocabulary, the unknown word included
  /// @param context tokens that the model sees; both parts must be longer
  /// @returns the numbered text
  /// @throws text_error if the text is too short
  static corpus make(std::string_view text, index_t most, index_t context) {
    std::vector<std::string> const words = split_words(text);
    std::size_t const training = words.size() - words.size() / 20;
    if (words.size() / 20 < 2 * static_cast<std::size_t>(context)) {
      throw text_error("the text has only " + std::to_string(words.size()) + " words; at least " +
                       std::to_string(40 * context) + " are needed");
    }
    std::unordered_map<std::string, index_t> frequency;
    for (std::size_t i = 0; i < training; ++i) { ++frequency[words[i]]; }
    std::vector<std::pair<std::string, index_t>> order(frequency.begin(), frequency.end());
    std::sort(order.begin(), order.end(), [](auto const& a, auto const& b) {
      return a.second != b.second ? a.second > b.second : a.first < b.first;  // equal on every rank and machine
    });
    corpus made;
    made.vocabulary.emplace_back("<unknown>");
    std::unordered_map<std::string, std::int32_t> ids;
    for (auto const& [word, count] : order) {
      if (static_cast<index_t>(made.vocabulary.size()) >= most) { break; }
      ids.emplace(word, static_cast<std::int32_t>(made.vocabulary.size()));
      made.vocabulary.push_back(word);
    }
    for (std::size_t i = 0; i < words.size(); ++i) {
      auto const found = ids.find(words[i]);
      (i < training ? made.train : made.validation).push_back(found == ids.end() ? unknown : found->second);
    }
    return made;
  }
};

/// @brief Write a small text with a grammar that can be learned in seconds; for tests and for `--quick`.
/// @param words number of words, about
/// @param seed another text for another seed
/// @returns sentences
inline std::string generated_text(index_t words, std::uint64_t seed) {
  constexpr std::string_view subjects[] = {"the king", "a servant", "the prophet", "my brother", "the sea", "a lion"};
  constexpr std::string_view verbs[] = {"saw", "followed", "feared", "called", "remembered"};
  constexpr std::string_view objects[] = {"the city", "a river", "the mountain", "his house", "the stars", "a stone"};
  auto const pick = [](auto const& from, std::uint32_t word) {
    return from[fl::philox::below(word, static_cast<std::uint32_t>(std::size(from)))];
  };
  std::string text;
  for (index_t sentence = 0; 6 * sentence < words; ++sentence) {
    auto const random = fl::philox::draw(seed, 7, static_cast<std::uint64_t>(sentence));
    text.append(pick(subjects, random[0])).append(" ");
    text.append(pick(verbs, random[1])).append(" ");
    text.append(pick(objects, random[2])).append(".\n");
  }
  return text;
}

/// @brief Visit the positions of a text once an epoch, spread evenly, without a table.
///
/// Sample i is position (i x stride) mod count with a stride near the golden section that shares no factor with the
/// count. Which rank asks makes no difference: training sees the same batches at every number of ranks.
class sampler {
 public:
  /// @param count number of positions, > 0
  explicit sampler(index_t count) : count_(count), stride_(static_cast<index_t>(0.6180339887 * static_cast<double>(count))) {
    auto const divisor = [](index_t a, index_t b) {
      while (b != 0) { a = std::exchange(b, a % b); }
      return a;
    };
    stride_ = std::max<index_t>(stride_, 1);
    while (divisor(stride_, count_) != 1) { ++stride_; }
  }
  /// @param sample running number, >= 0
  /// @returns its position, 0 <= position < count
  [[nodiscard]] index_t position(index_t sample) const noexcept { return (sample % count_) * stride_ % count_; }

 private:
  index_t count_;
  index_t stride_;
};

/// @brief Copy the context in front of a position and the word to predict.
/// @param tokens the text
/// @param position number of the first context word
/// @param context[out] words in front of the target
/// @returns the word to predict
inline std::int32_t copy_context(std::span<std::int32_t const> tokens, index_t position, std::span<std::int32_t> context) {
  auto const from = tokens.subspan(static_cast<std::size_t>(position), context.size() + 1);
  std::copy_n(from.begin(), context.size(), context.begin());
  return from.back();
}

}  // namespace language_model
