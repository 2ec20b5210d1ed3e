// Barriers and warp instructions of translated PTX. Their lines are for messages: unlike source lines they are not
// compared, since nvcc may copy one barrier to several places.
#pragma once

#include "emulation/runtime.h"

namespace deploydcn::emulation::ptx {

inline Site anywhere(int line) { return {"PTX line", line, false}; }

inline void block_barrier(int line) { sync_block(anywhere(line)); }
inline uint32_t block_reduction(bool predicate, BlockReduction reduction, int line) {
  return static_cast<uint32_t>(sync_block_reduce(predicate, reduction, anywhere(line)));
}
inline void warp_barrier(uint32_t mask, int line) {
  warp_collective(mask, WarpOperation::kSync, nullptr, nullptr, nullptr, anywhere(line));
}
inline uint32_t vote(uint32_t mask, bool predicate, int line) { return ballot(mask, predicate, anywhere(line)); }
[[noreturn]] inline void trap(int line) { fail(cudaErrorLaunchFailure, "trap at PTX line %d", line); }
[[noreturn]] inline void bad_branch(int line) {
  fail(cudaErrorLaunchFailure, "brx.idx at PTX line %d: index out of range", line);
}

// PTX ISA, shfl.sync: `clamp` holds the segment mask in bits 8-12 and the clamp value in bits 0-4.
enum class Shuffle { kUp, kDown, kXor, kIndex };
template <Shuffle kMode>
inline uint32_t shuffle(uint32_t mask, uint32_t value, uint32_t argument, uint32_t clamp, bool& in_range, int line) {
  const int lane = lane_index(), offset = static_cast<int>(argument & 31);
  const int segment = static_cast<int>(clamp >> 8 & 31), limit = static_cast<int>(clamp & 31);
  const int lowest = lane & segment, highest = (lane & segment) | (limit & ~segment);
  int source = lane;
  switch (kMode) {
    case Shuffle::kUp: source = lane - offset; break;
    case Shuffle::kDown: source = lane + offset; break;
    case Shuffle::kXor: source = lane ^ offset; break;
    case Shuffle::kIndex: source = lowest | (offset & ~segment); break;
  }
  in_range = kMode == Shuffle::kUp ? source >= highest : source <= highest;
  if (!in_range) source = lane;
  return static_cast<uint32_t>(shuffle_bits(mask, value, source, anywhere(line)));
}

}  // namespace deploydcn::emulation::ptx
