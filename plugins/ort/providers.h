// The ops of this library on each execution provider.
#pragma once

#include <vector>

#include "ort/custom_op.h"

namespace deploydcn::ort {

struct ProvidedOp {
  const OpSpec* spec;
  Provider provider;
  bool (*takes)(Span<const DType> type_row);
};

// bfloat16: whether their products may round to it (CpuNode).
std::vector<ProvidedOp> cpu_ops(bool bfloat16);
// Empty in a build without CUDA.
std::vector<ProvidedOp> cuda_ops();

}  // namespace deploydcn::ort
