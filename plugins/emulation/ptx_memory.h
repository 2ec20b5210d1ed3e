// Addresses of translated PTX. Loads and stores are plain casts: the files are compiled with -fno-strict-aliasing.
#pragma once

#include <cstdint>
#include <cstring>

#include "emulation/runtime.h"

namespace deploydcn::emulation::ptx {

// Vectors must be aligned as a whole.
inline uint64_t address(uint64_t address, unsigned bytes, int line) {
  if (__builtin_expect(address % bytes != 0, 0)) {
    fail(cudaErrorMisalignedAddress, "PTX line %d: %u bytes at %p, which is not a multiple", line, bytes,
         reinterpret_cast<void*>(address));
  }
  return address;
}

// `offset` is an address in .shared space. The bounds are the block's; between arrays lie red zones.
inline uint64_t shared_address(const SharedBlock& block, uint32_t offset, unsigned bytes, int line) {
  if (__builtin_expect(offset > block.bytes || bytes > block.bytes - offset, 0)) {
    fail(cudaErrorIllegalAddress, "PTX line %d: %u bytes at shared address %u, but the block has %u", line, bytes,
         offset, block.bytes);
  }
  return address(reinterpret_cast<uint64_t>(block.base) + offset, bytes, line);
}

// Garbage in memory of the thread's own, as on a GPU.
inline void fill_local(unsigned char* memory, size_t bytes) { std::memset(memory, 0xff, bytes); }

}  // namespace deploydcn::emulation::ptx
