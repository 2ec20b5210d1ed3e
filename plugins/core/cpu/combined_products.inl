// Panels times weights by fewer products than usual (product_schemes.h): each multiplies a combination of a few pixels
// and parts of the channels by one of weights. Samples are combined as they are taken, weights as they are packed, and
// the sums of the products once over all channels, as they are finished. Part of tile_kernels.inl.
//
// Consecutive pixels make a group. A part of a block's channels is every second or every fourth vector, so that a
// vector of each lies side by side; a part of a row of outputs is two vectors, in the last row one.
//
// Accuracy: of random numbers sqrt(2) times (Strassen) and twice (HopcroftKerr) the usual rounding error, relative to
// the largest of a few outputs and pixels, not to each. A value that is not finite spoils its partners, which the
// caller detects and computes again.
#pragma once

#include "core/cpu/product_schemes.h"
#include "core/cpu/simd.inl"
#include "core/cpu/tile_kernels.h"
#include "core/cpu/tile_layouts.inl"
#include "core/cpu/tile_products.inl"
#include "core/cpu/tile_samples.inl"

namespace deploydcn::cpu {
namespace {

// Elements of a panel from one product's values to the next, and from one group of pixels to the next.
template <class F, class Scheme>
constexpr int64_t kPartRow = kPanelRow<F> / Scheme::kChannels;
template <class F, class Scheme>
constexpr int64_t kGroupRow = Scheme::kProducts * kPartRow<F, Scheme>;

constexpr int kPartVectors = 2;  // of outputs, at most

template <class Scheme>
inline int64_t groups_of(int64_t pixels) {
  return (pixels + Scheme::kPixels - 1) / Scheme::kPixels;
}
template <class Scheme>
using EachProduct = typename MakeIndices<Scheme::kProducts>::type;

// ----------------------------------------------------------------------------------------------------- combinations
// The first term of a row that is added, and the first from `from` on that is not left out; -1: there is none.
template <const auto& kSigns, int kRow, int kTerms>
constexpr int first_added() {
  for (int i = 0; i < kTerms; ++i) {
    if (kSigns(kRow, i) > 0) return i;
  }
  return -1;
}
template <const auto& kSigns, int kRow, int kTerms>
constexpr int next_term(int from) {
  for (int i = from; i < kTerms; ++i) {
    if (kSigns(kRow, i) != 0 && i != first_added<kSigns, kRow, kTerms>()) return i;
  }
  return -1;
}
template <const auto& kSigns, int kRow, int kFrom, class T, int kTerms>
inline __attribute__((always_inline)) T add_terms(T sum, const T (&x)[kTerms]) {
  constexpr int i = next_term<kSigns, kRow, kTerms>(kFrom);
  if constexpr (i < 0) {
    return sum;
  } else {
    return add_terms<kSigns, kRow, i + 1>(kSigns(kRow, i) > 0 ? sum + x[i] : sum - x[i], x);
  }
}
template <const auto& kSigns, int kRow, class T, int kTerms>
inline __attribute__((always_inline)) T combine(const T (&x)[kTerms]) {
  constexpr int first = first_added<kSigns, kRow, kTerms>();
  static_assert(first >= 0);
  return add_terms<kSigns, kRow, 0>(x[first], x);
}

// ---------------------------------------------------------------------------------------------------------- samples
// One vector of every part of the channels, of every pixel of a group.
template <class F, class Scheme, int... I>
inline __attribute__((always_inline)) void put_group(const Vector<F> (&x)[Scheme::kPixels * Scheme::kChannels], F* to,
                                                     Indices<I...>) {
  (store<F>(to + I * kPartRow<F, Scheme>, combine<Scheme::kSamples, I>(x)), ...);
}

template <class F, class Scheme, template <class> class Sample, int kVectors, int kGroups>
void sample_groups_of_block(const SampledBlock<F>& given, const Taps<F>& taps, int tap_begin, int tap_end,
                            int64_t pixels, void* panel) {
  constexpr int n = Simd<F>::kLanes, cb = kVectors * n, parts = Scheme::kChannels;
  const SampledBlock<F> block{given.image, given.row, cb, kGroups, given.low, given.high};
  for (int64_t p = 0; p < pixels; p += Scheme::kPixels) {
    int64_t pixel[Scheme::kPixels];  // beyond the last: the last again
    for (int i = 0; i < Scheme::kPixels; ++i) pixel[i] = p + i < pixels ? p + i : pixels - 1;
    const int32_t* index = taps.index + tap_begin * taps.stride;
    const F* weights = taps.weights + Sample<F>::kWeights * tap_begin * taps.stride;
    F* to = static_cast<F*>(panel) + p / Scheme::kPixels * kGroupRow<F, Scheme>;
    for (int t = tap_begin; t < tap_end; ++t) {
#pragma GCC unroll 4
      for (int c = 0; c < cb; c += parts * n, to += n) {
        Vector<F> x[Scheme::kPixels * parts];
#pragma GCC unroll 4
        for (int i = 0; i < Scheme::kPixels; ++i) {
          const BlockSamples<F, Sample, cb, kGroups> sample(
              block, index + pixel[i], weights + Sample<F>::kWeights * pixel[i], taps.group_stride);
#pragma GCC unroll 4
          for (int j = 0; j < parts; ++j) x[i * parts + j] = sample(c + j * n);
        }
        put_group<F, Scheme>(x, to, EachProduct<Scheme>());
      }
      index += taps.stride;
      weights += Sample<F>::kWeights * taps.stride;
    }
  }
}
template <class F, class Scheme, template <class> class Sample>
void sample_groups(const SampledBlock<F>& block, const Taps<F>& taps, int tap_begin, int tap_end, int64_t pixels,
                   void* panel) {
  const auto run = [&](auto vectors, auto groups) __attribute__((always_inline)) {
    if constexpr (vectors % Scheme::kChannels == 0 && vectors <= kWidestBlock<F>) {
      sample_groups_of_block<F, Scheme, Sample, vectors, groups>(block, taps, tap_begin, tap_end, pixels, panel);
    }
  };
  by_offset_groups<F, Sample>(block, run);
}

// --------------------------------------------------------------------------------------------------------- products
// One value of every product, `size` apart.
template <class F, class Scheme, int... I>
inline void put_weights(const F (&x)[Scheme::kChannels * Scheme::kOutputs], int64_t size, F* to, Indices<I...>) {
  ((to[I * size] = combine<Scheme::kWeights, I>(x)), ...);
}

// [product][part of the channels][part of the outputs].
template <class F, class Scheme>
int64_t pack_combined(const F* weights, int64_t depth, int row, void* out) {
  constexpr int n = Simd<F>::kLanes, parts = Scheme::kChannels, outputs = Scheme::kOutputs;
  const int64_t part_depth = depth / parts, part_row = row / outputs, size = part_depth * part_row;
  for (int64_t k = 0; out && k < part_depth; ++k) {
    const F* first = weights + (k / n * parts * n + k % n) * row;
    for (int64_t r = 0; r < part_row; ++r) {
      F x[parts * outputs];
      for (int i = 0; i < parts * outputs; ++i) x[i] = first[i / outputs * n * row + i % outputs * part_row + r];
      put_weights<F, Scheme>(x, size, static_cast<F*>(out) + k * part_row + r, EachProduct<Scheme>());
    }
  }
  return Scheme::kProducts * size * static_cast<int64_t>(sizeof(F));
}

template <class F, class Scheme, int kVectors>
void multiply_parts(const Product<F>& product) {
  constexpr int row = kVectors * Simd<F>::kLanes, outputs = Scheme::kOutputs;
  const int64_t groups = groups_of<Scheme>(product.pixels);
  Product<F> part = product;
  part.pixels = groups;
  part.depth = product.depth / Scheme::kChannels;
  part.vectors = kVectors;
  for (int i = 0; i < Scheme::kProducts; ++i) {
    part.panel = static_cast<const F*>(product.panel) + i * kPartRow<F, Scheme>;
    part.weight = static_cast<const F*>(product.weight) + i * part.depth * row;
    part.tile = product.tile + i * groups * row;
    const int left = product.outputs - i % outputs * row;
    part.outputs = left < row ? left : row;
    // The first products fetch a part of the output each.
    const bool fetches = product.out && i < Scheme::kPixels * outputs && left > 0;
    part.out = fetches ? product.out + i % outputs * row * product.out_stride + i / outputs * groups : nullptr;
    multiply_strips<F, kVectors, kVectors, kGroupRow<F, Scheme>>(part);
  }
}
template <class F, class Scheme>
void multiply_combined(const Product<F>& product) {
  product.vectors == Scheme::kOutputs ? multiply_parts<F, Scheme, 1>(product)
                                      : multiply_parts<F, Scheme, kPartVectors>(product);
}

// ------------------------------------------------------------------------------------------------------------- sums
// [product][group][part of the outputs].
template <class F, class Scheme, int kVectors>
struct GroupSums {
  static constexpr int kPixels = Scheme::kPixels, kLanes = Simd<F>::kLanes;
  static constexpr int kRow = kVectors * kLanes;
  static_assert(kPixels <= 4 && Scheme::kOutputs == 2);  // which the switches below count to
  using Group = Vector<F>[kPixels];

  const F* sums;
  int64_t groups;

  // As RowSums::read; pixels may begin within a group.
  inline __attribute__((always_inline)) void read(int64_t pixel, int c, Vector<F> (&rows)[kLanes]) const {
    switch (pixel % kPixels) {
      case 0: return read_from<0>(pixel, c, rows);
      case 1: return read_from<1>(pixel, c, rows);
      case 2: return read_from<2 % kPixels>(pixel, c, rows);
      default: return read_from<3 % kPixels>(pixel, c, rows);
    }
  }
  inline __attribute__((always_inline)) Vector<F> one(int64_t pixel, int c) const {
    Group group;
    read_group(pixel / kPixels, c, group);
    return group[pixel % kPixels];
  }

 private:
  template <int kSkipped>
  inline __attribute__((always_inline)) void read_from(int64_t pixel, int c, Vector<F> (&rows)[kLanes]) const {
#pragma GCC unroll 16
    for (int i = -kSkipped; i < kLanes; i += kPixels) {
      Group group;
      read_group((pixel + i) / kPixels, c, group);
#pragma GCC unroll 4
      for (int j = 0; j < kPixels; ++j) {
        if (i + j >= 0 && i + j < kLanes) rows[i + j] = group[j];
      }
    }
  }
  inline __attribute__((always_inline)) void read_group(int64_t group, int c, Group& out) const {
    using Pixels = typename MakeIndices<kPixels>::type;
    const F* at = sums + group * kRow;
    c < kRow ? read_part<0>(at + c, out, EachProduct<Scheme>(), Pixels())
             : read_part<1>(at + c - kRow, out, EachProduct<Scheme>(), Pixels());
  }
  template <int kPart, int... Product, int... Pixel>
  inline __attribute__((always_inline)) void read_part(const F* at, Group& out, Indices<Product...>,
                                                       Indices<Pixel...>) const {
    const Vector<F> x[] = {load<F>(at + Product * groups * kRow)...};  // those that no sum takes are not loaded
    ((out[Pixel] = combine<Scheme::kSums, Pixel * Scheme::kOutputs + kPart>(x)), ...);
  }
};
template <class F, class Scheme>
bool finish_combined(const F* sums, int64_t row, int64_t pixels, int channels, const Finishing<F>& finishing, F* out,
                     int64_t plane_stride) {
  const int64_t groups = groups_of<Scheme>(pixels);
  if (row == Scheme::kOutputs * Simd<F>::kLanes) {
    const GroupSums<F, Scheme, 1> read{sums, groups};
    return finish_sums<F, true, true>(read, pixels, channels, finishing, out, plane_stride);
  }
  const GroupSums<F, Scheme, kPartVectors> read{sums, groups};
  return finish_sums<F, true, true>(read, pixels, channels, finishing, out, plane_stride);
}

// kFewest: values of a pixel in a panel; with fewer, so many sets of sums are read and written too often.
// kPercent: the speed, as measured.
template <class F, class Scheme, int kNearPixels, int kFewest, int kPercent, int64_t kMostOutputs>
constexpr MatrixKernels<F> kCombined = {
    112,
    kNearPixels,
    Scheme::kPixels,
    kFewest,
    kPanelRow<F>,
    kGroupRow<F, Scheme> / Scheme::kPixels * static_cast<int64_t>(sizeof(F)),
    Scheme::kChannels * Simd<F>::kLanes,
    1,
    true,
    kPartVectors * Scheme::kOutputs,
    Scheme::kOutputs,
    kPercent / 100.0,
    kMostOutputs,
    4 * Scheme::kProducts / (Scheme::kPixels * Scheme::kOutputs),
    Sums::kBalanced,
    nullptr,
    sample_groups<F, Scheme, Bilinear>,
    sample_groups<F, Scheme, Exact>,
    nullptr,
    pack_combined<F, Scheme>,
    multiply_combined<F, Scheme>,
    nullptr,
    0,
    finish_combined<F, Scheme>,
};
template <class F>
constexpr MatrixKernels<F> kHopcroftKerr = kCombined<F, HopcroftKerr, 48, 256, 118, 384>;
template <class F>
constexpr MatrixKernels<F> kStrassen = kCombined<F, Strassen, 112, 192, 112, INT64_MAX>;
// fill_panel fills panels of a single tap.
static_assert(kWidestBlock<float> * Simd<float>::kLanes < kStrassen<float>.fewest_values);

}  // namespace
}  // namespace deploydcn::cpu
