// Panels times weights by Strassen's algorithm, one level of it: seven products of half the pixels, half the channels
// and half the outputs where eight are usual (V. Strassen, Gaussian elimination is not optimal, 1969). Part of
// tile_kernels.inl.
//
// With samples X (pixels by channels) and weights W (channels by outputs) cut in two by two:
//   P0 = (X11 + X22) (W11 + W22)    P4 = (X11 + X12) W22              Y11 = P0 + P3 - P4 + P6
//   P1 = (X21 + X22) W11            P5 = (X21 - X11) (W11 + W12)      Y12 = P2 + P4
//   P2 = X11 (W12 - W22)            P6 = (X12 - X22) (W21 + W22)      Y21 = P1 + P3
//   P3 = X22 (W21 - W11)                                              Y22 = P0 - P1 + P2 + P5
// Samples are combined as they are taken, weights as they are packed, and the seven sums of all channels at the end.
//
// Accuracy: of random numbers sqrt(2) times the usual rounding error, relative to the largest of two outputs and two
// pixels, not to each. A value that is not finite spoils its partners, which the caller detects and computes again.
#pragma once

#include "core/cpu/simd.inl"
#include "core/cpu/tile_kernels.h"
#include "core/cpu/tile_layouts.inl"
#include "core/cpu/tile_products.inl"
#include "core/cpu/tile_samples.inl"

namespace deploydcn::cpu {
namespace {

constexpr int kStrassenProducts = 7, kStrassenPixels = 112;
// Values of a pixel in a panel: with fewer, seven sets of sums are read and written too often.
constexpr int kStrassenFewest = 192;
// Of a row of outputs: two halves of two vectors.
constexpr int kStrassenVectors = 4;
// Elements of a panel from one product's values to the next, and from one pair of pixels to the next.
template <class F>
constexpr int64_t kHalfRow = kPanelRow<F> / 2;
template <class F>
constexpr int64_t kPairRow = kStrassenProducts * kHalfRow<F>;

// Neighbours make a pair; where their number is odd, the last is its own partner.
inline int64_t pairs_of(int64_t pixels) { return (pixels + 1) / 2; }

// Of two pixels and two vectors of channels.
template <class F>
inline __attribute__((always_inline)) void put_pair(F* to, const Vector<F> (&x)[2][2]) {
  store<F>(to, x[0][0] + x[1][1]);
  store<F>(to + kHalfRow<F>, x[1][0] + x[1][1]);
  store<F>(to + 2 * kHalfRow<F>, x[0][0]);
  store<F>(to + 3 * kHalfRow<F>, x[1][1]);
  store<F>(to + 4 * kHalfRow<F>, x[0][0] + x[0][1]);
  store<F>(to + 5 * kHalfRow<F>, x[1][0] - x[0][0]);
  store<F>(to + 6 * kHalfRow<F>, x[0][1] - x[1][1]);
}

template <class F, template <class> class Sample, int kVectors>
void sample_pairs_of_block(const SampledBlock<F>& given, const Taps<F>& taps, int tap_begin, int tap_end,
                           int64_t pixels, void* panel) {
  constexpr int n = Simd<F>::kLanes, cb = kVectors * n;
  const SampledBlock<F> block{given.image, given.row, cb, given.low, given.high};
  for (int64_t p = 0; p < pixels; p += 2) {
    const int64_t q = p + 1 < pixels ? p + 1 : p;
    const int32_t* index = taps.index + tap_begin * taps.stride;
    const F* weights = taps.weights + Sample<F>::kWeights * tap_begin * taps.stride;
    F* to = static_cast<F*>(panel) + p / 2 * kPairRow<F>;
    for (int t = tap_begin; t < tap_end; ++t) {
      const Sample<F> first(block, index[p], weights + Sample<F>::kWeights * p);
      const Sample<F> second(block, index[q], weights + Sample<F>::kWeights * q);
#pragma GCC unroll 4
      for (int c = 0; c < cb; c += 2 * n, to += n) {
        const Vector<F> x[2][2] = {{first(c), first(c + n)}, {second(c), second(c + n)}};
        put_pair<F>(to, x);
      }
      index += taps.stride;
      weights += Sample<F>::kWeights * taps.stride;
    }
  }
}
template <class F, template <class> class Sample>
void sample_pairs(const SampledBlock<F>& block, const Taps<F>& taps, int tap_begin, int tap_end, int64_t pixels,
                  void* panel) {
  const auto run = [&](auto vectors) __attribute__((always_inline)) {
    if constexpr (vectors % 2 == 0 && vectors <= kWidestBlock<F>) {
      sample_pairs_of_block<F, Sample, vectors>(block, taps, tap_begin, tap_end, pixels, panel);
    }
  };
  by_vectors<F>(block.cb, run);
}

// [product][half the channels][half the outputs].
template <class F>
int64_t pack_strassen(const F* weights, int64_t depth, int row, void* out) {
  constexpr int n = Simd<F>::kLanes;
  const int64_t half_depth = depth / 2, half_row = row / 2, size = half_depth * half_row;
  for (int64_t k = 0; out && k < half_depth; ++k) {
    const F* first = weights + (k / n * 2 * n + k % n) * row;  // channels of the first half, every other vector
    const F* second = first + n * row;
    for (int64_t r = 0; r < half_row; ++r) {
      const F w11 = first[r], w12 = first[half_row + r], w21 = second[r], w22 = second[half_row + r];
      const F combined[kStrassenProducts] = {w11 + w22, w11, w12 - w22, w21 - w11, w22, w11 + w12, w21 + w22};
      for (int i = 0; i < kStrassenProducts; ++i) static_cast<F*>(out)[i * size + k * half_row + r] = combined[i];
    }
  }
  return kStrassenProducts * size * static_cast<int64_t>(sizeof(F));
}

template <class F>
void multiply_strassen(const Product<F>& product) {
  constexpr int n = Simd<F>::kLanes, half_row = kStrassenVectors / 2 * n;
  const int64_t pairs = pairs_of(product.pixels);
  for (int i = 0; i < kStrassenProducts; ++i) {
    Product<F> part = product;
    part.panel = static_cast<const F*>(product.panel) + i * kHalfRow<F>;
    part.pixels = pairs;
    part.depth = product.depth / 2;
    part.weight = static_cast<const F*>(product.weight) + i * part.depth * half_row;
    part.vectors = kStrassenVectors / 2;
    part.tile = product.tile + i * pairs * half_row;
    const int left = product.outputs - i % 2 * half_row;
    part.outputs = left < half_row ? left : half_row;
    const bool fetches = product.out && i < 4 && left > 0;  // a quarter of the output each
    part.out = fetches ? product.out + i % 2 * half_row * product.out_stride + i / 2 * pairs : nullptr;
    multiply_strips<F, 2, 2, kPairRow<F>>(part);
  }
}

// [product][pair][half the outputs].
template <class F>
struct PairSums {
  const F* sums;
  int64_t pairs;
  int half_row;

  // As RowSums::read; pixels may begin with the second of a pair.
  inline __attribute__((always_inline)) void read(int64_t pixel, int c, Vector<F> (&rows)[Simd<F>::kLanes]) const {
    constexpr int n = Simd<F>::kLanes;
    if (pixel % 2 == 0) {
#pragma GCC unroll 8
      for (int i = 0; i < n; i += 2) read_pair(pixel + i, c, rows[i], rows[i + 1]);
      return;
    }
    rows[0] = one(pixel, c);
#pragma GCC unroll 8
    for (int i = 1; i < n - 1; i += 2) read_pair(pixel + i, c, rows[i], rows[i + 1]);
    rows[n - 1] = one(pixel + n - 1, c);
  }
  inline __attribute__((always_inline)) Vector<F> one(int64_t pixel, int c) const {
    Vector<F> both[2];
    read_pair(pixel, c, both[0], both[1]);
    return both[pixel % 2];
  }

 private:
  inline __attribute__((always_inline)) void read_pair(int64_t pixel, int c, Vector<F>& first,
                                                       Vector<F>& second) const {
    const bool right = c >= half_row;
    const F* at = sums + pixel / 2 * half_row + (right ? c - half_row : c);
    const auto sum = [&](int i) __attribute__((always_inline)) { return load<F>(at + i * pairs * half_row); };
    if (right) {
      first = sum(2) + sum(4);
      second = (sum(0) - sum(1)) + (sum(2) + sum(5));
    } else {
      first = (sum(0) + sum(3)) + (sum(6) - sum(4));
      second = sum(1) + sum(3);
    }
  }
};
template <class F>
bool finish_strassen(const F* sums, int64_t row, int64_t pixels, int channels, const Finishing<F>& finishing, F* out,
                     int64_t plane_stride) {
  const PairSums<F> read{sums, pairs_of(pixels), static_cast<int>(row / 2)};
  return finish_sums<F, true, true>(read, pixels, channels, finishing, out, plane_stride);
}

// fill_panel fills panels of a single tap.
static_assert(kWidestBlock<float> * Simd<float>::kLanes < kStrassenFewest);

template <class F>
constexpr MatrixKernels<F> kStrassen = {
    kStrassenPixels,
    2,
    kStrassenFewest,
    kPanelRow<F>,
    kPairRow<F> / 2 * static_cast<int64_t>(sizeof(F)),
    2 * Simd<F>::kLanes,
    true,
    kStrassenVectors,
    1.125,
    kStrassenProducts,
    Sums::kBalanced,
    sample_pairs<F, Bilinear>,
    sample_pairs<F, Exact>,
    nullptr,
    pack_strassen<F>,
    multiply_strassen<F>,
    finish_strassen<F>,
};

}  // namespace
}  // namespace deploydcn::cpu
