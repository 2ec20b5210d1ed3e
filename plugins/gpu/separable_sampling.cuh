// Depthwise separable convolution as the product of its pointwise stage: a "sample" of an intermediate channel is the
// finished depthwise sum, with bias and activation. The intermediate tensor exists a tile at a time only.
#pragma once

#include "gpu/sampling.cuh"

namespace deploydcn::gpu {

// The product has a single tap, in a single group.
struct PointwiseProduct {
  static __device__ __forceinline__ int taps(const ConvolutionArguments&) { return 1; }
  static __device__ __forceinline__ int64_t weight_row(const ConvolutionArguments&, int, int) { return 0; }
};

// Finds the pixels of the depthwise window; InputReader below adds them up.
template <class T>
struct SeparableSampling : DenseSampling<T> {
  using Product = PointwiseProduct;
};

// Reads consecutive intermediate channels of one output pixel.
template <class T, Layout kLayout>
class InputReader<T, SeparableSampling<T>, kLayout> {
 public:
  static constexpr int kVector = Packet<T>::kSize;

  __device__ InputReader(const ConvolutionArguments& a, int output_pixel)
      : a_(a),
        at_(a, output_pixel),
        multiplier_(a.channels / a.depthwise.channels),
        image_(static_cast<const T*>(a.x) +
               static_cast<int64_t>(at_.inside ? at_.image : 0) * a.height * a.width *
                   (kLayout == Layout::kLinear ? a.depthwise.channels : stored_channels())) {}

  // As InputReader::read; `aligned`: channel is a multiple of kVector.
  __device__ __forceinline__ void read(int, int channel, int count, bool aligned, float (&values)[kVector]) {
#pragma unroll
    for (int i = 0; i < kVector; ++i) values[i] = 0.f;
    if (count <= 0) return;
    if (kLayout == Layout::kChannelsLast8 && aligned && multiplier_ == 1) {
      add_window<true>(channel, count, values);
    } else {
      add_window<false>(channel, count, values);
    }
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      if (i < count) values[i] = finished(values[i], channel + i);
    }
  }

  __device__ __forceinline__ float read_one(int, int channel) {
    float sum = 0.f;
#pragma unroll 1
    for (int tap = 0; tap < taps(); ++tap) {
      const int pixel = SeparableSampling<T>::locate(a_, at_, tap, 0).pixel[0];
      if (pixel < 0) continue;
      sum = fmaf(weight(channel, tap), to_float(value_at(pixel, channel)), sum);
    }
    return finished(sum, channel);
  }

 private:
  __device__ __forceinline__ int taps() const { return a_.kernel_h * a_.kernel_w; }
  __device__ __forceinline__ int stored_channels() const { return round_up(a_.depthwise.channels, 8); }

  // Adds the window's products; kPackets: the channels lie side by side.
  template <bool kPackets>
  __device__ __forceinline__ void add_window(int channel, int count, float (&values)[kVector]) const {
#pragma unroll 1
    for (int tap = 0; tap < taps(); ++tap) {
      const int pixel = SeparableSampling<T>::locate(a_, at_, tap, 0).pixel[0];
      if (pixel < 0) continue;
      Packet<T> packet;
      if (kPackets) packet = load_packet(image_ + static_cast<int64_t>(pixel) * stored_channels() + channel);
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        if (i >= count) break;
        const T x = kPackets ? packet.items[i] : value_at(pixel, channel + i);
        values[i] = fmaf(weight(channel + i, tap), to_float(x), values[i]);
      }
    }
  }
  // x at a pixel, of the channel that an intermediate one reads.
  __device__ __forceinline__ T value_at(int pixel, int channel) const {
    const int source = multiplier_ == 1 ? channel : channel / multiplier_;
    const int64_t index = kLayout == Layout::kLinear ? static_cast<int64_t>(source) * a_.height * a_.width + pixel
                                                     : static_cast<int64_t>(pixel) * stored_channels() + source;
    return __ldg(image_ + index);
  }
  __device__ __forceinline__ float weight(int channel, int tap) const {
    return to_float(__ldg(static_cast<const T*>(a_.depthwise.weight) + static_cast<int64_t>(channel) * taps() + tap));
  }
  __device__ __forceinline__ float finished(float sum, int channel) const {
    const auto* bias = static_cast<const T*>(a_.depthwise.bias);
    return activate(bias ? sum + to_float(__ldg(bias + channel)) : sum, a_.depthwise.activation);
  }

  const ConvolutionArguments& a_;
  const OutputPixel at_;
  const int multiplier_;
  const T* const image_;
};

}  // namespace deploydcn::gpu
