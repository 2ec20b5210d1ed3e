// Image planes to channel blocks, and finished tiles back to planes. Part of tile_kernels.inl.
#pragma once

#include "core/cpu/blocked_pixels.inl"
#include "core/cpu/simd.inl"
#include "core/cpu/tile_kernels.h"

namespace deploydcn::cpu {
namespace {

template <class F, template <class> class Pixels>
void block_pixels(const F* in, int64_t plane_stride, int channels, const F* scale, int64_t first, int64_t count,
                  int64_t width, F* image, int cb) {
  constexpr int n = Simd<F>::kLanes, together = Pixels<F>::kVectors;
  const int pixel = cb / together;  // elements
  int64_t column = first % width;
  F* out = image + ((first / width + 1) * (width + 2) + column + 1) * pixel;
  for (int64_t p = 0; p < count; p += n, in += n) {
    const int64_t pixels = count - p < n ? count - p : n;
    F* places[n + 1];
    places[0] = out;
    for (int i = 0; i < pixels; ++i) {
      places[i + 1] = places[i] + pixel;
      if (++column < width) continue;
      column = 0;
      for (int c = 0; c < 2 * pixel; c += n) store<F>(places[i + 1] + c, Vector<F>{});
      places[i + 1] += 2 * pixel;
    }
    out = places[pixels];
    for (int c = 0; c < cb; c += together * n) {
      Vector<F> rows[together][n], factor[together];
#pragma GCC unroll 2
      for (int v = 0; v < together; ++v) {
        const int begin = c + v * n;
#pragma GCC unroll 16
        for (int i = 0; i < n; ++i) {
          const F* from = in + (begin + i) * plane_stride;
          rows[v][i] = begin + i >= channels ? Vector<F>{} : pixels == n ? load<F>(from) : load_some<F>(from, pixels);
          __builtin_prefetch(from + 32);
        }
        transpose<F>(rows[v]);
        factor[v] = Vector<F>{} + 1;
        if (scale && begin < channels) {
          factor[v] = begin + n <= channels ? load<F>(scale + begin) : load_some<F>(scale + begin, channels - begin);
        }
      }
      for (int i = 0; i < pixels; ++i) {
        Vector<F> values[together];
#pragma GCC unroll 2
        for (int v = 0; v < together; ++v) values[v] = rows[v][i] * factor[v];
        store<F>(places[i] + c / together, Pixels<F>::pack(values));
        __builtin_prefetch(places[i] + c / together + n * pixel, 1);
      }
    }
  }
}

// ------------------------------------------------------------------------------------------------------ activation
// exp(x) by 2^n * p(r), |r| <= ln(2)/2, polynomial of degree 7 (Taylor): relative error below 3e-7; saturates outside
// +-87.
inline __attribute__((always_inline)) Vector<float> exponential(Vector<float> x) {
  typedef int32_t Integers __attribute__((vector_size(DEPLOYDCN_VECTOR_BYTES)));
  x = x > 87.0f ? Vector<float>{} + 87.0f : x;
  x = x < -87.0f ? Vector<float>{} - 87.0f : x;
  const Vector<float> scaled = x * 1.44269504f;
  const Integers n =
      __builtin_convertvector(scaled + (scaled < 0.0f ? Vector<float>{} - 0.5f : Vector<float>{} + 0.5f), Integers);
  const Vector<float> whole = __builtin_convertvector(n, Vector<float>);
  const Vector<float> r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  Vector<float> p = Vector<float>{} + 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const Integers power = (n + 127) << 23;
  Vector<float> scale;
  __builtin_memcpy(&scale, &power, sizeof scale);
  return p * scale;
}
inline __attribute__((always_inline)) Vector<double> exponential(Vector<double> x) {
  for (int i = 0; i < Simd<double>::kLanes; ++i) x[i] = __builtin_exp(x[i]);
  return x;
}

template <class F>
inline __attribute__((always_inline)) Vector<F> activate(Vector<F> y, Activation activation) {
  const Vector<F> zero{}, six = zero + 6;
  switch (activation) {
    case Activation::kNone: return y;
    case Activation::kRelu: return y < zero ? zero : y;  // written so that NaN stays NaN
    case Activation::kRelu6: return y < zero ? zero : y > six ? six : y;
    case Activation::kSilu: {
      // Below -87 the exponential saturates; there the true value rounds to zero (and is NaN for -infinity).
      const Vector<F> silu = y / (exponential(-y) + 1);
      return y == y ? (y < static_cast<F>(-87) && sizeof(F) == 4 ? y * zero : silu) : y;
    }
  }
  return y;
}

// Calls body(where a vector of pixels begins): vectors but the first begin where the output's cache lines do, as far as
// they begin where the first channel's do; the second and the last overlap the one before. At least a vector of pixels.
template <class F, class Body>
inline __attribute__((always_inline)) void for_lines(const F* out, int64_t pixels, const Body& body) {
  constexpr int n = Simd<F>::kLanes;
  body(0);
  const int64_t into_line = static_cast<int64_t>(reinterpret_cast<std::uintptr_t>(out) / sizeof(F) % n);
  for (int64_t p = n - into_line; p < pixels; p += n) body(p + n <= pixels ? p : pixels - n);
}

// Sums as they are, [pixel][row].
template <class F>
struct RowSums {
  const F* sums;
  int64_t row;
  // A vector of channels of as many pixels as a vector has lanes.
  inline __attribute__((always_inline)) void read(int64_t pixel, int c, Vector<F> (&rows)[Simd<F>::kLanes]) const {
#pragma GCC unroll 16
    for (int i = 0; i < Simd<F>::kLanes; ++i) rows[i] = one(pixel + i, c);
  }
  inline __attribute__((always_inline)) Vector<F> one(int64_t pixel, int c) const {
    return load<F>(sums + pixel * row + c);
  }
};

// See MatrixKernels::finish.
template <class F, bool kScales, bool kChecks, class Read>
inline __attribute__((always_inline)) bool finish_sums(const Read& sums, int64_t pixels, int channels,
                                                       const Finishing<F>& finishing, F* out, int64_t plane_stride) {
  constexpr int n = Simd<F>::kLanes;
  Vector<F> zeros{};  // NaN where a sum is not finite
  for (int c = 0; c < channels; c += n) {
    const Vector<F> bias = load<F>(finishing.bias + c), scale = kScales ? load<F>(finishing.scale + c) : Vector<F>{};
    const int valid = channels - c < n ? channels - c : n;
    Vector<F> rows[n];
    const auto become_outputs = [&]() __attribute__((always_inline)) {
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) {
        if constexpr (kChecks) zeros += rows[i] * 0;
        rows[i] = activate<F>(kScales ? rows[i] * scale + bias : rows[i] + bias, finishing.activation);
      }
      transpose<F>(rows);
    };
    if (pixels < n) {
      for (int i = 0; i < n; ++i) rows[i] = i < pixels ? sums.one(i, c) : Vector<F>{};
      become_outputs();
      for (int i = 0; i < valid; ++i) store_some<F>(out + (c + i) * plane_stride, rows[i], pixels);
      continue;
    }
    for_lines<F>(out, pixels, [&](int64_t p) __attribute__((always_inline)) {
      sums.read(p, c, rows);
      become_outputs();
      for (int i = 0; i < valid; ++i) store<F>(out + (c + i) * plane_stride + p, rows[i]);
    });
  }
  F sum = 0;
  for (int lane = 0; lane < n; ++lane) sum += zeros[lane];
  return sum == sum;
}
template <class F, bool kChecks>
bool finish_rows_of(const F* sums, int64_t row, int64_t pixels, int channels, const Finishing<F>& finishing, F* out,
                    int64_t plane_stride) {
  return finish_sums<F, false, kChecks>(RowSums<F>{sums, row}, pixels, channels, finishing, out, plane_stride);
}

template <class F, class Panel>
void fill_panel(const F* sums, int64_t pixels, int cb, const F* bias, Activation activation, void* panel) {
  constexpr int n = Simd<F>::kLanes;
  for (int64_t p = 0; p < pixels; ++p) {
    Panel out(panel, p, cb);
    for (int c = 0; c < cb; c += Panel::kVectors * n) {
      Vector<F> values[Panel::kVectors];
      for (int v = 0; v < Panel::kVectors; ++v) {
        const int at = c + v * n;
        values[v] = at < cb ? activate<F>(load<F>(sums + p * cb + at) + load<F>(bias + at), activation) : Vector<F>{};
      }
      out.put(values, {});
    }
  }
}

}  // namespace
}  // namespace deploydcn::cpu
