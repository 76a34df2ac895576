// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Preconditions that throw `contract_violation` on the host and trap on the device.
#include <fairlead/core/config.hpp>

#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Thrown when a documented precondition does not hold.
///
/// `what()` holds file, line, the broken condition, the advice and the values involved.
class contract_violation : public std::logic_error {
 public:
  /// @param text the whole message
  /// @param file file of the check
  /// @param line line of the check
  contract_violation(std::string const& text, char const* file, unsigned line)
      : std::logic_error(text), file_(file), line_(line) {}
  /// @returns the file that holds the check
  [[nodiscard]] char const* file() const noexcept { return file_; }
  /// @returns the line of the check
  [[nodiscard]] unsigned line() const noexcept { return line_; }

 private:
  char const* file_;
  unsigned line_;
};

namespace detail {

template <class Value>
void print_value(std::ostringstream& text, Value const& value) {
  if constexpr (std::is_enum_v<Value>) {
    text << static_cast<long long>(value);
  } else {
    text << value;
  }
}

// Out of line and cold, so that a check costs the caller one predictable branch.
template <class... Values>
[[noreturn, gnu::cold, gnu::noinline]] void violate(char const* file, unsigned line, char const* condition,
                                                    char const* advice, Values const&... values) {
  std::ostringstream text;
  text << file << ':' << line << ": precondition failed: " << condition << ": " << advice;
  if constexpr (sizeof...(values) > 0) {
    text << " [";
    bool first = true;
    (((first ? text : text << ", "), first = false, print_value(text, values)), ...);
    text << ']';
  }
  throw contract_violation(text.str(), file, line);
}

}  // namespace detail

FAIRLEAD_NAMESPACE_END

#if defined(__CUDA_ARCH__)
#  define FAIRLEAD_DETAIL_CHECK(condition, ...) \
    do {                                        \
      if (!(condition)) { __trap(); }           \
    } while (false)
#else
#  define FAIRLEAD_DETAIL_CHECK(condition, ...)                                          \
    do {                                                                                 \
      if (!(condition)) [[unlikely]] {                                                   \
        ::fairlead::detail::violate(__FILE__, __LINE__, #condition, __VA_ARGS__);        \
      }                                                                                  \
    } while (false)
#endif
#define FAIRLEAD_DETAIL_NO_CHECK(condition) \
  do {                                      \
    (void)sizeof((condition) ? 1 : 0);      \
  } while (false)

/// Level 1, O(1), on by default. Usage: `FAIRLEAD_EXPECTS(condition, "what to do", value...)`.
#if FAIRLEAD_CONTRACT_LEVEL >= 1
#  define FAIRLEAD_EXPECTS(condition, ...) FAIRLEAD_DETAIL_CHECK(condition, __VA_ARGS__)
#else
#  define FAIRLEAD_EXPECTS(condition, ...) FAIRLEAD_DETAIL_NO_CHECK(condition)
#endif
/// Level 2, O(n), on in tests and debug builds.
#if FAIRLEAD_CONTRACT_LEVEL >= 2
#  define FAIRLEAD_EXPECTS_2(condition, ...) FAIRLEAD_DETAIL_CHECK(condition, __VA_ARGS__)
#else
#  define FAIRLEAD_EXPECTS_2(condition, ...) FAIRLEAD_DETAIL_NO_CHECK(condition)
#endif
/// Level 3, communicating: every rank must reach the check. On in tests.
#if FAIRLEAD_CONTRACT_LEVEL >= 3
#  define FAIRLEAD_EXPECTS_3(condition, ...) FAIRLEAD_DETAIL_CHECK(condition, __VA_ARGS__)
#else
#  define FAIRLEAD_EXPECTS_3(condition, ...) FAIRLEAD_DETAIL_NO_CHECK(condition)
#endif
