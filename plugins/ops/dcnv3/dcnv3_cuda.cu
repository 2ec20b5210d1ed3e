#include "ops/dcnv3/dcnv3_cuda.h"

#include "gpu/attention_kernel.cuh"
#include "ops/dcnv3/spec.gen.h"

namespace deploydcn::dcnv3 {
namespace {

enum Input { kInput, kOffset, kMask };

gpu::AttentionArguments describe(const Attributes& attributes, Span<const TensorView> inputs) {
  const Axes a = bind(kSpec, attributes, inputs);
  gpu::AttentionArguments arguments =
      gpu::attention_arguments({a[N], a[OH] * a[OW], a[G], a[C] / a[G], a[H] * a[W], a[P]}, inputs[kInput],
                               inputs[kOffset], {2 * a[G] * a[P], 2 * a[P]}, inputs[kMask], {a[G] * a[P], a[P]});
  gpu::set_window(arguments, {a[H], a[W], a[OH], a[OW], a[KH], a[KW], a[SH], a[SW], a[PT], a[PL], a[DH], a[DW],
                              a[RC] != 0, attributes.named(kSpec, "offset_scale").number});
  return arguments;
}

std::unique_ptr<gpu::GpuKernel> create(const Attributes& attributes, const gpu::GpuOptions&) {
  return std::make_unique<gpu::AttentionKernel<gpu::WindowPoints>>(describe, attributes);
}

}  // namespace

const gpu::GpuOp kGpuOp = {&kSpec, {}, {}, create};

}  // namespace deploydcn::dcnv3
