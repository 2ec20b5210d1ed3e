#include "core/cpu/convolution_kernel.h"

#include <utility>

#include "core/cpu/depthwise_convolution.h"
#include "core/cpu/direct_convolution.h"

namespace deploydcn::cpu {
ConvolutionKernel::ConvolutionKernel(Describe describe, const CpuNode& node, std::size_t weight_index, int64_t groups,
                                     int64_t offset_groups)
    : describe_(describe), attributes_(node.attributes), dtype_(node.dtypes[0]), products_(node.products) {
  const TensorView& weight = node.constants[weight_index];
  // A weight that does not fit the groups is left to `compute`, whose shape checks explain it.
  const bool packable = weight.present && weight.shape.size() == 4 && element_count(weight.shape) > 0 &&
                        weight.shape[0] % groups == 0 && weight.shape[1] * groups % offset_groups == 0;
  if (!packable) return;
  if (dtype_ == DType::kFloat64) {
    packed_double_ = std::make_unique<PackedWeights<double>>(weight, groups, offset_groups, products_);
  } else {
    packed_float_ = std::make_unique<PackedWeights<float>>(weight, groups, offset_groups, products_);
  }
}

void ConvolutionKernel::compute(Span<const TensorView> inputs, CpuContext& context) const {
  ConvolutionCall call = describe_(attributes_, inputs);
  check_limits(call.shape);
  const ConvolutionShape& s = call.shape;
  call.arguments.output = context.output(0, {s.batch, s.outputs, s.out_height, s.out_width});
  if (dtype_ == DType::kFloat64) {
    compute_as<double>(call, packed_double_.get(), context);
  } else {
    compute_as<float>(call, packed_float_.get(), context);
  }
}

template <class F>
void ConvolutionKernel::compute_as(const ConvolutionCall& call, const PackedWeights<F>* packed,
                                   CpuContext& context) const {
  const bool plain = !call.arguments.offset.present && !call.arguments.depthwise.weight.present;
  if (plain && runs_depthwise(call.shape)) {
    return convolve_depthwise<F>(call.shape, call.arguments, context);
  }
  if (plain && runs_directly(call.shape)) return convolve_directly<F>(call.shape, call.arguments, context);
  if (packed) return convolve(call.shape, *packed, call.arguments, context);
  convolve(call.shape, PackedWeights<F>(call.arguments.weight, call.shape.groups, call.shape.offset_groups, products_),
           call.arguments, context);
}

}  // namespace deploydcn::cpu
