// Sums of a depthwise convolution's taps, kept in registers (depthwise_convolution.h). Part of tile_kernels.inl.
//
// A block is kRows output rows of kVectors vectors each. A column of the window is loaded for all of them, and every
// row of the input once per column for all output rows that it serves: from one to kRows of them, known where this is
// compiled, so that nothing is multiplied in vain. That takes a fixed number of window rows; windows of other heights
// are put together.
#pragma once

#include "core/cpu/direct_kernels.inl"
#include "core/cpu/simd.inl"
#include "core/cpu/tile_kernels.h"
#include "core/cpu/tile_layouts.inl"

namespace deploydcn::cpu {
namespace {

// Output rows of the largest block: eight sums or more hide the latency of additions, and a column of weights is to
// stay in registers beside them.
template <int kVectors>
constexpr int kMostRows = DEPLOYDCN_MAX_ROWS >= 12 ? 14 / kVectors
                          : kVectors == 1          ? 7
                                                   : 4;

// Vectors of a row lie one after the other; the last one may begin earlier.
template <class F, int kVectors>
inline __attribute__((always_inline)) int64_t vector_begin(int v, int64_t last) {
  return v + 1 < kVectors ? v * Simd<F>::kLanes : last;
}

// Adds rows kRow and following of the input, times what they meet of one column of kTaps rows of the window.
template <class F, int kRows, int kVectors, int kTaps, int kRow = 0>
inline __attribute__((always_inline)) void add_rows(const F* row, int64_t pitch, int64_t last,
                                                    const Vector<F> (&weight)[kTaps],
                                                    Vector<F> (&sum)[kRows][kVectors]) {
  constexpr int first = kRow < kTaps ? 0 : kRow - kTaps + 1, end = kRow < kRows ? kRow + 1 : kRows;
  Vector<F> x[kVectors];
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    const F* from = row + vector_begin<F, kVectors>(v, last);
    x[v] = kTaps < 7 ? load_once<F>(from) : load<F>(from);  // seven multiply longer than a second load takes
  }
#pragma GCC unroll 14
  for (int r = first; r < end; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[r][v] += weight[kRow - r] * x[v];
  }
  if constexpr (kRow + 2 < kTaps + kRows) {
    add_rows<F, kRows, kVectors, kTaps, kRow + 1>(row + pitch, pitch, last, weight, sum);
  }
}

// Adds kTaps rows of the window, the first of which has its weights at `weight`.
template <class F, int kRows, int kVectors, int kTaps>
inline __attribute__((always_inline)) void add_taps(const DepthwiseRows<F>& a, const F* row, int64_t pitch,
                                                    int64_t last, const F* weight, Vector<F> (&sum)[kRows][kVectors]) {
  for (int64_t j = 0; j < a.kernel_w; ++j, weight += a.kernel_h) {
    Vector<F> column[kTaps];
#pragma GCC unroll 7
    for (int i = 0; i < kTaps; ++i) column[i] = weight[-i] - Vector<F>{};
    add_rows<F, kRows, kVectors, kTaps>(row + a.offset[j], pitch, last, column, sum);
  }
}

// Adds as many of `taps` rows of the window as there are blocks for, kTaps or fewer; returns how many.
template <class F, int kRows, int kVectors, int kTaps = 7>
inline __attribute__((always_inline)) int add_most_taps(const DepthwiseRows<F>& a, const F* row, int64_t pitch,
                                                        int64_t taps, int64_t last, const F* weight,
                                                        Vector<F> (&sum)[kRows][kVectors]) {
  if constexpr (kTaps > 1) {
    constexpr int fewer = kTaps > 3 ? kTaps - 2 : kTaps - 1;
    if (kTaps > 2 * kRows || taps < kTaps) {
      return add_most_taps<F, kRows, kVectors, fewer>(a, row, pitch, taps, last, weight, sum);
    }
  }
  if constexpr (kTaps <= 2 * kRows) add_taps<F, kRows, kVectors, kTaps>(a, row, pitch, last, weight, sum);
  return kTaps;
}

// Writes a vector whole where it ends before `end`, and `width` of its elements otherwise.
template <class F>
inline __attribute__((always_inline)) void store_before(const F* end, F* to, Vector<F> value, int64_t width) {
  if (end - to >= Simd<F>::kLanes) return store<F>(to, value);
  F lanes[Simd<F>::kLanes];
  store<F>(lanes, value);
  copy_few<F>(lanes, width, to);
}

// The end of what a block may write: rows that are shorter than a vector may be written over by the rows that follow.
template <class F>
inline __attribute__((always_inline)) const F* end_of_rows(const DepthwiseRows<F>& a) {
  const bool follow = a.width >= Simd<F>::kLanes || a.out_pitch == a.width;
  return follow ? a.out + (a.rows - 1) * a.out_pitch + a.width : a.out;
}

// Finishes sums by an activation that is too long to stand behind every one of them.
template <class F, int kVectors>
__attribute__((noinline)) void store_silu(const DepthwiseRows<F>& a, const F* sums, int rows, F* out, int64_t last) {
  for (int r = 0; r < rows; ++r, out += a.out_pitch) {
    for (int v = 0; v < kVectors; ++v, sums += Simd<F>::kLanes) {
      store_before<F>(end_of_rows(a), out + vector_begin<F, kVectors>(v, last),
                      activate<F>(load<F>(sums), Activation::kSilu), a.width);
    }
  }
}

// Output rows from y on, vectors of each from column x on.
template <class F, int kRows, int kVectors>
void depthwise_block(const DepthwiseRows<F>& a, int64_t x, int64_t y) {
  constexpr int n = Simd<F>::kLanes;
  // The last vector of a row ends with it; rows shorter than a vector have but one, which is stored in part.
  const int64_t room = a.width > n ? a.width - n - x : 0;
  const int64_t last = room < (kVectors - 1) * n ? room : (kVectors - 1) * n;
  Vector<F> sum[kRows][kVectors];
#pragma GCC unroll 14
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[r][v] = a.bias - Vector<F>{};
  }
  const F* weight = a.weight;
  const int64_t pitch = a.stride * a.pitch;
  for (int64_t phase = 0; phase < a.stride && phase < a.kernel_h; ++phase) {
    const F* row = a.plane + (y * a.stride + phase) * a.pitch + x;
    const int64_t taps = a.stride == 1 ? a.kernel_h : (a.kernel_h - phase + a.stride - 1) / a.stride;
    weight += taps;
    for (int64_t i = 0; i < taps;) {
      i += add_most_taps<F, kRows, kVectors>(a, row + i * pitch, pitch, taps - i, last, weight - 1 - i, sum);
    }
  }
  F* out = a.out + y * a.out_pitch + x;
  if (a.activation == Activation::kSilu) {
    F sums[kRows * kVectors * n];
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) store<F>(sums + (r * kVectors + v) * n, sum[r][v]);
    }
    return store_silu<F, kVectors>(a, sums, kRows, out, last);
  }
  const F* end = end_of_rows(a);
  const int64_t out_pitch = a.out_pitch, width = a.width;
  const Vector<F> zero{};
  const Vector<F> low = zero + static_cast<F>(a.activation == Activation::kNone ? -__builtin_huge_val() : 0);
  const Vector<F> high = zero + static_cast<F>(a.activation == Activation::kRelu6 ? 6 : __builtin_huge_val());
#pragma GCC unroll 14
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      Vector<F> value = sum[r][v];  // comparisons written so that NaN stays NaN
      value = value < low ? low : value;
      value = value > high ? high : value;
      store_before<F>(end, out + r * out_pitch + vector_begin<F, kVectors>(v, last), value, width);
    }
  }
}

// All rows from y on, in blocks of kRows and of ever fewer.
template <class F, int kVectors, int kRows>
inline __attribute__((always_inline)) void depthwise_blocks(const DepthwiseRows<F>& a, int64_t x, int64_t y) {
  for (; a.rows - y >= kRows; y += kRows) depthwise_block<F, kRows, kVectors>(a, x, y);
  if constexpr (kRows > 1) depthwise_blocks<F, kVectors, kRows == 7 ? 4 : kRows / 2>(a, x, y);
}

template <class F>
void depthwise_rows(const DepthwiseRows<F>& a) {
  constexpr int n = Simd<F>::kLanes;
  int64_t x = 0;
  for (; a.width - x > n; x += 2 * n) depthwise_blocks<F, 2, kMostRows<2>>(a, x, 0);
  if (x < a.width) depthwise_blocks<F, 1, kMostRows<1>>(a, x, 0);
}

}  // namespace
}  // namespace deploydcn::cpu
