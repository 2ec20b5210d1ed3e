// The CPU side of ms_deform_attn, as runtimes see it.
#pragma once

#include "core/cpu_op.h"

namespace deploydcn::ms_deform_attn {

extern const CpuOp kCpuOp;

}  // namespace deploydcn::ms_deform_attn
