// Panels times weights by fused multiply-add. Part of tile_kernels.inl.
#pragma once

#include "core/cpu/simd.inl"
#include "core/cpu/tile_kernels.h"
#include "core/cpu/tile_layouts.inl"
#include "core/cpu/tile_samples.inl"

namespace deploydcn::cpu {
namespace {

// Elements of a panel from one pixel to the next, whatever it holds. A constant, so that one register addresses all the
// rows of a product; 36 cache lines, so that as many rows lie in different sets.
template <class F>
constexpr int64_t kPanelRow = 2304 / sizeof(F);

// Values of a pixel as they are, one after the other.
template <class F>
struct RowPanel {
  static constexpr int kVectors = 1;
  F* to;
  inline __attribute__((always_inline)) RowPanel(void* panel, int64_t pixel, int64_t)
      : to(static_cast<F*>(panel) + pixel * kPanelRow<F>) {}
  inline __attribute__((always_inline)) void put(const Vector<F>* values, const SampledBlock<F>&) {
    store<F>(to, *values);
    to += Simd<F>::kLanes;
  }
};

template <class F>
int64_t pack_rows(const F* weights, int64_t depth, int row, void* out) {
  const std::size_t bytes = sizeof(F) * static_cast<std::size_t>(depth * row);
  if (out) __builtin_memcpy(out, weights, bytes);
  return static_cast<int64_t>(bytes);
}

template <class F>
constexpr int64_t kLine = 64 / sizeof(F);  // elements of a cache line

// Weights that the next product will read, a part of them for each chunk of rows: what comes from far should be on its
// way early, and not all at once.
template <class F>
struct Later {
  const F* weight;
  int lines;  // per kStepsPerLater steps of depth
};
constexpr int kStepsPerLater = 4;

// kRows pixels x kVectors vectors of accumulators stay in registers over the whole depth; a row of the tile has kRow.
template <class F, int kRows, int kVectors, int kRow, int64_t kPanel, bool kFar>
void multiply_rows(const Product<F>& product, int64_t pixel, Later<F> later) {
  constexpr int n = Simd<F>::kLanes, ldc = kRow * n;
  F* tile = product.tile + pixel * ldc;
  const F* weight = static_cast<const F*>(product.weight);
  Vector<F> sum[kRows][kVectors];
#pragma GCC unroll 28
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[r][v] = product.accumulate ? load<F>(tile + r * ldc + v * n) : Vector<F>{};
  }
  for (int t = 0; t < product.taps; ++t) {
    const F* row = static_cast<const F*>(product.panel) + pixel * kPanel + t * product.tap_stride + product.channel;
    const auto step = [&]() __attribute__((always_inline)) {
      Vector<F> b[kVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        b[v] = load<F>(weight + v * n);
        __builtin_prefetch(weight + 64 * ldc + v * n);
      }
#pragma GCC unroll 28
      for (int r = 0; r < kRows; ++r) {
        const F a = row[r * kPanel];
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) sum[r][v] += a * b[v];
      }
      ++row;
      weight += ldc;
    };
    int64_t left = product.depth;
    if constexpr (kFar) {
      for (; left >= kStepsPerLater; left -= kStepsPerLater) {
        for (int i = 0; i < later.lines; ++i, later.weight += kLine<F>) __builtin_prefetch(later.weight, 0, 2);
#pragma GCC unroll 1
        for (int i = 0; i < kStepsPerLater; ++i) step();
      }
    }
    for (; left > 0; --left) step();
  }
#pragma GCC unroll 28
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kRow; ++v) store<F>(tile + r * ldc + v * n, v < kVectors ? sum[r][v] : Vector<F>{});
  }
}

template <class F, int kVectors, int kRow, int64_t kPanel, bool kFar, int... I>
void multiply_vectors(const Product<F>& product, Indices<I...>) {
  using Kernel = void (*)(const Product<F>&, int64_t, Later<F>);
  constexpr Kernel kernels[] = {multiply_rows<F, I + 1, kVectors, kRow, kPanel, kFar>...};
  constexpr int64_t max_rows = sizeof...(I);
  // Nearly equal chunks, so that none is short.
  const int64_t pixels = product.pixels, chunks = (pixels + max_rows - 1) / max_rows;
  const int64_t lines = kRow * kStepsPerLater;  // what a chunk of rows reads in so many steps
  Later<F> later{static_cast<const F*>(product.weight) + product.taps * product.depth * kRow * Simd<F>::kLanes,
                 static_cast<int>((lines + chunks - 1) / chunks)};
  for (int64_t i = 0, p = 0; i < chunks; ++i) {
    const int64_t rows = pixels / chunks + (i < pixels % chunks ? 1 : 0);
    for (int c = 0; product.out && c < product.outputs; ++c)
      __builtin_prefetch(product.out + c * product.out_stride + p, 1);
    kernels[rows - 1](product, p, later);
    later.weight += product.taps * product.depth / kStepsPerLater * later.lines * kLine<F>;
    p += rows;
  }
}
template <class F, int kVectors, int kRow, int64_t kPanel>
void multiply_strips(const Product<F>& product) {
  // As many accumulators, of one vector or of two.
  using Rows = typename MakeIndices<2 * DEPLOYDCN_MAX_ROWS / kVectors>::type;
  if constexpr (kVectors == 2) {
    if (product.far_weight) return multiply_vectors<F, kVectors, kRow, kPanel, true>(product, Rows());
  }
  multiply_vectors<F, kVectors, kRow, kPanel, false>(product, Rows());
}
template <class F>
void multiply(const Product<F>& product) {
  if (product.vectors == 1) return multiply_strips<F, 1, 1, kPanelRow<F>>(product);
  return product.outputs > Simd<F>::kLanes ? multiply_strips<F, 2, 2, kPanelRow<F>>(product)
                                           : multiply_strips<F, 1, 2, kPanelRow<F>>(product);
}

template <class F, template <class> class Sample>
constexpr MatrixKernels<F> kFused = {
    112,
    112,
    1,
    1,
    kPanelRow<F>,
    kPanelRow<F> * static_cast<int64_t>(sizeof(F)),
    1,
    1,
    false,
    0,
    0,
    1,
    INT64_MAX,
    4,
    Sums::kPlain,
    nullptr,
    sample<F, Sample, RowPanel<F>>,
    sample<F, Exact, RowPanel<F>>,
    fill_panel<F, RowPanel<F>>,
    pack_rows<F>,
    multiply<F>,
    nullptr,
    0,
    finish_rows_of<F, false>,
};

}  // namespace
}  // namespace deploydcn::cpu
