// Samples that are whole numbers of 8 bits: stored four to a word, their sums finished. Part of tile_kernels.inl.
#pragma once

#include "core/cpu/simd.inl"
#include "core/cpu/tile_kernels.h"
#include "core/cpu/tile_layouts.inl"
#include "core/cpu/tile_samples.inl"

namespace deploydcn::cpu {
namespace {

// Products of whole numbers; null where the instruction set has none.
template <class F>
constexpr const MatrixKernels<F>* kWhole = nullptr;

// Four vectors of samples, rounded and counted from the lowest, from 0 to 255: one of each to a word. Channels c,
// lanes + c, 2 * lanes + c and so on then lie side by side: packing them takes no shuffles.
inline __attribute__((always_inline)) Words whole_numbers(const Vector<float>* values,
                                                          const SampledBlock<float>& block) {
  typedef uint8_t Bytes __attribute__((vector_size(DEPLOYDCN_VECTOR_BYTES)));
  constexpr float shift = 0x1.8p23f;  // numbers of this size have no fraction, and whole ones in their lowest bits
  const Vector<float> zero{}, low = zero + block.low, high = zero + block.high;
  Words all{};
#pragma GCC unroll 4
  for (int v = 0; v < 4; ++v) {
    Vector<float> value = values[v] < low ? low : values[v];  // NaN, of overflow, stays: its lowest bits are 0
    value = value > high ? high : value;
    all |= (reinterpret_cast<Words>(value + shift) & 0xff) << 8 * v;
  }
  return reinterpret_cast<Words>(reinterpret_cast<Bytes>(all) - static_cast<uint8_t>(static_cast<int>(block.low)));
}

inline __attribute__((always_inline)) Integers<float> load_whole(const void* from) {
  Integers<float> value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

// out[i] = the nearest whole number to values[i] * units from low to high, plus `zero`, in 8 bits; NaN is `zero`.
template <class F>
void round_to_bytes(const F* values, int64_t count, F units, F low, F high, int32_t zero, void* out) {
  constexpr int n = Simd<F>::kLanes;
  typedef int8_t Bytes __attribute__((vector_size(n)));
  auto* to = static_cast<int8_t*>(out);
  for (int64_t i = 0; i < count; i += n) {
    const int64_t some = count - i < n ? count - i : n;
    const Vector<F> value = some == n ? load<F>(values + i) : load_some<F>(values + i, some);
    const Bytes bytes = __builtin_convertvector(
        __builtin_convertvector(round_within<F>(value * units, low, high), Integers<F>) + zero, Bytes);
    if (some == n) {
      __builtin_memcpy(to + i, &bytes, n);
    } else {
      __builtin_memcpy(to + i, &bytes, static_cast<std::size_t>(some));
    }
  }
}

// 32-bit integers, [pixel][row].
struct WholeSums {
  const float* sums;
  int64_t row;
  const int32_t* correction;
  inline __attribute__((always_inline)) void read(int64_t pixel, int c,
                                                  Vector<float> (&rows)[Simd<float>::kLanes]) const {
#pragma GCC unroll 16
    for (int i = 0; i < Simd<float>::kLanes; ++i) rows[i] = one(pixel + i, c);
  }
  inline __attribute__((always_inline)) Vector<float> one(int64_t pixel, int c) const {
    return __builtin_convertvector(load_whole(sums + pixel * row + c) + load_whole(correction + c), Vector<float>);
  }
};
inline bool finish_whole(const float* sums, int64_t row, int64_t pixels, int channels,
                         const Finishing<float>& finishing, float* out, int64_t plane_stride) {
  const WholeSums read{sums, row, finishing.correction};
  return finish_sums<float, true, false>(read, pixels, channels, finishing, out, plane_stride);
}

}  // namespace
}  // namespace deploydcn::cpu
