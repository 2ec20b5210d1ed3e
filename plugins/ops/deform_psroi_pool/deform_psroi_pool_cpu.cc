#include "ops/deform_psroi_pool/deform_psroi_pool_cpu.h"

#include "core/cpu/boxes.h"
#include "core/cpu/element.h"
#include "ops/deform_psroi_pool/part_samples.h"
#include "ops/deform_psroi_pool/spec.gen.h"

namespace deploydcn::deform_psroi_pool {
namespace {

enum Input { kImages, kRois, kOffset };
enum Output { kPooled, kCount };

// The samples of a bin along one axis that count.
std::vector<roi::Neighbours> located(const PartSamples& samples, int count) {
  std::vector<roi::Neighbours> found;
  roi::Neighbours at{};
  for (int i = 0; i < count; ++i) {
    if (samples.locate(i, at)) found.push_back(at);
  }
  return found;
}

class Kernel : public CpuKernel {
 public:
  explicit Kernel(const Attributes& attributes)
      : attributes_(attributes),
        scale_(static_cast<float>(attributes.named(kSpec, "spatial_scale").number)),
        trans_std_(static_cast<float>(attributes.named(kSpec, "trans_std").number)),
        samples_(static_cast<int>((*attributes.named(kSpec, "sample_per_part").ints)[0])) {}

  void compute(Span<const TensorView> inputs, CpuContext& context) const override {
    const Axes a = bind(kSpec, attributes_, inputs);
    roi::require_exact_positions(kSpec.name, a[H], a[W]);
    const std::vector<cpu::PlacedBox> boxes = cpu::read_boxes(kSpec, inputs[kRois], a[N]);
    const Shape shape = deploydcn::output_shape(kSpec, a, kPooled);
    void* pooled = context.output(kPooled, shape);
    void* count = context.output(kCount, shape);
    cpu::with_element(inputs[kImages].dtype, [&](auto zero) {
      using T = decltype(zero);
      parallel_for(context, a[R] * a[CLS], [&](int64_t task) {
        pool(a, inputs, boxes[task / a[CLS]], task / a[CLS], task % a[CLS], static_cast<T*>(pooled),
             static_cast<T*>(count));
      });
    });
  }

 private:
  // All output channels of one class: they share their positions.
  template <class T>
  void pool(const Axes& a, Span<const TensorView> inputs, const cpu::PlacedBox& placed, int64_t r, int64_t class_id,
            T* pooled, T* counts) const {
    using Sum = cpu::Sum<T>;
    const auto height = static_cast<int>(a[H]), width = static_cast<int>(a[W]);
    const auto bins = static_cast<int>(a[PS]), parts = static_cast<int>(a[PT]), groups = static_cast<int>(a[GS]);
    const BoxSide vertical(placed.box.top, placed.box.bottom, scale_);
    const BoxSide horizontal(placed.box.left, placed.box.right, scale_);
    const int64_t channels = a[OD] / a[CLS];
    const T* image =
        static_cast<const T*>(inputs[kImages].data) + placed.image * a[OD] * groups * groups * height * width;
    const TensorView offset = input_at(inputs, kOffset);
    for (int ph = 0; ph < bins; ++ph) {
      for (int pw = 0; pw < bins; ++pw) {
        float x = 0.f, y = 0.f;
        if (offset.present) {
          const int64_t plane = static_cast<int64_t>(parts) * parts, first = (r * a[CLS] + class_id) * 2 * plane;
          const int64_t part = static_cast<int64_t>(part_of(ph, bins, parts)) * parts + part_of(pw, bins, parts);
          load_as<float>(offset.data, offset.dtype, first + part, 1, &x);
          load_as<float>(offset.data, offset.dtype, first + plane + part, 1, &y);
        }
        const auto rows = located(PartSamples(vertical, ph, bins, samples_, trans_std_, y, height), samples_);
        const auto columns = located(PartSamples(horizontal, pw, bins, samples_, trans_std_, x, width), samples_);
        const Sum valid = static_cast<Sum>(rows.size()) * static_cast<Sum>(columns.size());
        const int64_t group = static_cast<int64_t>(group_of(ph, bins, groups)) * groups + group_of(pw, bins, groups);
        for (int64_t o = class_id * channels; o < (class_id + 1) * channels; ++o) {
          const T* plane = image + (o * groups * groups + group) * height * width;
          Sum sum = 0;
          for (const roi::Neighbours& row : rows) {
            const T *low = plane + static_cast<int64_t>(row.low) * width,
                    *high = plane + static_cast<int64_t>(row.high) * width;
            const Sum down = row.fraction;
            Sum along = 0;  // by rows: a single sum of all samples would lose digits in float32
            for (const roi::Neighbours& column : columns) {
              const Sum right = column.fraction;
              const Sum above = cpu::value_of(low[column.low]) * (1 - right) + cpu::value_of(low[column.high]) * right;
              const Sum below =
                  cpu::value_of(high[column.low]) * (1 - right) + cpu::value_of(high[column.high]) * right;
              along += above * (1 - down) + below * down;
            }
            sum += along;
          }
          const int64_t item = ((r * a[OD] + o) * bins + ph) * bins + pw;
          pooled[item] = cpu::element_from<T>(valid > 0 ? sum / valid : Sum(0));
          counts[item] = cpu::element_from<T>(valid);
        }
      }
    }
  }

  Attributes attributes_;
  float scale_, trans_std_;
  int samples_;
};

std::unique_ptr<CpuKernel> create(const CpuNode& node) { return std::make_unique<Kernel>(node.attributes); }

}  // namespace

const CpuOp kCpuOp = {&kSpec, create};

}  // namespace deploydcn::deform_psroi_pool
