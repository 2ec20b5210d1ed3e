// In place of cuda_ops.cc where there is no CUDA compiler.
#include "ort/providers.h"

namespace deploydcn::ort {

std::vector<ProvidedOp> cuda_ops() { return {}; }

}  // namespace deploydcn::ort
