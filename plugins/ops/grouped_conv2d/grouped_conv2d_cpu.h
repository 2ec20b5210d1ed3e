// The CPU side of grouped_conv2d, as runtimes see it.
#pragma once

#include "core/cpu_op.h"

namespace deploydcn::grouped_conv2d {

extern const CpuOp kCpuOp;

}  // namespace deploydcn::grouped_conv2d
