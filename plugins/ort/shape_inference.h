// Output shapes at session creation, with unknown dimensions.
#pragma once

#include "ort/runtime.h"

namespace deploydcn::ort {

// The body of InferOutputShapeFn for any op: throws InvalidArgument where known shapes already contradict the spec.
void infer_output_shapes(const OpSpec& spec, ShapeInferContext* context);

}  // namespace deploydcn::ort
