// Compares plugins/ort/api.h with a real header, at compile time: cmake -DDEPLOYDCN_ORT_HEADERS=<folder>
// -DDEPLOYDCN_TESTS=ON
#include <onnxruntime_c_api.h>

#include "ort/api.h"

#define DEPLOYDCN_SAME_SLOT(index, name, result, parameters) \
  static_assert(offsetof(OrtApi, name) == (index) * sizeof(void*), "slot of " #name);
DEPLOYDCN_ORT_SLOTS(DEPLOYDCN_SAME_SLOT)

#define DEPLOYDCN_SAME_FIELD(name) \
  static_assert(offsetof(OrtCustomOp, name) == offsetof(deploydcn::ort::CustomOp, name), "field " #name);
DEPLOYDCN_SAME_FIELD(GetName)
DEPLOYDCN_SAME_FIELD(GetExecutionProviderType)
DEPLOYDCN_SAME_FIELD(GetInputType)
DEPLOYDCN_SAME_FIELD(GetInputTypeCount)
DEPLOYDCN_SAME_FIELD(GetOutputType)
DEPLOYDCN_SAME_FIELD(GetOutputTypeCount)
DEPLOYDCN_SAME_FIELD(KernelDestroy)
DEPLOYDCN_SAME_FIELD(GetInputCharacteristic)
DEPLOYDCN_SAME_FIELD(GetOutputCharacteristic)
DEPLOYDCN_SAME_FIELD(GetInputMemoryType)
DEPLOYDCN_SAME_FIELD(GetVariadicInputMinArity)
DEPLOYDCN_SAME_FIELD(GetVariadicOutputHomogeneity)
DEPLOYDCN_SAME_FIELD(CreateKernelV2)
DEPLOYDCN_SAME_FIELD(KernelComputeV2)
DEPLOYDCN_SAME_FIELD(InferOutputShapeFn)
DEPLOYDCN_SAME_FIELD(GetStartVersion)
DEPLOYDCN_SAME_FIELD(GetEndVersion)

static_assert(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT == static_cast<int>(deploydcn::ort::kFloat), "float");
static_assert(ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 == static_cast<int>(deploydcn::ort::kUInt8), "uint8");
static_assert(ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8 == static_cast<int>(deploydcn::ort::kInt8), "int8");
static_assert(ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32 == static_cast<int>(deploydcn::ort::kInt32), "int32");
static_assert(ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 == static_cast<int>(deploydcn::ort::kInt64), "int64");
static_assert(ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16 == static_cast<int>(deploydcn::ort::kFloat16), "float16");
static_assert(ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE == static_cast<int>(deploydcn::ort::kDouble), "double");
static_assert(ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16 == static_cast<int>(deploydcn::ort::kBFloat16), "bfloat16");
static_assert(ORT_OP_ATTR_INT == static_cast<int>(deploydcn::ort::kAttrInt), "int attribute");
static_assert(ORT_OP_ATTR_INTS == static_cast<int>(deploydcn::ort::kAttrInts), "ints attribute");
static_assert(ORT_OP_ATTR_FLOAT == static_cast<int>(deploydcn::ort::kAttrFloat), "float attribute");
static_assert(ORT_OP_ATTR_STRING == static_cast<int>(deploydcn::ort::kAttrString), "string attribute");
static_assert(ORT_INVALID_ARGUMENT == static_cast<int>(deploydcn::ort::kInvalidArgument), "error code");
static_assert(INPUT_OUTPUT_OPTIONAL == static_cast<int>(deploydcn::ort::kOptional), "optional");
