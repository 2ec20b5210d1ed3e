// Controls of the emulator for test harnesses: C names for ctypes, and the same state as C++ objects.
//
// Errors come two ways: CUDA calls return cudaError_t as on a GPU, and deploydcn_emulation_error() holds the text of
// the first failure since the last reset (which kernel, block, thread, what). A test that does not look at the text
// proves nothing.
#pragma once

#include <cstddef>
#include <cstdint>

#define DEPLOYDCN_EMULATION_API __attribute__((visibility("default")))

extern "C" {

// Sets one option; 0, or 1 with the text in deploydcn_emulation_error(). Names and values:
//   schedule            seq | rev | rand    order in which threads and blocks run
//   seed                unsigned            of the random schedule
//   poison              0..255              what shared memory holds before it is written; results must not depend on
//   it strict_exit         0 | 1               1: threads that exited do not count at barriers (the kernel then
//   deadlocks, with a text) inside_enqueue      0 | 1               1: no synchronisation, no allocation, no default
//   stream, as in a TensorRT plugin deferred            0 | 1               1: work on streams runs when the host
//   synchronises engine              source | ptx75 | ptx80 compute_capability  e.g. 8.6            what
//   cudaDeviceGetAttribute reports; `engine` sets 7.5 for ptx75 and 9.0 otherwise multiprocessors     1.. what
//   cudaDeviceGetAttribute reports
DEPLOYDCN_EMULATION_API int deploydcn_emulation_set(const char* name, const char* value);

// The first failure since the last reset, "" when there is none.
DEPLOYDCN_EMULATION_API const char* deploydcn_emulation_error(void);
// Forgets the failure, CUDA's sticky and last errors, and work not yet run. Options and memory stay.
DEPLOYDCN_EMULATION_API void deploydcn_emulation_reset(void);

struct deploydcn_emulation_stats {
  uint64_t launches, blocks, threads, switches, barriers, warp_collectives, matrix_products, async_copies;
};
// Totals since the process began, or since clear = 1.
DEPLOYDCN_EMULATION_API void deploydcn_emulation_read_stats(struct deploydcn_emulation_stats* stats, int clear);

// Device memory and copies for callers without cudart. malloc returns null on failure, the others a cudaError_t.
DEPLOYDCN_EMULATION_API void* deploydcn_emulation_malloc(size_t bytes);
DEPLOYDCN_EMULATION_API int deploydcn_emulation_free(void* device);
DEPLOYDCN_EMULATION_API int deploydcn_emulation_upload(void* device, const void* host, size_t bytes);
DEPLOYDCN_EMULATION_API int deploydcn_emulation_download(void* host, const void* device, size_t bytes);
DEPLOYDCN_EMULATION_API void* deploydcn_emulation_stream_create(void);
DEPLOYDCN_EMULATION_API int deploydcn_emulation_stream_destroy(void* stream);
DEPLOYDCN_EMULATION_API int deploydcn_emulation_synchronize(void);
}

namespace deploydcn::emulation {

enum class Schedule { kSequential, kReverse, kRandom };
enum class Engine { kSource, kPtx75, kPtx80 };

struct Options {
  Schedule schedule = Schedule::kSequential;
  uint64_t seed = 1;
  unsigned char poison = 0xff;  // NaN in every floating-point type
  bool strict_exit = true;
  bool inside_enqueue = false;
  bool deferred = false;
  Engine engine = Engine::kSource;
  int compute_capability = 90;  // 10 * major + minor
  int multiprocessors = 4;
};

DEPLOYDCN_EMULATION_API Options& options();
DEPLOYDCN_EMULATION_API deploydcn_emulation_stats& stats();

}  // namespace deploydcn::emulation
