#include "ops/deform_conv2d/deform_conv2d_cpu.h"

#include "core/cpu/convolution_kernel.h"
#include "ops/deform_conv2d/spec.gen.h"

namespace deploydcn::deform_conv2d {
namespace {

enum Input { kX, kW, kOffset, kBias, kMask };

cpu::ConvolutionCall describe(const Attributes& attributes, Span<const TensorView> inputs) {
  const Axes a = bind(kSpec, attributes, inputs);
  const cpu::ConvolutionShape shape{a[N],  a[C],  a[H],  a[W],  a[M],  a[OH], a[OW], a[KH], a[KW],
                                    a[SH], a[SW], a[PT], a[PL], a[DH], a[DW], a[G],  a[OG]};
  const auto activation = activation_named(attributes.named(kSpec, "activation").string);
  return {
      shape,
      {inputs[kX], inputs[kW], inputs[kOffset], input_at(inputs, kMask), input_at(inputs, kBias), nullptr, activation}};
}

std::unique_ptr<CpuKernel> create(const CpuNode& node) {
  const int64_t groups = (*node.attributes.named(kSpec, "group").ints)[0];
  const int64_t offset_groups = (*node.attributes.named(kSpec, "offset_group").ints)[0];
  return std::make_unique<cpu::ConvolutionKernel>(describe, node, kW, groups, offset_groups);
}

}  // namespace

const CpuOp kCpuOp = {&kSpec, create};

}  // namespace deploydcn::deform_conv2d
