#include "ops/dcnv4/dcnv4_cuda.h"

#include "gpu/attention_kernel.cuh"
#include "ops/dcnv4/spec.gen.h"

namespace deploydcn::dcnv4 {
namespace {

enum Input { kInput, kOffsetMask };

gpu::AttentionArguments describe(const Attributes& attributes, Span<const TensorView> inputs) {
  const Axes a = bind(kSpec, attributes, inputs);
  const TensorView& both = inputs[kOffsetMask];
  const gpu::PointStrides strides{both.shape[3], 3 * a[P]};
  gpu::AttentionArguments arguments = gpu::attention_arguments(
      {a[N], a[OH] * a[OW], a[G], a[C] / a[G], a[H] * a[W], a[P]}, inputs[kInput], both, strides, both, strides);
  arguments.first_weight = static_cast<int>(2 * a[P]);
  arguments.softmax = (*attributes.named(kSpec, "softmax").ints)[0] != 0;
  gpu::set_window(arguments, {a[H], a[W], a[OH], a[OW], a[KH], a[KW], a[SH], a[SW], a[PT], a[PL], a[DH], a[DW],
                              a[RC] != 0, attributes.named(kSpec, "offset_scale").number});
  return arguments;
}

std::unique_ptr<gpu::GpuKernel> create(const Attributes& attributes, const gpu::GpuOptions&) {
  return std::make_unique<gpu::AttentionKernel<gpu::WindowPoints>>(describe, attributes);
}

}  // namespace

const gpu::GpuOp kGpuOp = {&kSpec, {}, {}, create};

}  // namespace deploydcn::dcnv4
