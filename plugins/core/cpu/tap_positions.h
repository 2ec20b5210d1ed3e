// Where the taps of a tile of output pixels sample: positions and bilinear weights (tile_kernels.h has the names).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "core/cpu/stored_values.h"
#include "core/cpu/thread_arena.h"
#include "core/cpu/tiled_convolution.h"

namespace deploydcn::cpu {

// Output pixels [first, first + pixels) of image n.
struct PixelRun {
  int64_t n, first, pixels;
};

template <class F>
class TapPositions {
 public:
  // Of one tile.
  struct Located {
    Taps<F> taps;
    int32_t low, high;                      // indices of samples on the image lie between these
    int64_t image = -1, offset_group = -1;  // whose positions these are: the first group
  };
  // Of one tile, in the running thread's arena, but for positions that are kept.
  struct Buffers {
    Located located;
    int32_t *base_y, *base_x;  // [pixel]
    F *offset, *mask;          // of one tap, [y, x][pixel] and [pixel], where the stored type is not F
  };

  // groups: offset groups of a channel block. tile: room for a tile's pixels, whole vectors. kept: tiles whose
  // positions are kept from one task to the next.
  TapPositions(const ConvolutionShape& shape, const ConvolutionArguments& arguments, int64_t groups, int64_t tile,
               int64_t kept, CpuContext& context)
      : shape_(shape),
        arguments_(arguments),
        groups_(groups),
        tile_(tile),
        indices_(groups * shape.taps() * tile),
        weights_(arguments.offset.present ? 4 * indices_ : 0),
        kept_(static_cast<std::size_t>(kept)),
        kept_indices_(context, kept * indices_),
        kept_weights_(context, kept * weights_) {
    for (int64_t i = 0; i < kept; ++i) {
      kept_[static_cast<std::size_t>(i)].taps = {
          kept_indices_.data() + i * indices_, kept_weights_.data() + i * weights_, tile_, shape.taps() * tile, {}, {}};
    }
  }

  std::size_t bytes() const {
    const bool keeps = !kept_.empty();
    return ThreadArena::bytes_for<int32_t>(keeps ? 0 : indices_) + ThreadArena::bytes_for<F>(keeps ? 0 : weights_) +
           2 * ThreadArena::bytes_for<int32_t>(tile_) + ThreadArena::bytes_for<F>(2 * tile_) +
           ThreadArena::bytes_for<F>(tile_);
  }
  // tile: which of those that are kept, if any are.
  Buffers take(ThreadArena& arena, int64_t tile) const {
    Buffers b{};
    if (kept_.empty()) {
      b.located.taps = {arena.take<int32_t>(indices_), arena.take<F>(weights_), tile_, shape_.taps() * tile_, {}, {}};
    } else {
      b.located = kept_[static_cast<std::size_t>(tile)];
    }
    for (int32_t** base : {&b.base_y, &b.base_x}) *base = arena.take<int32_t>(tile_);
    b.offset = arena.take<F>(2 * tile_);
    b.mask = arena.take<F>(tile_);
    return b;
  }
  void keep(int64_t tile, const Buffers& b) {
    if (!kept_.empty()) kept_[static_cast<std::size_t>(tile)] = b.located;
  }

  // Positions of every tap for the pixels of a tile, of a block's offset groups, unless they are there.
  void locate(const PixelRun& run, int64_t offset_group, Buffers& buffers) const {
    Located& b = buffers.located;
    if (b.image == run.n && b.offset_group == offset_group) return;
    b.image = run.n;
    b.offset_group = offset_group;
    int64_t row = run.first / shape_.out_width, column = run.first % shape_.out_width;
    for (int64_t p = 0; p < tile_; ++p) {  // up to the whole tile: the kernels read whole vectors
      // Rows beyond the last belong to no output; the last one stands in, since a stride is bounded by the rows there
      // are.
      buffers.base_y[p] = static_cast<int32_t>(std::min(row, shape_.out_height - 1) * shape_.stride_h - shape_.pad_top);
      buffers.base_x[p] = static_cast<int32_t>(column * shape_.stride_w - shape_.pad_left);
      if (++column == shape_.out_width) {
        column = 0;
        ++row;
      }
    }
    std::fill_n(b.taps.low, kMostLanes, INT32_MAX);
    std::fill_n(b.taps.high, kMostLanes, -1);
    const TapGeometry<F> geometry{buffers.base_y,
                                  buffers.base_x,
                                  static_cast<int32_t>(shape_.taps()),
                                  static_cast<int32_t>(shape_.kernel_w),
                                  static_cast<int32_t>(shape_.dilation_h),
                                  static_cast<int32_t>(shape_.dilation_w),
                                  static_cast<int32_t>(shape_.height),
                                  static_cast<int32_t>(shape_.width)};
    if (arguments_.offset.present) {
      locate_samples(geometry, run, (run.n * shape_.offset_groups + offset_group) * shape_.taps(), buffers);
    } else {
      tile_kernels<F>().exact_taps(geometry, run.pixels, b.taps);
    }
    b.low = *std::min_element(b.taps.low, b.taps.low + kMostLanes);
    b.high = *std::max_element(b.taps.high, b.taps.high + kMostLanes);
  }

 private:
  // tap: the first of the offset groups', counted over the whole batch.
  void locate_samples(const TapGeometry<F>& geometry, const PixelRun& run, int64_t tap, Buffers& b) const {
    const TileKernels<F>& kernels = tile_kernels<F>();
    const TensorView &offset = arguments_.offset, &mask = arguments_.mask;
    const int64_t plane = shape_.out_pixels(), count = groups_ * shape_.taps();
    if (stored_as<F>(offset) && (!mask.present || (stored_as<F>(mask) && !arguments_.quantization))) {
      const auto in_place = [&](const TensorView& view, int64_t channel) {
        return static_cast<const F*>(view.data) + channel * plane + run.first;
      };
      return kernels.bilinear_taps(geometry, in_place(offset, 2 * tap), mask.present ? in_place(mask, tap) : nullptr,
                                   plane, run.pixels, 0, static_cast<int>(count), b.located.taps);
    }
    const auto convert = [&](const TensorView& view, int64_t channel, F* to) {
      load_as<F>(view.data, view.dtype, channel * plane + run.first, run.pixels, to);
    };
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t axis = 0; axis < 2; ++axis) convert(offset, 2 * (tap + i) + axis, b.offset + axis * tile_);
      if (mask.present) convert(mask, tap + i, b.mask);
      if (arguments_.quantization) replace_infinite(b.mask, mask.present ? run.pixels : 0);
      kernels.bilinear_taps(geometry, b.offset, mask.present ? b.mask : nullptr, tile_, run.pixels, static_cast<int>(i),
                            1, b.located.taps);
    }
  }

  static void replace_infinite(F* values, int64_t count) {
    for (int64_t i = 0; i < count; ++i) values[i] = std::isfinite(values[i]) ? values[i] : F{0};
  }

  const ConvolutionShape& shape_;
  const ConvolutionArguments& arguments_;
  const int64_t groups_, tile_;
  const int64_t indices_, weights_;  // elements of Taps
  std::vector<Located> kept_;
  ScratchBuffer<int32_t> kept_indices_;
  ScratchBuffer<F> kept_weights_;
};

}  // namespace deploydcn::cpu
