// Tensors in emulated device memory, allocated to the byte, in the layout a kernel asked for.
#pragma once

#include <vector>

#include "core/tensor_view.h"
#include "emulation/control.h"

namespace deploydcn::harness {

class DeviceMemory {
 public:
  explicit DeviceMemory(std::size_t bytes) : data_(bytes ? deploydcn_emulation_malloc(bytes) : nullptr) {}
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory() {
    if (data_) deploydcn_emulation_free(data_);
  }
  void* data() const { return data_; }

 private:
  void* data_;
};

class EmulatedStream {
 public:
  EmulatedStream() : stream_(deploydcn_emulation_stream_create()) {}
  EmulatedStream(const EmulatedStream&) = delete;
  EmulatedStream& operator=(const EmulatedStream&) = delete;
  ~EmulatedStream() { deploydcn_emulation_stream_destroy(stream_); }
  void* get() const { return stream_; }

 private:
  void* stream_;
};

class DeviceTensor {
 public:
  DeviceTensor(Shape shape, DType dtype, Layout layout);
  // Row-major host data; padding of the layout becomes NaN, which no result may depend on.
  void upload(const void* host);
  // Row-major; throws when padding of the layout is not zero.
  std::vector<unsigned char> download() const;
  void* data() const { return memory_.data(); }

 private:
  // Where element `index` of the row-major order is stored.
  std::size_t stored_index(std::size_t index) const;

  Shape shape_;
  DType dtype_;
  Layout layout_;
  std::size_t count_, stored_count_;
  DeviceMemory memory_;
};

}  // namespace deploydcn::harness
