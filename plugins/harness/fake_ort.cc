#include "harness/fake_ort.h"
#include "ort/runtime.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace deploydcn::harness {
namespace {

using namespace ort;

CustomOpDomain g_domain;
MemoryInfo g_device;

// A slot that this fake does not have: the op called something it has no business with on a GPU.
void missing_slot() {
  std::fputs("a CUDA custom op called a slot of OrtApi that the fake runtime does not have\n", stderr);
  std::abort();
}

Status* failed(const std::string& message) { return new Status{message}; }

Status* copy_text(const std::string& text, char* out, size_t* size) {
  const size_t capacity = *size;
  *size = text.size() + 1;
  if (!out) return nullptr;
  if (capacity < *size) return failed("buffer too small");
  std::memcpy(out, text.c_str(), *size);
  return nullptr;
}

// As ONNX Runtime does: the framework's own allocation inside a kernel is no fault of the kernel.
struct RuntimeAllocates {
  RuntimeAllocates() : inside(emulation::options().inside_enqueue) { emulation::options().inside_enqueue = false; }
  ~RuntimeAllocates() { emulation::options().inside_enqueue = inside; }
  bool inside;
};

#define SLOT_OF(name) static constexpr decltype(Api::name) name
struct Slots {
  SLOT_OF(CreateStatus) = [](ErrorCode, const char* message) { return failed(message); };
  SLOT_OF(GetErrorMessage) = [](const Status* status) { return status->message.c_str(); };
  SLOT_OF(ReleaseStatus) = [](Status* status) { delete status; };
  SLOT_OF(CreateCustomOpDomain) = [](const char*, CustomOpDomain** out) -> Status* {
    *out = &g_domain;
    return nullptr;
  };
  SLOT_OF(CustomOpDomain_Add) = [](CustomOpDomain* domain, const CustomOp* op) -> Status* {
    domain->ops.push_back(op);
    return nullptr;
  };
  SLOT_OF(AddCustomOpDomain) = [](SessionOptions*, CustomOpDomain*) -> Status* { return nullptr; };
  SLOT_OF(HasSessionConfigEntry) = [](const SessionOptions*, const char*, int* out) -> Status* {
    *out = 0;
    return nullptr;
  };
  SLOT_OF(KernelInfo_GetInputCount) = [](const KernelInfo* info, size_t* out) -> Status* {
    *out = info->input_count;
    return nullptr;
  };
  SLOT_OF(KernelInfo_GetNodeName) = [](const KernelInfo*, char* out, size_t* size) {
    return copy_text("node", out, size);
  };
  SLOT_OF(KernelInfoGetAttribute_float) = [](const KernelInfo* info, const char* name, float* out) -> Status* {
    const auto found = info->numbers.find(name);
    if (found == info->numbers.end()) return failed("no float");
    *out = found->second;
    return nullptr;
  };
  SLOT_OF(KernelInfoGetAttribute_int64) = [](const KernelInfo* info, const char* name, int64_t* out) -> Status* {
    const auto found = info->integers.find(name);
    if (found == info->integers.end() || found->second.size() != 1) return failed("no integer");
    *out = found->second[0];
    return nullptr;
  };
  SLOT_OF(KernelInfoGetAttributeArray_int64) = [](const KernelInfo* info, const char* name, int64_t* out,
                                                  size_t* size) -> Status* {
    const auto found = info->integers.find(name);
    if (found == info->integers.end()) return failed("no integers");
    *size = found->second.size();
    if (out) std::copy(found->second.begin(), found->second.end(), out);
    return nullptr;
  };
  SLOT_OF(KernelInfoGetAttribute_string) = [](const KernelInfo* info, const char* name, char* out,
                                              size_t* size) -> Status* {
    const auto found = info->strings.find(name);
    return found == info->strings.end() ? failed("no string") : copy_text(found->second, out, size);
  };
  SLOT_OF(KernelContext_GetInputCount) = [](const KernelContext* context, size_t* out) -> Status* {
    *out = context->inputs.size();
    return nullptr;
  };
  SLOT_OF(KernelContext_GetInput) = [](const KernelContext* context, size_t index, const Value** out) -> Status* {
    *out = context->inputs[index].get();
    return nullptr;
  };
  SLOT_OF(KernelContext_GetOutput) = [](KernelContext* context, size_t, const int64_t* sizes, size_t count,
                                        Value** out) -> Status* {
    const RuntimeAllocates allowed;
    const Shape shape(sizes, sizes + count);
    auto memory = std::make_unique<DeviceTensor>(shape, context->output_dtype, Layout::kLinear);
    context->outputs.push_back(std::make_unique<Value>(Value{shape, context->output_dtype, std::move(memory)}));
    *out = context->outputs.back().get();
    return nullptr;
  };
  SLOT_OF(KernelContext_GetGPUComputeStream) = [](const KernelContext* context, void** out) -> Status* {
    *out = context->stream;
    return nullptr;
  };
  SLOT_OF(GetTensorTypeAndShape) = [](const Value* value, TensorTypeAndShapeInfo** out) -> Status* {
    *out = new TensorTypeAndShapeInfo{value->shape, element_type(value->dtype)};
    return nullptr;
  };
  SLOT_OF(ReleaseTensorTypeAndShapeInfo) = [](TensorTypeAndShapeInfo* info) { delete info; };
  SLOT_OF(GetDimensionsCount) = [](const TensorTypeAndShapeInfo* info, size_t* out) -> Status* {
    *out = info->shape.size();
    return nullptr;
  };
  SLOT_OF(GetDimensions) = [](const TensorTypeAndShapeInfo* info, int64_t* out, size_t) -> Status* {
    std::copy(info->shape.begin(), info->shape.end(), out);
    return nullptr;
  };
  SLOT_OF(GetTensorElementType) = [](const TensorTypeAndShapeInfo* info, ElementType* out) -> Status* {
    *out = info->type;
    return nullptr;
  };
  SLOT_OF(GetTensorMutableData) = [](Value* value, void** out) -> Status* {
    *out = value->memory->data();
    return nullptr;
  };
  SLOT_OF(GetTensorMemoryInfo) = [](const Value*, const MemoryInfo** out) -> Status* {
    *out = &g_device;
    return nullptr;
  };
  SLOT_OF(KernelContext_GetAllocator) = [](const KernelContext* context, const MemoryInfo* memory,
                                           Allocator** out) -> Status* {
    if (memory != &g_device) return failed("memory of another device");
    *out = &const_cast<KernelContext*>(context)->allocator;
    return nullptr;
  };
  SLOT_OF(ReleaseAllocator) = [](Allocator*) {};
  // AllocatorAlloc is missing on purpose: its memory belongs to no stream, and another run could get it while it is in
  // use.
  SLOT_OF(KernelContext_GetScratchBuffer) = [](const KernelContext* context, const MemoryInfo* memory, size_t bytes,
                                               void** out) -> Status* {
    if (memory != &g_device) return failed("memory of another device");
    const RuntimeAllocates allowed;
    auto block = std::make_unique<DeviceMemory>(bytes);
    *out = block->data();
    const_cast<KernelContext*>(context)->allocator.blocks[*out] = std::move(block);
    return nullptr;
  };
  // The arena keeps the block: work that was enqueued may still use it.
  SLOT_OF(AllocatorFree) = [](Allocator* allocator, void* memory) -> Status* {
    return allocator->blocks.count(memory) ? nullptr : failed("not a block of this allocator");
  };
};
#undef SLOT_OF

const void* table(uint32_t) {
  static const auto slots = [] {
    std::array<void*, 300> all;
    all.fill(reinterpret_cast<void*>(missing_slot));
    const std::map<std::string, void*> known = {
#define KNOWN(name) {#name, reinterpret_cast<void*>(Slots::name)}
        KNOWN(CreateStatus),
        KNOWN(GetErrorMessage),
        KNOWN(ReleaseStatus),
        KNOWN(CreateCustomOpDomain),
        KNOWN(CustomOpDomain_Add),
        KNOWN(AddCustomOpDomain),
        KNOWN(HasSessionConfigEntry),
        KNOWN(KernelInfo_GetInputCount),
        KNOWN(KernelInfo_GetNodeName),
        KNOWN(KernelInfoGetAttribute_float),
        KNOWN(KernelInfoGetAttribute_int64),
        KNOWN(KernelInfoGetAttributeArray_int64),
        KNOWN(KernelInfoGetAttribute_string),
        KNOWN(KernelContext_GetInputCount),
        KNOWN(KernelContext_GetInput),
        KNOWN(KernelContext_GetOutput),
        KNOWN(KernelContext_GetGPUComputeStream),
        KNOWN(GetTensorTypeAndShape),
        KNOWN(ReleaseTensorTypeAndShapeInfo),
        KNOWN(GetDimensionsCount),
        KNOWN(GetDimensions),
        KNOWN(GetTensorElementType),
        KNOWN(GetTensorMutableData),
        KNOWN(GetTensorMemoryInfo),
        KNOWN(KernelContext_GetAllocator),
        KNOWN(ReleaseAllocator),
        KNOWN(KernelContext_GetScratchBuffer),
        KNOWN(AllocatorFree),
#undef KNOWN
    };
#define PLACE(index, name, result, parameters) \
  if (const auto found = known.find(#name); found != known.end()) all[index] = found->second;
    DEPLOYDCN_ORT_SLOTS(PLACE)
#undef PLACE
    return all;
  }();
  return slots.data();
}

}  // namespace

const ort::ApiBase& fake_ort() {
  static const ort::ApiBase base{table, [] { return "1.31.1"; }};
  return base;
}

const std::vector<const ort::CustomOp*>& registered_ops() { return g_domain.ops; }

}  // namespace deploydcn::harness
