// The ops of this library on each execution provider.
#pragma once

#include <vector>

#include "core/cpu_op.h"
#include "ort/custom_op.h"

namespace deploydcn::ort {

struct ProvidedOp {
  const OpSpec* spec;
  Provider provider;
  bool (*takes)(Span<const DType> type_row);
};

std::vector<ProvidedOp> cpu_ops(Products products);
// Empty in a build without CUDA.
std::vector<ProvidedOp> cuda_ops();

}  // namespace deploydcn::ort
