// The GPU side of separable_conv2d, as runtimes see it.
#pragma once

#include "gpu/gpu_op.h"

namespace deploydcn::separable_conv2d {

extern const gpu::GpuOp kGpuOp;

}  // namespace deploydcn::separable_conv2d
