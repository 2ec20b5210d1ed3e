// What translated PTX calls. One function per instruction whose meaning is not plain C++.
#pragma once

#include "emulation/async_copy.h"
#include "emulation/atomics.h"
#include "emulation/matrix_instructions.h"
#include "emulation/narrow_floats.h"
#include "emulation/ptx_arithmetic.h"
#include "emulation/ptx_memory.h"
#include "emulation/ptx_registry.h"
#include "emulation/ptx_warp.h"
#include "emulation/runtime.h"

using namespace deploydcn::emulation;  // only generated files include this header
using namespace deploydcn::emulation::ptx;
