// The inner loops of tiled convolution and of deformable attention, compiled once per instruction set and chosen at run
// time.
//
// Names used throughout convolution:
//   blocked image  one channel block of an image, [H + 2][W + 2][CB], with a border of zeros one pixel wide, behind one
//                  more row of zeros. A bilinear sample then needs one pixel index and no bounds test: its four corners
//                  lie at index + {0, 1, W + 2, W + 3}.
//   outside pixel  index -(W + 2): all four of its corners are zero, so that 0 * Inf of a real pixel never appears.
//   tap block      taps sampled at a time, so that a panel fits the cache.
//   panel          sampled values of a tile, [pixel][tap of the tap block][CB]: the im2col matrix of one channel block.
//                  How values are stored is the business of the product's kernels (MatrixKernels).
//   tile           accumulators, [pixel][lanes * vectors] but where a product keeps more sums than outputs.
#pragma once

#include <cstdint>

#include "core/activation.h"

namespace deploydcn::cpu {

constexpr int kMostLanes = 16;  // of any vector

// Where the taps of a tile sample: [offset group][tap][stride], of the offset groups of a channel block.
template <class F>
struct Taps {
  int32_t* index;        // pixel of a blocked image: the first corner
  F* weights;            // [...][4]: corners (0,0) (0,1) (1,0) (1,1), times the mask; exact samples have none
  int64_t stride;        // pixels of a tile, rounded up to whole vectors
  int64_t group_stride;  // from one offset group to the next
  int32_t low[kMostLanes], high[kMostLanes];  // smallest and largest index of a sample on the image, lane by lane
};

// One channel block of an image, and what its samples may be.
template <class F>
struct SampledBlock {
  const F* image;  // blocked
  int64_t row;     // elements per row: (W + 2) * CB, or half as many pairs
  int cb;
  int offset_groups;  // as many channels each: whole vectors, or halves
  F low, high;        // whole numbers: samples that are rounded stay within these, and NaN becomes 0
};

template <class F>
struct TapGeometry {
  const int32_t* base_y;  // [pixel] row of tap (0, 0) before padding is removed: oh * stride_h - pad_top
  const int32_t* base_x;
  int32_t taps, kernel_w;          // of the window
  int32_t dilation_h, dilation_w;  // row of tap t: base_y + t / kernel_w * dilation_h
  int32_t height, width;
};

// What the points of one query have in common with those of every other: [point], padded to whole vectors with points
// of height 0. Positions are double for every F: products with a level's size need more than 24 bits.
struct PointTable {
  const double *scale_y, *scale_x, *shift_y, *shift_x;  // position = given * scale + shift + the query's base
  const double *start, *height, *width;                 // of the point's level, in pixels of the value
};

// Where the points of one query lie: [corner][stride], corners (0,0) (0,1) (1,0) (1,1).
template <class F>
struct Corners {
  int64_t* offset;  // bytes from the value's first element: less than 2^51
  F* weight;
  int64_t stride;       // points of a query, rounded up to whole vectors
  int64_t pixel_bytes;  // from one pixel of the value to the next
  int64_t outside;      // the offset of zeros, as many as a pixel has: where there is no pixel
};

// tile[pixel][vectors * lanes] (+)= sum over taps and depth of panel[pixel][tap * tap_stride + channel + k] *
// weight[tap][k][vectors * lanes]. Without `accumulate` the tile is overwritten. Sums of a vector that has no outputs
// become 0.
template <class F>
struct Product {
  const void* panel;
  int channel;  // the first of those multiplied
  int64_t pixels;
  int taps;
  int64_t tap_stride, depth;
  const void* weight;
  bool far_weight;  // too large for the second-level cache: worth fetching long before it is used
  int vectors;
  int outputs;  // that exist, of vectors * lanes: the other weights are 0
  F* tile;
  bool accumulate;
  // Where the finished sums go, [channel][pixel], fetched into the cache meanwhile; null: not yet finished.
  const F* out;
  int64_t out_stride;
};

// What a panel is filled with: taps of a channel block, for the pixels of a tile.
template <class F>
struct Sampling {
  SampledBlock<F> block;
  const Taps<F>* taps;
  int tap_begin, tap_end;
  int64_t pixels;
  bool bilinear;  // or exact
};

// How sums become outputs. By channel, of which there is room for whole vectors.
template <class F>
struct Finishing {
  const F* bias;
  const F* scale;             // unless sums are kPlain
  const int32_t* correction;  // if sums are kWhole
  Activation activation;
};

// What a product adds up. kBalanced: sums of several outputs and channels mix, so that these are scaled by powers of
// two until their weights are of one size. kWhole: 32-bit integers, of samples counted from the lowest.
enum class Sums { kPlain, kBalanced, kWhole };

// Copies pixels [first, first + count) of `channels` planes into a blocked image of rows of `width` pixels, and the
// zeros at the end of each row and the beginning of the next where it completes one. in: the first pixel's value in the
// first plane. Channels up to `cb` that are missing become 0, others are multiplied by `scale`, if there is one.
template <class F>
using BlockPixels = void (*)(const F* in, int64_t plane_stride, int channels, const F* scale, int64_t first,
                             int64_t count, int64_t width, F* image, int cb);

// One way to multiply samples by weights. What panels and packed weights look like, only its functions know.
template <class F>
struct MatrixKernels {
  int64_t most_pixels;                 // per panel
  int64_t near_pixels;                 // the same where panel and weights then fit the second-level cache
  int64_t pixel_multiple;              // fewer take as long
  int64_t fewest_values, most_values;  // of one pixel in a panel
  int64_t pixel_bytes;                 // of a panel, for that many values
  int channel_multiple;                // of a block
  int value_multiple;                  // of a pixel in a panel, and of weights: others are 0
  bool whole_blocks;                   // products take all channels of a block: no two groups may share one
  int vectors;                         // of a row of accumulators; 0: one or two
  int last_multiple;                   // vectors of the last row's are a multiple; 0: as many as the others'
  double speed;                        // products in the time of one by `fused`
  int64_t most_outputs;                // of all groups: sums of more would leave no room for panels
  int kept;                            // sums for every four outputs: 4, or more where products are combined
  Sums sums;
  // How the image is blocked that bilinear samples are taken of: as pairs of bfloat16. Null: TileKernels::block_pixels.
  BlockPixels<F> block_pairs;

  // Fills a panel from one channel block.
  void (*sample_bilinear)(const SampledBlock<F>& block, const Taps<F>& taps, int tap_begin, int tap_end, int64_t pixels,
                          void* panel);
  void (*sample_exact)(const SampledBlock<F>& block, const Taps<F>& taps, int tap_begin, int tap_end, int64_t pixels,
                       void* panel);
  // Fills a panel of one tap with activation(sums[pixel * cb + c] + bias[c]): finished depthwise sums of a separable
  // convolution. Null: so few values do not suit.
  void (*fill_panel)(const F* sums, int64_t pixels, int cb, const F* bias, Activation activation, void* panel);

  // Packs weights[k][row], row = vectors * lanes, k < depth; returns how many bytes that takes. out may be null.
  int64_t (*pack)(const F* weights, int64_t depth, int row, void* out);
  void (*multiply)(const Product<F>& product);
  // The same of all columns, `columns_apart` elements of the tile and weights packed one after the other, while the
  // panel is being filled: two of `together` pixels change places, the first holds those that begin. Samples the pixels
  // that follow, and at the end the first ones of `then`, unless null. Null: at once is no faster.
  void (*sample_and_multiply)(const Sampling<F>& now, const Sampling<F>* then, const Product<F>& product,
                              int64_t columns_apart, void** panels);
  int64_t together;
  // out[channel * plane_stride + pixel] = activation((sums[pixel][channel] + correction[channel]) * scale[channel] +
  // bias[channel]) for `channels` channels of `row`. Returns false where values that are not finite may have spoiled
  // more sums than they should.
  bool (*finish)(const F* sums, int64_t row, int64_t pixels, int channels, const Finishing<F>& finishing, F* out,
                 int64_t plane_stride);
};

// Output rows of one channel of a depthwise convolution: out[y * out_pitch + x] = activation(bias + sum over taps of
// plane[(y * stride + i) * pitch + offset[j] + x] * weight of tap (i, j)). Reads up to a vector beyond `width`.
template <class F>
struct DepthwiseRows {
  const F* plane;
  int64_t pitch, stride;
  const int64_t* offset;  // by column of the window
  int64_t kernel_h, kernel_w;
  // [column][row % stride][row / stride], the last of them backwards: those by which consecutive output rows multiply a
  // row of the plane stand side by side.
  const F* weight;
  F bias;
  Activation activation;
  F* out;
  int64_t out_pitch, rows, width;
};

// Of one call of sum_shifted: outputs, and vectors of pixels in a block.
constexpr int kMostOutputs = 8, kMostVectors = 8;
inline int outputs_at_once(int64_t left) { return left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1; }

template <class F>
struct TileKernels {
  const char* isa;
  int lanes;     // elements per vector
  int vectors;   // of the widest block of channels: 4 or 8; narrower ones have 1 to 4
  int max_rows;  // pixels the matrix kernel keeps in registers

  BlockPixels<F> block_pixels;

  // Positions of taps [first, first + count) of all offset groups. offset, in pixels, and mask, which may be null: rows
  // (y, x of the first tap, y, x of the next, ...; one per tap) that lie `plane` apart. NaN, infinite and outside
  // positions become the outside pixel.
  void (*bilinear_taps)(const TapGeometry<F>& geometry, const F* offset, const F* mask, int64_t plane, int64_t pixels,
                        int first, int count, Taps<F>& taps);
  // The same without offsets, of all taps; weights are not written.
  void (*exact_taps)(const TapGeometry<F>& geometry, int64_t pixels, Taps<F>& taps);

  // By fused multiply-add: of samples as they are, and rounded to whole numbers.
  MatrixKernels<F> fused, rounded;
  // Faster, and nearly as precise. Null: there is none.
  const MatrixKernels<F>* fast[2];
  // Of samples and weights rounded to bfloat16. Null: no faster.
  const MatrixKernels<F>* bfloat16;
  // Of samples and weights that are whole numbers of 8 bits, added up as such. Null: the processor cannot.
  const MatrixKernels<F>* whole;

  // out[i] = the nearest whole number to values[i] * units from low to high, plus `zero`, in 8 bits; NaN is `zero`.
  void (*round_to_bytes)(const F* values, int64_t count, F units, F low, F high, int32_t zero, void* out);

  // out[pixel * cb + c] = sum over taps and k < group of sample[pixel][tap][c / group * group + k] * weight[tap][k][c],
  // c < cb, for groups of 1 (depthwise convolution), 2, 4 or 8 channels, no more than lanes; exact samples: of 1.
  void (*group_sums_bilinear)(const SampledBlock<F>& block, const Taps<F>& taps, int tap_count, int64_t pixels,
                              int group, const F* weight, F* out);
  void (*group_sums_rounded)(const SampledBlock<F>& block, const Taps<F>& taps, int tap_count, int64_t pixels,
                             int group, const F* weight, F* out);
  void (*group_sums_exact)(const SampledBlock<F>& block, const Taps<F>& taps, int tap_count, int64_t pixels, int group,
                           const F* weight, F* out);

  // out[m * out_stride + p] = sum over k < depth of image[offset[k] + p] * weight[m * depth + k], m < outputs, of
  // which there are 1, 2, 4 or 8. Reads and writes up to eight vectors beyond `pixels`.
  void (*sum_shifted)(const F* image, const int64_t* offset, int64_t depth, const F* weight, int outputs,
                      int64_t pixels, F* out, int64_t out_stride);
  // out[y * out_pitch + x] = activation(sums[y * pitch + x] + bias).
  void (*finish_rows)(const F* sums, int64_t pitch, int64_t rows, int64_t columns, F bias, Activation activation,
                      F* out, int64_t out_pitch);
  // to[y * to_pitch + x] = from[y * from_pitch + x * stride], x < count, at least one.
  void (*copy_rows)(const F* from, int64_t from_pitch, int64_t rows, int64_t stride, int64_t count, F* to,
                    int64_t to_pitch);
  void (*depthwise_rows)(const DepthwiseRows<F>& rows);

  // Corners of all points of a query. positions: [point] (x, y); weights: [point]; both hold `corners.stride` points.
  void (*locate_points)(const PointTable& table, double base_y, double base_x, const F* positions, const F* weights,
                        const Corners<F>& corners);
  // out[channel] = sum over points [first, first + count) and corners of weight * value[offset][channel].
  void (*sum_points)(const F* value, const Corners<F>& corners, int64_t first, int64_t count, int64_t channels, F* out);
};

// The best kernels this processor runs, or those named by DEPLOYDCN_CPU_ISA (baseline, avx2, avx512, avx512vnni,
// avx512bf16, amx).
template <class F>
const TileKernels<F>& tile_kernels();

}  // namespace deploydcn::cpu
