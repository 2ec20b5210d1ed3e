// The GPU side of deform_psroi_pool, as runtimes see it.
#pragma once

#include "gpu/gpu_op.h"

namespace deploydcn::deform_psroi_pool {

extern const gpu::GpuOp kGpuOp;

}  // namespace deploydcn::deform_psroi_pool
