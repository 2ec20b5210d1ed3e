// The parts of a batch that are convolved one after the other, and who does so: all threads together, tile by tile, or
// every thread on parts of its own, which it then neither waits for nor shares caches for.
#pragma once

#include <algorithm>
#include <atomic>
#include <optional>

#include "core/cpu/tile_sizes.h"
#include "core/cpu/tiled_convolution.h"
#include "core/cpu_op.h"

namespace deploydcn::cpu {

// Hands out the parts of a batch to any number of threads.
//
// Sums over all channels take everything at once. Of groups, a part is what is copied and convolved at a time, so that
// the copy is still near when it is sampled: for every worker the blocks of an image that some groups lie in. Blocks
// that are large or cannot be dealt out evenly are cut into pieces of the output pixels, of which each copies what it
// samples. Where such parts are too few or too large, all threads together take a few blocks of small groups, or else
// everything.
template <class F>
class BatchParts {
 public:
  BatchParts(const ConvolutionShape& shape, const ChannelPlan& plan)
      : images_(shape.batch), blocks_(static_cast<int64_t>(plan.blocks.size())) {
    const int64_t together = plan.group_blocks, parts = images_ * blocks_ / together;
    const int64_t bytes = (Checked((shape.height + 2) * (shape.width + 2)) * Checked(together * plan.block_width) *
                           Checked(int64_t{sizeof(F)}))
                              .value();
    const bool enough = parts >= processors() || (parts * kMostPieces >= processors() && bytes <= kNearPartBytes);
    if ((plan.small_group || together < blocks_) && enough) {
      largest_ = {0, 1, 0, together, 0, choose_pieces(parts, bytes)};
      workers_ = processors();
    } else if (plan.small_group) {
      const int64_t most = std::max<int64_t>(1, kCopyBytes * processors() / bytes);
      largest_ = {0, std::clamp<int64_t>(most / blocks_, 1, images_), 0, std::min(blocks_, most)};
    } else {
      largest_ = {0, images_, 0, blocks_};
    }
    of_image_ = ceil_div(blocks_, largest_.blocks) * largest_.pieces;
    count_ = ceil_div(images_, largest_.images) * of_image_;
  }

  const BatchPart& largest() const { return largest_; }
  // Who take parts: each processor alone, or all together as one.
  int64_t workers() const { return workers_; }
  // Of each worker.
  int64_t threads() const { return processors() / workers_; }

  bool left() const { return next_ < count_; }
  std::optional<BatchPart> take() {
    const int64_t index = next_++;
    if (index >= count_) return std::nullopt;
    const int64_t image = index / of_image_ * largest_.images;
    const int64_t block = index % of_image_ / largest_.pieces * largest_.blocks;
    return BatchPart{image,
                     std::min(largest_.images, images_ - image),
                     block,
                     std::min(largest_.blocks, blocks_ - block),
                     index % largest_.pieces,
                     largest_.pieces};
  }

 private:
  static constexpr int64_t kMostPieces = 4;               // of a part
  static constexpr int64_t kNearPartBytes = 1024 * 1024;  // about a second-level cache

  // What is copied twice at a piece's border costs about as much as 3 % of a part.
  static int64_t choose_pieces(int64_t whole_parts, int64_t bytes) {
    const auto cost = [&](int64_t pieces) {
      const int64_t parts = whole_parts * pieces;
      return static_cast<double>(round_up(parts, processors())) / static_cast<double>(parts) + 0.03 * (pieces - 1);
    };
    int64_t best = std::min(kMostPieces, ceil_div(bytes, kNearPartBytes));
    for (int64_t pieces = best + 1; pieces <= kMostPieces; ++pieces) best = cost(pieces) < cost(best) ? pieces : best;
    return best;
  }

  const int64_t images_, blocks_;
  BatchPart largest_;
  int64_t workers_ = 1, of_image_, count_;
  std::atomic<int64_t> next_{0};
};

// What a thread that works alone sees of a context.
class ContextOfOne final : public CpuContext {
 public:
  explicit ContextOfOne(CpuContext& all) : all_(all) {}
  void run(int64_t count, void (*task)(void* state, std::size_t index), void* state) override {
    for (int64_t i = 0; i < count; ++i) task(state, static_cast<std::size_t>(i));
  }
  void* allocate(std::size_t bytes) override { return all_.allocate(bytes); }
  void release(void* memory) noexcept override { all_.release(memory); }
  void* output(std::size_t index, const Shape& shape) override { return all_.output(index, shape); }

 private:
  CpuContext& all_;
};

}  // namespace deploydcn::cpu
