// Conversions between stored types and float, and what is done to a finished sum.
#pragma once

#include "gpu/convolution.h"
#include "gpu/gpu.cuh"

namespace deploydcn::gpu {

__device__ __forceinline__ float to_float(float value) { return value; }
__device__ __forceinline__ float to_float(__half value) { return __half2float(value); }
__device__ __forceinline__ float to_float(__nv_bfloat16 value) { return __bfloat162float(value); }

template <class T>
__device__ __forceinline__ T from_float(float value);
template <>
__device__ __forceinline__ float from_float<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// 16 bytes of T, moved by one instruction.
template <class T>
struct alignas(16) Packet {
  static constexpr int kSize = 16 / sizeof(T);
  T items[kSize];
};

template <class T>
__device__ __forceinline__ Packet<T> load_packet(const T* aligned) {
  const int4 bits = __ldg(reinterpret_cast<const int4*>(aligned));
  return reinterpret_cast<const Packet<T>&>(bits);
}

// NaN stays NaN.
__device__ __forceinline__ float activate(float value, Activation activation) {
  switch (activation) {
    case Activation::kNone: return value;
    case Activation::kRelu: return value < 0.f ? 0.f : value;
    case Activation::kRelu6: return value < 0.f ? 0.f : value > 6.f ? 6.f : value;
    case Activation::kSilu: return value / (1.f + expf(-value));
  }
  return value;
}

__host__ __device__ constexpr int ceil_div(int value, int divisor) { return (value + divisor - 1) / divisor; }
__host__ __device__ constexpr int round_up(int value, int multiple) { return ceil_div(value, multiple) * multiple; }

}  // namespace deploydcn::gpu
