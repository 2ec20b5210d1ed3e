// Stacks that one OS thread switches between. x86-64 System V only.
#pragma once

#include <cstddef>

namespace deploydcn::emulation {

class Fiber {
 public:
  using Entry = void (*)();

  Fiber() = default;
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber() { destroy(); }

  // Makes this object stand for the stack that is running now.
  void adopt_current();
  // A new stack that calls `entry`, which never returns, at the first switch to it.
  void create(Entry entry);
  void destroy();
  bool created() const { return stack_ != nullptr; }

  // Leaves `from`, the running one. Returns when something switches back to it.
  static void switch_between(Fiber& from, Fiber& to);
  // The first thing that `entry` must call.
  static void entered();

  char* stack_top() const { return stack_ + kStackBytes; }
  bool overflowed_at(const void* address) const;

 private:
  static constexpr size_t kStackBytes = 256 * 1024;  // reserved; only touched pages count

  void* stack_pointer_ = nullptr;
  char* stack_ = nullptr;  // above a guard page; null for an adopted stack
  void* sanitizer_fiber_ = nullptr;
  void* fake_stack_ = nullptr;
  const void* bottom_ = nullptr;  // also of an adopted stack, for AddressSanitizer
  size_t bytes_ = 0;
};

}  // namespace deploydcn::emulation
