// Naive kernels of the ops whose production kernels are not naive themselves: compiled for tests only.
#pragma once

#include "core/activation.h"
#include "gpu/gpu_op.h"

namespace deploydcn::harness {

extern const gpu::GpuOp kNaiveDeformConv2d, kNaiveGroupedConv2d;

}  // namespace deploydcn::harness
