// The input of a tiled convolution as channel blocks with a border of zeros (tile_kernels.h has the names).
#pragma once

#include <algorithm>

#include "core/cpu/stored_values.h"
#include "core/cpu/thread_arena.h"
#include "core/cpu/tile_sizes.h"
#include "core/cpu/tiled_convolution.h"

namespace deploydcn::cpu {

template <class F>
class BlockedImage {
 public:
  // Room for the largest part of the batch. scale: of every channel; null: 1.
  BlockedImage(const ConvolutionShape& shape, const ChannelPlan& plan, const ConvolutionArguments& arguments,
               const F* scale, const BatchPart& largest, CpuContext& context)
      : shape_(shape),
        plan_(plan),
        arguments_(arguments),
        scale_(scale),
        row_((shape.width + 2) * plan.block_width),
        plane_((shape.height + 2) * row_),
        memory_(context, (Checked(largest.images) * Checked(largest.blocks) * Checked(plane_)).value()) {}

  // Replaces the part that was copied before.
  void copy(const BatchPart& part, CpuContext& context) {
    part_ = part;
    const int64_t chunks = std::max<int64_t>(1, ceil_div(shape_.pixels(), kPixelsPerTask));
    parallel_for(context, part.images * part.blocks * chunks, [&](int64_t task) {
      const int64_t chunk = task % chunks, image = task / chunks, first = chunk * kPixelsPerTask;
      copy(part.image + image / part.blocks, part.block + image % part.blocks, first,
           std::min(shape_.pixels() - first, kPixelsPerTask));
    });
  }

  // One channel block of one image, [H + 2][W + 2][CB].
  const F* block(int64_t n, int64_t b) const { return memory_.data() + place(n, b); }
  // Elements per row of it.
  int64_t row() const { return row_; }

  // Fetches one of `parts` parts of what output pixels [first, end) sample if offsets are small: their windows and a
  // pixel around them. Inline: GCC leaves out calls of a function that does nothing else.
  __attribute__((always_inline)) void fetch(int64_t n, int64_t b, int64_t first, int64_t end, int64_t part,
                                            int64_t parts) const {
    const ConvolutionShape& s = shape_;
    const int64_t top = first / s.out_width, bottom = (end - 1) / s.out_width;
    const Range rows = reach(top, bottom, s.stride_h, s.pad_top, (s.kernel_h - 1) * s.dilation_h, s.height);
    Range columns{0, s.width + 2};
    if (top == bottom) {
      columns = reach(first % s.out_width, (end - 1) % s.out_width, s.stride_w, s.pad_left,
                      (s.kernel_w - 1) * s.dilation_w, s.width);
    }
    constexpr int64_t line = 64 / sizeof(F);
    const int64_t elements = columns.count() * plan_.block_width;
    if (elements == 0 || rows.count() * elements > kMostFetched / static_cast<int64_t>(sizeof(F))) return;
    for (int64_t y = rows.part(part, parts); y < rows.part(part + 1, parts); ++y) {
      const F* from = block(n, b) + y * row_ + columns.begin * plan_.block_width;
      for (int64_t i = 0; i < elements; i += line) __builtin_prefetch(from + i, 0, 2);
    }
  }

 private:
  int64_t place(int64_t n, int64_t b) const { return ((n - part_.image) * part_.blocks + b - part_.block) * plane_; }
  static constexpr int64_t kPixelsPerTask = 512;       // a multiple of every vector length
  static constexpr int64_t kMostFetched = 256 * 1024;  // bytes: a part of the second-level cache

  struct Range {
    int64_t begin, end;
    int64_t count() const { return end - begin; }
    int64_t part(int64_t index, int64_t parts) const { return begin + count() * index / parts; }
  };
  // Of rows or columns, border included, that windows of `extent` + 1 from output `first` to `last` cover.
  static Range reach(int64_t first, int64_t last, int64_t stride, int64_t pad, int64_t extent, int64_t size) {
    const int64_t begin = std::max<int64_t>(0, first * stride - pad);
    return {begin, std::max(begin, std::min(size + 2, last * stride - pad + extent + 4))};
  }

  void copy(int64_t n, int64_t b, int64_t first, int64_t count) {
    const ChannelPlan::Block& block = plan_.blocks[static_cast<std::size_t>(b)];
    const int64_t pixels = shape_.pixels();
    // Channels of the product may be results of a depthwise stage, several of which read one channel of the input.
    const int64_t channels = arguments_.depthwise.weight.present ? arguments_.depthwise.channels : shape_.channels;
    const int64_t multiplier = shape_.channels / channels;
    const auto from = [&](int c) { return (n * channels + (block.channel + c) / multiplier) * pixels + first; };
    F* plane = memory_.data() + place(n, b);
    if (pixels == 0) return static_cast<void>(std::fill_n(plane, plane_, F{0}));
    // The kernel writes the border between rows; what lies before the first row and after the last is left.
    if (first == 0) std::fill_n(plane, row_ + plan_.block_width, F{0});
    if (first + count == pixels) {
      std::fill_n(plane + (shape_.height + 1) * row_ + plan_.block_width, row_ - plan_.block_width, F{0});
    }
    const bool direct = multiplier == 1 && stored_as<F>(arguments_.input);
    ThreadArena& arena = thread_arena();
    arena.reset(direct ? 0 : ThreadArena::bytes_for<F>(block.channels * count));
    F* converted = direct ? nullptr : arena.template take<F>(block.channels * count);
    for (int c = 0; !direct && c < block.channels; ++c) {
      load_input<F>(arguments_, from(c), count, converted + c * count);
    }
    tile_kernels<F>().block_pixels(direct ? static_cast<const F*>(arguments_.input.data) + from(0) : converted,
                                   direct ? pixels : count, block.channels, scale_ ? scale_ + block.channel : nullptr,
                                   first, count, shape_.width, plane, plan_.block_width);
  }

  const ConvolutionShape& shape_;
  const ChannelPlan& plan_;
  const ConvolutionArguments& arguments_;
  const F* scale_;
  const int64_t row_, plane_;
  BatchPart part_{};
  ScratchBuffer<F> memory_;
};

}  // namespace deploydcn::cpu
