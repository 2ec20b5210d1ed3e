// The host side of deformable attention on the GPU: checks sizes, chooses a kernel, launches it.
#pragma once

#include <utility>

#include "core/deformable_window.h"
#include "gpu/deformable_attention.cuh"
#include "gpu/gpu_op.h"
#include "gpu/launching.cuh"
#include "gpu/limits.h"

namespace deploydcn::gpu {

inline constexpr int64_t kMostPixels = int64_t{1} << 30;

// Sizes as an op's spec bound them.
struct AttentionSizes {
  int64_t batch, queries, heads, channels, pixels, points;
};

// Where a tensor holds the numbers of a head's points; in elements.
struct PointStrides {
  int64_t query, head;
};

inline AttentionArguments attention_arguments(const AttentionSizes& s, const TensorView& value,
                                              const TensorView& positions, PointStrides position_strides,
                                              const TensorView& weights, PointStrides weight_strides) {
  const auto count = [](Checked size, const char* what) { return at_most(size, kMostPixels, what); };
  AttentionArguments a{};
  a.value = value.data, a.positions = positions.data, a.weights = weights.data;
  a.positions_are_float = positions.dtype == DType::kFloat32;
  a.weights_are_float = weights.dtype == DType::kFloat32;
  count(Checked(s.batch) * s.queries, "batch * queries");
  a.batch = count(s.batch, "batch"), a.queries = count(s.queries, "number of queries");
  a.heads = count(s.heads, "number of heads"), a.channels = count(s.channels, "channels of a head");
  a.pixels = count(s.pixels, "number of pixels"), a.points = count(s.points, "number of points");
  a.position_query_stride = count(position_strides.query, "numbers per query");
  a.position_head_stride = count(position_strides.head, "numbers per head");
  a.weight_query_stride = count(weight_strides.query, "numbers per query");
  a.weight_head_stride = count(weight_strides.head, "numbers per head");
  return a;
}

// The window's part of the arguments.
inline void set_window(AttentionArguments& a, const DeformableWindow& w) {
  const auto side = [](Checked size, const char* what) { return at_most(size, kMostPixels, what); };
  // The window's reach over the padded image bounds every position.
  side(Checked(w.out_height) * w.stride_h + Checked(w.kernel_h) * w.dilation_h + w.pad_top, "padded height");
  side(Checked(w.out_width) * w.stride_w + Checked(w.kernel_w) * w.dilation_w + w.pad_left, "padded width");
  a.height = side(w.height, "height"), a.width = side(w.width, "width");
  a.out_width = side(w.out_width, "output width"), a.kernel_h = side(w.kernel_h, "kernel height");
  a.stride_h = side(w.stride_h, "stride"), a.stride_w = side(w.stride_w, "stride");
  a.dilation_h = side(w.dilation_h, "dilation"), a.dilation_w = side(w.dilation_w, "dilation");
  a.reach_h = static_cast<int>(w.reach_h()), a.reach_w = static_cast<int>(w.reach_w());
  a.first_y = static_cast<int>(w.reach_h() - w.pad_top), a.first_x = static_cast<int>(w.reach_w() - w.pad_left);
  a.removed_row = w.remove_center ? static_cast<int>(w.kernel_h / 2) : -1;
  a.removed_column = w.remove_center ? static_cast<int>(w.kernel_w / 2) : -1;
  a.offset_scale = static_cast<float>(w.offset_scale);
}

template <class Points>
class AttentionKernel : public GpuKernel {
 public:
  // The op's part: bind shapes, name inputs. Throws InvalidArgument beyond what the kernels index.
  using Describe = AttentionArguments (*)(const Attributes&, Span<const TensorView>);

  AttentionKernel(Describe describe, Attributes attributes) : describe_(describe), attributes_(std::move(attributes)) {}

  std::size_t workspace_bytes(Span<const TensorView> inputs) const override {
    const AttentionArguments a = describe_(attributes_, inputs);
    blocks(a, vector_of(a, inputs[0].dtype));  // checks the number of threads
    return 0;
  }

  void launch(Span<const TensorView> inputs, Span<const OutputView> outputs, void*, Stream stream) const override {
    AttentionArguments a = describe_(attributes_, inputs);
    if (a.batch == 0 || a.queries == 0) return;
    a.output = outputs[0].data;
    const int vector = vector_of(a, inputs[0].dtype);
    const dim3 grid(static_cast<unsigned>(blocks(a, vector))), block(kAttentionThreads);
    check(with_type(inputs[0].dtype,
                    [&](auto zero) {
                      using T = decltype(zero);
                      return vector == 1 ? GPU_LAUNCH((deformable_attention<T, Points, 1>), grid, block, 0, stream, a)
                                         : GPU_LAUNCH((deformable_attention<T, Points, Packet<T>::kSize>), grid, block,
                                                      0, stream, a);
                    }),
          "launching deformable attention");
  }

 private:
  // Channels per thread.
  static int vector_of(const AttentionArguments& a, DType dtype) {
    const int packet = 16 / static_cast<int>(size_of(dtype));
    return a.channels % packet == 0 ? packet : 1;
  }
  static int blocks(const AttentionArguments& a, int vector) {
    const Checked threads = Checked(a.batch) * a.queries * a.heads * (a.channels / vector);
    return (at_most(threads, 2 * kMostPixels - kAttentionThreads, "vectors of the output") - 1) / kAttentionThreads + 1;
  }

  Describe describe_;
  Attributes attributes_;
};

}  // namespace deploydcn::gpu
