// Where taps sample, and what they find there. Part of tile_kernels.inl.
#pragma once

#include "core/cpu/blocked_pixels.inl"
#include "core/cpu/simd.inl"
#include "core/cpu/tile_kernels.h"

namespace deploydcn::cpu {
namespace {

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
inline __attribute__((always_inline)) void store_integers(Integers<F> values, int32_t* to) {
  const auto narrow = __builtin_convertvector(values, typename Simd<F>::Indices);
  __builtin_memcpy(to, &narrow, sizeof narrow);
}
template <class F>
inline __attribute__((always_inline)) Integers<F> floor_of(Vector<F> x) {
  const Integers<F> truncated = __builtin_convertvector(x, Integers<F>);
  return truncated + (__builtin_convertvector(truncated, Vector<F>) > x);  // true is -1
}

// Stores four vectors of corner weights, [corner][pixel], as [pixel][corner].
template <class F, int... I>
inline __attribute__((always_inline)) void store_weights(const Vector<F> (&corners)[4], F* to, Indices<I...>) {
  constexpr int n = sizeof...(I);
  constexpr auto one = [](int i, int half) { return (i & 1) * n + i / 2 + half * n / 2; };
  constexpr auto two = [](int i, int half) { return (i >> 1 & 1) * n + (i >> 2) * 2 + (i & 1) + half * n / 2; };
  const Vector<F> top[2] = {shuffle<F, one(I, 0)...>(corners[0], corners[1]),
                            shuffle<F, one(I, 1)...>(corners[0], corners[1])};
  const Vector<F> bottom[2] = {shuffle<F, one(I, 0)...>(corners[2], corners[3]),
                               shuffle<F, one(I, 1)...>(corners[2], corners[3])};
  for (int half = 0; half < 2; ++half) {
    F* first = to + 2 * half * n;
    if constexpr (n == 2) {  // a vector is half an entry
      store<F>(first, top[half]);
      store<F>(first + n, bottom[half]);
    } else {
      store<F>(first, shuffle<F, two(I, 0)...>(top[half], bottom[half]));
      store<F>(first + n, shuffle<F, two(I, 1)...>(top[half], bottom[half]));
    }
  }
}

// From -limit to limit, also if NaN.
template <class F>
inline __attribute__((always_inline)) Vector<F> within(Vector<F> x, F limit) {
  const Vector<F> zero{};
  x = x > -limit ? x : zero - limit;
  return x < limit ? x : zero + limit;
}

// Writes whole vectors of pixels.
template <class F>
void bilinear_taps(const TapGeometry<F>& given, const F* offset, const F* mask, int64_t plane, int64_t pixels,
                   int first, int count, Taps<F>& taps) {
  constexpr int n = Simd<F>::kLanes, ahead = 2;  // taps whose offsets are fetched: runs too short to be foreseen
  static_assert(n <= kMostLanes);
  constexpr F limit = static_cast<F>(1 << 30);  // |base| < 2^29 and H, W < 2^29: beyond this every sample is outside
  const Vector<F> zero{};
  const TapGeometry<F> geometry = given;  // a copy that no store can change
  const int32_t row = geometry.width + 2;
  Integers<F> low = load_integers<F>(taps.low), high = load_integers<F>(taps.high);
  for (int i = 0; i < count; ++i) {
    const int32_t tap = (first + i) % geometry.taps;
    const int32_t tap_y = tap / geometry.kernel_w * geometry.dilation_h;
    const int32_t tap_x = tap % geometry.kernel_w * geometry.dilation_w;
    const F *offset_y = offset + 2 * i * plane, *offset_x = offset_y + plane,
            *tap_mask = mask ? mask + i * plane : mask;
    const int64_t later = i + ahead < count ? ahead * plane : 0;
    int32_t* index = taps.index + (first + i) * taps.stride;
    F* weights = taps.weights + 4 * (first + i) * taps.stride;
    for (int64_t p = 0; p < pixels; p += n) {
      const int64_t left = pixels - p;
      const auto read = [&](const F* from) __attribute__((always_inline)) {
        return left >= n ? load<F>(from + p) : load_some<F>(from + p, left);
      };
      __builtin_prefetch(offset_y + 2 * later + p);
      __builtin_prefetch(offset_x + 2 * later + p);
      if (mask) __builtin_prefetch(tap_mask + later + p);
      Vector<F> y = read(offset_y), x = read(offset_x), m = mask ? read(tap_mask) : zero + 1;
      y = within<F>(y, limit);
      x = within<F>(x, limit);
      const Integers<F> floor_y = floor_of<F>(y), floor_x = floor_of<F>(x);
      const Vector<F> low_y = y - __builtin_convertvector(floor_y, Vector<F>),
                      low_x = x - __builtin_convertvector(floor_x, Vector<F>);
      const Integers<F> iy = floor_y + load_integers<F>(geometry.base_y + p) + tap_y;
      const Integers<F> ix = floor_x + load_integers<F>(geometry.base_x + p) + tap_x;
      // Rows and columns before the image are reached by fractions; true is -1.
      const Integers<F> inside =
          (iy - (low_y > zero) >= 0) & (iy < geometry.height) & (ix - (low_x > zero) >= 0) & (ix < geometry.width);
      m = inside ? m : zero;
      // Selected before they are multiplied: positions outside may be too far for the product.
      const Integers<F> safe_y = inside ? iy + 1 : Integers<F>{} - 1, safe_x = inside ? ix + 1 : Integers<F>{};
      const Integers<F> place = safe_y * row + safe_x;
      low = (inside & (place < low)) ? place : low;
      high = place > high ? place : high;
      store_integers<F>(place, index + p);
      const Vector<F> bottom = low_y * m, top = (1 - low_y) * m;
      const Vector<F> corners[4] = {top * (1 - low_x), top * low_x, bottom * (1 - low_x), bottom * low_x};
      store_weights<F>(corners, weights + 4 * p, typename MakeIndices<n>::type());
    }
  }
  store_integers<F>(low, taps.low);
  store_integers<F>(high, taps.high);
}

template <class F>
void exact_taps(const TapGeometry<F>& geometry, int64_t pixels, Taps<F>& taps) {
  const int32_t row = geometry.width + 2;
  int32_t low = taps.low[0], high = taps.high[0];
  for (int32_t tap = 0; tap < geometry.taps; ++tap) {
    const int32_t tap_y = tap / geometry.kernel_w * geometry.dilation_h;
    const int32_t tap_x = tap % geometry.kernel_w * geometry.dilation_w;
    int32_t* __restrict index = taps.index + tap * taps.stride;
    for (int64_t p = 0; p < pixels; ++p) {
      const int32_t y = geometry.base_y[p] + tap_y, x = geometry.base_x[p] + tap_x;
      const bool inside = (y >= 0) & (y < geometry.height) & (x >= 0) & (x < geometry.width);
      const int32_t place = inside ? (y + 1) * row + x + 1 : -row;
      low = inside & (place < low) ? place : low;
      high = place > high ? place : high;
      index[p] = place;
    }
  }
  taps.low[0] = low;
  taps.high[0] = high;
}

// -------------------------------------------------------------------------------------------------------- sampling
// One sample, a vector of channels at a time; panels and sums of small groups are built from the same three.
template <class F, template <class> class Pixels>
struct BilinearOf {
  static constexpr int kWeights = 4;                    // per sample
  static constexpr int kVectors = Pixels<F>::kVectors;  // of a block: a multiple
  const F *top, *bottom;
  Vector<F> w00, w01, w10, w11;
  int pixel;  // elements
  inline __attribute__((always_inline)) BilinearOf(const SampledBlock<F>& block, int32_t index, const F* weights) {
    const Vector<F> zero{};  // subtracted, which is free: adding it would turn -0 into 0
    pixel = block.cb / Pixels<F>::kVectors;
    top = block.image + static_cast<int64_t>(index) * pixel;
    bottom = top + block.row;
    w00 = weights[0] - zero;
    w01 = weights[1] - zero;
    w10 = weights[2] - zero;
    w11 = weights[3] - zero;
  }
  inline __attribute__((always_inline)) Vector<F> operator()(int c) const {
    return w00 * Pixels<F>::load_channels(top, c) + w01 * Pixels<F>::load_channels(top + pixel, c) +
           w10 * Pixels<F>::load_channels(bottom, c) + w11 * Pixels<F>::load_channels(bottom + pixel, c);
  }
};
template <class F>
using Bilinear = BilinearOf<F, PlainPixels>;
template <class F>
using BilinearOfPairs = BilinearOf<F, PixelPairs>;

// The nearest whole number from low to high, half to even; 0 for NaN.
template <class F>
inline __attribute__((always_inline)) Vector<F> round_within(Vector<F> value, F low, F high) {
  constexpr F shift = sizeof(F) == 4 ? 0x1.8p23 : 0x1.8p52;  // numbers of this size have no fraction
  const Vector<F> zero{};
  value = value == value ? value : zero;
  value = value < low ? zero + low : value;
  value = value > high ? zero + high : value;
  return (value + shift) - shift;
}
template <class F>
struct Rounded {
  static constexpr int kWeights = 4, kVectors = 1;
  Bilinear<F> sample;
  F low, high;
  inline __attribute__((always_inline)) Rounded(const SampledBlock<F>& block, int32_t index, const F* weights)
      : sample(block, index, weights), low(block.low), high(block.high) {}
  inline __attribute__((always_inline)) Vector<F> operator()(int c) const {
    return round_within<F>(sample(c), low, high);
  }
};

template <class F>
struct Exact {
  static constexpr int kWeights = 0, kVectors = 1;
  const F* pixel;
  inline __attribute__((always_inline)) Exact(const SampledBlock<F>& block, int32_t index, const F*)
      : pixel(block.image + static_cast<int64_t>(index) * block.cb) {}
  inline __attribute__((always_inline)) Vector<F> operator()(int c) const { return load<F>(pixel + c); }
};

// The samples of a pixel and a tap, a vector of channels at a time, of a block of kGroups offset groups.
template <class F, template <class> class Sample, int kWidth, int kGroups>
struct BlockSamples {
  static constexpr int n = Simd<F>::kLanes, kGroup = kWidth / kGroups;  // channels
  static_assert(2 * kGroup >= n);
  const SampledBlock<F>& block;
  const int32_t* index;
  const F* weights;
  int64_t group_stride;
  inline __attribute__((always_inline)) BlockSamples(const SampledBlock<F>& of, const int32_t* i, const F* w,
                                                     int64_t stride)
      : block(of), index(i), weights(w), group_stride(stride) {}
  inline __attribute__((always_inline)) Vector<F> operator()(int c) const {
    const Vector<F> first = of_group(c / kGroup)(c);
    if constexpr (kGroup >= n) return first;
    return join(first, of_group(c / kGroup + 1)(c), typename MakeIndices<n>::type());
  }

 private:
  inline __attribute__((always_inline)) Sample<F> of_group(int group) const {
    return Sample<F>(block, index[group * group_stride], weights + Sample<F>::kWeights * group * group_stride);
  }
  template <int... I>
  static inline __attribute__((always_inline)) Vector<F> join(Vector<F> low, Vector<F> high, Indices<I...>) {
    return shuffle<F, (I < n / 2 ? I : n + I)...>(low, high);
  }
};
template <class F, template <class> class Sample, int kWidth>
struct BlockSamples<F, Sample, kWidth, 1> {
  const Sample<F> sample;
  inline __attribute__((always_inline)) BlockSamples(const SampledBlock<F>& block, const int32_t* index,
                                                     const F* weights, int64_t)
      : sample(block, *index, weights) {}
  inline __attribute__((always_inline)) Vector<F> operator()(int c) const { return sample(c); }
};

// Vectors of the widest block: those of 256 bytes, so that four weights serve many channels.
template <class F>
constexpr int kWidestBlock = DEPLOYDCN_VECTOR_BYTES >= 32 ? 256 / DEPLOYDCN_VECTOR_BYTES : 8;

// An argument that is known when a function is compiled.
template <int kValue>
struct Number {
  constexpr operator int() const { return kValue; }
};
// Calls run(Number<N>()), N vectors of `cb` channels.
template <class F, class Run>
inline __attribute__((always_inline)) void by_vectors(int cb, const Run& run) {
  switch (cb / Simd<F>::kLanes) {
    case 1: return run(Number<1>());
    case 2: return run(Number<2>());
    case 3: return run(Number<3>());
    case 4: return run(Number<4>());
    default: return run(Number<8>());
  }
}

// Calls run(Number<N>(), Number<G>()), G offset groups of a block of N vectors.
template <class F, template <class> class Sample, class Run>
inline __attribute__((always_inline)) void by_offset_groups(const SampledBlock<F>& block, const Run& run) {
  const auto run_groups = [&](auto groups) __attribute__((always_inline)) {
    constexpr int vectors = kWidestBlock<F>;
    if constexpr (groups <= 2 * vectors && Sample<F>::kWeights > 0) run(Number<vectors>(), groups);
  };
  switch (block.offset_groups) {
    case 1:
      return by_vectors<F>(block.cb, [&](auto vectors) __attribute__((always_inline)) { run(vectors, Number<1>()); });
    case 2: return run_groups(Number<2>());
    case 4: return run_groups(Number<4>());
    case 8: return run_groups(Number<8>());
    default: return run_groups(Number<16>());
  }
}

constexpr int greatest_divisor(int a, int b) { return b == 0 ? a : greatest_divisor(b, a % b); }

// The samples of pixels, a few at a time. Panel: where those of a pixel go, kVectors vectors at a time (RowPanel,
// TilePanel): of all taps one after the other, and zeros where the last are fewer.
template <class F, template <class> class Sample, class Panel, int kVectors, int kGroups>
class PixelSamples {
  static constexpr int n = Simd<F>::kLanes, cb = kVectors * n, together = Panel::kVectors;
  static constexpr int some_taps = together / greatest_divisor(kVectors, together);  // that fill what is put together

 public:
  inline __attribute__((always_inline)) PixelSamples(const SampledBlock<F>& block, const Taps<F>& taps, int tap_begin,
                                                     int tap_end, void* panel)
      // A copy that no store can change.
      : block_{block.image, block.row, cb, kGroups, block.low, block.high},
        first_index_(taps.index + tap_begin * taps.stride),
        first_weights_(taps.weights + Sample<F>::kWeights * tap_begin * taps.stride),
        stride_(taps.stride),
        group_stride_(taps.group_stride),
        taps_(tap_end - tap_begin),
        panel_(panel),
        out_(panel, 0, 0) {}

  // How many calls of `take` a pixel needs.
  int steps() const { return (taps_ + some_taps - 1) / some_taps; }

  inline __attribute__((always_inline)) void begin(int64_t pixel) {
    index_ = first_index_ + pixel;
    weights_ = first_weights_ + Sample<F>::kWeights * pixel;
    out_ = Panel(panel_, pixel, taps_ * cb);
    left_ = taps_;
  }
  inline __attribute__((always_inline)) bool left() const { return left_ > 0; }
  inline __attribute__((always_inline)) void take() {
    if (some_taps == 1 || left_ >= some_taps) {
      take_taps(some_taps);
    } else {
      take_taps(left_);
    }
  }

 private:
  inline __attribute__((always_inline)) void take_taps(int count) {
    Vector<F> values[together];
#pragma GCC unroll 4
    for (int i = 0; i < some_taps; ++i) {
      const int64_t tap = i < count ? i : count - 1;
      const BlockSamples<F, Sample, cb, kGroups> sample(block_, index_ + tap * stride_,
                                                        weights_ + Sample<F>::kWeights * tap * stride_, group_stride_);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const int place = (i * kVectors + v) % together;
        values[place] = i < count ? sample(v * n) : Vector<F>{};
        if (place == together - 1) out_.put(values, block_);
      }
    }
    index_ += count * stride_;
    weights_ += Sample<F>::kWeights * count * stride_;
    left_ -= count;
  }

  const SampledBlock<F> block_;
  const int32_t* const first_index_;
  const F* const first_weights_;
  const int64_t stride_, group_stride_;
  const int taps_;
  void* const panel_;
  Panel out_;
  const int32_t* index_ = nullptr;
  const F* weights_ = nullptr;
  int left_ = 0;
};

// Calls run(Number<N>(), Number<G>()) for blocks that Sample can be taken of.
template <class F, template <class> class Sample, class Run>
inline __attribute__((always_inline)) void by_block(const SampledBlock<F>& block, const Run& run) {
  by_offset_groups<F, Sample>(block, [&](auto vectors, auto groups) __attribute__((always_inline)) {
    if constexpr (vectors % Sample<F>::kVectors == 0 && vectors <= kWidestBlock<F>) run(vectors, groups);
  });
}

template <class F, template <class> class Sample, class Panel>
void sample(const SampledBlock<F>& block, const Taps<F>& taps, int tap_begin, int tap_end, int64_t pixels,
            void* panel) {
  by_block<F, Sample>(block, [&](auto vectors, auto groups) {
    PixelSamples<F, Sample, Panel, vectors, groups> samples(block, taps, tap_begin, tap_end, panel);
    for (int64_t p = 0; p < pixels; ++p) {
      for (samples.begin(p); samples.left();) samples.take();
    }
  });
}

}  // namespace
}  // namespace deploydcn::cpu
