#include "ops/deform_psroi_pool/deform_psroi_pool_cuda.h"

#include "gpu/boxes.cuh"
#include "gpu/launching.cuh"
#include "ops/deform_psroi_pool/part_samples.h"
#include "ops/deform_psroi_pool/spec.gen.h"

namespace deploydcn::deform_psroi_pool {

// Tensors, all linear, and sizes of one call. items: elements of each output.
struct PoolArguments {
  const void* input;
  gpu::Positions rois, offset;  // offset.data is null: none
  void* pooled;
  void* count;
  int64_t items, batch, outputs, classes;
  int height, width, bins, parts, groups, samples;
  float scale, trans_std;

  template <class Visit>
  void for_each_pointer(Visit visit) const {
    for (const void* pointer :
         {input, rois.data, offset.data, static_cast<const void*>(pooled), static_cast<const void*>(count)}) {
      visit(pointer);
    }
  }
};

// kBlocks must fit a multiprocessor: 64 registers per thread, which nothing below spills.
inline constexpr int kThreads = 256, kBlocks = 4;

// One thread per element of the outputs, (box, channel, ph, pw).
template <class T>
__global__ void __launch_bounds__(kThreads, kBlocks) pool(const __grid_constant__ PoolArguments a) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= a.items) return;
  const int pw = static_cast<int>(item % a.bins), ph = static_cast<int>(item / a.bins % a.bins);
  const int64_t bins = static_cast<int64_t>(a.bins) * a.bins;
  const int64_t output = item / bins % a.outputs, r = item / bins / a.outputs;
  const roi::Box box = gpu::box_at<T>(a.rois, r);
  const int64_t image = roi::image_of(box, a.batch);
  T& pooled = static_cast<T*>(a.pooled)[item];
  T& count = static_cast<T*>(a.count)[item];
  if (image < 0) {
    pooled = gpu::from_float<T>(gpu::not_a_number());
    count = gpu::from_float<T>(0.f);
    return;
  }
  float x = 0.f, y = 0.f;
  if (a.offset.data) {
    const int64_t plane = static_cast<int64_t>(a.parts) * a.parts;
    const int64_t first = (r * a.classes + output / (a.outputs / a.classes)) * 2 * plane;
    const int64_t part = static_cast<int64_t>(part_of(ph, a.bins, a.parts)) * a.parts + part_of(pw, a.bins, a.parts);
    x = gpu::position_at<T>(a.offset, first + part);
    y = gpu::position_at<T>(a.offset, first + plane + part);
  }
  const BoxSide vertical(box.top, box.bottom, a.scale), horizontal(box.left, box.right, a.scale);
  const PartSamples rows(vertical, ph, a.bins, a.samples, a.trans_std, y, a.height);
  const PartSamples columns(horizontal, pw, a.bins, a.samples, a.trans_std, x, a.width);
  const int64_t channel =
      (output * a.groups + group_of(ph, a.bins, a.groups)) * a.groups + group_of(pw, a.bins, a.groups);
  const T* plane =
      static_cast<const T*>(a.input) + (image * a.outputs * a.groups * a.groups + channel) * a.height * a.width;
  float sum = 0.f;
  int valid = 0;
  for (int i = 0; i < a.samples; ++i) {
    roi::Neighbours row, column;
    if (!rows.locate(i, row)) continue;
    const T* low = plane + static_cast<int64_t>(row.low) * a.width;
    const T* high = plane + static_cast<int64_t>(row.high) * a.width;
    float along = 0.f;  // by rows: a single sum of all samples would lose digits in float32
    for (int j = 0; j < a.samples; ++j) {
      if (!columns.locate(j, column)) continue;
      along += gpu::between(low, high, row.fraction, column);
      ++valid;
    }
    sum += along;
  }
  pooled = gpu::from_float<T>(valid > 0 ? sum / static_cast<float>(valid) : 0.f);
  count = gpu::from_float<T>(static_cast<float>(valid));
}

namespace {

enum Input { kImages, kRois, kOffset };
enum Output { kPooled, kCount };

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
    a.pooled = outputs[kPooled].data, a.count = outputs[kCount].data;
    gpu::with_type(inputs[kImages].dtype, [&](auto zero) {
      gpu::check(GPU_LAUNCH(pool<decltype(zero)>, gpu::grid_of(a.items, kThreads), dim3(kThreads), 0, stream, a),
                 "launching the RoI pooling");
    });
  }

 private:
  PoolArguments arguments(Span<const TensorView> inputs) const {
    const Axes a = bind(kSpec, attributes_, inputs);
    roi::require_exact_positions(kSpec.name, a[H], a[W]);
    return {inputs[kImages].data,
            gpu::positions(inputs[kRois]),
            gpu::positions(input_at(inputs, kOffset)),
            nullptr,
            nullptr,
            element_count(deploydcn::output_shape(kSpec, a, kPooled)),
            a[N],
            a[OD],
            a[CLS],
            static_cast<int>(a[H]),
            static_cast<int>(a[W]),
            static_cast<int>(a[PS]),
            static_cast<int>(a[PT]),
            static_cast<int>(a[GS]),
            static_cast<int>((*attributes_.named(kSpec, "sample_per_part").ints)[0]),
            static_cast<float>(attributes_.named(kSpec, "spatial_scale").number),
            static_cast<float>(attributes_.named(kSpec, "trans_std").number)};
  }

  Attributes attributes_;
};

std::unique_ptr<gpu::GpuKernel> create(const Attributes& attributes, const gpu::GpuOptions&) {
  return std::make_unique<Kernel>(attributes);
}

}  // namespace

const gpu::GpuOp kGpuOp = {&kSpec, {}, {}, create};

}  // namespace deploydcn::deform_psroi_pool
