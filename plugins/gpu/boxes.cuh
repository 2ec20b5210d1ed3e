// What RoI pooling kernels read: boxes and offsets in either position type, and a bilinear sample.
#pragma once

#include "core/roi.h"
#include "core/tensor_view.h"
#include "gpu/numeric.cuh"

namespace deploydcn::gpu {

// Boxes or offsets: float32, or the type of the data. `data` is null where there are none.
struct Positions {
  const void* data;
  bool is_float;
};

inline Positions positions(const TensorView& view) { return {view.data, view.dtype == DType::kFloat32}; }

template <class T>
__device__ __forceinline__ float position_at(const Positions& positions, int64_t index) {
  return positions.is_float ? __ldg(static_cast<const float*>(positions.data) + index)
                            : to_float(__ldg(static_cast<const T*>(positions.data) + index));
}

template <class T>
__device__ __forceinline__ roi::Box box_at(const Positions& rois, int64_t index) {
  const auto at = [&](int item) { return position_at<T>(rois, index * roi::kBoxSize + item); };
  return {at(0), at(1), at(2), at(3), at(4)};
}

// What a kernel writes for a box that names no image.
__device__ __forceinline__ float not_a_number() { return __int_as_float(0x7fc00000); }

// The sample between rows `low` and `high`, `down` of the way to the latter.
template <class T>
__device__ __forceinline__ float between(const T* low, const T* high, float down, const roi::Neighbours& column) {
  const float right = column.fraction, left = 1.f - right;
  const float above = to_float(__ldg(low + column.low)) * left + to_float(__ldg(low + column.high)) * right;
  const float below = to_float(__ldg(high + column.low)) * left + to_float(__ldg(high + column.high)) * right;
  return above * (1.f - down) + below * down;
}

}  // namespace deploydcn::gpu
