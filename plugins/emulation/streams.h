// Work in stream order. All streams share one queue, so cross-stream races are not seen.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <mutex>

namespace deploydcn::emulation {

// Held by every CUDA call: the emulator runs one thing at a time.
std::recursive_mutex& runtime_mutex();

void enqueue(std::function<void()> work);  // runs at once unless options().deferred
void run_enqueued();
void drop_enqueued();

bool is_default_stream(cudaStream_t stream);
// What a launcher must not do: records the failure and returns its error when options().inside_enqueue, else
// cudaSuccess.
cudaError_t refuse_inside_enqueue(const char* what);

size_t shared_memory_opt_in();                                       // of the emulated device, in bytes per block
void allow_dynamic_shared_memory(const void* kernel, size_t bytes);  // cudaFuncSetAttribute

}  // namespace deploydcn::emulation
