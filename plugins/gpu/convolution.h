// What convolution kernels on the GPU are told.
#pragma once

#include <cstdint>

#include "core/activation.h"

namespace deploydcn::gpu {

// What a separable convolution does before its pointwise product: the window's sums of every channel, finished.
//   weight: (channels of the product, 1, kernel_h, kernel_w), bias: (channels of the product) or null
struct DepthwiseStage {
  const void* weight;
  const void* bias;
  int channels;  // of x; those of the product are a multiple
  Activation activation;
};

// Tensors and sizes of one call; passed to kernels by value. Sizes are checked by `ConvolutionKernel`: each fits 30
// bits, pixels of all images together fit 31.
//   x: (batch, channels, height, width), linear or channels-last
//   weight: (outputs, channels / groups, kernel_h, kernel_w), linear; behind a depthwise stage (outputs, channels, 1,
//   1) offset: (batch, offset_groups * kernel_h * kernel_w * 2, out_height, out_width), linear; null: a plain
//   convolution mask: (batch, offset_groups * kernel_h * kernel_w, out_height, out_width), linear, or null bias:
//   (outputs), or null y: (batch, outputs, out_height, out_width), linear or channels-last
struct ConvolutionArguments {
  const void* x;
  const void* weight;
  const void* packed_weight;  // scratch of `pack_weights`
  const void* offset;
  const void* mask;
  const void* bias;
  void* y;
  int batch, channels, height, width;
  int outputs, out_height, out_width;
  int kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w;
  int groups, offset_groups;
  DepthwiseStage depthwise;  // channels is 0 where there is none
  Activation activation;
  bool offset_is_float;  // offsets are float32, whatever the type of the data
  bool y_channels_last;

  template <class Visit>
  void for_each_pointer(Visit visit) const {
    for (const void* pointer : {x, weight, packed_weight, offset, mask, bias, static_cast<const void*>(y),
                                depthwise.weight, depthwise.bias}) {
      visit(pointer);
    }
  }
};

}  // namespace deploydcn::gpu
