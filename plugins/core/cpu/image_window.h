// The pixels of a blocked image around those that a thread samples at the time, in place of the whole: they stay in the
// second-level cache, where a copy of a large image is written to memory and read again.
//
// A ring: the pixel that is number i of a blocked image (from the first row, borders included) lies at i modulo the
// ring's size. As many pixels as a sample reaches ahead are repeated behind the last, so that no sample needs to know.
// Before the first lie zeros, which samples outside of the image read.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "core/aligned.h"
#include "core/cpu/blocked_image.h"
#include "core/cpu/tap_positions.h"
#include "core/cpu/tile_sizes.h"
#include "core/cpu/tiled_convolution.h"

namespace deploydcn::cpu {

// A thread's, from call to call.
template <class F>
class ImageWindow {
 public:
  static ImageWindow& of_thread() {
    static thread_local ImageWindow window;
    return window;
  }
  // A number for a call, whose pixels are not those of another.
  static int64_t number_call() {
    static std::atomic<int64_t> calls{0};
    return ++calls;
  }
  // Whether a convolution is better off with windows: with one channel block, of images so large that every processor
  // has several to sample.
  static bool suits(const ConvolutionShape& shape, const ChannelPlan& plan) {
    const int64_t ring = ring_size(shape.width), image = (shape.height + 2) * (shape.width + 2);
    return !plan.small_group && plan.blocks.size() == 1 && ring <= kMostPixels &&
           image >= std::max<int64_t>(2, processors()) * ring;
  }

  // The window with all that a tile's samples of image n read, which are then found at the indices that `located` is
  // left with; null, and `located` as it was, where they lie too far apart. buffer: of image.buffer() elements.
  const F* enter(int64_t call, const BlockedImage<F>& image, int64_t n, const ConvolutionShape& shape, int64_t pixels,
                 int64_t taps, typename TapPositions<F>::Located& located, F* buffer) {
    begin(call, image, n, shape);
    if (located.low <= located.high) {
      const int64_t first = chunk_of(located.low), last = chunk_of(located.high + reach_);
      if (start(last + 1) - start(first) > size_) return nullptr;
      if (first < first_ || first > end_) first_ = end_ = first;
      for (; end_ <= last; ++end_) copy(image, end_, buffer);
      while (start(end_) - start(first_) > size_) ++first_;
    }
    for (int64_t tap = 0; tap < taps; ++tap) {
      int32_t* index = located.taps.index + tap * located.taps.stride;
      for (int64_t p = 0; p < pixels; ++p) {
        index[p] = index[p] < 0 ? static_cast<int32_t>(-outside_) : index[p] & static_cast<int32_t>(size_ - 1);
      }
    }
    return ring();
  }

 private:
  static constexpr int64_t kMostPixels = 4096;
  // A power of two, for at least 16 rows: as many as a tile samples with offsets of a few pixels.
  static int64_t ring_size(int64_t width) {
    int64_t size = 1024;
    while (size < 16 * (width + 2)) size *= 2;
    return size;
  }

  static constexpr int64_t kChunk = BlockedImage<F>::kChunk;

  F* ring() { return memory_.data() + outside_ * pixel_; }

  void begin(int64_t call, const BlockedImage<F>& image, int64_t n, const ConvolutionShape& shape) {
    if (call != call_) {
      width_ = shape.width;
      height_ = shape.height;
      pixel_ = image.pixel(0);
      size_ = ring_size(width_);
      reach_ = width_ + 3;
      outside_ = width_ + 4;
      // Chunks may end behind the last pixel of the ring, with the borders above and below the image at worst.
      const int64_t longest = kChunk + 2 * (kChunk / width_ + 2) + 2 * outside_;
      memory_.resize(static_cast<std::size_t>((outside_ + size_ + longest) * pixel_));
      std::fill_n(memory_.data(), outside_ * pixel_, F{0});
    }
    if (call != call_ || n != n_) first_ = end_ = 0;
    call_ = call;
    n_ = n;
  }

  // Of a pixel of the image; of the number of them: where the border below continues.
  int64_t place(int64_t pixel) const { return (pixel / width_ + 1) * (width_ + 2) + pixel % width_ + 1; }
  // Where a chunk begins, with the borders that precede it where it is the first, and where the last ends.
  int64_t start(int64_t chunk) const {
    const int64_t pixels = width_ * height_;
    if (chunk * kChunk >= pixels) return (width_ + 2) * (height_ + 2);
    return chunk == 0 ? 0 : place(chunk * kChunk);
  }
  // The one that writes a place: borders go with the pixel before them.
  int64_t chunk_of(int64_t place) const {
    const int64_t row = place / (width_ + 2) - 1, column = std::min(place % (width_ + 2) - 1, width_ - 1);
    return std::clamp<int64_t>(row * width_ + column, 0, width_ * height_ - 1) / kChunk;
  }

  void copy(const BlockedImage<F>& image, int64_t chunk, F* buffer) {
    const int64_t begin = start(chunk), end = start(chunk + 1), at = begin % size_, behind = at + end - begin;
    F* base = ring() + (at - begin) * pixel_;  // of place 0
    if (chunk == 0) std::fill_n(base, place(0) * pixel_, F{0});
    image.copy_chunk(n_, 0, chunk, buffer, base);
    const int64_t pixels = width_ * height_;
    if (end == (width_ + 2) * (height_ + 2)) {
      std::fill(base + place(pixels) * pixel_, base + end * pixel_, F{0});
    }
    repeat(size_, behind, -size_);
    repeat(at, std::min(behind, reach_), size_);
  }
  // Pixels [begin, end) of the ring again, `by` further on.
  void repeat(int64_t begin, int64_t end, int64_t by) {
    if (begin < end) std::copy(ring() + begin * pixel_, ring() + end * pixel_, ring() + (begin + by) * pixel_);
  }

  std::vector<F, AlignedAllocator<F>> memory_;
  int64_t call_ = 0, n_ = 0;
  int64_t width_ = 0, height_ = 0;
  int64_t pixel_ = 0;            // elements
  int64_t size_ = 0;             // pixels
  int64_t reach_ = 0;            // from a sample's first corner to its last
  int64_t outside_ = 0;          // pixels of zeros
  int64_t first_ = 0, end_ = 0;  // chunks that are there
};

}  // namespace deploydcn::cpu
