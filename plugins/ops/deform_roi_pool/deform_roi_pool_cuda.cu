#include "ops/deform_roi_pool/deform_roi_pool_cuda.h"

#include "gpu/boxes.cuh"
#include "gpu/launching.cuh"
#include "ops/deform_roi_pool/bin_samples.h"
#include "ops/deform_roi_pool/spec.gen.h"

namespace deploydcn::deform_roi_pool {

// Tensors, all linear, and sizes of one call. items: elements of the output.
struct PoolArguments {
  const void* input;
  gpu::Positions rois, offset;  // offset.data is null: none
  void* output;
  int64_t items, batch, channels;
  int height, width, bins_h, bins_w, sampling_ratio;
  float scale, gamma;

  template <class Visit>
  void for_each_pointer(Visit visit) const {
    for (const void* pointer : {input, rois.data, offset.data, static_cast<const void*>(output)}) visit(pointer);
  }
};

// kBlocks must fit a multiprocessor: 64 registers per thread, which nothing below spills.
inline constexpr int kThreads = 256, kBlocks = 4;

// One thread per element of the output, (box, channel, ph, pw).
template <class T>
__global__ void __launch_bounds__(kThreads, kBlocks) pool(const __grid_constant__ PoolArguments a) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= a.items) return;
  const int pw = static_cast<int>(item % a.bins_w), ph = static_cast<int>(item / a.bins_w % a.bins_h);
  const int64_t bins = static_cast<int64_t>(a.bins_h) * a.bins_w, channel = item / bins % a.channels;
  const int64_t r = item / bins / a.channels;
  const roi::Box box = gpu::box_at<T>(a.rois, r);
  const int64_t image = roi::image_of(box, a.batch);
  T& output = static_cast<T*>(a.output)[item];
  if (image < 0) {
    output = gpu::from_float<T>(gpu::not_a_number());
    return;
  }
  float x = 0.f, y = 0.f;
  if (a.offset.data) {
    x = gpu::position_at<T>(a.offset, 2 * r * bins + item % bins);
    y = gpu::position_at<T>(a.offset, (2 * r + 1) * bins + item % bins);
  }
  const BoxSide vertical(box.top, box.bottom, a.scale, a.bins_h, a.sampling_ratio);
  const BoxSide horizontal(box.left, box.right, a.scale, a.bins_w, a.sampling_ratio);
  const BinSamples rows(vertical, ph, a.gamma, y, a.height), columns(horizontal, pw, a.gamma, x, a.width);
  const T* plane = static_cast<const T*>(a.input) + (image * a.channels + channel) * a.height * a.width;
  float sum = 0.f;
  for (int i = rows.begin; i < rows.end; ++i) {
    const roi::Neighbours row = roi::neighbours(rows.position(i), a.height);
    const T* low = plane + static_cast<int64_t>(row.low) * a.width;
    const T* high = plane + static_cast<int64_t>(row.high) * a.width;
    float along = 0.f;  // by rows: a single sum of a million samples would lose 1 % of itself in float32
    for (int j = columns.begin; j < columns.end; ++j) {
      along += gpu::between(low, high, row.fraction, roi::neighbours(columns.position(j), a.width));
    }
    sum += along;
  }
  const float count = static_cast<float>(vertical.samples) * static_cast<float>(horizontal.samples);
  output = gpu::from_float<T>(sum / fmaxf(count, 1.f));
}

namespace {

enum Input { kImages, kRois, kOffset };

class Kernel : public gpu::GpuKernel {
 public:
  explicit Kernel(const Attributes& attributes) : attributes_(attributes) {}

  std::size_t workspace_bytes(Span<const TensorView> inputs) const override {
    arguments(inputs);  // checks the shapes
    return 0;
  }
  void launch(Span<const TensorView> inputs, Span<const gpu::OutputView> outputs, void*,
              gpu::Stream stream) const override {
    PoolArguments a = arguments(inputs);
    if (a.items == 0) return;
    a.output = outputs[0].data;
    gpu::with_type(inputs[kImages].dtype, [&](auto zero) {
      gpu::check(GPU_LAUNCH(pool<decltype(zero)>, gpu::grid_of(a.items, kThreads), dim3(kThreads), 0, stream, a),
                 "launching the RoI pooling");
    });
  }

 private:
  PoolArguments arguments(Span<const TensorView> inputs) const {
    const Axes a = bind(kSpec, attributes_, inputs);
    roi::require_exact_positions(kSpec.name, a[H], a[W]);
    const auto ratio = (*attributes_.named(kSpec, "sampling_ratio").ints)[0];
    return {inputs[kImages].data,
            gpu::positions(inputs[kRois]),
            gpu::positions(input_at(inputs, kOffset)),
            nullptr,
            element_count(deploydcn::output_shape(kSpec, a, 0)),
            a[N],
            a[C],
            static_cast<int>(a[H]),
            static_cast<int>(a[W]),
            static_cast<int>(a[PH]),
            static_cast<int>(a[PW]),
            static_cast<int>(ratio),
            static_cast<float>(attributes_.named(kSpec, "spatial_scale").number),
            static_cast<float>(attributes_.named(kSpec, "gamma").number)};
  }

  Attributes attributes_;
};

std::unique_ptr<gpu::GpuKernel> create(const Attributes& attributes, const gpu::GpuOptions&) {
  return std::make_unique<Kernel>(attributes);
}

}  // namespace

const gpu::GpuOp kGpuOp = {&kSpec, {}, {}, create};

}  // namespace deploydcn::deform_roi_pool
