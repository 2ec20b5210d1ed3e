#include "ops/dcnv3/dcnv3_cpu.h"

#include <utility>

#include "core/cpu/deformable_attention.h"
#include "ops/dcnv3/spec.gen.h"

namespace deploydcn::dcnv3 {
namespace {

enum Input { kInput, kOffset, kMask };

class Kernel : public CpuKernel {
 public:
  explicit Kernel(Attributes attributes)
      : attributes_(std::move(attributes)), offset_scale_(attributes_.named(kSpec, "offset_scale").number) {}

  void compute(Span<const TensorView> inputs, CpuContext& context) const override {
    const Axes a = bind(kSpec, attributes_, inputs);
    const DeformableWindow window{a[H],  a[W],  a[OH], a[OW], a[KH], a[KW],      a[SH],
                                  a[SW], a[PT], a[PL], a[DH], a[DW], a[RC] != 0, offset_scale_};
    cpu::attend({a[N],
                 a[OH] * a[OW],
                 a[G],
                 a[C] / a[G],
                 a[H] * a[W],
                 inputs[kInput],
                 {inputs[kOffset].data, inputs[kOffset].dtype, 0, 2 * a[G] * a[P], 2 * a[P]},
                 {inputs[kMask].data, inputs[kMask].dtype, 0, a[G] * a[P], a[P]},
                 false,
                 cpu::points_of(window),
                 cpu::grid_of(window),
                 context.output(0, output_shape(kSpec, a, 0))},
                context);
  }

 private:
  Attributes attributes_;
  double offset_scale_;
};

std::unique_ptr<CpuKernel> create(const CpuNode& node) { return std::make_unique<Kernel>(node.attributes); }

}  // namespace

const CpuOp kCpuOp = {&kSpec, create};

}  // namespace deploydcn::dcnv3
