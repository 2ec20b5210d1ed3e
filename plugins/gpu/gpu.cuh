// The only door from kernels to the device. Under nvcc these names are CUDA; under g++ the same source runs on the CPU
// (emulation/).
//
// A kernel file includes nothing of CUDA itself, declares shared memory with GPU_SHARED or GPU_DYN_SMEM, starts kernels
// with GPU_LAUNCH, and gives its kernels external linkage (no `static`, no unnamed namespace: the PTX engine finds them
// by name).
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

// A static shared array: GPU_SHARED(float, partial, [8][32]);
#define GPU_SHARED(T, name, dims) __shared__ T name dims
// The launch's dynamic shared memory, as unsigned char*. Use it through one or several Carvers.
#define GPU_DYN_SMEM(name) extern __shared__ __align__(128) unsigned char name[]
#else
#include "emulation/device.h"
#endif

namespace deploydcn::gpu {

// Carves typed arrays out of dynamic shared memory, each at a multiple of 128 bytes. On the host, Carver{nullptr} runs
// the same sequence of take() calls to learn the launch's size: `cur` afterwards. In the emulator each array gets red
// zones, and a take() beyond what the launch asked for is an error. A second Carver over the same base reuses the bytes
// under other names.
struct Carver {
  unsigned char* base;
  size_t cur = 0;

  template <class T>
  __host__ __device__ __forceinline__ T* take(size_t n, [[maybe_unused]] const char* what) {
    const size_t offset = (cur + 127) & ~size_t(127);
    cur = offset + n * sizeof(T);
#if defined(__CUDACC__)
    return reinterpret_cast<T*>(base + offset);
#else
    return base ? static_cast<T*>(emulation::carve(base, offset, n * sizeof(T), what)) : nullptr;
#endif
  }
};

// What GPU_LAUNCH expands to. The error is this launch's own: an older one of somebody else's is neither seen nor
// cleared.
#if defined(__CUDACC__)
template <class... Parameters, class... Arguments>
inline cudaError_t launch(const char*, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t smem_bytes,
                          cudaStream_t stream, Arguments&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = smem_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}
#else
using emulation::launch;
#endif

}  // namespace deploydcn::gpu

// GPU_LAUNCH(kernel, grid, block, smem_bytes, stream, arguments...): cudaError_t. Parentheses protect template commas:
// GPU_LAUNCH((kernel<float, 4>), ...).
#define GPU_LAUNCH(kernel, ...) ::deploydcn::gpu::launch(#kernel, kernel, __VA_ARGS__)
