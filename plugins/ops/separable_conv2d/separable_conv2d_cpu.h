// The CPU side of separable_conv2d, as runtimes see it.
#pragma once

#include "core/cpu_op.h"

namespace deploydcn::separable_conv2d {

extern const CpuOp kCpuOp;

}  // namespace deploydcn::separable_conv2d
