// Tensor cores and asynchronous copies. The only file with inline PTX: every function has a body for the device and one
// for the emulator. All lanes of a warp call the matrix functions together.
//
// Fragment layouts are those of the PTX ISA; plugins/emulation/fragment_layouts.h spells them out.
#pragma once

#include "gpu/gpu.cuh"

#if defined(__CUDACC__)
#define DEPLOYDCN_CALLER_ARGUMENT
#else
#include "emulation/async_copy.h"
#include "emulation/matrix_instructions.h"
#define DEPLOYDCN_CALLER_ARGUMENT , DEPLOYDCN_CALLER
#endif

namespace deploydcn::gpu {

// Starts copying 16 aligned bytes to shared memory: from global memory, or zeros when src_bytes is 0 (it is 0 or 16;
// gmem must be a valid address only when it is 16). The bytes are there after cp_async_wait and, for other threads, a
// barrier. Before sm_80 it copies at once.
__device__ __forceinline__ void cp_async16(void* smem, const void* gmem, int src_bytes = 16) {
#if !defined(__CUDACC__)
  emulation::async_copy16(smem, gmem, src_bytes);
#elif __CUDA_ARCH__ >= 800
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(smem));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(gmem), "r"(src_bytes) : "memory");
#else
  *static_cast<int4*>(smem) = src_bytes ? *static_cast<const int4*>(gmem) : make_int4(0, 0, 0, 0);
#endif
}

// Closes the group of all copies started since the last commit.
__device__ __forceinline__ void cp_async_commit() {
#if !defined(__CUDACC__)
  emulation::async_copy_commit();
#elif __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most the N latest groups of this thread are under way.
template <int N>
__device__ __forceinline__ void cp_async_wait() {
#if !defined(__CUDACC__)
  emulation::async_copy_wait(N);
#elif __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

// Loads four 8x8 matrices of 16-bit elements from shared memory: lane l gives the 16-byte aligned address of row l % 8
// of matrix l / 8; r[m] receives elements (l / 4, 2 * (l % 4)) and the next of matrix m.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* smem_row DEPLOYDCN_CALLER_ARGUMENT) {
#if !defined(__CUDACC__)
  emulation::load_matrices(r, smem_row, false, emulation::site_of(caller));
#else
  const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(smem_row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
#endif
}

// c += a * b for float16 a: (16, 16), b: (16, 8), c: (16, 8) float32. The last argument only chooses the type.
__device__ __forceinline__ void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                             __half DEPLOYDCN_CALLER_ARGUMENT) {
#if !defined(__CUDACC__)
  emulation::multiply_matrices(c, {{a[0], a[1], a[2], a[3]}, {b0, b1}, {c[0], c[1], c[2], c[3]}},
                               emulation::multiply_m16n8k16_f16, emulation::site_of(caller));
#elif __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else  // sm_75 has half the depth: columns 0..7 of a, then 8..15
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(b0));
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[2]), "r"(a[3]), "r"(b1));
#endif
}

// The same for bfloat16, from sm_80 on; launchers refuse bfloat16 before.
__device__ __forceinline__ void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                             __nv_bfloat16 DEPLOYDCN_CALLER_ARGUMENT) {
#if !defined(__CUDACC__)
  emulation::multiply_matrices(c, {{a[0], a[1], a[2], a[3]}, {b0, b1}, {c[0], c[1], c[2], c[3]}},
                               emulation::multiply_m16n8k16_bf16, emulation::site_of(caller));
#elif __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  __trap();
#endif
}

// float32 to tf32 (10 explicit mantissa bits), nearest, ties away from zero. From sm_80 on.
__device__ __forceinline__ uint32_t to_tf32(float value) {
#if !defined(__CUDACC__)
  return emulation::round_to_tf32(value);
#elif __CUDA_ARCH__ >= 800
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
#else
  __trap();
  return 0;
#endif
}

// c += a * b for tf32 a: (16, 8), b: (8, 8), c: (16, 8) float32. From sm_80 on.
__device__ __forceinline__ void mma_m16n8k8_tf32(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                 uint32_t b1 DEPLOYDCN_CALLER_ARGUMENT) {
#if !defined(__CUDACC__)
  emulation::multiply_matrices(c, {{a[0], a[1], a[2], a[3]}, {b0, b1}, {c[0], c[1], c[2], c[3]}},
                               emulation::multiply_m16n8k8_tf32, emulation::site_of(caller));
#elif __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  __trap();
#endif
}

}  // namespace deploydcn::gpu

#undef DEPLOYDCN_CALLER_ARGUMENT
