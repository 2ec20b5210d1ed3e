// The CPU side of dcnv3, as runtimes see it.
#pragma once

#include "core/cpu_op.h"

namespace deploydcn::dcnv3 {

extern const CpuOp kCpuOp;

}  // namespace deploydcn::dcnv3
