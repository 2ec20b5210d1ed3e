// Kernels in PTX form, found by the source form's address.
#pragma once

#include "emulation/runtime.h"

namespace deploydcn::emulation {

struct PtxEntry {
  Engine engine;
  const char* name;    // mangled
  const void* source;  // the same kernel as g++ compiled it; null when this program has none
  PtxKernel function;
  unsigned max_threads;  // per block, from __launch_bounds__; 0: not given
};

// Each translated file registers its kernels in a static object. Two of one name and engine are an error.
class PtxRegistration {
 public:
  PtxRegistration(const PtxEntry* entries, size_t count);
};

const PtxEntry* find_ptx_kernel(Engine engine, const void* source);

}  // namespace deploydcn::emulation
