// The input of a tiled convolution as channel blocks with a border of zeros (tile_kernels.h has the names).
#pragma once

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "core/cpu/stored_values.h"
#include "core/cpu/thread_arena.h"
#include "core/cpu/tile_sizes.h"
#include "core/cpu/tiled_convolution.h"

namespace deploydcn::cpu {

// A part of a batch at a time, copied chunk by chunk: all at once, or each chunk when the first sample needs it, so
// that it is near when it is sampled. Threads that need the same chunk wait for the one that copies it.
template <class F>
class BlockedImage {
 public:
  static constexpr int64_t kChunk = 256;  // pixels: a multiple of every vector length

  // Room for the largest part. block_pairs: as of MatrixKernels. scale: of every channel; null: 1.
  BlockedImage(const ConvolutionShape& shape, const ChannelPlan& plan, const ConvolutionArguments& arguments,
               BlockPixels<F> block_pairs, const F* scale, const BatchPart& largest, CpuContext& context)
      : shape_(shape),
        plan_(plan),
        arguments_(arguments),
        block_pixels_(block_pairs ? block_pairs : tile_kernels<F>().block_pixels),
        scale_(scale),
        // Channels of the product may be results of a depthwise stage, several of which read one channel of the input.
        channels_(arguments.depthwise.weight.present ? arguments.depthwise.channels : shape.channels),
        direct_(channels_ == shape.channels && stored_as<F>(arguments.input)),
        together_(block_pairs ? 2 : 1),
        plane_((shape.height + 3) * (shape.width + 2) * (plan.block_width / together_)),
        chunks_(ceil_div(shape.pixels(), kChunk)),
        memory_(context, (Checked(largest.images) * Checked(largest.blocks) * Checked(plane_)).value()),
        states_(static_cast<std::size_t>(largest.images * largest.blocks * chunks_)),
        widths_(static_cast<std::size_t>(largest.images * largest.blocks)) {}

  // Begins a part: of its images nothing is copied, unless it is another piece of the blocks at hand.
  void begin(const BatchPart& part) {
    const bool at_hand = part.image == part_.image && part.images == part_.images && part.block == part_.block &&
                         part.blocks == part_.blocks;
    part_ = part;
    if (at_hand) return;
    for (int64_t n = part.image; n < part.image + part.images; ++n) {
      for (int64_t b = part.block; b < part.block + part.blocks; ++b) clear_borders(n, b);
    }
    for (std::atomic<State>& state : states_) state.store(State::kMissing, std::memory_order_relaxed);
  }

  // Begins a part and copies all of it.
  void copy(const BatchPart& part, CpuContext& context) {
    begin(part);
    parallel_for(context, part.images * part.blocks * chunks_, [&](int64_t task) {
      const int64_t plane = task / chunks_;
      ThreadArena& arena = thread_arena();
      arena.reset(ThreadArena::bytes_for<F>(buffer()));
      copy_chunk(part.image + plane / part.blocks, part.block + plane % part.blocks, task % chunks_,
                 arena.template take<F>(buffer()),
                 block(part.image + plane / part.blocks, part.block + plane % part.blocks));
      states_[static_cast<std::size_t>(task)].store(State::kCopied, std::memory_order_relaxed);
    });
  }

  // Copies what is missing of what samples at indices from `low` to `high` read; nothing where `low` is larger. buffer:
  // of `buffer` elements.
  void need(int64_t n, int64_t b, int32_t low, int32_t high, F* buffer) {
    if (low > high) return;
    const int64_t width = shape_.width + 2, top = low / width, bottom = high / width + 1;
    // With the end of the row above, whose chunk writes the border between them.
    const int64_t first = std::max<int64_t>(0, (top - 1) * shape_.width - 1) / kChunk;
    const int64_t last = (std::min(shape_.pixels(), bottom * shape_.width) - 1) / kChunk;
    for (int64_t chunk = first; chunk <= last; ++chunk) {
      std::atomic<State>& state = states_[static_cast<std::size_t>(plane(n, b) * chunks_ + chunk)];
      while (state.load(std::memory_order_acquire) != State::kCopied) {
        State expected = State::kMissing;
        if (state.compare_exchange_strong(expected, State::kClaimed, std::memory_order_relaxed)) {
          copy_chunk(n, b, chunk, buffer, block(n, b));
          state.store(State::kCopied, std::memory_order_release);
        } else {
          std::this_thread::yield();
        }
      }
    }
  }

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
    const int64_t elements = columns.count() * pixel(b);
    if (elements == 0 || rows.count() * elements > kMostFetched / static_cast<int64_t>(sizeof(F))) return;
    for (int64_t y = rows.part(part, parts); y < rows.part(part + 1, parts); ++y) {
      const F* from = block(n, b) + y * row(b) + columns.begin * pixel(b);
      for (int64_t i = 0; i < elements; i += line) __builtin_prefetch(from + i, 0, 2);
    }
  }

  // Copies a chunk of a channel block of an image to where it belongs in a blocked image, of which `to` is the first
  // pixel. Throws nothing: other threads may wait.
  void copy_chunk(int64_t n, int64_t b, int64_t chunk, F* buffer, F* to) const noexcept {
    const ChannelPlan::Block& block = plan_.blocks[static_cast<std::size_t>(b)];
    const int64_t pixels = shape_.pixels(), first = chunk * kChunk, count = std::min(pixels - first, kChunk);
    const int64_t multiplier = shape_.channels / channels_;
    const auto from = [&](int c) { return (n * channels_ + (block.channel + c) / multiplier) * pixels + first; };
    for (int c = 0; !direct_ && c < block.channels; ++c) load_input<F>(arguments_, from(c), count, buffer + c * count);
    block_pixels_(direct_ ? static_cast<const F*>(arguments_.input.data) + from(0) : buffer, direct_ ? pixels : count,
                  block.channels, scale_ ? scale_ + block.channel : nullptr, first, count, shape_.width, to,
                  block.width);
  }

  // Elements that copying a chunk takes besides.
  int64_t buffer() const { return direct_ ? 0 : plan_.block_width * kChunk; }

  // One channel block of one image, [H + 2][W + 2][CB] or [CB / 2] pairs, behind a row of zeros.
  F* block(int64_t n, int64_t b) const { return memory_.data() + plane(n, b) * plane_ + row(b); }
  // Elements per row of it.
  int64_t row(int64_t b) const { return (shape_.width + 2) * pixel(b); }
  // Elements per pixel of it.
  int64_t pixel(int64_t b) const { return plan_.blocks[static_cast<std::size_t>(b)].width / together_; }

 private:
  enum class State : unsigned char { kMissing, kClaimed, kCopied };
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

  // Up to the first row's first pixel, and the last row, unless a block as wide was there before; block_pixels writes
  // the border between rows.
  void clear_borders(int64_t n, int64_t b) {
    int64_t& width = widths_[static_cast<std::size_t>(plane(n, b))];
    if (width == pixel(b)) return;
    width = pixel(b);
    std::fill_n(block(n, b) - row(b), 2 * row(b) + pixel(b), F{0});
    std::fill_n(block(n, b) + (shape_.height + 1) * row(b), row(b), F{0});
  }

  int64_t plane(int64_t n, int64_t b) const { return (n - part_.image) * part_.blocks + b - part_.block; }

  const ConvolutionShape& shape_;
  const ChannelPlan& plan_;
  const ConvolutionArguments& arguments_;
  const BlockPixels<F> block_pixels_;
  const F* scale_;
  const int64_t channels_;  // of the input
  const bool direct_;       // whether the input is read in place
  const int64_t together_;  // channels of an element
  const int64_t plane_;     // elements
  const int64_t chunks_;
  BatchPart part_{};
  ScratchBuffer<F> memory_;
  std::vector<std::atomic<State>> states_;  // of chunks: [plane][chunk]
  std::vector<int64_t> widths_;             // elements per pixel of planes whose borders are clear
};

}  // namespace deploydcn::cpu
