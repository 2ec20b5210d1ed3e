// Panels of whole numbers times weights, four products and their sum to a lane (AVX-512 VNNI): four times as many per
// second as by fused multiply-add. Part of tile_kernels.inl.
#pragma once

#include "core/cpu/simd.inl"
#include "core/cpu/tile_kernels.h"
#include "core/cpu/tile_layouts.inl"
#include "core/cpu/tile_samples.inl"
#include "core/cpu/whole_numbers.inl"

namespace deploydcn::cpu {
namespace {

#if defined(__AVX512VNNI__)

constexpr int kQuadRow = 576;    // bytes of a panel per pixel: nine taps of 64 channels
constexpr int kQuadDepth = 64;   // channels: four vectors
constexpr int kQuadVectors = 2;  // of sums
constexpr int kQuadLanes = Simd<float>::kLanes, kQuadSums = kQuadVectors * kQuadLanes;

struct QuadPanel {
  static constexpr int kVectors = 4;
  unsigned char* to;
  inline __attribute__((always_inline)) QuadPanel(void* panel, int64_t pixel, int64_t)
      : to(static_cast<unsigned char*>(panel) + pixel * kQuadRow) {}
  inline __attribute__((always_inline)) void put(const Vector<float>* values, const SampledBlock<float>& block) {
    const Words words = whole_numbers(values, block);
    __builtin_memcpy(to, &words, sizeof words);
    to += sizeof words;
  }
};

// [quad of channels][output][4], the channels of a quad as whole_numbers has them.
inline int64_t pack_quads(const float* weights, int64_t depth, int row, void* out) {
  auto* to = static_cast<int8_t*>(out);
  for (int64_t quad = 0; out && quad < depth / 4; ++quad) {
    const int64_t first = quad / kQuadLanes * kQuadDepth + quad % kQuadLanes;
    for (int output = 0; output < row; ++output) {
      for (int i = 0; i < 4; ++i) *to++ = static_cast<int8_t>(weights[(first + i * kQuadLanes) * row + output]);
    }
  }
  return depth * row;
}

template <int kRows>
void multiply_quad_rows(const Product<float>& product, int64_t pixel) {
  float* tile = product.tile + pixel * kQuadSums;
  const auto* row = static_cast<const unsigned char*>(product.panel) + pixel * kQuadRow;
  const auto* weight = static_cast<const unsigned char*>(product.weight);
  Integers<float> sum[kRows][kQuadVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kQuadVectors; ++v) {
      sum[r][v] = product.accumulate ? load_whole(tile + r * kQuadSums + v * kQuadLanes) : Integers<float>{};
    }
  }
  for (int64_t quad = 0; quad < product.depth / 4; ++quad, row += 4, weight += kQuadSums * 4) {
    Integers<float> b[kQuadVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kQuadVectors; ++v) {
      b[v] = load_whole(weight + v * kQuadLanes * 4);
      __builtin_prefetch(weight + (16 * kQuadSums + v * kQuadLanes) * 4);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      int32_t four;
      __builtin_memcpy(&four, row + r * kQuadRow, sizeof four);
      const Integers<float> a = four - Integers<float>{};
      // GCC keeps the sums of its intrinsic in memory.
#pragma GCC unroll 2
      for (int v = 0; v < kQuadVectors; ++v) asm("vpdpbusd %2, %1, %0" : "+v"(sum[r][v]) : "v"(a), "v"(b[v]));
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kQuadVectors; ++v) {
      __builtin_memcpy(tile + r * kQuadSums + v * kQuadLanes, &sum[r][v], sizeof sum[r][v]);
    }
  }
}

template <int... I>
void multiply_quad_chunks(const Product<float>& product, Indices<I...>) {
  using Kernel = void (*)(const Product<float>&, int64_t);
  constexpr Kernel kernels[] = {multiply_quad_rows<I + 1>...};
  constexpr int64_t most = sizeof...(I);
  const int64_t pixels = product.pixels, chunks = (pixels + most - 1) / most;  // nearly equal ones
  for (int64_t i = 0, p = 0; i < chunks; ++i) {
    const int64_t rows = pixels / chunks + (i < pixels % chunks ? 1 : 0);
    kernels[rows - 1](product, p);
    p += rows;
  }
}
inline void multiply_quads(const Product<float>& product) {
  multiply_quad_chunks(product, typename MakeIndices<DEPLOYDCN_MAX_ROWS>::type());
}

constexpr MatrixKernels<float> kQuadKernels = {
    112,
    1,
    kQuadRow,
    kQuadRow,
    kQuadDepth,
    true,
    kQuadVectors,
    3,
    false,
    sample<float, Bilinear, QuadPanel>,
    sample<float, Exact, QuadPanel>,
    fill_panel<float, QuadPanel>,
    pack_quads,
    multiply_quads,
    finish_whole,
};

template <>
constexpr const MatrixKernels<float>* kWhole<float> = &kQuadKernels;

#endif

}  // namespace
}  // namespace deploydcn::cpu
