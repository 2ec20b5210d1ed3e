// How a convolution is cut into tasks.
#pragma once

#include <algorithm>
#include <thread>

#include "core/cpu/tiled_convolution.h"

namespace deploydcn::cpu {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t kSmallestTile = 32;           // below this the matrix kernel starves
constexpr int64_t kTileBytes = 512 * 1024;      // accumulators
constexpr int64_t kPanelBytes = 768 * 1024;     // a panel and all weights, where they stay in the second-level cache
constexpr int64_t kStepBytes = 1024 * 1024;     // weights of a step, where samples are taken meanwhile
constexpr int64_t kTapBytes = 2 * 1024 * 1024;  // positions
template <class F>
constexpr int64_t kPositionBytes = 4 * sizeof(F) + 4;  // of a pixel and a tap
constexpr int64_t kCopyBytes = 128 * 1024;   // of a blocked copy, per thread: it stays in the second-level cache
constexpr int64_t kKeptBytes = 1024 * 1024;  // of positions, per thread
constexpr int64_t kSmallGroupPixels = 512;   // half a page of every output channel

inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
inline int64_t processors() {
  static const int64_t count = std::max(1u, std::thread::hardware_concurrency());  // which reads files
  return count;
}

// The output pixels of an image, cut into tiles whose sizes differ by one unit at most.
class PixelTiles {
 public:
  PixelTiles(int64_t pixels, int64_t count, int64_t unit)
      : pixels_(pixels),
        unit_(unit),
        units_(ceil_div(pixels, unit)),
        count_(std::max<int64_t>(1, std::min(count, units_))) {}
  int64_t count() const { return count_; }
  // Where a tile begins; that of `count` is the end.
  int64_t begin(int64_t tile) const {
    return std::min(pixels_, (tile * (units_ / count_) + std::min(tile, units_ % count_)) * unit_);
  }
  // Pixels of the largest tile.
  int64_t largest() const { return ceil_div(units_, count_) * unit_; }

 private:
  int64_t pixels_, unit_, units_, count_;
};

// Whether samples are taken while others are multiplied: by weights that the second-level cache holds, since every few
// pixels are multiplied by all of them.
template <class F>
bool choose_overlap(const PackedWeights<F>& weights) {
  const ChannelPlan& plan = weights.plan();
  const MatrixKernels<F>& matrix = weights.matrix();
  if (!matrix.sample_and_multiply || plan.small_group) return false;
  const int64_t outputs = plan.columns * plan.vectors * tile_kernels<F>().lanes;
  return matrix.pack(nullptr, plan.tap_block * plan.block_width, static_cast<int>(outputs), nullptr) <= kStepBytes;
}

template <class F>
int64_t choose_panel_pixels(const MatrixKernels<F>& matrix, int64_t values, int64_t weight_bytes) {
  const auto fits = [&](int64_t pixels) {
    return pixels * matrix.pixel_bytes / matrix.most_values * values + weight_bytes <= kPanelBytes;
  };
  return fits(matrix.near_pixels) && !fits(matrix.most_pixels) ? matrix.near_pixels : matrix.most_pixels;
}

// As many pixels per tile as caches hold; where tiles of a part are few, as many for every thread.
template <class F>
PixelTiles choose_tiles(const ConvolutionShape& shape, const PackedWeights<F>& weights, bool overlaps,
                        int64_t accumulators, const BatchPart& part, int64_t threads) {
  constexpr int64_t bytes = sizeof(F), few = 8;  // tiles per thread
  const TileKernels<F>& kernels = tile_kernels<F>();
  const ChannelPlan& plan = weights.plan();
  const int64_t pixels = shape.out_pixels();
  const MatrixKernels<F>& matrix = weights.matrix();
  // Panels of samples that are taken meanwhile do not grow with a tile.
  const int64_t panel_pixels = overlaps ? matrix.most_pixels
                                        : choose_panel_pixels(matrix, int64_t{plan.tap_block} * plan.block_width,
                                                              static_cast<int64_t>(weights.packed_bytes()));
  int64_t unit = matrix.pixel_multiple, most = std::min(panel_pixels, kTileBytes / (accumulators * bytes));
  if (plan.small_group) {
    unit = kernels.lanes;
    most = kSmallGroupPixels;
  }
  most = std::min(most, kTapBytes / (shape.taps() * plan.offset_groups * kPositionBytes<F>));
  most = std::max(most / unit * unit, round_up(kernels.lanes, unit));
  int64_t count = ceil_div(pixels, most);
  const int64_t images = part.images;
  const auto uneven = [&] { return images * count % threads != 0; };
  while (images * count < few * threads && uneven() && ceil_div(pixels, count + 1) >= kSmallestTile) ++count;
  return {pixels, round_up(count, part.pieces), unit};
}

// Tiles whose positions are kept from one part to the next: all, where there is room; it is faster than to locate them
// again.
template <class F>
int64_t choose_kept(const ConvolutionShape& shape, const ChannelPlan& plan, const BatchPart& part,
                    const PixelTiles& tiles, int64_t threads) {
  if (part.blocks == static_cast<int64_t>(plan.blocks.size())) return 0;
  const int64_t count = part.images * tiles.count();
  const int64_t bytes = count * tiles.largest() * shape.taps() * plan.offset_groups * kPositionBytes<F>;
  return bytes <= kKeptBytes * threads ? count : 0;
}

// Where tiles are fewer than processors: the same samples for parts of the outputs. Sampling again is cheap where many
// outputs share a sample.
inline int64_t choose_shares(const ChannelPlan& plan, int64_t tiles, int64_t threads) {
  constexpr int64_t fewest = 8;  // vectors of outputs of a part
  if (plan.small_group) return 1;
  return std::max<int64_t>(1, std::min(plan.columns * plan.vectors / fewest, threads / tiles));
}

}  // namespace deploydcn::cpu
