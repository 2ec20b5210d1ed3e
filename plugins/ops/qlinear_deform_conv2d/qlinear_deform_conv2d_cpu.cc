// Deformable convolution of 8-bit integers: the tiled convolution of DeformConv2d with samples rounded to 8 bits, whose
// products are whole numbers where the processor adds those up.
#include "ops/qlinear_deform_conv2d/qlinear_deform_conv2d_cpu.h"

#include <limits>
#include <string>

#include "core/cpu/tiled_convolution.h"
#include "ops/qlinear_deform_conv2d/spec.gen.h"

namespace deploydcn::qlinear_deform_conv2d {
namespace {

enum Input { kX, kXScale, kXZeroPoint, kW, kWScale, kYScale, kYZeroPoint, kOffset, kBias, kMask };
constexpr int64_t kMaxProducts = std::numeric_limits<int32_t>::max() / (255 * 128);

void require_sums_in_32_bits(const Axes& a) {
  const int64_t products = (Checked(a[C] / a[G]) * Checked(a[KH]) * Checked(a[KW])).value();
  if (products <= kMaxProducts) return;
  throw InvalidArgument(std::string(kSpec.name) + " adds up " + std::to_string(products) +
                        " products for one output; wanted at most " + std::to_string(kMaxProducts) +
                        " = C//G*KH*KW, which always fit 32 bits; leave this layer in float32");
}

float scalar(const TensorView& view) { return *static_cast<const float*>(view.data); }

int32_t zero_point(const TensorView& view) {
  return view.dtype == DType::kInt8 ? int32_t{*static_cast<const int8_t*>(view.data)}
                                    : int32_t{*static_cast<const uint8_t*>(view.data)};
}

// Of every output's sums.
std::vector<float> scale_of(const TensorView& x_scale, const TensorView& w_scale) {
  const auto* weight = static_cast<const float*>(w_scale.data);
  std::vector<float> scale(weight, weight + element_count(w_scale.shape));
  for (float& one : scale) one *= scalar(x_scale);
  return scale;
}

class Kernel : public CpuKernel {
 public:
  explicit Kernel(const CpuNode& node)
      : attributes_(node.attributes), activation_(activation_named(attributes_.named(kSpec, "activation").string)) {
    const TensorView &weight = node.constants[kW], &w_scale = node.constants[kWScale];
    const int64_t groups = attribute("group"), offset_groups = attribute("offset_group");
    // What does not fit is left to `compute`, whose shape checks explain it.
    const bool packable = weight.present && w_scale.present && node.constants[kXScale].present &&
                          weight.shape.size() == 4 && element_count(weight.shape) > 0 &&
                          w_scale.shape == Shape{weight.shape[0]} && weight.shape[0] % groups == 0 &&
                          weight.shape[1] * groups % offset_groups == 0;
    if (packable) {
      packed_ = std::make_unique<Packed>(weight, groups, offset_groups, scale_of(node.constants[kXScale], w_scale));
    }
  }

  void compute(Span<const TensorView> inputs, CpuContext& context) const override {
    const Axes a = bind(kSpec, attributes_, inputs);
    require_sums_in_32_bits(a);
    const cpu::ConvolutionShape shape{a[N],  a[C],  a[H],  a[W],  a[M],  a[OH], a[OW], a[KH], a[KW],
                                      a[SH], a[SW], a[PT], a[PL], a[DH], a[DW], a[G],  a[OG]};
    check_limits(shape);
    const cpu::Quantization quantization{zero_point(inputs[kXZeroPoint]), zero_point(inputs[kYZeroPoint]),
                                         scale_of(inputs[kXScale], inputs[kWScale]), scalar(inputs[kYScale])};
    cpu::ConvolutionArguments arguments{
        inputs[kX],  inputs[kW], inputs[kOffset], input_at(inputs, kMask), input_at(inputs, kBias), nullptr,
        activation_, {},         &quantization};
    arguments.output = context.output(0, deploydcn::output_shape(kSpec, a, 0));
    if (packed_) return convolve(shape, *packed_, arguments, context);
    convolve(shape, Packed(inputs[kW], a[G], a[OG], quantization.scale), arguments, context);
  }

 private:
  struct Packed : cpu::PackedWeights<float> {
    Packed(const TensorView& weight, int64_t groups, int64_t offset_groups, const std::vector<float>& scale)
        : PackedWeights(weight, groups, offset_groups, Products::kBytes, scale) {}
  };
  int64_t attribute(const char* name) const { return (*attributes_.named(kSpec, name).ints)[0]; }

  Attributes attributes_;
  Activation activation_;
  std::unique_ptr<Packed> packed_;
};

std::unique_ptr<CpuKernel> create(const CpuNode& node) { return std::make_unique<Kernel>(node); }

}  // namespace

const CpuOp kCpuOp = {&kSpec, create};

}  // namespace deploydcn::qlinear_deform_conv2d
