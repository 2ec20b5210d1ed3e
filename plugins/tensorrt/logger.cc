#include "tensorrt/logger.h"

#include <dlfcn.h>

#include <atomic>
#include <cstdint>
#include <cstdio>

namespace deploydcn::trt {
// Not in an unnamed namespace: the compiler would see that nothing here implements these classes and make every call
// through them an abort.
namespace abi {

// The two layouts ILogger and ILoggerFinder have had, declared by us because one library serves both. Up to TensorRT
// 10.x and TensorRT-RTX 1.4 they are plain interfaces; from TensorRT 11.0 and TensorRT-RTX 1.5 on they derive from
// IVersionedInterface, whose two virtual functions and destructor come first.
struct InterfaceInfo {
  const char* kind;
  int32_t major, minor;
};
class Versioned {
 public:
  virtual int32_t api_language() const noexcept = 0;
  virtual InterfaceInfo interface_info() const noexcept = 0;
  virtual ~Versioned() = default;
};

class PlainLogger {
 public:
  virtual void log(int32_t severity, const char* message) noexcept = 0;
  virtual ~PlainLogger() = default;
};
class PlainFinder {
 public:
  virtual void* find_logger() = 0;

 protected:
  virtual ~PlainFinder() = default;
};
class VersionedLogger : public Versioned {
 public:
  virtual void log(int32_t severity, const char* message) noexcept = 0;
};
class VersionedFinder : public Versioned {
 public:
  virtual void* find_logger() = 0;
};

}  // namespace abi

namespace {

using namespace abi;

enum class Abi { kUnknown, kPlain, kVersioned };

// Which layout a finder has: told by the version of the library its virtual table lies in. TensorRT counts versions as
// major * 10000 + ..., TensorRT-RTX as major * 10000 too but starts at 1.
Abi abi_of(void* finder) {
  Dl_info where{};
  if (!dladdr(*static_cast<void**>(finder), &where) || !where.dli_fname) return Abi::kUnknown;
  void* library = dlopen(where.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
  if (!library) return Abi::kUnknown;
  const auto version_of = reinterpret_cast<int32_t (*)()>(dlsym(library, "getInferLibVersion"));
  const int32_t version = version_of ? version_of() : -1;
  dlclose(library);
  constexpr int32_t kRtx15 = 10500, kTensorRt10 = 100000, kTensorRt11 = 110000;
  if (version < 0) return Abi::kUnknown;
  const bool versioned = version >= kTensorRt11 || (version >= kRtx15 && version < kTensorRt10);
  return versioned ? Abi::kVersioned : Abi::kPlain;
}

std::atomic<void*> g_finder{nullptr};

bool log_through_tensorrt(const char* message) {
  void* finder = g_finder.load();
  if (!finder) return false;
  constexpr int32_t kError = 1;
  switch (abi_of(finder)) {
    case Abi::kUnknown: return false;
    case Abi::kPlain: {
      auto* logger = static_cast<PlainLogger*>(static_cast<PlainFinder*>(finder)->find_logger());
      if (logger) logger->log(kError, message);
      return logger != nullptr;
    }
    case Abi::kVersioned: {
      auto* logger = static_cast<VersionedLogger*>(static_cast<VersionedFinder*>(finder)->find_logger());
      if (logger) logger->log(kError, message);
      return logger != nullptr;
    }
  }
  return false;
}

}  // namespace

void set_logger_finder(void* finder) { g_finder = finder; }

void log_error(const std::string& message) noexcept {
  if (!log_through_tensorrt(message.c_str())) std::fprintf(stderr, "%s\n", message.c_str());
}

}  // namespace deploydcn::trt
