// Convolution whose input is sampled tile by tile: deformable (bilinear samples at offset positions) or plain (exact
// samples on the grid), in any number of groups. The im2col matrix never exists in full: one tile of output pixels is
// sampled into cache, multiplied at once and written out.
//
//   per part of the batch: all of it, or blocks that whole groups lie in   (BatchParts; parallel if many)
//     per tile of output pixels:                                           (else parallel over images, tiles)
//       locate        positions of every tap, of the offset groups of a block
//       copy          NCHW -> channel blocks with a zero border, as far as samples are the first to read there
//       per channel block and tap block: sample -> panel, panel * weights -> tile
//                          (separable: depthwise sums, finished -> panel;
//                           few channels per group, or depthwise: samples * weights -> tile)
//       finish        bias, activation, back to NCHW
//
// Memory beyond input, output and packed weights: a blocked copy of the parts at hand, and a few MiB per thread,
// positions that are kept for the next part included. The copy pads offset groups to whole vectors, unless several fill
// a block: it may be larger than the input. A separable convolution with several depthwise results per channel copies
// the channel as often. Of a large image of one channel block each thread keeps a window (image_window.h), and the copy
// is written only where samples lie too far apart for that.
#pragma once

#include <vector>

#include "core/activation.h"
#include "core/aligned.h"
#include "core/cpu/tile_kernels.h"
#include "core/cpu_op.h"

namespace deploydcn::cpu {

// Sizes of one convolution call. h before w everywhere.
struct ConvolutionShape {
  int64_t batch, channels, height, width;
  int64_t outputs, out_height, out_width;
  int64_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w;
  int64_t groups, offset_groups;

  int64_t taps() const { return kernel_h * kernel_w; }
  int64_t pixels() const { return height * width; }
  int64_t out_pixels() const { return out_height * out_width; }
};

// Throws InvalidArgument where a position would not fit the kernels' 32-bit pixel indices.
void check_limits(const ConvolutionShape& shape);

// What a separable convolution does before the product, whose channels are its results. Its window is the shape's;
// the product has a single tap.
struct DepthwiseStage {
  TensorView weight;  // (channels of the product, 1, KH, KW); absent: no such stage
  TensorView bias;    // (channels of the product); absent: 0
  int64_t channels;   // of the input; those of the product are a multiple
  Activation activation;
};

// What whole numbers of 8 bits stand for: (number - zero) * scale. Weights have no zero point.
struct Quantization {
  int32_t input_zero, output_zero;
  std::vector<float> scale;  // of the sums of every output: the input's times the weight's
  float output_scale;
};

struct ConvolutionArguments {
  TensorView input;   // (N, C, H, W)
  TensorView weight;  // (M, C / groups, KH, KW), or (M, C, 1, 1) behind a depthwise stage
  TensorView offset;  // (N, 2 * OG * KH * KW, OH, OW); absent: a plain convolution
  TensorView mask;    // (N, OG * KH * KW, OH, OW); absent: 1
  TensorView bias;    // (M); absent: 0
  void* output;       // (N, M, OH, OW), of the input's dtype
  Activation activation;
  DepthwiseStage depthwise = {};
  const Quantization* quantization = nullptr;  // of 8-bit data, whose samples are rounded; null: floating point
};

// How channels are cut into blocks and outputs into vectors; depends on the weight's shape and the groups only.
struct ChannelPlan {
  // Consecutive channels of one block that belong to one convolution group.
  struct Segment {
    int64_t group;
    int channel_in_block;
    int depth;
    int channel_in_group;
    bool opens_group;  // the first contribution to the group's sums
  };
  struct Block {
    int64_t channel;
    int channels;
    int width;                      // they are padded to
    int64_t offset_group;           // the first
    std::vector<Segment> segments;  // empty for small groups
  };
  int block_width;    // CB: channels per block, a multiple of the vector lanes; last ones may be narrower
  int offset_groups;  // per block: 1, or as many as fill it
  int vectors;        // vectors per accumulator row
  int tap_block;      // taps sampled at a time
  // Channels of a group so small that products of matrices would leave most of their vectors empty: sums of outputs
  // stay in the lanes of the group's channels. 1 is a depthwise convolution; 0: groups are not small.
  int small_group;
  int64_t outputs_per_group;
  // Outputs per channel of a small group, rounded up: so many times its sums are taken.
  int64_t turns;
  int64_t columns;   // accumulator rows per group: ceil(outputs_per_group / (vectors * lanes))
  int last_vectors;  // of the last of them
  std::vector<Block> blocks;
  int64_t group_blocks;  // every so many blocks begin with a group

  // Of the groups that blocks begin and end with.
  int64_t first_group(int64_t block) const { return blocks[static_cast<std::size_t>(block)].segments.front().group; }
  int64_t end_group(int64_t end_block) const {
    return blocks[static_cast<std::size_t>(end_block) - 1].segments.back().group + 1;
  }
  // Groups of so many blocks, at most.
  int64_t most_groups(int64_t together) const {
    const int64_t count = static_cast<int64_t>(blocks.size());
    int64_t most = 0;
    for (int64_t b = 0; b < count; b += together) {
      most = std::max(most, end_group(std::min(count, b + together)) - first_group(b));
    }
    return most;
  }
  int vectors_of(int64_t column) const { return column + 1 < columns ? vectors : last_vectors; }
  // The output whose sums a lane of a block of small groups takes in a turn; -1: there is none.
  int64_t small_group_output(const Block& block, int64_t turn, int lane) const {
    const int64_t in_group = turn * small_group + lane % small_group;
    if (lane >= block.channels || in_group >= outputs_per_group) return -1;
    return (block.channel + lane) / small_group * outputs_per_group + in_group;
  }
};

// Channel blocks [block, block + blocks) of images [image, image + images) of a batch, one of so many pieces of the
// output pixels.
struct BatchPart {
  int64_t image, images, block, blocks, piece = 0, pieces = 1;
};

template <class F>
class PackedWeights {
 public:
  // weight: as of ConvolutionArguments. scale: of every output's sums, for kBytes.
  PackedWeights(const TensorView& weight, int64_t groups, int64_t offset_groups, Products products,
                Span<const float> scale = {});

  const ChannelPlan& plan() const { return plan_; }
  // How samples are multiplied by `packed`.
  const MatrixKernels<F>& matrix() const { return *matrix_; }
  // From a block of the plan on.
  const unsigned char* packed(int64_t block) const { return packed_.data() + begin_[static_cast<std::size_t>(block)]; }
  std::size_t packed_bytes() const { return packed_.size(); }
  // In the order of the sums: of every output, the sum of its weights, if sums are whole, and the scale of its sums,
  // unless they are plain.
  const std::vector<int32_t>& weight_sums() const { return weight_sums_; }
  const std::vector<F>& scale() const { return scale_; }
  // By which every channel of the input is to be multiplied; null: 1.
  const F* channel_scale() const { return channel_scale_.empty() ? nullptr : channel_scale_.data(); }
  // Of small groups, which have no products.
  const F* values() const { return values_.data(); }

 private:
  void pack_matrix(const ConvolutionShape& shape, const F* weight);
  void pack_small_groups(const ConvolutionShape& shape, const F* weight);
  // Of an output in the order of the sums.
  int64_t place(int64_t output) const;
  // Calls body(place of the output, channel, weight).
  template <class Body>
  void each_weight(const ConvolutionShape& shape, F* weight, const Body& body) const;
  void sum_weights(const ConvolutionShape& shape, F* weight, Span<const float> scale);
  void balance_weights(const ConvolutionShape& shape, F* weight);

  const MatrixKernels<F>* matrix_;
  ChannelPlan plan_;
  std::vector<unsigned char, AlignedAllocator<unsigned char>> packed_;
  std::vector<std::size_t> begin_;  // of every block's
  std::vector<int32_t> weight_sums_;
  std::vector<F> scale_, channel_scale_;
  std::vector<F, AlignedAllocator<F>> values_;
};

// Runs one convolution. Thread-safe for shared weights.
template <class F>
void convolve(const ConvolutionShape& shape, const PackedWeights<F>& weights, const ConvolutionArguments& arguments,
              CpuContext& context);

}  // namespace deploydcn::cpu
