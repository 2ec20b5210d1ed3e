#include "harness/device_tensor.h"

#include <cstring>
#include <stdexcept>

namespace deploydcn::harness {
namespace {

std::size_t stored_count(const Shape& shape, Layout layout) {
  Shape stored = shape;
  if (layout == Layout::kChannelsLast8) stored[1] = (stored[1] + 7) / 8 * 8;
  return static_cast<std::size_t>(element_count(stored));
}

}  // namespace

DeviceTensor::DeviceTensor(Shape shape, DType dtype, Layout layout)
    : shape_(std::move(shape)),
      dtype_(dtype),
      layout_(layout),
      count_(static_cast<std::size_t>(element_count(shape_))),
      stored_count_(stored_count(shape_, layout)),
      // An empty tensor still has an address in TensorRT.
      memory_(std::max<std::size_t>(stored_count_, 1) * size_of(dtype)) {
  std::vector<unsigned char> garbage(stored_count_ * size_of(dtype), 0xff);  // NaN in every type
  deploydcn_emulation_upload(memory_.data(), garbage.data(), garbage.size());
}

std::size_t DeviceTensor::stored_index(std::size_t index) const {
  if (layout_ == Layout::kLinear) return index;
  const auto plane = static_cast<std::size_t>(shape_[2] * shape_[3]), channels = static_cast<std::size_t>(shape_[1]);
  const std::size_t image = index / plane / channels, channel = index / plane % channels, pixel = index % plane;
  return (image * plane + pixel) * ((channels + 7) / 8 * 8) + channel;
}

void DeviceTensor::upload(const void* host) {
  const std::size_t size = size_of(dtype_);
  std::vector<unsigned char> stored(stored_count_ * size, 0xff);
  for (std::size_t i = 0; i < count_; ++i) {
    std::memcpy(stored.data() + stored_index(i) * size, static_cast<const unsigned char*>(host) + i * size, size);
  }
  deploydcn_emulation_upload(memory_.data(), stored.data(), stored.size());
}

std::vector<unsigned char> DeviceTensor::download() const {
  const std::size_t size = size_of(dtype_);
  std::vector<unsigned char> stored(stored_count_ * size), host(count_ * size);
  std::vector<bool> used(stored_count_);
  deploydcn_emulation_download(stored.data(), memory_.data(), stored.size());
  for (std::size_t i = 0; i < count_; ++i) {
    used[stored_index(i)] = true;
    std::memcpy(host.data() + i * size, stored.data() + stored_index(i) * size, size);
  }
  const std::vector<unsigned char> zero(size, 0);
  for (std::size_t i = 0; i < stored_count_; ++i) {
    if (!used[i] && std::memcmp(stored.data() + i * size, zero.data(), size) != 0) {
      throw std::runtime_error("padding channels of a channels-last output are not zero");
    }
  }
  return host;
}

}  // namespace deploydcn::harness
