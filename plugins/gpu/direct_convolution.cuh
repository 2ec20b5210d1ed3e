// Convolutions with few output channels per group, depthwise ones above all: no matrix product is worth its tiles
// there. Each thread computes eight consecutive output channels of one pixel.
#pragma once

#include "gpu/implicit_gemm.cuh"

namespace deploydcn::gpu {

// kDirectBlocks must fit a multiprocessor: 72 registers per thread, which no kernel below spills.
inline constexpr int kDirectOutputs = 8, kDirectThreads = 128, kDirectBlocks = 7;

// The eight outputs of a thread, and its place in the grid: neighbouring threads take what lies side by side in memory.
struct DirectThread {
  int pixel, first_output;
  bool inside;

  __device__ DirectThread(const ConvolutionArguments& a, Layout layout) {
    const int pixels = a.batch * a.out_height * a.out_width, vectors = ceil_div(a.outputs, kDirectOutputs);
    const int64_t index = static_cast<int64_t>(blockIdx.x) * kDirectThreads + threadIdx.x;
    const bool linear = layout == Layout::kLinear;
    inside = index < static_cast<int64_t>(pixels) * vectors;
    pixel = static_cast<int>(linear ? index % pixels : index / vectors);
    first_output = static_cast<int>(linear ? index / pixels : index % vectors) * kDirectOutputs;
  }
};

template <class T>
__device__ __forceinline__ void write_outputs(const ConvolutionArguments& a, const DirectThread& thread,
                                              const float (&sums)[kDirectOutputs]) {
#pragma unroll
  for (int e = 0; e < kDirectOutputs; ++e) {
    const int output = thread.first_output + e;
    if (output < a.outputs) write_output<T>(a, thread.pixel, output, sums[e]);
  }
  if (thread.first_output == 0) clear_padding<T>(a, thread.pixel);
}

// Any shape, channel by channel. Weights are read from where they lie: in linear layout all threads of a warp read the
// same one.
template <class T, class Sampling, Layout kLayout>
__global__ void __launch_bounds__(kDirectThreads, kDirectBlocks)
    direct_convolution(const __grid_constant__ ConvolutionArguments a) {
  const DirectThread thread(a, kLayout);
  if (!thread.inside) return;
  const int taps = Sampling::Product::taps(a), channels = a.channels / a.groups, outputs = a.outputs / a.groups;
  const int end = min(kDirectOutputs, a.outputs - thread.first_output);
  const int first_group = thread.first_output / outputs;
  InputReader<T, Sampling, kLayout> reader(a, thread.pixel);
  float sums[kDirectOutputs] = {};
#pragma unroll 1
  for (int tap = 0; tap < taps; ++tap) {
    int group = first_group;
#pragma unroll 1
    for (int first = group * outputs - thread.first_output; first < end; first += outputs, ++group) {
      // Bit e: output e belongs to this group.
      const unsigned members = ((1u << min(first + outputs, end)) - 1) & ~((1u << max(first, 0)) - 1);
      const T* weight =
          static_cast<const T*>(a.weight) + static_cast<int64_t>(thread.first_output) * channels * taps + tap;
#pragma unroll 1
      for (int channel = 0; channel < channels; ++channel, weight += taps) {
        const float value = reader.read_one(tap, group * channels + channel);
#pragma unroll
        for (int e = 0; e < kDirectOutputs; ++e) {
          if (!(members >> e & 1)) continue;
          sums[e] = fmaf(value, to_float(__ldg(weight + static_cast<int64_t>(e) * channels * taps)), sums[e]);
        }
      }
    }
  }
  write_outputs<T>(a, thread, sums);
}

// As many outputs as channels per group, in groups of 1, 2, 4 or 8, which start at multiples of their size: the eight
// outputs of a thread read exactly one packet of channels-last input per tap. The channels of output e's group are
// e ^ 0, e ^ 1, ... e ^ (size - 1), so that every index below is known to the compiler.
template <class T>
__host__ __device__ constexpr bool reads_packets(const ConvolutionArguments& a, Layout layout) {
  const int channels = a.channels / a.groups;
  return layout == Layout::kChannelsLast8 && Packet<T>::kSize == kDirectOutputs && a.channels == a.outputs &&
         channels <= kDirectOutputs && kDirectOutputs % channels == 0 &&
         (a.offset_groups == 1 || a.channels / a.offset_groups % kDirectOutputs == 0);
}

// weight (outputs, channels of a group, taps) -> packed (taps, channels of a group, outputs rounded up to 8):
// packed[tap][d][output] is the weight of channel output ^ d.
template <class T>
__global__ void pack_direct_weights(const __grid_constant__ ConvolutionArguments a) {
  const int taps = a.kernel_h * a.kernel_w, channels = a.channels / a.groups;
  const int stored = round_up(a.outputs, kDirectOutputs);
  const int64_t total = static_cast<int64_t>(stored) * channels * taps;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += step) {
    const int output = static_cast<int>(i % stored);
    const int d = static_cast<int>(i / stored % channels), tap = static_cast<int>(i / stored / channels);
    const int channel = (output ^ d) & (channels - 1);
    const int64_t source = (static_cast<int64_t>(output) * channels + channel) * taps + tap;
    static_cast<T*>(const_cast<void*>(a.packed_weight))[i] =
        output < a.outputs ? static_cast<const T*>(a.weight)[source] : from_float<T>(0.f);
  }
}

template <class T, class Sampling>
__global__ void __launch_bounds__(kDirectThreads, kDirectBlocks)
    direct_packets(const __grid_constant__ ConvolutionArguments a) {
  const DirectThread thread(a, Layout::kChannelsLast8);
  if (!thread.inside) return;
  const int taps = Sampling::Product::taps(a), channels = a.channels / a.groups;
  const int stored = round_up(a.outputs, kDirectOutputs);
  const T* packed = static_cast<const T*>(a.packed_weight) + thread.first_output;
  InputReader<T, Sampling, Layout::kChannelsLast8> reader(a, thread.pixel);
  float sums[kDirectOutputs] = {};
#pragma unroll 1
  for (int tap = 0; tap < taps; ++tap) {
    float values[kDirectOutputs];
    reader.read(tap, thread.first_output, min(a.channels - thread.first_output, kDirectOutputs), true, values);
#pragma unroll
    for (int d = 0; d < kDirectOutputs; ++d) {
      if (d >= channels) break;
      const Packet<T> weights = load_packet(packed + (static_cast<int64_t>(tap) * channels + d) * stored);
#pragma unroll
      for (int e = 0; e < kDirectOutputs; ++e) sums[e] = fmaf(values[e ^ d], to_float(weights.items[e]), sums[e]);
    }
  }
  write_outputs<T>(a, thread, sums);
}

}  // namespace deploydcn::gpu
