// What the runtime must tell AddressSanitizer and ThreadSanitizer; nothing in plain builds.
//
// For ThreadSanitizer every device thread is a fiber of its own, so that it sees races between them although one OS
// thread runs all. The runtime itself is compiled without -fsanitize=thread and with DEPLOYDCN_EMULATION_TSAN.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(DEPLOYDCN_EMULATION_TSAN)
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#endif

namespace deploydcn::emulation {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kAddressSanitizer = true;
inline void poison_memory(const void* memory, size_t bytes) { __asan_poison_memory_region(memory, bytes); }
inline void unpoison_memory(const void* memory, size_t bytes) { __asan_unpoison_memory_region(memory, bytes); }
#else
inline constexpr bool kAddressSanitizer = false;
inline void poison_memory(const void*, size_t) {}
inline void unpoison_memory(const void*, size_t) {}
#endif

// Orders memory: what one fiber did before release(x) is seen by another after its acquire(x).
#if defined(DEPLOYDCN_EMULATION_TSAN)
inline constexpr bool kThreadSanitizer = true;
inline void acquire(void* address) { __tsan_acquire(address); }
inline void release(void* address) { __tsan_release(address); }
#else
inline constexpr bool kThreadSanitizer = false;
inline void acquire(void*) {}
inline void release(void*) {}
#endif

}  // namespace deploydcn::emulation
