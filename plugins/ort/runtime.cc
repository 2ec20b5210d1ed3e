#include "ort/runtime.h"

#include <optional>

namespace deploydcn::ort {
namespace {

struct Binding {
  const void* table;
  Api api;
};
std::optional<Binding>& binding() {
  static std::optional<Binding> instance;
  return instance;
}

DType dtype_of(ElementType type) {
  switch (type) {
    case kFloat: return DType::kFloat32;
    case kDouble: return DType::kFloat64;
    case kFloat16: return DType::kFloat16;
    case kBFloat16: return DType::kBFloat16;
    case kInt64: return DType::kInt64;
    case kUInt8: return DType::kUInt8;
    case kInt8: return DType::kInt8;
    case kInt32: return DType::kInt32;
    default: throw InternalError("a tensor of an undeclared element type reached the kernel");
  }
}

}  // namespace

const Api& api() { return binding()->api; }
bool bind_api(const void* table) {
  if (!binding()) binding().emplace(Binding{table, Api(table)});
  return binding()->table == table;
}

TensorView view(const Value* value) {
  if (!value) return {};
  TensorTypeAndShapeInfo* raw = nullptr;
  check(api().GetTensorTypeAndShape(value, &raw));
  const InfoPtr info(raw);
  TensorView view;
  view.present = true;
  std::size_t rank = 0;
  check(api().GetDimensionsCount(raw, &rank));
  view.shape.resize(rank);
  check(api().GetDimensions(raw, view.shape.data(), rank));
  ElementType type = kUndefined;
  check(api().GetTensorElementType(raw, &type));
  view.dtype = dtype_of(type);
  void* data = nullptr;
  check(api().GetTensorMutableData(const_cast<Value*>(value), &data));  // the C API has no const accessor
  view.data = data;
  return view;
}

OrtContext::OrtContext(KernelContext* context) : context_(context) {
  MemoryInfo* memory = nullptr;
  check(api().CreateCpuMemoryInfo(kArenaAllocator, kMemTypeDefault, &memory));
  Status* status = api().KernelContext_GetAllocator(context, memory, &allocator_);
  api().ReleaseMemoryInfo(memory);
  check(status);
}
OrtContext::~OrtContext() { api().ReleaseAllocator(allocator_); }

// As many batches as tasks: a thread takes one after the other. With fewer, each would get its share beforehand, and a
// call last as long as the thread that was woken or interrupted last.
void OrtContext::run(int64_t count, void (*task)(void* state, std::size_t index), void* state) {
  const auto tasks = static_cast<std::size_t>(count);
  check(api().KernelContext_ParallelFor(context_, task, tasks, tasks, state));
}
void* OrtContext::allocate(std::size_t bytes) {
  void* memory = nullptr;
  check(api().AllocatorAlloc(allocator_, bytes, &memory));
  return memory;
}
void OrtContext::release(void* memory) noexcept { succeeded(api().AllocatorFree(allocator_, memory)); }

void* OrtContext::output(std::size_t index, const Shape& shape) {
  Value* value = nullptr;
  check(api().KernelContext_GetOutput(context_, index, shape.data(), shape.size(), &value));
  void* data = nullptr;
  check(api().GetTensorMutableData(value, &data));
  return data;
}

}  // namespace deploydcn::ort
