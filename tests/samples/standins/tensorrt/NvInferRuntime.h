// A stand-in for TensorRT, so that samples/cpp/run_engine.cc runs where no GPU is: on the emulator's CUDA, whose device
// memory the host cannot touch and whose work is done when somebody waits for it. Strict about what a caller may
// forget.
//
// Its one engine: x float32[?x3] and bias float32[3] -> sum float32[?x3] = x + bias, and positive float32[?], those
// elements of the sum that are above zero, as many as there are. Profiles: 1 to 4 rows, 8 to 16 rows.
#pragma once

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "emulation/control.h"
#include "emulation/device_memory.h"
#include "emulation/streams.h"

#define NV_TENSORRT_MAJOR 0
inline int32_t getInferLibMajorVersion() { return NV_TENSORRT_MAJOR; }

namespace nvinfer1 {

enum class DataType : int32_t { kFLOAT, kHALF, kINT8, kINT32, kBOOL, kUINT8, kFP8, kBF16, kINT64 };
enum class TensorLocation : int32_t { kDEVICE, kHOST };
enum class TensorFormat : int32_t { kLINEAR };
enum class TensorIOMode : int32_t { kNONE, kINPUT, kOUTPUT };
enum class OptProfileSelector : int32_t { kMIN, kOPT, kMAX };

struct Dims {
  static constexpr int32_t MAX_DIMS = 8;
  int32_t nbDims;
  int64_t d[MAX_DIMS];
};

class ILogger {
 public:
  enum class Severity : int32_t { kINTERNAL_ERROR, kERROR, kWARNING, kINFO, kVERBOSE };
  virtual ~ILogger() = default;
  virtual void log(Severity severity, const char* message) noexcept = 0;
};

class IOutputAllocator {
 public:
  virtual ~IOutputAllocator() = default;
  virtual void* reallocateOutputAsync(const char*, void* memory, uint64_t bytes, uint64_t alignment, cudaStream_t) = 0;
  virtual void notifyShape(const char* name, const Dims& dims) noexcept = 0;
};

class IExecutionContext {
 public:
  explicit IExecutionContext(ILogger& logger) : logger_(logger) {}

  bool setOptimizationProfileAsync(int32_t profile, cudaStream_t) {
    profile_ = profile;
    return true;
  }
  bool setInputShape(const char* name, const Dims& dims) {
    if (name != std::string("x")) return dims.nbDims == 1 && dims.d[0] == 3;
    rows_ = dims.d[0];
    const bool fits = profile_ == 0 ? rows_ <= 4 : profile_ == 1 && rows_ >= 8 && rows_ <= 16;
    return fits || refuse("x is outside the profile");
  }
  bool setTensorAddress(const char* name, void* memory) {
    addresses_[name] = static_cast<float*>(memory);
    return true;
  }
  bool setOutputAllocator(const char* name, IOutputAllocator* allocator) {
    allocator_ = allocator;
    return name == std::string("positive");
  }
  int32_t inferShapes(int32_t, const char**) const { return rows_ < 0 ? 1 : 0; }
  Dims getTensorShape(const char* name) const {
    return name == std::string("positive") ? Dims{1, {-1}} : Dims{2, {rows_, 3}};
  }

  bool enqueueV3(cudaStream_t stream) {
    const float *x = addresses_["x"], *bias = addresses_["bias"];
    float* sum = addresses_["sum"];
    if (rows_ < 0 || !x || !bias || !sum || !allocator_)
      return refuse("a shape, an address or an allocator is not set");
    if (deploydcn::emulation::is_default_stream(stream)) return refuse("the default stream is slow");
    const auto count = static_cast<std::size_t>(rows_) * 3;
    deploydcn::emulation::enqueue([=] {
      const deploydcn::emulation::DeviceAccess access;
      for (std::size_t i = 0; i < count; ++i) sum[i] = x[i] + bias[i % 3];
    });
    return cudaStreamSynchronize(stream) == cudaSuccess && select_positive(sum, count, stream);
  }

 private:
  // As with NonZero in TensorRT: the size is known half way, then memory is asked for.
  bool select_positive(const float* sum, std::size_t count, cudaStream_t stream) {
    std::vector<float> values(count);
    cudaMemcpy(values.data(), sum, count * sizeof(float), cudaMemcpyDeviceToHost);
    std::vector<float> positive;
    for (const float value : values) {
      if (value > 0) positive.push_back(value);
    }
    const std::size_t bytes = positive.size() * sizeof(float);
    auto* memory = static_cast<float*>(allocator_->reallocateOutputAsync("positive", nullptr, bytes, 256, stream));
    if (!memory) return refuse("no memory for positive");
    allocator_->notifyShape("positive", Dims{1, {static_cast<int64_t>(positive.size())}});
    deploydcn::emulation::enqueue([=] {
      const deploydcn::emulation::DeviceAccess access;
      std::copy(positive.begin(), positive.end(), memory);
    });
    return true;
  }
  bool refuse(const char* reason) {
    logger_.log(ILogger::Severity::kERROR, reason);
    return false;
  }

  ILogger& logger_;
  int32_t profile_ = 0;
  int64_t rows_ = -1;
  std::map<std::string, float*> addresses_;
  IOutputAllocator* allocator_ = nullptr;
};

class ICudaEngine {
 public:
  explicit ICudaEngine(ILogger& logger) : logger_(logger) {}
  IExecutionContext* createExecutionContext() { return new IExecutionContext(logger_); }
  int32_t getNbIOTensors() const { return 4; }
  const char* getIOTensorName(int32_t index) const {
    constexpr const char* names[] = {"x", "bias", "sum", "positive"};
    return names[index];
  }
  TensorIOMode getTensorIOMode(const char* name) const {
    return std::string_view("x bias").find(name) == std::string_view::npos ? TensorIOMode::kOUTPUT
                                                                           : TensorIOMode::kINPUT;
  }
  TensorLocation getTensorLocation(const char*) const { return TensorLocation::kDEVICE; }
  TensorFormat getTensorFormat(const char*) const { return TensorFormat::kLINEAR; }
  DataType getTensorDataType(const char*) const { return DataType::kFLOAT; }
  Dims getTensorShape(const char* name) const {
    return is(name, "bias") ? Dims{1, {3}} : is(name, "positive") ? Dims{1, {-1}} : Dims{2, {-1, 3}};
  }
  int32_t getNbOptimizationProfiles() const { return 2; }
  Dims getProfileShape(const char* name, int32_t profile, OptProfileSelector selector) const {
    if (is(name, "bias")) return Dims{1, {3}};
    const bool least = selector == OptProfileSelector::kMIN;
    return Dims{2, {profile == 0 ? (least ? 1 : 4) : (least ? 8 : 16), 3}};
  }

 private:
  static bool is(const char* name, const char* other) { return std::strcmp(name, other) == 0; }

  ILogger& logger_;
};

class IRuntime {
 public:
  explicit IRuntime(ILogger& logger) : logger_(logger) {}
  ICudaEngine* deserializeCudaEngine(const void* plan, std::size_t bytes) {
    if (std::string_view(static_cast<const char*>(plan), bytes).find("old") == std::string_view::npos) {
      return new ICudaEngine(logger_);
    }
    logger_.log(ILogger::Severity::kERROR, "The engine plan file is not compatible with this version of TensorRT");
    return nullptr;
  }

 private:
  ILogger& logger_;
};

inline IRuntime* createInferRuntime(ILogger& logger) {
  deploydcn::emulation::options().deferred = true;  // copies are made when somebody waits, as late as a GPU may
  return new IRuntime(logger);
}

class IPluginRegistry {
 public:
  void* loadLibrary(const char* path) {
    void* library = dlopen(path, RTLD_LAZY);
    return library && dlsym(library, "getCreators") ? library : nullptr;
  }
};

}  // namespace nvinfer1

inline nvinfer1::IPluginRegistry* getPluginRegistry() {
  static nvinfer1::IPluginRegistry registry;
  return &registry;
}
