// Reading and writing single elements of any floating-point type, for kernels whose memory access is irregular.
#pragma once

#include "core/dtype.h"

namespace deploydcn::cpu {

inline float value_of(float value) { return value; }
inline double value_of(double value) { return value; }
inline float value_of(Half value) { return to_float(value); }
inline float value_of(BFloat16 value) { return to_float(value); }

// What sums over elements of type T are computed in.
template <class T>
using Sum = decltype(value_of(T{}));

template <class T>
T element_from(Sum<T> value) {
  return value;
}
template <>
inline Half element_from<Half>(float value) {
  return to_half(value);
}
template <>
inline BFloat16 element_from<BFloat16>(float value) {
  return to_bfloat16(value);
}

// Calls body with a T of the element type.
template <class Body>
void with_element(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::kFloat32: return body(float());
    case DType::kFloat64: return body(double());
    case DType::kFloat16: return body(Half());
    case DType::kBFloat16: return body(BFloat16());
    case DType::kInt64:
    case DType::kUInt8:
    case DType::kInt8:
    case DType::kInt32: break;
  }
  throw InternalError("not a floating-point type");
}

}  // namespace deploydcn::cpu
