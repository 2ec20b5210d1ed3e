// What a pixel of a blocked image holds: how vectors of its channels are stored and loaded. Part of tile_kernels.inl.
#pragma once

#include "core/cpu/bfloat16.inl"
#include "core/cpu/simd.inl"

namespace deploydcn::cpu {
namespace {

// Values as they are.
template <class F>
struct PlainPixels {
  static constexpr int kVectors = 1;  // that are stored together, in one
  static inline __attribute__((always_inline)) Vector<F> pack(const Vector<F> (&x)[1]) { return x[0]; }
  static inline __attribute__((always_inline)) Vector<F> load_channels(const F* pixel, int c) {
    return load<F>(pixel + c);
  }
};

// Rounded to bfloat16, those of two vectors lane by lane: parting them takes no shuffles.
template <class F>
struct PixelPairs {
  static constexpr int kVectors = 2;
  static inline __attribute__((always_inline)) Vector<F> pack(const Vector<F> (&x)[2]) {
    return reinterpret_cast<Vector<F>>(round_to_upper(x[0]) >> 16 | (round_to_upper(x[1]) & 0xffff0000));
  }
  static inline __attribute__((always_inline)) Vector<F> load_channels(const F* pixel, int c) {
    constexpr int n = Simd<F>::kLanes;
    const Words words = reinterpret_cast<Words>(load<F>(pixel + c / (2 * n) * n));
    return reinterpret_cast<Vector<F>>(c / n % 2 == 0 ? words << 16 : words & 0xffff0000);
  }
};

}  // namespace
}  // namespace deploydcn::cpu
