// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief The text behind `laws::check_expert`.
#include <fairlead/concepts/expert.hpp>
#include <fairlead/core/philox.hpp>
#include <fairlead/laws/verdict.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

FAIRLEAD_NAMESPACE_BEGIN
namespace laws::detail {

/// @brief Holds one bank and asks it questions.
template <class Expert, class Backend>
class expert_examiner {
  using value = typename Expert::value_type;
  using values = std::vector<value>;
  static constexpr index_t gap = 1;        // unused columns at the end of each row
  static constexpr value untouched{91.5};  // what memory out of use holds

 public:
  expert_examiner(Expert const& expert, Backend const& on, std::vector<index_t> counts, index_t padding,
                  std::uint64_t seed, double scale, double row_tolerance, double gradient_tolerance)
      : expert_(expert),
        on_(on),
        counts_(std::move(counts)),
        padding_(padding),
        seed_(seed),
        row_tolerance_(row_tolerance),
        gradient_tolerance_(gradient_tolerance) {
    index_t const size = expert.parameter_layout().size();
    for (std::size_t g = 0; g < counts_.size(); ++g) { parameters_.push_back(random(size, 10 + g, scale)); }
    index_t const rows = std::accumulate(counts_.begin(), counts_.end(), index_t{0}) + padding * groups();
    in_ = random(rows * (expert.input_width() + gap), 1, 1.0);
    grad_out_ = random(rows * (expert.output_width() + gap), 2, 1.0);
  }

  /// Laws of forward.
  [[nodiscard]] verdict rows() const {
    bank const all = whole();
    values const out = forward(all, true);
    std::vector<index_t> const offsets = offsets_of(all.counts, padding_);
    if (verdict const v = untouched_outside(out, expert_.output_width(), offsets, all.counts, "forward"); !v) { return v; }
    if (forward(all, true) != out) { return broken("two equal calls of forward gave different bits"); }
    if (!close(forward(all, false), out)) { return broken("outputs change when nothing is kept"); }
    // One call a group.
    for (index_t g = 0; g < groups(); ++g) {
      values const alone = forward(part(g, 0, count(g)), true);
      if (!same_rows(alone, 0, out, offsets[at(g)], count(g))) {
        return broken("group ", g, " alone gives other rows than in the bank");
      }
      // One call a row: what the others hold must not matter.
      for (index_t r = 0; r < count(g); ++r) {
        values const row = forward(part(g, r, 1), true);
        if (!same_rows(row, 0, out, offsets[at(g)] + r, 1)) {
          return broken("row ", r, " of group ", g, " depends on the other rows");
        }
      }
    }
    // Groups in reverse order.
    bank reversed;
    for (index_t g = groups(); g-- > 0;) { append(reversed, part(g, 0, count(g))); }
    values const back = forward(reversed, true, 0);
    index_t first = 0;
    for (index_t g = groups(); g-- > 0;) {
      if (!same_rows(back, first, out, offsets[at(g)], count(g))) {
        return broken("group ", g, " gives other rows when the groups are in another order");
      }
      first += count(g);
    }
    (void)forward(bank{}, true);  // zero groups are legal
    return {};
  }

  /// Laws of backward.
  [[nodiscard]] verdict gradients() const {
    bank const all = whole();
    std::vector<index_t> const offsets = offsets_of(all.counts, padding_);
    index_t const size = expert_.parameter_layout().size();
    std::vector<values> zero(counts_.size(), values(static_cast<std::size_t>(size), value{0}));
    std::vector<values> parameter_gradients = zero;
    values const grad_in = backward(all, parameter_gradients);
    if (verdict const v = untouched_outside(grad_in, expert_.input_width(), offsets, all.counts, "backward"); !v) { return v; }
    std::vector<values> again = zero;
    if (backward(all, again) != grad_in || again != parameter_gradients) {
      return broken("two equal calls of backward gave different bits");
    }
    // Gradients are added to what is there.
    std::vector<values> added(counts_.size(), values(static_cast<std::size_t>(size), value{3}));
    (void)backward(all, added);
    double largest = 1.0;
    for (values const& g : parameter_gradients) {
      for (value const x : g) { largest = std::max(largest, std::abs(static_cast<double>(x))); }
    }
    double const rounding = largest * (sizeof(value) == 8 ? 1e-12 : 1e-4);
    for (std::size_t g = 0; g < added.size(); ++g) {
      for (std::size_t i = 0; i < added[g].size(); ++i) {
        if (counts_[g] == 0 && parameter_gradients[g][i] != value{0}) {
          return broken("group ", g, " has no rows, yet its gradient ", i, " is not zero");
        }
        if (!(std::abs(static_cast<double>(added[g][i]) - 3.0 - static_cast<double>(parameter_gradients[g][i])) <= rounding)) {
          return broken("gradients must be added to what is there: group ", g, ", parameter ", i, ", got ", added[g][i],
                        " on top of 3, expected ", parameter_gradients[g][i], " more");
        }
      }
    }
    // Central differences of sum(out * grad_out); a used row or a group's parameters move their own rows only.
    double const step = sizeof(value) == 8 ? 1e-5 : 1e-2;
    for (std::size_t g = 0; g < counts_.size(); ++g) {
      for (std::size_t i = 0; counts_[g] > 0 && i < static_cast<std::size_t>(size); ++i) {
        bank moved = all;
        moved.parameters[g][i] += static_cast<value>(step);
        double const up = objective(moved);
        moved.parameters[g][i] = all.parameters[g][i] - static_cast<value>(step);
        double const difference = (up - objective(moved)) / (2.0 * step);
        double const got = static_cast<double>(parameter_gradients[g][i]);
        if (!(std::abs(got - difference) <= gradient_tolerance_ * (1.0 + std::abs(difference)))) {
          return broken("gradient of parameter ", i, " of group ", g, " is ", got, ", differences give ", difference);
        }
      }
      for (index_t r = offsets[g]; r < offsets[g] + counts_[g]; ++r) {
        for (index_t c = 0; c < expert_.input_width(); ++c) {
          std::size_t const i = at(r * (expert_.input_width() + gap) + c);
          bank moved = all;
          moved.in[i] += static_cast<value>(step);
          double const up = objective(moved);
          moved.in[i] = all.in[i] - static_cast<value>(step);
          double const difference = (up - objective(moved)) / (2.0 * step);
          double const got = static_cast<double>(grad_in[i]);
          if (!(std::abs(got - difference) <= gradient_tolerance_ * (1.0 + std::abs(difference)))) {
            return broken("gradient of input (", r, ", ", c, ") is ", got, ", differences give ", difference);
          }
        }
      }
    }
    return {};
  }

 private:
  struct bank {
    std::vector<index_t> counts;
    std::vector<values> parameters;
    values in;
  };
  [[nodiscard]] static std::size_t at(index_t i) noexcept { return static_cast<std::size_t>(i); }
  [[nodiscard]] index_t groups() const noexcept { return static_cast<index_t>(counts_.size()); }
  [[nodiscard]] index_t count(index_t g) const noexcept { return counts_[at(g)]; }
  template <class... Parts>
  [[nodiscard]] verdict broken(Parts const&... parts) const {
    return verdict::broken(parts..., " (seed ", seed_, ")");
  }
  [[nodiscard]] values random(index_t size, std::uint64_t stream, double scale) const {
    values result;
    for (index_t i = 0; i < size; ++i) {
      result.push_back(static_cast<value>(scale * philox::normal(seed_, stream, static_cast<std::uint64_t>(i))));
    }
    return result;
  }
  [[nodiscard]] static std::vector<index_t> offsets_of(std::vector<index_t> const& counts, index_t padding) {
    std::vector<index_t> offsets{0};
    for (index_t const c : counts) { offsets.push_back(offsets.back() + c + padding); }
    return offsets;
  }
  [[nodiscard]] bank whole() const { return {counts_, parameters_, in_}; }
  /// Some rows of one group, as a bank of one group without padding.
  [[nodiscard]] bank part(index_t g, index_t first, index_t rows) const {
    index_t const stride = expert_.input_width() + gap;
    index_t const begin = (offsets_of(counts_, padding_)[at(g)] + first) * stride;
    return {{rows}, {parameters_[at(g)]}, values(in_.begin() + begin, in_.begin() + begin + rows * stride)};
  }
  static void append(bank& to, bank const& from) {
    to.counts.insert(to.counts.end(), from.counts.begin(), from.counts.end());
    to.parameters.insert(to.parameters.end(), from.parameters.begin(), from.parameters.end());
    to.in.insert(to.in.end(), from.in.begin(), from.in.end());
  }
  /// Padding as the size of `in` says: the whole bank has it, parts do not.
  [[nodiscard]] index_t padding_of(bank const& b) const {
    index_t const used = std::accumulate(b.counts.begin(), b.counts.end(), index_t{0});
    index_t const rows = static_cast<index_t>(b.in.size()) / (expert_.input_width() + gap);
    return b.counts.empty() ? 0 : (rows - used) / static_cast<index_t>(b.counts.size());
  }
  template <class Element>
  [[nodiscard]] static matrix_view<Element> view(Element* data, index_t rows, index_t cols) {
    return {data, rows, cols, cols + gap};
  }
  [[nodiscard]] values forward(bank const& b, bool keep) const { return forward(b, keep, padding_of(b)); }
  [[nodiscard]] values forward(bank const& b, bool keep, index_t padding) const {
    values kept, out;
    run(b, keep, padding, kept, out, nullptr, nullptr);
    return out;
  }
  [[nodiscard]] values backward(bank const& b, std::vector<values>& gradients) const {
    values kept, out, grad_in;
    run(b, true, padding_of(b), kept, out, &gradients, &grad_in);
    return grad_in;
  }
  void run(bank const& b, bool keep, index_t padding, values& kept, values& out, std::vector<values>* gradients,
           values* grad_in) const {
    std::vector<index_t> const offsets = offsets_of(b.counts, padding);
    index_t const all = offsets.back();
    std::vector<value const*> pointers;
    for (values const& p : b.parameters) { pointers.push_back(p.data()); }
    kept.assign(at(all * (expert_.kept_width() + gap)), untouched);
    out.assign(at(all * (expert_.output_width() + gap)), untouched);
    arena<> memory(expert_.workspace_bytes(all, on_.concurrency()));
    workspace ws = memory.view();
    row_groups const rows{offsets, b.counts};
    matrix_view<value const> const in = view<value const>(b.in.data(), all, expert_.input_width());
    matrix_view<value> const pre =
        keep ? view<value>(kept.data(), all, expert_.kept_width()) : matrix_view<value>(kept.data(), all, 0);
    expert_.forward(on_, std::span<value const* const>(pointers), rows, in, pre,
                    view<value>(out.data(), all, expert_.output_width()), ws);
    on_.wait();
    if constexpr (trainable_on<Expert, Backend>) {
      if (gradients != nullptr) {
        std::vector<value*> targets;
        for (values& g : *gradients) { targets.push_back(g.data()); }
        grad_in->assign(at(all * (expert_.input_width() + gap)), untouched);
        expert_.backward(on_, std::span<value const* const>(pointers), std::span<value* const>(targets), rows, in,
                         matrix_view<value const>(pre),
                         view<value const>(grad_out_.data(), all, expert_.output_width()),
                         view<value>(grad_in->data(), all, expert_.input_width()), ws);
        on_.wait();
      }
    }
  }
  [[nodiscard]] double objective(bank const& b) const {
    values const out = forward(b, false);
    std::vector<index_t> const offsets = offsets_of(b.counts, padding_);
    index_t const stride = expert_.output_width() + gap;
    double sum = 0.0;
    for (std::size_t g = 0; g < b.counts.size(); ++g) {
      for (index_t r = offsets[g]; r < offsets[g] + b.counts[g]; ++r) {
        for (index_t c = 0; c < expert_.output_width(); ++c) {
          sum += static_cast<double>(out[at(r * stride + c)]) * static_cast<double>(grad_out_[at(r * stride + c)]);
        }
      }
    }
    return sum;
  }
  [[nodiscard]] bool equal(value a, value b) const {
    return row_tolerance_ == 0.0
               ? a == b
               : std::abs(static_cast<double>(a) - static_cast<double>(b)) <=
                     row_tolerance_ * (1.0 + std::abs(static_cast<double>(b)));
  }
  [[nodiscard]] bool close(values const& a, values const& b) const {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [this](value x, value y) { return equal(x, y); });
  }
  [[nodiscard]] bool same_rows(values const& a, index_t first_a, values const& b, index_t first_b, index_t rows) const {
    index_t const stride = expert_.output_width() + gap;
    for (index_t i = 0; i < rows * stride; ++i) {
      if (!equal(a[at(first_a * stride + i)], b[at(first_b * stride + i)])) { return false; }
    }
    return true;
  }
  [[nodiscard]] verdict untouched_outside(values const& out, index_t width, std::vector<index_t> const& offsets,
                                          std::vector<index_t> const& counts, char const* what) const {
    for (std::size_t g = 0; g < counts.size(); ++g) {
      for (index_t r = offsets[g]; r < offsets[g + 1]; ++r) {
        bool const used = r < offsets[g] + counts[g];
        for (index_t c = 0; c < width + gap; ++c) {
          value const x = out[at(r * (width + gap) + c)];
          if (c >= width && x != untouched) {
            return broken(what, " wrote outside its matrix, in row ", r, " behind column ", width);
          }
          // Padding rows may be computed from their zeros or skipped, but hold no garbage.
          if (used && c < width && (x == untouched || !std::isfinite(static_cast<double>(x)))) {
            return broken(what, " left row ", r, ", column ", c, " without a finite result");
          }
        }
      }
    }
    return {};
  }

  Expert expert_;
  Backend on_;
  std::vector<index_t> counts_;
  index_t padding_;
  std::uint64_t seed_;
  double row_tolerance_, gradient_tolerance_;
  std::vector<values> parameters_;
  values in_, grad_out_;
};

}  // namespace laws::detail
FAIRLEAD_NAMESPACE_END
