// mma.sync and ldmatrix for a whole warp, from and to register fragments.
#include <bit>

#include "emulation/fragment_layouts.h"
#include "emulation/narrow_floats.h"
#include "emulation/scheduler.h"

namespace deploydcn::emulation {
namespace {

constexpr int kLanes = kWarpSize;

// How a fragment's 32-bit registers hold its elements.
struct HalfElement {
  static float get(const uint32_t* registers, int value) {
    return static_cast<float>(half_value(static_cast<uint16_t>(registers[value / 2] >> 16 * (value % 2))));
  }
};
struct Bfloat16Element {
  static float get(const uint32_t* registers, int value) {
    return bfloat16_value(static_cast<uint16_t>(registers[value / 2] >> 16 * (value % 2)));
  }
};
struct Tf32Element {  // the hardware ignores the bits that tf32 lacks
  static float get(const uint32_t* registers, int value) { return std::bit_cast<float>(registers[value] & ~0x1fffu); }
};

// Products are exact in float32; sums are rounded to nearest in order of k. Tensor cores add in another order and
// truncate.
template <class Fragment, class Element>
void multiply(const void* const* in, void* const* out) {
  ++stats().matrix_products;
  float a[16][Fragment::depth], b[Fragment::depth][8], c[16][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    const auto& operands = *static_cast<const MatrixOperands*>(in[lane]);
    for (int value = 0; value < Fragment::a_values; ++value) {
      const Coordinate at = Fragment::a(lane, value);
      a[at.row][at.column] = Element::get(operands.a, value);
    }
    for (int value = 0; value < Fragment::b_values; ++value) {
      const Coordinate at = Fragment::b(lane, value);
      b[at.row][at.column] = Element::get(operands.b, value);
    }
    for (int value = 0; value < 4; ++value) {
      const Coordinate at = accumulator_m16n8(lane, value);
      c[at.row][at.column] = operands.c[value];
    }
  }
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < Fragment::depth; ++k) {
      for (int column = 0; column < 8; ++column) c[row][column] += a[row][k] * b[k][column];
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int value = 0; value < 4; ++value) {
      const Coordinate at = accumulator_m16n8(lane, value);
      static_cast<float*>(out[lane])[value] = c[at.row][at.column];
    }
  }
}

// in[l]: the 16-byte row that lane l brought. out[l]: four registers.
void distribute_rows(const void* const* in, void* const* out, bool transposed) {
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      uint32_t pair = 0;
      for (int value = 0; value < 2; ++value) {
        const Coordinate at = loaded_matrix(lane, value, transposed);
        const uint32_t word = static_cast<const uint32_t*>(in[matrix * 8 + at.row])[at.column / 2];
        pair |= (word >> 16 * (at.column % 2) & 0xffff) << 16 * value;
      }
      static_cast<uint32_t*>(out[lane])[matrix] = pair;
    }
  }
}

}  // namespace

void multiply_m16n8k16_f16(const void* const* in, void* const* out, uint32_t) {
  multiply<FragmentM16N8K16, HalfElement>(in, out);
}
void multiply_m16n8k16_bf16(const void* const* in, void* const* out, uint32_t) {
  multiply<FragmentM16N8K16, Bfloat16Element>(in, out);
}
void multiply_m16n8k8_f16(const void* const* in, void* const* out, uint32_t) {
  multiply<FragmentM16N8K8, HalfElement>(in, out);
}
void multiply_m16n8k8_tf32(const void* const* in, void* const* out, uint32_t) {
  multiply<FragmentM16N8K8Tf32, Tf32Element>(in, out);
}
void distribute_matrix_rows(const void* const* in, void* const* out, uint32_t) { distribute_rows(in, out, false); }
void distribute_matrix_rows_transposed(const void* const* in, void* const* out, uint32_t) {
  distribute_rows(in, out, true);
}

}  // namespace deploydcn::emulation
