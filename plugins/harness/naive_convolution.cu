// The formulas of SEMANTICS, one thread per output element, in double precision: a second oracle that shares no code
// with the production kernels below the op specs.
#include "gpu/gpu.cuh"
#include "harness/naive.h"
#include "ops/deform_conv2d/spec.gen.h"
#include "ops/grouped_conv2d/spec.gen.h"

namespace deploydcn::harness {

struct NaiveArguments {
  const void *x, *weight, *offset, *mask, *bias;
  void* y;
  DType dtype, offset_dtype;
  int n, c, h, w, m, oh, ow, kh, kw, sh, sw, pt, pl, dh, dw, g, og;
  Activation activation;

  template <class Visit>
  void for_each_pointer(Visit visit) const {
    for (const void* pointer : {x, weight, offset, mask, bias, static_cast<const void*>(y)}) visit(pointer);
  }
};

__device__ inline double element(const void* data, DType dtype, int64_t index) {
  switch (dtype) {
    case DType::kFloat16: return __half2float(static_cast<const __half*>(data)[index]);
    case DType::kBFloat16: return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[index]);
    default: return static_cast<const float*>(data)[index];
  }
}

__device__ inline double pixel(const NaiveArguments& a, int image, int channel, int row, int column) {
  if (row < 0 || row >= a.h || column < 0 || column >= a.w) return 0;
  return element(a.x, a.dtype, ((static_cast<int64_t>(image) * a.c + channel) * a.h + row) * a.w + column);
}

__device__ inline double bilinear(const NaiveArguments& a, int image, int channel, double y, double x) {
  if (!(y > -1 && y < a.h && x > -1 && x < a.w)) return 0;  // also where a coordinate is NaN
  const int row = static_cast<int>(floor(y)), column = static_cast<int>(floor(x));
  const double below = y - row, right = x - column;
  return (1 - below) * (1 - right) * pixel(a, image, channel, row, column) +
         (1 - below) * right * pixel(a, image, channel, row, column + 1) +
         below * (1 - right) * pixel(a, image, channel, row + 1, column) +
         below * right * pixel(a, image, channel, row + 1, column + 1);
}

__device__ inline double sample(const NaiveArguments& a, int image, int channel, int tap, int row, int column) {
  const int y = row * a.sh - a.pt + tap / a.kw * a.dh, x = column * a.sw - a.pl + tap % a.kw * a.dw;
  if (!a.offset) return pixel(a, image, channel, y, x);
  const int64_t plane = static_cast<int64_t>(a.oh) * a.ow, at = static_cast<int64_t>(row) * a.ow + column;
  const int64_t k = (static_cast<int64_t>(image) * a.og + channel / (a.c / a.og)) * a.kh * a.kw + tap;
  const double dy = element(a.offset, a.offset_dtype, 2 * k * plane + at);
  const double dx = element(a.offset, a.offset_dtype, (2 * k + 1) * plane + at);
  const double mask = a.mask ? element(a.mask, a.dtype, k * plane + at) : 1;
  return mask * bilinear(a, image, channel, y + dy, x + dx);
}

__global__ void naive_convolution(const NaiveArguments a) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= static_cast<int64_t>(a.n) * a.m * a.oh * a.ow) return;
  const int column = static_cast<int>(index % a.ow), row = static_cast<int>(index / a.ow % a.oh);
  const int output = static_cast<int>(index / a.ow / a.oh % a.m), image = static_cast<int>(index / a.ow / a.oh / a.m);
  const int channels = a.c / a.g, group = output / (a.m / a.g), taps = a.kh * a.kw;
  double sum = a.bias ? element(a.bias, a.dtype, output) : 0;
  for (int channel = 0; channel < channels; ++channel) {
    for (int tap = 0; tap < taps; ++tap) {
      const double weight =
          element(a.weight, a.dtype, (static_cast<int64_t>(output) * channels + channel) * taps + tap);
      sum += weight * sample(a, image, group * channels + channel, tap, row, column);
    }
  }
  if (a.activation == Activation::kSilu) sum = sum / (1 + exp(-sum));
  if (a.activation == Activation::kRelu || a.activation == Activation::kRelu6) sum = sum < 0 ? 0 : sum;
  if (a.activation == Activation::kRelu6) sum = sum > 6 ? 6 : sum;
  const float value = static_cast<float>(sum);
  switch (a.dtype) {
    case DType::kFloat16: static_cast<__half*>(a.y)[index] = __float2half_rn(value); return;
    case DType::kBFloat16: static_cast<__nv_bfloat16*>(a.y)[index] = __float2bfloat16_rn(value); return;
    default: static_cast<float*>(a.y)[index] = value; return;
  }
}

namespace {

class NaiveConvolution : public gpu::GpuKernel {
 public:
  using Describe = NaiveArguments (*)(const Attributes&, Span<const TensorView>);
  NaiveConvolution(Describe describe, Attributes attributes)
      : describe_(describe), attributes_(std::move(attributes)) {}

  std::size_t workspace_bytes(Span<const TensorView>) const override { return 0; }
  void launch(Span<const TensorView> inputs, Span<const gpu::OutputView> outputs, void*,
              gpu::Stream stream) const override {
    NaiveArguments a = describe_(attributes_, inputs);
    a.y = outputs[0].data;
    const int64_t threads = static_cast<int64_t>(a.n) * a.m * a.oh * a.ow;
    if (threads == 0) return;
    const cudaError_t status =
        GPU_LAUNCH(naive_convolution, dim3(static_cast<unsigned>((threads + 127) / 128)), dim3(128), 0, stream, a);
    if (status != cudaSuccess) throw DeviceError(cudaGetErrorString(status));
  }

 private:
  Describe describe_;
  Attributes attributes_;
};

template <class Sizes>
NaiveArguments with_sizes(const Sizes& s) {
  NaiveArguments a{};
  int* targets[] = {&a.n,  &a.c,  &a.h,  &a.w,  &a.m,  &a.oh, &a.ow, &a.kh, &a.kw,
                    &a.sh, &a.sw, &a.pt, &a.pl, &a.dh, &a.dw, &a.g,  &a.og};
  for (std::size_t i = 0; i < s.size(); ++i) *targets[i] = static_cast<int>(s[i]);
  return a;
}

NaiveArguments describe_deform(const Attributes& attributes, Span<const TensorView> inputs) {
  using namespace deform_conv2d;
  const Axes a = bind(kSpec, attributes, inputs);
  NaiveArguments out = with_sizes(std::array<int64_t, 17>{a[N], a[C], a[H], a[W], a[M], a[OH], a[OW], a[KH], a[KW],
                                                          a[SH], a[SW], a[PT], a[PL], a[DH], a[DW], a[G], a[OG]});
  out.x = inputs[0].data, out.weight = inputs[1].data, out.offset = inputs[2].data;
  out.bias = input_at(inputs, 3).data, out.mask = input_at(inputs, 4).data;
  out.dtype = inputs[0].dtype, out.offset_dtype = inputs[2].dtype;
  out.activation = activation_named(attributes.named(kSpec, "activation").string);
  return out;
}

NaiveArguments describe_grouped(const Attributes& attributes, Span<const TensorView> inputs) {
  using namespace grouped_conv2d;
  const Axes a = bind(kSpec, attributes, inputs);
  NaiveArguments out = with_sizes(std::array<int64_t, 17>{a[N], a[C], a[H], a[W], a[M], a[OH], a[OW], a[KH], a[KW],
                                                          a[SH], a[SW], a[PT], a[PL], a[DH], a[DW], a[G], 1});
  out.x = inputs[0].data, out.weight = inputs[1].data, out.bias = input_at(inputs, 2).data;
  out.dtype = out.offset_dtype = inputs[0].dtype;
  out.activation = activation_named(attributes.named(kSpec, "activation").string);
  return out;
}

template <NaiveConvolution::Describe kDescribe>
std::unique_ptr<gpu::GpuKernel> create(const Attributes& attributes, const gpu::GpuOptions&) {
  return std::make_unique<NaiveConvolution>(kDescribe, attributes);
}

}  // namespace

const gpu::GpuOp kNaiveDeformConv2d = {&deform_conv2d::kSpec, {}, {}, create<describe_deform>};
const gpu::GpuOp kNaiveGroupedConv2d = {&grouped_conv2d::kSpec, {}, {}, create<describe_grouped>};

}  // namespace deploydcn::harness
