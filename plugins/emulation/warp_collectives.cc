#include "emulation/sanitizers.h"
#include "emulation/scheduler.h"

namespace deploydcn::emulation {
namespace {

using State = DeviceThread::State;

// A collective that some lanes have reached. Masks of pending ones are disjoint, so a warp has at most 32.
struct Pending {
  uint32_t mask, arrived;  // free when nobody arrived
  WarpOperation operation;
  Site site;
  const void* in[kWarpSize];
  void* out[kWarpSize];
  void* order;  // for acquire and release
};
struct Warp {
  Pending pending[kWarpSize];
  unsigned syncs;
};
Warp warps[kMaxThreads / kWarpSize];

// __syncwarp orders memory; other collectives exchange registers only. Addresses rotate, so that one sync is not
// mistaken for an earlier one between other lanes.
void* fresh_order(unsigned warp) {
  constexpr unsigned kBarrierAddresses = 2, kRotation = 32;
  return synchronisation_address(kBarrierAddresses + warp * kRotation + warps[warp].syncs++ % kRotation);
}

Pending& join(unsigned warp, uint32_t mask, WarpOperation operation, Site site) {
  Pending* free = nullptr;
  for (Pending& pending : warps[warp].pending) {
    if (!pending.arrived) {
      if (!free) free = &pending;
      continue;
    }
    if (!(pending.mask & mask)) continue;
    if (pending.mask != mask) {
      fail(cudaErrorLaunchFailure,
           "warp collective at %s:%d with mask %08x overlaps a pending one at %s:%d with mask %08x", site.file,
           site.line, mask, pending.site.file, pending.site.line, pending.mask);
    }
    if (pending.operation != operation || !same_site(pending.site, site)) {
      fail(cudaErrorLaunchFailure, "divergent warp collective: this lane is at %s:%d, others at %s:%d (mask %08x)",
           site.file, site.line, pending.site.file, pending.site.line, mask);
    }
    return pending;
  }
  *free = Pending{mask, 0, operation, site, {}, {}, nullptr};
  if (operation == WarpOperation::kSync) free->order = fresh_order(warp);
  return *free;
}

}  // namespace

void warp_collective(uint32_t mask, WarpOperation operation, const void* in, void* out, Combine combine, Site site) {
  DeviceThread& me = this_thread();
  const unsigned lane = me.linear_index % kWarpSize, warp = me.linear_index / kWarpSize, first = warp * kWarpSize;
  if (!(mask >> lane & 1)) {
    fail(cudaErrorLaunchFailure, "warp collective at %s:%d: lane %u is not in its own mask %08x", site.file, site.line,
         lane, mask);
  }
  const unsigned lanes = block.threads - first;
  if (lanes < kWarpSize && mask >> lanes) {
    fail(cudaErrorLaunchFailure, "warp collective at %s:%d: mask %08x names lanes beyond the block's %u in this warp",
         site.file, site.line, mask, lanes);
  }
  Pending& pending = join(warp, mask, operation, site);
  void* const order = pending.order;
  pending.in[lane] = in;
  pending.out[lane] = out;
  pending.arrived |= 1u << lane;
  me.site = site;
  if (order) release(order);
  if (pending.arrived != mask) {
    wait(State::kInWarpCollective);
  } else {
    ++stats().warp_collectives;
    if (combine) combine(pending.in, pending.out, mask);
    pending.arrived = 0;
    const unsigned end = first + kWarpSize < block.threads ? first + kWarpSize : block.threads;
    make_ready(first, end, State::kInWarpCollective, mask);  // this lane goes on
  }
  if (order) acquire(order);
}

void reset_warps() {
  for (unsigned warp = 0; warp * kWarpSize < block.threads; ++warp) {
    for (Pending& pending : warps[warp].pending) pending.arrived = 0;
    warps[warp].syncs = 0;
  }
}

namespace {

struct Shuffled {
  uint64_t value;
  int source;
};

void combine_shuffle(const void* const* in, void* const* out, uint32_t mask) {
  constexpr uint64_t kGarbage = 0xfefefefefefefefeu;  // what a lane outside the mask gives
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if (!(mask >> lane & 1)) continue;
    const int source = static_cast<const Shuffled*>(in[lane])->source;
    *static_cast<uint64_t*>(out[lane]) =
        mask >> source & 1 ? static_cast<const Shuffled*>(in[source])->value : kGarbage;
  }
}

void combine_ballot(const void* const* in, void* const* out, uint32_t mask) {
  uint32_t votes = 0;
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if (mask >> lane & 1) votes |= static_cast<uint32_t>(*static_cast<const bool*>(in[lane])) << lane;
  }
  for (unsigned lane = 0; lane < kWarpSize; ++lane) {
    if (mask >> lane & 1) *static_cast<uint32_t*>(out[lane]) = votes;
  }
}

}  // namespace

uint64_t shuffle_bits(uint32_t mask, uint64_t value, int source, Site site) {
  const Shuffled in{value, source & 31};
  uint64_t out = 0;
  warp_collective(mask, WarpOperation::kShuffle, &in, &out, combine_shuffle, site);
  return out;
}

uint32_t ballot(uint32_t mask, bool predicate, Site site) {
  uint32_t votes = 0;
  warp_collective(mask, WarpOperation::kVote, &predicate, &votes, combine_ballot, site);
  return votes;
}

}  // namespace deploydcn::emulation
