#include "ops/ms_deform_attn/ms_deform_attn_cuda.h"

#include "gpu/attention_kernel.cuh"
#include "ops/ms_deform_attn/spec.gen.h"

namespace deploydcn::ms_deform_attn {
namespace {

enum Input { kValue, kSpatialShapes, kLevelStartIndex, kSamplingLocations, kAttentionWeights };

gpu::AttentionArguments describe(const Attributes& attributes, Span<const TensorView> inputs) {
  const Axes a = bind(kSpec, attributes, inputs);
  const int64_t per_head = a[L] * a[P];
  gpu::AttentionArguments arguments = gpu::attention_arguments(
      {a[N], a[Q], a[M], a[D], a[S], per_head}, inputs[kValue], inputs[kSamplingLocations],
      {2 * a[M] * per_head, 2 * per_head}, inputs[kAttentionWeights], {a[M] * per_head, per_head});
  arguments.spatial_shapes = inputs[kSpatialShapes].data;
  arguments.level_start_index = inputs[kLevelStartIndex].data;
  arguments.points_per_level = static_cast<int>(a[P]);
  return arguments;
}

std::unique_ptr<gpu::GpuKernel> create(const Attributes& attributes, const gpu::GpuOptions&) {
  return std::make_unique<gpu::AttentionKernel<gpu::LevelPoints>>(describe, attributes);
}

}  // namespace

const gpu::GpuOp kGpuOp = {&kSpec, {}, {}, create};

}  // namespace deploydcn::ms_deform_attn
