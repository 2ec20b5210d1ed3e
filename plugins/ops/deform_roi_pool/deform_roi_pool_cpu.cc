#include "ops/deform_roi_pool/deform_roi_pool_cpu.h"

#include <algorithm>

#include "core/cpu/boxes.h"
#include "core/cpu/element.h"
#include "ops/deform_roi_pool/bin_samples.h"
#include "ops/deform_roi_pool/spec.gen.h"

namespace deploydcn::deform_roi_pool {
namespace {

enum Input { kImages, kRois, kOffset };
constexpr int64_t kChannelsPerTask = 32;

// A pixel along one axis, and the weight of all samples of a bin that read it.
template <class Sum>
struct WeightedPixel {
  int64_t pixel;
  Sum weight;
};

// A sample's bilinear weight is the product of its row's and its column's: a bin reads rows x columns of these, each
// pixel once.
template <class Sum>
void collect(const BinSamples& samples, int size, std::vector<Sum>& weights, std::vector<WeightedPixel<Sum>>& pixels) {
  pixels.clear();
  if (samples.begin >= samples.end) return;
  const int one = roi::neighbours(samples.position(samples.begin), size).low;
  const int other = roi::neighbours(samples.position(samples.end - 1), size).low;
  const int first = std::min(one, other), last = std::min(std::max(one, other) + 1, size - 1);
  weights.assign(static_cast<std::size_t>(last - first + 1), Sum(0));
  for (int i = samples.begin; i < samples.end; ++i) {
    const roi::Neighbours at = roi::neighbours(samples.position(i), size);
    weights[at.low - first] += Sum(1) - at.fraction;
    weights[at.high - first] += at.fraction;
  }
  for (int pixel = first; pixel <= last; ++pixel) {
    if (weights[pixel - first] != Sum(0)) pixels.push_back({pixel, weights[pixel - first]});
  }
}

class Kernel : public CpuKernel {
 public:
  explicit Kernel(const Attributes& attributes)
      : attributes_(attributes),
        scale_(static_cast<float>(attributes.named(kSpec, "spatial_scale").number)),
        gamma_(static_cast<float>(attributes.named(kSpec, "gamma").number)),
        sampling_ratio_(static_cast<int>((*attributes.named(kSpec, "sampling_ratio").ints)[0])) {}

  void compute(Span<const TensorView> inputs, CpuContext& context) const override {
    const Axes a = bind(kSpec, attributes_, inputs);
    roi::require_exact_positions(kSpec.name, a[H], a[W]);
    const std::vector<cpu::PlacedBox> boxes = cpu::read_boxes(kSpec, inputs[kRois], a[N]);
    void* output = context.output(0, deploydcn::output_shape(kSpec, a, 0));
    const int64_t blocks = (a[C] + kChannelsPerTask - 1) / kChannelsPerTask;
    cpu::with_element(inputs[kImages].dtype, [&](auto zero) {
      using T = decltype(zero);
      parallel_for(context, a[R] * blocks, [&](int64_t task) {
        const int64_t first = task % blocks * kChannelsPerTask, last = std::min(a[C], first + kChannelsPerTask);
        pool(a, inputs, boxes[task / blocks], task / blocks, first, last, static_cast<T*>(output));
      });
    });
  }

 private:
  template <class T>
  void pool(const Axes& a, Span<const TensorView> inputs, const cpu::PlacedBox& placed, int64_t r, int64_t first,
            int64_t last, T* output) const {
    using Sum = cpu::Sum<T>;
    const auto height = static_cast<int>(a[H]), width = static_cast<int>(a[W]);
    const int64_t bins = a[PH] * a[PW];
    const BoxSide vertical(placed.box.top, placed.box.bottom, scale_, static_cast<int>(a[PH]), sampling_ratio_);
    const BoxSide horizontal(placed.box.left, placed.box.right, scale_, static_cast<int>(a[PW]), sampling_ratio_);
    const Sum count = std::max(Sum(vertical.samples) * Sum(horizontal.samples), Sum(1));
    const T* image = static_cast<const T*>(inputs[kImages].data) + placed.image * a[C] * height * width;
    const TensorView offset = input_at(inputs, kOffset);
    std::vector<Sum> weights;
    std::vector<WeightedPixel<Sum>> rows, columns;
    for (int64_t bin = 0; bin < bins; ++bin) {
      float x = 0.f, y = 0.f;
      if (offset.present) {
        load_as<float>(offset.data, offset.dtype, 2 * r * bins + bin, 1, &x);
        load_as<float>(offset.data, offset.dtype, (2 * r + 1) * bins + bin, 1, &y);
      }
      collect(BinSamples(vertical, static_cast<int>(bin / a[PW]), gamma_, y, height), height, weights, rows);
      collect(BinSamples(horizontal, static_cast<int>(bin % a[PW]), gamma_, x, width), width, weights, columns);
      for (int64_t channel = first; channel < last; ++channel) {
        const T* plane = image + channel * height * width;
        Sum sum = 0;
        for (const WeightedPixel<Sum>& row : rows) {
          Sum along = 0;
          for (const WeightedPixel<Sum>& column : columns) {
            along += column.weight * cpu::value_of(plane[row.pixel * width + column.pixel]);
          }
          sum += row.weight * along;
        }
        output[(r * a[C] + channel) * bins + bin] = cpu::element_from<T>(sum / count);
      }
    }
  }

  Attributes attributes_;
  float scale_, gamma_;
  int sampling_ratio_;
};

std::unique_ptr<CpuKernel> create(const CpuNode& node) { return std::make_unique<Kernel>(node.attributes); }

}  // namespace

const CpuOp kCpuOp = {&kSpec, create};

}  // namespace deploydcn::deform_roi_pool
