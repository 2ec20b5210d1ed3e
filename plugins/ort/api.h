// The part of ONNX Runtime's C API this library uses, declared by us so that building needs no SDK.
//
// OrtApi is an append-only table of function pointers: a slot, once published, keeps its index and its signature.
// Indices below were read from the public onnxruntime_c_api.h and hold for every runtime since API version 18
// (onnxruntime 1.18). tests/ort/slot_probe.cc calls every slot and asserts its effect on the oldest and the newest
// supported runtime; tests/ort/check_header.cc compares this file with a real header at compile time when one is given.
#pragma once

#include <cstddef>
#include <cstdint>

namespace deploydcn::ort {

inline constexpr uint32_t kApiVersion = 18;
// The layout of CustomOp below, which has not changed since.
inline constexpr uint32_t kCustomOpVersion = 17;

// Opaque to us.
struct Status;
struct SessionOptions;
struct CustomOpDomain;
struct KernelInfo;
struct KernelContext;
struct ShapeInferContext;
struct TensorTypeAndShapeInfo;
struct Value;
struct OpAttr;
struct MemoryInfo;
struct Allocator;
struct CustomOp;

enum ErrorCode { kFail = 1, kInvalidArgument = 2, kRuntimeException = 6 };
enum ElementType {
  kUndefined = 0,
  kFloat = 1,
  kUInt8 = 2,
  kInt8 = 3,
  kInt32 = 6,
  kInt64 = 7,
  kFloat16 = 10,
  kDouble = 11,
  kBFloat16 = 16
};
enum Characteristic { kRequired = 0, kOptional = 1 };
enum OpAttrType { kAttrInt = 1, kAttrInts = 2, kAttrFloat = 3, kAttrString = 5 };
enum AllocatorType { kArenaAllocator = 1 };
enum MemType { kMemTypeDefault = 0 };

// SLOT(index in the table, name, result, parameters)
#define DEPLOYDCN_ORT_SLOTS(SLOT)                                                                                      \
  SLOT(0, CreateStatus, Status*, (ErrorCode code, const char* message))                                                \
  SLOT(2, GetErrorMessage, const char*, (const Status* status))                                                        \
  SLOT(26, CreateCustomOpDomain, Status*, (const char* domain, CustomOpDomain** out))                                  \
  SLOT(27, CustomOpDomain_Add, Status*, (CustomOpDomain * domain, const CustomOp* op))                                 \
  SLOT(28, AddCustomOpDomain, Status*, (SessionOptions * options, CustomOpDomain * domain))                            \
  SLOT(51, GetTensorMutableData, Status*, (Value * value, void** out))                                                 \
  SLOT(57, CreateTensorTypeAndShapeInfo, Status*, (TensorTypeAndShapeInfo * *out))                                     \
  SLOT(58, SetTensorElementType, Status*, (TensorTypeAndShapeInfo * info, ElementType type))                           \
  SLOT(59, SetDimensions, Status*, (TensorTypeAndShapeInfo * info, const int64_t* sizes, size_t count))                \
  SLOT(60, GetTensorElementType, Status*, (const TensorTypeAndShapeInfo* info, ElementType* out))                      \
  SLOT(61, GetDimensionsCount, Status*, (const TensorTypeAndShapeInfo* info, size_t* out))                             \
  SLOT(62, GetDimensions, Status*, (const TensorTypeAndShapeInfo* info, int64_t* sizes, size_t count))                 \
  SLOT(63, GetSymbolicDimensions, Status*, (const TensorTypeAndShapeInfo* info, const char** names, size_t count))     \
  SLOT(65, GetTensorTypeAndShape, Status*, (const Value* value, TensorTypeAndShapeInfo** out))                         \
  SLOT(69, CreateCpuMemoryInfo, Status*, (AllocatorType type, MemType memory, MemoryInfo * *out))                      \
  SLOT(75, AllocatorAlloc, Status*, (Allocator * allocator, size_t bytes, void** out))                                 \
  SLOT(76, AllocatorFree, Status*, (Allocator * allocator, void* memory))                                              \
  SLOT(85, KernelInfoGetAttribute_float, Status*, (const KernelInfo* info, const char* name, float* out))              \
  SLOT(86, KernelInfoGetAttribute_int64, Status*, (const KernelInfo* info, const char* name, int64_t* out))            \
  SLOT(87, KernelInfoGetAttribute_string, Status*,                                                                     \
       (const KernelInfo* info, const char* name, char* out, size_t* size))                                            \
  SLOT(88, KernelContext_GetInputCount, Status*, (const KernelContext* context, size_t* out))                          \
  SLOT(90, KernelContext_GetInput, Status*, (const KernelContext* context, size_t index, const Value** out))           \
  SLOT(91, KernelContext_GetOutput, Status*,                                                                           \
       (KernelContext * context, size_t index, const int64_t* sizes, size_t count, Value** out))                       \
  SLOT(93, ReleaseStatus, void, (Status * status))                                                                     \
  SLOT(94, ReleaseMemoryInfo, void, (MemoryInfo * info))                                                               \
  SLOT(99, ReleaseTensorTypeAndShapeInfo, void, (TensorTypeAndShapeInfo * info))                                       \
  SLOT(132, ReleaseAllocator, void, (Allocator * allocator))                                                           \
  SLOT(163, KernelInfoGetAttributeArray_int64, Status*,                                                                \
       (const KernelInfo* info, const char* name, int64_t* out, size_t* size))                                         \
  SLOT(193, KernelContext_GetGPUComputeStream, Status*, (const KernelContext* context, void** out))                    \
  SLOT(194, GetTensorMemoryInfo, Status*, (const Value* value, const MemoryInfo** out))                                \
  SLOT(230, KernelInfo_GetInputCount, Status*, (const KernelInfo* info, size_t* out))                                  \
  SLOT(237, HasSessionConfigEntry, Status*, (const SessionOptions* options, const char* key, int* out))                \
  SLOT(238, GetSessionConfigEntry, Status*, (const SessionOptions* options, const char* key, char* out, size_t* size)) \
  SLOT(244, KernelInfo_GetNodeName, Status*, (const KernelInfo* info, char* out, size_t* size))                        \
  SLOT(249, KernelInfoGetConstantInput_tensor, Status*,                                                                \
       (const KernelInfo* info, size_t index, int* is_constant, const Value** out))                                    \
  SLOT(253, KernelContext_GetAllocator, Status*,                                                                       \
       (const KernelContext* context, const MemoryInfo* memory, Allocator** out))                                      \
  SLOT(267, ShapeInferContext_GetInputCount, Status*, (const ShapeInferContext* context, size_t* out))                 \
  SLOT(268, ShapeInferContext_GetInputTypeShape, Status*,                                                              \
       (const ShapeInferContext* context, size_t index, TensorTypeAndShapeInfo** out))                                 \
  SLOT(269, ShapeInferContext_GetAttribute, Status*,                                                                   \
       (const ShapeInferContext* context, const char* name, const OpAttr** out))                                       \
  SLOT(270, ShapeInferContext_SetOutputTypeShape, Status*,                                                             \
       (const ShapeInferContext* context, size_t index, const TensorTypeAndShapeInfo* info))                           \
  SLOT(271, SetSymbolicDimensions, Status*, (TensorTypeAndShapeInfo * info, const char** names, size_t count))         \
  SLOT(272, ReadOpAttr, Status*, (const OpAttr* attribute, OpAttrType type, void* out, size_t bytes, size_t* used))    \
  SLOT(274, KernelContext_ParallelFor, Status*,                                                                        \
       (const KernelContext* context, void (*task)(void*, size_t), size_t total, size_t batches, void* state))         \
  SLOT(277, KernelContext_GetScratchBuffer, Status*,                                                                   \
       (const KernelContext* context, const MemoryInfo* memory, size_t bytes, void** out))

// The bound slots of one runtime's table.
struct Api {
  explicit Api(const void* table) {
    const auto* slots = static_cast<void* const*>(table);
#define DEPLOYDCN_BIND(index, name, result, parameters) name = reinterpret_cast<result(*) parameters>(slots[index]);
    DEPLOYDCN_ORT_SLOTS(DEPLOYDCN_BIND)
#undef DEPLOYDCN_BIND
  }
#define DEPLOYDCN_DECLARE(index, name, result, parameters) result(*name) parameters;
  DEPLOYDCN_ORT_SLOTS(DEPLOYDCN_DECLARE)
#undef DEPLOYDCN_DECLARE
};

// The argument of RegisterCustomOps.
struct ApiBase {
  const void* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)();
};

// A custom op: the layout of OrtCustomOp up to API version 17, then the four entries later runtimes know, left null.
struct CustomOp {
  uint32_t version;
  void* (*CreateKernel)(const CustomOp*, const void* api, const KernelInfo*);
  const char* (*GetName)(const CustomOp*);
  const char* (*GetExecutionProviderType)(const CustomOp*);
  ElementType (*GetInputType)(const CustomOp*, size_t index);
  size_t (*GetInputTypeCount)(const CustomOp*);
  ElementType (*GetOutputType)(const CustomOp*, size_t index);
  size_t (*GetOutputTypeCount)(const CustomOp*);
  void (*KernelCompute)(void* kernel, KernelContext*);
  void (*KernelDestroy)(void* kernel);
  Characteristic (*GetInputCharacteristic)(const CustomOp*, size_t index);
  Characteristic (*GetOutputCharacteristic)(const CustomOp*, size_t index);
  MemType (*GetInputMemoryType)(const CustomOp*, size_t index);
  int (*GetVariadicInputMinArity)(const CustomOp*);
  int (*GetVariadicInputHomogeneity)(const CustomOp*);
  int (*GetVariadicOutputMinArity)(const CustomOp*);
  int (*GetVariadicOutputHomogeneity)(const CustomOp*);
  Status* (*CreateKernelV2)(const CustomOp*, const void* api, const KernelInfo*, void** kernel);
  Status* (*KernelComputeV2)(void* kernel, KernelContext*);
  Status* (*InferOutputShapeFn)(const CustomOp*, ShapeInferContext*);
  int (*GetStartVersion)(const CustomOp*);
  int (*GetEndVersion)(const CustomOp*);
  size_t (*GetMayInplace)(int** input_index, int** output_index);
  void (*ReleaseMayInplace)(int* input_index, int* output_index);
  size_t (*GetAliasMap)(int** input_index, int** output_index);
  void (*ReleaseAliasMap)(int* input_index, int* output_index);
};

}  // namespace deploydcn::ort
