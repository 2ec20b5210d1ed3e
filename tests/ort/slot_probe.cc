// Calls every slot that plugins/ort/api.h binds and records whether it had its effect. The probe op's int64 output
// holds one element per slot, in the order of DEPLOYDCN_ORT_SLOTS: 1 where the effect was seen. A wrong index crashes
// or leaves a 0.
//
// The op: SlotProbe(x float [n, 3], w float constant [2]) with attributes i = 7, f = 2.5, s = "text", v = [3, 1, 4].
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "ort/api.h"

namespace {

using namespace deploydcn::ort;

const Api* g_api = nullptr;

std::map<std::string, bool>& seen() {
  static std::map<std::string, bool> flags;
  return flags;
}

// Records the call's success and the effect's.
void note(const char* slot, Status* status, bool effect) {
  const bool worked = status == nullptr;
  if (status) g_api->ReleaseStatus(status);
  const auto at = seen().find(slot);
  seen()[slot] = worked && effect && (at == seen().end() || at->second);
}

void probe_status() {
  Status* status = g_api->CreateStatus(kInvalidArgument, "probe message");
  note("CreateStatus", nullptr, status != nullptr);
  note("GetErrorMessage", nullptr, std::strcmp(g_api->GetErrorMessage(status), "probe message") == 0);
  g_api->ReleaseStatus(status);
  note("ReleaseStatus", nullptr, true);  // a wrong slot would not survive this
}

void probe_tensor_info() {
  TensorTypeAndShapeInfo* info = nullptr;
  Status* status = g_api->CreateTensorTypeAndShapeInfo(&info);
  note("CreateTensorTypeAndShapeInfo", status, info != nullptr);
  ElementType type = kUndefined;
  status = g_api->SetTensorElementType(info, kDouble);
  note("SetTensorElementType", status, true);
  status = g_api->GetTensorElementType(info, &type);
  note("GetTensorElementType", status, type == kDouble);
  const int64_t sizes[] = {5, -1};
  note("SetDimensions", g_api->SetDimensions(info, sizes, 2), true);
  size_t rank = 0;
  status = g_api->GetDimensionsCount(info, &rank);
  note("GetDimensionsCount", status, rank == 2);
  int64_t read[2] = {};
  status = g_api->GetDimensions(info, read, 2);
  note("GetDimensions", status, read[0] == 5 && read[1] == -1);
  const char* names[] = {"", "batch"};
  note("SetSymbolicDimensions", g_api->SetSymbolicDimensions(info, names, 2), true);
  const char* got[] = {nullptr, nullptr};
  status = g_api->GetSymbolicDimensions(info, got, 2);
  note("GetSymbolicDimensions", status, got[1] && std::strcmp(got[1], "batch") == 0);
  g_api->ReleaseTensorTypeAndShapeInfo(info);
  note("ReleaseTensorTypeAndShapeInfo", nullptr, true);
}

Status* create_kernel(const CustomOp*, const void*, const KernelInfo* info, void** kernel) {
  int64_t integer = 0;
  Status* status = g_api->KernelInfoGetAttribute_int64(info, "i", &integer);
  note("KernelInfoGetAttribute_int64", status, integer == 7);
  float number = 0;
  status = g_api->KernelInfoGetAttribute_float(info, "f", &number);
  note("KernelInfoGetAttribute_float", status, number == 2.5f);
  char text[16] = {};
  size_t size = sizeof text;
  status = g_api->KernelInfoGetAttribute_string(info, "s", text, &size);
  note("KernelInfoGetAttribute_string", status, std::strcmp(text, "text") == 0);
  int64_t values[3] = {};
  size_t count = 3;
  status = g_api->KernelInfoGetAttributeArray_int64(info, "v", values, &count);
  note("KernelInfoGetAttributeArray_int64", status, values[0] == 3 && values[2] == 4);
  size_t inputs = 0;
  status = g_api->KernelInfo_GetInputCount(info, &inputs);
  note("KernelInfo_GetInputCount", status, inputs == 2);
  char name[32] = {};
  size = sizeof name;
  status = g_api->KernelInfo_GetNodeName(info, name, &size);
  note("KernelInfo_GetNodeName", status, std::strcmp(name, "the_node") == 0);
  int first = -1, second = -1;
  const Value* value = nullptr;
  status = g_api->KernelInfoGetConstantInput_tensor(info, 0, &first, &value);
  if (status) g_api->ReleaseStatus(status);
  status = g_api->KernelInfoGetConstantInput_tensor(info, 1, &second, &value);
  note("KernelInfoGetConstantInput_tensor", status, first == 0 && second == 1 && value != nullptr);
  *kernel = new int(0);
  return nullptr;
}

Status* infer_shape(const CustomOp*, ShapeInferContext* context) {
  size_t count = 0;
  Status* status = g_api->ShapeInferContext_GetInputCount(context, &count);
  note("ShapeInferContext_GetInputCount", status, count == 2);
  TensorTypeAndShapeInfo* info = nullptr;
  status = g_api->ShapeInferContext_GetInputTypeShape(context, 0, &info);
  size_t rank = 0;
  if (info && !status) status = g_api->GetDimensionsCount(info, &rank);
  note("ShapeInferContext_GetInputTypeShape", status, rank == 2);
  const OpAttr* attribute = nullptr;
  status = g_api->ShapeInferContext_GetAttribute(context, "v", &attribute);
  note("ShapeInferContext_GetAttribute", status, attribute != nullptr);
  int64_t values[8] = {};
  size_t used = 0;
  status = g_api->ReadOpAttr(attribute, kAttrInts, values, sizeof values, &used);
  note("ReadOpAttr", status, used == 3 * sizeof(int64_t) && values[0] == 3 && values[1] == 1);
  TensorTypeAndShapeInfo* result = nullptr;
  status = g_api->CreateTensorTypeAndShapeInfo(&result);
  const int64_t size = -1;
  const char* name = "slots";
  if (!status) status = g_api->SetTensorElementType(result, kInt64);
  if (!status) status = g_api->SetDimensions(result, &size, 1);
  if (!status) status = g_api->SetSymbolicDimensions(result, &name, 1);
  if (!status) status = g_api->ShapeInferContext_SetOutputTypeShape(context, 0, result);
  note("ShapeInferContext_SetOutputTypeShape", status,
       true);  // the session reports the symbol "slots"; Python checks it
  g_api->ReleaseTensorTypeAndShapeInfo(result);
  return nullptr;
}

Status* compute(void*, KernelContext* context) {
  size_t count = 0;
  Status* status = g_api->KernelContext_GetInputCount(context, &count);
  note("KernelContext_GetInputCount", status, count == 2);
  const Value* value = nullptr;
  status = g_api->KernelContext_GetInput(context, 0, &value);
  note("KernelContext_GetInput", status, value != nullptr);
  TensorTypeAndShapeInfo* info = nullptr;
  status = g_api->GetTensorTypeAndShape(value, &info);
  int64_t sizes[2] = {};
  if (!status) status = g_api->GetDimensions(info, sizes, 2);
  note("GetTensorTypeAndShape", status, sizes[1] == 3);
  g_api->ReleaseTensorTypeAndShapeInfo(info);
  void* data = nullptr;
  status = g_api->GetTensorMutableData(const_cast<Value*>(value), &data);
  note("GetTensorMutableData", status, data && static_cast<float*>(data)[0] == 42.0f);

  MemoryInfo* memory = nullptr;
  status = g_api->CreateCpuMemoryInfo(kArenaAllocator, kMemTypeDefault, &memory);
  note("CreateCpuMemoryInfo", status, memory != nullptr);
  Allocator* allocator = nullptr;
  status = g_api->KernelContext_GetAllocator(context, memory, &allocator);
  note("KernelContext_GetAllocator", status, allocator != nullptr);
  const MemoryInfo* tensor_memory = nullptr;
  Allocator* beside = nullptr;
  status = g_api->GetTensorMemoryInfo(value, &tensor_memory);
  if (!status) status = g_api->KernelContext_GetAllocator(context, tensor_memory, &beside);
  note("GetTensorMemoryInfo", status, beside != nullptr);
  if (beside) g_api->ReleaseAllocator(beside);
  // It takes the kernel's compute stream for granted, and a CPU kernel has none: only check_header.cc proves its place.
  note("KernelContext_GetScratchBuffer", nullptr, true);
  void* stream = &stream;
  status = g_api->KernelContext_GetGPUComputeStream(context, &stream);
  note("KernelContext_GetGPUComputeStream", status, stream == nullptr);  // none on the CPU
  g_api->ReleaseMemoryInfo(memory);
  note("ReleaseMemoryInfo", nullptr, true);
  void* block = nullptr;
  status = g_api->AllocatorAlloc(allocator, 1000, &block);
  note("AllocatorAlloc", status, block != nullptr);
  if (block) std::memset(block, 1, 1000);
  note("AllocatorFree", g_api->AllocatorFree(allocator, block), true);
  g_api->ReleaseAllocator(allocator);
  note("ReleaseAllocator", nullptr, true);

  std::vector<int> visits(100, 0);
  const auto visit = [](void* state, size_t i) { static_cast<int*>(state)[i] += static_cast<int>(i); };
  status = g_api->KernelContext_ParallelFor(context, visit, visits.size(), 0, visits.data());
  bool all = true;
  for (size_t i = 0; i < visits.size(); ++i) all = all && visits[i] == static_cast<int>(i);
  note("KernelContext_ParallelFor", status, all);

  note("KernelContext_GetOutput", nullptr, true);  // proven by the output's arrival
  std::vector<int64_t> flags;
#define DEPLOYDCN_FLAG(index, name, result, parameters) flags.push_back(seen()[#name] ? 1 : 0);
  DEPLOYDCN_ORT_SLOTS(DEPLOYDCN_FLAG)
#undef DEPLOYDCN_FLAG
  const int64_t size = static_cast<int64_t>(flags.size());
  Value* output = nullptr;
  status = g_api->KernelContext_GetOutput(context, 0, &size, 1, &output);
  if (status) return status;
  status = g_api->GetTensorMutableData(output, &data);
  if (status) return status;
  std::memcpy(data, flags.data(), flags.size() * sizeof(int64_t));
  return nullptr;
}

CustomOp make_op() {
  CustomOp op{};
  op.version = kCustomOpVersion;
  op.GetName = [](const CustomOp*) { return "SlotProbe"; };
  op.GetExecutionProviderType = [](const CustomOp*) { return "CPUExecutionProvider"; };
  op.GetInputTypeCount = [](const CustomOp*) -> size_t { return 2; };
  op.GetInputType = [](const CustomOp*, size_t) { return kFloat; };
  op.GetOutputTypeCount = [](const CustomOp*) -> size_t { return 1; };
  op.GetOutputType = [](const CustomOp*, size_t) { return kInt64; };
  op.GetInputCharacteristic = [](const CustomOp*, size_t) { return kRequired; };
  op.GetOutputCharacteristic = [](const CustomOp*, size_t) { return kRequired; };
  op.GetInputMemoryType = [](const CustomOp*, size_t) { return kMemTypeDefault; };
  op.CreateKernelV2 = create_kernel;
  op.KernelComputeV2 = compute;
  op.KernelDestroy = [](void* kernel) { delete static_cast<int*>(kernel); };
  op.InferOutputShapeFn = infer_shape;
  op.GetStartVersion = [](const CustomOp*) { return 1; };
  op.GetEndVersion = [](const CustomOp*) { return INT32_MAX; };
  return op;
}

}  // namespace

extern "C" __attribute__((visibility("default"))) Status* RegisterCustomOps(SessionOptions* options,
                                                                            const ApiBase* base) {
  static const Api api(base->GetApi(kApiVersion));
  static const CustomOp op = make_op();
  static CustomOpDomain* domain = nullptr;
  g_api = &api;
  probe_status();
  probe_tensor_info();
  int present = -1, absent = -1;
  Status* status = api.HasSessionConfigEntry(options, "probe.key", &present);
  if (!status) status = api.HasSessionConfigEntry(options, "probe.other", &absent);
  note("HasSessionConfigEntry", status, present == 1 && absent == 0);
  char value[16] = {};
  size_t size = sizeof value;
  status = api.GetSessionConfigEntry(options, "probe.key", value, &size);
  note("GetSessionConfigEntry", status, std::strcmp(value, "probe.value") == 0);
  status = api.CreateCustomOpDomain("probe", &domain);
  note("CreateCustomOpDomain", status, domain != nullptr);
  note("CustomOpDomain_Add", api.CustomOpDomain_Add(domain, &op), true);
  note("AddCustomOpDomain", api.AddCustomOpDomain(options, domain), true);
  return nullptr;
}
