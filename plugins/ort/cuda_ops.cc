// The GPU kernels on ONNX Runtime's CUDA execution provider: on the session's stream, in its memory, in linear layout.
// float64 has no GPU kernels; the runtime runs such nodes on the CPU.
#include "ops/dcnv3/dcnv3_cuda.h"
#include "ops/dcnv4/dcnv4_cuda.h"
#include "ops/deform_conv2d/deform_conv2d_cuda.h"
#include "ops/deform_psroi_pool/deform_psroi_pool_cuda.h"
#include "ops/deform_roi_pool/deform_roi_pool_cuda.h"
#include "ops/grouped_conv2d/grouped_conv2d_cuda.h"
#include "ops/ms_deform_attn/ms_deform_attn_cuda.h"
#include "ops/separable_conv2d/separable_conv2d_cuda.h"
// new-gpu-op: include above
#include "ort/providers.h"
#include "ort/runtime.h"

namespace deploydcn::ort {
namespace {

const gpu::GpuOp* const kOps[] = {
    &deform_conv2d::kGpuOp, &grouped_conv2d::kGpuOp, &deform_roi_pool::kGpuOp, &deform_psroi_pool::kGpuOp,
    &dcnv3::kGpuOp,         &dcnv4::kGpuOp,          &ms_deform_attn::kGpuOp,  &separable_conv2d::kGpuOp,
    // new-gpu-op: insert above
};

// Memory of the device that holds `neighbour`, tied to the kernel's stream: released when the launch is enqueued, it is
// given out again only to work that is ordered behind it. AllocatorAlloc would tie it to none, and another run of the
// session could get it at once.
class DeviceScratch {
 public:
  DeviceScratch(KernelContext* context, const Value* neighbour, std::size_t bytes) {
    if (bytes == 0) return;
    const MemoryInfo* memory = nullptr;
    check(api().GetTensorMemoryInfo(neighbour, &memory));
    check(api().KernelContext_GetAllocator(context, memory, &allocator_));
    Status* status = api().KernelContext_GetScratchBuffer(context, memory, bytes, &data_);
    if (status) api().ReleaseAllocator(allocator_);
    check(status);
  }
  DeviceScratch(const DeviceScratch&) = delete;
  DeviceScratch& operator=(const DeviceScratch&) = delete;
  ~DeviceScratch() {
    if (!allocator_) return;
    succeeded(api().AllocatorFree(allocator_, data_));
    api().ReleaseAllocator(allocator_);
  }
  void* data() const { return data_; }

 private:
  Allocator* allocator_ = nullptr;
  void* data_ = nullptr;
};

class CudaNode : public NodeKernel {
 public:
  CudaNode(const OpSpec& spec, Attributes attributes, std::unique_ptr<gpu::GpuKernel> kernel)
      : spec_(spec), attributes_(std::move(attributes)), kernel_(std::move(kernel)) {}

  void compute(Span<const TensorView> inputs, KernelContext* context) const override {
    const Axes axes = bind(spec_, attributes_, inputs);
    std::vector<gpu::OutputView> outputs;
    for (std::size_t i = 0; i < spec_.outputs.size(); ++i) {
      const Shape shape = output_shape(spec_, axes, i);
      Value* value = nullptr;
      check(api().KernelContext_GetOutput(context, i, shape.data(), shape.size(), &value));
      void* data = nullptr;
      check(api().GetTensorMutableData(value, &data));
      outputs.push_back({data, Layout::kLinear});
    }
    const Value* first = nullptr;
    check(api().KernelContext_GetInput(context, 0, &first));
    const DeviceScratch scratch(context, first, kernel_->workspace_bytes(inputs));
    void* stream = nullptr;
    check(api().KernelContext_GetGPUComputeStream(context, &stream));
    kernel_->launch(inputs, outputs, scratch.data(), static_cast<gpu::Stream>(stream));
  }

 private:
  const OpSpec& spec_;
  Attributes attributes_;
  std::unique_ptr<gpu::GpuKernel> kernel_;
};

// Node attribute allow_tf32, as for the TensorRT plugins.
gpu::GpuOptions read_options(const AttributeSource& node) {
  const auto tf32 = node.ints("allow_tf32", AttrKind::kInt);
  if (tf32 && (*tf32)[0] != 0 && (*tf32)[0] != 1) {
    throw InvalidArgument("attribute allow_tf32 is " + std::to_string((*tf32)[0]) + "; wanted 0 or 1");
  }
  return {tf32 && (*tf32)[0] == 1};
}

Provider provider_of(const gpu::GpuOp& op) {
  const auto create = [&op](const AttributeSource& node, Span<const DType>, Span<const TensorView>) {
    Attributes attributes = Attributes::read(*op.spec, node);
    auto kernel = op.create(attributes, read_options(node));
    return std::make_unique<CudaNode>(*op.spec, std::move(attributes), std::move(kernel));
  };
  return {"CUDAExecutionProvider", create, false};
}

}  // namespace

std::vector<ProvidedOp> cuda_ops() {
  std::vector<ProvidedOp> ops;
  for (const gpu::GpuOp* op : kOps) ops.push_back({op->spec, provider_of(*op), gpu::runs_on_gpu});
  return ops;
}

}  // namespace deploydcn::ort
