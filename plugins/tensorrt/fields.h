// Attributes as TensorRT passes and stores them: PluginFieldCollection, driven by the op's spec.
#pragma once

#include <NvInferRuntime.h>

#include <deque>
#include <string>
#include <vector>

#include "gpu/gpu_op.h"

namespace deploydcn::trt {

// The fields an op's creator accepts: its attributes, then our own. Lives as long as the creator.
class FieldNames {
 public:
  explicit FieldNames(const OpSpec& spec);
  const nvinfer1::PluginFieldCollection* collection() const { return &collection_; }

 private:
  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection collection_{};
};

// A node's parameters: what createPlugin receives, and what an engine stores.
struct NodeFields {
  Attributes attributes;
  gpu::GpuOptions options;
};

// Reads and checks the fields. `from_engine`: they were written by `SerializedFields`. Throws InvalidArgument.
NodeFields read_fields(const OpSpec& spec, const nvinfer1::PluginFieldCollection* fields, bool from_engine);

// The fields to store in an engine; `read_fields` reads them back.
class SerializedFields {
 public:
  SerializedFields(const OpSpec& spec, const NodeFields& node);
  SerializedFields(const SerializedFields&) = delete;
  SerializedFields& operator=(const SerializedFields&) = delete;
  const nvinfer1::PluginFieldCollection* collection() const { return &collection_; }

 private:
  void add(const char* name, std::vector<int32_t> values);

  std::deque<std::vector<int32_t>> ints_;  // deques: fields keep pointers to the elements
  std::deque<float> numbers_;
  std::deque<std::string> strings_;
  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection collection_{};
};

}  // namespace deploydcn::trt
