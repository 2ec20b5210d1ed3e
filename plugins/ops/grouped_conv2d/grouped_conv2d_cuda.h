// The GPU side of grouped_conv2d, as runtimes see it.
#pragma once

#include "gpu/gpu_op.h"

namespace deploydcn::grouped_conv2d {

extern const gpu::GpuOp kGpuOp;

}  // namespace deploydcn::grouped_conv2d
