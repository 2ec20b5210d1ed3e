// Compares plugins/emulation/fragment_layouts.h with CuTe, NVIDIA's own description of the same instructions. Prints
// what differs, and how many coordinates were compared.
#include <cstdio>

#include <cute/atom/copy_traits_sm75.hpp>
#include <cute/atom/mma_traits_sm75.hpp>
#include <cute/atom/mma_traits_sm80.hpp>

#include "emulation/fragment_layouts.h"

namespace {

using namespace deploydcn::emulation;

int compared = 0, different = 0;

void compare(const char* what, int lane, int value, Coordinate ours, Coordinate cute) {
  ++compared;
  if (ours.row == cute.row && ours.column == cute.column) return;
  ++different;
  std::printf("%s lane %d value %d: ours (%d, %d), CuTe (%d, %d)\n", what, lane, value, ours.row, ours.column, cute.row,
              cute.column);
}

// CuTe's layouts map (lane, value) to row + rows * column; for B, whose rows are n, to n + 8 * k.
template <class Operation, class Fragment>
void compare_product(const char* name) {
  using Traits = cute::MMA_Traits<Operation>;
  const typename Traits::ALayout a;
  const typename Traits::BLayout b;
  const typename Traits::CLayout c;
  static_assert(cute::size(a) == 32 * Fragment::a_values && cute::size(b) == 32 * Fragment::b_values &&
                cute::size(c) == 32 * 4);
  std::printf("%s\n", name);
  for (int lane = 0; lane < 32; ++lane) {
    for (int value = 0; value < Fragment::a_values; ++value) {
      const int at = a(lane, value);
      compare("A", lane, value, Fragment::a(lane, value), {at % 16, at / 16});
    }
    for (int value = 0; value < Fragment::b_values; ++value) {
      const int at = b(lane, value);
      compare("B", lane, value, Fragment::b(lane, value), {at / 8, at % 8});
    }
    for (int value = 0; value < 4; ++value) {
      const int at = c(lane, value);
      compare("C", lane, value, accumulator_m16n8(lane, value), {at % 16, at / 16});
    }
  }
}

// For copies CuTe numbers bits: lane l brings row bits 128 * l to 128 * l + 127 (8 elements).
template <class Operation>
void compare_load(const char* name, bool transposed) {
  const typename cute::Copy_Traits<Operation>::DstLayout destination;
  std::printf("%s\n", name);
  for (int lane = 0; lane < 32; ++lane) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      for (int value = 0; value < 2; ++value) {
        const int bit = destination(lane, matrix * 32 + value * 16), row = bit / 128;
        const Coordinate ours = loaded_matrix(lane, value, transposed);
        compare("register", lane, matrix * 2 + value, {matrix * 8 + ours.row, ours.column}, {row, bit % 128 / 16});
      }
    }
  }
}

}  // namespace

int main() {
  compare_product<cute::SM80_16x8x16_F32F16F16F32_TN, FragmentM16N8K16>("m16n8k16 f16");
  compare_product<cute::SM80_16x8x16_F32BF16BF16F32_TN, FragmentM16N8K16>("m16n8k16 bf16");
  compare_product<cute::SM75_16x8x8_F32F16F16F32_TN, FragmentM16N8K8>("m16n8k8 f16");
  compare_product<cute::SM80_16x8x8_F32TF32TF32F32_TN, FragmentM16N8K8Tf32>("m16n8k8 tf32");
  compare_load<cute::SM75_U32x4_LDSM_N>("ldmatrix", false);
  compare_load<cute::SM75_U16x8_LDSM_T>("ldmatrix.trans", true);
  std::printf("compared %d, different %d\n", compared, different);
  return different != 0;
}
