// The CPU side of deform_conv2d, as runtimes see it.
#pragma once

#include "core/cpu_op.h"

namespace deploydcn::deform_conv2d {

extern const CpuOp kCpuOp;

}  // namespace deploydcn::deform_conv2d
