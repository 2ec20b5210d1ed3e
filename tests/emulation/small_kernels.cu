#include "small_kernels.h"

#include "gpu/gpu.cuh"
#include "gpu/tensor_core.cuh"

using deploydcn::gpu::Carver;

template <Bug kBug>
__global__ void __launch_bounds__(kReduceThreads) reduce(const ReduceArguments a) {
  GPU_SHARED(float, partial, [32]);
  GPU_SHARED(float, exchange, [kReduceThreads / 32][32]);
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  if (kBug == Bug::kExitBeforeCollectives && i >= a.count) return;
  float value = i < a.count ? a.x[kBug == Bug::kGlobalReadPastTheEnd ? i + 1 : i] : 0.f;

  exchange[warp][lane] = value;
  if (kBug != Bug::kMissingWarpSync) __syncwarp();
  const float mirror = exchange[warp][31 - lane];
  if (i < a.count) a.mirrored[kBug == Bug::kGlobalWritePastTheEnd ? i + 1 : i] = mirror;

  if (kBug == Bug::kTrap && i == 70) __trap();
  if (kBug == Bug::kDivisionByZero && i == 70) a.mirrored[0] = static_cast<float>(lane / a.zero);

  if (kBug == Bug::kLaneNotInItsMask) __syncwarp(0x0000ffffu);
  if (kBug == Bug::kOverlappingMasks) __syncwarp(lane < 16 ? 0x0001ffffu : 0xffff0000u);
  if (kBug == Bug::kDivergentShuffle) {
    if (lane < 16) {
      value += __shfl_xor_sync(0xffffffffu, value, 1) * 0.f;
    } else {
      value += static_cast<float>(__ballot_sync(0xffffffffu, 1)) * 0.f;
    }
  }

  if (kBug == Bug::kFullMaskInDivergentBranch) {
    if (lane < 16) {
      for (int distance = 8; distance; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
    }
  } else if (kBug == Bug::kLanesOutsideTheMask) {
    const unsigned mask = lane < 16 ? 0x0000ffffu : 0xffff0000u;
    for (int distance = 16; distance; distance /= 2) value += __shfl_down_sync(mask, value, distance);
  } else {
    for (int distance = 16; distance; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
  }
  if (lane == 0) partial[warp + (kBug == Bug::kStaticSharedOverflow ? 32 + a.zero : 0)] = value;
  if (kBug != Bug::kMissingBarrier) __syncthreads();

  if (warp != 0) return;
  float sum = lane < static_cast<int>(blockDim.x) / 32 || kBug == Bug::kReadOfNeverWritten ? partial[lane] : 0.f;
  for (int distance = 16; distance; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  if (lane != 0) return;
  a.sums[blockIdx.x] = sum;
  if (kBug == Bug::kPlainAddBetweenBlocks) {
    *a.total += sum;
  } else {
    atomicAdd(a.total, sum);
  }
}

#if !defined(__CUDACC__)
// Not in PTX form: recursion would need calls, which the translator refuses.
[[gnu::noinline]] int recurse(int depth) {
  volatile int frame[16] = {};
  frame[depth % 16] = depth;
  return depth < 0 ? 0 : recurse(depth + 1) + frame[depth % 16];
}
__global__ void overflow_stack(const ReduceArguments a) { *a.total = static_cast<float>(recurse(a.zero)); }
#endif

namespace {

template <Bug kBug>
cudaError_t launch_reduce(const ReduceArguments& a, dim3 grid, dim3 block, size_t dynamic_bytes, cudaStream_t stream) {
  return GPU_LAUNCH(reduce<kBug>, grid, block, dynamic_bytes, stream, a);
}

}  // namespace

cudaError_t reduce_blocks(Bug bug, const ReduceArguments& a, dim3 grid, dim3 block, size_t dynamic_bytes,
                          cudaStream_t stream) {
  switch (bug) {
#define DEPLOYDCN_CASE(name) \
  case Bug::name: return launch_reduce<Bug::name>(a, grid, block, dynamic_bytes, stream)
    DEPLOYDCN_CASE(kMissingWarpSync);
    DEPLOYDCN_CASE(kFullMaskInDivergentBranch);
    DEPLOYDCN_CASE(kLanesOutsideTheMask);
    DEPLOYDCN_CASE(kLaneNotInItsMask);
    DEPLOYDCN_CASE(kOverlappingMasks);
    DEPLOYDCN_CASE(kDivergentShuffle);
    DEPLOYDCN_CASE(kMissingBarrier);
    DEPLOYDCN_CASE(kExitBeforeCollectives);
    DEPLOYDCN_CASE(kStaticSharedOverflow);
    DEPLOYDCN_CASE(kReadOfNeverWritten);
    DEPLOYDCN_CASE(kGlobalReadPastTheEnd);
    DEPLOYDCN_CASE(kGlobalWritePastTheEnd);
    DEPLOYDCN_CASE(kPlainAddBetweenBlocks);
    DEPLOYDCN_CASE(kTrap);
    DEPLOYDCN_CASE(kDivisionByZero);
#undef DEPLOYDCN_CASE
#if !defined(__CUDACC__)
    case Bug::kEndlessRecursion: return GPU_LAUNCH(overflow_stack, grid, block, 0, stream, a);
#endif
    default: return launch_reduce<Bug::kNone>(a, grid, block, dynamic_bytes, stream);
  }
}

// Tiles of 32 x 16 results; two warps, each 16 x 16. Tiles of x come through registers, those of w by cp.async; both
// have two stages of 16 products.
constexpr int kRows = 32, kColumns = 16, kDepth = 16, kStride = kDepth + 8, kResultStride = kColumns + 4,
              kMultiplyThreads = 64;

struct Tiles {
  __half* x;      // (2, kRows, kStride)
  __half* w;      // (2, kColumns, kStride)
  float* result;  // (kRows, kResultStride)

  __host__ __device__ explicit Tiles(Carver& memory)
      : x(memory.take<__half>(2 * kRows * kStride, "x tiles")),
        w(memory.take<__half>(2 * kColumns * kStride, "w tiles")),
        result(memory.take<float>(kRows * kResultStride, "results")) {}
};

template <Bug kBug>
__global__ void __launch_bounds__(kMultiplyThreads) multiply(const MultiplyArguments a) {
  using namespace deploydcn::gpu;
  GPU_DYN_SMEM(shared);
  Carver memory{shared};
  const Tiles tiles(memory);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const bool overlap = kBug == Bug::kOverlappingBlocks && blockIdx.x > 0;
  const int first_row = static_cast<int>(blockIdx.x) * kRows - (overlap ? 4 : 0);
  const int first_column = static_cast<int>(blockIdx.y) * kColumns;
  const int row = thread / 2, k = thread % 2 * 8;  // of the 8 products that this thread loads

  const auto load = [&](int step) {
    const int depth = step * kDepth + k;
    if (row < kColumns) {
      __half* const to = tiles.w + step % 2 * kColumns * kStride + row * kStride + k;
      const bool exists = first_column + row < a.columns && depth < a.depth;
      const size_t offset =
          static_cast<size_t>(first_column + row) * static_cast<size_t>(a.depth) + static_cast<size_t>(depth);
      cp_async16(to, a.w + (exists ? offset : 0), exists ? 16 : 0);
    }
    if (kBug != Bug::kCopyNeverWaitedFor) cp_async_commit();
    const bool in_bounds = first_row + row < a.rows || kBug == Bug::kMissingUpperBound;
    if (kBug == Bug::kTailNotWritten && depth >= a.depth) return;
    int4 values = make_int4(0, 0, 0, 0);
    if (in_bounds && depth < a.depth) {
      values = *reinterpret_cast<const int4*>(
          a.x + static_cast<size_t>(first_row + row) * static_cast<size_t>(a.depth) + depth);
    }
    const int stride = kBug == Bug::kMisalignedStore ? kStride - 1 : kStride;
    *reinterpret_cast<int4*>(tiles.x + step % 2 * kRows * kStride + row * stride + k) = values;
  };

  float sums[2][4] = {};
  load(0);
  const int steps = (a.depth + kDepth - 1) / kDepth;
  for (int step = 0; step < steps; ++step) {
    if (kBug != Bug::kCopyNotWaitedFor) cp_async_wait<0>();
    if (kBug == Bug::kDivergentBarrier) {
      if (warp == 0) __syncthreads();
    } else if (kBug != Bug::kMissingLoopBarrier) {
      __syncthreads();
    }
    if (step + 1 < steps) load(step + 1);
    uint32_t fragment_x[4], fragment_w[4];
    ldmatrix_x4(fragment_x, tiles.x + step % 2 * kRows * kStride + (warp * 16 + lane % 16) * kStride + lane / 16 * 8);
    ldmatrix_x4(fragment_w,
                tiles.w + step % 2 * kColumns * kStride + (lane % 8 + lane / 16 * 8) * kStride + lane / 8 % 2 * 8);
    mma_m16n8k16(sums[0], fragment_x, fragment_w[0], fragment_w[1], __half());
    mma_m16n8k16(sums[1], fragment_x, fragment_w[2], fragment_w[3], __half());
  }
  if (kBug == Bug::kCopyNotWaitedFor) cp_async_wait<0>();  // too late

  for (int half = 0; half < 2; ++half) {
    for (int value = 0; value < 4; ++value) {
      const int result_row = warp * 16 + lane / 4 + value / 2 * 8;
      tiles.result[result_row * kResultStride + half * 8 + lane % 4 * 2 + value % 2] = sums[half][value];
    }
  }
  if (kBug != Bug::kMissingEpilogueBarrier) __syncthreads();
  for (int i = thread; i < kRows * kColumns; i += kMultiplyThreads) {
    const int result_row = i / kColumns, column = i % kColumns;
    const int past = kBug == Bug::kDynamicSharedOverflow ? 1 : 0;
    if (first_row + result_row < a.rows && first_column + column < a.columns) {
      a.y[static_cast<size_t>(first_row + result_row) * static_cast<size_t>(a.columns) + first_column + column] =
          tiles.result[(result_row + past) * kResultStride + column];
    }
  }
}

namespace {

template <Bug kBug>
cudaError_t launch_multiply(const MultiplyArguments& a, cudaStream_t stream) {
  Carver memory{nullptr};
  Tiles{memory};
  const dim3 grid(static_cast<unsigned>((a.rows + kRows - 1) / kRows),
                  static_cast<unsigned>((a.columns + kColumns - 1) / kColumns));
  const size_t missing = kBug == Bug::kTooLittleSharedMemory ? 256 : 0;
  return GPU_LAUNCH(multiply<kBug>, grid, dim3(kMultiplyThreads), memory.cur - missing, stream, a);
}

}  // namespace

cudaError_t multiply_tiles(Bug bug, const MultiplyArguments& a, cudaStream_t stream) {
  switch (bug) {
#define DEPLOYDCN_CASE(name) \
  case Bug::name: return launch_multiply<Bug::name>(a, stream)
    DEPLOYDCN_CASE(kMissingUpperBound);
    DEPLOYDCN_CASE(kMissingLoopBarrier);
    DEPLOYDCN_CASE(kDivergentBarrier);
    DEPLOYDCN_CASE(kTailNotWritten);
    DEPLOYDCN_CASE(kCopyNotWaitedFor);
    DEPLOYDCN_CASE(kCopyNeverWaitedFor);
    DEPLOYDCN_CASE(kTooLittleSharedMemory);
    DEPLOYDCN_CASE(kMisalignedStore);
    DEPLOYDCN_CASE(kOverlappingBlocks);
    DEPLOYDCN_CASE(kMissingEpilogueBarrier);
    DEPLOYDCN_CASE(kDynamicSharedOverflow);
#undef DEPLOYDCN_CASE
    default: return launch_multiply<Bug::kNone>(a, stream);
  }
}

// The fragments are read straight from global memory, two 16-bit elements or one float at a time.
template <class T>
__global__ void multiply_fragments(const T* a, const T* b, float* c) {
  using namespace deploydcn::gpu;
  const int lane = static_cast<int>(threadIdx.x), row = lane / 4, pair = lane % 4;
  uint32_t fragment_a[4], fragment_b[2];
  float sums[4] = {1.f, 2.f, 3.f, 4.f};
  if constexpr (sizeof(T) == 2) {
    const auto two = [](const T* at) { return *reinterpret_cast<const uint32_t*>(at); };
    for (int i = 0; i < 4; ++i) fragment_a[i] = two(a + (row + i % 2 * 8) * 16 + pair * 2 + i / 2 * 8);
    for (int i = 0; i < 2; ++i) fragment_b[i] = two(b + row * 16 + pair * 2 + i * 8);
    mma_m16n8k16(sums, fragment_a, fragment_b[0], fragment_b[1], T());
  } else {
    for (int i = 0; i < 4; ++i) fragment_a[i] = to_tf32(a[(row + i % 2 * 8) * 8 + pair + i / 2 * 4]);
    for (int i = 0; i < 2; ++i) fragment_b[i] = to_tf32(b[row * 8 + pair + i * 4]);
    mma_m16n8k8_tf32(sums, fragment_a, fragment_b[0], fragment_b[1]);
  }
  for (int i = 0; i < 4; ++i) c[(row + i / 2 * 8) * 8 + pair * 2 + i % 2] = sums[i];
}

cudaError_t multiply_once(const __half* a, const __half* b, float* c, cudaStream_t stream) {
  return GPU_LAUNCH(multiply_fragments<__half>, dim3(1), dim3(32), 0, stream, a, b, c);
}
cudaError_t multiply_once(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, cudaStream_t stream) {
  return GPU_LAUNCH(multiply_fragments<__nv_bfloat16>, dim3(1), dim3(32), 0, stream, a, b, c);
}
cudaError_t multiply_once(const float* a, const float* b, float* c, cudaStream_t stream) {
  return GPU_LAUNCH(multiply_fragments<float>, dim3(1), dim3(32), 0, stream, a, b, c);
}

__global__ void collectives(const int* x, int* y) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x), value = x[i];
  constexpr unsigned kAll = 0xffffffffu;
  int* const to = y + i * 12;
  to[0] = __syncthreads_count(value > 0);
  to[1] = __syncthreads_and(value > -3);
  to[2] = __syncthreads_or(value > 3);
  to[3] = static_cast<int>(__ballot_sync(kAll, value % 2));
  to[4] = __any_sync(kAll, value > 2);
  to[5] = __all_sync(kAll, value < 3);
  to[6] = __shfl_sync(kAll, value, value, 16);
  to[7] = __shfl_xor_sync(kAll, value, 5, 8);
  to[8] = __shfl_down_sync(kAll, value, 3, 8);
  to[9] = __shfl_up_sync(kAll, value, 3, 8);
  const long long wide = static_cast<long long>(value) << 33;
  to[10] = static_cast<int>(__shfl_xor_sync(kAll, wide, 1) >> 33);
  to[11] = __float2int_rd(static_cast<float>(value) * 0.5f) + __popc(static_cast<unsigned>(value));
}

cudaError_t use_collectives(const int* x, int* y, int blocks, int threads, cudaStream_t stream) {
  return GPU_LAUNCH(collectives, dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(threads)), 0, stream,
                    x, y);
}

__global__ void leave_before_barrier(int leave, int* y) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread >= leave) return;
  __syncthreads();
  y[thread] = thread;
}

cudaError_t leave_early(int leave, int* y, int threads, cudaStream_t stream) {
  return GPU_LAUNCH(leave_before_barrier, dim3(1), dim3(static_cast<unsigned>(threads)), 0, stream, leave, y);
}
