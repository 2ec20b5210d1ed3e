#include "core/cpu/depthwise_convolution.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "core/cpu/padded_planes.h"
#include "core/cpu/thread_arena.h"

namespace deploydcn::cpu {
namespace {

constexpr int64_t kFewestPixels = 100;      // of an output: below, the channels' overhead outweighs their sums
constexpr int64_t kBandBytes = 128 * 1024;  // of planes: a row is read from the second-level cache once, then nearer
constexpr int64_t kTogetherBytes =
    8 * 1024;  // of planes that are copied before they are summed: stores have arrived by then
constexpr int64_t kChannelsPerTask = 16, kTasks = 32;  // few tasks cost little, many even out

template <class F>
class DepthwiseConvolution {
 public:
  DepthwiseConvolution(const ConvolutionShape& shape, const ConvolutionArguments& arguments)
      : shape_(shape),
        arguments_(arguments),
        kernels_(tile_kernels<F>()),
        columns_(shape.out_width, shape.kernel_w, shape.dilation_w, shape.stride_w),
        pitch_(round_up(columns_.length, kernels_.lanes)),
        band_(band_rows()),
        rows_((band_ - 1) * shape.stride_h + 1, shape.kernel_h, shape.dilation_h, 1),
        planes_(shape, arguments.input, rows_, columns_, pitch_),
        step_(shape.dilation_h / std::gcd(shape.stride_h, shape.dilation_h)),
        stride_(shape.stride_h / std::gcd(shape.stride_h, shape.dilation_h)),
        bands_(ceil_div(shape.out_height, band_)),
        channels_(std::max<int64_t>(1, std::min(kChannelsPerTask, shape.batch * shape.channels * bands_ / kTasks))),
        runs_(ceil_div(shape.channels, channels_)),
        together_(std::max<int64_t>(1, std::min(channels_, kTogetherBytes / bytes(planes_.size())))) {
    for (int64_t j = 0; j < shape.kernel_w; ++j) {
      offset_.push_back(columns_.phase[j] * planes_.plane() + columns_.shift[j]);
    }
    for (int64_t phase = 0; phase < std::min(stride_, shape.kernel_h); ++phase) {
      for (int64_t i = (shape.kernel_h - 1 - phase) / stride_; i >= 0; --i) order_.push_back(i * stride_ + phase);
    }
  }

  int64_t tasks() const { return shape_.batch * runs_ * bands_; }

  void run(int64_t task) const {
    const int64_t band = task % bands_, run = task / bands_ % runs_, n = task / bands_ / runs_;
    const int64_t first = band * band_, rows = std::min(band_, shape_.out_height - first);
    const int64_t planes = together_ * planes_.size() + kernels_.lanes;
    const int64_t out = stored_as<F>(arguments_.input) ? 0 : band_ * shape_.out_width;
    ThreadArena& arena = thread_arena();
    arena.reset(ThreadArena::bytes_for<F>(planes) + ThreadArena::bytes_for<F>(shape_.taps()) +
                ThreadArena::bytes_for<F>(shape_.taps()) + ThreadArena::bytes_for<F>(planes_.buffer()) +
                ThreadArena::bytes_for<F>(out));
    const Workspace w{arena.template take<F>(planes), arena.template take<F>(shape_.taps()),
                      arena.template take<F>(shape_.taps()), arena.template take<F>(planes_.buffer()),
                      arena.template take<F>(out)};
    std::fill_n(w.planes, planes, F{0});
    const int64_t end = std::min(shape_.channels, (run + 1) * channels_);
    for (int64_t begin = run * channels_; begin < end; begin += together_) {
      const int64_t image = n * shape_.channels + begin, count = std::min(together_, end - begin);
      for (int64_t i = 0; i < count; ++i) {
        planes_.copy(image + i, first * shape_.stride_h - shape_.pad_top, w.planes + i * planes_.size(), w.row);
      }
      for (int64_t i = 0; i < count; ++i) {
        sum_channel(begin + i, w.planes + i * planes_.size(),
                    (image + i) * shape_.out_pixels() + first * shape_.out_width, rows, w);
      }
    }
  }

 private:
  struct Workspace {
    F *planes, *weight, *given;
    F *row, *out;  // of the input and the output, where the stored type is not F
  };

  static constexpr int64_t bytes(int64_t elements) { return elements * static_cast<int64_t>(sizeof(F)); }

  // Output rows at a time: few enough for the cache, at least one.
  int64_t band_rows() const {
    const int64_t bytes_per_row = bytes(columns_.phases() * pitch_ * shape_.stride_h);
    const int64_t rows = std::max<int64_t>(1, kBandBytes / bytes_per_row);
    return ceil_div(shape_.out_height, ceil_div(shape_.out_height, rows));
  }

  // `rows` output rows of channel c, the first of which begins with element `begin` of the output.
  void sum_channel(int64_t c, const F* planes, int64_t begin, int64_t rows, const Workspace& w) const {
    const int64_t width = shape_.out_width;
    const bool direct = stored_as<F>(arguments_.input);
    F bias{0};
    if (arguments_.bias.present) load_as<F>(arguments_.bias.data, arguments_.bias.dtype, c, 1, &bias);
    arrange_weights(c, w);
    DepthwiseRows<F> share{};
    share.pitch = shape_.dilation_h * pitch_;
    share.stride = stride_;
    share.offset = offset_.data();
    share.kernel_h = shape_.kernel_h;
    share.kernel_w = shape_.kernel_w;
    share.weight = w.weight;
    share.bias = bias;
    share.activation = arguments_.activation;
    share.out_pitch = step_ * width;
    share.width = width;
    F* out = direct ? static_cast<F*>(arguments_.output) + begin : w.out;
    for (int64_t row = 0; row < std::min(step_, rows); ++row) {
      share.plane = planes + row * shape_.stride_h * pitch_;
      share.out = out + row * width;
      share.rows = ceil_div(rows - row, step_);
      kernels_.depthwise_rows(share);
    }
    if (!direct) store_as<F>(w.out, rows * width, arguments_.output, arguments_.input.dtype, begin);
  }

  // As DepthwiseRows::weight has them.
  void arrange_weights(int64_t c, const Workspace& w) const {
    load_as<F>(arguments_.weight.data, arguments_.weight.dtype, c * shape_.taps(), shape_.taps(), w.given);
    F* to = w.weight;
    for (int64_t j = 0; j < shape_.kernel_w; ++j) {
      for (const int64_t i : order_) *to++ = w.given[i * shape_.kernel_w + j];
    }
  }

  const ConvolutionShape& shape_;
  const ConvolutionArguments& arguments_;
  const TileKernels<F>& kernels_;
  const PlaneAxis columns_;
  const int64_t pitch_, band_;  // of a plane, and output rows of a task
  const PlaneAxis rows_;
  const PaddedPlanes<F> planes_;
  const int64_t step_, stride_;  // between output rows that share rows; of these in rows that are so far apart
  const int64_t bands_, channels_, runs_, together_;
  std::vector<int64_t> offset_, order_;  // of columns; of the rows of the window
};

}  // namespace

bool runs_depthwise(const ConvolutionShape& shape) {
  return shape.channels == shape.groups && shape.outputs == shape.groups && shape.out_pixels() >= kFewestPixels;
}

template <class F>
void convolve_depthwise(const ConvolutionShape& shape, const ConvolutionArguments& arguments, CpuContext& context) {
  const DepthwiseConvolution<F> convolution(shape, arguments);
  parallel_for(context, convolution.tasks(), [&](int64_t task) { convolution.run(task); });
}

template void convolve_depthwise<float>(const ConvolutionShape&, const ConvolutionArguments&, CpuContext&);
template void convolve_depthwise<double>(const ConvolutionShape&, const ConvolutionArguments&, CpuContext&);

}  // namespace deploydcn::cpu
