// Panels of 32-bit words times weights, all products of a word and their sum to a lane: four whole numbers of 8 bits
// (AVX-512 VNNI), four times as many products per second as by fused multiply-add, or two bfloat16 (AVX512-BF16), on
// Zen 4 and 5 twice as many. Part of tile_kernels.inl.
#pragma once

#include "core/cpu/bfloat16.inl"
#include "core/cpu/blocked_pixels.inl"
#include "core/cpu/simd.inl"
#include "core/cpu/tile_kernels.h"
#include "core/cpu/tile_layouts.inl"
#include "core/cpu/tile_samples.inl"
#include "core/cpu/whole_numbers.inl"

namespace deploydcn::cpu {
namespace {

#if defined(__AVX512VNNI__)

enum class Words32 { kBytes, kBFloat16 };

template <Words32 kWords>
constexpr int kInWord = kWords == Words32::kBytes ? 4 : 2;
constexpr int kWordValues = 576;  // of a panel per pixel: nine taps of 64 channels
template <Words32 kWords>
constexpr int kWordRow = kWordValues / kInWord<kWords> * 4;  // bytes
// Values: a vector of words.
template <Words32 kWords>
constexpr int kWordDepth = kInWord<kWords> * Simd<float>::kLanes;
// Words of so many values, whole vectors.
template <Words32 kWords>
constexpr int64_t words_of(int64_t values) {
  return (values + kWordDepth<kWords> - 1) / kWordDepth<kWords> * Simd<float>::kLanes;
}

// The values of a word are those of one lane of neighbouring vectors: packing bytes takes no shuffles. Those of
// bfloat16, which have an instruction, are of neighbouring lanes.
template <Words32 kWords>
struct WordPanel {
  static constexpr int kVectors = kInWord<kWords>;
  unsigned char* to;
  inline __attribute__((always_inline)) WordPanel(void* panel, int64_t pixel, int64_t)
      : to(static_cast<unsigned char*>(panel) + pixel * kWordRow<kWords>) {}
  inline __attribute__((always_inline)) void put(const Vector<float>* values, const SampledBlock<float>& block) {
    Words words;
    if constexpr (kWords == Words32::kBytes) {
      words = whole_numbers(values, block);
    } else {
      asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(words) : "v"(values[0]), "v"(values[1]));  // the first below the second
    }
    __builtin_memcpy(to, &words, sizeof words);
    to += sizeof words;
  }
};

// [word of channels][output][value of the word].
template <Words32 kWords>
int64_t pack_words(const float* weights, int64_t depth, int row, void* out) {
  constexpr int in_word = kInWord<kWords>, lanes = Simd<float>::kLanes;
  auto* bytes = static_cast<int8_t*>(out);
  auto* halves = static_cast<uint16_t*>(out);
  for (int64_t word = 0; out && word < words_of<kWords>(depth); ++word) {
    const bool bytes_of_lane = kWords == Words32::kBytes;
    const int64_t apart = bytes_of_lane ? lanes : 1;  // channels
    const int64_t first = bytes_of_lane ? word / lanes * kWordDepth<kWords> + word % lanes : word * in_word;
    for (int output = 0; output < row; ++output) {
      for (int i = 0; i < in_word; ++i) {
        const int64_t value = first + i * apart;
        const float weight = value < depth ? weights[value * row + output] : 0;
        if constexpr (kWords == Words32::kBytes) {
          *bytes++ = static_cast<int8_t>(weight);
        } else {
          *halves++ = static_cast<uint16_t>(nearest_bfloat16(weight));
        }
      }
    }
  }
  return words_of<kWords>(depth) * row * 4;
}

// sum += products of the words' values. GCC keeps the sums of its intrinsics in memory.
template <Words32 kWords>
inline __attribute__((always_inline)) void add_products(Integers<float>& sum, Integers<float> a, Integers<float> b) {
  if constexpr (kWords == Words32::kBytes) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  } else {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  }
}

template <Words32 kWords, int kVectors, int kRow, int kRows>
void multiply_word_rows(const Product<float>& product, int64_t pixel) {
  constexpr int n = Simd<float>::kLanes, ldc = kRow * n;
  float* tile = product.tile + pixel * ldc;
  const auto* row = static_cast<const unsigned char*>(product.panel) + pixel * kWordRow<kWords>;
  const auto* weight = static_cast<const unsigned char*>(product.weight);
  Integers<float> sum[kRows][kVectors];
#pragma GCC unroll 28
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      sum[r][v] = product.accumulate ? load_whole(tile + r * ldc + v * n) : Integers<float>{};
    }
  }
  for (int64_t word = 0, words = words_of<kWords>(product.depth); word < words; ++word, row += 4, weight += ldc * 4) {
    Integers<float> b[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      b[v] = load_whole(weight + v * n * 4);
      __builtin_prefetch(weight + (32 * ldc + v * n) * 4);
    }
#pragma GCC unroll 28
    for (int r = 0; r < kRows; ++r) {
      int32_t values;
      __builtin_memcpy(&values, row + r * kWordRow<kWords>, sizeof values);
      const Integers<float> a = values - Integers<float>{};
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) add_products<kWords>(sum[r][v], a, b[v]);
    }
  }
#pragma GCC unroll 28
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < kRow; ++v) {
      const Integers<float> value = v < kVectors ? sum[r][v] : Integers<float>{};
      __builtin_memcpy(tile + r * ldc + v * n, &value, sizeof value);
    }
  }
}

template <Words32 kWords, int kVectors, int kRow, int... I>
void multiply_word_chunks(const Product<float>& product, Indices<I...>) {
  using Kernel = void (*)(const Product<float>&, int64_t);
  constexpr Kernel kernels[] = {multiply_word_rows<kWords, kVectors, kRow, I + 1>...};
  constexpr int64_t most = sizeof...(I);
  const int64_t pixels = product.pixels, chunks = (pixels + most - 1) / most;  // nearly equal ones
  for (int64_t i = 0, p = 0; i < chunks; ++i) {
    const int64_t rows = pixels / chunks + (i < pixels % chunks ? 1 : 0);
    for (int c = 0; product.out && c < product.outputs; ++c)
      __builtin_prefetch(product.out + c * product.out_stride + p, 1);
    kernels[rows - 1](product, p);
    p += rows;
  }
}
template <Words32 kWords>
void multiply_words(const Product<float>& product) {
  using Rows = typename MakeIndices<DEPLOYDCN_MAX_ROWS>::type;
  using RowsOfOne = typename MakeIndices<2 * DEPLOYDCN_MAX_ROWS>::type;
  if (product.vectors == 1) return multiply_word_chunks<kWords, 1, 1>(product, RowsOfOne());
  return product.outputs > Simd<float>::kLanes ? multiply_word_chunks<kWords, 2, 2>(product, Rows())
                                               : multiply_word_chunks<kWords, 1, 2>(product, RowsOfOne());
}

template <Words32 kWords>
constexpr MatrixKernels<float> kWordKernels = {
    112,
    112,
    1,
    1,
    kWordValues,
    kWordRow<kWords>,
    kWords == Words32::kBytes ? Simd<float>::kLanes : kWordDepth<kWords>,
    kWordDepth<kWords>,
    true,
    0,
    0,
    kWords == Words32::kBytes ? 3 : 2,
    INT64_MAX,
    4,
    kWords == Words32::kBytes ? Sums::kWhole : Sums::kPlain,
    kWords == Words32::kBytes ? nullptr : block_pixels<float, PixelPairs>,
    kWords == Words32::kBytes ? sample<float, Bilinear, WordPanel<kWords>>
                              : sample<float, BilinearOfPairs, WordPanel<kWords>>,
    sample<float, Exact, WordPanel<kWords>>,
    fill_panel<float, WordPanel<kWords>>,
    pack_words<kWords>,
    multiply_words<kWords>,
    nullptr,
    0,
    kWords == Words32::kBytes ? finish_whole : finish_rows_of<float, false>,
};

template <>
constexpr const MatrixKernels<float>* kWhole<float> = &kWordKernels<Words32::kBytes>;
#if defined(__AVX512BF16__)
template <>
constexpr const MatrixKernels<float>* kOfBFloat16<float> = &kWordKernels<Words32::kBFloat16>;
#endif

#endif

}  // namespace
}  // namespace deploydcn::cpu
