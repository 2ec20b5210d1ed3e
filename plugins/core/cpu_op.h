// What an op's CPU side offers to a runtime, and what it needs from one. Neither knows the other's headers.
#pragma once

#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <type_traits>

#include "core/poison.h"
#include "core/tensor_view.h"

namespace deploydcn {

// A running kernel's view of the runtime: its thread pool, its allocator, and where outputs go.
class CpuContext {
 public:
  virtual ~CpuContext() = default;
  // Calls task(state, i) for every i in [0, count), on several threads; returns when all are done. Tasks do not throw.
  virtual void run(int64_t count, void (*task)(void* state, std::size_t index), void* state) = 0;
  virtual void* allocate(std::size_t bytes) = 0;
  virtual void release(void* memory) noexcept = 0;
  virtual void* output(std::size_t index, const Shape& shape) = 0;
};

// One node's kernel. Immutable after construction: `compute` may run on several threads at once.
class CpuKernel {
 public:
  virtual ~CpuKernel() = default;
  virtual void compute(Span<const TensorView> inputs, CpuContext& context) const = 0;
};

// How the factors of a product may be multiplied: kFused as they are, by fused multiply-add; kFloat32 by faster means
// that are nearly as precise; kBFloat16 rounded to bfloat16, as the image may be, where that is faster still; kBytes as
// what they then are, whole numbers of 8 bits.
enum class Products { kFused, kFloat32, kBFloat16, kBytes };

// What a kernel is made for.
struct CpuNode {
  Attributes attributes;
  Span<const DType> dtypes;          // one row of the spec's type_rows
  Span<const TensorView> constants;  // inputs known by now (present only then)
  Products products;                 // of numbers that are not of 8 bits
};

// An op as the runtimes see it.
struct CpuOp {
  const OpSpec* spec;
  std::unique_ptr<CpuKernel> (*create)(const CpuNode& node);
};

// Calls body(i) for every i in [0, count) on the context's threads; rethrows the first exception.
template <class Body>
void parallel_for(CpuContext& context, int64_t count, Body&& body) {
  struct State {
    std::remove_reference_t<Body>* body;
    std::mutex mutex;
    std::exception_ptr error;
  } state{&body, {}, nullptr};
  const auto task = [](void* opaque, std::size_t index) {
    State& shared = *static_cast<State*>(opaque);
    try {
      (*shared.body)(static_cast<int64_t>(index));
    } catch (...) {
      const std::lock_guard<std::mutex> lock(shared.mutex);
      if (!shared.error) shared.error = std::current_exception();
    }
  };
  if (count > 0) context.run(count, task, &state);
  if (state.error) std::rethrow_exception(state.error);
}

// Memory from the runtime's allocator, 64-byte aligned, released on scope exit.
template <class T>
class ScratchBuffer {
 public:
  ScratchBuffer(CpuContext& context, int64_t count)
      : context_(context), bytes_(static_cast<std::size_t>(count) * sizeof(T)), memory_(context.allocate(bytes_ + 64)) {
    if (!memory_) throw std::bad_alloc();
    auto* all = static_cast<unsigned char*>(memory_);
    auto* begin = reinterpret_cast<unsigned char*>(data());
    poison(all, static_cast<std::size_t>(begin - all));
    poison(begin + bytes_, static_cast<std::size_t>(all + 64 - begin));
  }
  ScratchBuffer(const ScratchBuffer&) = delete;
  ScratchBuffer& operator=(const ScratchBuffer&) = delete;
  ~ScratchBuffer() {
    unpoison(memory_, bytes_ + 64);
    context_.release(memory_);
  }
  T* data() const {
    return reinterpret_cast<T*>((reinterpret_cast<std::uintptr_t>(memory_) + 63) & ~std::uintptr_t{63});
  }

 private:
  CpuContext& context_;
  std::size_t bytes_;
  void* memory_;
};

}  // namespace deploydcn
