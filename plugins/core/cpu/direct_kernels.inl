// Sums of shifted planes (direct_convolution.h). Part of tile_kernels.inl.
#pragma once

#include "core/cpu/simd.inl"
#include "core/cpu/tile_kernels.h"
#include "core/cpu/tile_layouts.inl"

namespace deploydcn::cpu {
namespace {

// kOutputs x kVectors accumulators; each vector of pixels that is loaded feeds all outputs. What is left at the end
// goes to ever smaller blocks.
template <class F, int kOutputs, int kVectors>
void sum_block(const F* image, const int64_t* offset, int64_t depth, const F* weight, int64_t pixels, F* out,
               int64_t out_stride, int64_t p = 0) {
  constexpr int n = Simd<F>::kLanes;
  for (; pixels - p > (kVectors > 1 ? (kVectors - 1) * n : 0); p += kVectors * n) {
    Vector<F> sum[kOutputs][kVectors] = {};
    for (int64_t k = 0; k < depth; ++k) {
      const F* from = image + offset[k] + p;
      Vector<F> x[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) x[v] = load<F>(from + v * n);
#pragma GCC unroll 8
      for (int m = 0; m < kOutputs; ++m) {
        const F w = weight[m * depth + k];
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sum[m][v] += w * x[v];
      }
    }
#pragma GCC unroll 8
    for (int m = 0; m < kOutputs; ++m) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) store<F>(out + m * out_stride + p + v * n, sum[m][v]);
    }
  }
  if constexpr (kVectors > 1) {
    sum_block<F, kOutputs, kVectors / 2>(image, offset, depth, weight, pixels, out, out_stride, p);
  }
}

constexpr int sum_vectors(int outputs) {
  constexpr bool many = DEPLOYDCN_MAX_ROWS >= 14;  // registers
  switch (outputs) {
    case 1: return 8;
    case 2: return many ? 8 : 4;
    case 4: return many ? 4 : 2;
    default: return many ? 3 : 1;
  }
}
template <class F>
void sum_shifted(const F* image, const int64_t* offset, int64_t depth, const F* weight, int outputs, int64_t pixels,
                 F* out, int64_t out_stride) {
  switch (outputs) {
    case 1: return sum_block<F, 1, sum_vectors(1)>(image, offset, depth, weight, pixels, out, out_stride);
    case 2: return sum_block<F, 2, sum_vectors(2)>(image, offset, depth, weight, pixels, out, out_stride);
    case 4: return sum_block<F, 4, sum_vectors(4)>(image, offset, depth, weight, pixels, out, out_stride);
    default: return sum_block<F, 8, sum_vectors(8)>(image, offset, depth, weight, pixels, out, out_stride);
  }
}

// Where vectors of a run begin: one after the other, the last one so that it ends with the run. Elements of runs that
// are shorter than a vector come one by one.
template <class F, class Body, class Element>
inline __attribute__((always_inline)) void for_vectors(int64_t count, const Body& body, const Element& element) {
  constexpr int n = Simd<F>::kLanes;
  if (count < n) {
    for (int64_t i = 0; i < count; ++i) element(i);
    return;
  }
  int64_t i = 0;
  for (; i + n <= count; i += n) body(i);
  if (i < count) body(count - n);
}

template <class F>
void finish_rows(const F* sums, int64_t pitch, int64_t rows, int64_t columns, F bias, Activation activation, F* out,
                 int64_t out_pitch) {
  const Vector<F> b = bias - Vector<F>{};
  for (int64_t y = 0; y < rows; ++y, sums += pitch, out += out_pitch) {
    for_vectors<F>(
        columns, [&](int64_t x) { store<F>(out + x, activate<F>(load<F>(sums + x) + b, activation)); },
        [&](int64_t x) { out[x] = activate<F>(sums[x] + b, activation)[0]; });
  }
}

template <class F, int... I>
inline __attribute__((always_inline)) Vector<F> load_even(const F* from, Indices<I...>) {
  return shuffle<F, (2 * I)...>(load<F>(from), load<F>(from + sizeof...(I)));
}

// Copies `count` elements, fewer than a vector holds: two halves that overlap, or less.
template <class F, int kHalf = Simd<F>::kLanes / 2>
inline __attribute__((always_inline)) void copy_few(const F* from, int64_t count, F* to) {
  if (count >= kHalf) {
    F begin[kHalf], end[kHalf];
    __builtin_memcpy(begin, from, sizeof begin);
    __builtin_memcpy(end, from + count - kHalf, sizeof end);
    __builtin_memcpy(to, begin, sizeof begin);
    __builtin_memcpy(to + count - kHalf, end, sizeof end);
  } else if constexpr (kHalf > 1) {
    copy_few<F, kHalf / 2>(from, count, to);
  }
}

template <class F>
void copy_rows(const F* from, int64_t from_pitch, int64_t rows, int64_t stride, int64_t count, F* to,
               int64_t to_pitch) {
  constexpr int n = Simd<F>::kLanes;
  for (int64_t y = 0; y < rows; ++y, from += from_pitch, to += to_pitch) {
    if (stride == 1) {
      if (count < n) {
        copy_few<F>(from, count, to);
      } else {
        int64_t i = 0;
        for (; i + n <= count; i += n) store<F>(to + i, load<F>(from + i));
        if (i < count) store<F>(to + count - n, load<F>(from + count - n));
      }
    } else if (stride == 2) {  // vectors but for the last element: they read a value more than they use
      for_vectors<F>(
          count - 1, [&](int64_t i) { store<F>(to + i, load_even<F>(from + 2 * i, typename MakeIndices<n>::type())); },
          [&](int64_t i) { to[i] = from[2 * i]; });
      to[count - 1] = from[2 * (count - 1)];
    } else {
      for (int64_t i = 0; i < count; ++i) to[i] = from[i * stride];
    }
  }
}

}  // namespace
}  // namespace deploydcn::cpu
