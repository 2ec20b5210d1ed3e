// Vectors of the instruction set being compiled, and their transposition. Part of tile_kernels.inl.
#pragma once

#include <cstdint>

namespace deploydcn::cpu {
namespace {

template <class F>
struct Simd;
template <>
struct Simd<float> {
  static constexpr int kLanes = DEPLOYDCN_VECTOR_BYTES / 4;
  typedef float Vector __attribute__((vector_size(DEPLOYDCN_VECTOR_BYTES)));
  typedef int32_t Integers
      __attribute__((vector_size(DEPLOYDCN_VECTOR_BYTES)));  // as wide as Vector; comparisons yield them
  typedef int32_t Indices __attribute__((vector_size(DEPLOYDCN_VECTOR_BYTES)));  // int32, as many as lanes
};
template <>
struct Simd<double> {
  static constexpr int kLanes = DEPLOYDCN_VECTOR_BYTES / 8;
  typedef double Vector __attribute__((vector_size(DEPLOYDCN_VECTOR_BYTES)));
  typedef int64_t Integers __attribute__((vector_size(DEPLOYDCN_VECTOR_BYTES)));
  typedef int32_t Indices __attribute__((vector_size(DEPLOYDCN_VECTOR_BYTES / 2)));
};
template <class F>
using Vector = typename Simd<F>::Vector;
template <class F>
using Integers = typename Simd<F>::Integers;
typedef uint32_t Words __attribute__((vector_size(DEPLOYDCN_VECTOR_BYTES)));

template <class F>
inline __attribute__((always_inline)) Vector<F> load(const F* from) {
  Vector<F> value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}
// The same, in a register: GCC may load what is used a few times for every use, and make one of two shuffles.
template <class F>
inline __attribute__((always_inline)) Vector<F> in_register(Vector<F> value) {
#if defined(__x86_64__)
  asm("" : "+v"(value));
#endif
  return value;
}
template <class F>
inline __attribute__((always_inline)) Vector<F> load_once(const F* from) {
  return in_register<F>(load<F>(from));
}
template <class F>
inline __attribute__((always_inline)) void store(F* to, Vector<F> value) {
  __builtin_memcpy(to, &value, sizeof value);
}
template <class F>
inline __attribute__((always_inline)) Vector<F> load_some(const F* from, int64_t count) {
  F lanes[Simd<F>::kLanes] = {};
  for (int64_t i = 0; i < count; ++i) lanes[i] = from[i];
  return load<F>(lanes);
}
template <class F>
inline __attribute__((always_inline)) void store_some(F* to, Vector<F> value, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = value[i];
}

// ------------------------------------------------------------------------------------------------- transposition
template <int... I>
struct Indices {};
template <int N, int... I>
struct MakeIndices : MakeIndices<N - 1, N - 1, I...> {};
template <int... I>
struct MakeIndices<0, I...> {
  using type = Indices<I...>;
};

// Element i is a[I_i], or b[I_i - lanes].
template <class F, int... I>
inline __attribute__((always_inline)) Vector<F> shuffle(Vector<F> a, Vector<F> b) {
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 12  // has no __builtin_shufflevector
  return __builtin_shuffle(a, b, Integers<F>{I...});
#else
  return __builtin_shufflevector(a, b, I...);
#endif
}

// Exchanges the off-diagonal blocks of size S between two rows: one butterfly of a transposition.
template <int S, class F, int... I>
inline __attribute__((always_inline)) void exchange(Vector<F>& a, Vector<F>& b, Indices<I...>) {
  constexpr int n = sizeof...(I);
  const Vector<F> low = shuffle<F, ((I & S) ? n + (I - S) : I)...>(a, b);
  b = shuffle<F, ((I & S) ? n + I : I + S)...>(a, b);
  a = low;
}
template <int S, class F>
inline __attribute__((always_inline)) void transpose_steps(Vector<F>* rows) {
  constexpr int n = Simd<F>::kLanes;
  if constexpr (S < n) {
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) {
      if (!(i & S)) exchange<S, F>(rows[i], rows[i + S], typename MakeIndices<n>::type());
    }
    transpose_steps<2 * S, F>(rows);
  }
}
template <class F>
inline __attribute__((always_inline)) void transpose(Vector<F>* rows) {
  transpose_steps<1, F>(rows);
}

}  // namespace
}  // namespace deploydcn::cpu
