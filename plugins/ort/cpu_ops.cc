#include "core/cpu/tile_kernels.h"
#include "core/cpu_op.h"
#include "ops/dcnv3/dcnv3_cpu.h"
#include "ops/dcnv4/dcnv4_cpu.h"
#include "ops/deform_conv2d/deform_conv2d_cpu.h"
#include "ops/deform_psroi_pool/deform_psroi_pool_cpu.h"
#include "ops/deform_roi_pool/deform_roi_pool_cpu.h"
#include "ops/grouped_conv2d/grouped_conv2d_cpu.h"
#include "ops/ms_deform_attn/ms_deform_attn_cpu.h"
#include "ops/qlinear_deform_conv2d/qlinear_deform_conv2d_cpu.h"
#include "ops/separable_conv2d/separable_conv2d_cpu.h"
// new-op: include above
#include "ort/providers.h"
#include "ort/runtime.h"

namespace deploydcn::ort {
namespace {

const CpuOp* const kOps[] = {
    &deform_conv2d::kCpuOp,
    &grouped_conv2d::kCpuOp,
    &deform_roi_pool::kCpuOp,
    &deform_psroi_pool::kCpuOp,
    &dcnv3::kCpuOp,
    &dcnv4::kCpuOp,
    &ms_deform_attn::kCpuOp,
    &separable_conv2d::kCpuOp,
    &qlinear_deform_conv2d::kCpuOp,
    // new-op: insert above
};

class CpuNodeKernel : public NodeKernel {
 public:
  explicit CpuNodeKernel(std::unique_ptr<CpuKernel> kernel) : kernel_(std::move(kernel)) {}
  void compute(Span<const TensorView> inputs, KernelContext* context) const override {
    OrtContext runtime(context);
    kernel_->compute(inputs, runtime);
  }

 private:
  std::unique_ptr<CpuKernel> kernel_;
};

Provider provider_of(const CpuOp& op, Products products) {
  const auto create = [&op, products](const AttributeSource& node, Span<const DType> dtypes,
                                      Span<const TensorView> constants) {
    return std::make_unique<CpuNodeKernel>(op.create({Attributes::read(*op.spec, node), dtypes, constants, products}));
  };
  return {"CPUExecutionProvider", create, true};
}

}  // namespace

std::vector<ProvidedOp> cpu_ops(Products products) {
  std::vector<ProvidedOp> ops;
  for (const CpuOp* op : kOps)
    ops.push_back({op->spec, provider_of(*op, products), [](Span<const DType>) { return true; }});
  return ops;
}

}  // namespace deploydcn::ort

// The instruction set of the CPU kernels on this machine; null where DEPLOYDCN_CPU_ISA cannot be had.
extern "C" __attribute__((visibility("default"))) const char* deploydcn_cpu_isa() {
  try {
    return deploydcn::cpu::tile_kernels<float>().isa;
  } catch (const std::exception&) {
    return nullptr;
  }
}
