// One thread's working memory, reused from call to call.
#pragma once

#include <cstdint>
#include <vector>

#include "core/error.h"
#include "core/poison.h"

namespace deploydcn::cpu {

class ThreadArena {
 public:
  // The bytes `take<T>(count)` uses, alignment and guard included.
  template <class T>
  static constexpr std::size_t bytes_for(int64_t count) {
    return static_cast<std::size_t>(count) * sizeof(T) + kAlignment + kGuard;
  }
  // Begins a new set of arrays of `bytes` together; arrays taken before are gone.
  void reset(std::size_t bytes) {
    unpoison(memory_.data(), memory_.size());
    if (memory_.size() < bytes) memory_ = std::vector<unsigned char>(bytes);
    used_ = 0;
  }
  // An uninitialised array, 64-byte aligned.
  template <class T>
  T* take(int64_t count) {
    const auto base = reinterpret_cast<std::uintptr_t>(memory_.data());
    const std::uintptr_t start = (base + used_ + kAlignment - 1) & ~std::uintptr_t{kAlignment - 1};
    const std::size_t end = start - base + static_cast<std::size_t>(count) * sizeof(T);
    if (end + kGuard > memory_.size()) throw InternalError("thread arena too small");
    poison(memory_.data() + end, kGuard);
    used_ = end + kGuard;
    return reinterpret_cast<T*>(start);
  }
  ThreadArena() = default;
  ThreadArena(const ThreadArena&) = delete;
  ThreadArena& operator=(const ThreadArena&) = delete;
  ~ThreadArena() { unpoison(memory_.data(), memory_.size()); }

 private:
  static constexpr std::size_t kAlignment = 64, kGuard = 64;
  std::vector<unsigned char> memory_;
  std::size_t used_ = 0;
};

inline ThreadArena& thread_arena() {
  static thread_local ThreadArena arena;
  return arena;
}

}  // namespace deploydcn::cpu
