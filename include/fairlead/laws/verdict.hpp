// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief What a conformance check says: pass, or the first broken law with its numbers.
#include <fairlead/core/config.hpp>

#include <ostream>
#include <sstream>
#include <string>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws {

/// @brief The result of a check; converts to bool and prints its reason, so that any test framework can hold it:
/// `REQUIRE(fairlead::laws::check_router(my_router, {...}))`.
class verdict {
 public:
  /// All laws hold.
  verdict() = default;
  /// @brief Build a failure from its parts.
  /// @param parts anything that can be written to a stream: law, inputs, seed
  /// @returns a failed verdict
  template <class... Parts>
  [[nodiscard]] static verdict broken(Parts const&... parts) {
    std::ostringstream text;
    (text << ... << parts);
    verdict result;
    result.reason_ = text.str();
    result.holds_ = false;
    return result;
  }
  /// @returns whether all laws hold
  [[nodiscard]] explicit operator bool() const noexcept { return holds_; }
  /// @returns the first broken law, empty if none
  [[nodiscard]] std::string const& reason() const noexcept { return reason_; }
  /// Writes "holds" or the reason.
  friend std::ostream& operator<<(std::ostream& out, verdict const& result) {
    return out << (result.holds_ ? "holds" : result.reason_);
  }

 private:
  std::string reason_;
  bool holds_ = true;
};

}  // namespace laws
FAIRLEAD_NAMESPACE_END
