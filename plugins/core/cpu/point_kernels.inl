// The inner loops of deformable attention (tile_kernels.h), with the vectors of tile_kernels.inl, which includes this
// file.
//
// Accuracy: positions in double; weights and sums in F, point by point.
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

constexpr double kWhole52 = 0x1.8p52;  // added to smaller numbers, it leaves whole ones in the lowest bits

// The floor of coordinates of an image.
inline __attribute__((always_inline)) Vector<double> floor_of_inside(Vector<double> x) {
  const Vector<double> nearest = (x + kWhole52) - kWhole52;
  return nearest > x ? nearest - 1 : nearest;
}

template <class F>
void locate_points(const PointTable& table, double base_y, double base_x, const F* positions, const F* weights,
                   const Corners<F>& given) {
  using Narrow = typename Points<F>::Vector;
  const Corners<F> corners = given;  // a copy that no store can change
  const PointTable points = table;
  const Vector<double> zero{}, before = zero - 1;
  const double pixel_bytes = static_cast<double>(corners.pixel_bytes);
  for (int64_t p = 0; p < corners.stride; p += Simd<double>::kLanes) {
    Vector<double> x, y;
    load_pairs(positions + 2 * p, x, y);
    const Vector<double> height = load<double>(points.height + p), width = load<double>(points.width + p);
    y = y * load<double>(points.scale_y + p) + load<double>(points.shift_y + p) + base_y;
    x = x * load<double>(points.scale_x + p) + load<double>(points.shift_x + p) + base_x;
    // Written so that GCC keeps masks as masks: unions of them it takes apart, lane by lane.
    const Integers<double> inside = (y > before) & (y < height) & (x > before) & (x < width);  // false for NaN
    const Integers<double> above = inside & (y >= zero), below = inside & (y < height - 1);
    const Integers<double> left = x >= zero, right = x < width - 1;
    y = inside ? y : zero;
    x = inside ? x : zero;
    const Vector<double> row = floor_of_inside(y), column = floor_of_inside(x);
    Narrow weight;
    __builtin_memcpy(&weight, weights + p, sizeof weight);
    const Narrow low_x = __builtin_convertvector(x - column, Narrow), high_x = 1 - low_x;
    const Narrow low_y = __builtin_convertvector(y - row, Narrow), high_y = 1 - low_y;
    const Narrow bottom = low_y * weight, top = high_y * weight;
    const Vector<double> row_bytes = width * pixel_bytes;
    const Vector<double> first = load<double>(points.start + p) * pixel_bytes + row * row_bytes + column * pixel_bytes;
    const auto put = [&](int corner, Integers<double> exists, Vector<double> at, Narrow share)
                         __attribute__((always_inline)) {
                           const Integers<double> bytes = reinterpret_cast<Integers<double>>(at + kWhole52) -
                                                          reinterpret_cast<Integers<double>>(zero + kWhole52);
                           const Integers<double> offset = exists ? bytes : corners.outside - Integers<double>{};
                           __builtin_memcpy(corners.offset + corner * corners.stride + p, &offset, sizeof offset);
                           __builtin_memcpy(corners.weight + corner * corners.stride + p, &share, sizeof share);
                         };
    put(0, above & left, first, top * high_x);
    put(1, above & right, first + pixel_bytes, top * low_x);
    put(2, below & left, first + row_bytes, bottom * high_x);
    put(3, below & right, first + row_bytes + pixel_bytes, bottom * low_x);
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
inline __attribute__((always_inline)) void sum_channels(const F* value, const Corners<F>& corners, int64_t first,
                                                        int64_t count, F* out) {
  using Vector = typename Channels<F, kWidth>::Vector;
  const auto base = reinterpret_cast<std::uintptr_t>(value);
  Vector sum[kVectors] = {};
  for (int64_t p = first; p < first + count; ++p) {
    Vector sample[kVectors] = {};
#pragma GCC unroll 4
    for (int corner = 0; corner < 4; ++corner) {
      const int64_t place = corner * corners.stride + p;
      const auto* from = reinterpret_cast<const F*>(base + static_cast<std::uintptr_t>(corners.offset[place]));
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        Vector channels;
        __builtin_memcpy(&channels, from + v * kWidth, sizeof channels);
        sample[v] += corners.weight[place] * channels;
      }
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sum[v] += sample[v];
  }
  __builtin_memcpy(out, sum, sizeof sum);
}

// What whole vectors leave over, by vectors of half the width, a quarter, and so on.
template <class F, int kWidth>
inline void sum_rest(const F* value, const Corners<F>& corners, int64_t first, int64_t count, int64_t channels,
                     F* out) {
  if (channels & kWidth) {
    sum_channels<F, kWidth, 1>(value, corners, first, count, out);
    value += kWidth;
    out += kWidth;
  }
  if constexpr (kWidth > 1) sum_rest<F, kWidth / 2>(value, corners, first, count, channels, out);
}

template <class F>
void sum_points(const F* value, const Corners<F>& given, int64_t first, int64_t count, int64_t channels, F* out) {
  constexpr int n = Simd<F>::kLanes;
  const Corners<F> corners = given;  // a copy that no store can change
  for (; channels >= 4 * n; channels -= 4 * n, value += 4 * n, out += 4 * n) {
    sum_channels<F, n, 4>(value, corners, first, count, out);
  }
  if (channels >= 2 * n) {
    sum_channels<F, n, 2>(value, corners, first, count, out);
    channels -= 2 * n, value += 2 * n, out += 2 * n;
  }
  sum_rest<F, n>(value, corners, first, count, channels, out);
}

}  // namespace
}  // namespace deploydcn::cpu
