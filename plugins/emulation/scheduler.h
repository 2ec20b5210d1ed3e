// Runs the threads of one block as fibers. Inside the runtime only.
//
// Code that runs on a fiber (barriers, collectives, fail) neither allocates nor uses library containers: under
// ThreadSanitizer malloc is seen as an access, and templates that kernels use too would be merged with instrumented
// copies.
#pragma once

#include "emulation/fiber.h"
#include "emulation/runtime.h"

namespace deploydcn::emulation {

inline constexpr unsigned kMaxThreads = 1024, kWarpSize = 32;

struct AsyncCopies {
  static constexpr int kMost = 256, kMostGroups = 64;
  AsyncCopy copies[kMost];
  int group_ends[kMostGroups];  // a commit's position in `copies`
  int started = 0, performed = 0, groups = 0;
};

struct DeviceThread : ThreadState {
  enum class State { kReady, kInBarrier, kInWarpCollective, kExited };
  State state;
  Site site;           // of the barrier or collective it waits in
  bool barrier_input;  // of a reducing barrier
  AsyncCopies async;
  Fiber fiber;
};

struct Block {
  const char* kernel;
  unsigned threads;
  unsigned live;     // not exited
  unsigned arrived;  // at the barrier
  bool failed;
  DeviceThread* thread[kMaxThreads];
};
extern Block block;

// The device thread that runs now; on_device() says whether there is one.
inline DeviceThread& this_thread() { return *static_cast<DeviceThread*>(current_thread); }
bool on_device();

// Hands the processor to another thread until something makes this one ready.
void wait(DeviceThread::State why);
void make_ready(DeviceThread& thread);
// Makes ready those of threads [begin, end) that are in `state` and in `mask` (by index from begin), in schedule order.
void make_ready(unsigned begin, unsigned end, DeviceThread::State state, uint32_t mask);

// The schedule's random numbers, fresh for each kernel.
void seed_schedule(uint64_t seed);
uint64_t random_number();

// Runs one block to its end; false after a failure, which is recorded.
bool run_block(const Launch& launch, uint3 block_index, const std::function<void()>& body);
// Called around the blocks of a kernel.
void begin_kernel(const Launch& launch);
void end_kernel();

// warp_collectives.cc: forgets all pending ones.
void reset_warps();

// barriers.cc
bool same_site(const Site& a, const Site& b);
void thread_exited();  // lets the barrier go when exited threads count as arrived and all others are there

// shared_memory.cc
void reset_shared_memory(size_t dynamic_bytes, size_t limit);
bool red_zones_intact(const Launch& launch, uint3 block_index);  // records a failure when not
// Addresses for acquire and release, different for each block: nothing may order two blocks.
void* synchronisation_address(unsigned index);

}  // namespace deploydcn::emulation
