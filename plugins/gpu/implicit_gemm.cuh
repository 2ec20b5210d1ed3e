// A convolution as one matrix product that never exists in memory: a block samples a tile of its left operand into
// shared memory while it multiplies the tile before.
//
//   sums[pixel, output] = sum over taps and channels of sample(pixel, tap, channel) * weight[output, tap, channel]
//
// Positions, interpolation and sums are float32; samples are rounded once to T for the tensor cores. Batch, groups and
// output channels are all in the grid: (pixel tiles, output tiles, groups).
#pragma once

#include "gpu/multiply.cuh"
#include "gpu/sampling.cuh"

namespace deploydcn::gpu {

// Channels of a group, padded so that every row of packed weights starts at a multiple of 16 bytes.
template <class T>
__host__ __device__ constexpr int packed_depth(int channels_per_group) {
  return round_up(channels_per_group, Packet<T>::kSize);
}

// weight (outputs, channels / groups, taps) -> packed (groups, taps, outputs / groups, packed_depth), zeros in the
// padding.
template <class T>
__global__ void pack_weights(const __grid_constant__ ConvolutionArguments a) {
  const int taps = a.kernel_h * a.kernel_w, channels = a.channels / a.groups, outputs = a.outputs / a.groups;
  const int depth = packed_depth<T>(channels);
  const int64_t total = static_cast<int64_t>(a.outputs) * taps * depth;
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += step) {
    const int channel = static_cast<int>(i % depth);
    const int64_t row = i / depth;
    const int output = static_cast<int>(row % outputs), tap = static_cast<int>(row / outputs % taps);
    const int group = static_cast<int>(row / outputs / taps);
    const int64_t source = ((static_cast<int64_t>(group) * outputs + output) * channels + channel) * taps + tap;
    static_cast<T*>(const_cast<void*>(a.packed_weight))[i] =
        channel < channels ? static_cast<const T*>(a.weight)[source] : from_float<T>(0.f);
  }
}

// Two stages of each tile: one is filled while the other is multiplied.
template <class Multiply>
struct Tiles {
  using T = typename Multiply::Element;
  static constexpr int kSamples = Multiply::kRows * Multiply::kStride;
  static constexpr int kWeights = Multiply::kColumns * Multiply::kStride;

  // Also run on the host to size the launch.
  __host__ __device__ explicit Tiles(Carver& memory)
      : samples_(memory.template take<T>(2 * kSamples, "samples")),
        weights_(memory.template take<T>(2 * kWeights, "weights")) {}
  __device__ __forceinline__ T* samples(int step) const { return samples_ + step % 2 * kSamples; }
  __device__ __forceinline__ T* weights(int step) const { return weights_ + step % 2 * kWeights; }

 private:
  T* samples_;
  T* weights_;
};

template <class Multiply, class Sampling>
__device__ __forceinline__ void load_weights(const ConvolutionArguments& a, int group, int first_output, int tap,
                                             int first_channel, typename Multiply::Element* tile) {
  using T = typename Multiply::Element;
  constexpr int kVector = Packet<T>::kSize, kVectors = Multiply::kDepth / kVector;
  const int outputs = a.outputs / a.groups, depth = packed_depth<T>(a.channels / a.groups);
  const T* packed =
      static_cast<const T*>(a.packed_weight) + Sampling::Product::weight_row(a, group, tap) * outputs * depth;
#pragma unroll
  for (int i = 0; i < Multiply::kColumns * kVectors / Multiply::kThreads; ++i) {
    const int index = i * Multiply::kThreads + static_cast<int>(threadIdx.x);
    const int column = index / kVectors, k = index % kVectors * kVector;
    const int output = first_output + column, channel = first_channel + k;
    const bool exists = output < outputs && channel < depth;
    const T* source = packed + (exists ? static_cast<int64_t>(output) * depth + channel : 0);
    cp_async16(tile + column * Multiply::kStride + k, source, exists ? 16 : 0);
  }
  cp_async_commit();
}

// One thread's part in filling a tile of samples: always the same pixel, several vectors of its channels.
template <class Multiply, class Sampling, Layout kLayout>
class TileSampler {
 public:
  using T = typename Multiply::Element;
  static constexpr int kVector = Packet<T>::kSize, kThreadsPerRow = Multiply::kThreads / Multiply::kRows;

  // Neighbouring threads take what lies side by side in memory: pixels in linear layout, channels in channels-last.
  __device__ TileSampler(const ConvolutionArguments& a, int thread, int first_pixel, int first_channel)
      : row_(kLayout == Layout::kLinear ? thread % Multiply::kRows : thread / kThreadsPerRow),
        part_(kLayout == Layout::kLinear ? thread / Multiply::kRows : thread % kThreadsPerRow),
        first_channel_(first_channel),
        channels_(a.channels / a.groups),
        aligned_(vectors_align<T>(a)),
        reader_(a, first_pixel + row_) {}

  __device__ __forceinline__ void fill(int tap, int channel, T* tile) {
#pragma unroll Multiply::kVectorsInFlight
    for (int i = 0; i < Multiply::kDepth / kVector / kThreadsPerRow; ++i) {
      const int k = (i * kThreadsPerRow + part_) * kVector;
      float values[kVector];
      reader_.read(tap, first_channel_ + channel + k, min(channels_ - channel - k, kVector), aligned_, values);
      Packet<T> packet;
#pragma unroll
      for (int e = 0; e < kVector; ++e) packet.items[e] = from_float<T>(values[e]);
      *reinterpret_cast<Packet<T>*>(tile + row_ * Multiply::kStride + k) = packet;
    }
  }

 private:
  const int row_, part_, first_channel_, channels_;
  const bool aligned_;
  InputReader<T, Sampling, kLayout> reader_;
};

// Bias, activation, rounding, and where y keeps (pixel, output).
template <class T>
__device__ __forceinline__ void write_output(const ConvolutionArguments& a, int pixel, int output, float sum) {
  const int64_t plane = static_cast<int64_t>(a.out_height) * a.out_width;
  const float bias = a.bias ? to_float(__ldg(static_cast<const T*>(a.bias) + output)) : 0.f;
  const int64_t index = a.y_channels_last ? static_cast<int64_t>(pixel) * round_up(a.outputs, 8) + output
                                          : (pixel / plane * a.outputs + output) * plane + pixel % plane;
  static_cast<T*>(a.y)[index] = from_float<T>(activate(sum + bias, a.activation));
}

// The padding channels of a channels-last output are zero.
template <class T>
__device__ __forceinline__ void clear_padding(const ConvolutionArguments& a, int pixel) {
  if (!a.y_channels_last) return;
  const int stored = round_up(a.outputs, 8);
  for (int output = a.outputs; output < stored; ++output) {
    static_cast<T*>(a.y)[static_cast<int64_t>(pixel) * stored + output] = from_float<T>(0.f);
  }
}

template <class Multiply, class Sampling, Layout kLayout>
__global__ void __launch_bounds__(Multiply::kThreads) implicit_gemm(const __grid_constant__ ConvolutionArguments a) {
  using T = typename Multiply::Element;
  GPU_DYN_SMEM(shared);
  Carver memory{shared};
  const Tiles<Multiply> tiles(memory);

  const int thread = static_cast<int>(threadIdx.x), group = static_cast<int>(blockIdx.z);
  const int first_pixel = static_cast<int>(blockIdx.x) * Multiply::kRows;
  const int first_output = static_cast<int>(blockIdx.y) * Multiply::kColumns;
  const int channels = a.channels / a.groups, outputs = a.outputs / a.groups;
  const int chunks = ceil_div(channels, Multiply::kDepth), steps = Sampling::Product::taps(a) * chunks;

  TileSampler<Multiply, Sampling, kLayout> sampler(a, thread, first_pixel, group * channels);
  const auto load = [&](int step) {
    const int tap = step / chunks, channel = step % chunks * Multiply::kDepth;
    load_weights<Multiply, Sampling>(a, group, first_output, tap, channel, tiles.weights(step));
    sampler.fill(tap, channel, tiles.samples(step));
  };

  Multiply multiply(thread);
  load(0);
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<0>();
    __syncthreads();  // this step's tiles are complete, and nobody reads the other ones any more
    if (step + 1 < steps) load(step + 1);
    multiply.add(tiles.samples(step), tiles.weights(step));
  }

  const int pixels = a.batch * a.out_height * a.out_width;
  multiply.for_each([&](int row, int column, float sum) {
    const int pixel = first_pixel + row, output = first_output + column;
    if (pixel < pixels && output < outputs) write_output<T>(a, pixel, group * outputs + output, sum);
  });
  if (blockIdx.y == 0 && blockIdx.z == 0 && thread < Multiply::kRows && first_pixel + thread < pixels) {
    clear_padding<T>(a, first_pixel + thread);
  }
}

}  // namespace deploydcn::gpu
