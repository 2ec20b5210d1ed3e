// Deformable RoI pooling: the images are copied once into channel blocks; a bin's mean is then a weighted sum of
// pixels, a vector of channels at a time.
#include "ops/deform_roi_pool/deform_roi_pool_cpu.h"

#include <algorithm>

#include "core/cpu/blocked_image.h"
#include "core/cpu/boxes.h"
#include "core/cpu/thread_arena.h"
#include "ops/deform_roi_pool/bin_samples.h"
#include "ops/deform_roi_pool/spec.gen.h"

namespace deploydcn::deform_roi_pool {
namespace {

enum Input { kImages, kRois, kOffset };
constexpr int kMostVectors = 4;          // of channels per block
constexpr int64_t kPixelsAtOnce = 1024;  // added up in one run: sums of runs lose less

// A pixel along one axis, and the weight of all samples of a bin that read it.
template <class Sum>
struct WeightedPixel {
  int64_t pixel;
  Sum weight;
};

// A sample's bilinear weight is the product of its row's and its column's: a bin reads rows x columns of these. Samples
// that lie close together share pixels, which are then read once.
template <class Sum>
void collect(const BinSamples& samples, int size, std::vector<Sum>& weights, std::vector<WeightedPixel<Sum>>& pixels) {
  if (samples.begin >= samples.end) return pixels.clear();
  if (!samples.close()) {
    pixels.resize(2 * static_cast<std::size_t>(samples.end - samples.begin));
    WeightedPixel<Sum>* pixel = pixels.data();
    for (int i = samples.begin; i < samples.end; ++i) {
      const roi::Neighbours at = roi::neighbours(samples.position(i), size);
      *pixel++ = {at.low, Sum(1) - at.fraction};
      *pixel++ = {at.high, at.fraction};
    }
    return;
  }
  const int one = roi::neighbours(samples.position(samples.begin), size).low;
  const int other = roi::neighbours(samples.position(samples.end - 1), size).low;
  const int first = std::min(one, other), last = std::min(std::max(one, other) + 1, size - 1);
  weights.assign(static_cast<std::size_t>(last - first + 1), Sum(0));
  for (int i = samples.begin; i < samples.end; ++i) {
    const roi::Neighbours at = roi::neighbours(samples.position(i), size);
    weights[at.low - first] += Sum(1) - at.fraction;
    weights[at.high - first] += at.fraction;
  }
  pixels.clear();
  for (int pixel = first; pixel <= last; ++pixel) {
    if (weights[pixel - first] != Sum(0)) pixels.push_back({pixel, weights[pixel - first]});
  }
}

// Pixels of a blocked image and their weights, as sum_points takes them: four to a point.
template <class F>
struct WeightedPixels {
  std::vector<int64_t> offsets;  // bytes
  std::vector<F> weights;

  // All pairs, as shares of a mean over `count` samples. width: of the image, whose blocks have `cb` channels.
  void collect(const std::vector<WeightedPixel<F>>& rows, const std::vector<WeightedPixel<F>>& columns, int64_t width,
               int cb, F count) {
    const int64_t pixel_bytes = cb * static_cast<int64_t>(sizeof(F));
    const std::size_t pairs = rows.size() * columns.size(), whole = (pairs + 3) / 4 * 4;
    offsets.resize(whole);
    weights.resize(whole);
    std::size_t i = 0;
    for (const WeightedPixel<F>& row : rows) {
      const int64_t first = (row.pixel + 1) * (width + 2) + 1;
      const F share = row.weight / count;
      for (const WeightedPixel<F>& column : columns) {
        offsets[i] = (first + column.pixel) * pixel_bytes;
        weights[i++] = share * column.weight;
      }
    }
    std::fill(offsets.begin() + static_cast<std::ptrdiff_t>(pairs), offsets.end(), 0);  // the border's corner
    std::fill(weights.begin() + static_cast<std::ptrdiff_t>(pairs), weights.end(), F{0});
  }

  // Their sum, `cb` channels of one block.
  void sum(const F* block, int cb, F* part, F* total) {
    const auto count = static_cast<int64_t>(offsets.size());
    if (count == 0) std::fill_n(total, cb, F{0});
    for (int64_t begin = 0; begin < count; begin += kPixelsAtOnce) {
      const int64_t points = std::min(kPixelsAtOnce, count - begin) / 4;
      const cpu::Corners<F> corners{offsets.data() + begin, weights.data() + begin, points, 0, 0};
      const bool first = begin == 0;
      cpu::tile_kernels<F>().sum_points(block, corners, 0, points, cb, first ? total : part);
      for (int c = 0; !first && c < cb; ++c) total[c] += part[c];
    }
  }
};

class Kernel : public CpuKernel {
 public:
  explicit Kernel(const Attributes& attributes)
      : attributes_(attributes),
        scale_(static_cast<float>(attributes.named(kSpec, "spatial_scale").number)),
        gamma_(static_cast<float>(attributes.named(kSpec, "gamma").number)),
        sampling_ratio_(static_cast<int>((*attributes.named(kSpec, "sampling_ratio").ints)[0])) {}

  void compute(Span<const TensorView> inputs, CpuContext& context) const override {
    const Axes a = bind(kSpec, attributes_, inputs);
    roi::require_exact_positions(kSpec.name, a[H], a[W]);
    const std::vector<cpu::PlacedBox> boxes = cpu::read_boxes(kSpec, inputs[kRois], a[N]);
    void* output = context.output(0, deploydcn::output_shape(kSpec, a, 0));
    if (boxes.empty() || a[C] == 0) return;
    if (inputs[kImages].dtype == DType::kFloat64) {
      compute_as<double>(a, inputs, boxes, output, context);
    } else {
      compute_as<float>(a, inputs, boxes, output, context);
    }
  }

 private:
  template <class F>
  void compute_as(const Axes& a, Span<const TensorView> inputs, const std::vector<cpu::PlacedBox>& boxes, void* output,
                  CpuContext& context) const {
    cpu::ConvolutionShape shape{};
    shape.batch = a[N], shape.channels = a[C], shape.height = a[H], shape.width = a[W];
    check_image(shape);
    const int lanes = cpu::tile_kernels<F>().lanes;
    cpu::ChannelPlan plan{};
    plan.block_width = static_cast<int>(std::min<int64_t>(kMostVectors, cpu::ceil_div(a[C], lanes))) * lanes;
    for (int64_t channel = 0; channel < a[C]; channel += plan.block_width) {
      const auto channels = static_cast<int>(std::min<int64_t>(plan.block_width, a[C] - channel));
      plan.blocks.push_back({channel, channels, plan.block_width, 0, {}});
    }
    cpu::ConvolutionArguments arguments{};
    arguments.input = inputs[kImages];
    arguments.output = output;
    const cpu::BatchPart all{0, a[N], 0, static_cast<int64_t>(plan.blocks.size())};
    cpu::BlockedImage<F> images(shape, plan, arguments, nullptr, nullptr, all, context);
    images.copy(all, context);
    parallel_for(context, a[R], [&](int64_t r) { pool<F>(a, inputs, boxes[r], r, plan, arguments, images); });
  }

  // All bins of one box, [block][bin][channel of the block], and from there to the output.
  template <class F>
  void pool(const Axes& a, Span<const TensorView> inputs, const cpu::PlacedBox& placed, int64_t r,
            const cpu::ChannelPlan& plan, const cpu::ConvolutionArguments& arguments,
            const cpu::BlockedImage<F>& images) const {
    const auto height = static_cast<int>(a[H]), width = static_cast<int>(a[W]);
    const int cb = plan.block_width;
    const auto blocks = static_cast<int64_t>(plan.blocks.size());
    const int64_t bins = a[PH] * a[PW];
    const BoxSide vertical(placed.box.top, placed.box.bottom, scale_, static_cast<int>(a[PH]), sampling_ratio_);
    const BoxSide horizontal(placed.box.left, placed.box.right, scale_, static_cast<int>(a[PW]), sampling_ratio_);
    const F count = std::max(F(vertical.samples) * F(horizontal.samples), F(1));
    const TensorView offset = input_at(inputs, kOffset);
    const int64_t sums = (Checked(blocks) * Checked(bins) * Checked(cb)).value();
    cpu::ThreadArena& arena = cpu::thread_arena();
    arena.reset(cpu::ThreadArena::bytes_for<F>(sums) + cpu::ThreadArena::bytes_for<F>(cb) +
                cpu::ThreadArena::bytes_for<F>(cb * bins));
    F *tile = arena.take<F>(sums), *part = arena.take<F>(cb), *planes = arena.take<F>(cb * bins);
    std::vector<F> weights, bias(cb, F{0});
    std::vector<WeightedPixel<F>> rows, columns;
    WeightedPixels<F> read;
    for (int64_t bin = 0; bin < bins; ++bin) {
      fetch_output<F>(arguments, (r * bins + bin) * a[C], a[C]);
      float x = 0.f, y = 0.f;
      if (offset.present) {
        load_as<float>(offset.data, offset.dtype, 2 * r * bins + bin, 1, &x);
        load_as<float>(offset.data, offset.dtype, (2 * r + 1) * bins + bin, 1, &y);
      }
      collect(BinSamples(vertical, static_cast<int>(bin / a[PW]), gamma_, y, height), height, weights, rows);
      collect(BinSamples(horizontal, static_cast<int>(bin % a[PW]), gamma_, x, width), width, weights, columns);
      read.collect(rows, columns, width, cb, count);
      for (int64_t b = 0; b < blocks; ++b) {
        read.sum(images.block(placed.image, b), cb, part, tile + (b * bins + bin) * cb);
      }
    }
    for (int64_t b = 0; b < blocks; ++b) {
      const cpu::ChannelPlan::Block& block = plan.blocks[static_cast<std::size_t>(b)];
      const int64_t begin = (r * a[C] + block.channel) * bins;
      const bool direct = cpu::stored_as<F>(arguments.input);
      F* to = direct ? static_cast<F*>(arguments.output) + begin : planes;
      cpu::tile_kernels<F>().fused.finish(tile + b * bins * cb, cb, bins, block.channels,
                                          {bias.data(), nullptr, nullptr, Activation::kNone}, to, bins);
      if (!direct) cpu::store_output<F>(arguments, planes, block.channels * bins, begin);
    }
  }

  // Fetches a part of the box's output, which is written when all sums are there. Inline: GCC leaves out calls of a
  // function that does nothing else.
  template <class F>
  static __attribute__((always_inline)) void fetch_output(const cpu::ConvolutionArguments& arguments, int64_t begin,
                                                          int64_t count) {
    if (!cpu::stored_as<F>(arguments.input)) return;
    const F* output = static_cast<const F*>(arguments.output) + begin;
    for (int64_t i = 0; i < count; i += 64 / sizeof(F)) __builtin_prefetch(output + i, 1);
  }

  static void check_image(const cpu::ConvolutionShape& shape) {
    const int64_t pixels = (Checked(shape.height + 2) * Checked(shape.width + 2)).value();
    if (pixels < int64_t{1} << 31) return;
    throw InvalidArgument(std::string(kSpec.name) + " input has " + std::to_string(shape.height) + " x " +
                          std::to_string(shape.width) +
                          " pixels; wanted (height + 2) * (width + 2) below 2^31; split it");
  }

  Attributes attributes_;
  float scale_, gamma_;
  int sampling_ratio_;
};

std::unique_ptr<CpuKernel> create(const CpuNode& node) { return std::make_unique<Kernel>(node.attributes); }

}  // namespace

const CpuOp kCpuOp = {&kSpec, create};

}  // namespace deploydcn::deform_roi_pool
