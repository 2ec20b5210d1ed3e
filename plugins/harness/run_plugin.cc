#include <cstring>
#include <memory>
#include <stdexcept>

#include "core/dtype.h"
#include "harness/device_tensor.h"
#include "harness/harness_run.h"

extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);

namespace deploydcn::harness {
namespace {

using nvinfer1::DataType;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::IPluginV3;
using nvinfer1::IPluginV3OneBuild;
using nvinfer1::IPluginV3OneRuntime;
using nvinfer1::PluginCapabilityType;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

// A step at which the plugin, or we, gave up.
class Stopped : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

void require(bool ok, const std::string& step) {
  if (!ok) throw Stopped(step);
}

class ResourceContext final : public nvinfer1::IPluginResourceContext {
 public:
  nvinfer1::IGpuAllocator* getGpuAllocator() const noexcept override { return nullptr; }
  nvinfer1::IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
};

nvinfer1::IPluginCreatorV3One& find_creator(const char* name, const char* name_space) {
  int32_t count = 0;
  auto* const* creators = getCreators(count);
  for (int32_t i = 0; i < count; ++i) {
    auto* creator = static_cast<nvinfer1::IPluginCreatorV3One*>(creators[i]);
    if (std::strcmp(creator->getPluginName(), name) == 0 &&
        std::strcmp(creator->getPluginNamespace(), name_space) == 0 &&
        std::strcmp(creator->getPluginVersion(), "1") == 0) {
      return *creator;
    }
  }
  throw Stopped(std::string("no creator for ") + name + " in namespace '" + name_space + "'");
}

PluginFieldType field_type(char type) {
  switch (type) {
    case 'i': return PluginFieldType::kINT32;
    case 'l': return PluginFieldType::kINT64;
    case 'f': return PluginFieldType::kFLOAT32;
    case 's': return PluginFieldType::kCHAR;
  }
  throw Stopped(std::string("unknown field type ") + type);
}

std::size_t field_bytes(const PluginField& field) {
  switch (field.type) {
    case PluginFieldType::kCHAR: return static_cast<std::size_t>(field.length);
    case PluginFieldType::kINT64: return static_cast<std::size_t>(field.length) * 8;
    default: return static_cast<std::size_t>(field.length) * 4;
  }
}

// Fields as an engine keeps them: copies that outlive the plugin which wrote them.
struct StoredFields {
  explicit StoredFields(const PluginFieldCollection& source) {
    for (int32_t i = 0; i < source.nbFields; ++i) {
      const PluginField& field = source.fields[i];
      const auto* bytes = static_cast<const char*>(field.data);
      names.emplace_back(field.name);
      data.emplace_back(bytes, bytes + field_bytes(field));
      fields.emplace_back(names.back().c_str(), data.back().data(), field.type, field.length);
    }
    collection = {static_cast<int32_t>(fields.size()), fields.data()};
  }
  std::string text() const {
    std::string all;
    for (std::size_t i = 0; i < fields.size(); ++i)
      all += names[i] + "=" + std::string(data[i].begin(), data[i].end()) + ";";
    return all;
  }
  std::deque<std::string> names;
  std::deque<std::vector<char>> data;
  std::vector<PluginField> fields;
  PluginFieldCollection collection{};
};

IPluginV3OneBuild& build_side(IPluginV3& plugin) {
  return *static_cast<IPluginV3OneBuild*>(plugin.getCapabilityInterface(PluginCapabilityType::kBUILD));
}
IPluginV3OneRuntime& runtime_side(IPluginV3& plugin) {
  return *static_cast<IPluginV3OneRuntime*>(plugin.getCapabilityInterface(PluginCapabilityType::kRUNTIME));
}

DataType data_type(int32_t dtype) {
  switch (static_cast<DType>(dtype)) {
    case DType::kFloat32: return DataType::kFLOAT;
    case DType::kFloat16: return DataType::kHALF;
    case DType::kBFloat16: return DataType::kBF16;
    case DType::kInt64: return DataType::kINT64;
    case DType::kUInt8: return DataType::kUINT8;
    case DType::kInt8: return DataType::kINT8;
    case DType::kInt32: return DataType::kINT32;
    case DType::kFloat64: return DataType::kINT32;  // TensorRT has no float64: a type that plugins must refuse
  }
  throw Stopped("unknown dtype");
}
DType dtype_of(DataType type) {
  return type == DataType::kFLOAT   ? DType::kFloat32
         : type == DataType::kHALF  ? DType::kFloat16
         : type == DataType::kINT64 ? DType::kInt64
                                    : DType::kBFloat16;
}

nvinfer1::Dims dims_of(const Shape& shape) {
  nvinfer1::Dims dims{};
  dims.nbDims = static_cast<int32_t>(shape.size());
  std::copy(shape.begin(), shape.end(), dims.d);
  return dims;
}

// One plugin's life, step by step. `tensors`: inputs, then outputs.
class Session {
 public:
  Session(HarnessRun& run, const HarnessTensor* inputs, int32_t count) : run_(run), inputs_(inputs, inputs + count) {
    for (const HarnessTensor& input : inputs_) shapes_.emplace_back(input.dims, input.dims + input.rank);
  }

  void drive(nvinfer1::IPluginCreatorV3One& creator, const PluginFieldCollection& fields) {
    const std::unique_ptr<IPluginV3> plugin(creator.createPlugin("node", &fields, nvinfer1::TensorRTPhase::kBUILD));
    require(plugin != nullptr, "createPlugin");
    const std::unique_ptr<IPluginV3> copy(plugin->clone());
    require(copy != nullptr, "clone");
    infer(build_side(*copy));
    choose_formats(build_side(*copy));
    configure(build_side(*copy));
    const std::unique_ptr<IPluginV3> restored = store_and_restore(creator, *copy);
    ResourceContext resources;
    const std::unique_ptr<IPluginV3> attached(runtime_side(*restored).attachToContext(&resources));
    require(attached != nullptr, "attachToContext");
    enqueue(runtime_side(*attached));
  }

 private:
  void infer(IPluginV3OneBuild& build) {
    const auto outputs = static_cast<std::size_t>(build.getNbOutputs());
    std::vector<DataType> types;
    for (const HarnessTensor& input : inputs_) types.push_back(data_type(input.dtype));
    types.resize(inputs_.size() + outputs);
    require(build.getOutputDataTypes(types.data() + inputs_.size(), static_cast<int32_t>(outputs), types.data(),
                                     static_cast<int32_t>(inputs_.size())) == 0,
            "getOutputDataTypes");
    const std::vector<Shape> known = output_shapes(build, outputs, false);
    require(known == output_shapes(build, outputs, true), "getOutputShapes: symbolic and constant shapes differ");
    shapes_.insert(shapes_.end(), known.begin(), known.end());
    for (std::size_t i = 0; i < shapes_.size(); ++i) {
      DynamicPluginTensorDesc tensor{};
      tensor.desc.type = types[i];
      tensor.desc.scale = 1;
      tensor.desc.dims = tensor.min = tensor.opt = tensor.max = dims_of(shapes_[i]);
      tensors_.push_back(tensor);
    }
  }

  // `symbolic`: the batch and all spatial sizes of rank-4 inputs are unknown, but for the second input, the weight.
  std::vector<Shape> output_shapes(IPluginV3OneBuild& build, std::size_t outputs, bool symbolic) {
    ExpressionBuilder builder;
    std::vector<nvinfer1::DimsExprs> in(inputs_.size()), out(outputs);
    for (std::size_t i = 0; i < in.size(); ++i) {
      in[i].nbDims = static_cast<int32_t>(shapes_[i].size());
      for (std::size_t d = 0; d < shapes_[i].size(); ++d) {
        const bool unknown = symbolic && i != 1 && d != 1 && shapes_[i].size() == 4;
        in[i].d[d] = unknown ? builder.symbol(shapes_[i][d]) : builder.constant_size(shapes_[i][d]);
      }
    }
    require(build.getOutputShapes(in.data(), static_cast<int32_t>(in.size()), nullptr, 0, out.data(),
                                  static_cast<int32_t>(outputs), builder) == 0,
            "getOutputShapes");
    std::vector<Shape> shapes;
    for (const nvinfer1::DimsExprs& dims : out) {
      shapes.emplace_back();
      for (int32_t d = 0; d < dims.nbDims; ++d) shapes.back().push_back(evaluate(*dims.d[d]));
    }
    return shapes;
  }

  // The first combination the plugin accepts, tensor by tensor, LINEAR first: as the builder prefers it.
  void choose_formats(IPluginV3OneBuild& build) {
    constexpr TensorFormat kFormats[] = {TensorFormat::kLINEAR, TensorFormat::kCHW2,  TensorFormat::kHWC8,
                                         TensorFormat::kCHW4,   TensorFormat::kCHW16, TensorFormat::kCHW32,
                                         TensorFormat::kHWC,    TensorFormat::kHWC16};
    const auto count = static_cast<int32_t>(inputs_.size());
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      bool accepted = false;
      for (const TensorFormat format : kFormats) {
        tensors_[i].desc.format = format;
        // The contract: what lies behind the position is invalid.
        std::vector<DynamicPluginTensorDesc> seen(tensors_.begin(),
                                                  tensors_.begin() + static_cast<std::ptrdiff_t>(i) + 1);
        seen.resize(tensors_.size());
        accepted = build.supportsFormatCombination(static_cast<int32_t>(i), seen.data(), count,
                                                   static_cast<int32_t>(tensors_.size()) - count);
        if (accepted) break;
      }
      require(accepted, "supportsFormatCombination: no format for tensor " + std::to_string(i));
      run_.report << "tensor " << i << " format " << static_cast<int>(tensors_[i].desc.format) << "\n";
    }
  }

  void configure(IPluginV3OneBuild& build) {
    const auto count = static_cast<int32_t>(inputs_.size());
    const auto* outputs = tensors_.data() + count;
    const auto output_count = static_cast<int32_t>(tensors_.size()) - count;
    require(build.configurePlugin(tensors_.data(), count, outputs, output_count) == 0, "configurePlugin");
    workspace_ = build.getWorkspaceSize(tensors_.data(), count, outputs, output_count);
    run_.report << "workspace " << workspace_ << "\n";
  }

  std::unique_ptr<IPluginV3> store_and_restore(nvinfer1::IPluginCreatorV3One& creator, IPluginV3& plugin) {
    const StoredFields stored(*runtime_side(plugin).getFieldsToSerialize());
    std::unique_ptr<IPluginV3> restored(
        creator.createPlugin("node", &stored.collection, nvinfer1::TensorRTPhase::kRUNTIME));
    require(restored != nullptr, "createPlugin from the engine");
    require(StoredFields(*runtime_side(*restored).getFieldsToSerialize()).text() == stored.text(),
            "serialised fields change on the way through an engine");
    for (const std::string& name : stored.names) run_.report << "stores " << name << "\n";
    return restored;
  }

  void enqueue(IPluginV3OneRuntime& runtime) {
    const std::size_t count = inputs_.size();
    std::vector<PluginTensorDesc> descs;
    for (const DynamicPluginTensorDesc& tensor : tensors_) descs.push_back(tensor.desc);
    require(runtime.onShapeChange(descs.data(), static_cast<int32_t>(count), descs.data() + count,
                                  static_cast<int32_t>(descs.size() - count)) == 0,
            "onShapeChange");
    std::vector<std::unique_ptr<DeviceTensor>> memory;
    std::vector<const void*> in;
    std::vector<void*> out;
    for (std::size_t i = 0; i < descs.size(); ++i) {
      const Layout layout = descs[i].format == TensorFormat::kHWC8 ? Layout::kChannelsLast8 : Layout::kLinear;
      memory.push_back(std::make_unique<DeviceTensor>(shapes_[i], dtype_of(descs[i].type), layout));
      if (i < count) memory.back()->upload(inputs_[i].data);
      i < count ? in.push_back(memory.back()->data()) : out.push_back(memory.back()->data());
    }
    const DeviceMemory scratch(workspace_);
    const EmulatedStream stream;
    emulation::options().inside_enqueue = true;
    const int32_t status = runtime.enqueue(descs.data(), descs.data() + count, in.data(), out.data(), scratch.data(),
                                           static_cast<cudaStream_t>(stream.get()));
    emulation::options().inside_enqueue = false;
    const int finished = deploydcn_emulation_synchronize();
    require(status == 0, "enqueue");
    require(finished == 0 && !*deploydcn_emulation_error(), "running the kernels");
    for (std::size_t i = count; i < descs.size(); ++i) {
      run_.add_output(dtype_of(descs[i].type), shapes_[i], memory[i]->download());
    }
  }

  HarnessRun& run_;
  std::vector<HarnessTensor> inputs_;
  std::vector<Shape> shapes_;
  std::vector<DynamicPluginTensorDesc> tensors_;
  std::size_t workspace_ = 0;
};

}  // namespace
}  // namespace deploydcn::harness

std::vector<nvinfer1::PluginField> deploydcn::harness::plugin_fields(const HarnessField* fields, int32_t count) {
  std::vector<nvinfer1::PluginField> given;
  for (int32_t i = 0; i < count; ++i) {
    given.emplace_back(fields[i].name, fields[i].data, field_type(fields[i].type), fields[i].length);
  }
  return given;
}

HarnessRun* harness_run_plugin(const char* name, const char* name_space, const HarnessField* fields,
                               int32_t field_count, const HarnessTensor* inputs, int32_t input_count,
                               int32_t versioned_logger) {
  using namespace deploydcn::harness;
  install_logger(versioned_logger != 0);
  return HarnessRun::guarded([&](HarnessRun& run) {
    const std::vector<nvinfer1::PluginField> given = plugin_fields(fields, field_count);
    const nvinfer1::PluginFieldCollection collection{field_count, given.data()};
    Session(run, inputs, input_count).drive(find_creator(name, name_space), collection);
  });
}

HarnessRun* harness_restore_plugin(const char* name, const char* name_space, const HarnessField* fields,
                                   int32_t field_count) {
  using namespace deploydcn::harness;
  install_logger(false);
  return HarnessRun::guarded([&](HarnessRun&) {
    const std::vector<nvinfer1::PluginField> given = plugin_fields(fields, field_count);
    const nvinfer1::PluginFieldCollection collection{field_count, given.data()};
    const std::unique_ptr<IPluginV3> plugin(
        find_creator(name, name_space).createPlugin("node", &collection, nvinfer1::TensorRTPhase::kRUNTIME));
    require(plugin != nullptr, "createPlugin from the engine");
  });
}

const char* harness_error(const HarnessRun* run) { return run->error.c_str(); }
const char* harness_report(const HarnessRun* run) { return run->report_text.c_str(); }
int32_t harness_output_count(const HarnessRun* run) { return static_cast<int32_t>(run->outputs.size()); }
HarnessTensor harness_output(const HarnessRun* run, int32_t index) {
  return run->outputs[static_cast<std::size_t>(index)];
}
void harness_free(HarnessRun* run) { delete run; }
