// One generic adapter: makes an ONNX Runtime custom op of any CpuOp and one row of its types.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/cpu_op.h"
#include "ort/api.h"

namespace deploydcn::ort {

// `name`: the op type it answers to. `row`: index into op.spec->type_rows. `infer_shapes`: whether the runtime may call
// its shape function. The runtime keeps pointers to the result.
std::unique_ptr<CustomOp> make_custom_op(const CpuOp& op, std::string name, std::size_t row, bool infer_shapes);

}  // namespace deploydcn::ort
