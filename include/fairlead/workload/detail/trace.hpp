// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The text of `workload::trace`: a NumPy reader that believes nothing.
#include <fairlead/workload/trace.hpp>

#include <algorithm>
#include <array>
#include <fstream>
#include <limits>
#include <string_view>

FAIRLEAD_NAMESPACE_BEGIN
namespace workload {
namespace detail {

/// What the header of a NumPy file says.
struct numpy_header {
  std::size_t bytes = 0;        ///< size of an element
  bool is_signed = false;       ///< whether elements can be negative
  std::vector<index_t> shape;   ///< dimensions
};

[[noreturn]] inline void refuse(std::string const& label, std::string const& why) {
  throw trace_error("trace " + label + ": " + why);
}

/// The text of a dictionary entry, from after the colon to the end of the dictionary.
[[nodiscard]] inline std::string_view entry(std::string_view header, std::string_view key, std::string const& label) {
  std::string const quoted = "'" + std::string(key) + "'";
  std::size_t const at = header.find(quoted);
  if (at == std::string_view::npos) { refuse(label, "the header has no " + quoted); }
  std::size_t const colon = header.find_first_not_of(' ', at + quoted.size());
  if (colon == std::string_view::npos || header[colon] != ':') { refuse(label, "no value after " + quoted); }
  std::size_t const value = header.find_first_not_of(' ', colon + 1);
  if (value == std::string_view::npos) { refuse(label, "no value after " + quoted); }
  return header.substr(value);
}

[[nodiscard]] inline std::vector<index_t> read_shape(std::string_view text, std::string const& label) {
  std::vector<index_t> shape;
  if (text.empty() || text.front() != '(') { refuse(label, "the shape is no tuple"); }
  std::size_t at = 1;
  while (true) {
    at = text.find_first_not_of(", ", at);
    if (at == std::string_view::npos) { refuse(label, "the shape has no end"); }
    if (text[at] == ')') { return shape; }
    index_t size = 0;
    std::size_t const first = at;
    for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
      if (size > std::numeric_limits<std::int32_t>::max()) { refuse(label, "a dimension is too large"); }
      size = size * 10 + (text[at] - '0');
    }
    if (at == first) { refuse(label, "the shape holds something that is no number"); }
    shape.push_back(size);
  }
}

[[nodiscard]] inline numpy_header read_header(std::istream& in, std::string const& label) {
  std::array<unsigned char, 12> head{};
  auto const get = [&in](unsigned char* to, std::streamsize bytes) {
    in.read(reinterpret_cast<char*>(to), bytes);
    return in.gcount() == bytes;
  };
  if (!get(head.data(), 10)) { refuse(label, "it is too short for a NumPy file"); }
  constexpr std::array<unsigned char, 6> magic = {0x93, 'N', 'U', 'M', 'P', 'Y'};
  if (!std::equal(magic.begin(), magic.end(), head.begin())) { refuse(label, "it does not begin as a NumPy file"); }
  if (head[6] < 1 || head[6] > 3) { refuse(label, "NumPy format " + std::to_string(head[6]) + " is not known"); }
  std::size_t length = head[8] + 256U * head[9];
  if (head[6] > 1) {
    if (!get(head.data() + 10, 2)) { refuse(label, "the header is cut off"); }
    length += 65536U * head[10] + 16777216U * head[11];
  }
  if (length > (1U << 20U)) { refuse(label, "the header is longer than a megabyte"); }
  std::string text(length, '\0');
  if (!get(reinterpret_cast<unsigned char*>(text.data()), static_cast<std::streamsize>(length))) {
    refuse(label, "the header is cut off");
  }
  numpy_header header;
  std::string_view const type = entry(text, "descr", label);
  std::size_t const end = type.size() > 1 ? type.find('\'', 1) : std::string_view::npos;
  if (type.front() != '\'' || end == std::string_view::npos) { refuse(label, "the element type is no plain type"); }
  std::string_view const code = type.substr(1, end - 1);
  bool const integer = code.size() == 3 && (code[1] == 'u' || code[1] == 'i');
  bool const sized = integer && (code[2] == '1' || code[2] == '2' || code[2] == '4' || code[2] == '8');
  if (!sized || (code[0] != '<' && !(code[0] == '|' && code[2] == '1'))) {
    refuse(label, "elements must be little-endian integers, not '" + std::string(code) + "'");
  }
  header.bytes = static_cast<std::size_t>(code[2] - '0');
  header.is_signed = code[1] == 'i';
  if (entry(text, "fortran_order", label).substr(0, 5) != "False") { refuse(label, "elements must be in C order"); }
  header.shape = read_shape(entry(text, "shape", label), label);
  return header;
}

}  // namespace detail

inline trace trace::read(std::istream& in, std::string const& label) {
  detail::numpy_header header = detail::read_header(in, label);
  if (header.shape.empty()) { detail::refuse(label, "a single number is no load"); }
  trace result;
  std::size_t const dimensions = header.shape.size();
  result.experts_ = header.shape[dimensions - 1];
  result.ranks_ = dimensions > 1 ? header.shape[dimensions - 2] : 1;
  result.outer_.assign(header.shape.begin(), header.shape.end() - static_cast<std::ptrdiff_t>(std::min<std::size_t>(dimensions, 2)));
  // A zero must not hide other dimensions whose product overflows: no product of any of them is larger than this one.
  index_t elements = 1;
  constexpr index_t most = index_t{1} << 40U;
  for (index_t const size : header.shape) {
    if (size == 0) { continue; }
    if (elements > most / size) { detail::refuse(label, "the shape is too large"); }
    elements *= size;
  }
  if (std::find(header.shape.begin(), header.shape.end(), 0) != header.shape.end()) { elements = 0; }
  result.size_ = 1;
  for (index_t const size : result.outer_) { result.size_ *= size; }
  // Memory grows with what is really there: a lying header cannot ask for more than the file holds.
  std::vector<unsigned char> block(header.bytes * 65536);
  for (index_t done = 0; done < elements;) {
    index_t const now = std::min<index_t>(65536, elements - done);
    auto const bytes = static_cast<std::streamsize>(static_cast<std::size_t>(now) * header.bytes);
    in.read(reinterpret_cast<char*>(block.data()), bytes);
    if (in.gcount() != bytes) { detail::refuse(label, "the file ends before its last element"); }
    for (std::size_t i = 0; i < static_cast<std::size_t>(now); ++i) {
      std::uint64_t value = 0;
      for (std::size_t byte = header.bytes; byte > 0; --byte) {
        value = value << 8U | block[i * header.bytes + byte - 1];
      }
      bool const negative = header.is_signed && (value >> (8 * header.bytes - 1)) != 0;
      if (negative || value > static_cast<std::uint64_t>(std::numeric_limits<count_t>::max())) {
        detail::refuse(label, "element " + std::to_string(done + static_cast<index_t>(i)) +
                                  (negative ? " is negative" : " is too large for a count"));
      }
      result.counts_.push_back(static_cast<count_t>(value));
    }
    done += now;
  }
  if (in.peek() != std::istream::traits_type::eof()) { detail::refuse(label, "the file goes on after its last element"); }
  return result;
}

inline trace trace::read(std::string const& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) { detail::refuse(path, "cannot be opened"); }
  return read(in, path);
}

}  // namespace workload
FAIRLEAD_NAMESPACE_END
