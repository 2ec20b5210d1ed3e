// CUDA's device functions on single values that host compilers and the toolkit's host headers lack. Fast approximations
// (__expf, __fdividef, ...) are computed exactly here: tests of accuracy need a GPU.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "emulation/cuda_headers.h"
#include "emulation/narrow_floats.h"
#include "emulation/runtime.h"

// Loads and stores with cache hints.
template <class T>
inline T __ldg(const T* address) {
  return *address;
}
template <class T>
inline T __ldca(const T* address) {
  return *address;
}
template <class T>
inline T __ldcg(const T* address) {
  return *address;
}
template <class T>
inline T __ldcs(const T* address) {
  return *address;
}
template <class T>
inline void __stcg(T* address, std::type_identity_t<T> value) {
  *address = value;
}
template <class T>
inline void __stcs(T* address, std::type_identity_t<T> value) {
  *address = value;
}

// min and max take mixed types, and the number when the other operand is NaN.
template <class A, class B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) {
    return std::fmin(static_cast<T>(a), static_cast<T>(b));
  } else {
    return static_cast<T>(b) < static_cast<T>(a) ? static_cast<T>(b) : static_cast<T>(a);
  }
}
template <class A, class B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) {
    return std::fmax(static_cast<T>(a), static_cast<T>(b));
  } else {
    return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(b) : static_cast<T>(a);
  }
}

// float
using std::isfinite;
using std::isinf;
using std::isnan;
using std::signbit;
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __frcp_rn(float a) { return 1.f / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float a) { return std::exp(a); }
inline float __logf(float a) { return std::log(a); }
inline float __log2f(float a) { return std::log2(a); }
inline float __sinf(float a) { return std::sin(a); }
inline float __cosf(float a) { return std::cos(a); }
inline float __powf(float a, float b) { return std::pow(a, b); }
inline float rsqrtf(float a) { return 1.f / std::sqrt(a); }
inline float __saturatef(float a) { return a > 0 ? (a < 1 ? a : 1.f) : 0.f; }  // NaN gives 0

// Conversions. Out-of-range values saturate, NaN gives 0.
namespace deploydcn::emulation {
template <class Integer>
constexpr Integer saturating_integer(double value) {
  constexpr double lowest = static_cast<double>(std::numeric_limits<Integer>::min());
  constexpr double highest =
      static_cast<double>(std::numeric_limits<Integer>::max());  // for 64 bits: one above the largest
  if (value != value) return 0;
  if (value <= lowest) return std::numeric_limits<Integer>::min();
  return value >= highest ? std::numeric_limits<Integer>::max() : static_cast<Integer>(value);
}
}  // namespace deploydcn::emulation
inline int __float2int_rd(float a) { return deploydcn::emulation::saturating_integer<int>(std::floor(a)); }
inline int __float2int_ru(float a) { return deploydcn::emulation::saturating_integer<int>(std::ceil(a)); }
inline int __float2int_rn(float a) { return deploydcn::emulation::saturating_integer<int>(std::rint(a)); }
inline int __float2int_rz(float a) { return deploydcn::emulation::saturating_integer<int>(std::trunc(a)); }
inline unsigned __float2uint_rn(float a) { return deploydcn::emulation::saturating_integer<unsigned>(std::rint(a)); }
inline unsigned __float2uint_rz(float a) { return deploydcn::emulation::saturating_integer<unsigned>(std::trunc(a)); }
inline float __int2float_rn(int a) { return static_cast<float>(a); }
inline float __uint2float_rn(unsigned a) { return static_cast<float>(a); }
inline float __int_as_float(int a) { return std::bit_cast<float>(a); }
inline int __float_as_int(float a) { return std::bit_cast<int>(a); }
inline float __uint_as_float(unsigned a) { return std::bit_cast<float>(a); }
inline unsigned __float_as_uint(float a) { return std::bit_cast<unsigned>(a); }

// Integers
inline int __popc(unsigned a) { return std::popcount(a); }
inline int __clz(int a) { return std::countl_zero(static_cast<unsigned>(a)); }
inline int __ffs(int a) { return __builtin_ffs(a); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
inline int __mulhi(int a, int b) { return static_cast<int>(int64_t{a} * b >> 32); }

// float16 and bfloat16: fused multiply-add and elementary functions, which cuda_fp16.h has for nvcc only.
inline __half __hfma(__half a, __half b, __half c) {
  using namespace deploydcn::emulation;
  return __ushort_as_half(half_fma(__half_as_ushort(a), __half_as_ushort(b), __half_as_ushort(c)));
}
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
  return __halves2half2(__hfma(__low2half(a), __low2half(b), __low2half(c)),
                        __hfma(__high2half(a), __high2half(b), __high2half(c)));
}
inline __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) {
  using namespace deploydcn::emulation;
  return __ushort_as_bfloat16(bfloat16_fma(__bfloat16_as_ushort(a), __bfloat16_as_ushort(b), __bfloat16_as_ushort(c)));
}
inline __nv_bfloat162 __hfma2(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c) {
  return __halves2bfloat162(__hfma(__low2bfloat16(a), __low2bfloat16(b), __low2bfloat16(c)),
                            __hfma(__high2bfloat16(a), __high2bfloat16(b), __high2bfloat16(c)));
}
inline __half hexp(__half a) { return __float2half(std::exp(__half2float(a))); }
inline __half hrcp(__half a) { return __float2half(1.f / __half2float(a)); }
inline __half hsqrt(__half a) { return __float2half(std::sqrt(__half2float(a))); }
inline __nv_bfloat16 hexp(__nv_bfloat16 a) { return __float2bfloat16(std::exp(__bfloat162float(a))); }
inline __nv_bfloat16 hrcp(__nv_bfloat16 a) { return __float2bfloat16(1.f / __bfloat162float(a)); }
inline __nv_bfloat16 hsqrt(__nv_bfloat16 a) { return __float2bfloat16(std::sqrt(__bfloat162float(a))); }

[[noreturn]] inline void __trap() { deploydcn::emulation::fail(cudaErrorLaunchFailure, "__trap()"); }
