#include <cstring>

#include "emulation/sanitizers.h"
#include "emulation/scheduler.h"

namespace deploydcn::emulation {
namespace {

using State = DeviceThread::State;

unsigned generation = 0;
Site pending_site;  // of the threads that wait

bool all_arrived() { return block.arrived == (options().strict_exit ? block.threads : block.live); }

void release_barrier() {
  block.arrived = 0;
  ++generation;
  ++stats().barriers;
  make_ready(0, block.threads, State::kInBarrier, ~0u);
}

void barrier(Site site) {
  DeviceThread& me = this_thread();
  if (block.arrived == 0) pending_site = site;
  if (!same_site(site, pending_site)) {
    fail(cudaErrorLaunchFailure, "divergent barrier: this thread is at %s:%d, others wait at %s:%d", site.file,
         site.line, pending_site.file, pending_site.line);
  }
  me.site = site;
  // Two addresses in turn: with one, a thread slow to acquire would also be ordered after the next barrier's first
  // arrivals.
  void* const order = synchronisation_address(generation % 2);
  release(order);
  ++block.arrived;
  if (all_arrived()) {
    me.state = State::kInBarrier;  // made ready with the others, to take its place in the schedule
    release_barrier();
    wait(State::kReady);
  } else {
    wait(State::kInBarrier);
  }
  acquire(order);
}

}  // namespace

bool same_site(const Site& a, const Site& b) {
  return !a.compared || (a.line == b.line && (a.file == b.file || !std::strcmp(a.file, b.file)));
}

void sync_block(Site site) { barrier(site); }

int sync_block_reduce(bool predicate, BlockReduction reduction, Site site) {
  this_thread().barrier_input = predicate;
  barrier(site);
  unsigned count = 0, threads = 0;
  for (unsigned i = 0; i < block.threads; ++i) {
    if (block.thread[i]->state == State::kExited) continue;
    ++threads;
    count += block.thread[i]->barrier_input;
  }
  barrier(site);  // nobody may bring the next input before all have read this one
  switch (reduction) {
    case BlockReduction::kCount: return static_cast<int>(count);
    case BlockReduction::kAnd: return count == threads;
    case BlockReduction::kOr: return count != 0;
  }
  return 0;
}

void thread_exited() {
  if (block.arrived && all_arrived()) release_barrier();
}

}  // namespace deploydcn::emulation
