// Deformable attention: what DCNv3, DCNv4 and multi-scale deformable attention have in common.
//
//   out[n, q, m, :] = sum over points k of weight[n, q, m, k] * bilinear(level of k in value[n, :, m, :], y, x)
//
// The queries of a DCN are its output pixels, its heads the groups of channels, its points the taps of the window, its
// only level the image. Each thread computes 16 bytes of consecutive channels of one query and head, or one channel
// where a head does not divide into packets; neighbouring threads read and write side by side. Positions, weights and
// sums are float32. Threads and pixels are counted with 32 bits, elements with 64.
#pragma once

#include "gpu/bilinear.cuh"
#include "gpu/deformable_attention.h"
#include "gpu/numeric.cuh"

namespace deploydcn::gpu {

inline constexpr int kAttentionThreads = 128;

// The points of a window over one image, in the order of DCNv3's taps: down the columns.
class WindowPoints {
 public:
  __device__ __forceinline__ WindowPoints(const AttentionArguments& a, int query)
      : base_y_(a.first_y + query / a.out_width * a.stride_h), base_x_(a.first_x + query % a.out_width * a.stride_w) {
    skip_removed(a);
  }
  __device__ __forceinline__ bool valid() const { return true; }

  __device__ __forceinline__ Footprint<4> locate(const AttentionArguments& a, float x, float y, float weight) const {
    const float tap_y = static_cast<float>(row_ * a.dilation_h - a.reach_h) * a.offset_scale;
    const float tap_x = static_cast<float>(column_ * a.dilation_w - a.reach_w) * a.offset_scale;
    const Coordinate at_y(fmaf(y, a.offset_scale, tap_y), base_y_, a.height);
    const Coordinate at_x(fmaf(x, a.offset_scale, tap_x), base_x_, a.width);
    Footprint<4> footprint = {{-1, -1, -1, -1}, {0.f, 0.f, 0.f, 0.f}};
    if (at_y.inside && at_x.inside) set_corners(footprint, at_y, at_x, a.height, a.width, weight);
    return footprint;
  }
  __device__ __forceinline__ void next(const AttentionArguments& a) {
    step(a);
    skip_removed(a);
  }

 private:
  __device__ __forceinline__ void step(const AttentionArguments& a) {
    if (++row_ < a.kernel_h) return;
    row_ = 0;
    ++column_;
  }
  __device__ __forceinline__ void skip_removed(const AttentionArguments& a) {
    if (row_ == a.removed_row && column_ == a.removed_column) step(a);
  }

  const int base_y_, base_x_;
  int row_ = 0, column_ = 0;
};

// The points of several levels, level by level. Levels are data: one that does not lie in the value is not read.
class LevelPoints {
 public:
  __device__ __forceinline__ LevelPoints(const AttentionArguments& a, int) { enter_level(a); }
  // Whether every level so far lies in the value.
  __device__ __forceinline__ bool valid() const { return valid_; }

  __device__ __forceinline__ Footprint<4> locate(const AttentionArguments&, float x, float y, float weight) const {
    const Coordinate at_y = Coordinate::of_share(y, height_), at_x = Coordinate::of_share(x, width_);
    Footprint<4> footprint = {{-1, -1, -1, -1}, {0.f, 0.f, 0.f, 0.f}};
    if (!at_y.inside || !at_x.inside) return footprint;
    set_corners(footprint, at_y, at_x, height_, width_, weight);
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      if (footprint.pixel[corner] >= 0) footprint.pixel[corner] += start_;
    }
    return footprint;
  }
  __device__ __forceinline__ void next(const AttentionArguments& a) {
    if (++point_ < a.points_per_level) return;
    point_ = 0;
    if (++level_ * a.points_per_level < a.points) enter_level(a);
  }

 private:
  __device__ __forceinline__ void enter_level(const AttentionArguments& a) {
    const auto* shapes = static_cast<const int64_t*>(a.spatial_shapes) + 2 * level_;
    const int64_t height = __ldg(shapes), width = __ldg(shapes + 1);
    const int64_t start = __ldg(static_cast<const int64_t*>(a.level_start_index) + level_);
    // Sizes of at most 30 bits each: their product fits.
    const bool fits = height >= 1 && height <= a.pixels && width >= 1 && width <= a.pixels && start >= 0 &&
                      start <= a.pixels - height * width;
    height_ = fits ? static_cast<int>(height) : 0;
    width_ = fits ? static_cast<int>(width) : 0;
    start_ = fits ? static_cast<int>(start) : 0;
    valid_ = valid_ && fits;
  }

  int level_ = 0, point_ = 0;
  int height_ = 0, width_ = 0, start_ = 0;
  bool valid_ = true;
};

template <class T>
__device__ __forceinline__ float read_float(const void* data, bool is_float, int64_t index) {
  return is_float ? __ldg(static_cast<const float*>(data) + index)
                  : to_float(__ldg(static_cast<const T*>(data) + index));
}

// The weights of one query and head.
template <class T>
class PointWeights {
 public:
  __device__ __forceinline__ PointWeights(const AttentionArguments& a, int64_t first) : a_(a), first_(first) {
    if (!a.softmax) return;
    largest_ = raw(0);
    for (int point = 1; point < a.points; ++point) largest_ = fmaxf(largest_, raw(point));
    sum_ = 0.f;
    for (int point = 0; point < a.points; ++point) sum_ += expf(raw(point) - largest_);
  }
  __device__ __forceinline__ float operator[](int point) const {
    return a_.softmax ? expf(raw(point) - largest_) / sum_ : raw(point);
  }

 private:
  __device__ __forceinline__ float raw(int point) const {
    return read_float<T>(a_.weights, a_.weights_are_float, first_ + point);
  }

  const AttentionArguments& a_;
  const int64_t first_;
  float largest_ = 0.f, sum_ = 1.f;
};

// kVector consecutive channels, moved by one instruction.
template <class T, int kVector>
struct ChannelVector {
  static_assert(kVector == Packet<T>::kSize);
  Packet<T> values;

  __device__ __forceinline__ ChannelVector(const T* from, bool exists) {
    int4 bits{0, 0, 0, 0};
    if (exists) bits = __ldg(reinterpret_cast<const int4*>(from));
    values = reinterpret_cast<const Packet<T>&>(bits);
  }
  __device__ __forceinline__ float operator[](int index) const { return to_float(values.items[index]); }

  static __device__ __forceinline__ void store(T* to, const float (&sums)[kVector]) {
    Packet<T> packet;
#pragma unroll
    for (int i = 0; i < kVector; ++i) packet.items[i] = from_float<T>(sums[i]);
    *reinterpret_cast<int4*>(to) = reinterpret_cast<const int4&>(packet);
  }
};
template <class T>
struct ChannelVector<T, 1> {
  float value;

  __device__ __forceinline__ ChannelVector(const T* from, bool exists) : value(exists ? to_float(__ldg(from)) : 0.f) {}
  __device__ __forceinline__ float operator[](int) const { return value; }

  static __device__ __forceinline__ void store(T* to, const float (&sums)[1]) { *to = from_float<T>(sums[0]); }
};

template <class T, class Points, int kVector>
__global__ void __launch_bounds__(kAttentionThreads)
    deformable_attention(const __grid_constant__ AttentionArguments a) {
  const unsigned vectors = static_cast<unsigned>(a.channels) / kVector;
  const unsigned index = blockIdx.x * kAttentionThreads + threadIdx.x;
  const int channel = static_cast<int>(index % vectors) * kVector;
  const int head = static_cast<int>(index / vectors % a.heads), row = static_cast<int>(index / vectors / a.heads);
  if (row >= a.batch * a.queries) return;

  const int64_t pixel_stride = static_cast<int64_t>(a.heads) * a.channels;
  const int64_t in_pixel = static_cast<int64_t>(head) * a.channels + channel;
  const T* const value =
      static_cast<const T*>(a.value) + row / a.queries * static_cast<int64_t>(a.pixels) * pixel_stride + in_pixel;
  const int64_t first_position =
      static_cast<int64_t>(row) * a.position_query_stride + static_cast<int64_t>(head) * a.position_head_stride;
  const PointWeights<T> weights(a, static_cast<int64_t>(row) * a.weight_query_stride +
                                       static_cast<int64_t>(head) * a.weight_head_stride + a.first_weight);
  Points points(a, row % a.queries);
  float sums[kVector] = {};
#pragma unroll 1
  for (int point = 0; point < a.points; ++point, points.next(a)) {
    const int64_t position = first_position + 2 * point;
    const float x = read_float<T>(a.positions, a.positions_are_float, position);
    const float y = read_float<T>(a.positions, a.positions_are_float, position + 1);
    const Footprint<4> corners = points.locate(a, x, y, weights[point]);
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
      const int pixel = corners.pixel[corner];
      const ChannelVector<T, kVector> channels(value + pixel * pixel_stride, pixel >= 0);
#pragma unroll
      for (int i = 0; i < kVector; ++i) sums[i] = fmaf(corners.weight[corner], channels[i], sums[i]);
    }
  }
  if (!points.valid()) {
#pragma unroll
    for (int i = 0; i < kVector; ++i) sums[i] = __int_as_float(0x7fffffff);
  }
  ChannelVector<T, kVector>::store(static_cast<T*>(a.output) + row * pixel_stride + in_pixel, sums);
}

}  // namespace deploydcn::gpu
