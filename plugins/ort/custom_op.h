// One generic adapter: makes an ONNX Runtime custom op of any CpuOp and one row of its types.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/cpu_op.h"
#include "ort/api.h"

namespace deploydcn::ort {

// `name`: the op type it answers to. `row`: index into op.spec->type_rows. Lives as long as the library.
std::unique_ptr<CustomOp> make_custom_op(const CpuOp& op, std::string name, std::size_t row);

}  // namespace deploydcn::ort
