// Runs an op as ONNX Runtime's CUDA execution provider would, on the fake runtime.
#include <cstring>

#include "harness/fake_ort.h"
#include "harness/harness_run.h"
#include "ort/runtime.h"

extern "C" deploydcn::ort::Status* RegisterCustomOps(deploydcn::ort::SessionOptions*, const deploydcn::ort::ApiBase*);

namespace deploydcn::harness {
namespace {

void require_ok(ort::Status* status) {
  if (!status) return;
  const std::unique_ptr<ort::Status> owned(status);
  throw std::runtime_error(owned->message);
}

// The op for these input types on the GPU. Types of absent inputs do not matter.
const ort::CustomOp& find_op(const char* name, const std::vector<std::unique_ptr<ort::Value>>& inputs) {
  for (const ort::CustomOp* op : registered_ops()) {
    bool fits = std::strcmp(op->GetName(op), name) == 0 &&
                std::strcmp(op->GetExecutionProviderType(op), "CUDAExecutionProvider") == 0;
    for (std::size_t i = 0; fits && i < inputs.size(); ++i) {
      if (!inputs[i]) continue;
      fits = op->GetInputType(op, i) == ort::element_type(inputs[i]->dtype);
    }
    if (fits) return *op;
  }
  throw std::runtime_error(std::string("no CUDA kernel for ") + name + " with these types");
}

ort::KernelInfo node_info(const HarnessField* fields, int32_t count, std::size_t inputs) {
  ort::KernelInfo info{{}, {}, {}, inputs};
  for (int32_t i = 0; i < count; ++i) {
    const HarnessField& field = fields[i];
    const auto length = static_cast<std::size_t>(field.length);
    if (field.type == 's') {
      info.strings[field.name] = std::string(static_cast<const char*>(field.data), length);
    } else if (field.type == 'f') {
      info.numbers[field.name] = *static_cast<const float*>(field.data);
    } else if (field.type == 'i') {
      const auto* items = static_cast<const int32_t*>(field.data);
      info.integers[field.name].assign(items, items + length);
    } else {
      const auto* items = static_cast<const int64_t*>(field.data);
      info.integers[field.name].assign(items, items + length);
    }
  }
  return info;
}

void run(const char* name, const HarnessField* fields, int32_t field_count, const HarnessTensor* inputs, int32_t count,
         HarnessRun& result) {
  require_ok(RegisterCustomOps(nullptr, &fake_ort()));
  const EmulatedStream stream;
  ort::KernelContext context{};
  context.stream = stream.get();
  for (int32_t i = 0; i < count; ++i) {
    const HarnessTensor& input = inputs[i];
    context.inputs.emplace_back();
    if (!input.data) continue;
    const Shape shape(input.dims, input.dims + input.rank);
    const auto dtype = static_cast<DType>(input.dtype);
    auto memory = std::make_unique<DeviceTensor>(shape, dtype, Layout::kLinear);
    memory->upload(input.data);
    context.inputs.back() = std::make_unique<ort::Value>(ort::Value{shape, dtype, std::move(memory)});
  }
  context.output_dtype = context.inputs[0]->dtype;
  const ort::CustomOp& op = find_op(name, context.inputs);
  const ort::KernelInfo info = node_info(fields, field_count, context.inputs.size());
  void* kernel = nullptr;
  require_ok(op.CreateKernelV2(&op, nullptr, &info, &kernel));
  emulation::options().inside_enqueue = true;
  ort::Status* status = op.KernelComputeV2(kernel, &context);
  emulation::options().inside_enqueue = false;
  op.KernelDestroy(kernel);
  deploydcn_emulation_synchronize();
  require_ok(status);
  for (const auto& output : context.outputs)
    result.add_output(output->dtype, output->shape, output->memory->download());
}

}  // namespace
}  // namespace deploydcn::harness

HarnessRun* harness_run_ort_op(const char* name, const HarnessField* fields, int32_t field_count,
                               const HarnessTensor* inputs, int32_t input_count) {
  return HarnessRun::guarded(
      [&](HarnessRun& result) { deploydcn::harness::run(name, fields, field_count, inputs, input_count, result); });
}
