// float16, bfloat16 and tf32 as bit patterns: conversions, and a * b + c rounded once as the hardware does.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace deploydcn::emulation {

inline double half_value(uint16_t bits) { return static_cast<double>(std::bit_cast<_Float16>(bits)); }
inline uint16_t half_bits(double value) {  // to nearest even; NaN becomes the hardware's 0x7fff
  return value != value ? 0x7fff : std::bit_cast<uint16_t>(static_cast<_Float16>(value));
}

inline float bfloat16_value(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// Rounding twice is harmless when the first rounding, to the wider type, goes to odd: a value that is not exact gets
// its last bit set and can be no tie for the second.
inline double product_plus_to_odd(double a, double b, double c) {
  const double product = a * b;  // exact: factors are float32 at most
  const double sum = product + c;
  const double virtual_c = sum - product;
  const double rest = (product - (sum - virtual_c)) + (c - virtual_c);  // Knuth: product + c = sum + rest, exactly
  const uint64_t bits = std::bit_cast<uint64_t>(sum);
  if (rest == 0 || !std::isfinite(sum) || (bits & 1)) return sum;
  const bool away_from_zero = (rest > 0) == (sum > 0);
  return std::bit_cast<double>(away_from_zero ? bits + 1 : bits - 1);
}
inline float float_to_odd(double value) {
  const float nearest = static_cast<float>(value);
  const uint32_t bits = std::bit_cast<uint32_t>(nearest);
  if (static_cast<double>(nearest) == value || value != value || (bits & 1)) return nearest;
  if (std::isinf(nearest)) return std::isinf(value) ? nearest : std::bit_cast<float>(bits - 1);
  return std::bit_cast<float>(std::fabs(value) > std::fabs(static_cast<double>(nearest)) ? bits + 1 : bits - 1);
}

inline uint16_t bfloat16_bits(double value) {  // to nearest even; NaN likewise
  if (value != value) return 0x7fff;
  const uint32_t bits = std::bit_cast<uint32_t>(float_to_odd(value));
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline uint16_t half_fma(uint16_t a, uint16_t b, uint16_t c) {
  return half_bits(product_plus_to_odd(half_value(a), half_value(b), half_value(c)));
}
inline uint16_t bfloat16_fma(uint16_t a, uint16_t b, uint16_t c) {
  return bfloat16_bits(product_plus_to_odd(bfloat16_value(a), bfloat16_value(b), bfloat16_value(c)));
}

// tf32 keeps 10 mantissa bits: nearest, ties away from zero (cvt.rna). Infinity and NaN stay.
inline uint32_t round_to_tf32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & ~0x1fffu;
}

}  // namespace deploydcn::emulation
