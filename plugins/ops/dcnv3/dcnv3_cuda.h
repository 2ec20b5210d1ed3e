// The GPU side of dcnv3, as runtimes see it.
#pragma once

#include "gpu/gpu_op.h"

namespace deploydcn::dcnv3 {

extern const gpu::GpuOp kGpuOp;

}  // namespace deploydcn::dcnv3
