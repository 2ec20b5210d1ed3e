// Convolutions of few channels per group: a vector of channels, of one or more groups, becomes a vector of their
// outputs, in the same lanes. Part of tile_kernels.inl.
#pragma once

#include "core/cpu/simd.inl"
#include "core/cpu/tile_kernels.h"
#include "core/cpu/tile_samples.inl"

namespace deploydcn::cpu {
namespace {

// In every lane, what lane kChannel of its group has.
template <int kChannel, int kGroup, class F, int... I>
inline __attribute__((always_inline)) Vector<F> spread(Vector<F> x, Indices<I...>) {
  return shuffle<F, (I / kGroup * kGroup + kChannel)...>(x, x);
}
// In every four lanes, what the four lanes of half kHalf of their group of eight have.
template <int kHalf, class F, int... I>
inline __attribute__((always_inline)) Vector<F> half_of_eight(Vector<F> x, Indices<I...>) {
  return shuffle<F, (I / 8 * 8 + kHalf * 4 + I % 4)...>(x, x);
}

// Adds the products of a tap, of a vector of channels of kPixels pixels. weight: [channel of the group][row].
template <class F, int kPixels, int... Channel>
inline __attribute__((always_inline)) void add_products(const Vector<F> (&x)[kPixels], const F* weight, int row,
                                                        Vector<F> (&sum)[kPixels], Indices<Channel...>) {
  constexpr int group = sizeof...(Channel), four = group > 4 ? 4 : group;
  using Lanes = typename MakeIndices<Simd<F>::kLanes>::type;
  // Processors shuffle within four lanes faster than across.
  Vector<F> half[2][kPixels];
#pragma GCC unroll 3
  for (int i = 0; i < kPixels; ++i) {
    half[0][i] = x[i];
    if constexpr (group == 8) {
      half[0][i] = in_register<F>(half_of_eight<0, F>(x[i], Lanes()));
      half[1][i] = in_register<F>(half_of_eight<1, F>(x[i], Lanes()));
    }
  }
  const auto add = [&](auto channel) __attribute__((always_inline)) {
    const Vector<F> w = load_once<F>(weight + channel * row);
#pragma GCC unroll 3
    for (int i = 0; i < kPixels; ++i) sum[i] += spread<channel % 4, four, F>(half[channel / 4][i], Lanes()) * w;
  };
  (add(Number<Channel>()), ...);
}

template <class F, template <class> class Sample, int kVectors, int kGroup>
void group_sums_of_block(const SampledBlock<F>& given, const Taps<F>& taps, int tap_count, int64_t pixels,
                         const F* weight, F* out) {
  constexpr int n = Simd<F>::kLanes, cb = kVectors * n;
  constexpr bool many = DEPLOYDCN_VECTOR_BYTES == 64;       // registers
  constexpr int at_once = !many ? 1 : kGroup == 1 ? 3 : 2;  // pixels that share loads of weights
  // Vectors that are sampled before the first of them is multiplied: processors look ahead less far than both take.
  constexpr int together = many && kGroup > 1 ? kVectors : 1;
  const SampledBlock<F> block{given.image, given.row, cb, 1, given.low, given.high};
  for (int64_t p = 0; p < pixels; p += at_once) {
    int64_t pixel[at_once];
#pragma GCC unroll 3
    for (int i = 0; i < at_once; ++i) pixel[i] = p + i < pixels ? p + i : pixels - 1;
    const int32_t* index = taps.index;
    const F* weights = taps.weights;
    Vector<F> sum[kVectors][at_once] = {};
    for (int t = 0; t < tap_count; ++t) {
#pragma GCC unroll 8
      for (int first = 0; first < kVectors; first += together) {
        Vector<F> x[together][at_once];
#pragma GCC unroll 8
        for (int v = 0; v < together; ++v) {
#pragma GCC unroll 3
          for (int i = 0; i < at_once; ++i) {
            const Sample<F> sample(block, index[pixel[i]], weights + Sample<F>::kWeights * pixel[i]);
            x[v][i] = sample((first + v) * n);
            if (together > 1) x[v][i] = in_register<F>(x[v][i]);
          }
        }
#pragma GCC unroll 8
        for (int v = 0; v < together; ++v) {
          add_products<F>(x[v], weight + t * kGroup * cb + (first + v) * n, cb, sum[first + v],
                          typename MakeIndices<kGroup>::type());
        }
      }
      index += taps.stride;
      weights += Sample<F>::kWeights * taps.stride;
    }
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 3
      for (int i = 0; i < at_once; ++i) store<F>(out + pixel[i] * cb + v * n, sum[v][i]);
    }
  }
}

template <class F, template <class> class Sample>
void group_sums(const SampledBlock<F>& block, const Taps<F>& taps, int tap_count, int64_t pixels, int group,
                const F* weight, F* out) {
  const auto run = [&](auto vectors) __attribute__((always_inline)) {
    const auto run_group = [&](auto channels) __attribute__((always_inline)) {
      // Of samples on the grid, only depthwise sums are taken this way.
      constexpr bool taken = channels == 1 || Sample<F>::kWeights > 0;
      if constexpr (taken && vectors <= kWidestBlock<F> && channels <= Simd<F>::kLanes) {
        group_sums_of_block<F, Sample, vectors, channels>(block, taps, tap_count, pixels, weight, out);
      }
    };
    switch (group) {
      case 1: return run_group(Number<1>());
      case 2: return run_group(Number<2>());
      case 4: return run_group(Number<4>());
      default: return run_group(Number<8>());
    }
  };
  by_vectors<F>(block.cb, run);
}

}  // namespace
}  // namespace deploydcn::cpu
