// The host side of the convolution kernels: checks sizes, chooses a kernel, launches it.
#pragma once

#include <string>
#include <type_traits>
#include <utility>

#include "gpu/direct_convolution.cuh"
#include "gpu/gpu_op.h"
#include "gpu/implicit_gemm.cuh"
#include "gpu/launching.cuh"
#include "gpu/limits.h"

namespace deploydcn::gpu {

// Sizes as an op's spec bound them.
struct ConvolutionSizes {
  int64_t batch, channels, height, width, outputs, out_height, out_width;
  int64_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, groups, offset_groups;
};

// The kernels index pixels and channels with 32 bits and elements with 64. Throws InvalidArgument beyond that.
inline ConvolutionArguments with_sizes(const ConvolutionSizes& s) {
  constexpr int64_t kSide = int64_t{1} << 30;
  const auto side = [&](int64_t value, const char* what) { return at_most(value, kSide, what); };
  ConvolutionArguments a{};
  at_most(Checked(s.height) * s.width, kSide, "height * width of the input");
  at_most(Checked(s.batch) * s.out_height * s.out_width, kSide, "batch * height * width of the output");
  // The kernel's reach over the padded image bounds every position.
  at_most(Checked(s.out_height) * s.stride_h + Checked(s.kernel_h) * s.dilation_h + s.pad_top, kSide, "padded height");
  at_most(Checked(s.out_width) * s.stride_w + Checked(s.kernel_w) * s.dilation_w + s.pad_left, kSide, "padded width");
  at_most(Checked(s.kernel_h) * s.kernel_w * s.outputs, kSide, "kernel taps * output channels");
  at_most(Checked(s.outputs) + s.channels, 1 << 21, "number of channels");
  at_most(Checked(s.groups), s.outputs / s.groups > kDirectOutputs ? 65535 : kSide, "number of groups");
  a.batch = side(s.batch, "batch"), a.channels = side(s.channels, "channels");
  a.height = side(s.height, "height"), a.width = side(s.width, "width");
  a.outputs = side(s.outputs, "output channels");
  a.out_height = side(s.out_height, "output height"), a.out_width = side(s.out_width, "output width");
  a.kernel_h = side(s.kernel_h, "kernel height"), a.kernel_w = side(s.kernel_w, "kernel width");
  a.stride_h = side(s.stride_h, "stride"), a.stride_w = side(s.stride_w, "stride");
  a.pad_top = side(s.pad_top, "padding"), a.pad_left = side(s.pad_left, "padding");
  a.dilation_h = side(s.dilation_h, "dilation"), a.dilation_w = side(s.dilation_w, "dilation");
  a.groups = side(s.groups, "groups"), a.offset_groups = side(s.offset_groups, "offset groups");
  return a;
}

inline bool uses_direct_kernel(const ConvolutionArguments& a) { return a.outputs / a.groups <= kDirectOutputs; }

// How the weights of this call are prepared: for the matrix product, for packets, or not at all.
enum class Packing { kNone, kDirect, kProduct };

template <class T>
Packing packing_of(const ConvolutionArguments& a, Layout x_layout) {
  if (!uses_direct_kernel(a)) return Packing::kProduct;
  return reads_packets<T>(a, x_layout) ? Packing::kDirect : Packing::kNone;
}

template <class T>
int64_t packed_elements(const ConvolutionArguments& a, Packing packing) {
  const int64_t taps = a.depthwise.channels ? 1 : static_cast<int64_t>(a.kernel_h) * a.kernel_w;
  const int channels = a.channels / a.groups;
  switch (packing) {
    case Packing::kNone: return 0;
    case Packing::kDirect: return (Checked(round_up(a.outputs, kDirectOutputs)) * taps * int64_t{channels}).value();
    case Packing::kProduct: return (Checked(a.outputs) * taps * int64_t{packed_depth<T>(channels)}).value();
  }
  throw InternalError("unknown packing");
}

template <class T>
std::size_t workspace_bytes(const ConvolutionArguments& a, Layout x_layout) {
  return static_cast<std::size_t>(
      (Checked(packed_elements<T>(a, packing_of<T>(a, x_layout))) * int64_t{sizeof(T)}).value());
}

template <class Multiply, class Sampling, Layout kLayout>
cudaError_t launch_gemm(const ConvolutionArguments& a, cudaStream_t stream) {
  const auto kernel = implicit_gemm<Multiply, Sampling, kLayout>;
  Carver memory{nullptr};
  Tiles<Multiply>{memory};
  if (memory.cur > 48 * 1024) {
    const cudaError_t status =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                             static_cast<int>(memory.cur));
    if (status != cudaSuccess) return status;
  }
  const dim3 grid(static_cast<unsigned>(ceil_div(a.batch * a.out_height * a.out_width, Multiply::kRows)),
                  static_cast<unsigned>(ceil_div(a.outputs / a.groups, Multiply::kColumns)),
                  static_cast<unsigned>(a.groups));
  return GPU_LAUNCH(kernel, grid, dim3(Multiply::kThreads), memory.cur, stream, a);
}

template <class T, class Sampling, Layout kLayout>
cudaError_t launch_half_gemm(const ConvolutionArguments& a, cudaStream_t stream) {
  using Wide = TensorCoreMultiply<T, 128>;
  using Narrow = TensorCoreMultiply<T, 64>;
  // Every tile of output channels samples its pixels anew: wide ones save that work, as long as they keep the GPU busy.
  const int outputs = a.outputs / a.groups;
  const int64_t wide_blocks = static_cast<int64_t>(ceil_div(a.batch * a.out_height * a.out_width, Wide::kRows)) *
                              ceil_div(outputs, Wide::kColumns) * a.groups;
  const bool wide = outputs > Narrow::kColumns && wide_blocks >= device_attribute(cudaDevAttrMultiProcessorCount);
  return wide ? launch_gemm<Wide, Sampling, kLayout>(a, stream) : launch_gemm<Narrow, Sampling, kLayout>(a, stream);
}

template <class T>
cudaError_t launch_pack(const ConvolutionArguments& a, Packing packing, cudaStream_t stream) {
  constexpr int kThreads = 256, kMaxBlocks = 1024;
  const int64_t items = packed_elements<T>(a, packing);
  ConvolutionArguments product = a;
  if (a.depthwise.channels) product.kernel_h = product.kernel_w = 1;  // the window is the depthwise stage's
  const auto blocks = static_cast<unsigned>(std::min<int64_t>((items + kThreads - 1) / kThreads, kMaxBlocks));
  const auto kernel = packing == Packing::kDirect ? pack_direct_weights<T> : pack_weights<T>;
  return GPU_LAUNCH(kernel, dim3(blocks), dim3(kThreads), 0, stream, product);
}

template <class T, class Sampling, Layout kLayout>
cudaError_t launch_direct(const ConvolutionArguments& a, Packing packing, cudaStream_t stream) {
  const int64_t threads =
      static_cast<int64_t>(a.batch) * a.out_height * a.out_width * ceil_div(a.outputs, kDirectOutputs);
  const int64_t blocks = (threads + kDirectThreads - 1) / kDirectThreads;
  if (blocks > 0x7fffffff) return cudaErrorInvalidConfiguration;
  const dim3 grid(static_cast<unsigned>(blocks)), block(kDirectThreads);
  if constexpr (kLayout == Layout::kChannelsLast8) {
    if (packing == Packing::kDirect) return GPU_LAUNCH((direct_packets<T, Sampling>), grid, block, 0, stream, a);
  }
  return GPU_LAUNCH((direct_convolution<T, Sampling, kLayout>), grid, block, 0, stream, a);
}

template <class T, class Sampling, Layout kLayout>
cudaError_t launch_product(const ConvolutionArguments& a, const GpuOptions& options, cudaStream_t stream) {
  if constexpr (sizeof(T) == 2) {
    return launch_half_gemm<T, Sampling, kLayout>(a, stream);
  } else {
    const bool tf32 = options.allow_tf32 && device_attribute(cudaDevAttrComputeCapabilityMajor) >= 8;
    return tf32 ? launch_gemm<Tf32Multiply, Sampling, kLayout>(a, stream)
                : launch_gemm<FmaMultiply, Sampling, kLayout>(a, stream);
  }
}

template <class T, class Sampling, Layout kLayout>
void launch_convolution(const ConvolutionArguments& a, const GpuOptions& options, cudaStream_t stream) {
  const Packing packing = packing_of<T>(a, kLayout);
  if (std::is_same_v<T, __nv_bfloat16> && packing == Packing::kProduct &&
      device_attribute(cudaDevAttrComputeCapabilityMajor) < 8) {
    throw DeviceError("bfloat16 needs a GPU of compute capability 8.0 or newer; use float16 on this one");
  }
  if (packing != Packing::kNone) check(launch_pack<T>(a, packing, stream), "launching the weight packing");
  check(packing == Packing::kProduct ? launch_product<T, Sampling, kLayout>(a, options, stream)
                                     : launch_direct<T, Sampling, kLayout>(a, packing, stream),
        "launching the convolution");
}

// What an op says about one call: sizes and which input is what. Null views are absent.
struct ConvolutionCall {
  ConvolutionSizes sizes;
  TensorView x, weight, offset, mask, bias;
  Activation activation;
  struct {
    TensorView weight, bias;
    int64_t channels;
    Activation activation;
  } depthwise = {};  // of a separable convolution
};

// The sizes of a call, checked, and its depthwise stage.
inline ConvolutionArguments with_stages(const ConvolutionCall& call) {
  ConvolutionArguments a = with_sizes(call.sizes);
  if (call.depthwise.weight.present) {
    a.depthwise = {call.depthwise.weight.data, call.depthwise.bias.data, static_cast<int>(call.depthwise.channels),
                   call.depthwise.activation};
  }
  return a;
}

template <template <class> class Sampling>
class ConvolutionKernel : public GpuKernel {
 public:
  using Describe = ConvolutionCall (*)(const Attributes&, Span<const TensorView> inputs);

  ConvolutionKernel(Describe describe, Attributes attributes, const GpuOptions& options)
      : describe_(describe), attributes_(std::move(attributes)), options_(options) {}

  std::size_t workspace_bytes(Span<const TensorView> inputs) const override {
    const ConvolutionArguments a = with_stages(describe_(attributes_, inputs));
    return with_type(inputs[0].dtype,
                     [&](auto zero) { return gpu::workspace_bytes<decltype(zero)>(a, inputs[0].layout); });
  }

  void launch(Span<const TensorView> inputs, Span<const OutputView> outputs, void* workspace,
              Stream stream) const override {
    const ConvolutionCall call = describe_(attributes_, inputs);
    ConvolutionArguments a = with_stages(call);
    if (a.batch == 0) return;
    a.x = call.x.data, a.weight = call.weight.data, a.packed_weight = workspace;
    a.offset = call.offset.data, a.mask = call.mask.data, a.bias = call.bias.data;
    a.y = outputs[0].data;
    a.activation = call.activation;
    a.offset_is_float = call.offset.dtype == DType::kFloat32;
    a.y_channels_last = outputs[0].layout == Layout::kChannelsLast8;
    with_type(call.x.dtype, [&](auto zero) {
      using T = decltype(zero);
      if (call.x.layout == Layout::kLinear) {
        return launch_convolution<T, Sampling<T>, Layout::kLinear>(a, options_, stream);
      }
      if constexpr (sizeof(T) == 2) {
        return launch_convolution<T, Sampling<T>, Layout::kChannelsLast8>(a, options_, stream);
      }
      throw InternalError("float32 has no channels-last kernel");
    });
  }

 private:
  Describe describe_;
  Attributes attributes_;
  GpuOptions options_;
};

}  // namespace deploydcn::gpu
