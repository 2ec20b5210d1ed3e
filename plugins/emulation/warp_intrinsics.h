// Barriers, shuffles and votes. Each takes the caller's line as a hidden last argument, for messages and for the check
// that all threads are at the same place.
#pragma once

#include <cstring>

#include "emulation/runtime.h"

namespace deploydcn::emulation {

template <class T>
inline T shuffle(uint32_t mask, T value, int source, const Source& caller) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = shuffle_bits(mask, bits, source, site_of(caller));
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace deploydcn::emulation

#define DEPLOYDCN_CALLER ::deploydcn::emulation::Source caller = ::deploydcn::emulation::Source::current()

inline void __syncthreads(DEPLOYDCN_CALLER) { deploydcn::emulation::sync_block(deploydcn::emulation::site_of(caller)); }
inline int __syncthreads_count(int predicate, DEPLOYDCN_CALLER) {
  using namespace deploydcn::emulation;
  return sync_block_reduce(predicate != 0, BlockReduction::kCount, site_of(caller));
}
inline int __syncthreads_and(int predicate, DEPLOYDCN_CALLER) {
  using namespace deploydcn::emulation;
  return sync_block_reduce(predicate != 0, BlockReduction::kAnd, site_of(caller));
}
inline int __syncthreads_or(int predicate, DEPLOYDCN_CALLER) {
  using namespace deploydcn::emulation;
  return sync_block_reduce(predicate != 0, BlockReduction::kOr, site_of(caller));
}
inline void __syncwarp(unsigned mask = 0xffffffffu, DEPLOYDCN_CALLER) {
  using namespace deploydcn::emulation;
  warp_collective(mask, WarpOperation::kSync, nullptr, nullptr, nullptr, site_of(caller));
}
// One OS thread runs all fibers: memory is always in order, and ThreadSanitizer must not take a fence for a
// synchronisation.
inline void __threadfence() {}
inline void __threadfence_block() {}

// Source lanes as CUDA defines them: within segments of `width` lanes; past a segment's end a lane reads itself.
template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, DEPLOYDCN_CALLER) {
  const int lane = deploydcn::emulation::lane_index();
  return deploydcn::emulation::shuffle(mask, value, (lane & ~(width - 1)) | (source & (width - 1)), caller);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, DEPLOYDCN_CALLER) {
  const int lane = deploydcn::emulation::lane_index(), source = lane ^ lane_mask;
  return deploydcn::emulation::shuffle(mask, value, source <= (lane | (width - 1)) ? source : lane, caller);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, DEPLOYDCN_CALLER) {
  const int lane = deploydcn::emulation::lane_index(), source = lane + static_cast<int>(delta);
  return deploydcn::emulation::shuffle(mask, value, source <= (lane | (width - 1)) ? source : lane, caller);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, DEPLOYDCN_CALLER) {
  const int lane = deploydcn::emulation::lane_index(), source = lane - static_cast<int>(delta);
  return deploydcn::emulation::shuffle(mask, value, source >= (lane & ~(width - 1)) ? source : lane, caller);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, DEPLOYDCN_CALLER) {
  return deploydcn::emulation::ballot(mask, predicate != 0, deploydcn::emulation::site_of(caller));
}
inline int __any_sync(unsigned mask, int predicate, DEPLOYDCN_CALLER) {
  return deploydcn::emulation::ballot(mask, predicate != 0, deploydcn::emulation::site_of(caller)) != 0;
}
inline int __all_sync(unsigned mask, int predicate, DEPLOYDCN_CALLER) {
  return deploydcn::emulation::ballot(mask, predicate != 0, deploydcn::emulation::site_of(caller)) == mask;
}
