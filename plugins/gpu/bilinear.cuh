// Positions between pixels, and the pixels around them.
#pragma once

#include "gpu/gpu.cuh"

namespace deploydcn::gpu {

// Input pixels to add up, as row * width + column; -1: nothing there.
template <int kCount>
struct Footprint {
  int pixel[kCount];
  float weight[kCount];
};

// A coordinate as integer part and fraction. The offset is split before the integer base is added: base + offset in
// float32 would lose 1.5e-5 of a pixel on an image of 900 pixels.
struct Coordinate {
  int index;       // floor
  float fraction;  // in [0, 1]
  bool inside;     // strictly between -1 and size

  // No image is larger than 2^30 pixels, so an offset beyond that is outside; so are NaN and infinity.
  static constexpr float kFar = 1073741824.f;

  __device__ __forceinline__ Coordinate(float offset, int base, int size) {
    const float floor = floorf(offset);
    const bool finite = fabsf(floor) < kFar;
    index = (finite ? static_cast<int>(floor) : 0) + base;
    fraction = offset - floor;
    inside = finite && index < size && (index >= 0 || (index == -1 && fraction > 0.f));
  }

  // At share * size - 0.5. The product is kept as its float32 and what rounding cut off: without that it would be wrong
  // by 3e-5 of a pixel at 900 pixels.
  static __device__ __forceinline__ Coordinate of_share(float share, int size) {
    const float length = static_cast<float>(size);
    const float product = __fmul_rn(share, length);  // never contracted with what follows
    const float floor = floorf(product);
    if (!(fabsf(floor) < kFar)) return Coordinate(kFar, 0, size);
    return Coordinate(product - floor - 0.5f + fmaf(share, length, -product), static_cast<int>(floor), size);
  }
};

// Fills in the four corners around a position that is inside, weighted; those beyond the image are left out.
__device__ __forceinline__ void set_corners(Footprint<4>& footprint, const Coordinate& y, const Coordinate& x,
                                            int height, int width, float weight) {
#pragma unroll
  for (int corner = 0; corner < 4; ++corner) {
    const int below = corner >> 1, right = corner & 1;
    const int row = y.index + below, column = x.index + right;
    const bool exists = row >= 0 && row < height && column >= 0 && column < width;
    footprint.pixel[corner] = exists ? row * width + column : -1;
    footprint.weight[corner] =
        (below ? y.fraction : 1.f - y.fraction) * (right ? x.fraction : 1.f - x.fraction) * weight;
  }
}

}  // namespace deploydcn::gpu
