// What the kernels of deformable attention on the GPU are told.
#pragma once

#include <cstdint>

namespace deploydcn::gpu {

// Tensors and sizes of one call; passed to kernels by value. Sizes are checked by `AttentionKernel`.
//   value: (batch, pixels, heads, channels)
//   positions: (x, y) per point, weights: one number per point; contiguous for one head, see the strides
//   spatial_shapes: (levels, 2), level_start_index: (levels), both int64; null where the value is one image
//   output: (batch, queries, heads, channels)
struct AttentionArguments {
  const void* value;
  const void* positions;
  const void* weights;
  const void* spatial_shapes;
  const void* level_start_index;
  void* output;
  int batch, queries, heads, channels, pixels, points;  // points: of a head
  // In elements. The weights of query 0 begin `first_weight` elements behind `weights`.
  int position_query_stride, position_head_stride, weight_query_stride, weight_head_stride, first_weight;
  bool positions_are_float, weights_are_float;  // float32, whatever the type of the value
  bool softmax;                                 // of the weights, over the points of a head
  // Of a window over one image. The base of query (oh, ow) is first + (oh, ow) * stride.
  int height, width, out_width, kernel_h, stride_h, stride_w, first_y, first_x, dilation_h, dilation_w;
  int reach_h, reach_w, removed_row, removed_column;  // -1: every tap has a point
  float offset_scale;
  // Of several levels.
  int points_per_level;

  template <class Visit>
  void for_each_pointer(Visit visit) const {
    for (const void* pointer :
         {value, positions, weights, spatial_shapes, level_start_index, static_cast<const void*>(output)}) {
      visit(pointer);
    }
  }
};

}  // namespace deploydcn::gpu
