// Which matrix element each lane holds in each register value, from the PTX ISA ("Matrix Fragments for mma"). `value`
// counts the elements a lane holds: two per 32-bit register for 16-bit types (low half first), one for tf32 and
// float32. tests/emulation/test_fragment_layouts.py compares these with CuTe's MMA_Traits.
#pragma once

namespace deploydcn::emulation {

struct Coordinate {
  int row;
  int column;
};

// C and D of every m16n8 shape, float32: (16, 8).
constexpr Coordinate accumulator_m16n8(int lane, int value) {
  return {lane / 4 + 8 * (value / 2), lane % 4 * 2 + value % 2};
}

// 16-bit types. A: (16, 16), 8 values; B: (16, 8), 4 values.
struct FragmentM16N8K16 {
  static constexpr int depth = 16, a_values = 8, b_values = 4;
  static constexpr Coordinate a(int lane, int value) {
    return {lane / 4 + 8 * (value / 2 % 2), lane % 4 * 2 + value % 2 + 8 * (value / 4)};
  }
  static constexpr Coordinate b(int lane, int value) { return {lane % 4 * 2 + value % 2 + 8 * (value / 2), lane / 4}; }
};

// 16-bit types. A: (16, 8), 4 values; B: (8, 8), 2 values.
struct FragmentM16N8K8 {
  static constexpr int depth = 8, a_values = 4, b_values = 2;
  static constexpr Coordinate a(int lane, int value) { return {lane / 4 + 8 * (value / 2), lane % 4 * 2 + value % 2}; }
  static constexpr Coordinate b(int lane, int value) { return {lane % 4 * 2 + value, lane / 4}; }
};

// tf32. A: (16, 8), 4 values; B: (8, 8), 2 values.
struct FragmentM16N8K8Tf32 {
  static constexpr int depth = 8, a_values = 4, b_values = 2;
  static constexpr Coordinate a(int lane, int value) {
    return {lane / 4 + 8 * (value % 2), lane % 4 + 4 * (value / 2)};
  }
  static constexpr Coordinate b(int lane, int value) { return {lane % 4 + 4 * value, lane / 4}; }
};

// ldmatrix, one 8x8 matrix of 16-bit elements: values 0 and 1 are the halves of the lane's register.
constexpr Coordinate loaded_matrix(int lane, int value, bool transposed) {
  const Coordinate plain{lane / 4, lane % 4 * 2 + value};
  return transposed ? Coordinate{plain.column, plain.row} : plain;
}

}  // namespace deploydcn::emulation
