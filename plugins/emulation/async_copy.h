// cp.async of 16 bytes as ordinary code of the issuing thread, so that sanitizers see its reads and writes.
#pragma once

#include <cstdint>

#include "emulation/runtime.h"

namespace deploydcn::emulation {

// Shared memory holds garbage from here until the thread waits; `from` is read then.
inline void async_copy16(void* to, const void* from, int source_bytes) {
  if ((reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from)) % 16) {
    fail(cudaErrorMisalignedAddress, "cp.async: %p <- %p is not aligned to 16 bytes", to, from);
  }
  if (source_bytes != 0 && source_bytes != 16) fail(cudaErrorLaunchFailure, "cp.async: source size %d", source_bytes);
  for (int i = 0; i < 4; ++i) static_cast<volatile uint32_t*>(to)[i] = 0xfdfdfdfdu;
  async_copy_start({to, source_bytes ? from : nullptr});
}

// Waits until at most `groups_left` committed groups are under way.
inline void async_copy_wait(int groups_left) {
  AsyncCopy copy;
  while (async_copy_next(groups_left, copy)) {
    const auto* from = static_cast<const volatile uint32_t*>(copy.from);
    for (int i = 0; i < 4; ++i) static_cast<volatile uint32_t*>(copy.to)[i] = from ? from[i] : 0;
  }
}

}  // namespace deploydcn::emulation
