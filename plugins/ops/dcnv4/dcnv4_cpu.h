// The CPU side of dcnv4, as runtimes see it.
#pragma once

#include "core/cpu_op.h"

namespace deploydcn::dcnv4 {

extern const CpuOp kCpuOp;

}  // namespace deploydcn::dcnv4
