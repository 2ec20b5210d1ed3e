// The GPU side of ms_deform_attn, as runtimes see it.
#pragma once

#include "gpu/gpu_op.h"

namespace deploydcn::ms_deform_attn {

extern const gpu::GpuOp kGpuOp;

}  // namespace deploydcn::ms_deform_attn
