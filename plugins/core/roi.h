// What RoI pooling on CPU and GPU shares: which image a box lies in, and how a position along one axis reads pixels.
//
// These operators are discontinuous, so their positions are float32 with every operation rounded on its own: a product
// and a sum that a compiler contracts to one operation would take other samples than the reference does. nvcc is told
// so by intrinsics, the host compiler by -ffp-contract=off (plugins/CMakeLists.txt).
#pragma once

#include <cstdint>
#include <string>

#include "core/error.h"

#if defined(__CUDACC__)
#define DEPLOYDCN_ANYWHERE __host__ __device__ __forceinline__
#else
#define DEPLOYDCN_ANYWHERE inline
#endif

namespace deploydcn::roi {

DEPLOYDCN_ANYWHERE float times(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}
DEPLOYDCN_ANYWHERE float plus(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}
DEPLOYDCN_ANYWHERE float over(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fdiv_rn(a, b);
#else
  return a / b;
#endif
}

// A row of rois: (batch index, x1, y1, x2, y2).
struct Box {
  float image, left, top, right, bottom;
};
inline constexpr int kBoxSize = 5;

// The image of the batch that a box lies in, -1 if there is none. The index is cut to an integer.
DEPLOYDCN_ANYWHERE int64_t image_of(const Box& box, int64_t batch) {
  if (!(box.image > -1.f && box.image < 0x1p31f)) return -1;  // NaN too
  const auto image = static_cast<int64_t>(box.image);
  return image < batch ? image : -1;
}

// Positions in float32 tell every pixel of an image this large from its neighbours. Throws InvalidArgument beyond.
inline void require_exact_positions(const char* op, int64_t height, int64_t width) {
  constexpr int64_t kLargestSide = int64_t{1} << 23;
  if (height <= kLargestSide && width <= kLargestSide) return;
  throw InvalidArgument(std::string(op) + " input has " + std::to_string(height) + " x " + std::to_string(width) +
                        " pixels; wanted at most " + std::to_string(kLargestSide) + " along an axis; split the image");
}

// The two pixels between which a position lies; `fraction` is the upper one's weight.
struct Neighbours {
  int low, high;
  float fraction;
};

// `position` is finite, and at most one pixel off [0, size - 1]: there it reads the edge.
DEPLOYDCN_ANYWHERE Neighbours neighbours(float position, int size) {
  const float on_image = position > 0.f ? position : 0.f;
  const int low = static_cast<int>(on_image);
  if (low >= size - 1) return {size - 1, size - 1, 0.f};
  return {low, low + 1, on_image - static_cast<float>(low)};
}

}  // namespace deploydcn::roi
