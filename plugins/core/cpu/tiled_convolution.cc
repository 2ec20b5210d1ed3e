#include "core/cpu/tiled_convolution.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "core/cpu/arranged_constants.h"
#include "core/cpu/batch_parts.h"
#include "core/cpu/blocked_image.h"
#include "core/cpu/image_window.h"
#include "core/cpu/tap_positions.h"
#include "core/cpu/thread_arena.h"
#include "core/cpu/tile_sizes.h"

namespace deploydcn::cpu {
namespace {

constexpr int64_t kNearBytes = 4 * 1024 * 1024;  // of weights that stay in the second-level cache

template <class F>
class Convolution {
 public:
  // Of as many of the parts as it gets to take.
  Convolution(const ConvolutionShape& shape, const PackedWeights<F>& weights, const ConvolutionArguments& arguments,
              CpuContext& context, BatchParts<F>& parts)
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
        overlaps_(choose_overlap(weights) && !separable()),
        parts_(parts),
        accumulators_(plan_.small_group ? plan_.block_width
                                        : plan_.most_groups(parts.largest().blocks) * plan_.columns * sums_),
        tiles_(choose_tiles(shape, weights, overlaps_, accumulators_, parts.largest(), parts.threads())),
        tile_(round_up(tiles_.largest(), kernels_.lanes)),
        shares_(choose_shares(plan_, parts.largest().images * tiles_.count(), parts.threads())),
        image_(shape, plan_, arguments, block_pairs(), weights.channel_scale(), parts.largest(), context),
        positions_(shape, arguments, plan_.offset_groups, tile_,
                   choose_kept<F>(shape, plan_, parts.largest(), tiles_, parts.threads()), context),
        windows_(ImageWindow<F>::suits(shape, plan_) ? ImageWindow<F>::number_call() : 0),
        bias_(context, arranged_bias_count(shape, plan_, row_)) {}

  // Returns false where sums were not finite and the products are for finite values only.
  bool run() {
    arrange_bias(shape_, plan_, row_, load_bias<F>(arguments_, shape_.outputs), bias_.data());
    if (matrix_.sums == Sums::kWhole) find_corrections();
    if (separable()) stage_ = arrange_stage<F>(shape_, plan_, arguments_.depthwise);
    while (const std::optional<BatchPart> part = parts_.take()) run_part(*part);
    return !spoiled_;
  }

 private:
  void run_part(const BatchPart& part) {
    image_.begin(part);
    const int64_t first = first_tile(part.piece, part), tiles = first_tile(part.piece + 1, part) - first;
    parallel_for(context_, part.images * tiles * shares_, [&](int64_t task) {
      const int64_t index = task / shares_, image = index / tiles, tile = first + index % tiles;
      Workspace w = make_workspace(image * tiles_.count() + tile);
      if (plan_.small_group) {
        run_small_groups(tile_at(part, image, tile, task % shares_), w);
      } else {
        run_tile(tile_at(part, image, tile, task % shares_), w);
      }
      positions_.keep(image * tiles_.count() + tile, w.positions);
    });
  }
  int64_t first_tile(int64_t piece, const BatchPart& part) const { return piece * tiles_.count() / part.pieces; }

  const ChannelPlan::Block& block(int64_t b) const { return plan_.blocks[static_cast<std::size_t>(b)]; }
  bool deformable() const { return arguments_.offset.present; }
  // Bilinear samples of products alone are taken of pairs.
  BlockPixels<F> block_pairs() const { return deformable() && !plan_.small_group ? matrix_.block_pairs : nullptr; }
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
    typename TapPositions<F>::Buffers positions;
    unsigned char* panel;
    F* depthwise;  // sums of a separable convolution, [pixel][CB]
    F* tile;
    F* out;           // [channel][pixel], where the stored type is not F
    F* chunk;         // of a blocked copy
    const F* window;  // what the tile samples instead of the blocked image, if not null
  };

  Workspace make_workspace(int64_t tile) const {
    const int64_t panel_pixels = overlaps_ ? 2 * matrix_.together : tile_;
    const int64_t panel = plan_.small_group ? 0 : panel_pixels * matrix_.pixel_bytes;
    const int64_t sums = accumulators_ * tile_ + kernels_.lanes;  // and room for a vector from every lane on
    const int64_t depthwise = separable() ? tile_ * plan_.block_width : 0;
    const int64_t widest = std::max<int64_t>(row_, plan_.block_width);
    const int64_t floats = tile_ * widest + sums + depthwise + image_.buffer();
    ThreadArena& arena = thread_arena();
    arena.reset(positions_.bytes() + ThreadArena::bytes_for<unsigned char>(panel) + ThreadArena::bytes_for<F>(floats) +
                3 * ThreadArena::bytes_for<F>(0));
    Workspace w{};
    w.positions = positions_.take(arena, tile);
    w.panel = arena.take<unsigned char>(panel);
    w.depthwise = arena.take<F>(depthwise);
    w.tile = arena.take<F>(sums);
    w.out = arena.take<F>(widest * tile_);
    w.chunk = arena.take<F>(image_.buffer());
    return w;
  }

  // Output pixels [first, first + pixels) of image n, columns [begin, end) of the product's outputs, and channel
  // blocks.
  struct Tile {
    int64_t n, first, pixels, begin, end, first_block, end_block;
    PixelRun run() const { return {n, first, pixels}; }
  };
  Tile tile_at(const BatchPart& part, int64_t image, int64_t tile, int64_t share) const {
    const int64_t first = tiles_.begin(tile), pixels = tiles_.begin(tile + 1) - first;
    const int64_t begin = share * plan_.columns / shares_, end = (share + 1) * plan_.columns / shares_;
    return {part.image + image, first, pixels, begin, end, part.block, part.block + part.blocks};
  }

  // One step of the product: a tap block of a channel block, for one tile.
  struct Step {
    int64_t block;
    int tap_begin, tap_end;
    int taps() const { return tap_end - tap_begin; }
  };

  void run_tile(const Tile& tile, Workspace& w) {
    if (overlaps_) {
      run_steps_at_once(tile, w);
    } else {
      run_steps(tile, w);
    }
    finish_tile(tile, w);
  }

  int product_taps() const { return separable() ? 1 : static_cast<int>(shape_.taps()); }
  Step step_from(int64_t b, int tap) const { return {b, tap, std::min(product_taps(), tap + plan_.tap_block)}; }
  Step step_after(const Step& step) const {
    return step.tap_end < product_taps() ? step_from(step.block, step.tap_end) : step_from(step.block + 1, 0);
  }

  void run_steps(const Tile& tile, Workspace& w) {
    const unsigned char* weight = weights_.packed(tile.first_block);
    for (Step step = step_from(tile.first_block, 0); step.block < tile.end_block; step = step_after(step)) {
      if (step.tap_begin == 0) enter_block(tile, step.block, w);
      fill_panel(tile, step, w);
      weight = multiply(tile, step, weight, w);
    }
  }

  // The same where the product's kernels sample the next pixels while they multiply.
  void run_steps_at_once(const Tile& tile, Workspace& w) {
    const unsigned char* weight = weights_.packed(tile.first_block);
    void* panels[] = {w.panel, w.panel + matrix_.together * matrix_.pixel_bytes};
    bool begun = false;
    Sampling<F> now{}, then{};
    for (Step step = step_from(tile.first_block, 0); step.block < tile.end_block; step = step_after(step)) {
      if (!begun) {
        enter_block(tile, step.block, w);
        now = sampling(tile, step, w);
        sample(now, std::min(now.pixels, matrix_.together), panels[0]);
      }
      const Step next = step_after(step);
      // Positions of other offset groups would take the place of those still read.
      begun = next.block < tile.end_block && block(next.block).offset_group == block(step.block).offset_group;
      if (begun) then = sampling(tile, next, w);
      const ChannelPlan::Segment& segment = block(step.block).segments.front();
      Product<F> product = product_of(tile, step, segment, tile.begin, w);
      product.outputs = static_cast<int>(std::min(tile.end * row_, plan_.outputs_per_group) - tile.begin * row_);
      product.weight = weight + tile.begin * packed_bytes(product, plan_.vectors);
      matrix_.sample_and_multiply(now, begun ? &then : nullptr, product, tile_ * sums_, panels);
      weight += plan_.columns * packed_bytes(product, plan_.vectors);
      now = then;
    }
  }

  void enter_block(const Tile& tile, int64_t b, Workspace& w) {
    positions_.locate(tile.run(), block(b).offset_group, w.positions);
    if (windows_) {
      w.window = ImageWindow<F>::of_thread().enter(windows_, image_, tile.n, shape_, tile.pixels,
                                                   shape_.taps() * plan_.offset_groups, w.positions.located, w.chunk);
    }
  }

  Sampling<F> sampling(const Tile& tile, const Step& step, Workspace& w) {
    return {sampled_block(tile.n, step.block, w),
            &w.positions.located.taps,
            step.tap_begin,
            step.tap_end,
            tile.pixels,
            deformable()};
  }

  // A block, of which everything is there that the positions located last read.
  SampledBlock<F> sampled_block(int64_t n, int64_t b, const Workspace& w) {
    if (!w.window) image_.need(n, b, w.positions.located.low, w.positions.located.high, w.chunk);
    SampledBlock<F> sampled{
        w.window ? w.window : image_.block(n, b), image_.row(b), block(b).width, plan_.offset_groups, F{0}, F{0}};
    if (arguments_.quantization) {
      sampled.low = static_cast<F>(lowest_of(arguments_.input.dtype) - arguments_.quantization->input_zero);
      sampled.high = static_cast<F>(highest_of(arguments_.input.dtype) - arguments_.quantization->input_zero);
    }
    return sampled;
  }

  void sample(const Sampling<F>& from, int64_t pixels, void* panel) const {
    const auto fill = from.bilinear ? matrix_.sample_bilinear : matrix_.sample_exact;
    fill(from.block, *from.taps, from.tap_begin, from.tap_end, pixels, panel);
  }

  // What the product multiplies: samples, or the finished sums of the depthwise stage.
  void fill_panel(const Tile& tile, const Step& step, Workspace& w) {
    if (!separable()) return sample(sampling(tile, step, w), tile.pixels, w.panel);
    const SampledBlock<F> sampled = sampled_block(tile.n, step.block, w);
    const int taps = static_cast<int>(shape_.taps());
    kernels_.group_sums_exact(sampled, w.positions.located.taps, taps, tile.pixels, 1,
                              stage_.weights.data() + step.block * taps * plan_.block_width, w.depthwise);
    matrix_.fill_panel(w.depthwise, tile.pixels, sampled.cb, stage_.bias.data() + step.block * plan_.block_width,
                       arguments_.depthwise.activation, w.panel);
  }

  // Of a segment of a step's block and one column, but for its weights.
  Product<F> product_of(const Tile& tile, const Step& step, const ChannelPlan::Segment& segment, int64_t column,
                        const Workspace& w) const {
    const int cb = block(step.block).width;
    // Whole blocks are contiguous over taps: one long product instead of one per tap.
    const bool whole = matrix_.whole_blocks || segment.depth == cb;
    Product<F> product{};
    product.panel = w.panel;
    product.channel = segment.channel_in_block;
    product.pixels = tile.pixels;
    product.taps = whole ? 1 : step.taps();
    product.tap_stride = cb;
    product.depth = whole ? int64_t{step.taps()} * cb : segment.depth;
    product.far_weight = far_weights_;
    product.vectors = plan_.vectors_of(column);
    product.outputs = static_cast<int>(std::min<int64_t>(row_, plan_.outputs_per_group - column * row_));
    product.tile = sums_of(tile, segment.group, column, w);
    product.accumulate = !(segment.opens_group && step.tap_begin == 0);
    product.out_stride = shape_.out_pixels();
    if (step.block + 1 == tile.end_block && step.tap_end == product_taps() && stored_as<F>(arguments_.input)) {
      const int64_t output = segment.group * plan_.outputs_per_group + column * row_;
      product.out = static_cast<const F*>(arguments_.output) + (tile.n * shape_.outputs + output) * product.out_stride +
                    tile.first;
    }
    return product;
  }
  // Of one of its columns.
  int64_t packed_bytes(const Product<F>& product, int vectors) const {
    return matrix_.pack(nullptr, product.taps * product.depth, vectors * kernels_.lanes, nullptr);
  }

  // Adds one step to the sums; returns where the next step's weights begin.
  const unsigned char* multiply(const Tile& tile, const Step& step, const unsigned char* weight, Workspace& w) const {
    for (const ChannelPlan::Segment& segment : block(step.block).segments) {
      // Once for all groups of the block.
      const bool fetches = step.tap_end == product_taps() && segment.channel_in_block == 0;
      Product<F> product{};
      for (int64_t column = tile.begin; column < tile.end; ++column) {
        product = product_of(tile, step, segment, column, w);
        product.weight = weight + column * packed_bytes(product, plan_.vectors);
        if (fetches) fetch_image(tile, step.block + 1, column);
        matrix_.multiply(product);
      }
      weight += (plan_.columns - 1) * packed_bytes(product, plan_.vectors) + packed_bytes(product, plan_.last_vectors);
    }
    return weight;
  }

  // Fetches what is sampled next, of the following block or else the following tile, a part with every column: while
  // the other blocks were multiplied it has left the second-level cache.
  __attribute__((always_inline)) void fetch_image(const Tile& tile, int64_t block, int64_t column) const {
    const bool same_tile = block < tile.end_block;
    const int64_t first = same_tile ? tile.first : tile.first + tile.pixels;
    const int64_t end = std::min(first + tile.pixels, shape_.out_pixels());
    if (tile.end_block - tile.first_block > 1 && first < end) {
      image_.fetch(tile.n, same_tile ? block : tile.first_block, first, end, column - tile.begin,
                   tile.end - tile.begin);
    }
  }

  F* sums_of(const Tile& tile, int64_t group, int64_t column, const Workspace& w) const {
    return w.tile + ((group - plan_.first_group(tile.first_block)) * plan_.columns + column) * tile_ * sums_;
  }

  void finish_tile(const Tile& tile, Workspace& w) {
    for (int64_t group = plan_.first_group(tile.first_block), end = plan_.end_group(tile.end_block); group < end;
         ++group) {
      for (int64_t column = tile.begin; column < tile.end; ++column) {
        const int64_t i = group * plan_.columns + column, output = column * row_;
        const int channels = static_cast<int>(std::min<int64_t>(row_, plan_.outputs_per_group - output));
        if (!finish(sums_of(tile, group, column, w), plan_.vectors_of(column) * kernels_.lanes, i * row_, channels,
                    tile, group * plan_.outputs_per_group + output, 1, w)) {
          spoiled_ = true;
        }
      }
    }
  }

  void run_small_groups(const Tile& tile, Workspace& w) {
    const int group = plan_.small_group, taps = static_cast<int>(shape_.taps()), cb = plan_.block_width;
    const F* weight = weights_.values() + tile.first_block * plan_.turns * taps * group * cb;
    const auto group_sums = arguments_.quantization ? kernels_.group_sums_rounded
                            : deformable()          ? kernels_.group_sums_bilinear
                                                    : kernels_.group_sums_exact;
    for (int64_t b = tile.first_block; b < tile.end_block; ++b) {
      positions_.locate(tile.run(), block(b).offset_group, w.positions);
      const SampledBlock<F> sampled = sampled_block(tile.n, b, w);
      for (int64_t turn = 0; turn < plan_.turns; ++turn, weight += taps * group * cb) {
        group_sums(sampled, w.positions.located.taps, taps, tile.pixels, group, weight, w.tile);
        finish_small_groups(tile, b, turn, w);
      }
    }
  }

  void finish_small_groups(const Tile& tile, int64_t b, int64_t turn, Workspace& w) const {
    const int64_t cb = plan_.block_width, outputs = plan_.outputs_per_group;
    // Outputs of neighbouring lanes are as far apart in all of a block only with one channel or one turn of all lanes.
    const bool even = plan_.small_group == 1 || outputs == plan_.small_group;
    const int step = even ? block(b).channels : plan_.small_group;
    for (int lane = 0; lane < block(b).channels; lane += step) {
      const int left = static_cast<int>(std::min<int64_t>(step, even ? step : outputs - turn * step));
      finish(w.tile + lane, cb, (b * plan_.turns + turn) * cb + lane, left, tile,
             plan_.small_group_output(block(b), turn, lane), plan_.small_group == 1 ? outputs : 1, w);
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
  const bool overlaps_;  // samples are taken while others are multiplied
  BatchParts<F>& parts_;
  const int64_t accumulators_;  // per pixel
  const PixelTiles tiles_;      // of an image
  const int64_t tile_;          // room for a tile's pixels: whole vectors
  const int64_t shares_;        // of the outputs, each a task of its own
  BlockedImage<F> image_;
  TapPositions<F> positions_;
  const int64_t windows_;  // the number of a call whose tiles sample windows of the image; 0: none
  ScratchBuffer<F> bias_;
  ArrangedStage<F> stage_;
  std::vector<int32_t> corrections_;  // of sums that are whole numbers, in their order
  std::atomic<bool> spoiled_{false};
};

// Returns as Convolution::run does.
template <class F>
bool convolve_parts(const ConvolutionShape& shape, const PackedWeights<F>& weights,
                    const ConvolutionArguments& arguments, CpuContext& context) {
  BatchParts<F> parts(shape, weights.plan());
  if (parts.workers() == 1) return Convolution<F>(shape, weights, arguments, context, parts).run();
  std::atomic<bool> good{true};
  parallel_for(context, parts.workers(), [&](int64_t) {
    ContextOfOne alone(context);
    if (parts.left() && !Convolution<F>(shape, weights, arguments, alone, parts).run()) good = false;
  });
  return good;
}

}  // namespace

template <class F>
void convolve(const ConvolutionShape& shape, const PackedWeights<F>& weights, const ConvolutionArguments& arguments,
              CpuContext& context) {
  if (shape.batch == 0) return;
  if (convolve_parts(shape, weights, arguments, context)) return;
  const PackedWeights<F> fused(arguments.weight, shape.groups, shape.offset_groups, Products::kFused);
  convolve_parts(shape, fused, arguments, context);
}

template void convolve<float>(const ConvolutionShape&, const PackedWeights<float>&, const ConvolutionArguments&,
                              CpuContext&);
template void convolve<double>(const ConvolutionShape&, const PackedWeights<double>&, const ConvolutionArguments&,
                               CpuContext&);

}  // namespace deploydcn::cpu
