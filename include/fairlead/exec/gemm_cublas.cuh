// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Multiply matrices with cuBLAS: one product, or the products of a bank of experts in one call.
#include <fairlead/cuda/memory.cuh>
#include <fairlead/concepts/gemm.hpp>
#include <fairlead/core/bfloat16.hpp>
#include <fairlead/core/workspace.hpp>

#include <cublas_v2.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

FAIRLEAD_NAMESPACE_BEGIN

/// @brief Thrown when cuBLAS reports a failure.
class cublas_error : public std::runtime_error {
 public:
  /// @param code what cuBLAS returned
  /// @param doing what was tried
  cublas_error(cublasStatus_t code, char const* doing)
      : std::runtime_error(std::string(doing) + ": " + cublasGetStatusString(code)), code_(code) {}
  /// @returns the native code
  [[nodiscard]] cublasStatus_t code() const noexcept { return code_; }

 private:
  cublasStatus_t code_;
};

namespace kernels {
/// @param code what cuBLAS returned
/// @param doing what was tried
/// @throws cublas_error unless `code` is success
inline void check(cublasStatus_t code, char const* doing) {
  if (code != CUBLAS_STATUS_SUCCESS) [[unlikely]] { throw cublas_error(code, doing); }
}
/// @returns the cuBLAS name of an element type: fp32, fp64 or bfloat16
template <class Value>
[[nodiscard]] constexpr cudaDataType_t cublas_type() noexcept {
  static_assert(std::is_same_v<Value, float> || std::is_same_v<Value, double> || std::is_same_v<Value, bfloat16>,
                "fairlead: gemm::cublas multiplies float, double and bfloat16");
  return std::is_same_v<Value, double> ? CUDA_R_64F : std::is_same_v<Value, float> ? CUDA_R_32F : CUDA_R_16BF;
}
}  // namespace kernels

namespace gemm {

/// @brief Own a cuBLAS handle of the current device; move-only. Make one a rank and thread, at warm-up.
class cublas_owner {
 public:
  /// @throws cublas_error without a device
  cublas_owner() { kernels::check(cublasCreate(&handle_), "creating a cuBLAS handle"); }
  /// @brief Take over what `other` holds; it holds nothing afterwards.
  cublas_owner(cublas_owner&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  /// @brief Exchange with `other`.
  cublas_owner& operator=(cublas_owner&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  cublas_owner(cublas_owner const&) = delete;
  cublas_owner& operator=(cublas_owner const&) = delete;
  ~cublas_owner() {
    if (handle_ != nullptr) { (void)cublasDestroy(handle_); }
  }
  /// @returns the handle
  [[nodiscard]] cublasHandle_t native() const noexcept { return handle_; }

 private:
  cublasHandle_t handle_ = nullptr;
};

/// @brief Products by cuBLAS on the stream of the backend. Sums are fp32 (fp64 for double).
///
/// Without a handle of its own it takes one that belongs to the calling thread and the current device and is created at
/// first use, so that a default value works inside an expert or a gate.
/// Equal shapes give equal bits on one device and one cuBLAS version; other shapes may choose other kernels.
struct cublas {
  cublasHandle_t handle = nullptr;  ///< not owned, used by one thread at a time; null = one of the calling thread

  /// @brief Compute `c = alpha * op(a) * op(b) + beta * c`.
  /// @param on execution context; the product is queued on its stream
  /// @param op_a whether `a` is transposed
  /// @param op_b whether `b` is transposed
  /// @param alpha factor of the product
  /// @param a left factor @shape{m x k after op_a}
  /// @param b right factor @shape{k x n after op_b}
  /// @param beta factor of the old content; 0 = not read
  /// @param[in,out] c result @shape{m x n}
  /// @throws contract_violation (level 1) if shapes disagree, cublas_error
  template <cuda_backend Backend, class Value>
  void multiply(Backend const& on, transpose op_a, transpose op_b, std::type_identity_t<Value> alpha,
                matrix_view<std::type_identity_t<Value> const> a, matrix_view<std::type_identity_t<Value> const> b,
                std::type_identity_t<Value> beta, matrix_view<Value> c) const {
    fairlead::detail::check_product(op_a, op_b, a, b, c);
    if (c.empty()) { return; }
    using scale_t = std::conditional_t<std::is_same_v<Value, double>, double, float>;
    constexpr cudaDataType_t type = kernels::cublas_type<Value>();
    auto const factor = static_cast<scale_t>(alpha);
    auto const keep = static_cast<scale_t>(beta);
    std::int64_t const depth = op_a == transpose::no ? a.cols() : a.rows();
    cublasHandle_t const blas = own_or_shared();
    kernels::check(cublasSetStream(blas, on.native()), "choosing cuBLAS's stream");
    // cuBLAS is column-major: it sees the transposes of these row-major matrices, so the factors change places.
    kernels::check(cublasGemmEx_64(blas, native(op_b), native(op_a), c.cols(), c.rows(), depth, &factor, b.data(), type,
                                   leading(b), a.data(), type, leading(a), &keep, c.data(), type, leading(c),
                                   std::is_same_v<Value, double> ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F,
                                   CUBLAS_GEMM_DEFAULT),
                   "cublasGemmEx");
  }

  /// @brief Scratch memory of `multiply_groups`.
  /// @param groups number of products
  /// @returns bytes
  [[nodiscard]] static constexpr std::size_t workspace_bytes(index_t groups) noexcept {
    return 3 * workspace_bytes_of(groups);
  }

  /// @brief Compute the products of a bank of experts with grouped GEMM: `c[g] = alpha * op(a[g]) * op(b[g]) + beta * c[g]`.
  /// @param on execution context
  /// @param op_a whether the left factors are transposed
  /// @param op_b whether the right factors are transposed
  /// @param alpha factor of the products
  /// @param a left factors; views in host memory, elements on the device
  /// @param b right factors
  /// @param beta factor of the old contents; 0 = not read
  /// @param c results; empty ones are skipped
  /// @param ws at least `workspace_bytes(c.size())` of device memory
  /// @throws contract_violation (level 1) if shapes disagree, cublas_error
  /// @complexity one call for each 64 groups, no allocation here
  template <cuda_backend Backend, class Value>
  void multiply_groups(Backend const& on, transpose op_a, transpose op_b, std::type_identity_t<Value> alpha,
                       std::span<matrix_view<std::type_identity_t<Value> const> const> a,
                       std::span<matrix_view<std::type_identity_t<Value> const> const> b,
                       std::type_identity_t<Value> beta, std::span<matrix_view<Value> const> c, workspace& ws) const {
    FAIRLEAD_EXPECTS(a.size() == c.size() && b.size() == c.size(), "one pair of factors a product", a.size(), b.size(),
                     c.size());
    using scale_t = std::conditional_t<std::is_same_v<Value, double>, double, float>;
    constexpr cudaDataType_t type = kernels::cublas_type<Value>();
    constexpr std::size_t most = 64;
    workspace::scope const scratch(ws);
    auto const groups = static_cast<index_t>(c.size());
    auto const a_list = ws.take<void const*>(groups);
    auto const b_list = ws.take<void const*>(groups);
    auto const c_list = ws.take<void*>(groups);
    cublasHandle_t const blas = own_or_shared();
    kernels::check(cublasSetStream(blas, on.native()), "choosing cuBLAS's stream");
    for (std::size_t first = 0; first < c.size(); first += most) {
      std::array<cublasOperation_t, most> left, right;
      std::array<std::int64_t, most> rows, cols, depth, a_lead, b_lead, c_lead, ones;
      std::array<scale_t, most> factor, keep;
      std::array<void const*, most> a_host, b_host;
      std::array<void*, most> c_host;
      std::size_t count = 0;
      for (std::size_t g = first; g < std::min(first + most, c.size()); ++g) {
        fairlead::detail::check_product(op_a, op_b, a[g], b[g], c[g]);
        if (c[g].empty()) { continue; }
        left[count] = native(op_b);
        right[count] = native(op_a);
        rows[count] = c[g].cols();
        cols[count] = c[g].rows();
        depth[count] = op_a == transpose::no ? a[g].cols() : a[g].rows();
        a_lead[count] = leading(a[g]);
        b_lead[count] = leading(b[g]);
        c_lead[count] = leading(c[g]);
        ones[count] = 1;
        factor[count] = static_cast<scale_t>(alpha);
        keep[count] = static_cast<scale_t>(beta);
        a_host[count] = a[g].data();
        b_host[count] = b[g].data();
        c_host[count] = c[g].data();
        ++count;
      }
      if (count == 0) { continue; }
      // Pageable memory: the run time has copied the lists when these calls return.
      on.from_host(a_list.data() + first, a_host.data(), count * sizeof(void*));
      on.from_host(b_list.data() + first, b_host.data(), count * sizeof(void*));
      on.from_host(c_list.data() + first, c_host.data(), count * sizeof(void*));
      kernels::check(
          cublasGemmGroupedBatchedEx_64(blas, left.data(), right.data(), rows.data(), cols.data(), depth.data(),
                                     factor.data(), b_list.data() + first, type, b_lead.data(), a_list.data() + first,
                                     type, a_lead.data(), keep.data(), c_list.data() + first, type, c_lead.data(),
                                     static_cast<std::int64_t>(count), ones.data(),
                                     std::is_same_v<Value, double> ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F),
          "cublasGemmGroupedBatchedEx");
    }
  }

 private:
  [[nodiscard]] cublasHandle_t own_or_shared() const {
    if (handle != nullptr) { return handle; }
    constexpr int most_devices = 64;
    thread_local std::array<std::optional<cublas_owner>, most_devices> handles;
    int device = 0;
    kernels::check(cudaGetDevice(&device), "asking for the current device");
    FAIRLEAD_EXPECTS(device < most_devices, "give gemm::cublas a handle on machines with more than 64 devices", device);
    auto& owner = handles[static_cast<std::size_t>(device)];
    if (!owner) { owner.emplace(); }
    return owner->native();
  }
  static constexpr std::size_t workspace_bytes_of(index_t groups) noexcept {
    return fairlead::workspace_bytes<void*>(groups);
  }
  static constexpr cublasOperation_t native(transpose op) noexcept { return op == transpose::no ? CUBLAS_OP_N : CUBLAS_OP_T; }
  // A single row may have any stride; cuBLAS wants at least the width and at least one.
  template <class Element>
  static constexpr std::int64_t leading(matrix_view<Element> const& m) noexcept {
    return std::max<std::int64_t>(m.stride(), 1);
  }
};

}  // namespace gemm
FAIRLEAD_NAMESPACE_END
