// Naive kernels, one per op: compiled for tests only.
#pragma once

#include "core/activation.h"
#include "gpu/gpu_op.h"

namespace deploydcn::harness {

extern const gpu::GpuOp kNaiveDeformConv2d, kNaiveGroupedConv2d;
// new-gpu-op: declare above

}  // namespace deploydcn::harness
