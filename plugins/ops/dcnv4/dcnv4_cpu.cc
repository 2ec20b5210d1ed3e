#include "ops/dcnv4/dcnv4_cpu.h"

#include <utility>

#include "core/cpu/deformable_attention.h"
#include "ops/dcnv4/spec.gen.h"

namespace deploydcn::dcnv4 {
namespace {

enum Input { kInput, kOffsetMask };

class Kernel : public CpuKernel {
 public:
  explicit Kernel(Attributes attributes)
      : attributes_(std::move(attributes)),
        offset_scale_(attributes_.named(kSpec, "offset_scale").number),
        softmax_((*attributes_.named(kSpec, "softmax").ints)[0] != 0) {}

  void compute(Span<const TensorView> inputs, CpuContext& context) const override {
    const Axes a = bind(kSpec, attributes_, inputs);
    const DeformableWindow window{a[H],  a[W],  a[OH], a[OW], a[KH], a[KW],      a[SH],
                                  a[SW], a[PT], a[PL], a[DH], a[DW], a[RC] != 0, offset_scale_};
    const TensorView& both = inputs[kOffsetMask];
    const int64_t per_query = both.shape[3];
    cpu::attend({a[N],
                 a[OH] * a[OW],
                 a[G],
                 a[C] / a[G],
                 a[H] * a[W],
                 inputs[kInput],
                 {both.data, both.dtype, 0, per_query, 3 * a[P]},
                 {both.data, both.dtype, 2 * a[P], per_query, 3 * a[P]},
                 softmax_,
                 cpu::points_of(window),
                 cpu::grid_of(window),
                 context.output(0, output_shape(kSpec, a, 0))},
                context);
  }

 private:
  Attributes attributes_;
  double offset_scale_;
  bool softmax_;
};

std::unique_ptr<CpuKernel> create(const CpuNode& node) { return std::make_unique<Kernel>(node.attributes); }

}  // namespace

const CpuOp kCpuOp = {&kSpec, create};

}  // namespace deploydcn::dcnv4
