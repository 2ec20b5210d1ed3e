#include "core/cpu/tiled_convolution.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "core/cpu/arranged_constants.h"
#include "core/cpu/blocked_image.h"
#include "core/cpu/thread_arena.h"
#include "core/cpu/tile_sizes.h"

namespace deploydcn::cpu {
namespace {

constexpr int64_t kTapsAhead = 2;                // whose positions are fetched
constexpr int64_t kNearBytes = 4 * 1024 * 1024;  // of weights that stay in the second-level cache

template <class F>
class Convolution {
 public:
  Convolution(const ConvolutionShape& shape, const PackedWeights<F>& weights, const ConvolutionArguments& arguments,
              CpuContext& context)
      : shape_(shape),
        plan_(weights.plan()),
        weights_(weights),
        matrix_(weights.matrix()),
        arguments_(arguments),
        context_(context),
        kernels_(tile_kernels<F>()),
        row_(plan_.vectors * kernels_.lanes),
        sums_(row_ * matrix_.kept / 4),
        far_weights_(static_cast<int64_t>(weights.packed_bytes()) > kNearBytes),
        accumulators_(shape.depthwise() ? plan_.block_width : shape.groups * plan_.columns * sums_),
        tiles_(choose_tiles(shape, plan_, matrix_, accumulators_)),
        tile_(round_up(tiles_.largest(), kernels_.lanes)),
        parts_(choose_parts(shape, plan_, tiles_.count())),
        image_(shape, plan_, arguments, weights.channel_scale(), context),
        bias_(context, arranged_bias_count(shape, plan_, row_)) {}

  // Returns false where sums were not finite and the products are for finite values only.
  bool run() {
    arrange_bias(shape_, plan_, row_, load_bias<F>(arguments_, shape_.outputs), bias_.data());
    if (matrix_.sums == Sums::kWhole) find_corrections();
    if (separable()) stage_ = arrange_stage<F>(shape_, plan_, arguments_.depthwise);
    if (planes()) find_planes();
    parallel_for(context_, shape_.batch * tiles_.count() * parts_, [&](int64_t task) {
      Workspace w = make_workspace();
      if (shape_.depthwise()) {
        run_depthwise(tile_at(task), w);
      } else if (planes()) {
        run_planes(tile_at(task), w);
      } else {
        run_tile(tile_at(task), w);
      }
    });
    return !spoiled_;
  }

 private:
  int64_t blocks() const { return static_cast<int64_t>(plan_.blocks.size()); }
  bool deformable() const { return arguments_.offset.present; }
  bool planes() const { return plan_.planes && deformable(); }
  bool separable() const { return arguments_.depthwise.weight.present; }

  // -------------------------------------------------------------------------------------------- bias and weights

  // What sums of samples counted from the lowest lack.
  void find_corrections() {
    const int32_t low = lowest_of(arguments_.input.dtype) - arguments_.quantization->input_zero;
    for (const int32_t sum : weights_.weight_sums()) corrections_.push_back(low * sum);
  }

  // ------------------------------------------------------------------------------------------------------- tiles
  // The arrays a run of tiles needs, in the running thread's arena.
  struct Workspace {
    int32_t *base_y, *base_x;       // [pixel]
    Taps<F> taps;                   // of the offset group located last
    F *offset_y, *offset_x, *mask;  // [pixel], where the stored type is not F
    unsigned char* panel;
    F* planes;
    F* depthwise;  // sums of a separable convolution, [pixel][CB]
    F* tile;       // or sums of planes
    F* out;        // [channel][pixel], where the stored type is not F
  };

  Workspace make_workspace() const {
    const int64_t taps = shape_.taps(), slack = kMostVectors * kernels_.lanes;
    const int64_t planes_size = planes() ? taps * plan_.block_width * tile_ + slack : 0;
    const int64_t panel = planes() || shape_.depthwise() ? 0 : tile_ * matrix_.pixel_bytes;
    const int64_t sums = planes() ? kMostOutputs * (tile_ + slack) : accumulators_ * tile_;
    const int64_t depthwise = separable() ? tile_ * plan_.block_width : 0;
    const int64_t widest = std::max<int64_t>(row_, plan_.block_width);
    const int64_t weights = deformable() ? 4 * taps * tile_ : 0;
    const int64_t floats = tile_ * (3 + widest) + sums + weights + planes_size + depthwise;
    ThreadArena& arena = thread_arena();
    arena.reset(ThreadArena::bytes_for<int32_t>(tile_ * (2 + taps)) + ThreadArena::bytes_for<unsigned char>(panel) +
                ThreadArena::bytes_for<F>(floats) + 10 * ThreadArena::bytes_for<F>(0));
    Workspace w{};
    w.base_y = arena.take<int32_t>(tile_);
    w.base_x = arena.take<int32_t>(tile_);
    w.taps = {arena.take<int32_t>(taps * tile_), arena.take<F>(weights), tile_};
    w.offset_y = arena.take<F>(tile_);
    w.offset_x = arena.take<F>(tile_);
    w.mask = arena.take<F>(tile_);
    w.panel = arena.take<unsigned char>(panel);
    w.planes = arena.take<F>(planes_size);
    w.depthwise = arena.take<F>(depthwise);
    w.tile = arena.take<F>(sums);
    if (planes()) std::fill_n(w.planes + planes_size - slack, slack, F{0});
    w.out = arena.take<F>(widest * tile_);
    return w;
  }

  // Output pixels [first, first + pixels) of image n, and columns [begin, end) of the product's outputs.
  struct Tile {
    int64_t n, first, pixels, begin, end;
  };
  Tile tile_at(int64_t task) const {
    const int64_t index = task / parts_, part = task % parts_, in_image = index % tiles_.count();
    const int64_t first = tiles_.begin(in_image);
    return {index / tiles_.count(), first, tiles_.begin(in_image + 1) - first, part * plan_.columns / parts_,
            (part + 1) * plan_.columns / parts_};
  }

  // One step of the product: a tap block of a channel block, for one tile.
  struct Step {
    int64_t block;
    int tap_begin, tap_end;
    int taps() const { return tap_end - tap_begin; }
  };

  void run_tile(const Tile& tile, Workspace& w) {
    const int product_taps = separable() ? 1 : static_cast<int>(shape_.taps());
    const unsigned char* weight = weights_.packed();
    int64_t located = -1;
    for (int64_t b = 0; b < blocks(); ++b) {
      const int64_t offset_group = plan_.blocks[static_cast<std::size_t>(b)].offset_group;
      if (offset_group != located) locate(tile, located = offset_group, w);
      for (int tap = 0; tap < product_taps; tap += plan_.tap_block) {
        const Step step{b, tap, std::min(product_taps, tap + plan_.tap_block)};
        fill_panel(tile, step, w);
        weight = multiply(tile, step, weight, w);
      }
    }
    finish_tile(tile, w);
  }

  SampledBlock<F> sampled_block(int64_t n, int64_t b) const {
    SampledBlock<F> block{image_.block(n, b), image_.row(), plan_.block_width, F{0}, F{0}};
    if (arguments_.quantization) {
      block.low = static_cast<F>(lowest_of(arguments_.input.dtype) - arguments_.quantization->input_zero);
      block.high = static_cast<F>(highest_of(arguments_.input.dtype) - arguments_.quantization->input_zero);
    }
    return block;
  }

  // What the product multiplies: samples, or the finished sums of the depthwise stage.
  void fill_panel(const Tile& tile, const Step& step, Workspace& w) const {
    const int cb = plan_.block_width;
    const SampledBlock<F> block = sampled_block(tile.n, step.block);
    if (!separable()) {
      const auto sample = deformable() ? matrix_.sample_bilinear : matrix_.sample_exact;
      return sample(block, w.taps, step.tap_begin, step.tap_end, tile.pixels, w.panel);
    }
    const int taps = static_cast<int>(shape_.taps());
    kernels_.depthwise_exact(block, w.taps, taps, tile.pixels, stage_.weights.data() + step.block * taps * cb,
                             w.depthwise);
    matrix_.fill_panel(w.depthwise, tile.pixels, cb, stage_.bias.data() + step.block * cb,
                       arguments_.depthwise.activation, w.panel);
  }

  // Adds one step to the sums; returns where the next step's weights begin.
  const unsigned char* multiply(const Tile& tile, const Step& step, const unsigned char* weight, Workspace& w) const {
    const int cb = plan_.block_width, taps_in_all = separable() ? 1 : static_cast<int>(shape_.taps());
    for (const ChannelPlan::Segment& segment : plan_.blocks[static_cast<std::size_t>(step.block)].segments) {
      // Whole blocks are contiguous over taps: one long product instead of one per tap.
      const bool whole = matrix_.whole_blocks || segment.depth == cb;
      Product<F> product{};
      product.panel = w.panel;
      product.channel = segment.channel_in_block;
      product.pixels = tile.pixels;
      product.taps = whole ? 1 : step.taps();
      product.tap_stride = cb;
      product.depth = whole ? int64_t{step.taps()} * cb : segment.depth;
      product.vectors = plan_.vectors;
      product.far_weight = far_weights_;
      product.accumulate = !(segment.opens_group && step.tap_begin == 0);
      const bool ends_block = step.tap_end == taps_in_all;
      const bool fetches = ends_block && segment.channel_in_block == 0;  // once for all groups of the block
      const bool last = step.block + 1 == blocks() && ends_block && stored_as<F>(arguments_.input);
      product.out_stride = shape_.out_pixels();
      const int64_t bytes = matrix_.pack(nullptr, product.taps * product.depth, static_cast<int>(row_), nullptr);
      for (int64_t column = tile.begin; column < tile.end; ++column) {
        product.outputs = static_cast<int>(std::min<int64_t>(row_, plan_.outputs_per_group - column * row_));
        if (last) {
          const int64_t output = segment.group * plan_.outputs_per_group + column * row_;
          product.out = static_cast<const F*>(arguments_.output) +
                        (tile.n * shape_.outputs + output) * product.out_stride + tile.first;
        }
        product.weight = weight + column * bytes;
        if (fetches) fetch_image(tile, step.block + 1, column);
        product.tile = w.tile + (segment.group * plan_.columns + column) * tile_ * sums_;
        matrix_.multiply(product);
      }
      weight += plan_.columns * bytes;
    }
    return weight;
  }

  // Fetches what is sampled next, of the following block or else the following tile, a part with every column: an image
  // is too large for the second-level cache.
  __attribute__((always_inline)) void fetch_image(const Tile& tile, int64_t block, int64_t column) const {
    const bool same_tile = block < blocks();
    const int64_t first = same_tile ? tile.first : tile.first + tile.pixels;
    const int64_t end = std::min(first + tile.pixels, shape_.out_pixels());
    if (first < end) {
      image_.fetch(tile.n, same_tile ? block : 0, first, end, column - tile.begin, tile.end - tile.begin);
    }
  }

  void finish_tile(const Tile& tile, Workspace& w) {
    for (int64_t group = 0; group < shape_.groups; ++group) {
      for (int64_t column = tile.begin; column < tile.end; ++column) {
        const int64_t i = group * plan_.columns + column, output = column * row_;
        const int channels = static_cast<int>(std::min<int64_t>(row_, plan_.outputs_per_group - output));
        if (!finish(w.tile + i * tile_ * sums_, row_, i * row_, channels, tile,
                    group * plan_.outputs_per_group + output, 1, w)) {
          spoiled_ = true;
        }
      }
    }
  }

  void run_depthwise(const Tile& tile, Workspace& w) const {
    const int64_t multiplier = plan_.outputs_per_group;
    const int taps = static_cast<int>(shape_.taps()), cb = plan_.block_width;
    const F* weight = weights_.values();
    int64_t located = -1;
    for (int64_t b = 0; b < blocks(); ++b) {
      const ChannelPlan::Block& block = plan_.blocks[static_cast<std::size_t>(b)];
      if (block.offset_group != located) locate(tile, located = block.offset_group, w);
      const SampledBlock<F> sampled = sampled_block(tile.n, b);
      const auto depthwise = arguments_.quantization ? kernels_.depthwise_rounded
                             : deformable()          ? kernels_.depthwise_bilinear
                                                     : kernels_.depthwise_exact;
      for (int64_t j = 0; j < multiplier; ++j, weight += taps * cb) {
        depthwise(sampled, w.taps, taps, tile.pixels, weight, w.tile);
        finish(w.tile, cb, (b * multiplier + j) * cb, block.channels, tile, block.channel * multiplier + j, multiplier,
               w);
      }
    }
  }

  // Where the taps of a group's channels lie, from its first channel on, in the order of the weights.
  void find_planes() {
    const int64_t per_group = shape_.channels / shape_.groups;
    for (int64_t c = 0; c < per_group; ++c) {
      for (int64_t tap = 0; tap < shape_.taps(); ++tap) offsets_.push_back((tap * plan_.block_width + c) * tile_);
    }
  }

  void run_planes(const Tile& tile, Workspace& w) const {
    const int64_t per_group = shape_.channels / shape_.groups, outputs = plan_.outputs_per_group;
    const auto depth = static_cast<int64_t>(offsets_.size());
    int64_t located = -1;
    for (int64_t b = 0; b < blocks(); ++b) {
      const ChannelPlan::Block& block = plan_.blocks[static_cast<std::size_t>(b)];
      if (block.offset_group != located) locate(tile, located = block.offset_group, w);
      const auto sample = arguments_.quantization ? kernels_.rounded_planes : kernels_.sample_planes;
      sample(sampled_block(tile.n, b), w.taps, static_cast<int>(shape_.taps()), tile.pixels, w.planes, tile_);
      for (int64_t c = 0; c < block.channels; c += per_group) {
        const int64_t first = (block.channel + c) / per_group * outputs;
        for (int64_t m = 0; m < outputs;) {
          const int at_once = outputs_at_once(outputs - m);
          const int64_t stride = tile_ + kMostVectors * kernels_.lanes;
          kernels_.sum_shifted(w.planes + c * tile_, offsets_.data(), depth, weights_.values() + (first + m) * depth,
                               at_once, tile.pixels, w.tile, stride);
          for (int i = 0; i < at_once; ++i, ++m) finish_plane(w.tile + i * stride, tile, first + m, w);
        }
      }
    }
  }

  void finish_plane(const F* sums, const Tile& tile, int64_t output, Workspace& w) const {
    const int64_t begin = (tile.n * shape_.outputs + output) * shape_.out_pixels() + tile.first, pixels = tile.pixels;
    const F bias =
        bias_.data()[output / plan_.outputs_per_group * plan_.columns * row_ + output % plan_.outputs_per_group];
    const bool direct = stored_as<F>(arguments_.input);
    F* to = direct ? static_cast<F*>(arguments_.output) + begin : w.out;
    kernels_.finish_rows(sums, pixels, 1, pixels, bias, arguments_.activation, to, pixels);
    if (!direct) store_output<F>(arguments_, w.out, pixels, begin);
  }

  // A run of `pixels` stored values as F: in place where the stored type is F already.
  const F* values(const TensorView& view, int64_t begin, int64_t pixels, F* buffer) const {
    if (stored_as<F>(view)) return static_cast<const F*>(view.data) + begin;
    load_as<F>(view.data, view.dtype, begin, pixels, buffer);
    return buffer;
  }

  static const F* finite_or_zero(const F* values, int64_t count, F* out) {
    for (int64_t i = 0; i < count; ++i) out[i] = std::isfinite(values[i]) ? values[i] : F{0};
    return out;
  }

  // Fetches what a tap's positions are computed from: a short run of each plane, which the processor does not foresee.
  // Inline: GCC leaves out calls of a function that does nothing else.
  __attribute__((always_inline)) void fetch_positions(const Tile& tile, int64_t tap) const {
    constexpr int64_t line = 64 / sizeof(F);
    if (!stored_as<F>(arguments_.offset)) return;
    const auto fetch = [&](const TensorView& view, int64_t channel) {
      const F* run = static_cast<const F*>(view.data) + channel * shape_.out_pixels() + tile.first;
      for (int64_t p = 0; p < tile.pixels; p += line) __builtin_prefetch(run + p);
    };
    fetch(arguments_.offset, 2 * tap);
    fetch(arguments_.offset, 2 * tap + 1);
    if (arguments_.mask.present) fetch(arguments_.mask, tap);
  }

  // Positions of every tap for the pixels of a tile.
  void locate(const Tile& tile, int64_t offset_group, Workspace& w) const {
    int64_t row = tile.first / shape_.out_width, column = tile.first % shape_.out_width;
    for (int64_t p = 0; p < tile_; ++p) {  // up to the whole tile: the kernels read whole vectors
      // Rows beyond the last belong to no output; the last one stands in, since a stride is bounded by the rows there
      // are.
      w.base_y[p] = static_cast<int32_t>(std::min(row, shape_.out_height - 1) * shape_.stride_h - shape_.pad_top);
      w.base_x[p] = static_cast<int32_t>(column * shape_.stride_w - shape_.pad_left);
      if (++column == shape_.out_width) {
        column = 0;
        ++row;
      }
    }
    const int64_t taps = shape_.taps(), plane = shape_.out_pixels();
    const int64_t group = tile.n * shape_.offset_groups + offset_group;
    for (int64_t tap = 0; tap < taps; ++tap) {
      const TapGeometry<F> geometry{w.base_y,
                                    w.base_x,
                                    static_cast<int32_t>(tap / shape_.kernel_w * shape_.dilation_h),
                                    static_cast<int32_t>(tap % shape_.kernel_w * shape_.dilation_w),
                                    static_cast<int32_t>(shape_.height),
                                    static_cast<int32_t>(shape_.width)};
      if (!deformable()) {
        kernels_.exact_tap(geometry, tile.pixels, static_cast<int>(tap), w.taps);
        continue;
      }
      const auto read = [&](const TensorView& view, int64_t channel, F* buffer) {
        return values(view, channel * plane + tile.first, tile.pixels, buffer);
      };
      if (tap + kTapsAhead < taps) fetch_positions(tile, group * taps + tap + kTapsAhead);
      const F* mask = arguments_.mask.present ? read(arguments_.mask, group * taps + tap, w.mask) : nullptr;
      if (mask && arguments_.quantization) mask = finite_or_zero(mask, tile.pixels, w.mask);
      kernels_.bilinear_tap(geometry, read(arguments_.offset, 2 * (group * taps + tap), w.offset_y),
                            read(arguments_.offset, 2 * (group * taps + tap) + 1, w.offset_x), mask, tile.pixels,
                            static_cast<int>(tap), w.taps);
    }
  }

  // Writes `channels` output channels, `output`, `output + output_step`, ..., of which the first is the bias' number
  // `place`. Returns as MatrixKernels::finish does.
  bool finish(const F* sums, int64_t row, int64_t place, int channels, const Tile& tile, int64_t output,
              int64_t output_step, Workspace& w) const {
    const auto from_place = [&](const auto& values) { return values.empty() ? nullptr : values.data() + place; };
    const Finishing<F> finishing{bias_.data() + place, from_place(weights_.scale()), from_place(corrections_),
                                 arguments_.activation};
    const int64_t plane = shape_.out_pixels(), begin = (tile.n * shape_.outputs + output) * plane + tile.first;
    if (stored_as<F>(arguments_.input)) {
      return matrix_.finish(sums, row, tile.pixels, channels, finishing, static_cast<F*>(arguments_.output) + begin,
                            output_step * plane);
    }
    const bool good = matrix_.finish(sums, row, tile.pixels, channels, finishing, w.out, tile_);
    for (int c = 0; c < channels; ++c) {
      store_output<F>(arguments_, w.out + c * tile_, tile.pixels, begin + c * output_step * plane);
    }
    return good;
  }

  const ConvolutionShape& shape_;
  const ChannelPlan& plan_;
  const PackedWeights<F>& weights_;
  const MatrixKernels<F>& matrix_;
  const ConvolutionArguments& arguments_;
  CpuContext& context_;
  const TileKernels<F>& kernels_;
  const int64_t row_;   // outputs of a column
  const int64_t sums_;  // of a pixel in a column
  const bool far_weights_;
  const int64_t accumulators_;  // per pixel
  const PixelTiles tiles_;      // of an image
  const int64_t tile_;          // room for a tile's pixels: whole vectors
  const int64_t parts_;         // of the outputs, each a task of its own
  BlockedImage<F> image_;
  ScratchBuffer<F> bias_;
  ArrangedStage<F> stage_;
  std::vector<int64_t> offsets_;      // of planes
  std::vector<int32_t> corrections_;  // of sums that are whole numbers, in their order
  std::atomic<bool> spoiled_{false};
};

}  // namespace

template <class F>
void convolve(const ConvolutionShape& shape, const PackedWeights<F>& weights, const ConvolutionArguments& arguments,
              CpuContext& context) {
  if (shape.batch == 0) return;
  if (Convolution<F>(shape, weights, arguments, context).run()) return;
  const PackedWeights<F> fused(arguments.weight, shape.groups, shape.offset_groups, Products::kFused);
  Convolution<F>(shape, fused, arguments, context).run();
}

template void convolve<float>(const ConvolutionShape&, const PackedWeights<float>&, const ConvolutionArguments&,
                              CpuContext&);
template void convolve<double>(const ConvolutionShape&, const PackedWeights<double>&, const ConvolutionArguments&,
                               CpuContext&);

}  // namespace deploydcn::cpu
