// Each thread's cp.async operations under way.
#include "emulation/scheduler.h"

namespace deploydcn::emulation {

void async_copy_start(const AsyncCopy& copy) {
  AsyncCopies& async = this_thread().async;
  if (async.started == AsyncCopies::kMost)
    fail(cudaErrorLaunchFailure, "more than %d cp.async in flight", AsyncCopies::kMost);
  async.copies[async.started++] = copy;
  ++stats().async_copies;
}

void async_copy_commit() {
  AsyncCopies& async = this_thread().async;
  if (async.groups == AsyncCopies::kMostGroups) {
    fail(cudaErrorLaunchFailure, "more than %d cp.async groups in flight", AsyncCopies::kMostGroups);
  }
  async.group_ends[async.groups++] = async.started;
}

bool async_copy_next(int groups_left, AsyncCopy& copy) {
  AsyncCopies& async = this_thread().async;
  const int due = async.groups > groups_left ? async.group_ends[async.groups - 1 - groups_left] : 0;
  if (async.performed < due) {
    copy = async.copies[async.performed++];
    return true;
  }
  if (async.performed == async.started) async.started = async.performed = async.groups = 0;
  return false;
}

}  // namespace deploydcn::emulation
