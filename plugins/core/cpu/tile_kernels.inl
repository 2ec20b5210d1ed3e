// Bodies of tile_kernels.h. Included by one file per instruction set, which defines DEPLOYDCN_ISA (a name),
// DEPLOYDCN_VECTOR_BYTES and DEPLOYDCN_MAX_ROWS (accumulator rows: rows * 2 vectors + 3 fit the register file).
//
// Everything here has internal linkage and calls no inline function of a library: a function that the linker shared
// with other files could otherwise end up compiled for an instruction set the machine lacks. A test inspects the
// objects.
//
// Accuracy: sums in F in the order tap, channel; positions are exact (see bilinear_tap).

#include "core/cpu/tile_kernels.h"

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

template <class F>
inline __attribute__((always_inline)) Vector<F> load(const F* from) {
  Vector<F> value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
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

// Exchanges the off-diagonal blocks of size S between two rows: one butterfly of a transposition.
template <int S, class F, int... I>
inline __attribute__((always_inline)) void exchange(Vector<F>& a, Vector<F>& b, Indices<I...>) {
  constexpr int n = sizeof...(I);
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 12  // has no __builtin_shufflevector
  const Vector<F> low = __builtin_shuffle(a, b, Integers<F>{((I & S) ? n + (I - S) : I)...});
  const Vector<F> high = __builtin_shuffle(a, b, Integers<F>{((I & S) ? n + I : I + S)...});
#else
  const Vector<F> low = __builtin_shufflevector(a, b, ((I & S) ? n + (I - S) : I)...);
  const Vector<F> high = __builtin_shufflevector(a, b, ((I & S) ? n + I : I + S)...);
#endif
  a = low;
  b = high;
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

// -------------------------------------------------------------------------------------------------------- layouts
template <class F>
void block_row(const F* in, int64_t plane_stride, int channels, int64_t width, F* out, int cb) {
  constexpr int n = Simd<F>::kLanes;
  for (int c = 0; c < cb; c += n) {
    for (int64_t x = 0; x < width; x += n) {
      const int64_t pixels = width - x < n ? width - x : n;
      Vector<F> rows[n];
      for (int i = 0; i < n; ++i) {
        const F* from = in + (c + i) * plane_stride + x;
        rows[i] = c + i >= channels ? Vector<F>{} : pixels == n ? load<F>(from) : load_some<F>(from, pixels);
      }
      transpose<F>(rows);
      for (int i = 0; i < pixels; ++i) store<F>(out + (x + i) * cb + c, rows[i]);
    }
  }
}

// ------------------------------------------------------------------------------------------------------- positions
// base + offset is never formed in floating point: the offset is split into floor and fraction (exact), and the floor
// is added to the base as an integer. At 900 pixels this is 500 times more precise than adding in float32.
template <class F>
inline __attribute__((always_inline)) Integers<F> load_integers(const int32_t* from) {
  typename Simd<F>::Indices value;
  __builtin_memcpy(&value, from, sizeof value);
  return __builtin_convertvector(value, Integers<F>);
}
template <class F>
inline __attribute__((always_inline)) Integers<F> floor_of(Vector<F> x) {
  const Integers<F> truncated = __builtin_convertvector(x, Integers<F>);
  return truncated + (__builtin_convertvector(truncated, Vector<F>) > x);  // true is -1
}

// Writes whole vectors: rows of `taps` hold a multiple of the lanes.
template <class F>
void bilinear_tap(const TapGeometry<F>& geometry, const F* offset_y, const F* offset_x, const F* mask, int64_t pixels,
                  int tap, Taps<F>& taps) {
  constexpr int n = Simd<F>::kLanes;
  constexpr F limit = static_cast<F>(1 << 30);  // |base| < 2^29 and H, W < 2^29: beyond this every sample is outside
  const Vector<F> zero{};
  const int32_t row = taps.row_pixels;
  int32_t* index = taps.index + tap * taps.stride;
  F* weight = taps.weights + 4 * tap * taps.stride;
  for (int64_t p = 0; p < pixels; p += n) {
    const int64_t count = pixels - p;
    const auto read = [&](const F* from) __attribute__((always_inline)) {
      return count >= n ? load<F>(from + p) : load_some<F>(from + p, count);
    };
    Vector<F> y = read(offset_y), x = read(offset_x), m = mask ? read(mask) : zero + 1;
    const Integers<F> finite = (y > -limit) & (y < limit) & (x > -limit) & (x < limit);  // false for NaN
    y = finite ? y : zero;
    x = finite ? x : zero;
    const Integers<F> floor_y = floor_of<F>(y), floor_x = floor_of<F>(x);
    const Vector<F> low_y = y - __builtin_convertvector(floor_y, Vector<F>),
                    low_x = x - __builtin_convertvector(floor_x, Vector<F>);
    const Integers<F> iy = floor_y + load_integers<F>(geometry.base_y + p) + geometry.tap_y;
    const Integers<F> ix = floor_x + load_integers<F>(geometry.base_x + p) + geometry.tap_x;
    const Integers<F> inside = finite & ((iy >= 0) | ((iy == -1) & (low_y > zero))) & (iy < geometry.height) &
                               ((ix >= 0) | ((ix == -1) & (low_x > zero))) & (ix < geometry.width);
    m = inside ? m : zero;
    // Selected before they are multiplied: positions outside may be too far for the product.
    const Integers<F> safe_y = inside ? iy + 1 : Integers<F>{}, safe_x = inside ? ix + 1 : Integers<F>{} + (row - 1);
    const Integers<F> at = safe_y * row + safe_x;
    const auto indices = __builtin_convertvector(at, typename Simd<F>::Indices);
    __builtin_memcpy(index + p, &indices, sizeof indices);
    const Vector<F> bottom = low_y * m, top = (1 - low_y) * m;
    store<F>(weight + p, top * (1 - low_x));
    store<F>(weight + taps.stride + p, top * low_x);
    store<F>(weight + 2 * taps.stride + p, bottom * (1 - low_x));
    store<F>(weight + 3 * taps.stride + p, bottom * low_x);
  }
}

template <class F>
void exact_tap(const TapGeometry<F>& geometry, int64_t pixels, int tap, Taps<F>& taps) {
  int32_t* __restrict index = taps.index + tap * taps.stride;
  for (int64_t p = 0; p < pixels; ++p) {
    const int32_t y = geometry.base_y[p] + geometry.tap_y, x = geometry.base_x[p] + geometry.tap_x;
    const bool inside = (y >= 0) & (y < geometry.height) & (x >= 0) & (x < geometry.width);
    index[p] = inside ? (y + 1) * taps.row_pixels + x + 1 : taps.row_pixels - 1;
  }
}

// -------------------------------------------------------------------------------------------------------- sampling
// A sampler yields the value of pixel p, tap t as vectors; panels and depthwise sums are built from the same two.
template <class F>
struct Bilinear {
  const F* image;
  const Taps<F>& taps;
  int cb;
  struct At {
    const F *top, *bottom;
    Vector<F> w00, w01, w10, w11;
    int cb;
    inline __attribute__((always_inline)) Vector<F> operator()(int c) const {
      return w00 * load<F>(top + c) + w01 * load<F>(top + cb + c) + w10 * load<F>(bottom + c) +
             w11 * load<F>(bottom + cb + c);
    }
  };
  inline __attribute__((always_inline)) At at(int64_t p, int t) const {
    const F* w = taps.weights + 4 * t * taps.stride + p;
    const F* top = image + static_cast<int64_t>(taps.index[t * taps.stride + p]) * cb;
    const Vector<F> zero{};
    return {top,
            top + static_cast<int64_t>(taps.row_pixels) * cb,
            zero + w[0],
            zero + w[taps.stride],
            zero + w[2 * taps.stride],
            zero + w[3 * taps.stride],
            cb};
  }
};
template <class F>
struct Exact {
  const F* image;
  const Taps<F>& taps;
  int cb;
  struct At {
    const F* pixel;
    inline __attribute__((always_inline)) Vector<F> operator()(int c) const { return load<F>(pixel + c); }
  };
  inline __attribute__((always_inline)) At at(int64_t p, int t) const {
    return {image + static_cast<int64_t>(taps.index[t * taps.stride + p]) * cb};
  }
};

template <class F, template <class> class Sampler, int kVectors>
void sample_block(const F* image, const Taps<F>& taps, int tap_begin, int tap_end, int64_t pixels, F* panel,
                  int64_t lda) {
  constexpr int n = Simd<F>::kLanes, cb = kVectors * n;
  const Sampler<F> sampler{image, taps, cb};
  for (int64_t p = 0; p < pixels; ++p) {
    F* out = panel + p * lda;
    for (int t = tap_begin; t < tap_end; ++t, out += cb) {
      const auto value = sampler.at(p, t);
#pragma GCC unroll 4
      for (int c = 0; c < cb; c += n) store<F>(out + c, value(c));
    }
  }
}
template <class F, template <class> class Sampler>
void sample(const F* image, int cb, const Taps<F>& taps, int tap_begin, int tap_end, int64_t pixels, F* panel,
            int64_t lda) {
  switch (cb / Simd<F>::kLanes) {
    case 1: return sample_block<F, Sampler, 1>(image, taps, tap_begin, tap_end, pixels, panel, lda);
    case 2: return sample_block<F, Sampler, 2>(image, taps, tap_begin, tap_end, pixels, panel, lda);
    default: return sample_block<F, Sampler, 4>(image, taps, tap_begin, tap_end, pixels, panel, lda);
  }
}

template <class F, template <class> class Sampler, int kVectors>
void depthwise_block(const F* image, const Taps<F>& taps, int tap_count, int64_t pixels, const F* weight, F* tile) {
  constexpr int n = Simd<F>::kLanes, cb = kVectors * n;
  const Sampler<F> sampler{image, taps, cb};
  for (int64_t p = 0; p < pixels; ++p) {
    Vector<F> sum[kVectors] = {};
    for (int t = 0; t < tap_count; ++t) {
      const auto value = sampler.at(p, t);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[v] += value(v * n) * load<F>(weight + t * cb + v * n);
    }
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) store<F>(tile + p * cb + v * n, sum[v]);
  }
}
template <class F, template <class> class Sampler>
void depthwise(const F* image, int cb, const Taps<F>& taps, int tap_count, int64_t pixels, const F* weight, F* tile) {
  switch (cb / Simd<F>::kLanes) {
    case 1: return depthwise_block<F, Sampler, 1>(image, taps, tap_count, pixels, weight, tile);
    case 2: return depthwise_block<F, Sampler, 2>(image, taps, tap_count, pixels, weight, tile);
    default: return depthwise_block<F, Sampler, 4>(image, taps, tap_count, pixels, weight, tile);
  }
}

// -------------------------------------------------------------------------------------------------- multiplication
// kRows pixels x kVectors vectors of accumulators stay in registers over the whole depth. Rows are addressed in threes
// from one pointer (0, lda, 2 * lda), so that all pointers fit the register file too.
template <class F, int kRows, int kVectors>
void multiply_rows(const F* panel, int64_t lda, int taps, int64_t tap_stride, int64_t depth, const F* weight, F* tile,
                   bool accumulate) {
  constexpr int n = Simd<F>::kLanes, ldc = kVectors * n, kPointers = (kRows + 2) / 3;
  Vector<F> sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[r][v] = accumulate ? load<F>(tile + r * ldc + v * n) : Vector<F>{};
  }
  for (int t = 0; t < taps; ++t) {
    const F* rows[kPointers];
#pragma GCC unroll 8
    for (int r = 0; r < kPointers; ++r) rows[r] = panel + t * tap_stride + 3 * r * lda;
    for (int64_t k = 0; k < depth; ++k, weight += ldc) {
      Vector<F> b[kVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        b[v] = load<F>(weight + v * n);
        __builtin_prefetch(weight + 64 * ldc + v * n);
      }
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const F a = rows[r / 3][r % 3 == 0 ? 0 : r % 3 == 1 ? lda : 2 * lda];
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) sum[r][v] += a * b[v];
      }
#pragma GCC unroll 8
      for (int r = 0; r < kPointers; ++r) ++rows[r];
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) store<F>(tile + r * ldc + v * n, sum[r][v]);
  }
}

template <class F, int kVectors, int... I>
void multiply_vectors(const F* panel, int64_t lda, int64_t pixels, int taps, int64_t tap_stride, int64_t depth,
                      const F* weight, F* tile, bool accumulate, Indices<I...>) {
  using Kernel = void (*)(const F*, int64_t, int, int64_t, int64_t, const F*, F*, bool);
  constexpr Kernel kernels[] = {multiply_rows<F, I + 1, kVectors>...};
  constexpr int64_t max_rows = sizeof...(I);
  // Nearly equal chunks, so that none is short.
  const int64_t chunks = (pixels + max_rows - 1) / max_rows;
  for (int64_t i = 0, p = 0; i < chunks; ++i) {
    const int64_t rows = pixels / chunks + (i < pixels % chunks ? 1 : 0);
    kernels[rows - 1](panel + p * lda, lda, taps, tap_stride, depth, weight, tile + p * kVectors * Simd<F>::kLanes,
                      accumulate);
    p += rows;
  }
}
template <class F>
void multiply(const F* panel, int64_t lda, int64_t pixels, int taps, int64_t tap_stride, int64_t depth, const F* weight,
              int vectors, F* tile, bool accumulate) {
  using Rows = typename MakeIndices<DEPLOYDCN_MAX_ROWS>::type;
  if (vectors == 2) {
    multiply_vectors<F, 2>(panel, lda, pixels, taps, tap_stride, depth, weight, tile, accumulate, Rows());
  } else {
    multiply_vectors<F, 1>(panel, lda, pixels, taps, tap_stride, depth, weight, tile, accumulate, Rows());
  }
}

// ------------------------------------------------------------------------------------------------------ activation
// exp(x) by 2^n * p(r), |r| <= ln(2)/2, polynomial of degree 7 (Taylor): relative error below 3e-7; saturates outside
// +-87.
inline __attribute__((always_inline)) Vector<float> exponential(Vector<float> x) {
  typedef int32_t Integers __attribute__((vector_size(DEPLOYDCN_VECTOR_BYTES)));
  x = x > 87.0f ? Vector<float>{} + 87.0f : x;
  x = x < -87.0f ? Vector<float>{} - 87.0f : x;
  const Vector<float> scaled = x * 1.44269504f;
  const Integers n =
      __builtin_convertvector(scaled + (scaled < 0.0f ? Vector<float>{} - 0.5f : Vector<float>{} + 0.5f), Integers);
  const Vector<float> whole = __builtin_convertvector(n, Vector<float>);
  const Vector<float> r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  Vector<float> p = Vector<float>{} + 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const Integers power = (n + 127) << 23;
  Vector<float> scale;
  __builtin_memcpy(&scale, &power, sizeof scale);
  return p * scale;
}
inline __attribute__((always_inline)) Vector<double> exponential(Vector<double> x) {
  for (int i = 0; i < Simd<double>::kLanes; ++i) x[i] = __builtin_exp(x[i]);
  return x;
}

template <class F>
inline __attribute__((always_inline)) Vector<F> activate(Vector<F> y, Activation activation) {
  const Vector<F> zero{}, six = zero + 6;
  switch (activation) {
    case Activation::kNone: return y;
    case Activation::kRelu: return y < zero ? zero : y;  // written so that NaN stays NaN
    case Activation::kRelu6: return y < zero ? zero : y > six ? six : y;
    case Activation::kSilu: {
      // Below -87 the exponential saturates; there the true value rounds to zero (and is NaN for -infinity).
      const Vector<F> silu = y / (exponential(-y) + 1);
      return y == y ? (y < static_cast<F>(-87) && sizeof(F) == 4 ? y * zero : silu) : y;
    }
  }
  return y;
}

template <class F>
void finish(const F* tile, int64_t ld, int64_t pixels, int channels, const F* bias, Activation activation, F* out,
            int64_t plane_stride) {
  constexpr int n = Simd<F>::kLanes;
  for (int c = 0; c < channels; c += n) {
    const Vector<F> b = load<F>(bias + c);
    const int valid = channels - c < n ? channels - c : n;
    for (int64_t p = 0; p < pixels; p += n) {
      const int64_t count = pixels - p < n ? pixels - p : n;
      Vector<F> rows[n];
      for (int i = 0; i < n; ++i) rows[i] = activate<F>(load<F>(tile + (p + i) * ld + c) + b, activation);
      transpose<F>(rows);
      for (int i = 0; i < valid; ++i) {
        F* to = out + (c + i) * plane_stride + p;
        if (count == n) {
          store<F>(to, rows[i]);
        } else {
          store_some<F>(to, rows[i], count);
        }
      }
    }
  }
}

template <class F>
void finish_panel(F* panel, int64_t pixels, int cb, const F* bias, Activation activation) {
  for (int c = 0; c < cb; c += Simd<F>::kLanes) {
    const Vector<F> b = load<F>(bias + c);
    for (int64_t p = 0; p < pixels; ++p) {
      F* at = panel + p * cb + c;
      store<F>(at, activate<F>(load<F>(at) + b, activation));
    }
  }
}

}  // namespace
}  // namespace deploydcn::cpu

#include "core/cpu/point_kernels.inl"

namespace deploydcn::cpu {
namespace {

#define DEPLOYDCN_STRING_(x) #x
#define DEPLOYDCN_STRING(x) DEPLOYDCN_STRING_(x)
template <class F>
constexpr TileKernels<F> kTable = {
    DEPLOYDCN_STRING(DEPLOYDCN_ISA),
    Simd<F>::kLanes,
    DEPLOYDCN_MAX_ROWS,
    block_row<F>,
    bilinear_tap<F>,
    exact_tap<F>,
    sample<F, Bilinear>,
    sample<F, Exact>,
    multiply<F>,
    depthwise<F, Bilinear>,
    depthwise<F, Exact>,
    finish_panel<F>,
    finish<F>,
    locate_points<F>,
    sum_points<F>,
};

}  // namespace

namespace DEPLOYDCN_ISA {
extern const TileKernels<float> kFloat;
extern const TileKernels<double> kDouble;
const TileKernels<float> kFloat = kTable<float>;
const TileKernels<double> kDouble = kTable<double>;
}  // namespace DEPLOYDCN_ISA

}  // namespace deploydcn::cpu
