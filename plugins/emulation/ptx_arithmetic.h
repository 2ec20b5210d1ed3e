// PTX arithmetic where C++ differs: shift counts, wrapping, NaN, rounding, saturation.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

#include "emulation/narrow_floats.h"
#include "emulation/runtime.h"

namespace deploydcn::emulation::ptx {

// Integers. Shifts by the width or more give zero, or copies of the sign.
template <class T>
inline T shift_left(T value, uint32_t amount) {
  return amount >= 8 * sizeof(T) ? T(0) : static_cast<T>(std::make_unsigned_t<T>(value) << amount);
}
template <class T>
inline T shift_right(T value, uint32_t amount) {
  return static_cast<T>(value >> std::min<uint32_t>(amount, 8 * sizeof(T) - 1) >> (amount >= 8 * sizeof(T) ? 1 : 0));
}
inline uint32_t funnel_left(uint32_t low, uint32_t high, uint32_t amount) {  // amount: 0 to 32
  return static_cast<uint32_t>(((uint64_t{high} << 32 | low) << amount) >> 32);
}
inline uint32_t funnel_right(uint32_t low, uint32_t high, uint32_t amount) {
  return static_cast<uint32_t>((uint64_t{high} << 32 | low) >> amount);
}
template <class T>
inline T multiply_high(T a, T b) {
  if constexpr (sizeof(T) == 8) {
    using Wide = std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>;
    return static_cast<T>(Wide(a) * Wide(b) >> 64);
  } else {
    using Wide = std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>;
    return static_cast<T>(Wide(a) * Wide(b) >> 8 * sizeof(T));
  }
}
// The 48-bit product of the low 24 bits.
template <class T>
inline auto multiply24(T a, T b) {
  using Wide = std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>;
  const auto low = [](T value) { return Wide(static_cast<T>(static_cast<uint32_t>(value) << 8) >> 8); };
  return low(a) * low(b);
}
// A GPU gives garbage for a zero divisor; here it is an error.
template <class T>
inline T quotient(T a, T b, int line) {
  if (b == 0) fail(cudaErrorLaunchFailure, "division by zero at PTX line %d", line);
  if constexpr (std::is_signed_v<T>) {
    if (b == -1) return static_cast<T>(std::make_unsigned_t<T>(0) - std::make_unsigned_t<T>(a));
  }
  return a / b;
}
template <class T>
inline T remainder(T a, T b, int line) {
  if (b == 0) fail(cudaErrorLaunchFailure, "division by zero at PTX line %d", line);
  if constexpr (std::is_signed_v<T>) {
    if (b == -1) return 0;
  }
  return a % b;
}
template <class T>
inline T reverse_bits(T value) {
  T reversed = 0;
  for (unsigned i = 0; i < 8 * sizeof(T); ++i) reversed = static_cast<T>(reversed << 1 | (value >> i & 1));
  return reversed;
}
inline uint32_t logic3(uint32_t a, uint32_t b, uint32_t c, unsigned table) {
  uint32_t result = 0;
  for (unsigned i = 0; i < 8; ++i) {  // bit i of the table answers a, b, c = bits 2, 1, 0 of i
    if (table >> i & 1) result |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
  }
  return result;
}
// Position and length count in their low 8 bits. A signed field is filled with its top bit, or the value's own when it
// ends there.
template <class T>
inline T extract_bits(T value, uint32_t position, uint32_t length) {
  constexpr uint32_t kBits = 8 * sizeof(T);
  position &= 255, length &= 255;
  using Bits = std::make_unsigned_t<T>;
  if (length == 0) return 0;
  const uint32_t top = std::min(position + length - 1, kBits - 1);
  const bool sign = std::is_signed_v<T> && (static_cast<Bits>(value) >> top & 1);
  Bits field = position >= kBits ? Bits(0) : static_cast<Bits>(static_cast<Bits>(value) >> position);
  const uint32_t valid = position >= kBits ? 0 : std::min(length, kBits - position);
  const Bits mask = valid >= kBits ? ~Bits(0) : static_cast<Bits>((Bits(1) << valid) - 1);
  field &= mask;
  return static_cast<T>(sign ? field | static_cast<Bits>(~mask) : field);
}
template <class T>
inline T insert_bits(T field, T into, uint32_t position, uint32_t length) {
  constexpr uint32_t kBits = 8 * sizeof(T);
  position &= 255, length &= 255;
  if (position >= kBits || length == 0) return into;
  const T mask = static_cast<T>((length >= kBits ? ~T(0) : static_cast<T>((T(1) << length) - 1)) << position);
  return static_cast<T>((into & ~mask) | (static_cast<T>(field << position) & mask));
}
template <class T>
inline uint32_t leading_bit(T value, bool shift_amount) {  // for signed values: the highest bit that is not the sign
  using Bits = std::make_unsigned_t<T>;
  const Bits searched = std::is_signed_v<T> && value < 0 ? static_cast<Bits>(~value) : static_cast<Bits>(value);
  if (searched == 0) return 0xffffffffu;
  const auto leading = static_cast<uint32_t>(std::countl_zero(searched));
  return shift_amount ? leading : static_cast<uint32_t>(8 * sizeof(T)) - 1 - leading;
}
inline uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = uint64_t{b} << 32 | a;
  uint32_t result = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const uint32_t choice = selector >> 4 * i & 15;
    uint32_t byte = static_cast<uint32_t>(bytes >> 8 * (choice & 7) & 255);
    if (choice & 8) byte = byte & 128 ? 255 : 0;  // its sign, replicated
    result |= byte << 8 * i;
  }
  return result;
}
template <class To, class From>
inline To clamp_integer(From value) {
  if (std::cmp_less(value, std::numeric_limits<To>::min())) return std::numeric_limits<To>::min();
  return std::cmp_greater(value, std::numeric_limits<To>::max()) ? std::numeric_limits<To>::max()
                                                                 : static_cast<To>(value);
}

// float and double.
inline float flush(float value) { return std::fpclassify(value) == FP_SUBNORMAL ? std::copysign(0.f, value) : value; }
template <class T>
inline T saturate(T value) {  // NaN gives 0
  return value > 0 ? std::min(value, T(1)) : T(0);
}
template <bool kNan, class T>
inline T float_min(T a, T b) {
  if (a != a || b != b) return kNan || (a != a && b != b) ? std::numeric_limits<T>::quiet_NaN() : a != a ? b : a;
  if (a == b) return std::signbit(a) ? a : b;  // -0 is less than +0
  return a < b ? a : b;
}
template <bool kNan, class T>
inline T float_max(T a, T b) {
  if (a != a || b != b) return kNan || (a != a && b != b) ? std::numeric_limits<T>::quiet_NaN() : a != a ? b : a;
  if (a == b) return std::signbit(a) ? b : a;
  return a > b ? a : b;
}

// float32 results rounded other than to nearest. The exact value reaches float through a double rounded to odd.
enum class Rounding { kTowardZero, kDown, kUp };
template <Rounding kRounding>
inline float directed_float(double value) {
  const float nearest = static_cast<float>(value);
  const double back = nearest;
  if (back == value || value != value) return nearest;
  const bool too_high = back > value;
  const bool want_lower = kRounding == Rounding::kDown || (kRounding == Rounding::kTowardZero && value > 0);
  if (too_high == want_lower) return std::nextafter(nearest, want_lower ? -INFINITY : INFINITY);
  return nearest;
}
template <Rounding kRounding>
inline float directed_fma(float a, float b, float c) {
  const double product = static_cast<double>(a) * b, exact = product_plus_to_odd(a, b, c);
  // Terms that cancel give -0 when rounding down, +0 otherwise.
  if (kRounding == Rounding::kDown && exact == 0 && std::signbit(product) != std::signbit(c)) return -0.f;
  return directed_float<kRounding>(exact);
}

// float to integer, already integral: out of range saturates; NaN gives 0, or with 64 bits on either side the middle of
// the range.
template <class T, bool kWide>
inline T to_integer(double value) {
  constexpr T kLeast = std::numeric_limits<T>::min(), kMost = std::numeric_limits<T>::max();
  if (value != value) return kWide ? static_cast<T>(std::make_unsigned_t<T>(1) << (8 * sizeof(T) - 1)) : T(0);
  if (value <= static_cast<double>(kLeast)) return kLeast;
  return value >= static_cast<double>(kMost) ? kMost : static_cast<T>(value);
}

// The two kinds of 16-bit numbers, by how they convert.
struct Half {
  static double value(uint16_t bits) { return half_value(bits); }
  static uint16_t bits(double value) { return half_bits(value); }
  static uint16_t bits_toward_zero(double value) {
    const uint16_t nearest = half_bits(value);
    return std::isfinite(value) && std::fabs(half_value(nearest)) > std::fabs(value) ? uint16_t(nearest - 1) : nearest;
  }
  static uint16_t fma(uint16_t a, uint16_t b, uint16_t c) { return half_fma(a, b, c); }
};
struct Bfloat16 {
  static double value(uint16_t bits) { return bfloat16_value(bits); }
  static uint16_t bits(double value) { return bfloat16_bits(value); }
  static uint16_t bits_toward_zero(double value) {
    if (value != value) return 0x7fff;
    return static_cast<uint16_t>(std::bit_cast<uint32_t>(directed_float<Rounding::kTowardZero>(value)) >> 16);
  }
  static uint16_t fma(uint16_t a, uint16_t b, uint16_t c) { return bfloat16_fma(a, b, c); }
};
// Sums and products are fused multiply-adds with 1 or -0: one rounding, and the sign of zero comes out right.
template <class Number>
inline uint16_t narrow_fma(uint16_t a, uint16_t b, uint16_t c) {
  return Number::fma(a, b, c);
}
template <class Number>
inline uint16_t narrow_add(uint16_t a, uint16_t b) {
  return Number::fma(a, Number::bits(1), b);
}
template <class Number>
inline uint16_t narrow_sub(uint16_t a, uint16_t b) {
  return Number::fma(a, Number::bits(1), b ^ 0x8000);
}
template <class Number>
inline uint16_t narrow_mul(uint16_t a, uint16_t b) {
  return Number::fma(a, b, 0x8000);
}
template <class Number, bool kNan>
inline uint16_t narrow_min(uint16_t a, uint16_t b) {
  return Number::bits(float_min<kNan>(Number::value(a), Number::value(b)));
}
template <class Number, bool kNan>
inline uint16_t narrow_max(uint16_t a, uint16_t b) {
  return Number::bits(float_max<kNan>(Number::value(a), Number::value(b)));
}
template <class Number>
inline uint16_t narrow_saturate(uint16_t a) {
  return Number::bits(saturate(Number::value(a)));
}
template <class Number>
inline uint16_t narrow_relu(uint16_t a) {  // NaN stays
  return Number::value(a) < 0 ? 0 : a == 0x8000 ? 0 : a;
}
// One of the above, on both halves of 32-bit operands.
template <auto kFunction, class... Operands>
inline uint32_t packed(Operands... operands) {
  const uint32_t high = kFunction(static_cast<uint16_t>(operands >> 16)...);
  return high << 16 | kFunction(static_cast<uint16_t>(operands)...);
}
// An elementary function of float32.
template <class Number, float (*kFunction)(float)>
inline uint16_t narrow_elementary(uint16_t a) {
  return Number::bits(kFunction(static_cast<float>(Number::value(a))));
}
inline float ex2(float a) { return std::exp2(a); }
inline float tanh(float a) { return std::tanh(a); }
inline float rcp(float a) { return 1 / a; }
inline float sqrt(float a) { return std::sqrt(a); }
inline float rsqrt(float a) { return 1 / std::sqrt(a); }

}  // namespace deploydcn::emulation::ptx
