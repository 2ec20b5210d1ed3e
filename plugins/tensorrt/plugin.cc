#include "tensorrt/plugin.h"

#include <algorithm>
#include <new>
#include <optional>

#include "tensorrt/logger.h"
#include "tensorrt/shapes.h"

namespace deploydcn::trt {
namespace {

using nvinfer1::DataType;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

constexpr int32_t kFailure = -1;

std::optional<DType> dtype_of(DataType type) {
  switch (type) {
    case DataType::kFLOAT: return DType::kFloat32;
    case DataType::kHALF: return DType::kFloat16;
    case DataType::kBF16: return DType::kBFloat16;
    case DataType::kINT64: return DType::kInt64;
    default: return std::nullopt;
  }
}

DataType data_type(DType type) {
  switch (type) {
    case DType::kFloat32: return DataType::kFLOAT;
    case DType::kFloat16: return DataType::kHALF;
    case DType::kBFloat16: return DataType::kBF16;
    case DType::kInt64: return DataType::kINT64;
    case DType::kFloat64:
    case DType::kUInt8:
    case DType::kInt8:
    case DType::kInt32: break;
  }
  throw InternalError("TensorRT has no such element type");
}

// What a plugin is: immutable, shared by its clones.
struct Node {
  const gpu::GpuOp& op;
  std::string name;  // of the node in the network, for messages
  const char* plugin_name;
  const char* plugin_namespace;
  NodeFields fields;
  std::unique_ptr<gpu::GpuKernel> kernel;
  SerializedFields serialized;

  Node(const gpu::GpuOp& gpu_op, std::string node_name, const char* type, const char* name_space, NodeFields parsed)
      : op(gpu_op),
        name(std::move(node_name)),
        plugin_name(type),
        plugin_namespace(name_space),
        fields(std::move(parsed)),
        kernel(op.create(fields.attributes, fields.options)),
        serialized(*op.spec, fields) {}

  const OpSpec& spec() const { return *op.spec; }
};

// The one place where exceptions meet TensorRT: they become a message in its log and a failure.
template <class Result, class Body>
Result guarded(const std::string& node, Result failure, Body&& body) noexcept {
  const auto report = [&](const char* prefix, const char* what) {
    try {
      log_error("deploydcn: node '" + node + "': " + prefix + what);
    } catch (...) {
      log_error("deploydcn: out of memory");
    }
  };
  try {
    return body();
  } catch (const InternalError& error) {
    report("bug in deploydcn: ", error.what());
  } catch (const std::exception& error) {
    report("", error.what());
  }
  return failure;
}

Layout layout_of(TensorFormat format) {
  return format == TensorFormat::kHWC8 ? Layout::kChannelsLast8 : Layout::kLinear;
}

class Plugin final : public nvinfer1::IPluginV3,
                     public nvinfer1::IPluginV3OneCore,
                     public nvinfer1::IPluginV3OneBuild,
                     public nvinfer1::IPluginV3OneRuntime {
 public:
  explicit Plugin(std::shared_ptr<Node> node) : node_(std::move(node)) {}

  nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override {
    switch (type) {
      case nvinfer1::PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore*>(this);
      case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
      case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }
  nvinfer1::IPluginV3* clone() noexcept override { return new (std::nothrow) Plugin(*this); }

  const char* getPluginName() const noexcept override { return node_->plugin_name; }
  const char* getPluginVersion() const noexcept override { return "1"; }
  const char* getPluginNamespace() const noexcept override { return node_->plugin_namespace; }

  int32_t getNbOutputs() const noexcept override { return static_cast<int32_t>(spec().outputs.size()); }

  int32_t getOutputDataTypes(DataType* outputs, int32_t output_count, const DataType* inputs,
                             int32_t input_count) const noexcept override {
    return guarded(node_->name, kFailure, [&] {
      std::vector<std::optional<DType>> params(static_cast<std::size_t>(spec().type_params));
      // Required inputs come first in every spec and bear every type parameter; ranks, which tell the optional ones
      // apart, are not known here.
      for (int32_t i = 0; i < input_count && !spec().inputs[i].optional; ++i) {
        const TensorSpec& tensor = spec().inputs[i];
        const std::optional<DType> type = dtype_of(inputs[i]);
        if (!type) throw wrong_type(tensor, inputs[i]);
        if (params[tensor.type_param] && *params[tensor.type_param] != *type) throw wrong_types(inputs, input_count);
        params[tensor.type_param] = type;
      }
      if (!has_row(params)) throw wrong_types(inputs, input_count);
      for (int32_t i = 0; i < output_count; ++i) outputs[i] = data_type(*params[spec().outputs[i].type_param]);
      return 0;
    });
  }

  int32_t getOutputShapes(const DimsExprs* inputs, int32_t input_count, const DimsExprs*, int32_t, DimsExprs* outputs,
                          int32_t output_count, nvinfer1::IExprBuilder& builder) noexcept override {
    return guarded(node_->name, kFailure, [&] {
      std::vector<int32_t> ranks;
      for (int32_t i = 0; i < input_count; ++i) ranks.push_back(inputs[i].nbDims);
      const std::vector<DimsExprs> shapes =
          output_shapes(spec(), node_->fields.attributes, map_inputs(spec(), ranks, ranks.size()), inputs, builder);
      for (int32_t i = 0; i < output_count; ++i) outputs[i] = shapes[static_cast<std::size_t>(i)];
      return 0;
    });
  }

  bool supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* tensors, int32_t input_count,
                                 int32_t) noexcept override {
    return guarded(node_->name, false, [&] {
      // What lies behind `position` is not to be looked at.
      const std::vector<std::size_t> mapping = mapping_of(tensors, std::min(position + 1, input_count), input_count);
      std::vector<std::optional<DType>> params(static_cast<std::size_t>(spec().type_params));
      for (int32_t i = 0; i <= position; ++i) {
        const TensorSpec& tensor = i < input_count ? spec().inputs[mapping[i]] : spec().outputs[i - input_count];
        const std::optional<DType> type = dtype_of(tensors[i].desc.type);
        std::optional<DType>& param = params[tensor.type_param];
        if (!type || (param && *param != *type)) return false;
        param = type;
      }
      if (!has_row(params)) return false;
      const bool is_input = position < input_count;
      const std::size_t index = is_input ? mapping[position] : static_cast<std::size_t>(position - input_count);
      const bool half = size_of(*dtype_of(tensors[position].desc.type)) == 2;
      const bool channels_last =
          half && gpu::contains(is_input ? node_->op.channels_last_inputs : node_->op.channels_last_outputs, index);
      return tensors[position].desc.format == (channels_last ? TensorFormat::kHWC8 : TensorFormat::kLINEAR);
    });
  }

  int32_t configurePlugin(const DynamicPluginTensorDesc* inputs, int32_t input_count, const DynamicPluginTensorDesc*,
                          int32_t) noexcept override {
    return guarded(node_->name, kFailure, [&] {
      require_fixed_channels(inputs, input_count);
      for (const auto extreme : {&DynamicPluginTensorDesc::min, &DynamicPluginTensorDesc::max}) {
        const std::vector<TensorView> inputs_there = views_at(inputs, input_count, extreme);
        node_->kernel->workspace_bytes(inputs_there);  // checks shapes and limits
      }
      return 0;
    });
  }

  size_t getWorkspaceSize(const DynamicPluginTensorDesc* inputs, int32_t input_count, const DynamicPluginTensorDesc*,
                          int32_t) const noexcept override {
    return guarded(node_->name, std::size_t{0}, [&] {
      const std::vector<TensorView> largest = views_at(inputs, input_count, &DynamicPluginTensorDesc::max);
      return node_->kernel->workspace_bytes(largest);
    });
  }

  const char* getMetadataString() noexcept override { return "deploydcn"; }

  int32_t onShapeChange(const PluginTensorDesc* inputs, int32_t input_count, const PluginTensorDesc*,
                        int32_t) noexcept override {
    return guarded(node_->name, kFailure, [&] {
      std::vector<int32_t> ranks;
      for (int32_t i = 0; i < input_count; ++i) ranks.push_back(inputs[i].dims.nbDims);
      mapping_ = map_inputs(spec(), ranks, ranks.size());
      const std::vector<TensorView> shapes = views(inputs, nullptr);
      bind(spec(), node_->fields.attributes, Span<const TensorView>(shapes));
      return 0;
    });
  }

  int32_t enqueue(const PluginTensorDesc* input_descs, const PluginTensorDesc* output_descs, const void* const* inputs,
                  void* const* outputs, void* workspace, cudaStream_t stream) noexcept override {
    return guarded(node_->name, kFailure, [&] {
      if (mapping_.empty()) throw InternalError("enqueue before onShapeChange");
      std::vector<gpu::OutputView> results;
      for (std::size_t i = 0; i < spec().outputs.size(); ++i) {
        results.push_back({outputs[i], layout_of(output_descs[i].format)});
      }
      const std::vector<TensorView> arguments = views(input_descs, inputs);
      node_->kernel->launch(arguments, results, workspace, stream);
      return 0;
    });
  }

  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override { return clone(); }
  const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override {
    return node_->serialized.collection();
  }

 private:
  const OpSpec& spec() const { return node_->spec(); }

  // Of the first `known` of `count` inputs.
  std::vector<std::size_t> mapping_of(const DynamicPluginTensorDesc* tensors, int32_t known, int32_t count) const {
    std::vector<int32_t> ranks;
    for (int32_t i = 0; i < known; ++i) ranks.push_back(tensors[i].desc.dims.nbDims);
    return map_inputs(spec(), ranks, static_cast<std::size_t>(count));
  }

  // Inputs in the order of the spec; `data` null: shapes only.
  std::vector<TensorView> views(const PluginTensorDesc* descs, const void* const* data) const {
    std::vector<TensorView> views(spec().inputs.size());
    for (std::size_t i = 0; i < mapping_.size(); ++i) {
      const std::optional<DType> dtype = dtype_of(descs[i].type);
      if (!dtype) throw wrong_type(spec().inputs[mapping_[i]], descs[i].type);
      views[mapping_[i]] = {data ? data[i] : nullptr, *dtype, shape_of(descs[i].dims), true,
                            layout_of(descs[i].format)};
    }
    return views;
  }

  // The shapes of one end of the optimisation profile.
  std::vector<TensorView> views_at(const DynamicPluginTensorDesc* inputs, int32_t count,
                                   nvinfer1::Dims DynamicPluginTensorDesc::* extreme) const {
    const std::vector<std::size_t> mapping = mapping_of(inputs, count, count);
    std::vector<TensorView> views(spec().inputs.size());
    for (int32_t i = 0; i < count; ++i) {
      const PluginTensorDesc& desc = inputs[i].desc;
      const std::optional<DType> dtype = dtype_of(desc.type);
      if (!dtype) throw wrong_type(spec().inputs[mapping[i]], desc.type);
      views[mapping[i]] = {nullptr, *dtype, shape_of(inputs[i].*extreme), true, layout_of(desc.format)};
    }
    return views;
  }

  // Batch and image may vary within a profile. The workspace of a convolution follows the channels, and not
  // monotonically: another kernel, with another workspace, may serve fewer of them.
  void require_fixed_channels(const DynamicPluginTensorDesc* inputs, int32_t count) const {
    const std::vector<std::size_t> mapping = mapping_of(inputs, count, count);
    for (int32_t i = 0; i < count; ++i) {
      const nvinfer1::Dims &least = inputs[i].min, &most = inputs[i].max;
      const bool has_channels = gpu::contains(node_->op.channels_last_inputs, mapping[i]);
      if (!has_channels || least.d[1] == most.d[1]) continue;
      throw InvalidArgument(std::string(spec().name) + " input " + spec().inputs[mapping[i]].name + " has " +
                            std::to_string(least.d[1]) + " to " + std::to_string(most.d[1]) +
                            " channels; wanted a fixed number; give dimension 1 a size in the model");
    }
  }

  // Whether some row of the spec's types has these, as far as they are known.
  bool has_row(const std::vector<std::optional<DType>>& params) const {
    const std::size_t width = params.size();
    for (std::size_t row = 0; row + width <= spec().type_rows.size(); row += width) {
      const Span<const DType> types(spec().type_rows.data() + row, width);
      bool fits = gpu::runs_on_gpu(types);
      for (std::size_t i = 0; i < width; ++i) fits = fits && (!params[i] || *params[i] == types[i]);
      if (fits) return true;
    }
    return false;
  }

  InvalidArgument wrong_type(const TensorSpec& tensor, DataType got) const {
    std::vector<DType> wanted;
    std::string names;
    const auto width = static_cast<std::size_t>(spec().type_params);
    for (std::size_t row = 0; row + width <= spec().type_rows.size(); row += width) {
      const DType type = spec().type_rows[row + static_cast<std::size_t>(tensor.type_param)];
      const bool runs = gpu::runs_on_gpu(Span<const DType>(spec().type_rows.data() + row, width));
      if (!runs || std::find(wanted.begin(), wanted.end(), type) != wanted.end()) continue;
      wanted.push_back(type);
      names += (names.empty() ? "" : ", ") + std::string(name_of(type));
    }
    return InvalidArgument(std::string(spec().name) + " input " + tensor.name + " has TensorRT data type " +
                           std::to_string(static_cast<int>(got)) + "; wanted one of " + names +
                           "; convert the model, or cast this input");
  }
  InvalidArgument wrong_types(const DataType* inputs, int32_t count) const {
    std::string got;
    for (int32_t i = 0; i < count; ++i) {
      got += (got.empty() ? "" : ", ") + std::to_string(static_cast<int>(inputs[i]));
    }
    return InvalidArgument(
        std::string(spec().name) + " inputs have TensorRT data types (" + got +
        "); wanted one floating-point type for all data; positions may be float32, tables are int64; cast them");
  }

  std::shared_ptr<Node> node_;
  std::vector<std::size_t> mapping_;  // of the last onShapeChange; each execution context has its own plugin
};

}  // namespace

nvinfer1::IPluginV3* Creator::createPlugin(const char* name, const nvinfer1::PluginFieldCollection* fields,
                                           nvinfer1::TensorRTPhase phase) noexcept {
  const std::string node = name && *name ? name : name_;
  return guarded(node, static_cast<nvinfer1::IPluginV3*>(nullptr), [&]() -> nvinfer1::IPluginV3* {
    NodeFields parsed = read_fields(*op_.spec, fields, phase == nvinfer1::TensorRTPhase::kRUNTIME);
    return new Plugin(std::make_shared<Node>(op_, node, name_, namespace_, std::move(parsed)));
  });
}

}  // namespace deploydcn::trt
