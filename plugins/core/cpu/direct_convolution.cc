#include "core/cpu/direct_convolution.h"

#include <algorithm>
#include <vector>

#include "core/cpu/blocked_image.h"
#include "core/cpu/thread_arena.h"

namespace deploydcn::cpu {
namespace {

constexpr int64_t kBandBytes = 512 * 1024;  // planes and sums of a band: within the second-level cache
constexpr int64_t kFewestPixels = 400;      // of a depthwise output: below, the channels' overhead outweighs their sums

constexpr int64_t kGroupsPerTask = 16, kTasks = 64;  // few tasks cost little, many even out

// One axis of the window: a tap that reaches `reach` pixels from the window's first reads plane `phase` at a distance
// of `shift`.
struct Axis {
  Axis(int64_t outputs, std::vector<int64_t> all, int64_t stride) : reaches(std::move(all)) {
    for (const int64_t reach : reaches) {
      const auto known = std::find(remainders.begin(), remainders.end(), reach % stride);
      phase.push_back(known - remainders.begin());
      shift.push_back(reach / stride);
      if (known == remainders.end()) remainders.push_back(reach % stride);
      length = std::max(length, outputs + shift.back());
    }
  }
  int64_t phases() const { return static_cast<int64_t>(remainders.size()); }
  std::vector<int64_t> reaches, phase, shift;  // by tap
  std::vector<int64_t> remainders;             // of a phase's positions, by stride
  int64_t length = 0;                          // of a plane that serves `outputs` outputs
};

std::vector<int64_t> reaches(int64_t kernel, int64_t dilation) {
  std::vector<int64_t> all;
  for (int64_t i = 0; i < kernel; ++i) all.push_back(i * dilation);
  return all;
}

// What `together` windows reach that lie `stride` apart, each position once.
std::vector<int64_t> reaches_together(int64_t kernel, int64_t dilation, int64_t stride, int64_t together) {
  std::vector<int64_t> all;
  for (int64_t r = 0; r < together; ++r) {
    for (const int64_t reach : reaches(kernel, dilation)) all.push_back(r * stride + reach);
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

template <class F>
class DirectConvolution {
 public:
  DirectConvolution(const ConvolutionShape& shape, const ConvolutionArguments& arguments)
      : shape_(shape),
        arguments_(arguments),
        kernels_(tile_kernels<F>()),
        channels_(shape.channels / shape.groups),
        outputs_(shape.outputs / shape.groups),
        together_(outputs_ == 1 && shape.out_height > 1 ? 2 : 1),
        columns_(shape.out_width, reaches(shape.kernel_w, shape.dilation_w), shape.stride_w),
        out_rows_(ceil_div(shape.out_height, together_)),
        band_(band_rows()),
        rows_(band_, reaches_together(shape.kernel_h, shape.dilation_h, shape.stride_h, together_),
              together_ * shape.stride_h),
        plane_((Checked(rows_.length) * Checked(columns_.length)).value()),
        phases_(rows_.phases() * columns_.phases()),
        depth_(channels_ * static_cast<int64_t>(rows_.reaches.size() * columns_.reaches.size())),
        sums_(band_ * columns_.length + slack()),
        bands_(ceil_div(out_rows_, band_)),
        groups_per_task_(std::max<int64_t>(1, std::min(kGroupsPerTask, shape.batch * shape.groups * bands_ / kTasks))),
        runs_(ceil_div(shape.groups, groups_per_task_)) {
    find_taps();
    find_sources();
  }

  int64_t tasks() const { return shape_.batch * runs_ * bands_; }

  void run(int64_t task) const {
    const int64_t band = task % bands_, run = task / bands_ % runs_, n = task / bands_ / runs_;
    const int64_t planes = channels_ * phases_ * plane_, row = std::max(shape_.width, shape_.out_width);
    ThreadArena& arena = thread_arena();
    arena.reset(ThreadArena::bytes_for<F>(planes + slack()) + ThreadArena::bytes_for<F>(sums_ * kMostOutputs) +
                ThreadArena::bytes_for<F>(depth_ * outputs_ * together_) + ThreadArena::bytes_for<F>(row) +
                ThreadArena::bytes_for<F>(channels_ * shape_.taps()));
    Workspace w{};
    w.planes = arena.template take<F>(planes + slack());
    w.sums = arena.template take<F>(sums_ * kMostOutputs);
    w.weight = arena.template take<F>(depth_ * outputs_ * together_);
    w.row = arena.template take<F>(row);
    w.given = arena.template take<F>(channels_ * shape_.taps());
    std::fill_n(w.planes + planes, slack(), F{0});
    for (int64_t group = run * groups_per_task_; group < std::min(shape_.groups, (run + 1) * groups_per_task_); ++group)
      run_group(n, group, band * band_, std::min(band_, out_rows_ - band * band_), w);
  }

 private:
  struct Workspace {
    F *planes, *sums, *weight;
    F* row;    // of the input or output, where the stored type is not F
    F* given;  // weights of one output
  };

  int64_t slack() const { return kMostVectors * kernels_.lanes; }

  // Runs of output rows at a time: few enough for the cache, at least one.
  int64_t band_rows() const {
    const int64_t planes =
        channels_ * columns_.phases() * std::min(shape_.kernel_h * together_, shape_.stride_h * together_);
    const int64_t bytes_per_row = (planes + kMostOutputs) * columns_.length * static_cast<int64_t>(sizeof(F));
    const int64_t rows = std::max<int64_t>(1, kBandBytes / bytes_per_row);
    return std::max<int64_t>(1, ceil_div(out_rows_, ceil_div(out_rows_, rows)));
  }

  // Rows [first, first + rows) of one group, in units of `together_` output rows.
  void run_group(int64_t n, int64_t group, int64_t first, int64_t rows, Workspace& w) const {
    copy_rows(n, group, first, w);
    arrange_weights(group, w);
    const int64_t pixels = (rows - 1) * columns_.length + shape_.out_width, all = outputs_ * together_;
    for (int64_t i = 0; i < all;) {
      const int at_once = outputs_at_once(all - i);
      kernels_.sum_shifted(w.planes, offset_.data(), depth_, w.weight + i * depth_, at_once, pixels, w.sums, sums_);
      for (int s = 0; s < at_once; ++s, ++i) {
        finish(w.sums + s * sums_, n, group * outputs_ + i / together_, first * together_ + i % together_, rows, w);
      }
    }
  }

  // [output][row of `together_`][depth]: taps that a row's window does not have are 0.
  void arrange_weights(int64_t group, Workspace& w) const {
    const int64_t count = channels_ * shape_.taps();
    for (int64_t m = 0; m < outputs_; ++m) {
      load_as<F>(arguments_.weight.data, arguments_.weight.dtype, (group * outputs_ + m) * count, count, w.given);
      F* to = w.weight + m * together_ * depth_;
      for (int64_t i = 0; i < together_ * depth_; ++i) to[i] = source_[i] < 0 ? F{0} : w.given[source_[i]];
    }
  }

  // planes[channel][row phase][column phase][row][column] of the band that begins at `first`.
  void copy_rows(int64_t n, int64_t group, int64_t first, Workspace& w) const {
    const int64_t stride = together_ * shape_.stride_h, length = columns_.length;
    F* plane = w.planes;
    for (int64_t c = 0; c < channels_; ++c) {
      const int64_t image = ((n * shape_.groups + group) * channels_ + c) * shape_.pixels();
      for (const int64_t remainder : rows_.remainders) {
        const int64_t y = first * stride + remainder - shape_.pad_top;  // of the first row; rows [begin, end) exist
        const int64_t begin = std::min(rows_.length, y < 0 ? ceil_div(-y, stride) : 0);
        const int64_t inside = ceil_div(std::max<int64_t>(0, shape_.height - y), stride);
        const int64_t end = std::max(begin, std::min(rows_.length, inside));
        for (const int64_t column : columns_.remainders) {
          std::fill_n(plane, begin * length, F{0});
          copy_inside(image + (y + begin * stride) * shape_.width, end - begin, column, plane + begin * length, w);
          std::fill(plane + end * length, plane + plane_, F{0});
          plane += plane_;
        }
      }
    }
  }

  // Rows of the image, from element `begin` on: every stride-th pixel from `remainder` on, zeros where the padding is.
  void copy_inside(int64_t begin, int64_t rows, int64_t remainder, F* to, Workspace& w) const {
    const int64_t stride = shape_.stride_w, before = shape_.pad_left - remainder;  // x = i * stride - before
    const int64_t length = columns_.length, pitch = together_ * shape_.stride_h * shape_.width;
    const int64_t first = std::min(length, before > 0 ? ceil_div(before, stride) : 0);
    const int64_t inside = ceil_div(std::max<int64_t>(0, shape_.width + before), stride);
    const int64_t count = std::max<int64_t>(0, std::min(length, inside) - first);
    if (count == 0) return static_cast<void>(std::fill_n(to, rows * length, F{0}));
    const TensorView& input = arguments_.input;
    if (stored_as<F>(input)) {
      const F* from = static_cast<const F*>(input.data) + begin + first * stride - before;
      return kernels_.copy_rows(from, pitch, rows, stride, first, count, length, to);
    }
    for (int64_t row = 0; row < rows; ++row) {
      load_as<F>(input.data, input.dtype, begin + row * pitch, shape_.width, w.row);
      kernels_.copy_rows(w.row + first * stride - before, 0, 1, stride, first, count, length, to + row * length);
    }
  }

  // Where the taps of every channel begin, in the order of the weights.
  void find_taps() {
    for (int64_t c = 0; c < channels_; ++c) {
      for (std::size_t i = 0; i < rows_.reaches.size(); ++i) {
        for (std::size_t j = 0; j < columns_.reaches.size(); ++j) {
          offset_.push_back((c * phases_ + rows_.phase[i] * columns_.phases() + columns_.phase[j]) * plane_ +
                            rows_.shift[i] * columns_.length + columns_.shift[j]);
        }
      }
    }
  }

  // Which weight of an output stands at each place of `arrange_weights`; -1: none.
  void find_sources() {
    for (int64_t r = 0; r < together_; ++r) {
      for (int64_t c = 0; c < channels_; ++c) {
        for (const int64_t reach : rows_.reaches) {
          const int64_t inside = reach - r * shape_.stride_h, row = inside / shape_.dilation_h;
          const bool exists = inside >= 0 && inside % shape_.dilation_h == 0 && row < shape_.kernel_h;
          for (int64_t j = 0; j < shape_.kernel_w; ++j) {
            source_.push_back(exists ? (c * shape_.kernel_h + row) * shape_.kernel_w + j : -1);
          }
        }
      }
    }
  }

  // Writes every `together_`-th output row from `first` on, as far as there are such.
  void finish(const F* sum, int64_t n, int64_t output, int64_t first, int64_t rows, Workspace& w) const {
    const int64_t width = shape_.out_width, begin = (n * shape_.outputs + output) * shape_.out_pixels();
    F bias{0};
    if (arguments_.bias.present) load_as<F>(arguments_.bias.data, arguments_.bias.dtype, output, 1, &bias);
    const int64_t existing = std::min(rows, ceil_div(shape_.out_height - first, together_));
    if (stored_as<F>(arguments_.input)) {
      F* to = static_cast<F*>(arguments_.output) + begin + first * width;
      return kernels_.finish_rows(sum, columns_.length, existing, width, bias, arguments_.activation, to,
                                  together_ * width);
    }
    for (int64_t row = 0; row < existing; ++row) {
      kernels_.finish_rows(sum + row * columns_.length, 0, 1, width, bias, arguments_.activation, w.row, 0);
      store_as<F>(w.row, width, arguments_.output, arguments_.input.dtype, begin + (first + row * together_) * width);
    }
  }

  const ConvolutionShape& shape_;
  const ConvolutionArguments& arguments_;
  const TileKernels<F>& kernels_;
  const int64_t channels_, outputs_;  // per group
  const int64_t together_;            // output rows that share what they load: depthwise sums are made of loads
  const Axis columns_;
  const int64_t out_rows_, band_;  // in units of `together_` output rows: all, and those of a task
  const Axis rows_;
  const int64_t plane_, phases_, depth_, sums_, bands_, groups_per_task_, runs_;
  std::vector<int64_t> offset_, source_;
};

}  // namespace

bool runs_directly(const ConvolutionShape& shape) {
  const bool depthwise = shape.channels == shape.groups && shape.outputs == shape.groups;
  return shape.narrow() && (!depthwise || shape.out_pixels() >= kFewestPixels);
}

template <class F>
void convolve_directly(const ConvolutionShape& shape, const ConvolutionArguments& arguments, CpuContext& context) {
  const DirectConvolution<F> convolution(shape, arguments);
  parallel_for(context, convolution.tasks(), [&](int64_t task) { convolution.run(task); });
}

template void convolve_directly<float>(const ConvolutionShape&, const ConvolutionArguments&, CpuContext&);
template void convolve_directly<double>(const ConvolutionShape&, const ConvolutionArguments&, CpuContext&);

}  // namespace deploydcn::cpu
