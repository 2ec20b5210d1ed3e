// Numbers rounded to bfloat16, the upper half of a float32. Part of tile_kernels.inl.
#pragma once

#include <cstdint>

#include "core/cpu/simd.inl"
#include "core/cpu/tile_kernels.h"

namespace deploydcn::cpu {
namespace {

// Products of bfloat16; null where they are no faster than those of float32.
template <class F>
constexpr const MatrixKernels<F>* kOfBFloat16 = nullptr;

// To the nearest bfloat16, ties to even, in the upper half; NaN stays NaN.
inline __attribute__((always_inline)) Words round_to_upper(Vector<float> value) {
  const Words word = reinterpret_cast<Words>(value);
  return value == value ? word + 0x7fff + (word >> 16 & 1) : word;
}

// The nearest bfloat16, ties to even; what is not finite stays so.
inline uint32_t nearest_bfloat16(float value) {
  uint32_t word;
  __builtin_memcpy(&word, &value, sizeof word);
  if ((word & 0x7f800000u) == 0x7f800000u) return word >> 16 | (word & 0xffffu ? 0x40u : 0u);
  return (word + 0x7fffu + (word >> 16 & 1u)) >> 16;
}

}  // namespace
}  // namespace deploydcn::cpu
