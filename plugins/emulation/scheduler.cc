#include "emulation/scheduler.h"

#include <pthread.h>

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "emulation/failures.h"
#include "emulation/sanitizers.h"

namespace deploydcn::emulation {

ThreadState* current_thread = nullptr;
Block block{};

namespace {

DeviceThread main_thread{};  // the host, seen as one more fiber
pthread_t os_thread;         // that runs the kernel
const std::function<void()>* kernel_body = nullptr;
char kernel_start, kernel_end;  // for acquire and release: host before kernel before host

// Threads that can run, in a ring.
DeviceThread* ready[kMaxThreads];
unsigned ready_first = 0, ready_count = 0;
uint64_t random_state = 1;

DeviceThread& next_thread() {
  if (block.failed || ready_count == 0) return main_thread;
  if (options().schedule == Schedule::kRandom) {
    const unsigned chosen = (ready_first + random_number() % ready_count) % kMaxThreads;
    DeviceThread* const swapped = ready[chosen];
    ready[chosen] = ready[ready_first];
    ready[ready_first] = swapped;
  }
  DeviceThread& thread = *ready[ready_first];
  ready_first = (ready_first + 1) % kMaxThreads;
  --ready_count;
  return thread;
}

void switch_to(DeviceThread& to) {
  DeviceThread& from = this_thread();
  if (&from == &to) return;
  ++stats().switches;
  current_thread = &to;
  Fiber::switch_between(from.fiber, to.fiber);
}

// What every fiber runs: the kernel once for each block it is a thread of.
void thread_main() {
  Fiber::entered();
  for (;;) {
    acquire(&kernel_start);
    (*kernel_body)();
    release(&kernel_end);
    DeviceThread& me = this_thread();
    const int forgotten = me.async.started - me.async.performed;
    if (forgotten) fail(cudaErrorLaunchFailure, "the thread exits with %d cp.async copies never waited for", forgotten);
    me.state = DeviceThread::State::kExited;
    --block.live;
    thread_exited();
    switch_to(next_thread());
  }
}

// Who waits where, for the text of a deadlock: one entry for each distinct place.
std::string describe_waiting() {
  std::string text;
  for (unsigned i = 0; i < block.threads; ++i) {
    const DeviceThread& first = *block.thread[i];
    if (first.state == DeviceThread::State::kExited) continue;
    unsigned count = 0, before = 0;
    for (unsigned j = 0; j < block.threads; ++j) {
      const DeviceThread& other = *block.thread[j];
      const bool same = other.state == first.state && other.site.line == first.site.line;
      count += same, before += same && j < i;
    }
    if (before) continue;
    text += std::to_string(count) + " threads (the first is " + std::to_string(i) + ") wait in ";
    text += first.state == DeviceThread::State::kInBarrier ? "__syncthreads at " : "a warp collective at ";
    text += first.site.file + (":" + std::to_string(first.site.line)) + "; ";
  }
  return text + std::to_string(block.threads - block.live) + " threads exited";
}

void prepare_threads(const Launch& launch, uint3 block_index) {
  for (unsigned i = 0; i < block.threads; ++i) {
    if (!block.thread[i]) block.thread[i] = new DeviceThread;  // for the rest of the process
    DeviceThread& thread = *block.thread[i];
    // Blocks run at the same time on a GPU: for ThreadSanitizer each needs fibers and stacks of its own.
    if (kThreadSanitizer) thread.fiber.destroy();
    if (!thread.fiber.created()) thread.fiber.create(thread_main);
    const dim3 size = launch.block;
    thread.thread_index = uint3{i % size.x, i / size.x % size.y, i / size.x / size.y};
    thread.block_index = block_index;
    thread.block_dim = size;
    thread.grid_dim = launch.grid;
    thread.linear_index = i;
    thread.state = DeviceThread::State::kReady;
    thread.async.started = thread.async.performed = thread.async.groups = 0;
  }
}

}  // namespace

bool on_device() {
  return current_thread && current_thread != &main_thread && pthread_equal(pthread_self(), os_thread);
}

void wait(DeviceThread::State why) {
  this_thread().state = why;
  release(&kernel_end);  // in case it never comes back: after a failure the host must not race with abandoned threads
  switch_to(next_thread());
}

void make_ready(DeviceThread& thread) {
  thread.state = DeviceThread::State::kReady;
  ready[(ready_first + ready_count++) % kMaxThreads] = &thread;
}

void make_ready(unsigned begin, unsigned end, DeviceThread::State state, uint32_t mask) {
  for (unsigned i = begin; i < end; ++i) {
    const unsigned index = options().schedule == Schedule::kReverse ? begin + end - 1 - i : i;
    const bool wanted = end - begin > kWarpSize || (mask >> (index - begin) & 1);
    if (wanted && block.thread[index]->state == state) make_ready(*block.thread[index]);
  }
}

void seed_schedule(uint64_t seed) { random_state = (seed * 0x9e3779b97f4a7c15u) | 1; }

uint64_t random_number() {  // xorshift
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

void fail(cudaError_t error, const char* format, ...) {
  char text[600];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  if (!on_device()) {
    std::fprintf(stderr, "emulation: %s\n", text);
    std::abort();
  }
  char where[300];
  const ThreadState& me = this_thread();
  snprintf(where, sizeof(where), "kernel %s block (%u,%u,%u) thread (%u,%u,%u): ", block.kernel, me.block_index.x,
           me.block_index.y, me.block_index.z, me.thread_index.x, me.thread_index.y, me.thread_index.z);
  record_failure(std::string(where) + text, error);
  block.failed = true;
  release(&kernel_end);
  for (;;) switch_to(main_thread);  // nothing comes back: the stacks are abandoned
}

void begin_kernel(const Launch& launch) {
  block.kernel = launch.name;
  block.threads = launch.block.x * launch.block.y * launch.block.z;
  os_thread = pthread_self();
  main_thread.fiber.adopt_current();
  seed_schedule(options().seed);
}

bool run_block(const Launch& launch, uint3 block_index, const std::function<void()>& body) {
  ++stats().blocks;
  stats().threads += block.threads;
  kernel_body = &body;
  block.live = block.threads;
  block.arrived = ready_first = ready_count = 0;
  block.failed = false;
  reset_warps();
  prepare_threads(launch, block_index);
  for (unsigned i = 0; i < block.threads; ++i) block.thread[i]->state = DeviceThread::State::kInBarrier;
  make_ready(0, block.threads, DeviceThread::State::kInBarrier, ~0u);
  release(&kernel_start);

  current_thread = &main_thread;
  switch_to(next_thread());
  current_thread = nullptr;

  if (!block.failed && block.live) {
    block.failed = true;
    record_failure(std::string("kernel ") + launch.name + ": deadlock or divergent barrier: " + describe_waiting(),
                   cudaErrorLaunchFailure);
  }
  if (!block.failed) return true;
  for (unsigned i = 0; i < block.threads; ++i) block.thread[i]->fiber.destroy();
  return false;
}

void end_kernel() { acquire(&kernel_end); }

}  // namespace deploydcn::emulation
