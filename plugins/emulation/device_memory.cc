#include "emulation/device_memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstring>
#include <map>

#include "emulation/sanitizers.h"

namespace deploydcn::emulation {
namespace {

// [guard page][margin, memory][guard page]: the memory ends at a guard page but for what its 16-byte alignment leaves.
// The margins hold a pattern that must survive each kernel.
struct Allocation {
  char* memory;
  size_t bytes;
  char* pages;
  size_t page_bytes;  // without the guards
};
std::map<uintptr_t, Allocation> allocations;
int open_count = 0;

constexpr size_t kPage = 4096, kAlignment = 16;
constexpr unsigned char kMarginByte = 0xc5;

size_t round_up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }

void protect(const Allocation& allocation, bool open) {
  mprotect(allocation.pages, allocation.page_bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE);
  if (open) {
    unpoison_memory(allocation.memory, allocation.bytes);
  } else {
    poison_memory(allocation.pages, allocation.page_bytes);
  }
}

const Allocation* find(const void* address) {  // the last that begins at or before it
  auto after = allocations.upper_bound(reinterpret_cast<uintptr_t>(address));
  return after == allocations.begin() ? nullptr : &(--after)->second;
}

}  // namespace

void* allocate_device(size_t bytes) {
  const size_t page_bytes = round_up(bytes ? bytes : 1, kPage);
  if (page_bytes < bytes) return nullptr;
  void* const mapped = mmap(nullptr, page_bytes + 2 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  char* const pages = static_cast<char*>(mapped) + kPage;
  const Allocation allocation{pages + page_bytes - round_up(bytes ? bytes : 1, kAlignment), bytes, pages, page_bytes};
  mprotect(pages, page_bytes, PROT_READ | PROT_WRITE);
  std::memset(pages, kMarginByte, page_bytes);
  std::memset(allocation.memory, 0xff, bytes);
  poison_memory(mapped, page_bytes + 2 * kPage);
  protect(allocation, open_count > 0);
  allocations[reinterpret_cast<uintptr_t>(allocation.memory)] = allocation;
  return allocation.memory;
}

bool free_device(void* memory) {
  const auto found = allocations.find(reinterpret_cast<uintptr_t>(memory));
  if (found == allocations.end()) return false;
  const Allocation& allocation = found->second;
  unpoison_memory(allocation.pages - kPage, allocation.page_bytes + 2 * kPage);
  munmap(allocation.pages - kPage, allocation.page_bytes + 2 * kPage);
  allocations.erase(found);
  return true;
}

bool is_device_memory(const void* address, size_t bytes) {
  const Allocation* const allocation = find(address);
  if (!allocation) return false;
  const size_t offset = static_cast<size_t>(static_cast<const char*>(address) - allocation->memory);
  return offset <= allocation->bytes && bytes <= allocation->bytes - offset;
}

DeviceAccess::DeviceAccess() {
  if (open_count++) return;
  for (const auto& entry : allocations) protect(entry.second, true);
}
DeviceAccess::~DeviceAccess() {
  if (--open_count) return;
  for (const auto& entry : allocations) protect(entry.second, false);
}

std::string overwritten_allocation() {
  if (kAddressSanitizer) return "";  // it sees such writes itself
  for (const auto& entry : allocations) {
    const Allocation& allocation = entry.second;
    const char* const end = allocation.pages + allocation.page_bytes;
    for (const char* at = allocation.pages; at < end; ++at) {
      if (at == allocation.memory) at += allocation.bytes;
      if (at < end && static_cast<unsigned char>(*at) != kMarginByte)
        return "wrote outside its memory:" + describe_address(at);
    }
  }
  return "";
}

std::string describe_address(const void* address) {
  const char* const at = static_cast<const char*>(address);
  for (const auto& entry : allocations) {
    const Allocation& allocation = entry.second;
    if (at < allocation.pages - kPage || at >= allocation.pages + allocation.page_bytes + kPage) continue;
    const std::string size = "a device allocation of " + std::to_string(allocation.bytes) + " bytes";
    if (at < allocation.memory) return " " + std::to_string(allocation.memory - at) + " bytes before " + size;
    const auto offset = static_cast<size_t>(at - allocation.memory);
    if (offset >= allocation.bytes)
      return " " + std::to_string(offset - allocation.bytes) + " bytes after the end of " + size;
    return " at byte " + std::to_string(offset) + " of " + size;
  }
  return "";
}

bool on_device_page(const void* address) {
  const char* const at = static_cast<const char*>(address);
  for (const auto& entry : allocations) {
    if (at >= entry.second.pages - kPage && at < entry.second.pages + entry.second.page_bytes + kPage) return true;
  }
  return false;
}

}  // namespace deploydcn::emulation
