#include "emulation/failures.h"

namespace deploydcn::emulation {
namespace {
std::string text;
cudaError_t sticky = cudaSuccess, last = cudaSuccess;
}  // namespace

void record_failure(const std::string& failure, cudaError_t error) {
  if (text.empty()) text = failure;
  if (sticky == cudaSuccess) sticky = error;
}
const std::string& failure_text() { return text; }
cudaError_t sticky_error() { return sticky; }

cudaError_t returned(cudaError_t error) {
  if (error != cudaSuccess) last = error;
  return error;
}
cudaError_t take_last_error(bool clear) {
  const cudaError_t error = last == cudaSuccess ? sticky : last;
  if (clear) last = cudaSuccess;
  return error;
}
void forget_failures() {
  text.clear();
  sticky = last = cudaSuccess;
}

}  // namespace deploydcn::emulation
