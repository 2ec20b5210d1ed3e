// Small RAII and error helpers over the bound C API. Exceptions travel inside this library and become an OrtStatus at
// its border, in `guarded`.
#pragma once

#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/cpu_op.h"
#include "ort/api.h"

namespace deploydcn::ort {

// Bound once by RegisterCustomOps, before any op can be created.
const Api& api();
// Binds the first runtime's table; false when another runtime's is bound already.
bool bind_api(const void* table);

// The runtime itself reported an error.
class RuntimeError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// True when the call succeeded; releases the status.
inline bool succeeded(Status* status) {
  if (!status) return true;
  api().ReleaseStatus(status);
  return false;
}

inline void check(Status* status) {
  if (!status) return;
  const std::string message = api().GetErrorMessage(status);
  api().ReleaseStatus(status);
  throw RuntimeError(message);
}

// A status from an exception; `where()` gives the start of its message. Allocates nothing that could throw past it.
template <class Where>
Status* error_status(ErrorCode code, Where&& where, const char* message) noexcept {
  try {
    return api().CreateStatus(code, (where() + message).c_str());
  } catch (...) {
    return api().CreateStatus(code, message);
  }
}

// Runs body; turns exceptions into a status whose message starts with `where()`.
template <class Where, class Body>
Status* guarded(Where&& where, Body&& body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const InvalidArgument& error) {
    return error_status(kInvalidArgument, where, error.what());
  } catch (const InternalError& error) {
    return error_status(kFail, [&] { return where() + "bug in deploydcn: "; }, error.what());
  } catch (const std::bad_alloc&) {
    return error_status(kRuntimeException, where, "out of memory");
  } catch (const std::exception& error) {
    return error_status(kRuntimeException, where, error.what());
  }
}

struct ReleaseInfo {
  void operator()(TensorTypeAndShapeInfo* info) const { api().ReleaseTensorTypeAndShapeInfo(info); }
};
using InfoPtr = std::unique_ptr<TensorTypeAndShapeInfo, ReleaseInfo>;

inline ElementType element_type(DType type) {
  switch (type) {
    case DType::kFloat32: return kFloat;
    case DType::kFloat64: return kDouble;
    case DType::kFloat16: return kFloat16;
    case DType::kBFloat16: return kBFloat16;
    case DType::kInt64: return kInt64;
    case DType::kUInt8: return kUInt8;
    case DType::kInt8: return kInt8;
    case DType::kInt32: return kInt32;
  }
  throw InternalError("unknown dtype");
}

// A view of a runtime tensor; `value` null gives an absent view.
TensorView view(const Value* value);

// CpuContext on the runtime's thread pool and arena.
class OrtContext : public CpuContext {
 public:
  explicit OrtContext(KernelContext* context);
  ~OrtContext() override;
  void run(int64_t count, void (*task)(void* state, std::size_t index), void* state) override;
  void* allocate(std::size_t bytes) override;
  void release(void* memory) noexcept override;
  void* output(std::size_t index, const Shape& shape) override;

 private:
  KernelContext* context_;
  Allocator* allocator_ = nullptr;
};

}  // namespace deploydcn::ort
