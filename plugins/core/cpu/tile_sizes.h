// How a convolution is cut into tasks.
#pragma once

#include <algorithm>
#include <thread>

#include "core/cpu/tiled_convolution.h"

namespace deploydcn::cpu {

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t kSmallestTile = 32;       // below this the matrix kernel starves
constexpr int64_t kTileBytes = 512 * 1024;  // accumulators
constexpr int64_t kTapBytes = 2 * 1024 * 1024;

inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
inline int64_t processors() { return std::max(1u, std::thread::hardware_concurrency()); }

// Pixels per tile: as many as caches hold; where tiles are few, as many tiles for every processor.
template <class F>
int64_t choose_tile(const ConvolutionShape& shape, const MatrixKernels<F>& matrix, int64_t accumulators) {
  constexpr int64_t bytes = sizeof(F), lanes = 64 / bytes, few = 8;  // tiles per processor
  const int64_t pixels = shape.out_pixels();
  int64_t most = std::min(matrix.most_pixels, kTileBytes / (accumulators * bytes));
  most = std::max(std::min(most, kTapBytes / (shape.taps() * (4 * bytes + 4))) / lanes * lanes, lanes);
  int64_t count = ceil_div(pixels, most);
  const auto uneven = [&] { return shape.batch * count % processors() != 0; };
  while (shape.batch * count < few * processors() && uneven() && ceil_div(pixels, count + 1) >= kSmallestTile) ++count;
  return round_up(ceil_div(pixels, count), matrix.pixel_multiple);
}

// Where tiles are fewer than processors: the same samples for parts of the outputs. Sampling again is cheap where many
// outputs share a sample.
inline int64_t choose_parts(const ConvolutionShape& shape, const ChannelPlan& plan, int64_t tiles) {
  constexpr int64_t fewest = 4;  // columns of a part
  if (shape.depthwise() || plan.planes) return 1;
  return std::max<int64_t>(1, std::min(plan.columns / fewest, processors() / (shape.batch * tiles)));
}

}  // namespace deploydcn::cpu
