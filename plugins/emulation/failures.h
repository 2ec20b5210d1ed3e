// The one failure a test looks at: its text and the error that CUDA calls return from then on.
#pragma once

#include <cuda_runtime_api.h>

#include <string>

namespace deploydcn::emulation {

// Keeps the first text only. `sticky` also makes every later CUDA call return it, as after a crashed kernel.
void record_failure(const std::string& text, cudaError_t sticky = cudaSuccess);
const std::string& failure_text();
cudaError_t sticky_error();
// Remembers `error` for cudaGetLastError and returns it.
cudaError_t returned(cudaError_t error);
cudaError_t take_last_error(bool clear);
void forget_failures();

// Turns a hardware fault in device code into fail(), and names one on the host in device memory. Idempotent.
void install_fault_handler();

}  // namespace deploydcn::emulation
