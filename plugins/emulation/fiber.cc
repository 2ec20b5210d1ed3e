#include "emulation/fiber.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstdint>
#include <new>
#include <utility>

#include "emulation/sanitizers.h"

#if !defined(__x86_64__)
#error "the emulator's context switch is written for x86-64"
#endif

// Saves the callee-saved registers on the old stack, then takes those of the new one.
extern "C" void deploydcn_emulation_switch(void** save_stack_pointer, void* load_stack_pointer);
asm(R"(.text
.type deploydcn_emulation_switch,@function
deploydcn_emulation_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size deploydcn_emulation_switch, .-deploydcn_emulation_switch
)");

namespace deploydcn::emulation {
namespace {

constexpr size_t kGuardBytes = 4096;

#if defined(DEPLOYDCN_EMULATION_TSAN)
// ThreadSanitizer gives a destroyed fiber's number to the next one and then takes both for the same thread. So fibers
// are destroyed late and in random order.
void retire(void* sanitizer_fiber) {
  constexpr size_t kMost = 2048;
  static void* retired[kMost];
  static size_t count = 0;
  static uint64_t random = 88172645463325252u;
  retired[count++] = sanitizer_fiber;
  if (count < kMost) return;
  while (count > kMost / 2) {
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    std::swap(retired[random % count], retired[count - 1]);
    __tsan_destroy_fiber(retired[--count]);
  }
}
#endif

}  // namespace

void Fiber::adopt_current() {
#if defined(__SANITIZE_ADDRESS__)
  pthread_attr_t attributes;
  void* bottom;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &bottom, &bytes_);
  pthread_attr_destroy(&attributes);
  bottom_ = bottom;
#endif
#if defined(DEPLOYDCN_EMULATION_TSAN)
  sanitizer_fiber_ = __tsan_get_current_fiber();
#endif
}

void Fiber::create(Entry entry) {
  void* const memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, kGuardBytes, PROT_NONE)) throw std::bad_alloc();
  stack_ = static_cast<char*>(memory) + kGuardBytes;
  bottom_ = stack_, bytes_ = kStackBytes;
  // What deploydcn_emulation_switch pops: six registers and a return address, with the alignment of a function's entry.
  void** top = reinterpret_cast<void**>(stack_top());
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  stack_pointer_ = top - 6;
#if defined(DEPLOYDCN_EMULATION_TSAN)
  sanitizer_fiber_ = __tsan_create_fiber(0);
#endif
}

void Fiber::destroy() {
  if (!stack_) return;
  unpoison_memory(stack_, kStackBytes);
  munmap(stack_ - kGuardBytes, kGuardBytes + kStackBytes);
  stack_ = nullptr;
#if defined(DEPLOYDCN_EMULATION_TSAN)
  retire(sanitizer_fiber_);
#endif
}

void Fiber::switch_between(Fiber& from, Fiber& to) {
#if defined(DEPLOYDCN_EMULATION_TSAN)
  constexpr unsigned kNoSynchronisation = 1;
  __tsan_switch_to_fiber(to.sanitizer_fiber_, kNoSynchronisation);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&from.fake_stack_, to.bottom_, to.bytes_);
#endif
  deploydcn_emulation_switch(&from.stack_pointer_, to.stack_pointer_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(from.fake_stack_, nullptr, nullptr);
#endif
}

void Fiber::entered() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

bool Fiber::overflowed_at(const void* address) const {
  const char* const at = static_cast<const char*>(address);
  return stack_ && at >= stack_ - kGuardBytes && at < stack_;
}

}  // namespace deploydcn::emulation
