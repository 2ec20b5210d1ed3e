// Runs an op's GPU kernel without any runtime around it, in linear layout.
#include <cstring>

#include "emulation/control.h"
#include "harness/device_tensor.h"
#include "harness/harness.h"
#include "harness/harness_run.h"
#include "harness/naive.h"
#include "ops/dcnv3/dcnv3_cuda.h"
#include "ops/dcnv4/dcnv4_cuda.h"
#include "ops/deform_conv2d/deform_conv2d_cuda.h"
#include "ops/deform_psroi_pool/deform_psroi_pool_cuda.h"
#include "ops/deform_roi_pool/deform_roi_pool_cuda.h"
#include "ops/grouped_conv2d/grouped_conv2d_cuda.h"
#include "ops/ms_deform_attn/ms_deform_attn_cuda.h"
#include "ops/separable_conv2d/separable_conv2d_cuda.h"
// new-gpu-op: include above

namespace deploydcn::harness {
namespace {

const gpu::GpuOp* const kOps[] = {
    &deform_conv2d::kGpuOp, &grouped_conv2d::kGpuOp, &deform_roi_pool::kGpuOp, &deform_psroi_pool::kGpuOp,
    &dcnv3::kGpuOp,         &dcnv4::kGpuOp,          &ms_deform_attn::kGpuOp,  &separable_conv2d::kGpuOp,
    // new-gpu-op: insert above
};
const gpu::GpuOp* const kNaiveOps[] = {&kNaiveDeformConv2d, &kNaiveGroupedConv2d};

const gpu::GpuOp& find_op(const char* name, bool naive) {
  const Span<const gpu::GpuOp* const> ops = naive ? Span<const gpu::GpuOp* const>(kNaiveOps) : kOps;
  for (const gpu::GpuOp* op : ops) {
    if (std::strcmp(op->spec->name, name) == 0) return *op;
  }
  throw InvalidArgument(std::string("no ") + (naive ? "naive kernel" : "GPU kernel") + " of an op " + name);
}

void run(const gpu::GpuOp& op, const trt::NodeFields& node, const HarnessTensor* inputs, int32_t count,
         HarnessRun& result) {
  const std::unique_ptr<gpu::GpuKernel> kernel = op.create(node.attributes, node.options);
  std::vector<std::unique_ptr<DeviceTensor>> memory;
  std::vector<TensorView> views;
  for (int32_t i = 0; i < count; ++i) {
    const HarnessTensor& input = inputs[i];
    views.emplace_back();
    if (!input.data) continue;  // an absent optional input
    const Shape shape(input.dims, input.dims + input.rank);
    memory.push_back(std::make_unique<DeviceTensor>(shape, static_cast<DType>(input.dtype), Layout::kLinear));
    memory.back()->upload(input.data);
    views.back() = {memory.back()->data(), static_cast<DType>(input.dtype), shape, true, Layout::kLinear};
  }
  const Axes axes = bind(*op.spec, node.attributes, Span<const TensorView>(views));
  std::vector<gpu::OutputView> outputs;
  for (std::size_t i = 0; i < op.spec->outputs.size(); ++i) {
    memory.push_back(std::make_unique<DeviceTensor>(output_shape(*op.spec, axes, i), views[0].dtype, Layout::kLinear));
    outputs.push_back({memory.back()->data(), Layout::kLinear});
  }
  const DeviceMemory scratch(kernel->workspace_bytes(views));
  const EmulatedStream stream;
  emulation::options().inside_enqueue = true;
  kernel->launch(views, outputs, scratch.data(), static_cast<gpu::Stream>(stream.get()));
  emulation::options().inside_enqueue = false;
  deploydcn_emulation_synchronize();
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const DeviceTensor& tensor = *memory[memory.size() - outputs.size() + i];
    result.add_output(views[0].dtype, output_shape(*op.spec, axes, i), tensor.download());
  }
}

}  // namespace
}  // namespace deploydcn::harness

HarnessRun* harness_run_kernel(const char* name, int32_t naive, const HarnessField* fields, int32_t field_count,
                               const HarnessTensor* inputs, int32_t input_count) {
  using namespace deploydcn::harness;
  return HarnessRun::guarded([&](HarnessRun& result) {
    const deploydcn::gpu::GpuOp& op = find_op(name, naive != 0);
    const std::vector<nvinfer1::PluginField> given = plugin_fields(fields, field_count);
    const nvinfer1::PluginFieldCollection collection{field_count, given.data()};
    run(op, deploydcn::trt::read_fields(*op.spec, &collection, false), inputs, input_count, result);
  });
}
