// GPU_LAUNCH without nvcc.
#pragma once

#include <tuple>
#include <type_traits>
#include <utility>

#include "emulation/runtime.h"

namespace deploydcn::emulation {

// A pointer, or a parameter struct that names its pointers in for_each_pointer(callback).
template <class T>
inline void check_argument(const T& value, int argument, const char* kernel) {
  static_assert(std::is_trivially_copyable_v<T>, "kernel arguments are copied byte by byte");
  if constexpr (std::is_pointer_v<T>) {
    check_pointer_argument(static_cast<const void*>(value), argument, kernel);
  } else if constexpr (requires { value.for_each_pointer([](const void*) {}); }) {
    value.for_each_pointer([&](const void* pointer) { check_pointer_argument(pointer, argument, kernel); });
  }
}

template <class... Parameters, class... Arguments>
inline cudaError_t launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes,
                          cudaStream_t stream, Arguments&&... arguments) {
  static_assert(sizeof...(Parameters) == sizeof...(Arguments), "a kernel gets all its arguments");
  std::tuple<std::remove_cv_t<Parameters>...> values(static_cast<Parameters>(arguments)...);
  std::apply([&, index = 0](const auto&... value) mutable { (check_argument(value, index++, name), ...); }, values);
  return submit({reinterpret_cast<const void*>(kernel), name, grid, block, shared_bytes, stream},
                [kernel, values](PtxKernel ptx) {
                  if (!ptx) return std::apply(kernel, values);
                  std::apply(
                      [ptx](const auto&... value) {
                        void* const pointers[] = {const_cast<void*>(static_cast<const void*>(&value))..., nullptr};
                        ptx(pointers);
                      },
                      values);
                });
}

}  // namespace deploydcn::emulation
