// The inner loops of deformable attention (tile_kernels.h), with the vectors of tile_kernels.inl, which includes this
// file.
//
// Accuracy: positions in double; sums in F, point by point.
#pragma once

#include "core/cpu/simd.inl"
#include "core/cpu/tile_kernels.h"

namespace deploydcn::cpu {
namespace {

// As many F as a vector of double has lanes.
template <class F>
struct Points;
template <>
struct Points<float> {
  typedef float Vector __attribute__((vector_size(DEPLOYDCN_VECTOR_BYTES / 2)));
};
template <>
struct Points<double> {
  typedef double Vector __attribute__((vector_size(DEPLOYDCN_VECTOR_BYTES)));
};

// x and y of kLanes points that lie as pairs (x, y).
inline __attribute__((always_inline)) void load_pairs(const float* from, Vector<double>& x, Vector<double>& y) {
  typedef Simd<double>::Indices Bits;
  Integers<double> pairs;  // little-endian: x is the low half
  __builtin_memcpy(&pairs, from, sizeof pairs);
  const Bits low = __builtin_convertvector(pairs, Bits), high = __builtin_convertvector(pairs >> 32, Bits);
  Points<float>::Vector values;
  __builtin_memcpy(&values, &low, sizeof values);
  x = __builtin_convertvector(values, Vector<double>);
  __builtin_memcpy(&values, &high, sizeof values);
  y = __builtin_convertvector(values, Vector<double>);
}
inline __attribute__((always_inline)) void load_pairs(const double* from, Vector<double>& x, Vector<double>& y) {
  for (int i = 0; i < Simd<double>::kLanes; ++i) {
    x[i] = from[2 * i];
    y[i] = from[2 * i + 1];
  }
}

// The floor of coordinates above -1.
inline __attribute__((always_inline)) Vector<double> floor_of_inside(Vector<double> x) {
  const auto truncated = __builtin_convertvector(x, Simd<double>::Indices);
  const Vector<double> whole = __builtin_convertvector(truncated, Vector<double>);
  return whole > x ? whole - 1 : whole;
}

template <class F>
void locate_points(const PointTable& table, double base_y, double base_x, const F* positions, const F* weights,
                   Corners<F>& corners) {
  constexpr int n = Simd<double>::kLanes;
  using Narrow = typename Points<F>::Vector;
  const Vector<double> zero{}, nowhere = zero - 1;
  for (int64_t p = 0; p < corners.stride; p += n) {
    Vector<double> x, y;
    load_pairs(positions + 2 * p, x, y);
    const Vector<double> height = load<double>(table.height + p), width = load<double>(table.width + p);
    y = y * load<double>(table.scale_y + p) + load<double>(table.shift_y + p) + base_y;
    x = x * load<double>(table.scale_x + p) + load<double>(table.shift_x + p) + base_x;
    const Integers<double> inside = (y > nowhere) & (y < height) & (x > nowhere) & (x < width);  // false for NaN
    y = inside ? y : zero;
    x = inside ? x : zero;
    const Vector<double> row = floor_of_inside(y), column = floor_of_inside(x);
    const Integers<double> above = inside & (row >= zero), below = inside & (row + 1 < height), left = column >= zero,
                           right = column + 1 < width;
    const Vector<double> low_y = y - row, low_x = x - column, high_y = 1 - low_y, high_x = 1 - low_x;
    const Vector<double> at = load<double>(table.start + p) + row * width + column;
    Narrow weight;
    __builtin_memcpy(&weight, weights + p, sizeof weight);
    const auto put = [&](int corner, Integers<double> exists, Vector<double> pixel, Vector<double> share)
                         __attribute__((always_inline)) {
                           const auto index = __builtin_convertvector(exists ? pixel : nowhere, Simd<double>::Indices);
                           __builtin_memcpy(corners.pixel + corner * corners.stride + p, &index, sizeof index);
                           const Narrow product = __builtin_convertvector(share, Narrow) * weight;
                           __builtin_memcpy(corners.weight + corner * corners.stride + p, &product, sizeof product);
                         };
    put(0, above & left, at, high_y * high_x);
    put(1, above & right, at + 1, high_y * low_x);
    put(2, below & left, at + width, low_y * high_x);
    put(3, below & right, at + width + 1, low_y * low_x);
  }
}

// kWidth channels side by side.
template <class F, int kWidth>
struct Channels {
  typedef F Vector __attribute__((vector_size(kWidth * sizeof(F))));
};
template <class F>
struct Channels<F, 1> {
  typedef F Vector;
};

template <class F, int kWidth, int kVectors>
inline __attribute__((always_inline)) void sum_channels(const F* value, int64_t pixel_stride, const F* zeros,
                                                        const Corners<F>& corners, int64_t first, int64_t count,
                                                        F* out) {
  using Vector = typename Channels<F, kWidth>::Vector;
  Vector sum[kVectors] = {};
  for (int64_t p = first; p < first + count; ++p) {
    Vector sample[kVectors] = {};
#pragma GCC unroll 4
    for (int corner = 0; corner < 4; ++corner) {
      const int32_t pixel = corners.pixel[corner * corners.stride + p];
      const F weight = corners.weight[corner * corners.stride + p];
      const F* from = pixel < 0 ? zeros : value + pixel * pixel_stride;
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        Vector channels;
        __builtin_memcpy(&channels, from + v * kWidth, sizeof channels);
        sample[v] += weight * channels;
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sum[v] += sample[v];
  }
  __builtin_memcpy(out, sum, sizeof sum);
}

// What whole vectors leave over, by vectors of half the width, a quarter, and so on.
template <class F, int kWidth>
inline void sum_rest(const F* value, int64_t pixel_stride, const F* zeros, const Corners<F>& corners, int64_t first,
                     int64_t count, int64_t channels, F* out) {
  if (channels & kWidth) {
    sum_channels<F, kWidth, 1>(value, pixel_stride, zeros, corners, first, count, out);
    value += kWidth;
    out += kWidth;
  }
  if constexpr (kWidth > 1) {
    sum_rest<F, kWidth / 2>(value, pixel_stride, zeros, corners, first, count, channels, out);
  }
}

template <class F>
void sum_points(const F* value, int64_t pixel_stride, const F* zeros, const Corners<F>& corners, int64_t first,
                int64_t count, int64_t channels, F* out) {
  constexpr int n = Simd<F>::kLanes;
  for (; channels >= 4 * n; channels -= 4 * n, value += 4 * n, out += 4 * n) {
    sum_channels<F, n, 4>(value, pixel_stride, zeros, corners, first, count, out);
  }
  if (channels >= 2 * n) {
    sum_channels<F, n, 2>(value, pixel_stride, zeros, corners, first, count, out);
    channels -= 2 * n, value += 2 * n, out += 2 * n;
  }
  sum_rest<F, n>(value, pixel_stride, zeros, corners, first, count, channels, out);
}

}  // namespace
}  // namespace deploydcn::cpu
