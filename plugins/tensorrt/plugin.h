// One generic adapter: makes a TensorRT plugin (IPluginV3) and its creator of any GpuOp.
#pragma once

#include <NvInferRuntime.h>

#include <memory>
#include <string>

#include "tensorrt/fields.h"

namespace deploydcn::trt {

// Creates plugins for ONNX nodes of one op type, and from engines. `name` and `name_space` are what TensorRT's ONNX
// parser looks for: the op type, and the domain.
class Creator final : public nvinfer1::IPluginCreatorV3One {
 public:
  Creator(const gpu::GpuOp& op, const char* name, const char* name_space)
      : op_(op), name_(name), namespace_(name_space), fields_(*op.spec) {}

  nvinfer1::IPluginV3* createPlugin(const char* name, const nvinfer1::PluginFieldCollection* fields,
                                    nvinfer1::TensorRTPhase phase) noexcept override;
  const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return fields_.collection(); }
  const char* getPluginName() const noexcept override { return name_; }
  const char* getPluginVersion() const noexcept override { return "1"; }
  const char* getPluginNamespace() const noexcept override { return namespace_; }

 private:
  const gpu::GpuOp& op_;
  const char* name_;
  const char* namespace_;
  FieldNames fields_;
};

}  // namespace deploydcn::trt
