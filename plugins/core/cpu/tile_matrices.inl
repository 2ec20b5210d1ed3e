// Panels times weights on the processor's matrix tiles (Intel AMX): 16 rows of 64 bytes, products of bfloat16 summed in
// float32, 15 times as many per second as by fused multiply-add. Part of tile_kernels.inl.
//
// A float32 is the sum of three bfloat16 of eight bits each. Of the nine products of two such sums the three smallest
// are below half a unit in the last place of a float32 and left out; six remain, still more than twice as fast. Samples
// are cut (two operations), weights rounded to nearest, so that what is left out has no bias. Denormal parts count as
// zero. An infinite value has no such parts: it becomes NaN, which the caller detects and computes again without tiles.
//
// Whole numbers of 8 bits are multiplied as they are and summed in 32 bits, four in the place of two bfloat16.
#pragma once

#include "core/cpu/bfloat16.inl"
#include "core/cpu/combined_products.inl"
#include "core/cpu/simd.inl"
#include "core/cpu/tile_kernels.h"
#include "core/cpu/tile_layouts.inl"
#include "core/cpu/tile_samples.inl"
#include "core/cpu/whole_numbers.inl"

#if defined(__AMX_BF16__)
#include <immintrin.h>
#endif

namespace deploydcn::cpu {
namespace {

// What the tiles hold: numbers in three parts, numbers rounded to one, whole numbers.
enum class Tiles { kFloat32, kBFloat16, kBytes };

// TileKernels::fast.
template <class F>
constexpr const MatrixKernels<F>* kFast = &kHopcroftKerr<F>;
template <class F>
constexpr const MatrixKernels<F>* kSecond = &kStrassen<F>;

#if defined(__AMX_BF16__)

constexpr int kTileRows = 16, kTileBytes = 1024;  // pixels; bytes
// From one tile of a panel to the next: a line more than it has. What a pixel writes one after the other would lie in
// four sets of the first-level cache otherwise, too few for the stores under way.
constexpr int kSampleBytes = kTileBytes + 64;
constexpr int kColumns = 2;                   // tiles of 16 outputs side by side
constexpr int64_t kTogether = 2 * kTileRows;  // pixels
template <Tiles kTiles>
constexpr int kParts = kTiles == Tiles::kFloat32 ? 3 : 1;
template <Tiles kTiles>
constexpr int kTileDepth = kTiles == Tiles::kBytes ? 64 : 32;  // values of a pixel
template <Tiles kTiles>
constexpr int64_t tile_steps(int64_t values) {
  return (values + kTileDepth<kTiles> - 1) / kTileDepth<kTiles>;
}

// Panels are tiles of 16 pixels x 64 bytes, [16 pixels][64 bytes of channels][part], kSampleBytes apart. A vector of
// channels c, its neighbour of channels 16 + c and so on lie side by side: packing them takes no shuffles.
template <Tiles kTiles>
struct TilePanel {
  static constexpr int kVectors = kTileDepth<kTiles> / kTileRows;
  static constexpr int kStep = kParts<kTiles> * kSampleBytes;
  unsigned char* to;
  inline __attribute__((always_inline)) TilePanel(void* panel, int64_t pixel, int64_t values)
      : to(static_cast<unsigned char*>(panel) + pixel / kTileRows * tile_steps<kTiles>(values) * kStep +
           pixel % kTileRows * 64) {}

  inline __attribute__((always_inline)) void put(const Vector<float>* values, const SampledBlock<float>& block) {
    if constexpr (kTiles == Tiles::kBytes) {
      const Words words = whole_numbers(values, block);
      __builtin_memcpy(to, &words, sizeof words);
    } else {
      put_parts(values[0], values[1]);
    }
    to += kStep;
  }

 private:
  inline __attribute__((always_inline)) void put_parts(Vector<float> a, Vector<float> b) {
#pragma GCC unroll 3
    for (int part = 0; part < kParts<kTiles>; ++part) {
      constexpr bool rounds = kTiles == Tiles::kBFloat16;
      const Words word_a = rounds ? round_to_upper(a) : reinterpret_cast<Words>(a);
      const Words word_b = rounds ? round_to_upper(b) : reinterpret_cast<Words>(b);
      const Words upper_a = word_a & 0xffff0000, upper_b = word_b & 0xffff0000;
      const Words both = word_a >> 16 | upper_b;
      __builtin_memcpy(to + part * kSampleBytes, &both, sizeof both);
      a -= reinterpret_cast<Vector<float>>(upper_a);
      b -= reinterpret_cast<Vector<float>>(upper_b);
    }
  }
};

// [channels of a tile][part][16 outputs]: tiles of 16 rows, each the two or four channels side by side of 16 outputs.
template <Tiles kTiles>
int64_t pack_tiles(const float* weights, int64_t depth, int row, void* out) {
  constexpr int together = kTileDepth<kTiles> / kTileRows;
  const int64_t steps = tile_steps<kTiles>(depth), columns = row / kTileRows;
  for (int64_t step = 0; out && step < steps; ++step) {
    for (int64_t column = 0; column < columns; ++column) {
      for (int place = 0; place < kTileRows * kTileDepth<kTiles>; ++place) {
        const int side = place / kTileDepth<kTiles>, output = place / together % kTileRows, which = place % together;
        const int64_t channel = step * kTileDepth<kTiles> + which * kTileRows + side;
        float left = channel < depth ? weights[channel * row + column * kTileRows + output] : 0;
        if constexpr (kTiles == Tiles::kBytes) {
          static_cast<int8_t*>(out)[(step * columns + column) * kTileBytes + place] = static_cast<int8_t>(left);
        } else {
          for (int part = 0; part < kParts<kTiles>; ++part) {
            const uint32_t word = nearest_bfloat16(left), wide = word << 16;
            const int64_t tile = (step * kParts<kTiles> + part) * columns + column;
            static_cast<uint16_t*>(out)[tile * (kTileBytes / 2) + place] = static_cast<uint16_t>(word);
            float rounded;
            __builtin_memcpy(&rounded, &wide, sizeof rounded);
            left -= rounded;
          }
        }
      }
    }
  }
  return steps * kParts<kTiles> * columns * kTileBytes;
}

struct alignas(64) TileConfiguration {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Tiles 0 to 3 are sums, 4 and 5 samples, 6 and 7 weights. The intrinsics take their numbers as literals.
#define DEPLOYDCN_SAMPLES(a, from) _tile_loadd(a, (from), 64)
#define DEPLOYDCN_WEIGHTS(from) \
  _tile_loadd(6, (from), 64);   \
  _tile_loadd(7, (from) + kTileBytes, 64)
#define DEPLOYDCN_ROW_PRODUCTS(left, right, a) \
  if constexpr (kTiles == Tiles::kBytes) {     \
    _tile_dpbusd(left, a, 6);                  \
    _tile_dpbusd(right, a, 7);                 \
  } else {                                     \
    _tile_dpbf16ps(left, a, 6);                \
    _tile_dpbf16ps(right, a, 7);               \
  }
#define DEPLOYDCN_COLUMN_PRODUCTS(upper, lower) \
  if constexpr (kTiles == Tiles::kBytes) {      \
    _tile_dpbusd(upper, 4, 6);                  \
    _tile_dpbusd(lower, 5, 6);                  \
  } else {                                      \
    _tile_dpbf16ps(upper, 4, 6);                \
    _tile_dpbf16ps(lower, 5, 6);                \
  }

constexpr int kSums = kColumns * kTileRows * kTileRows;              // of 16 pixels
constexpr int64_t kSumBytes = kColumns * kTileRows * sizeof(float);  // a row of sums
constexpr int kWeightBytes = kColumns * kTileBytes;                  // one part of one step's weights

// How often products of 32 pixels call between() in every step.
template <Tiles kTiles>
constexpr int kPauses = kTiles == Tiles::kFloat32 ? 6 : 1;

// 32 pixels x 32 outputs.
template <Tiles kTiles, class Between>
inline __attribute__((always_inline)) void multiply_square(const unsigned char* upper, const unsigned char* lower,
                                                           const unsigned char* weight, int64_t steps, float* sums,
                                                           bool accumulate, Between& between) {
  float* next = sums + kSums;
  if (accumulate) {
    _tile_loadd(0, sums, kSumBytes);
    _tile_loadd(1, sums + kTileRows, kSumBytes);
    _tile_loadd(2, next, kSumBytes);
    _tile_loadd(3, next + kTileRows, kSumBytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  const auto samples = [&](int part) __attribute__((always_inline)) {
    DEPLOYDCN_SAMPLES(4, upper + part * kSampleBytes);
    DEPLOYDCN_SAMPLES(5, lower + part * kSampleBytes);
  };
  const auto products = [&]() __attribute__((always_inline)) {
    DEPLOYDCN_ROW_PRODUCTS(0, 1, 4);
    DEPLOYDCN_ROW_PRODUCTS(2, 3, 5);
    between();
  };
  for (int64_t step = 0; step < steps; ++step) {
    if constexpr (kTiles == Tiles::kFloat32) {  // (sample part, weight part): all six that add up to at most two
      DEPLOYDCN_WEIGHTS(weight + 2 * kWeightBytes);
      samples(0);
      products();  // 0, 2
      DEPLOYDCN_WEIGHTS(weight + kWeightBytes);
      products();  // 0, 1
      samples(1);
      products();  // 1, 1
      DEPLOYDCN_WEIGHTS(weight);
      products();  // 1, 0
      samples(2);
      products();  // 2, 0
    } else {
      DEPLOYDCN_WEIGHTS(weight);
    }
    samples(0);
    products();  // 0, 0
    upper += kParts<kTiles> * kSampleBytes;
    lower += kParts<kTiles> * kSampleBytes;
    weight += kParts<kTiles> * kWeightBytes;
  }
  _tile_stored(0, sums, kSumBytes);
  _tile_stored(1, sums + kTileRows, kSumBytes);
  _tile_stored(2, next, kSumBytes);
  _tile_stored(3, next + kTileRows, kSumBytes);
}

// One vector of sums, of numbers or of whole numbers.
template <Tiles kTiles>
inline __attribute__((always_inline)) void add_sums(float* sums, const float* others) {
  if constexpr (kTiles == Tiles::kBytes) {
    const Integers<float> sum = load_whole(sums) + load_whole(others);
    __builtin_memcpy(sums, &sum, sizeof sum);
  } else {
    store<float>(sums, load<float>(sums) + load<float>(others));
  }
}

// 32 pixels x 16 outputs; those of the other column become 0. Two sets of sums, because a product waits for the one
// before it on the same sums.
template <Tiles kTiles, class Between>
inline __attribute__((always_inline)) void multiply_column(const unsigned char* upper, const unsigned char* lower,
                                                           const unsigned char* weight, int64_t steps, float* sums,
                                                           bool accumulate, Between& between) {
  alignas(64) float others[kSums];
  if (accumulate) {
    _tile_loadd(0, sums, kSumBytes);
    _tile_loadd(1, sums + kSums, kSumBytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
  }
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t step = 0; step < steps; ++step) {
    if constexpr (kTiles == Tiles::kFloat32) {
      _tile_loadd(6, weight + 2 * kWeightBytes, 64);
      DEPLOYDCN_SAMPLES(4, upper);
      DEPLOYDCN_SAMPLES(5, lower);
      DEPLOYDCN_COLUMN_PRODUCTS(2, 3);  // 0, 2
      between();
      _tile_loadd(6, weight + kWeightBytes, 64);
      DEPLOYDCN_COLUMN_PRODUCTS(0, 1);  // 0, 1
      between();
      DEPLOYDCN_SAMPLES(4, upper + kSampleBytes);
      DEPLOYDCN_SAMPLES(5, lower + kSampleBytes);
      DEPLOYDCN_COLUMN_PRODUCTS(2, 3);  // 1, 1
      between();
      _tile_loadd(6, weight, 64);
      DEPLOYDCN_COLUMN_PRODUCTS(0, 1);  // 1, 0
      between();
      DEPLOYDCN_SAMPLES(4, upper + 2 * kSampleBytes);
      DEPLOYDCN_SAMPLES(5, lower + 2 * kSampleBytes);
      DEPLOYDCN_COLUMN_PRODUCTS(2, 3);  // 2, 0
      between();
    } else {
      _tile_loadd(6, weight, 64);
    }
    DEPLOYDCN_SAMPLES(4, upper);
    DEPLOYDCN_SAMPLES(5, lower);
    if (kTiles == Tiles::kFloat32 || step % 2 == 0) {
      DEPLOYDCN_COLUMN_PRODUCTS(0, 1);  // 0, 0
    } else {
      DEPLOYDCN_COLUMN_PRODUCTS(2, 3);
    }
    between();
    upper += kParts<kTiles> * kSampleBytes;
    lower += kParts<kTiles> * kSampleBytes;
    weight += kParts<kTiles> * kWeightBytes;
  }
  _tile_stored(0, sums, kSumBytes);
  _tile_stored(1, sums + kSums, kSumBytes);
  _tile_stored(2, others, 64);
  _tile_stored(3, others + kTileRows * kTileRows, 64);
  asm volatile("" ::: "memory");  // the compiler does not know that these stores write memory
  for (int row = 0; row < 2 * kTileRows; ++row, sums += kColumns * kTileRows) {
    add_sums<kTiles>(sums, others + row * kTileRows);
    store<float>(sums + kTileRows, Vector<float>{});
  }
}

// 16 pixels x 32 outputs, two sets of sums as well.
template <Tiles kTiles>
void multiply_row(const unsigned char* sample, const unsigned char* weight, int64_t steps, float* sums,
                  bool accumulate) {
  alignas(64) float others[kSums];
  if (accumulate) {
    _tile_loadd(0, sums, kSumBytes);
    _tile_loadd(1, sums + kTileRows, kSumBytes);
  } else {
    _tile_zero(0);
    _tile_zero(1);
  }
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t step = 0; step < steps; ++step) {
    DEPLOYDCN_SAMPLES(4, sample);
    DEPLOYDCN_WEIGHTS(weight);
    if (kTiles == Tiles::kFloat32 || step % 2 == 0) {
      DEPLOYDCN_ROW_PRODUCTS(0, 1, 4);
    } else {
      DEPLOYDCN_ROW_PRODUCTS(2, 3, 4);
    }
    if constexpr (kTiles == Tiles::kFloat32) {
      DEPLOYDCN_SAMPLES(5, sample + kSampleBytes);
      DEPLOYDCN_ROW_PRODUCTS(2, 3, 5);  // 1, 0
      DEPLOYDCN_WEIGHTS(weight + kWeightBytes);
      DEPLOYDCN_ROW_PRODUCTS(0, 1, 4);  // 0, 1
      DEPLOYDCN_ROW_PRODUCTS(2, 3, 5);  // 1, 1
      DEPLOYDCN_SAMPLES(5, sample + 2 * kSampleBytes);
      DEPLOYDCN_WEIGHTS(weight);
      DEPLOYDCN_ROW_PRODUCTS(0, 1, 5);  // 2, 0
      DEPLOYDCN_WEIGHTS(weight + 2 * kWeightBytes);
      DEPLOYDCN_ROW_PRODUCTS(2, 3, 4);  // 0, 2
    }
    sample += kParts<kTiles> * kSampleBytes;
    weight += kParts<kTiles> * kWeightBytes;
  }
  _tile_stored(0, sums, kSumBytes);
  _tile_stored(1, sums + kTileRows, kSumBytes);
  _tile_stored(2, others, kSumBytes);
  _tile_stored(3, others + kTileRows, kSumBytes);
  asm volatile("" ::: "memory");  // the compiler does not know that these stores write memory
  for (int i = 0; i < kSums; i += Simd<float>::kLanes) add_sums<kTiles>(sums + i, others + i);
}

// Of at most 32 pixels and 32 outputs.
template <Tiles kTiles, class Between>
inline __attribute__((always_inline)) void multiply_pixels(const unsigned char* samples, int64_t pixels, int outputs,
                                                           const unsigned char* weight, int64_t steps, float* sums,
                                                           bool accumulate, Between& between) {
  if (pixels <= kTileRows) return multiply_row<kTiles>(samples, weight, steps, sums, accumulate);
  const unsigned char* lower = samples + steps * kParts<kTiles> * kSampleBytes;
  if (outputs <= kTileRows) return multiply_column<kTiles>(samples, lower, weight, steps, sums, accumulate, between);
  multiply_square<kTiles>(samples, lower, weight, steps, sums, accumulate, between);
}

// Where the sums of kTogether pixels and some outputs go.
inline __attribute__((always_inline)) void fetch_outputs(const Product<float>& product, int64_t pixel, int first,
                                                         int end) {
  for (int c = first; product.out && c < end; ++c) {
    __builtin_prefetch(product.out + c * product.out_stride + pixel, 1);
    __builtin_prefetch(product.out + c * product.out_stride + pixel + kTileRows, 1);
  }
}

// Configures the processor's tiles, and releases them.
class TilesInUse {
 public:
  TilesInUse() {
    TileConfiguration configuration;
    for (int tile = 0; tile < 8; ++tile) {
      configuration.row_bytes[tile] = 64;
      configuration.rows[tile] = kTileRows;
    }
    asm volatile("" ::: "memory");  // what the tiles read is written
    _tile_loadconfig(&configuration);
  }
  ~TilesInUse() {
    asm volatile("" ::: "memory");
    _tile_release();
  }
};

template <Tiles kTiles>
void multiply_tiles(const Product<float>& product) {
  const TilesInUse tiles;
  const int64_t steps = tile_steps<kTiles>(product.depth), group = steps * kParts<kTiles> * kSampleBytes;
  const auto* panel = static_cast<const unsigned char*>(product.panel);
  const auto nothing = [] {};
  for (int64_t p = 0; p < product.pixels; p += kTogether) {
    fetch_outputs(product, p, 0, product.outputs);
    multiply_pixels<kTiles>(panel + p / kTileRows * group, product.pixels - p, product.outputs,
                            static_cast<const unsigned char*>(product.weight), steps,
                            product.tile + p * kColumns * kTileRows, product.accumulate, nothing);
  }
}

#endif

}  // namespace
}  // namespace deploydcn::cpu
