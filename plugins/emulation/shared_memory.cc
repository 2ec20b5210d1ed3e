// Shared memory of the running block: an arena in which every array lies between red zones.
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "emulation/failures.h"
#include "emulation/sanitizers.h"
#include "emulation/scheduler.h"

namespace deploydcn::emulation {
namespace {

constexpr size_t kArenaBytes = 1 << 20, kRedZone = 64, kSynchronisationBytes = 16 * 1024;
constexpr int kMostArrays = 256;
constexpr unsigned char kRedZoneByte = 0xfe;

struct Array {
  const void* key;
  size_t key_offset;  // of a carved array in the launch's dynamic memory
  const char* name;
  size_t offset, bytes;  // in the arena
};
Array arrays[kMostArrays];
int array_count = 0;

char* arena = nullptr;
size_t arena_used = 0;
size_t dynamic_bytes = 0, static_bytes = 0, limit_bytes = 0;
const char dynamic_key = 0;
SharedBlock ptx_block{};

char* map_arena() {
  // ThreadSanitizer forgets what it knows of unmapped memory: accesses by, and synchronisations with, earlier blocks.
  const size_t bytes = kSynchronisationBytes + kArenaBytes;
  if (kThreadSanitizer && arena) munmap(arena - kSynchronisationBytes, bytes);
  if (arena && !kThreadSanitizer) return arena;
  void* const memory = mmap(arena ? arena - kSynchronisationBytes : nullptr, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) std::abort();
  return static_cast<char*>(memory) + kSynchronisationBytes;
}

// Not memset: ThreadSanitizer would take it for an access of the running thread.
void fill(char* memory, unsigned char byte, size_t bytes) {
  asm volatile("rep stosb" : "+D"(memory), "+c"(bytes) : "a"(byte) : "memory");
}

Array* find(const void* key, size_t key_offset, size_t bytes, const char* name) {
  for (int i = 0; i < array_count; ++i) {
    Array& array = arrays[i];
    if (array.key == key && array.key_offset == key_offset && array.bytes == bytes && !std::strcmp(array.name, name))
      return &array;
  }
  return nullptr;
}

// Makes [arena + offset, bytes) an array, with red zones on both sides.
void lay_out(const Array& array) {
  if (array_count == kMostArrays || array.offset + array.bytes + 2 * kRedZone > kArenaBytes) {
    fail(cudaErrorLaunchFailure, "the emulator has no room for shared array '%s'", array.name);
  }
  arrays[array_count++] = array;
  char* const memory = arena + array.offset;
  unpoison_memory(memory, array.bytes);
  fill(arena + arena_used, kRedZoneByte, array.offset - arena_used);
  fill(memory, options().poison, array.bytes);
  fill(memory + array.bytes, kRedZoneByte, kRedZone);
  arena_used = array.offset + array.bytes;
}

// Where the array is, or the place it gets now.
void* place(const void* key, size_t key_offset, size_t bytes, size_t alignment, const char* name) {
  if (const Array* known = find(key, key_offset, bytes, name)) return arena + known->offset;
  const size_t offset = (arena_used + kRedZone + alignment - 1) / alignment * alignment;
  lay_out({key, key_offset, name, offset, bytes});
  return arena + offset;
}

void count_static(size_t bytes, const char* name) {
  constexpr size_t kStaticLimit = 48 * 1024;
  static_bytes += bytes;
  if (static_bytes <= kStaticLimit && static_bytes + dynamic_bytes <= limit_bytes) return;
  fail(cudaErrorInvalidValue,
       "shared memory: '%s' brings static arrays to %zu bytes; at most %zu, and %zu with the launch's %zu", name,
       static_bytes, kStaticLimit, limit_bytes, dynamic_bytes);
}

}  // namespace

void reset_shared_memory(size_t bytes, size_t limit) {
  arena = map_arena();
  unpoison_memory(arena, kArenaBytes);
  fill(arena, kRedZoneByte, arena_used);  // an index error must not find the last block's values
  poison_memory(arena, kArenaBytes);
  arena_used = 0;
  array_count = 0;
  ptx_block = {};
  dynamic_bytes = bytes, static_bytes = 0, limit_bytes = limit;
}

void* static_shared(const void* key, size_t bytes, size_t alignment, const char* name) {
  if (!find(key, 0, bytes, name)) count_static(bytes, name);
  return place(key, 0, bytes, alignment < 16 ? 16 : alignment, name);
}

void* dynamic_shared() { return place(&dynamic_key, 0, dynamic_bytes, 128, "dynamic shared memory"); }

void* carve(const void* base, size_t offset, size_t bytes, const char* name) {
  if (base != dynamic_shared()) fail(cudaErrorInvalidValue, "a Carver's base must be GPU_DYN_SMEM");
  if (offset + bytes > dynamic_bytes) {
    fail(cudaErrorIllegalAddress, "dynamic shared memory: '%s' needs bytes %zu to %zu, but the launch asked for %zu",
         name, offset, offset + bytes, dynamic_bytes);
  }
  static const char carved_key = 0;
  return place(&carved_key, offset, bytes, 128, name);
}

SharedBlock shared_block(const SharedArray* layout, size_t count, uint32_t dynamic_offset) {
  if (ptx_block.base) return ptx_block;
  const size_t start = (arena_used + kRedZone + 127) / 128 * 128;
  for (size_t i = 0; i < count; ++i) {
    count_static(layout[i].bytes, layout[i].name);
    lay_out({layout, 0, layout[i].name, start + layout[i].offset, layout[i].bytes});
  }
  lay_out({&dynamic_key, 0, "dynamic shared memory", start + dynamic_offset, dynamic_bytes});
  ptx_block = {arena + start, static_cast<uint32_t>(dynamic_offset + dynamic_bytes)};
  return ptx_block;
}

bool red_zones_intact(const Launch& launch, uint3 block_index) {
  if (array_count == 0) return true;   // nothing was laid out
  if (kAddressSanitizer) return true;  // it has already looked, and would see these reads
  size_t begin = 0;
  for (int i = 0; i <= array_count; ++i) {
    const size_t end = i < array_count ? arrays[i].offset : arena_used + kRedZone;
    for (size_t at = begin; at < end; ++at) {
      if (static_cast<unsigned char>(arena[at]) == kRedZoneByte) continue;
      const std::string where = i == 0 || (at + kRedZone / 2 > end && i < array_count)
                                    ? std::to_string(end - at) + " bytes before '" + arrays[i].name
                                    : std::to_string(at - begin) + " bytes after '" + arrays[i - 1].name;
      record_failure(std::string("kernel ") + launch.name + " block (" + std::to_string(block_index.x) + "," +
                         std::to_string(block_index.y) + "," + std::to_string(block_index.z) +
                         "): shared memory written " + where + "'",
                     cudaErrorLaunchFailure);
      return false;
    }
    if (i < array_count) begin = arrays[i].offset + arrays[i].bytes;
  }
  return true;
}

void* synchronisation_address(unsigned index) { return arena - kSynchronisationBytes + 8 * index; }

}  // namespace deploydcn::emulation
