// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once
/// @file
/// @brief Every form of operator new of a program counts while a switch is on. For one translation unit of an executable.
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {
std::atomic<bool> counting{false};
std::atomic<long> allocations{0};

void* allocate(std::size_t bytes, std::size_t alignment) noexcept {
  if (counting.load(std::memory_order_relaxed)) { allocations.fetch_add(1, std::memory_order_relaxed); }
  std::size_t const rounded = (bytes + alignment - 1) / alignment * alignment;
  return std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded);
}
void* allocate_or_throw(std::size_t bytes, std::size_t alignment) {
  void* const block = allocate(bytes, alignment);
  if (block == nullptr) { throw std::bad_alloc(); }
  return block;
}
// Out of line: g++ takes a visible free() of what an inlined operator new returned for a mismatch.
[[gnu::noinline]] void release(void* block) noexcept { std::free(block); }
constexpr std::size_t plain = alignof(std::max_align_t);
}  // namespace

void* operator new(std::size_t bytes) { return allocate_or_throw(bytes, plain); }
void* operator new[](std::size_t bytes) { return allocate_or_throw(bytes, plain); }
void* operator new(std::size_t bytes, std::nothrow_t const&) noexcept { return allocate(bytes, plain); }
void* operator new[](std::size_t bytes, std::nothrow_t const&) noexcept { return allocate(bytes, plain); }
void* operator new(std::size_t bytes, std::align_val_t to) { return allocate_or_throw(bytes, static_cast<std::size_t>(to)); }
void* operator new[](std::size_t bytes, std::align_val_t to) { return allocate_or_throw(bytes, static_cast<std::size_t>(to)); }
void* operator new(std::size_t bytes, std::align_val_t to, std::nothrow_t const&) noexcept { return allocate(bytes, static_cast<std::size_t>(to)); }
void* operator new[](std::size_t bytes, std::align_val_t to, std::nothrow_t const&) noexcept { return allocate(bytes, static_cast<std::size_t>(to)); }
void operator delete(void* block) noexcept { release(block); }
void operator delete[](void* block) noexcept { release(block); }
void operator delete(void* block, std::size_t) noexcept { release(block); }
void operator delete[](void* block, std::size_t) noexcept { release(block); }
void operator delete(void* block, std::nothrow_t const&) noexcept { release(block); }
void operator delete[](void* block, std::nothrow_t const&) noexcept { release(block); }
void operator delete(void* block, std::align_val_t) noexcept { release(block); }
void operator delete[](void* block, std::align_val_t) noexcept { release(block); }
void operator delete(void* block, std::size_t, std::align_val_t) noexcept { release(block); }
void operator delete[](void* block, std::size_t, std::align_val_t) noexcept { release(block); }
void operator delete(void* block, std::align_val_t, std::nothrow_t const&) noexcept { release(block); }
void operator delete[](void* block, std::align_val_t, std::nothrow_t const&) noexcept { release(block); }
