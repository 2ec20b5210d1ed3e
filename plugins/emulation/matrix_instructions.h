// ldmatrix and mma.sync as whole-warp steps.
#pragma once

#include <cstdint>

#include "emulation/runtime.h"

namespace deploydcn::emulation {

inline constexpr uint32_t kFullWarp = 0xffffffffu;

// ldmatrix.x4: lane l brings the address of row l % 8 of matrix l / 8.
inline void load_matrices(uint32_t (&registers)[4], const void* row_address, bool transposed, Site site) {
  if (reinterpret_cast<uintptr_t>(row_address) % 16) {
    fail(cudaErrorMisalignedAddress, "ldmatrix: row at %p is not aligned to 16 bytes", row_address);
  }
  uint32_t row[4];
  for (int i = 0; i < 4; ++i) row[i] = static_cast<const volatile uint32_t*>(row_address)[i];
  warp_collective(kFullWarp, WarpOperation::kMatrixLoad, row, registers,
                  transposed ? distribute_matrix_rows_transposed : distribute_matrix_rows, site);
}

// c += a * b with one of the multiply_* functions.
inline void multiply_matrices(float (&c)[4], const MatrixOperands& operands, Combine multiply, Site site) {
  warp_collective(kFullWarp, WarpOperation::kMatrixProduct, &operands, c, multiply, site);
}

}  // namespace deploydcn::emulation
