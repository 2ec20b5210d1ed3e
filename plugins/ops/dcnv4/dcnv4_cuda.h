// The GPU side of dcnv4, as runtimes see it.
#pragma once

#include "gpu/gpu_op.h"

namespace deploydcn::dcnv4 {

extern const gpu::GpuOp kGpuOp;

}  // namespace deploydcn::dcnv4
