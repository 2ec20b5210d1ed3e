// The CPU side of deform_psroi_pool, as runtimes see it.
#pragma once

#include "core/cpu_op.h"

namespace deploydcn::deform_psroi_pool {

extern const CpuOp kCpuOp;

}  // namespace deploydcn::deform_psroi_pool
