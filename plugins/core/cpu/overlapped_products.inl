// Samples of some pixels are taken while the matrix tiles multiply those of the pixels before them: a product keeps the
// tiles busy for 16 cycles and the rest of the processor for none. Part of tile_kernels.inl.
#pragma once

#include "core/cpu/simd.inl"
#include "core/cpu/tile_kernels.h"
#include "core/cpu/tile_matrices.inl"
#include "core/cpu/tile_samples.inl"

namespace deploydcn::cpu {
namespace {

#if defined(__AMX_BF16__)

// The same taps from a later pixel on.
template <template <class> class Sample>
Taps<float> taps_from(const Taps<float>& taps, int64_t pixel) {
  Taps<float> later = taps;
  later.index += pixel;
  later.weights += Sample<float>::kWeights * pixel;
  return later;
}

// Multiplies kTogether pixels at most, of all columns, and takes the first `sampled` of the samples meanwhile.
template <Tiles kTiles, class Samples>
inline __attribute__((always_inline)) void multiply_columns(const Product<float>& product, int64_t pixel,
                                                            int64_t columns_apart, Samples& samples, int64_t sampled) {
  const int64_t steps = tile_steps<kTiles>(product.depth), pixels = product.pixels - pixel;
  constexpr int wide = kColumns * kTileRows;
  const int64_t columns = (product.outputs + wide - 1) / wide;
  const int64_t pauses = pixels > kTileRows ? columns * steps * kPauses<kTiles> : 0;
  const int64_t some = pauses > 0 ? (sampled * samples.steps() + pauses - 1) / pauses : 0;
  int64_t next = 0;
  const auto take = [&]() __attribute__((always_inline)) {
    if (!samples.left()) {
      if (next == sampled) return false;
      samples.begin(next++);
    }
    samples.take();
    return true;
  };
  const auto take_some = [&]() __attribute__((always_inline)) {
    for (int64_t i = 0; i < some && take(); ++i) {
    }
  };
  const auto* weight = static_cast<const unsigned char*>(product.weight);
  float* tile = product.tile + pixel * kColumns * kTileRows;
  for (int first = 0; first < product.outputs; first += wide) {
    const int left = product.outputs - first;
    fetch_outputs(product, pixel, first, first + (left < wide ? left : wide));
    multiply_pixels<kTiles>(static_cast<const unsigned char*>(product.panel), pixels, left, weight, steps, tile,
                            product.accumulate, take_some);
    weight += steps * kParts<kTiles> * kWeightBytes;
    tile += columns_apart;
  }
  while (take()) {
  }
}

template <Tiles kTiles, template <class> class Sample>
void sample_and_multiply_of(const Sampling<float>& now, const Sampling<float>* then, Product<float> product,
                            int64_t columns_apart, void** panels) {
  const TilesInUse tiles;
  for (int64_t p = 0; p < product.pixels; p += kTogether) {
    const bool ends = p + kTogether >= product.pixels;
    const Sampling<float>& next = ends && then ? *then : now;
    const int64_t first = ends ? 0 : p + kTogether, left = next.pixels - first;
    const int64_t sampled = ends && !then ? 0 : left < kTogether ? left : kTogether;
    product.panel = panels[0];
    by_block<float, Sample>(next.block, [&](auto vectors, auto groups) {
      PixelSamples<float, Sample, TilePanel<kTiles>, vectors, groups> samples(
          next.block, taps_from<Sample>(*next.taps, first), next.tap_begin, next.tap_end, panels[1]);
      multiply_columns<kTiles>(product, p, columns_apart, samples, sampled);
    });
    asm volatile("" ::: "memory");  // what the tiles read next is written
    void* const filled = panels[1];
    panels[1] = panels[0];
    panels[0] = filled;
  }
}

template <Tiles kTiles>
void sample_and_multiply(const Sampling<float>& now, const Sampling<float>* then, const Product<float>& product,
                         int64_t columns_apart, void** panels) {
  const auto run = now.bilinear ? sample_and_multiply_of<kTiles, Bilinear> : sample_and_multiply_of<kTiles, Exact>;
  run(now, then, product, columns_apart, panels);
}

constexpr int64_t kMostValues = 576;  // nine taps of 64 channels

template <Tiles kTiles>
constexpr MatrixKernels<float> kTileKernels = {
    224,
    64,
    kTileRows,
    1,
    kMostValues,
    kMostValues * kParts<kTiles> * kSampleBytes / kTileRows / kTileDepth<kTiles>,
    kTileRows,
    kTileDepth<kTiles>,
    true,
    kColumns,
    0,
    4,
    INT64_MAX,
    4,
    kTiles == Tiles::kBytes ? Sums::kWhole : Sums::kPlain,
    nullptr,
    sample<float, Bilinear, TilePanel<kTiles>>,
    sample<float, Exact, TilePanel<kTiles>>,
    fill_panel<float, TilePanel<kTiles>>,
    pack_tiles<kTiles>,
    multiply_tiles<kTiles>,
    sample_and_multiply<kTiles>,
    kTogether,
    kTiles == Tiles::kBytes ? finish_whole : finish_rows_of<float, kTiles == Tiles::kFloat32>,
};

template <>
constexpr const MatrixKernels<float>* kFast<float> = &kTileKernels<Tiles::kFloat32>;
template <>
constexpr const MatrixKernels<float>* kSecond<float> = nullptr;
template <>
constexpr const MatrixKernels<float>* kOfBFloat16<float> = &kTileKernels<Tiles::kBFloat16>;
template <>
constexpr const MatrixKernels<float>* kWhole<float> = &kTileKernels<Tiles::kBytes>;

#endif

}  // namespace
}  // namespace deploydcn::cpu
