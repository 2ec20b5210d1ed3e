// The kernels that the emulator is tested with, correct and with one planted bug each.
#pragma once

#include "emulation/cuda_headers.h"

enum class Bug {
  kNone,
  // reduce_blocks
  kMissingWarpSync,
  kFullMaskInDivergentBranch,
  kLanesOutsideTheMask,
  kLaneNotInItsMask,
  kOverlappingMasks,
  kDivergentShuffle,
  kMissingBarrier,
  kExitBeforeCollectives,
  kStaticSharedOverflow,
  kReadOfNeverWritten,
  kGlobalReadPastTheEnd,
  kGlobalWritePastTheEnd,
  kPlainAddBetweenBlocks,
  kTrap,
  kDivisionByZero,
  kEndlessRecursion,
  // multiply_tiles
  kMissingUpperBound,
  kMissingLoopBarrier,
  kDivergentBarrier,
  kTailNotWritten,
  kCopyNotWaitedFor,
  kCopyNeverWaitedFor,
  kTooLittleSharedMemory,
  kMisalignedStore,
  kOverlappingBlocks,
  kMissingEpilogueBarrier,
  kDynamicSharedOverflow,
  // host side
  kHostPointerArgument,
  kHostPointerInStruct,
  kHostBufferDiesEarly,
  kTooManyThreads,
  kTooMuchSharedMemory,
  kBeyondLaunchBounds,
  kHostReadsDeviceMemory,
  kSynchronizeInEnqueue,
  kAllocateInEnqueue,
  kDefaultStreamInEnqueue,
  kCount
};

struct ReduceArguments {
  const float* x;  // (count)
  int count;
  float* sums;      // (blocks): sum of a block's share of x
  float* total;     // (1): sum of all
  float* mirrored;  // (count): x with every 32 elements reversed
  int zero;         // 0, unknown to compilers

  template <class F>
  void for_each_pointer(F callback) const {
    callback(x), callback(sums), callback(total), callback(mirrored);
  }
};
constexpr int kReduceThreads = 64;
cudaError_t reduce_blocks(Bug bug, const ReduceArguments& arguments, dim3 grid, dim3 block, size_t dynamic_bytes,
                          cudaStream_t stream);

struct MultiplyArguments {
  const __half* x;           // (rows, depth)
  const __half* w;           // (columns, depth)
  float* y;                  // (rows, columns): x times w transposed
  int rows, columns, depth;  // depth: a multiple of 8

  template <class F>
  void for_each_pointer(F callback) const {
    callback(x), callback(w), callback(y);
  }
};
cudaError_t multiply_tiles(Bug bug, const MultiplyArguments& arguments, cudaStream_t stream);

// One warp, one tensor-core product: c (16, 8) = a (16, k) times b (8, k) transposed. k is 16, for tf32 8.
cudaError_t multiply_once(const __half* a, const __half* b, float* c, cudaStream_t stream);
cudaError_t multiply_once(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, cudaStream_t stream);
cudaError_t multiply_once(const float* a, const float* b, float* c, cudaStream_t stream);

// Threads from `leave` on exit before a barrier; the others then write their index to y.
cudaError_t leave_early(int leave, int* y, int threads, cudaStream_t stream);

// Every block-wide and warp-wide function of gpu.cuh once: (blocks * threads, 12) integers.
cudaError_t use_collectives(const int* x, int* y, int blocks, int threads, cudaStream_t stream);
