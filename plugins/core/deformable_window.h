// The window of DCNv3 and DCNv4: taps that move, but carry no weights of the layer's own.
#pragma once

#include <cstdint>

namespace deploydcn {

// Taps are numbered column by column. Tap (i, j) of output pixel (oh, ow), given an offset (y, x), samples at
// y = oh * stride_h - pad_top + reach_h + (i * dilation_h - reach_h + offset_y) * offset_scale; x likewise.
struct DeformableWindow {
  int64_t height, width, out_height, out_width;
  int64_t kernel_h, kernel_w, stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w;
  bool remove_center;  // tap (kernel_h / 2, kernel_w / 2) is left out
  double offset_scale;

  int64_t points() const { return kernel_h * kernel_w - (remove_center ? 1 : 0); }
  int64_t reach_h() const { return dilation_h * (kernel_h - 1) / 2; }
  int64_t reach_w() const { return dilation_w * (kernel_w - 1) / 2; }
};

}  // namespace deploydcn
