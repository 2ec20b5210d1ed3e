// Where a convolution reads its input: the pixels, and their weights, that one tap of one output pixel needs.
#pragma once

#include "core/tensor_view.h"
#include "gpu/bilinear.cuh"
#include "gpu/numeric.cuh"

namespace deploydcn::gpu {

// An output pixel of the batch; `inside` is false past the last one.
struct OutputPixel {
  int image, row, column;
  bool inside;

  __device__ OutputPixel(const ConvolutionArguments& a, int index)
      : image(index / (a.out_height * a.out_width)),
        row(index / a.out_width % a.out_height),
        column(index % a.out_width),
        inside(index < a.batch * a.out_height * a.out_width) {}
};

// The product has the window's taps, and the weights a row for each tap of each group.
struct WindowProduct {
  static __device__ __forceinline__ int taps(const ConvolutionArguments& a) { return a.kernel_h * a.kernel_w; }
  static __device__ __forceinline__ int64_t weight_row(const ConvolutionArguments& a, int group, int tap) {
    return static_cast<int64_t>(group) * a.kernel_h * a.kernel_w + tap;
  }
};

// A plain convolution reads one pixel per tap.
template <class T>
struct DenseSampling {
  using Product = WindowProduct;
  static constexpr int kCorners = 1;

  static __device__ __forceinline__ Footprint<1> locate(const ConvolutionArguments& a, const OutputPixel& at, int tap,
                                                        int) {
    const int y = at.row * a.stride_h - a.pad_top + tap / a.kernel_w * a.dilation_h;
    const int x = at.column * a.stride_w - a.pad_left + tap % a.kernel_w * a.dilation_w;
    const bool inside = at.inside && y >= 0 && y < a.height && x >= 0 && x < a.width;
    return {{inside ? y * a.width + x : -1}, {1.f}};
  }
};

// A deformable convolution interpolates between four pixels per tap, moved by the offset and weighted by the mask.
template <class T>
struct DeformableSampling {
  using Product = WindowProduct;
  static constexpr int kCorners = 4;

  static __device__ __forceinline__ Footprint<4> locate(const ConvolutionArguments& a, const OutputPixel& at, int tap,
                                                        int offset_group) {
    Footprint<4> footprint = {{-1, -1, -1, -1}, {0.f, 0.f, 0.f, 0.f}};
    if (!at.inside) return footprint;
    const int64_t plane = static_cast<int64_t>(a.out_height) * a.out_width;
    const int64_t channel =
        (static_cast<int64_t>(at.image) * a.offset_groups + offset_group) * (a.kernel_h * a.kernel_w) + tap;
    const int64_t pixel = static_cast<int64_t>(at.row) * a.out_width + at.column;
    const int64_t first = 2 * channel * plane + pixel;
    const Coordinate y(offset_at(a, first), at.row * a.stride_h - a.pad_top + tap / a.kernel_w * a.dilation_h,
                       a.height);
    const Coordinate x(offset_at(a, first + plane),
                       at.column * a.stride_w - a.pad_left + tap % a.kernel_w * a.dilation_w, a.width);
    if (!y.inside || !x.inside) return footprint;
    const float mask = a.mask ? to_float(__ldg(static_cast<const T*>(a.mask) + channel * plane + pixel)) : 1.f;
    set_corners(footprint, y, x, a.height, a.width, mask);
    return footprint;
  }

 private:
  static __device__ __forceinline__ float offset_at(const ConvolutionArguments& a, int64_t index) {
    return a.offset_is_float ? __ldg(static_cast<const float*>(a.offset) + index)
                             : to_float(__ldg(static_cast<const T*>(a.offset) + index));
  }
};

// Reads consecutive channels of x at the taps of one output pixel.
template <class T, class Sampling, Layout kLayout>
class InputReader {
 public:
  static constexpr int kVector = Packet<T>::kSize;

  __device__ InputReader(const ConvolutionArguments& a, int output_pixel)
      : a_(a),
        at_(a, output_pixel),
        channels_per_offset_group_(a.channels / a.offset_groups),
        image_(static_cast<const T*>(a.x) + static_cast<int64_t>(at_.inside ? at_.image : 0) * a.height * a.width *
                                                (kLayout == Layout::kLinear ? a.channels : stored_channels())) {}

  // values[i] = x[channel + i] at `tap`, interpolated; 0 for i >= count. `aligned`: channel is a multiple of kVector
  // and the vector lies in one offset group.
  __device__ __forceinline__ void read(int tap, int channel, int count, bool aligned, float (&values)[kVector]) {
#pragma unroll
    for (int i = 0; i < kVector; ++i) values[i] = 0.f;
    if (count <= 0) return;
    if (kLayout == Layout::kChannelsLast8 && aligned) {
      locate(tap, channel);
#pragma unroll
      for (int corner = 0; corner < Sampling::kCorners; ++corner) {
        if (footprint_.pixel[corner] < 0) continue;
        const Packet<T> packet =
            load_packet(image_ + static_cast<int64_t>(footprint_.pixel[corner]) * stored_channels() + channel);
#pragma unroll
        for (int i = 0; i < kVector; ++i) {
          if (i < count) values[i] = fmaf(footprint_.weight[corner], to_float(packet.items[i]), values[i]);
        }
      }
    } else {
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        if (i < count) values[i] = read_one(tap, channel + i);
      }
    }
  }

  // x[channel] at `tap`, interpolated.
  __device__ __forceinline__ float read_one(int tap, int channel) {
    locate(tap, channel);
    float value = 0.f;
#pragma unroll
    for (int corner = 0; corner < Sampling::kCorners; ++corner) {
      const int pixel = footprint_.pixel[corner];
      if (pixel < 0) continue;
      const int64_t index = kLayout == Layout::kLinear ? static_cast<int64_t>(channel) * a_.height * a_.width + pixel
                                                       : static_cast<int64_t>(pixel) * stored_channels() + channel;
      value = fmaf(footprint_.weight[corner], to_float(__ldg(image_ + index)), value);
    }
    return value;
  }

 private:
  __device__ __forceinline__ int stored_channels() const { return round_up(a_.channels, 8); }

  // Positions are shared by the channels of an offset group: computed when the tap or the group changes.
  __device__ __forceinline__ void locate(int tap, int channel) {
    if (tap == tap_ && channel >= first_channel_ && channel < first_channel_ + channels_per_offset_group_) return;
    const int offset_group = channel / channels_per_offset_group_;
    footprint_ = Sampling::locate(a_, at_, tap, offset_group);
    tap_ = tap;
    first_channel_ = offset_group * channels_per_offset_group_;
  }

  const ConvolutionArguments& a_;
  const OutputPixel at_;
  const int channels_per_offset_group_;
  const T* const image_;
  Footprint<Sampling::kCorners> footprint_{};
  int tap_ = -1, first_channel_ = 0;
};

// Whether vectors that start at multiples of kVector within a group may be read as packets.
template <class T>
__device__ __forceinline__ bool vectors_align(const ConvolutionArguments& a) {
  constexpr int kVector = Packet<T>::kSize;
  return (a.groups == 1 || a.channels / a.groups % kVector == 0) &&
         (a.offset_groups == 1 || a.channels / a.offset_groups % kVector == 0);
}

}  // namespace deploydcn::gpu
