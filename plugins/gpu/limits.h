// What the GPU kernels index with 32 bits, checked on the host.
#pragma once

#include <string>

#include "core/checked.h"

namespace deploydcn::gpu {

// `value`, which must be at most `limit`; throws InvalidArgument beyond that.
inline int at_most(Checked value, int64_t limit, const char* what) {
  if (value.value() > limit) {
    throw InvalidArgument(std::string(what) + " is " + std::to_string(value.value()) +
                          "; the GPU kernels take at most " + std::to_string(limit) + "; split the input");
  }
  return static_cast<int>(value.value());
}

}  // namespace deploydcn::gpu
