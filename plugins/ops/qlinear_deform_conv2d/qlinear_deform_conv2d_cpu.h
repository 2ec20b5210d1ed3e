// The CPU side of qlinear_deform_conv2d, as runtimes see it.
#pragma once

#include "core/cpu_op.h"

namespace deploydcn::qlinear_deform_conv2d {

extern const CpuOp kCpuOp;

}  // namespace deploydcn::qlinear_deform_conv2d
