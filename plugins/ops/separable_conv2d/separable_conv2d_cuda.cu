#include "ops/separable_conv2d/separable_conv2d_cuda.h"

#include "gpu/convolution_kernel.cuh"
#include "gpu/separable_sampling.cuh"
#include "ops/separable_conv2d/spec.gen.h"

namespace deploydcn::separable_conv2d {
namespace {

enum Input { kX, kDepthwiseWeight, kPointwiseWeight, kDepthwiseBias, kPointwiseBias };
constexpr int kChannelsLastInputs[] = {kX};
constexpr int kChannelsLastOutputs[] = {0};

gpu::ConvolutionCall describe(const Attributes& attributes, Span<const TensorView> inputs) {
  const Axes a = bind(kSpec, attributes, inputs);
  const auto activation = [&](const char* name) { return activation_named(attributes.named(kSpec, name).string); };
  return {{a[N], a[D], a[H], a[W], a[M], a[OH], a[OW], a[KH], a[KW], a[SH], a[SW], a[PT], a[PL], a[DH], a[DW], 1, 1},
          inputs[kX],
          inputs[kPointwiseWeight],
          {},
          {},
          input_at(inputs, kPointwiseBias),
          activation("activation"),
          {inputs[kDepthwiseWeight], input_at(inputs, kDepthwiseBias), a[C], activation("depthwise_activation")}};
}

std::unique_ptr<gpu::GpuKernel> create(const Attributes& attributes, const gpu::GpuOptions& options) {
  return std::make_unique<gpu::ConvolutionKernel<gpu::SeparableSampling>>(describe, attributes, options);
}

}  // namespace

const gpu::GpuOp kGpuOp = {&kSpec, kChannelsLastInputs, kChannelsLastOutputs, create};

}  // namespace deploydcn::separable_conv2d
