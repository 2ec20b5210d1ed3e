// What the host side of every kernel needs: errors of the CUDA runtime, the element type as a C++ type, the grid.
#pragma once

#include <string>

#include "core/dtype.h"
#include "gpu/gpu.cuh"

namespace deploydcn::gpu {

inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  throw DeviceError(std::string(what) + ": " + cudaGetErrorString(status));
}

inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  check(cudaGetDevice(&device), "asking for the current GPU");
  check(cudaDeviceGetAttribute(&value, attribute, device), "asking for a property of the GPU");
  return value;
}

// body(T()) for the C++ type of `dtype`.
template <class Body>
auto with_type(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::kFloat32: return body(float());
    case DType::kFloat16: return body(__half());
    case DType::kBFloat16: return body(__nv_bfloat16());
    case DType::kFloat64:
    case DType::kInt64:
    case DType::kUInt8:
    case DType::kInt8:
    case DType::kInt32: break;
  }
  throw InternalError("the GPU has kernels for float32, float16 and bfloat16");
}

// The grid of a kernel with one thread per item, in blocks of `threads`. Throws InvalidArgument when there are too
// many.
inline dim3 grid_of(int64_t items, int threads) {
  const int64_t blocks = (items + threads - 1) / threads;
  if (blocks > 0x7fffffff) {
    throw InvalidArgument("the output has " + std::to_string(items) + " elements; the GPU kernel computes at most " +
                          std::to_string(int64_t{threads} * 0x7fffffff) + "; split the input");
  }
  return dim3(static_cast<unsigned>(blocks));
}

}  // namespace deploydcn::gpu
