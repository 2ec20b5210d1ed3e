// Device memory: the host can reach it in copies and while a kernel runs, at no other time.
#pragma once

#include <cstddef>
#include <string>

namespace deploydcn::emulation {

// 16-byte aligned, exactly `bytes` long, all bytes 0xff; null when memory is out.
void* allocate_device(size_t bytes);
bool free_device(void* memory);
// [address, address + bytes) lies in one allocation; with bytes = 0 its end counts too.
bool is_device_memory(const void* address, size_t bytes = 0);

// Device memory is open to this process while one of these lives.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

// Says which allocation was written outside its bounds, "" when none was. Needs DeviceAccess.
std::string overwritten_allocation();
// For messages: "" or " (16 bytes after the end of a device allocation of 4000 bytes)".
std::string describe_address(const void* address);
// `address` is on a page that belongs to device memory. Safe in a signal handler.
bool on_device_page(const void* address);

}  // namespace deploydcn::emulation
