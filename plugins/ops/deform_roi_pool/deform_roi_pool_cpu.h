// The CPU side of deform_roi_pool, as runtimes see it.
#pragma once

#include "core/cpu_op.h"

namespace deploydcn::deform_roi_pool {

extern const CpuOp kCpuOp;

}  // namespace deploydcn::deform_roi_pool
