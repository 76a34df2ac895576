// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Reading a command line option by option.
#include <charconv>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace examples {

/// @brief A command line that makes no sense; `what()` says what to write instead.
struct usage_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// @brief Hands out the arguments of a program one after the other.
class arguments {
 public:
  /// @param words without the program's name
  explicit arguments(std::vector<std::string_view> words) : words_(std::move(words)) {}
  /// @returns whether there is another one; `name()` is then it
  bool next() {
    if (at_ == words_.size()) { return false; }
    name_ = words_[at_++];
    return true;
  }
  /// @returns the option at hand
  [[nodiscard]] std::string_view name() const { return name_; }
  /// @returns whether the command line holds a word anywhere
  /// @param word the word
  [[nodiscard]] bool has(std::string_view word) const {
    for (std::string_view const one : words_) {
      if (one == word) { return true; }
    }
    return false;
  }
  /// @returns what follows the option
  /// @throws usage_error if nothing does
  std::string_view value() {
    if (at_ == words_.size()) { throw usage_error(std::string(name_) + " needs a value"); }
    return words_[at_++];
  }
  /// @param least smallest legal number; its type is what is read
  /// @returns the number that follows the option
  /// @throws usage_error if there is none, or it is too small
  template <class Number>
  Number number(Number least) {
    std::string_view const text = value();
    Number parsed = least;
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), parsed);
    if (error != std::errc{} || end != text.data() + text.size() || !(parsed >= least)) {
      std::ostringstream message;
      message << name_ << " needs a number >= " << least << ", not '" << text << "'";
      throw usage_error(message.str());
    }
    return parsed;
  }
  /// @returns the words between commas that follow the option
  std::vector<std::string> list() {
    std::istringstream items{std::string(value())};
    std::vector<std::string> made;
    for (std::string item; std::getline(items, item, ',');) { made.push_back(item); }
    return made;
  }
  /// @throws usage_error that names the option at hand as unknown
  [[noreturn]] void unknown() const { throw usage_error("unknown option '" + std::string(name_) + "'"); }

 private:
  std::vector<std::string_view> words_;
  std::size_t at_ = 0;
  std::string_view name_;
};

/// @brief Make a folder for results and see that files can be written there: before the work, not after it.
/// @param folder the folder
/// @param names files that will be written; made empty if they are not there
/// @throws usage_error if that fails
inline void prepare_folder(std::string const& folder, std::initializer_list<char const*> names) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) { throw usage_error("--out " + folder + ": " + error.message()); }
  for (char const* const name : names) {
    if (!std::ofstream(std::filesystem::path(folder) / name, std::ios::app)) {
      throw usage_error("--out " + folder + ": " + name + " cannot be written there");
    }
  }
}

}  // namespace examples
