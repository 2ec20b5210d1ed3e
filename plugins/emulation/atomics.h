// Atomic operations as relaxed compare-and-swap: ThreadSanitizer sees them as atomic, and as no synchronisation of
// other memory.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace deploydcn::emulation {

template <class T, class Update>
inline T atomic_update(T* address, Update update) {
  static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8);
  using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>>;
  Bits* const cell = reinterpret_cast<Bits*>(address);
  Bits old_bits = __atomic_load_n(cell, __ATOMIC_RELAXED), new_bits;
  T old_value;
  do {
    std::memcpy(&old_value, &old_bits, sizeof(T));
    const T new_value = update(old_value);
    std::memcpy(&new_bits, &new_value, sizeof(T));
  } while (!__atomic_compare_exchange_n(cell, &old_bits, new_bits, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old_value;
}

}  // namespace deploydcn::emulation

template <class T>
inline T atomicAdd(T* address, std::type_identity_t<T> value) {
  return deploydcn::emulation::atomic_update(address, [value](T old) { return static_cast<T>(old + value); });
}
template <class T>
inline T atomicMax(T* address, std::type_identity_t<T> value) {
  return deploydcn::emulation::atomic_update(address, [value](T old) { return old > value ? old : value; });
}
template <class T>
inline T atomicMin(T* address, std::type_identity_t<T> value) {
  return deploydcn::emulation::atomic_update(address, [value](T old) { return old < value ? old : value; });
}
template <class T>
inline T atomicExch(T* address, std::type_identity_t<T> value) {
  return deploydcn::emulation::atomic_update(address, [value](T) { return value; });
}
template <class T>
inline T atomicCAS(T* address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  return deploydcn::emulation::atomic_update(address, [=](T old) { return old == expected ? value : old; });
}
