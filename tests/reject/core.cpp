// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// Ids of different kinds, views of the wrong type, policies without text for a backend.
#include <fairlead/core/implementation.hpp>
#include <fairlead/core/matrix_view.hpp>
#include <fairlead/core/saved_state.hpp>
#include <fairlead/exec/serial.hpp>

#include <string>
#include <vector>

namespace fl = fairlead;

template <class Value>
struct array_2d {  // describes itself as std::mdspan does
  Value* data;
  [[nodiscard]] int extent(int) const { return 2; }
  [[nodiscard]] int stride(int axis) const { return axis == 0 ? 2 : 1; }
  [[nodiscard]] Value* data_handle() const { return data; }
};

inline void reads(fl::matrix_view<float const>) {}
inline void takes_expert(fl::expert_id) {}

inline void control(array_2d<float> array, fl::matrix_view<float> view) {
  reads(array);
  reads(view);
  takes_expert(fl::expert_id{3});
}

#if defined(REJECT_mdspan_of_another_type)  // expect-gcc: could not convert // expect-clang: no matching function for call to 'reads'
inline void misuse(array_2d<double> array) { reads(array); }
#endif

#if defined(REJECT_view_drops_const)  // expect-gcc: could not convert // expect-clang: no viable conversion
inline fl::matrix_view<float> misuse(fl::matrix_view<float const> view) { return view; }
#endif

#if defined(REJECT_rank_for_expert)  // expect-gcc: cannot convert | expert_id // expect-clang: no matching function for call to 'takes_expert'
inline void misuse(fl::rank_id rank) { takes_expert(rank); }
#endif

#if defined(REJECT_integer_for_expert)  // expect-gcc: expert_id // expect-clang: no matching function for call to 'takes_expert'
inline void misuse() { takes_expert(3); }
#endif

#if defined(REJECT_policy_without_text)  // expect: this component has no text for this backend's memory space | include the component's .cuh
struct my_policy {};
inline fl::implementation<my_policy, fl::serial> misuse;
#endif

#if defined(REJECT_saved_strings)  // expect: a state is saved byte by byte: give arrays of plain values
struct names {
  std::vector<std::string> values;
  template <class Self, class Function>
  static void each_array(Self& self, Function&& f) {
    f(std::span(self.values));
  }
};
inline std::size_t misuse(names const& state) { return fl::saved_bytes(state); }
#endif
