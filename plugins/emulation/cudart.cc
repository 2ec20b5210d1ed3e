// The CUDA runtime calls a launcher or a harness may make, on the emulated device. A call that is not here fails to
// link.
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstring>
#include <new>
#include <string>

#include "emulation/device_memory.h"
#include "emulation/failures.h"
#include "emulation/runtime.h"
#include "emulation/streams.h"

using namespace deploydcn::emulation;

namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

struct Text {
  cudaError_t error;
  const char* name;
  const char* text;
};
constexpr Text kTexts[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
     "no kernel image is available for execution on the device"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources", "too many resources requested for launch"},
    {cudaErrorIllegalInstruction, "cudaErrorIllegalInstruction", "an illegal instruction was encountered"},
    {cudaErrorMisalignedAddress, "cudaErrorMisalignedAddress", "misaligned address"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

// A failed kernel makes every later call fail.
cudaError_t with_sticky(cudaError_t error) { return returned(error == cudaSuccess ? sticky_error() : error); }

bool direction_fits(const void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (kind == cudaMemcpyDefault) return true;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  return is_device_memory(to, bytes) == to_device && is_device_memory(from, bytes) == from_device;
}

cudaError_t copy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (bytes == 0) return with_sticky(cudaSuccess);
  if (!direction_fits(to, from, bytes, kind)) return returned(cudaErrorInvalidValue);
  enqueue([=] {
    const DeviceAccess access;
    std::memcpy(to, from, bytes);
  });
  return with_sticky(cudaSuccess);
}

cudaError_t synchronize(const char* what) {
  const Lock lock(runtime_mutex());
  if (const cudaError_t refused = refuse_inside_enqueue(what)) return refused;
  run_enqueued();
  return with_sticky(cudaSuccess);
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  const Lock lock(runtime_mutex());
  if (const cudaError_t refused = refuse_inside_enqueue("cudaMalloc")) return refused;
  install_fault_handler();  // from here on the host can touch what it must not
  *memory = allocate_device(bytes);
  return with_sticky(*memory ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t cudaFree(void* memory) {
  const Lock lock(runtime_mutex());
  if (const cudaError_t refused = refuse_inside_enqueue("cudaFree")) return refused;
  run_enqueued();
  return with_sticky(!memory || free_device(memory) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t) {
  const Lock lock(runtime_mutex());
  return copy(to, from, bytes, kind);
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const Lock lock(runtime_mutex());
  if (const cudaError_t refused = refuse_inside_enqueue("cudaMemcpy")) return refused;
  const cudaError_t error = copy(to, from, bytes, kind);
  run_enqueued();
  return with_sticky(error);
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
  const Lock lock(runtime_mutex());
  if (bytes == 0) return with_sticky(cudaSuccess);
  if (!is_device_memory(memory, bytes)) return returned(cudaErrorInvalidValue);
  enqueue([=] {
    const DeviceAccess access;
    std::memset(memory, value, bytes);
  });
  return with_sticky(cudaSuccess);
}

cudaError_t cudaMemset(void* memory, int value, size_t bytes) { return cudaMemsetAsync(memory, value, bytes, nullptr); }

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = reinterpret_cast<cudaStream_t>(new char);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Lock lock(runtime_mutex());
  if (is_default_stream(stream)) return returned(cudaErrorInvalidResourceHandle);
  run_enqueued();
  delete reinterpret_cast<char*>(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) { return synchronize("cudaStreamSynchronize"); }
cudaError_t cudaDeviceSynchronize() { return synchronize("cudaDeviceSynchronize"); }

cudaError_t cudaGetLastError() { return take_last_error(true); }
cudaError_t cudaPeekAtLastError() { return take_last_error(false); }
const char* cudaGetErrorString(cudaError_t error) {
  for (const Text& text : kTexts) {
    if (text.error == error) return text.text;
  }
  return "unrecognized error code";
}
const char* cudaGetErrorName(cudaError_t error) {
  for (const Text& text : kTexts) {
    if (text.error == error) return text.name;
  }
  return "unrecognized error code";
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  const Lock lock(runtime_mutex());
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || static_cast<size_t>(value) > shared_memory_opt_in()) return returned(cudaErrorInvalidValue);
  allow_dynamic_shared_memory(kernel, static_cast<size_t>(value));
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return returned(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return returned(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = options().compute_capability / 10; break;
    case cudaDevAttrComputeCapabilityMinor: *value = options().compute_capability % 10; break;
    case cudaDevAttrMultiProcessorCount: *value = options().multiprocessors; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = static_cast<int>(shared_memory_opt_in()); break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 * 1024; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
    case cudaDevAttrWarpSize: *value = 32; break;
    default:
      record_failure("the emulator knows no device attribute " + std::to_string(attribute));
      return returned(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

}  // extern "C"
#pragma GCC visibility pop
