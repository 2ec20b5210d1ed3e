#include "ops/separable_conv2d/separable_conv2d_cpu.h"

#include "core/cpu/convolution_kernel.h"
#include "ops/separable_conv2d/spec.gen.h"

namespace deploydcn::separable_conv2d {
namespace {

enum Input { kX, kDepthwiseWeight, kPointwiseWeight, kDepthwiseBias, kPointwiseBias };

cpu::ConvolutionCall describe(const Attributes& attributes, Span<const TensorView> inputs) {
  const Axes a = bind(kSpec, attributes, inputs);
  const auto activation = [&](const char* name) { return activation_named(attributes.named(kSpec, name).string); };
  const cpu::ConvolutionShape shape{a[N],  a[D],  a[H],  a[W],  a[M],  a[OH], a[OW], a[KH], a[KW],
                                    a[SH], a[SW], a[PT], a[PL], a[DH], a[DW], 1,     1};
  const cpu::DepthwiseStage depthwise{inputs[kDepthwiseWeight], input_at(inputs, kDepthwiseBias), a[C],
                                      activation("depthwise_activation")};
  return {shape,
          {inputs[kX],
           inputs[kPointwiseWeight],
           {},
           {},
           input_at(inputs, kPointwiseBias),
           nullptr,
           activation("activation"),
           depthwise}};
}

std::unique_ptr<CpuKernel> create(const CpuNode& node) {
  return std::make_unique<cpu::ConvolutionKernel>(describe, node, kPointwiseWeight, 1, 1);
}

}  // namespace

const CpuOp kCpuOp = {&kSpec, create};

}  // namespace deploydcn::separable_conv2d
