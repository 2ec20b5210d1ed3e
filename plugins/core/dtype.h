// Element types, and conversion between stored floating-point types and the type a kernel computes in.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/error.h"

namespace deploydcn {

enum class DType : uint8_t { kFloat32, kFloat64, kFloat16, kBFloat16, kInt64, kUInt8, kInt8, kInt32 };

inline std::size_t size_of(DType type) {
  switch (type) {
    case DType::kInt64:
    case DType::kFloat64: return 8;
    case DType::kInt32:
    case DType::kFloat32: return 4;
    case DType::kFloat16:
    case DType::kBFloat16: return 2;
    case DType::kUInt8:
    case DType::kInt8: return 1;
  }
  throw InternalError("unknown dtype");
}

inline const char* name_of(DType type) {
  switch (type) {
    case DType::kFloat64: return "float64";
    case DType::kFloat32: return "float32";
    case DType::kFloat16: return "float16";
    case DType::kBFloat16: return "bfloat16";
    case DType::kInt64: return "int64";
    case DType::kUInt8: return "uint8";
    case DType::kInt8: return "int8";
    case DType::kInt32: return "int32";
  }
  throw InternalError("unknown dtype");
}

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

namespace detail {
inline float as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline uint32_t as_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
}  // namespace detail

// Exact, subnormals, infinities and NaN included. Branch-free, so that compilers vectorise loops over it.
inline float to_float(Half half) {
  const uint32_t sign = (half.bits & 0x8000u) << 16;
  const uint32_t magnitude = half.bits & 0x7fffu;
  // Shifting exponent and mantissa into place leaves a value 2^112 too small; the product is exact, subnormals
  // included.
  const float scaled = detail::as_float(magnitude << 13) * 0x1p112f;
  const uint32_t special = magnitude >= 0x7c00u ? 0x7f800000u : 0u;
  return detail::as_float(detail::as_bits(scaled) | special | sign);
}
inline float to_float(BFloat16 value) { return detail::as_float(static_cast<uint32_t>(value.bits) << 16); }

// Round to nearest even; overflow becomes infinity, NaN stays NaN.
inline Half to_half(float value) {
  const uint32_t bits = detail::as_bits(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // 65520 and above rounds to infinity
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // below 2^-14: subnormal; adding 0.5 makes the FPU round at bit 2^-24
    half = detail::as_bits(detail::as_float(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  return Half{static_cast<uint16_t>(half | sign)};
}
inline BFloat16 to_bfloat16(float value) {
  const uint32_t bits = detail::as_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return BFloat16{static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return BFloat16{static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

// Of float and double.
template <class Compute>
constexpr DType kTypeOf = sizeof(Compute) == 4 ? DType::kFloat32 : DType::kFloat64;

// Compute is float or double. `data` points at element 0 of an array of `type`; elements [begin, begin + count) are
// read.
template <class Compute>
void load_as(const void* data, DType type, int64_t begin, int64_t count, Compute* out) {
  if (type == kTypeOf<Compute>)
    return static_cast<void>(std::copy_n(static_cast<const Compute*>(data) + begin, count, out));
  switch (type) {
    case DType::kFloat32: {
      const float* in = static_cast<const float*>(data) + begin;
      for (int64_t i = 0; i < count; ++i) out[i] = static_cast<Compute>(in[i]);
      return;
    }
    case DType::kFloat64: {
      const double* in = static_cast<const double*>(data) + begin;
      for (int64_t i = 0; i < count; ++i) out[i] = static_cast<Compute>(in[i]);
      return;
    }
    case DType::kFloat16: {
      const Half* in = static_cast<const Half*>(data) + begin;
      for (int64_t i = 0; i < count; ++i) out[i] = static_cast<Compute>(to_float(in[i]));
      return;
    }
    case DType::kBFloat16: {
      const BFloat16* in = static_cast<const BFloat16*>(data) + begin;
      for (int64_t i = 0; i < count; ++i) out[i] = static_cast<Compute>(to_float(in[i]));
      return;
    }
    case DType::kInt64:
    case DType::kUInt8:
    case DType::kInt8:
    case DType::kInt32: break;
  }
  throw InternalError("not a floating-point type");
}

template <class Compute>
void store_as(const Compute* in, int64_t count, void* data, DType type, int64_t begin) {
  switch (type) {
    case DType::kFloat32: {
      float* out = static_cast<float*>(data) + begin;
      for (int64_t i = 0; i < count; ++i) out[i] = static_cast<float>(in[i]);
      return;
    }
    case DType::kFloat64: {
      double* out = static_cast<double*>(data) + begin;
      for (int64_t i = 0; i < count; ++i) out[i] = static_cast<double>(in[i]);
      return;
    }
    case DType::kFloat16: {
      Half* out = static_cast<Half*>(data) + begin;
      for (int64_t i = 0; i < count; ++i) out[i] = to_half(static_cast<float>(in[i]));
      return;
    }
    case DType::kBFloat16: {
      BFloat16* out = static_cast<BFloat16*>(data) + begin;
      for (int64_t i = 0; i < count; ++i) out[i] = to_bfloat16(static_cast<float>(in[i]));
      return;
    }
    case DType::kInt64:
    case DType::kUInt8:
    case DType::kInt8:
    case DType::kInt32: break;
  }
  throw InternalError("not a floating-point type");
}

}  // namespace deploydcn
