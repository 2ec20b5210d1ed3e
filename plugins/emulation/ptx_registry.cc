#include "emulation/ptx_registry.h"

#include <map>
#include <utility>

namespace deploydcn::emulation {
namespace {
std::map<std::pair<Engine, const void*>, const PtxEntry*>& entries_by_source() {
  static std::map<std::pair<Engine, const void*>, const PtxEntry*> entries;
  return entries;
}
}  // namespace

PtxRegistration::PtxRegistration(const PtxEntry* entries, size_t count) {
  for (const PtxEntry* entry = entries; entry != entries + count; ++entry) {
    // A template instantiated in several files is translated in each; as the linker does, keep the first.
    if (entry->source) entries_by_source().emplace(std::pair(entry->engine, entry->source), entry);
  }
}

const PtxEntry* find_ptx_kernel(Engine engine, const void* source) {
  const auto found = entries_by_source().find({engine, source});
  return found == entries_by_source().end() ? nullptr : found->second;
}

}  // namespace deploydcn::emulation
