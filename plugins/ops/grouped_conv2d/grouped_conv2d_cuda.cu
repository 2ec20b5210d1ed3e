#include "ops/grouped_conv2d/grouped_conv2d_cuda.h"

#include "gpu/convolution_kernel.cuh"
#include "ops/grouped_conv2d/spec.gen.h"

namespace deploydcn::grouped_conv2d {
namespace {

enum Input { kX, kW, kBias };
constexpr int kChannelsLastInputs[] = {kX};
constexpr int kChannelsLastOutputs[] = {0};

gpu::ConvolutionCall describe(const Attributes& attributes, Span<const TensorView> inputs) {
  const Axes a = bind(kSpec, attributes, inputs);
  return {{a[N], a[C], a[H], a[W], a[M], a[OH], a[OW], a[KH], a[KW], a[SH], a[SW], a[PT], a[PL], a[DH], a[DW], a[G], 1},
          inputs[kX],
          inputs[kW],
          {},
          {},
          input_at(inputs, kBias),
          activation_named(attributes.named(kSpec, "activation").string)};
}

std::unique_ptr<gpu::GpuKernel> create(const Attributes& attributes, const gpu::GpuOptions& options) {
  return std::make_unique<gpu::ConvolutionKernel<gpu::DenseSampling>>(describe, attributes, options);
}

}  // namespace

const gpu::GpuOp kGpuOp = {&kSpec, kChannelsLastInputs, kChannelsLastOutputs, create};

}  // namespace deploydcn::grouped_conv2d
