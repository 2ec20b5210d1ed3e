// Deformable attention: what DCNv3, DCNv4 and multi-scale deformable attention have in common.
//
//   out[n, q, m, :] = sum over points k of weight[n, q, m, k] * bilinear(level of k in value[n, :, m, :], y, x)
//
// The queries of a DCN are its output pixels, its heads the groups of channels, its points the taps of the window, its
// only level the image. Parallel over queries; memory beyond input and output: for half precision a float32 copy of the
// value, and what the points of one query take per thread.
#pragma once

#include <vector>

#include "core/cpu_op.h"
#include "core/deformable_window.h"

namespace deploydcn::cpu {

// Pixels [start, start + height * width) of the value.
struct Level {
  int64_t start, height, width;
};

// One point of a head: where it looks, and its position: given * scale + shift + the query's base.
struct Point {
  Level level;
  double scale_y, scale_x, shift_y, shift_x;
};

// Query q has base (first_y + q / width * step_y, first_x + q % width * step_x).
struct QueryGrid {
  int64_t width = 1;
  double first_y = 0, first_x = 0, step_y = 0, step_x = 0;
};

// Numbers per query and head, contiguous for one head; strides and `first` in elements.
struct PointData {
  const void* data;
  DType dtype;
  int64_t first, query_stride, head_stride;
};

struct DeformableAttention {
  int64_t batch, queries, heads, channels, pixels;
  TensorView value;           // (N, S, M, D)
  PointData positions;        // (x, y) per point
  PointData weights;          // one per point
  bool softmax;               // of the weights, over the points of a head
  std::vector<Point> points;  // of a head
  QueryGrid grid;
  void* output;  // (N, Q, M, D), of the value's dtype
};

// The points of a window, and the bases of its output pixels.
std::vector<Point> points_of(const DeformableWindow& window);
QueryGrid grid_of(const DeformableWindow& window);

// Throws InvalidArgument where the value has more pixels than 32 bits count.
void attend(const DeformableAttention& call, CpuContext& context);

}  // namespace deploydcn::cpu
