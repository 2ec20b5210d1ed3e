#include "ops/ms_deform_attn/ms_deform_attn_cpu.h"

#include <string>
#include <utility>

#include "core/cpu/deformable_attention.h"
#include "ops/ms_deform_attn/spec.gen.h"

namespace deploydcn::ms_deform_attn {
namespace {

enum Input { kValue, kSpatialShapes, kLevelStartIndex, kSamplingLocations, kAttentionWeights };

// Throws InvalidArgument unless every level lies in a value of `pixels` pixels.
std::vector<cpu::Level> read_levels(const TensorView& shapes, const TensorView& starts, int64_t count, int64_t pixels) {
  const auto* sizes = static_cast<const int64_t*>(shapes.data);
  const auto* first = static_cast<const int64_t*>(starts.data);
  std::vector<cpu::Level> levels;
  for (int64_t i = 0; i < count; ++i) {
    const cpu::Level level{first[i], sizes[2 * i], sizes[2 * i + 1]};
    // Nothing here overflows: a height that fits the pixels times a width that fits them was divided first.
    const bool fits = level.height >= 1 && level.width >= 1 && level.height <= pixels / level.width &&
                      level.start >= 0 && level.start <= pixels - level.height * level.width;
    if (!fits) {
      throw InvalidArgument("MSDeformAttn: level " + std::to_string(i) + " is " + std::to_string(level.height) + "x" +
                            std::to_string(level.width) + " pixels from pixel " + std::to_string(level.start) +
                            " on; wanted at least 1x1, within the " + std::to_string(pixels) +
                            " pixels of value; check spatial_shapes and level_start_index");
    }
    levels.push_back(level);
  }
  return levels;
}

class Kernel : public CpuKernel {
 public:
  explicit Kernel(Attributes attributes) : attributes_(std::move(attributes)) {}

  void compute(Span<const TensorView> inputs, CpuContext& context) const override {
    const Axes a = bind(kSpec, attributes_, inputs);
    std::vector<cpu::Point> points;
    for (const cpu::Level& level : read_levels(inputs[kSpatialShapes], inputs[kLevelStartIndex], a[L], a[S])) {
      const auto height = static_cast<double>(level.height), width = static_cast<double>(level.width);
      points.insert(points.end(), static_cast<std::size_t>(a[P]), {level, height, width, -0.5, -0.5});
    }
    const TensorView &locations = inputs[kSamplingLocations], &weights = inputs[kAttentionWeights];
    const int64_t per_head = a[L] * a[P];
    cpu::attend({a[N],
                 a[Q],
                 a[M],
                 a[D],
                 a[S],
                 inputs[kValue],
                 {locations.data, locations.dtype, 0, 2 * a[M] * per_head, 2 * per_head},
                 {weights.data, weights.dtype, 0, a[M] * per_head, per_head},
                 false,
                 std::move(points),
                 cpu::QueryGrid{},
                 context.output(0, output_shape(kSpec, a, 0))},
                context);
  }

 private:
  Attributes attributes_;
};

std::unique_ptr<CpuKernel> create(const CpuNode& node) { return std::make_unique<Kernel>(node.attributes); }

}  // namespace

const CpuOp kCpuOp = {&kSpec, create};

}  // namespace deploydcn::ms_deform_attn
