#include "core/cpu/direct_convolution.h"

#include <algorithm>
#include <vector>

#include "core/cpu/padded_planes.h"
#include "core/cpu/thread_arena.h"

namespace deploydcn::cpu {
namespace {

constexpr int64_t kBandBytes = 512 * 1024;           // planes and sums of a band: within the second-level cache
constexpr int64_t kGroupsPerTask = 16, kTasks = 64;  // few tasks cost little, many even out

template <class F>
class DirectConvolution {
 public:
  DirectConvolution(const ConvolutionShape& shape, const ConvolutionArguments& arguments)
      : shape_(shape),
        arguments_(arguments),
        kernels_(tile_kernels<F>()),
        channels_(shape.channels / shape.groups),
        outputs_(shape.outputs / shape.groups),
        columns_(shape.out_width, shape.kernel_w, shape.dilation_w, shape.stride_w),
        band_(band_rows()),
        rows_(band_, shape.kernel_h, shape.dilation_h, shape.stride_h),
        planes_(shape, arguments.input, rows_, columns_, columns_.length),
        depth_(channels_ * shape.taps()),
        sums_(band_ * columns_.length + slack()),
        bands_(ceil_div(shape.out_height, band_)),
        groups_per_task_(std::max<int64_t>(1, std::min(kGroupsPerTask, shape.batch * shape.groups * bands_ / kTasks))),
        runs_(ceil_div(shape.groups, groups_per_task_)) {
    find_taps();
  }

  int64_t tasks() const { return shape_.batch * runs_ * bands_; }

  void run(int64_t task) const {
    const int64_t band = task % bands_, run = task / bands_ % runs_, n = task / bands_ / runs_;
    const int64_t first = band * band_, rows = std::min(band_, shape_.out_height - first);
    const int64_t planes = channels_ * planes_.size() + slack(),
                  row = stored_as<F>(arguments_.input) ? 0 : shape_.out_width;
    ThreadArena& arena = thread_arena();
    arena.reset(ThreadArena::bytes_for<F>(planes) + ThreadArena::bytes_for<F>(sums_ * kMostOutputs) +
                ThreadArena::bytes_for<F>(depth_ * outputs_) + ThreadArena::bytes_for<F>(planes_.buffer()) +
                ThreadArena::bytes_for<F>(row));
    const Workspace w{arena.template take<F>(planes), arena.template take<F>(sums_ * kMostOutputs),
                      arena.template take<F>(depth_ * outputs_), arena.template take<F>(planes_.buffer()),
                      arena.template take<F>(row)};
    std::fill_n(w.planes, planes, F{0});
    for (int64_t group = run * groups_per_task_; group < std::min(shape_.groups, (run + 1) * groups_per_task_); ++group)
      run_group(n, group, first, rows, w);
  }

 private:
  struct Workspace {
    F *planes, *sums, *weight;
    F *row, *out;  // of the input and the output, where the stored type is not F
  };

  int64_t slack() const { return kMostVectors * kernels_.lanes; }

  // Output rows at a time: few enough for the cache, at least one.
  int64_t band_rows() const {
    const int64_t planes = channels_ * columns_.phases() * std::min(shape_.kernel_h, shape_.stride_h);
    const int64_t bytes_per_row = (planes + kMostOutputs) * columns_.length * static_cast<int64_t>(sizeof(F));
    const int64_t rows = std::max<int64_t>(1, kBandBytes / bytes_per_row);
    return ceil_div(shape_.out_height, ceil_div(shape_.out_height, rows));
  }

  // Output rows [first, first + rows) of one group.
  void run_group(int64_t n, int64_t group, int64_t first, int64_t rows, const Workspace& w) const {
    for (int64_t c = 0; c < channels_; ++c) {
      planes_.copy((n * shape_.groups + group) * channels_ + c, first * shape_.stride_h - shape_.pad_top,
                   w.planes + c * planes_.size(), w.row);
    }
    load_as<F>(arguments_.weight.data, arguments_.weight.dtype, group * outputs_ * depth_, outputs_ * depth_, w.weight);
    const int64_t pixels = (rows - 1) * columns_.length + shape_.out_width;
    for (int64_t m = 0; m < outputs_;) {
      const int at_once = outputs_at_once(outputs_ - m);
      kernels_.sum_shifted(w.planes, offset_.data(), depth_, w.weight + m * depth_, at_once, pixels, w.sums, sums_);
      for (int s = 0; s < at_once; ++s, ++m) finish(w.sums + s * sums_, n, group * outputs_ + m, first, rows, w);
    }
  }

  // Where the taps of every channel begin, in the order of the weights.
  void find_taps() {
    for (int64_t c = 0; c < channels_; ++c) {
      for (int64_t i = 0; i < shape_.kernel_h; ++i) {
        for (int64_t j = 0; j < shape_.kernel_w; ++j) {
          const int64_t plane = rows_.phase[i] * columns_.phases() + columns_.phase[j];
          offset_.push_back(c * planes_.size() + plane * planes_.plane() + rows_.shift[i] * columns_.length +
                            columns_.shift[j]);
        }
      }
    }
  }

  // Writes output rows [first, first + rows).
  void finish(const F* sum, int64_t n, int64_t output, int64_t first, int64_t rows, const Workspace& w) const {
    const int64_t width = shape_.out_width, length = columns_.length;
    const int64_t begin = (n * shape_.outputs + output) * shape_.out_pixels() + first * width;
    F bias{0};
    if (arguments_.bias.present) load_as<F>(arguments_.bias.data, arguments_.bias.dtype, output, 1, &bias);
    if (stored_as<F>(arguments_.input)) {
      F* to = static_cast<F*>(arguments_.output) + begin;
      return kernels_.finish_rows(sum, length, rows, width, bias, arguments_.activation, to, width);
    }
    for (int64_t row = 0; row < rows; ++row) {
      kernels_.finish_rows(sum + row * length, 0, 1, width, bias, arguments_.activation, w.out, 0);
      store_as<F>(w.out, width, arguments_.output, arguments_.input.dtype, begin + row * width);
    }
  }

  const ConvolutionShape& shape_;
  const ConvolutionArguments& arguments_;
  const TileKernels<F>& kernels_;
  const int64_t channels_, outputs_;  // per group
  const PlaneAxis columns_;
  const int64_t band_;  // output rows of a task
  const PlaneAxis rows_;
  const PaddedPlanes<F> planes_;
  const int64_t depth_, sums_, bands_, groups_per_task_, runs_;
  std::vector<int64_t> offset_;
};

}  // namespace

bool runs_directly(const ConvolutionShape& shape) {
  constexpr int64_t most = 256;  // products of a group
  const int64_t channels = shape.channels / shape.groups, outputs = shape.outputs / shape.groups;
  return channels <= most && outputs <= most / channels && (channels > 1 || outputs > 1);
}

template <class F>
void convolve_directly(const ConvolutionShape& shape, const ConvolutionArguments& arguments, CpuContext& context) {
  const DirectConvolution<F> convolution(shape, arguments);
  parallel_for(context, convolution.tasks(), [&](int64_t task) { convolution.run(task); });
}

template void convolve_directly<float>(const ConvolutionShape&, const ConvolutionArguments&, CpuContext&);
template void convolve_directly<double>(const ConvolutionShape&, const ConvolutionArguments&, CpuContext&);

}  // namespace deploydcn::cpu
