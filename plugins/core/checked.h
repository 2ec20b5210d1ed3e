// int64 arithmetic that throws instead of wrapping. Sizes are computed with it once, at the border; kernels then use
// plain integers.
#pragma once

#include <cstdint>

#include "core/error.h"

namespace deploydcn {

class Checked {
 public:
  Checked(int64_t value) : value_(value) {}  // implicit on purpose: literals mix freely with sizes
  int64_t value() const { return value_; }

  friend Checked operator+(Checked a, Checked b) {
    int64_t out;
    return __builtin_add_overflow(a.value_, b.value_, &out) ? throw overflow() : Checked(out);
  }
  friend Checked operator-(Checked a, Checked b) {
    int64_t out;
    return __builtin_sub_overflow(a.value_, b.value_, &out) ? throw overflow() : Checked(out);
  }
  friend Checked operator*(Checked a, Checked b) {
    int64_t out;
    return __builtin_mul_overflow(a.value_, b.value_, &out) ? throw overflow() : Checked(out);
  }
  // Rounds towards minus infinity, as Python's // does. Divisors are attributes and sizes, checked positive before.
  friend Checked floor_div(Checked a, Checked b) {
    if (b.value_ <= 0) throw InternalError("division by a size that is not positive");
    const int64_t quotient = a.value_ / b.value_;
    return Checked(quotient - (a.value_ % b.value_ < 0 ? 1 : 0));
  }

 private:
  static InvalidArgument overflow() {
    return InvalidArgument("a size overflows 64-bit integers; wanted sizes below 2^63; check shapes and attributes");
  }
  int64_t value_;
};

}  // namespace deploydcn
