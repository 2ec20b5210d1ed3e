// Shapes between TensorRT and the op specs.
#pragma once

#include <NvInferRuntime.h>

#include "core/tensor_view.h"

namespace deploydcn::trt {

// Which spec input each plugin input is. TensorRT takes no absent inputs: where optional ones are left out, those that
// are there follow each other, told apart by their rank. Throws InvalidArgument when they fit no reading of the spec.
// ranks: of all `count` inputs, or of the first ones, which are then mapped alone.
std::vector<std::size_t> map_inputs(const OpSpec& spec, const std::vector<int32_t>& ranks, std::size_t count);

// Output shapes as expressions over the input shapes; throws InvalidArgument where constant sizes contradict the spec.
// `mapping`: of map_inputs.
std::vector<nvinfer1::DimsExprs> output_shapes(const OpSpec& spec, const Attributes& attributes,
                                               const std::vector<std::size_t>& mapping,
                                               const nvinfer1::DimsExprs* inputs, nvinfer1::IExprBuilder& builder);

Shape shape_of(const nvinfer1::Dims& dims);

}  // namespace deploydcn::trt
