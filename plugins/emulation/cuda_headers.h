// The toolkit's own types (cudaError_t, cudaStream_t, dim3, __half, ...) for a host compiler, and CUDA's keywords as
// nothing. Under nvcc, the toolkit.
#pragma once

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#else
#include <cuda_runtime_api.h>
#include <vector_functions.h>

#undef __launch_bounds__
#undef __maxnreg__
#undef __global__
#undef __device__
#undef __host__
#undef __constant__
#undef __shared__
#undef __forceinline__
#undef __grid_constant__
#define __launch_bounds__(...)
#define __maxnreg__(...)
#define __global__
#define __device__
#define __host__
#define __constant__
#define __shared__ static_assert(false, "use GPU_SHARED or GPU_DYN_SMEM: plain __shared__ would be per process here");
#define __forceinline__ inline __attribute__((always_inline))
#define __grid_constant__

#include <cuda_bf16.h>
#include <cuda_fp16.h>

// What <cuda_runtime.h> adds in C++ to the C functions.
template <class T>
inline cudaError_t cudaMalloc(T** device, size_t bytes) {
  return cudaMalloc(reinterpret_cast<void**>(device), bytes);
}
template <class... P>
inline cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute, int value) {
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), attribute, value);
}
#endif
