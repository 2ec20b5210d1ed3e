// The CPU kernel shared by all sliding-window ops: packs constant weights once, runs tiled convolution in float, or in
// double for float64 data.
#pragma once

#include <memory>

#include "core/cpu/tiled_convolution.h"

namespace deploydcn::cpu {

// One call of an op, as the op reads it from its own bound axes and inputs.
struct ConvolutionCall {
  ConvolutionShape shape;
  ConvolutionArguments arguments;
};

class ConvolutionKernel : public CpuKernel {
 public:
  // The op's part: bind shapes, name inputs. The output is allocated by the caller of this function.
  using Describe = ConvolutionCall (*)(const Attributes&, Span<const TensorView>);

  // weight: the index of the input that is packed, at once where it is constant.
  ConvolutionKernel(Describe describe, const CpuNode& node, std::size_t weight, int64_t groups, int64_t offset_groups);

  void compute(Span<const TensorView> inputs, CpuContext& context) const override;

 private:
  template <class F>
  void compute_as(const ConvolutionCall& call, const PackedWeights<F>* packed, CpuContext& context) const;

  Describe describe_;
  Attributes attributes_;
  DType dtype_;
  Products products_;
  std::unique_ptr<PackedWeights<float>> packed_float_;
  std::unique_ptr<PackedWeights<double>> packed_double_;
};

}  // namespace deploydcn::cpu
