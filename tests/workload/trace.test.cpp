// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <fairlead/workload/drifting_load.hpp>
#include <fairlead/workload/trace.hpp>

#include "support/catch.hpp"

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace fl = fairlead;
namespace wl = fairlead::workload;

namespace {

std::string numpy_file(std::string const& dictionary, std::string const& data, unsigned char major = 1) {
  std::string header = dictionary;
  while ((header.size() + 11) % 64 != 0) { header += ' '; }
  header += '\n';
  std::string file = "\x93NUMPY";
  file += static_cast<char>(major);
  file += '\0';
  file += static_cast<char>(header.size() % 256);
  file += static_cast<char>(header.size() / 256);
  if (major > 1) { file += std::string(2, '\0'); }
  return file + header + data;
}
std::string dictionary(std::string const& type, std::string const& shape, std::string const& fortran = "False") {
  return "{'descr': '" + type + "', 'fortran_order': " + fortran + ", 'shape': " + shape + ", }";
}
template <class Value>
std::string little_endian(std::vector<Value> const& values) {
  std::string bytes;
  for (Value const value : values) {
    for (std::size_t i = 0; i < sizeof(Value); ++i) {
      bytes += static_cast<char>((static_cast<std::uint64_t>(value) >> (8 * i)) & 0xFFU);
    }
  }
  return bytes;
}
wl::trace parse(std::string const& file) {
  std::istringstream in(file);
  return wl::trace::read(in, "test");
}
std::string why(std::string const& file) {
  try {
    (void)parse(file);
  } catch (wl::trace_error const& error) {
    return error.what();
  }
  return "accepted";
}

bool says(std::string const& text, std::string const& part) {
  INFO(text);
  bool const found = text.find(part) != std::string::npos;
  CHECK(found);
  return found;
}
bool even(fl::load_view load, fl::index_t copies) {
  for (fl::index_t rank = 0; rank < load.rows(); ++rank) {
    fl::index_t sum = 0;
    for (fl::index_t e = 0; e < load.cols(); ++e) { sum += load(rank, e); }
    if (sum != copies) { return false; }
  }
  return true;
}

}  // namespace

TEST_CASE("a trace keeps the numbers in C order", "[workload][trace]") {
  std::vector<std::uint16_t> values;
  for (std::uint16_t i = 0; i < 24; ++i) { values.push_back(static_cast<std::uint16_t>(i * 2000)); }
  auto const trace = parse(numpy_file(dictionary("<u2", "(2, 2, 2, 3)"), little_endian(values)));
  CHECK(trace.size() == 4);
  CHECK(trace.ranks() == 2);
  CHECK(trace.experts() == 3);
  CHECK(trace.outer_shape() == std::vector<fl::index_t>{2, 2});
  CHECK(trace.load(0)(0, 0) == 0);
  CHECK(trace.load(1)(0, 2) == 16000);
  CHECK(trace.load(3)(1, 2) == 46000);
  CHECK_THROWS_AS(trace.load(4), fl::contract_violation);
}

TEST_CASE("a trace reads all integer widths and later header formats", "[workload][trace]") {
  CHECK(parse(numpy_file(dictionary("|u1", "(1, 2)"), little_endian<std::uint8_t>({3, 255}))).load(0)(0, 1) == 255);
  CHECK(parse(numpy_file(dictionary("<i4", "(1, 2)"), little_endian<std::int32_t>({3, 2147483647}))).load(0)(0, 1) == 2147483647);
  CHECK(parse(numpy_file(dictionary("<i8", "(2,)"), little_endian<std::int64_t>({3, 4}), 2)).load(0)(0, 1) == 4);
  CHECK(parse(numpy_file(dictionary("<u4", "(0, 4, 8)"), "")).size() == 0);
}

TEST_CASE("a trace that lies is refused with a reason", "[workload][trace]") {
  std::string const good = numpy_file(dictionary("<u2", "(1, 2)"), little_endian<std::uint16_t>({1, 2}));
  CHECK(why(good) == "accepted");
  CHECK(says(why(""), "too short"));
  CHECK(says(why("PK\x03\x04 some other file"), "does not begin"));
  CHECK(says(why(good.substr(0, 40)), "cut off"));
  CHECK(says(why(good.substr(0, good.size() - 1)), "ends before"));
  CHECK(says(why(good + "x"), "goes on"));
  CHECK(says(why(numpy_file(dictionary("<f4", "(1, 1)"), "abcd")), "little-endian integers"));
  CHECK(says(why(numpy_file(dictionary(">u2", "(1, 1)"), "ab")), "little-endian integers"));
  CHECK(says(why(numpy_file(dictionary("<u2", "(1, 1)", "True"), "ab")), "C order"));
  CHECK(says(why(numpy_file(dictionary("<u2", "()"), "ab")), "no load"));
  CHECK(says(why(numpy_file(dictionary("<u2", "(1, x)"), "ab")), "no number"));
  CHECK(says(why(numpy_file(dictionary("<u2", "(1, 1"), "ab")), "shape"));
  CHECK(says(why(numpy_file(dictionary("<u2", "(99999999999999, 2)"), "ab")), "too large"));
  CHECK(says(why(numpy_file(dictionary("<u2", "(2000000000, 2000000000, 2000000000)"), "ab")), "too large"));
  CHECK(says(why(numpy_file(dictionary("<u2", "(2000000000, 2000000000, 2000000000, 0)"), "")), "too large"));
  CHECK(says(why(numpy_file(dictionary("<u2", "(2000000000, 2000000000, 2000000000, 0, 1)"), "")), "too large"));
  CHECK(says(why(numpy_file(dictionary("<u2", "(0, 2000000000, 2000000000)"), "")), "too large"));
  CHECK(says(why(numpy_file(dictionary("<u2", "(2000000000, 100)"), "ab")), "ends before"));
  CHECK(says(why(numpy_file("{'shape': (1, 1)}", "ab")), "descr"));
  CHECK(says(why(numpy_file(dictionary("<i2", "(1, 2)"), little_endian<std::int16_t>({1, -1}))), "element 1 is negative"));
  CHECK(says(why(numpy_file(dictionary("<i8", "(1, 1)"), little_endian<std::int64_t>({1LL << 40}))), "too large for a count"));
  CHECK(says(why(numpy_file(dictionary("<u2", "(1, 1)"), "ab", 4)), "format 4"));
  std::string missing;
  try {
    (void)wl::trace::read("no/such/file.npy");
  } catch (wl::trace_error const& error) {
    missing = error.what();
  }
  CHECK(says(missing, "no/such/file.npy"));
  CHECK(says(missing, "cannot be opened"));
}

TEST_CASE("a trace holds equally many copies on every rank, recorded where one is, seeded else", "[workload][trace]") {
  std::string folder;
#if defined(FAIRLEAD_TRACES)
  folder = FAIRLEAD_TRACES;
#endif
  if (char const* const set = std::getenv("FAIRLEAD_TRACES"); set != nullptr) { folder = set; }
  std::string const path = folder + "/smartmoe-even-layers.npy";
  if (!folder.empty() && std::ifstream(path)) {
    auto const trace = wl::trace::read(path);
    CHECK(trace.outer_shape() == std::vector<fl::index_t>{501, 12});
    REQUIRE(trace.ranks() == 16);
    REQUIRE(trace.experts() == 32);
    bool all_even = true;
    for (fl::index_t i = 0; i < trace.size(); ++i) { all_even = all_even && even(trace.load(i), 4096); }
    CHECK(all_even);
  } else {
    auto const loads = wl::drifting_load{.ranks = 16, .experts = 32, .copies = 4096, .seed = 1}.make(50);
    bool all_even = true;
    for (auto const& load : loads) { all_even = all_even && even(load.view(), 4096); }
    CHECK(all_even);
  }
}
