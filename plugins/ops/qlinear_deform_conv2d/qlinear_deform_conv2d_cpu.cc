// Deformable convolution of 8-bit integers. A tile of output pixels is sampled into integers, in double, so that it
// rounds as the definition says; their products with the weights are added up in 32 bits, which
// require_sums_in_32_bits allows.
#include "ops/qlinear_deform_conv2d/qlinear_deform_conv2d_cpu.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "core/activation.h"
#include "core/cpu/thread_arena.h"
#include "ops/qlinear_deform_conv2d/spec.gen.h"

namespace deploydcn::qlinear_deform_conv2d {
namespace {

enum Input { kX, kXScale, kXZeroPoint, kW, kWScale, kYScale, kYZeroPoint, kOffset, kBias, kMask };
constexpr int64_t kTilePixels = 16;
constexpr int64_t kMaxProducts = std::numeric_limits<int32_t>::max() / (255 * 128);

void require_sums_in_32_bits(const Axes& a) {
  const int64_t products = (Checked(a[C] / a[G]) * Checked(a[KH]) * Checked(a[KW])).value();
  if (products <= kMaxProducts) return;
  throw InvalidArgument(std::string(kSpec.name) + " adds up " + std::to_string(products) +
                        " products for one output; wanted at most " + std::to_string(kMaxProducts) +
                        " = C//G*KH*KW, which always fit 32 bits; leave this layer in float32");
}

// The 8-bit values of T around a zero point: integers in [lowest, highest].
template <class T>
struct Quantized {
  int zero_point;
  int lowest() const { return std::numeric_limits<T>::min() - zero_point; }
  int highest() const { return std::numeric_limits<T>::max() - zero_point; }
  // The nearest one, half to even; NaN is 0.
  int nearest(double value) const {
    if (std::isnan(value)) return 0;
    return static_cast<int>(std::nearbyint(std::clamp<double>(value, lowest(), highest())));
  }
};

// A bilinear sample: at most four pixels of a plane and their weights. Everything outside the image is 0.
struct Corners {
  int count = 0;
  int64_t pixel[4];
  double weight[4];

  Corners(double y, double x, int64_t height, int64_t width) {
    const bool inside = y > -1 && y < static_cast<double>(height) && x > -1 && x < static_cast<double>(width);
    if (!inside) return;  // NaN too
    const auto top = static_cast<int64_t>(std::floor(y)), left = static_cast<int64_t>(std::floor(x));
    for (int64_t row = top; row <= top + 1; ++row) {
      for (int64_t column = left; column <= left + 1; ++column) {
        if (row < 0 || row >= height || column < 0 || column >= width) continue;
        pixel[count] = row * width + column;
        weight[count++] =
            (1 - std::abs(y - static_cast<double>(row))) * (1 - std::abs(x - static_cast<double>(column)));
      }
    }
  }
};

double activate(Activation activation, double value) {
  switch (activation) {
    case Activation::kNone: return value;
    case Activation::kRelu: return std::max(value, 0.0);
    case Activation::kRelu6: return std::clamp(value, 0.0, 6.0);
    case Activation::kSilu: return value / (1 + std::exp(-value));
  }
  throw InternalError("unknown activation");
}

template <class T>
const T* data(const TensorView& view) {
  return static_cast<const T*>(view.data);
}

// One call: inputs of type T, checked.
template <class T>
struct Call {
  const Axes& a;
  Span<const TensorView> inputs;
  Activation activation;
  T* output;
  int64_t taps = a[KH] * a[KW], pixels = a[OH] * a[OW];
  Quantized<T> x{*data<T>(inputs[kXZeroPoint])}, y{*data<T>(inputs[kYZeroPoint])};

  // Samples of output pixel `pixel`, in the order of the weights: (C, KH*KW).
  void sample(int64_t n, int64_t pixel, int16_t* samples) const {
    const TensorView mask = input_at(inputs, kMask);
    const int64_t row = pixel / a[OW] * a[SH] - a[PT], column = pixel % a[OW] * a[SW] - a[PL];
    const int64_t channels = a[C] / a[OG], plane = a[H] * a[W];
    for (int64_t q = 0; q < a[OG]; ++q) {
      const T* image = data<T>(inputs[kX]) + (n * a[C] + q * channels) * plane;
      for (int64_t t = 0; t < taps; ++t) {
        const int64_t slot = (n * a[OG] + q) * taps + t;
        const float* offset = data<float>(inputs[kOffset]) + 2 * slot * pixels + pixel;
        const Corners corners(static_cast<double>(row + t / a[KW] * a[DH]) + offset[0],
                              static_cast<double>(column + t % a[KW] * a[DW]) + offset[pixels], a[H], a[W]);
        const double modulation = mask.present ? data<float>(mask)[slot * pixels + pixel] : 1;
        int16_t* out = samples + q * channels * taps + t;
        for (int64_t c = 0; c < channels; ++c) {
          double value = 0;
          for (int i = 0; i < corners.count; ++i) {
            value += corners.weight[i] * (image[c * plane + corners.pixel[i]] - x.zero_point);
          }
          out[c * taps] = static_cast<int16_t>(x.nearest(modulation * value));
        }
      }
    }
  }

  // Output pixels [first, first + count) of image n, from their samples.
  void multiply(int64_t n, int64_t first, int64_t count, const int16_t* samples) const {
    const int64_t products = a[C] / a[G] * taps, outputs = a[M] / a[G];
    const TensorView bias = input_at(inputs, kBias);
    const double x_scale = *data<float>(inputs[kXScale]), y_scale = *data<float>(inputs[kYScale]);
    for (int64_t m = 0; m < a[M]; ++m) {
      const int8_t* weight = data<int8_t>(inputs[kW]) + m * products;
      const double scale = x_scale * data<float>(inputs[kWScale])[m];
      T* out = output + (n * a[M] + m) * pixels + first;
      for (int64_t p = 0; p < count; ++p) {
        const int16_t* sample = samples + p * a[C] * taps + m / outputs * products;
        int32_t sum = 0;
        for (int64_t k = 0; k < products; ++k) sum += weight[k] * sample[k];
        const int64_t total = int64_t{sum} + (bias.present ? data<int32_t>(bias)[m] : 0);
        const double value = activate(activation, static_cast<double>(total) * scale);
        out[p] = static_cast<T>(y.nearest(value / y_scale) + y.zero_point);
      }
    }
  }

  void run(CpuContext& context) const {
    const int64_t tiles = (pixels + kTilePixels - 1) / kTilePixels;
    const int64_t samples = (Checked(kTilePixels) * Checked(a[C]) * Checked(taps)).value();
    parallel_for(context, a[N] * tiles, [&](int64_t task) {
      const int64_t n = task / tiles, first = task % tiles * kTilePixels;
      const int64_t count = std::min(kTilePixels, pixels - first);
      cpu::ThreadArena& arena = cpu::thread_arena();
      arena.reset(cpu::ThreadArena::bytes_for<int16_t>(samples));
      int16_t* tile = arena.take<int16_t>(samples);
      for (int64_t p = 0; p < count; ++p) sample(n, first + p, tile + p * a[C] * taps);
      multiply(n, first, count, tile);
    });
  }
};

class Kernel : public CpuKernel {
 public:
  explicit Kernel(const Attributes& attributes)
      : attributes_(attributes), activation_(activation_named(attributes.named(kSpec, "activation").string)) {}

  void compute(Span<const TensorView> inputs, CpuContext& context) const override {
    const Axes a = bind(kSpec, attributes_, inputs);
    require_sums_in_32_bits(a);
    void* output = context.output(0, deploydcn::output_shape(kSpec, a, 0));
    if (inputs[kX].dtype == DType::kUInt8) {
      Call<uint8_t>{a, inputs, activation_, static_cast<uint8_t*>(output)}.run(context);
    } else {
      Call<int8_t>{a, inputs, activation_, static_cast<int8_t*>(output)}.run(context);
    }
  }

 private:
  Attributes attributes_;
  Activation activation_;
};

std::unique_ptr<CpuKernel> create(const Attributes& attributes, Span<const DType>, Span<const TensorView>) {
  return std::make_unique<Kernel>(attributes);
}

}  // namespace

const CpuOp kCpuOp = {&kSpec, create};

}  // namespace deploydcn::qlinear_deform_conv2d
