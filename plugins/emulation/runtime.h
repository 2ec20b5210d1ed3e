// What device code, whether g++ compiled it or translate_ptx.py wrote it, asks of the runtime.
//
// The runtime's own files are compiled without ThreadSanitizer: code that moves between fibers must not be
// instrumented. What touches a kernel's memory on its behalf is therefore in headers (async_copy.h,
// matrix_instructions.h), compiled with the kernel.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <source_location>

#include "emulation/control.h"

namespace deploydcn::emulation {

// Where a kernel called something: its source line, or a line of PTX. Threads that meet must be at the same site, if
// `compared`.
struct Site {
  const char* file;
  int line;
  bool compared = true;
};
using Source = std::source_location;
inline Site site_of(const Source& source) { return {source.file_name(), static_cast<int>(source.line())}; }

// The running device thread. The scheduler fills it; kernels only read.
struct ThreadState {
  uint3 thread_index;
  uint3 block_index;
  dim3 block_dim;
  dim3 grid_dim;
  unsigned linear_index;  // in the block
};
extern ThreadState* current_thread;
inline int lane_index() { return static_cast<int>(current_thread->linear_index & 31); }

// Ends the kernel with a text that names kernel, block and thread. `error` is what later CUDA calls return.
[[noreturn]] void fail(cudaError_t error, const char* format, ...) __attribute__((format(printf, 2, 3)));

// Barriers of the block. All threads must come to the same site.
void sync_block(Site site);
enum class BlockReduction { kCount, kAnd, kOr };
int sync_block_reduce(bool predicate, BlockReduction reduction, Site site);

// A step that the lanes of `mask` take together. `in` and `out` are each lane's own; the last lane to arrive calls
// `combine` once with all of them (null for lanes outside the mask). Every lane must bring the same operation and site.
enum class WarpOperation { kSync, kShuffle, kVote, kMatrixLoad, kMatrixProduct };
using Combine = void (*)(const void* const* in, void* const* out, uint32_t mask);
void warp_collective(uint32_t mask, WarpOperation operation, const void* in, void* out, Combine combine, Site site);
// The value of lane `source`; garbage when that lane is outside the mask.
uint64_t shuffle_bits(uint32_t mask, uint64_t value, int source, Site site);
uint32_t ballot(uint32_t mask, bool predicate, Site site);

// Shared memory. Arrays are poisoned afresh for each block and lie between red zones.
void* static_shared(const void* key, size_t bytes, size_t alignment, const char* name);
void* dynamic_shared();
void* carve(const void* base, size_t offset, size_t bytes, const char* name);
// The block's shared memory in PTX form: static arrays as laid out by the translator, then the launch's dynamic bytes.
struct SharedArray {
  const char* name;
  uint32_t offset, bytes;
};
struct SharedBlock {
  char* base;
  uint32_t bytes;
};
SharedBlock shared_block(const SharedArray* arrays, size_t count, uint32_t dynamic_offset);

// Asynchronous copies, global to shared: remembered here, performed by the thread itself when it waits (async_copy.h).
struct AsyncCopy {
  void* to;
  const void* from;  // null: zeros
};
void async_copy_start(const AsyncCopy& copy);
void async_copy_commit();
// The next copy that a wait for all but `groups_left` groups must perform now; false when there is none.
bool async_copy_next(int groups_left, AsyncCopy& copy);

// Tensor-core arithmetic by register fragment (fragment_layouts.h), for warp_collective.
struct MatrixOperands {
  uint32_t a[4];
  uint32_t b[2];
  float c[4];
};
void multiply_m16n8k16_f16(const void* const* in, void* const* out, uint32_t mask);
void multiply_m16n8k16_bf16(const void* const* in, void* const* out, uint32_t mask);
void multiply_m16n8k8_f16(const void* const* in, void* const* out, uint32_t mask);
void multiply_m16n8k8_tf32(const void* const* in, void* const* out, uint32_t mask);
void distribute_matrix_rows(const void* const* in, void* const* out, uint32_t mask);
void distribute_matrix_rows_transposed(const void* const* in, void* const* out, uint32_t mask);

// Kernels in PTX form. A translated kernel gets an array of pointers to its arguments.
using PtxKernel = void (*)(void* const* arguments);

// A kernel launch, either form.
struct Launch {
  const void* kernel;  // the source form; its address finds the PTX form
  const char* name;
  dim3 grid, block;
  size_t shared_bytes;
  cudaStream_t stream;
};
cudaError_t submit(const Launch& launch, std::function<void(PtxKernel)> body);
// Records a failure when `pointer` is neither null nor device memory.
void check_pointer_argument(const void* pointer, int argument, const char* kernel);

}  // namespace deploydcn::emulation
