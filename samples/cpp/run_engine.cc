// Runs a TensorRT or TensorRT-RTX engine that has deploydcn's plugins.
#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <memory>
#include <mutex>

#include "program.h"

namespace {

const char* const kUsage =
    "model.engine libdeploydcn_trt.so [name=]input.npy... -o folder [--repeat N]\n"
    "Inputs without a name are taken in the engine's order. Outputs become folder/name.npy.";

void check(cudaError_t error, const std::string& what) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(what + ": " + cudaGetErrorString(error) + " (CUDA error " + std::to_string(error) + ")");
}

// Keeps what TensorRT and the plugins say of errors: its functions return no more than a false or a null.
class Logger final : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (severity <= Severity::kERROR) {
      errors_ += (errors_.empty() ? "" : "; ") + std::string(message);
    } else if (severity == Severity::kWARNING) {
      std::fprintf(stderr, "run_engine: warning: %s\n", message);
    }
  }
  void check(bool succeeded, const std::string& what) const {
    if (!succeeded) throw std::runtime_error(what + ": " + (errors_.empty() ? "TensorRT gives no reason" : errors_));
  }

 private:
  std::mutex mutex_;
  std::string errors_;
};

class DeviceMemory {
 public:
  DeviceMemory() = default;
  explicit DeviceMemory(std::size_t bytes) {
    check(cudaMalloc(&data_, std::max<std::size_t>(bytes, 1)), std::to_string(bytes) + " bytes of GPU memory");
  }
  DeviceMemory(DeviceMemory&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }
  ~DeviceMemory() { cudaFree(data_); }
  void* get() const { return data_; }

 private:
  void* data_ = nullptr;
};

class Stream {
 public:
  Stream() { check(cudaStreamCreate(&stream_), "a stream"); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { cudaStreamDestroy(stream_); }
  cudaStream_t get() const { return stream_; }
  void wait() const { check(cudaStreamSynchronize(stream_), "the run on the GPU"); }

 private:
  cudaStream_t stream_ = nullptr;
};

npy::Shape shape_of(const nvinfer1::Dims& dims) { return {dims.d, dims.d + std::max(dims.nbDims, 0)}; }

// An output. Where its shape depends on the data, TensorRT asks for memory in the middle of a run, and then tells the
// shape.
class Output final : public nvinfer1::IOutputAllocator {
 public:
  explicit Output(program::TensorInfo described) : info(std::move(described)) {}

  void allocate(std::size_t bytes) { memory = DeviceMemory(bytes); }
  void* reallocateOutputAsync(const char*, void*, uint64_t bytes, uint64_t, cudaStream_t) noexcept override {
    try {
      allocate(bytes);
      return memory.get();
    } catch (const std::exception&) {
      return nullptr;  // TensorRT reports it
    }
  }
  void notifyShape(const char*, const nvinfer1::Dims& dims) noexcept override { shape = shape_of(dims); }

  program::TensorInfo info;
  npy::Shape shape;
  DeviceMemory memory;
};

const npy::Dtype& dtype_of(nvinfer1::DataType type, const std::string& name) {
  switch (type) {
    case nvinfer1::DataType::kFLOAT: return npy::dtype("float32");
    case nvinfer1::DataType::kHALF: return npy::dtype("float16");
    case nvinfer1::DataType::kINT8: return npy::dtype("int8");
    case nvinfer1::DataType::kUINT8: return npy::dtype("uint8");
    case nvinfer1::DataType::kINT32: return npy::dtype("int32");
    case nvinfer1::DataType::kINT64: return npy::dtype("int64");
    case nvinfer1::DataType::kBOOL: return npy::dtype("bool");
    default:
      throw std::runtime_error("tensor '" + name + "' has TensorRT type " + std::to_string(static_cast<int>(type)) +
                               ", which .npy files cannot hold; put a Cast into the model and build it again");
  }
}

std::vector<program::TensorInfo> tensors_of(const nvinfer1::ICudaEngine& engine, nvinfer1::TensorIOMode mode) {
  std::vector<program::TensorInfo> infos;
  for (int i = 0; i < engine.getNbIOTensors(); ++i) {
    const char* name = engine.getIOTensorName(i);
    if (engine.getTensorIOMode(name) != mode) continue;
    if (engine.getTensorLocation(name) != nvinfer1::TensorLocation::kDEVICE ||
        engine.getTensorFormat(name) != nvinfer1::TensorFormat::kLINEAR) {
      throw std::runtime_error("tensor '" + std::string(name) + "' lives in host memory or has a format of its own; " +
                               "wanted a row-major one in GPU memory; build the engine without these options");
    }
    infos.push_back({name, &dtype_of(engine.getTensorDataType(name), name), shape_of(engine.getTensorShape(name)), {}});
  }
  return infos;
}

// The first optimization profile whose range includes all these shapes.
int profile_for(const nvinfer1::ICudaEngine& engine, const std::vector<program::TensorInfo>& infos,
                const std::vector<npy::Array>& arrays) {
  std::string ranges;
  for (int profile = 0; profile < engine.getNbOptimizationProfiles(); ++profile) {
    bool fits = true;
    const char* separator = profile > 0 ? " or " : "";
    for (std::size_t i = 0; i < infos.size(); ++i) {
      if (!std::count(infos[i].shape.begin(), infos[i].shape.end(), -1)) continue;
      const char* name = infos[i].name.c_str();
      const auto least = shape_of(engine.getProfileShape(name, profile, nvinfer1::OptProfileSelector::kMIN));
      const auto most = shape_of(engine.getProfileShape(name, profile, nvinfer1::OptProfileSelector::kMAX));
      for (std::size_t axis = 0; axis < least.size(); ++axis) {
        const int64_t got = arrays[i].shape[axis];  // of the right rank, as read_inputs has checked
        fits &= least[axis] <= got && got <= most[axis];
      }
      ranges += separator + infos[i].name + " " + npy::text(least) + " to " + npy::text(most);
      separator = ", ";
    }
    if (fits) return profile;
  }
  throw std::runtime_error("the inputs have other shapes than this engine was built for: " + ranges +
                           "; feed those, or build the engine again with a profile that includes yours");
}

std::string read_engine(const std::string& path) {
  std::ifstream file(program::existing_file(path, "an engine"), std::ios::binary);
  std::string plan{std::istreambuf_iterator<char>(file), {}};
  if (plan.size() < 32 || plan.compare(1, 3, "trt") != 0) {
    throw std::runtime_error(path + " is no engine, or is truncated; `deploydcn build` makes one of an ONNX file");
  }
  return plan;
}

// TensorRT's classes are laid out another way in every major version.
void check_version() {
  if (getInferLibMajorVersion() == NV_TENSORRT_MAJOR) return;
  throw std::runtime_error("compiled for TensorRT " + std::to_string(NV_TENSORRT_MAJOR) +
                           ", and the library found is " + std::to_string(getInferLibMajorVersion()) +
                           "; compile this with the headers of that one");
}

void load_plugins(const std::string& library) {
  const char* const wanted = "the library that deploydcn.plugin_library_path() names";
  const std::string path = program::existing_file(library, wanted);
  if (!dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL)) {  // the registry would not say why
    throw std::runtime_error(std::string(dlerror()) + "; wanted " + wanted);
  }
  if (!getPluginRegistry()->loadLibrary(path.c_str())) {
    throw std::runtime_error(path + " has no TensorRT plugins; wanted " + wanted);
  }
  std::printf("plugins: %s\n", path.c_str());
}

void run(const program::Arguments& arguments) {
  const std::string plan = read_engine(arguments.model);
  check_version();
  load_plugins(arguments.library);
  int count = 0;
  check(cudaGetDeviceCount(&count), "no usable GPU; wanted one with its driver, which nvidia-smi would show");

  Logger& logger = *new Logger;  // the plugin registry keeps it to the end of the process
  const std::unique_ptr<nvinfer1::IRuntime> runtime(nvinfer1::createInferRuntime(logger));
  logger.check(runtime != nullptr, "TensorRT does not start");
  const std::unique_ptr<nvinfer1::ICudaEngine> engine(runtime->deserializeCudaEngine(plan.data(), plan.size()));
  logger.check(engine != nullptr, arguments.model + " is refused; build it with this version, on this kind of GPU");
  const std::unique_ptr<nvinfer1::IExecutionContext> context(engine->createExecutionContext());
  logger.check(context != nullptr, "no execution context, most often for lack of GPU memory");

  const auto infos = tensors_of(*engine, nvinfer1::TensorIOMode::kINPUT);
  const std::vector<npy::Array> arrays = program::read_inputs(arguments.inputs, infos);
  const Stream stream;
  logger.check(context->setOptimizationProfileAsync(profile_for(*engine, infos, arrays), stream.get()), "the profile");
  std::vector<DeviceMemory> inputs;
  for (std::size_t i = 0; i < infos.size(); ++i) {
    const char* name = infos[i].name.c_str();
    const npy::Array& array = arrays[i];
    nvinfer1::Dims dims{static_cast<int32_t>(array.shape.size()), {}};
    logger.check(array.shape.size() <= nvinfer1::Dims::MAX_DIMS, "input '" + infos[i].name + "' has too many axes");
    std::copy(array.shape.begin(), array.shape.end(), dims.d);
    logger.check(context->setInputShape(name, dims),
                 "input '" + infos[i].name + "' of shape " + npy::text(array.shape));
    inputs.emplace_back(array.bytes.size());
    logger.check(context->setTensorAddress(name, inputs.back().get()), "the memory of input '" + infos[i].name + "'");
    check(cudaMemcpyAsync(inputs.back().get(), array.bytes.data(), array.bytes.size(), cudaMemcpyHostToDevice,
                          stream.get()),
          "the copy of input '" + infos[i].name + "'");
  }
  logger.check(context->inferShapes(0, nullptr) == 0, "these input shapes");

  std::vector<std::unique_ptr<Output>> outputs;
  for (const program::TensorInfo& info : tensors_of(*engine, nvinfer1::TensorIOMode::kOUTPUT)) {
    Output& output = *outputs.emplace_back(std::make_unique<Output>(info));
    output.shape = shape_of(context->getTensorShape(info.name.c_str()));
    if (std::count(output.shape.begin(), output.shape.end(), -1)) {
      logger.check(context->setOutputAllocator(info.name.c_str(), &output),
                   "the allocator of output '" + info.name + "'");
    } else {
      output.allocate(static_cast<std::size_t>(npy::byte_count(*info.dtype, output.shape)));
      logger.check(context->setTensorAddress(info.name.c_str(), output.memory.get()),
                   "the memory of output '" + info.name + "'");
    }
  }

  const auto run_once = [&] {
    logger.check(context->enqueueV3(stream.get()), "the run");
    stream.wait();
  };
  run_once();
  program::print_median(arguments.numbers.at("--repeat"), run_once);  // copies left out

  std::vector<std::string> names;
  std::vector<npy::Array> contents;
  for (const auto& output : outputs) {
    const npy::Dtype& dtype = *output->info.dtype;
    std::vector<std::byte> bytes(static_cast<std::size_t>(npy::byte_count(dtype, output->shape)));
    check(cudaMemcpy(bytes.data(), output->memory.get(), bytes.size(), cudaMemcpyDeviceToHost),
          "the copy of '" + output->info.name + "'");
    names.push_back(output->info.name);
    contents.push_back({&dtype, output->shape, std::move(bytes)});
  }
  program::save(arguments.output_folder, names, contents);
}

}  // namespace

int main(int argc, char** argv) {
  return program::guarded("run_engine", kUsage, [&] { run(program::parse(argc, argv, {{"--repeat", 1}})); });
}
