// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Labelled images: IDX files of the MNIST family, or made ones.
#include <fairlead/core/ids.hpp>
#include <fairlead/core/philox.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace edge_training {
namespace fl = fairlead;
using fl::index_t;

/// @brief A file that is not what it should be; `what()` names it and says what is wrong.
struct data_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Classes of the data.
inline constexpr index_t class_count = 10;

/// @brief Grey images with their classes.
struct image_set {
  index_t width = 0;                 ///< pixels of an image
  std::vector<std::uint8_t> pixels;  ///< @shape{images x width}
  std::vector<std::uint8_t> labels;  ///< @shape{images}

  /// @returns number of images
  [[nodiscard]] index_t size() const noexcept { return static_cast<index_t>(labels.size()); }
  /// @brief Write one image as numbers from 0 to 1.
  /// @param image its number
  /// @param[out] to @shape{width}
  void copy(index_t image, float* to) const {
    std::uint8_t const* const from = pixels.data() + image * width;
    for (index_t i = 0; i < width; ++i) { to[i] = static_cast<float>(from[i]) * (1.0F / 255.0F); }
  }
};

/// @brief What is learned from, and what it is judged by.
struct data_set {
  image_set train;  ///< arrivals are drawn from it
  image_set test;   ///< accuracy is measured on it
};

/// @brief Read an IDX file of bytes.
/// @param path the file
/// @param sizes number of dimensions, 1 or 3: the magic number says the same
/// @param[out] shape the dimensions
/// @returns the bytes behind the head
/// @throws data_error
inline std::vector<std::uint8_t> read_idx(std::string const& path, std::size_t sizes, std::array<index_t, 3>& shape) {
  std::ifstream file(path, std::ios::binary);
  if (!file) { throw data_error(path + ": " + std::strerror(errno)); }
  std::vector<std::uint8_t> bytes(std::istreambuf_iterator<char>(file), {});
  if (file.bad()) { throw data_error(path + ": cannot be read"); }
  if (bytes.size() >= 2 && bytes[0] == 0x1F && bytes[1] == 0x8B) { throw data_error(path + ": is compressed; unpack it with gunzip"); }
  std::size_t const head = 4 + 4 * sizes;
  if (bytes.size() < head) { throw data_error(path + ": " + std::to_string(bytes.size()) + " bytes, too short for the head of an IDX file"); }
  auto const word = [&bytes](std::size_t at) {
    return (std::uint32_t{bytes[at]} << 24U) | (std::uint32_t{bytes[at + 1]} << 16U) | (std::uint32_t{bytes[at + 2]} << 8U) | bytes[at + 3];
  };
  auto const magic = static_cast<std::uint32_t>(0x0800U + sizes);
  if (word(0) != magic) {
    std::array<char, 100> text{};
    std::snprintf(text.data(), text.size(), ": begins with 0x%08x instead of 0x%08x (IDX, bytes, %zu dimension%s)", word(0), magic, sizes,
                  sizes == 1 ? "" : "s");
    throw data_error(path + text.data());
  }
  // A head can ask for 2^96 bytes: stop before the product overflows.
  std::uint64_t wanted = 1;
  for (std::size_t i = 0; i < sizes; ++i) {
    shape[i] = static_cast<index_t>(word(4 + 4 * i));
    if (shape[i] == 0) { throw data_error(path + ": holds nothing, a dimension is 0"); }
    wanted = wanted > (std::uint64_t{1} << 31U) ? wanted : wanted * static_cast<std::uint64_t>(shape[i]);
  }
  if (bytes.size() - head != wanted) {
    throw data_error(path + ": " + std::to_string(bytes.size() - head) + " bytes of data, but the head announces " + std::to_string(wanted));
  }
  bytes.erase(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(head));
  return bytes;
}

/// @brief Read images and their classes.
/// @param prefix path up to "-images-idx3-ubyte"
/// @returns them
/// @throws data_error
inline image_set read_images(std::string const& prefix) {
  std::array<index_t, 3> shape{}, label_shape{};
  image_set made;
  made.pixels = read_idx(prefix + "-images-idx3-ubyte", 3, shape);
  made.labels = read_idx(prefix + "-labels-idx1-ubyte", 1, label_shape);
  made.width = shape[1] * shape[2];
  if (shape[0] != label_shape[0]) {
    throw data_error(prefix + ": " + std::to_string(shape[0]) + " images, but " + std::to_string(label_shape[0]) + " labels");
  }
  auto const wrong = std::find_if(made.labels.begin(), made.labels.end(), [](std::uint8_t label) { return label >= class_count; });
  if (wrong != made.labels.end()) {
    throw data_error(prefix + "-labels-idx1-ubyte: label " + std::to_string(*wrong) + "; classes are 0 to " + std::to_string(class_count - 1));
  }
  return made;
}

/// @brief Read the four files of a data set.
/// @param folder where they are
/// @returns the data
/// @throws data_error
inline data_set read_data(std::string const& folder) {
  data_set made{read_images(folder + "/train"), read_images(folder + "/t10k")};
  if (made.train.width != made.test.width) { throw data_error(folder + ": training and test images have different sizes"); }
  return made;
}

/// @brief Make images: a random prototype a class, mixed with other prototypes and noise.
/// @param side pixels of an edge
/// @param train number of training images
/// @param test number of test images
/// @param seed of all of it
/// @returns the data
inline data_set make_data(index_t side, index_t train, index_t test, std::uint64_t seed) {
  enum : std::uint64_t { prototype_stream = 0x70726F746F, label_stream = 0x6C6162656C, noise_stream = 0x6E6F697365 };
  index_t const width = side * side;
  auto const prototype = [&](std::uint64_t c, index_t pixel) {
    return static_cast<double>(fl::philox::uniform(seed, prototype_stream + c, static_cast<std::uint64_t>(pixel)));
  };
  auto const fill = [&](image_set& set, index_t count, std::uint64_t first) {
    set.width = width;
    set.pixels.resize(static_cast<std::size_t>(count * width));
    set.labels.resize(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < set.labels.size(); ++i) {
      auto const words = fl::philox::draw(seed, label_stream, first + i);
      std::uint64_t const label = fl::philox::below(words[0], class_count), other = fl::philox::below(words[1], class_count);
      double const share = 0.2 * static_cast<double>(fl::philox::to_uniform(words[2]));
      set.labels[i] = static_cast<std::uint8_t>(label);
      for (index_t p = 0; p < width; ++p) {
        auto const noise = static_cast<double>(fl::philox::uniform(seed, noise_stream + (first + i), static_cast<std::uint64_t>(p)));
        double const value = 0.7 * ((1.0 - share) * prototype(label, p) + share * prototype(other, p)) + 0.3 * noise;
        set.pixels[i * static_cast<std::size_t>(width) + static_cast<std::size_t>(p)] = static_cast<std::uint8_t>(255.0 * value);
      }
    }
  };
  data_set made;
  fill(made.train, train, 0);
  fill(made.test, test, static_cast<std::uint64_t>(train));
  return made;
}

}  // namespace edge_training
