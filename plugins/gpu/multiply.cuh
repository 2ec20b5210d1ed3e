// How a block multiplies a tile of sampled input by a tile of weights: on tensor cores, or on CUDA cores.
//
// Both tiles lie in shared memory as rows of kDepth products: samples [kRows][kStride], weights [kColumns][kStride].
// A Multiply object holds one thread's share of the kRows x kColumns sums. kRegisters: at most so many per
// thread, so that two blocks of 256 or three of 128 threads fit a multiprocessor; kVectorsInFlight: vectors of samples
// a thread gathers at a time, as many as these registers hold without spilling.
#pragma once

#include "gpu/numeric.cuh"
#include "gpu/tensor_core.cuh"

namespace deploydcn::gpu {

// One thread's share of the 32 x 32 sums of a warp, laid out as mma.sync leaves them: 2 x 4 tiles of 16 x 8. Warps
// cover the block's tile row-wise in pairs.
class FragmentSums {
 public:
  __device__ explicit FragmentSums(int thread)
      : lane_(thread % 32), row_(thread / 32 % 2 * 32), column_(thread / 64 * 32) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) sums_[i][j][e] = 0.f;
      }
    }
  }

  // visit(row, column, sum) for every sum of this thread.
  template <class Visit>
  __device__ __forceinline__ void for_each(Visit&& visit) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          visit(row_ + i * 16 + lane_ / 4 + e / 2 * 8, column_ + j * 8 + lane_ % 4 * 2 + e % 2, sums_[i][j][e]);
        }
      }
    }
  }

 protected:
  // Where this lane's row of the four 8 x (16 bytes) blocks that ldmatrix gathers starts: a 16-row tile of samples, and
  // two 8-row tiles of weights. `kHalf`: elements in 16 bytes.
  template <int kHalf>
  __device__ __forceinline__ int sample_row(int tile, int stride) const {
    return (row_ + tile * 16 + lane_ % 16) * stride + lane_ / 16 * kHalf;
  }
  template <int kHalf>
  __device__ __forceinline__ int weight_row(int pair, int stride) const {
    return (column_ + pair * 16 + lane_ % 8 + lane_ / 16 * 8) * stride + lane_ / 8 % 2 * kHalf;
  }

  float sums_[2][4][4];

 private:
  const int lane_, row_, column_;
};

// 16-bit types: mma.m16n8k16, accumulated in float32. 8 elements of padding per row keep ldmatrix free of bank
// conflicts.
template <class T, int kColumnsPerBlock>
class TensorCoreMultiply : public FragmentSums {
 public:
  using Element = T;
  static constexpr int kRows = 64, kColumns = kColumnsPerBlock, kDepth = 64, kStride = kDepth + 8;
  static constexpr int kThreads = kRows / 32 * (kColumns / 32) * 32, kRegisters = kColumns > 64 ? 128 : 168;
  static constexpr int kVectorsInFlight = 1;

  using FragmentSums::FragmentSums;

  __device__ __forceinline__ void add(const T* samples, const T* weights) {
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      uint32_t a[2][4], b[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        ldmatrix_x4(a[i], samples + sample_row<8>(i, kStride) + k);
        ldmatrix_x4(b[i], weights + weight_row<8>(i, kStride) + k);
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          mma_m16n8k16(sums_[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1], T());
        }
      }
    }
  }
};

// float32 in TF32: the same with mma.m16n8k8. ldmatrix moves 16 bytes per row, whatever they are: here four floats.
class Tf32Multiply : public FragmentSums {
 public:
  using Element = float;
  static constexpr int kRows = 64, kColumns = 64, kDepth = 32, kStride = kDepth + 4, kThreads = 128, kRegisters = 168,
                       kVectorsInFlight = 2;

  using FragmentSums::FragmentSums;

  __device__ __forceinline__ void add(const float* samples, const float* weights) {
#pragma unroll
    for (int k = 0; k < kDepth; k += 8) {
      uint32_t a[2][4], b[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        load(a[i], samples + sample_row<4>(i, kStride) + k);
        load(b[i], weights + weight_row<4>(i, kStride) + k);
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          mma_m16n8k8_tf32(sums_[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        }
      }
    }
  }

 private:
  static __device__ __forceinline__ void load(uint32_t (&fragment)[4], const float* row) {
    ldmatrix_x4(fragment, row);
#pragma unroll
    for (uint32_t& item : fragment) item = to_tf32(__int_as_float(static_cast<int>(item)));
  }
};

// float32 on CUDA cores: each thread computes 8 x 4 sums; 4 floats of padding per row keep 16-byte reads free of bank
// conflicts.
class FmaMultiply {
 public:
  using Element = float;
  static constexpr int kRows = 64, kColumns = 64, kDepth = 32, kStride = kDepth + 4, kThreads = 128, kRegisters = 168,
                       kVectorsInFlight = 4;

  __device__ explicit FmaMultiply(int thread) : row_(thread / 16), column_(thread % 16) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) sums_[i][j] = 0.f;
    }
  }

  __device__ __forceinline__ void add(const float* samples, const float* weights) {
#pragma unroll 2
    for (int k = 0; k < kDepth; k += 4) {
      float4 b[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        b[j] = *reinterpret_cast<const float4*>(weights + (column_ + j * 16) * kStride + k);
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float4 a = *reinterpret_cast<const float4*>(samples + (row_ + i * 8) * kStride + k);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          sums_[i][j] = fmaf(a.x, b[j].x, sums_[i][j]);
          sums_[i][j] = fmaf(a.y, b[j].y, sums_[i][j]);
          sums_[i][j] = fmaf(a.z, b[j].z, sums_[i][j]);
          sums_[i][j] = fmaf(a.w, b[j].w, sums_[i][j]);
        }
      }
    }
  }

  template <class Visit>
  __device__ __forceinline__ void for_each(Visit&& visit) const {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) visit(row_ + i * 8, column_ + j * 16, sums_[i][j]);
    }
  }

 private:
  const int row_, column_;
  float sums_[8][4];
};

}  // namespace deploydcn::gpu
