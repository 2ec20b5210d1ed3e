// The part of ONNX Runtime that a custom op on the CUDA execution provider meets, faked over emulated device memory.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/tensor_view.h"
#include "harness/device_tensor.h"
#include "harness/harness.h"
#include "ort/api.h"

// What the C API's opaque handles are here.
namespace deploydcn::ort {

struct Status {
  std::string message;
};
struct MemoryInfo {};
struct SessionOptions {};
struct CustomOpDomain {
  std::vector<const CustomOp*> ops;
};
struct TensorTypeAndShapeInfo {
  Shape shape;
  ElementType type;
};
struct Value {
  Shape shape;
  DType dtype;
  std::unique_ptr<harness::DeviceTensor> memory;
};
struct KernelInfo {
  std::map<std::string, std::vector<int64_t>> integers;
  std::map<std::string, float> numbers;
  std::map<std::string, std::string> strings;
  std::size_t input_count;
};
struct Allocator {
  std::map<void*, std::unique_ptr<harness::DeviceMemory>> blocks;
};
struct KernelContext {
  std::vector<std::unique_ptr<Value>> inputs;  // null: absent
  std::vector<std::unique_ptr<Value>> outputs;
  DType output_dtype;
  void* stream;
  Allocator allocator;
};

}  // namespace deploydcn::ort

namespace deploydcn::harness {

// The function table for RegisterCustomOps; slots that no CUDA op may call abort.
const ort::ApiBase& fake_ort();
// Every op registered so far.
const std::vector<const ort::CustomOp*>& registered_ops();

}  // namespace deploydcn::harness
