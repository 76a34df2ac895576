// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "support/catch.hpp"

#include "11_edge_training/images.hpp"
#include "11_edge_training/mixture.hpp"
#include "common/estimate.hpp"

#include <fairlead/exec/gemm_reference.hpp>
#include <fairlead/exec/serial.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

namespace fl = fairlead;
namespace et = edge_training;
using fl::index_t;
using model_type = et::mixture<double, fl::gemm::reference>;

namespace {

struct batch {
  fl::matrix<double> images;
  std::vector<std::uint8_t> labels;
  std::vector<fl::expert_id> choice;
  [[nodiscard]] fl::matrix_view<fl::expert_id const> chosen(model_type const& model) const {
    return {choice.data(), static_cast<index_t>(labels.size()), model.fan_out};
  }
};

// Random images; the experts are distinct, and the last one is never chosen where there is another one left.
batch make_batch(model_type const& model, index_t rows) {
  batch made{fl::matrix<double>(rows, model.width), {}, {}};
  for (index_t i = 0; i < rows * model.width; ++i) { made.images.data()[i] = fl::philox::normal(5, 1, static_cast<std::uint64_t>(i)); }
  index_t const used = std::max(model.fan_out, model.experts - 1);
  for (index_t row = 0; row < rows; ++row) {
    auto const words = fl::philox::draw(5, 2, static_cast<std::uint64_t>(row));
    made.labels.push_back(static_cast<std::uint8_t>(fl::philox::below(words[0], static_cast<std::uint32_t>(model.classes))));
    index_t const first = fl::philox::below(words[1], static_cast<std::uint32_t>(used));
    for (index_t k = 0; k < model.fan_out; ++k) { made.choice.push_back(static_cast<fl::expert_id>((first + k) % used)); }
  }
  return made;
}

std::vector<double> random_parameters(model_type const& model) {
  std::vector<double> values(static_cast<std::size_t>(model.parameter_layout().size()));
  // Every value random, biases too: zeros would hide errors.
  for (std::size_t i = 0; i < values.size(); ++i) { values[i] = 0.5 * fl::philox::normal(3, 0, i); }
  return values;
}

double loss(model_type const& model, std::span<double const> parameters, batch const& data, model_type::activations& kept) {
  model.forward(fl::serial{}, parameters, data.images.view(), data.chosen(model), kept);
  return model.loss(data.labels, kept);
}

std::vector<double> gradient(model_type const& model, std::span<double const> parameters, batch const& data, double scale,
                             model_type::activations& kept) {
  std::vector<double> made(parameters.size(), 123.0);  // what was there must not matter
  static_cast<void>(loss(model, parameters, data, kept));
  model.backward(fl::serial{}, parameters, data.images.view(), data.labels, data.chosen(model), scale, kept, made);
  return made;
}

// The loss of one image from its definition, expert by expert, without products of matrices.
double plain_loss(model_type const& model, std::vector<double> const& parameters, batch const& data, index_t row) {
  auto const layout = model.parameter_layout();
  auto const at = [&](index_t block, index_t i, index_t j) { return layout.view(block, parameters.data())(i, j); };
  std::vector<double> share, mixed(static_cast<std::size_t>(model.classes), 0.0);
  double all = 0.0;
  for (index_t k = 0; k < model.fan_out; ++k) {
    index_t const e = fl::to_index(data.chosen(model)(row, k));
    double logit = at(model_type::gate_bias, 0, e);
    for (index_t i = 0; i < model.width; ++i) { logit += at(model_type::gate_weight, e, i) * data.images(row, i); }
    share.push_back(std::exp(logit));
    all += share.back();
  }
  for (index_t k = 0; k < model.fan_out; ++k) {
    index_t const e = fl::to_index(data.chosen(model)(row, k));
    for (index_t c = 0; c < model.classes; ++c) {
      double answer = at(model_type::down_bias, e, c);
      for (index_t h = 0; h < model.hidden; ++h) {
        double unit = at(model_type::up_bias, e, h);
        for (index_t i = 0; i < model.width; ++i) { unit += at(model_type::up_weight, e * model.hidden + h, i) * data.images(row, i); }
        answer += at(model_type::down_weight, e * model.classes + c, h) * std::max(unit, 0.0);
      }
      mixed[static_cast<std::size_t>(c)] += share[static_cast<std::size_t>(k)] / all * answer;
    }
  }
  double sum = 0.0;
  for (double const value : mixed) { sum += std::exp(value); }
  return std::log(sum) - mixed[data.labels[static_cast<std::size_t>(row)]];
}

struct folder {
  std::filesystem::path path = std::filesystem::temp_directory_path() / "fairlead_edge_training_test";
  folder() { std::filesystem::create_directories(path); }
  folder(folder const&) = delete;
  folder& operator=(folder const&) = delete;
  ~folder() { std::filesystem::remove_all(path); }
  void write(std::string const& name, std::vector<int> const& bytes) const {
    std::ofstream file(path / name, std::ios::binary);
    for (int const byte : bytes) { file.put(static_cast<char>(byte)); }
  }
};
// Two images of 1 x 2 pixels, classes 9 and 0.
std::vector<int> const good_images{0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 255, 51, 102};
std::vector<int> const good_labels{0, 0, 8, 1, 0, 0, 0, 2, 9, 0};

std::string message_of(std::vector<int> const& images, std::vector<int> const& labels) {
  folder const there;
  there.write("train-images-idx3-ubyte", images);
  there.write("train-labels-idx1-ubyte", labels);
  try {
    static_cast<void>(et::read_images((there.path / "train").string()));
  } catch (et::data_error const& error) { return error.what(); }
  return "";
}

}  // namespace

TEST_CASE("the gradient of every parameter of the mixture equals central differences", "[examples][edge_training]") {
  model_type const model{.width = 7, .hidden = 5, .classes = 4, .experts = 5, .fan_out = 3};
  batch const data = make_batch(model, 9);
  auto kept = model.make_activations(9);
  std::vector<double> parameters = random_parameters(model);
  double const scale = 0.25;
  std::vector<double> const analytic = gradient(model, parameters, data, scale, kept);
  auto const layout = model.parameter_layout();
  for (fl::parameter_block const& block : layout.blocks()) {
    double largest = 0.0;
    for (index_t i = block.offset; i < block.offset + block.size(); ++i) {
      double& value = parameters[static_cast<std::size_t>(i)];
      double const step = 1e-6, middle = value;
      value = middle + step;
      double const above = loss(model, parameters, data, kept);
      value = middle - step;
      double const below = loss(model, parameters, data, kept);
      value = middle;
      double const numeric = scale * (above - below) / (2.0 * step);
      INFO(block.name << ", parameter " << i);
      REQUIRE(analytic[static_cast<std::size_t>(i)] == Approx(numeric).margin(1e-8).epsilon(1e-6));
      largest = std::max(largest, std::abs(numeric));
    }
    INFO(block.name);
    REQUIRE(largest > 0.01);  // the comparison above was not between zeros
  }
}

TEST_CASE("the loss of a grouped batch is the sum of the losses by definition, image by image", "[examples][edge_training]") {
  model_type const model{.width = 6, .hidden = 4, .classes = 5, .experts = 7, .fan_out = 2};
  for (index_t const rows : {1, 2, 13}) {
    batch const data = make_batch(model, rows);
    auto kept = model.make_activations(20);
    std::vector<double> const parameters = random_parameters(model);
    double expected = 0.0;
    for (index_t row = 0; row < rows; ++row) { expected += plain_loss(model, parameters, data, row); }
    REQUIRE(loss(model, parameters, data, kept) == Approx(expected).epsilon(1e-12));
  }
}

TEST_CASE("one expert with units that pass everything is softmax regression, and its gate learns nothing", "[examples][edge_training]") {
  model_type const model{.width = 3, .hidden = 3, .classes = 4, .experts = 1, .fan_out = 1};
  batch data = make_batch(model, 1);
  for (index_t i = 0; i < 3; ++i) { data.images.data()[i] = std::abs(data.images.data()[i]) + 0.1; }  // ReLU lets them pass
  std::vector<double> parameters = random_parameters(model);
  auto const layout = model.parameter_layout();
  auto const up = layout.view(model_type::up_weight, parameters.data());
  for (index_t i = 0; i < 3; ++i) {
    for (index_t j = 0; j < 3; ++j) { up(i, j) = i == j ? 1.0 : 0.0; }
    layout.view(model_type::up_bias, parameters.data())(0, i) = 0.0;
  }
  auto kept = model.make_activations(1);
  std::vector<double> const made = gradient(model, parameters, data, 1.0, kept);
  std::vector<double> p;
  double sum = 0.0;
  for (index_t c = 0; c < 4; ++c) {
    double logit = layout.view(model_type::down_bias, parameters.data())(0, c);
    for (index_t i = 0; i < 3; ++i) { logit += layout.view(model_type::down_weight, parameters.data())(c, i) * data.images(0, i); }
    p.push_back(std::exp(logit));
    sum += p.back();
  }
  for (index_t c = 0; c < 4; ++c) {
    double const expected = p[static_cast<std::size_t>(c)] / sum - (c == data.labels[0] ? 1.0 : 0.0);
    REQUIRE(layout.view(model_type::down_bias, made.data())(0, c) == Approx(expected).epsilon(1e-12));
    for (index_t i = 0; i < 3; ++i) {
      REQUIRE(layout.view(model_type::down_weight, made.data())(c, i) == Approx(expected * data.images(0, i)).epsilon(1e-12));
    }
  }
  for (index_t const block : {index_t{model_type::gate_weight}, index_t{model_type::gate_bias}}) {
    for (index_t i = 0; i < layout[block].size(); ++i) { REQUIRE(layout.view(block, made.data()).data()[i] == 0.0); }
  }
}

TEST_CASE("an expert that nobody chose has no gradient, and neither has its logit", "[examples][edge_training]") {
  model_type const model{.width = 4, .hidden = 3, .classes = 3, .experts = 4, .fan_out = 2};
  batch const data = make_batch(model, 6);
  auto kept = model.make_activations(6);
  std::vector<double> const made = gradient(model, random_parameters(model), data, 1.0, kept);
  auto const layout = model.parameter_layout();
  REQUIRE(std::none_of(data.choice.begin(), data.choice.end(), [](fl::expert_id e) { return fl::to_index(e) == 3; }));
  REQUIRE(layout.view(model_type::gate_bias, made.data())(0, 3) == 0.0);
  for (index_t i = 0; i < 3; ++i) {
    REQUIRE(layout.view(model_type::up_bias, made.data())(3, i) == 0.0);
    REQUIRE(layout.view(model_type::down_bias, made.data())(3, i) == 0.0);
    for (index_t j = 0; j < 4; ++j) { REQUIRE(layout.view(model_type::up_weight, made.data())(9 + i, j) == 0.0); }
  }
}

TEST_CASE("the order of the chosen experts does not matter", "[examples][edge_training]") {
  model_type const model{.width = 5, .hidden = 4, .classes = 3, .experts = 6, .fan_out = 3};
  batch data = make_batch(model, 8);
  auto kept = model.make_activations(8);
  std::vector<double> const parameters = random_parameters(model);
  std::vector<double> const before = gradient(model, parameters, data, 1.0, kept);
  for (std::size_t row = 0; row < 8; ++row) { std::reverse(data.choice.begin() + static_cast<std::ptrdiff_t>(3 * row), data.choice.begin() + static_cast<std::ptrdiff_t>(3 * row + 3)); }
  std::vector<double> const after = gradient(model, parameters, data, 1.0, kept);
  for (std::size_t i = 0; i < before.size(); ++i) { REQUIRE(after[i] == Approx(before[i]).margin(1e-13)); }
}

TEST_CASE("a batch without images has no loss and no gradient", "[examples][edge_training]") {
  model_type const model{.width = 5, .hidden = 4, .classes = 3, .experts = 6, .fan_out = 3};
  auto kept = model.make_activations(4);
  std::vector<double> const parameters = random_parameters(model);
  batch const empty = make_batch(model, 0);
  std::vector<double> const made = gradient(model, parameters, empty, 1.0, kept);
  REQUIRE(std::all_of(made.begin(), made.end(), [](double x) { return x == 0.0; }));
  REQUIRE(loss(model, parameters, empty, kept) == 0.0);
}

TEST_CASE("scores are shares, and huge logits do not overflow", "[examples][edge_training]") {
  model_type const model{.width = 2, .hidden = 1, .classes = 2, .experts = 3, .fan_out = 1};
  std::vector<double> parameters(static_cast<std::size_t>(model.parameter_layout().size()), 0.0);
  auto const bias = model.parameter_layout().view(model_type::gate_bias, parameters.data());
  bias(0, 0) = 1000.0;
  bias(0, 1) = 1000.0;
  bias(0, 2) = -1000.0;
  fl::matrix<double> images(2, 2), scores(2, 3);
  model.score(fl::serial{}, std::span<double const>(parameters), images.view(), scores.view());
  for (index_t row = 0; row < 2; ++row) {
    REQUIRE(scores(row, 0) == 0.5);
    REQUIRE(scores(row, 1) == 0.5);
    REQUIRE(scores(row, 2) == 0.0);
  }
}

TEST_CASE("the best experts are distinct, best first, the lowest ids among equals", "[examples][edge_training]") {
  fl::matrix<double> scores(2, 4);
  for (index_t e = 0; e < 4; ++e) { scores(0, e) = e == 2 ? 0.4 : 0.2; }
  for (index_t e = 0; e < 4; ++e) { scores(1, e) = 0.1 * static_cast<double>(e); }
  std::vector<fl::expert_id> choice(6);
  et::choose_best(fl::matrix_view<double const>(scores.view()), fl::matrix_view<fl::expert_id>(choice.data(), 2, 3));
  std::vector<index_t> ids;
  for (auto const e : choice) { ids.push_back(fl::to_index(e)); }
  REQUIRE(ids == std::vector<index_t>{2, 0, 1, 3, 2, 1});
}

TEST_CASE("images and labels are read as they lie in IDX files", "[examples][edge_training]") {
  folder const there;
  there.write("train-images-idx3-ubyte", good_images);
  there.write("train-labels-idx1-ubyte", good_labels);
  there.write("t10k-images-idx3-ubyte", good_images);
  there.write("t10k-labels-idx1-ubyte", good_labels);
  et::data_set const made = et::read_data(there.path.string());
  REQUIRE(made.train.size() == 2);
  REQUIRE(made.train.width == 2);
  REQUIRE(made.test.labels == std::vector<std::uint8_t>{9, 0});
  std::vector<float> image(2);
  made.train.copy(0, image.data());
  REQUIRE(image[0] == 0.0F);
  REQUIRE(image[1] == Approx(1.0));
  made.train.copy(1, image.data());
  REQUIRE(image[1] == Approx(0.4));
  there.write("t10k-images-idx3-ubyte", {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 7, 8});
  REQUIRE_THROWS_WITH(et::read_data(there.path.string()), Catch::Contains("different sizes"));
}

TEST_CASE("files that are missing, compressed, truncated, too long or of another kind are named in the error", "[examples][edge_training]") {
  REQUIRE(message_of(good_images, good_labels).empty());
  REQUIRE_THROWS_WITH(et::read_images("no/such/train"), Catch::Contains("no/such/train-images-idx3-ubyte: No such file"));
  REQUIRE_THAT(message_of({0x1F, 0x8B, 8, 0}, good_labels), Catch::Contains("gunzip"));
  REQUIRE_THAT(message_of({}, good_labels), Catch::Contains("0 bytes, too short"));
  REQUIRE_THAT(message_of({0, 0, 8, 3, 0, 0, 0, 2}, good_labels), Catch::Contains("8 bytes, too short"));
  REQUIRE_THAT(message_of(good_labels, good_labels), Catch::Contains("too short"));
  auto bytes = good_images;
  bytes[3] = 1;
  REQUIRE_THAT(message_of(bytes, good_labels), Catch::Contains("begins with 0x00000801 instead of 0x00000803"));
  bytes = good_images;
  bytes.pop_back();
  REQUIRE_THAT(message_of(bytes, good_labels), Catch::Contains("3 bytes of data, but the head announces 4"));
  bytes = good_images;
  bytes.push_back(0);
  REQUIRE_THAT(message_of(bytes, good_labels), Catch::Contains("5 bytes of data"));
  bytes = good_images;
  bytes[7] = 0;
  REQUIRE_THAT(message_of(bytes, good_labels), Catch::Contains("a dimension is 0"));
  bytes = good_images;
  for (std::size_t i = 4; i < 16; ++i) { bytes[i] = 255; }  // 2^96 bytes
  REQUIRE_THAT(message_of(bytes, good_labels), Catch::Contains("4 bytes of data"));
  REQUIRE_THAT(message_of(good_images, {0, 0, 8, 1, 0, 0, 0, 1, 9}), Catch::Contains("2 images, but 1 labels"));
  REQUIRE_THAT(message_of(good_images, {0, 0, 8, 1, 0, 0, 0, 2, 9, 10}), Catch::Contains("label 10"));
}

TEST_CASE("made images depend on the seed, and each class looks like its prototype", "[examples][edge_training]") {
  et::data_set const a = et::make_data(6, 200, 50, 1), b = et::make_data(6, 200, 50, 1), c = et::make_data(6, 200, 50, 2);
  REQUIRE(a.train.pixels == b.train.pixels);
  REQUIRE(a.test.labels == b.test.labels);
  REQUIRE(a.train.pixels != c.train.pixels);
  REQUIRE(a.train.size() == 200);
  REQUIRE(a.test.size() == 50);
  // The nearest mean of a class tells the test images apart.
  std::vector<double> mean(10 * 36, 0.0), count(10, 0.0);
  for (std::size_t i = 0; i < 200; ++i) {
    count[a.train.labels[i]] += 1.0;
    for (std::size_t p = 0; p < 36; ++p) { mean[a.train.labels[i] * std::size_t{36} + p] += a.train.pixels[i * 36 + p]; }
  }
  int right = 0;
  for (std::size_t i = 0; i < 50; ++i) {
    std::vector<double> distance(10, 0.0);
    for (std::size_t k = 0; k < 10; ++k) {
      for (std::size_t p = 0; p < 36; ++p) { distance[k] += std::pow(mean[k * 36 + p] / std::max(count[k], 1.0) - a.test.pixels[i * 36 + p], 2.0); }
    }
    right += std::min_element(distance.begin(), distance.end()) - distance.begin() == a.test.labels[i] ? 1 : 0;
  }
  REQUIRE(right >= 45);
}

TEST_CASE("an estimate over seeds has the interval of Student's t", "[examples][estimate]") {
  auto const five = examples::estimate::of({1.0, 2.0, 3.0, 4.0, 5.0});
  REQUIRE(five.mean == Approx(3.0));
  REQUIRE(five.half == Approx(2.776 * std::sqrt(2.5 / 5.0)));
  REQUIRE(examples::estimate::of({7.0}).half == 0.0);
  // Alternating numbers have a known spread: quantiles of the table and beyond it, from printed tables.
  struct known {
    std::size_t seeds;
    double t;
  };
  for (auto const& [seeds, t] : {known{2, 12.706}, known{10, 2.262}, known{11, 2.228}, known{16, 2.131}, known{21, 2.086}, known{101, 1.984}}) {
    std::vector<double> values;
    for (std::size_t i = 0; i < seeds; ++i) { values.push_back(i % 2 == 0 ? 1.0 : 3.0); }
    auto const made = examples::estimate::of(values);
    double squares = 0.0;
    for (double const v : values) { squares += (v - made.mean) * (v - made.mean); }
    auto const n = static_cast<double>(seeds);
    REQUIRE(made.half / std::sqrt(squares / (n - 1.0) / n) == Approx(t).epsilon(0.0015));
  }
  REQUIRE(examples::estimate::of({}).mean == 0.0);
}
