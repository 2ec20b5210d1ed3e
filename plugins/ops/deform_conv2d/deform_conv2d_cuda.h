// The GPU side of deform_conv2d, as runtimes see it.
#pragma once

#include "gpu/gpu_op.h"

namespace deploydcn::deform_conv2d {

extern const gpu::GpuOp kGpuOp;

}  // namespace deploydcn::deform_conv2d
