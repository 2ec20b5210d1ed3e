// What an op's GPU side offers to a runtime. Adapters include this header and no CUDA header.
#pragma once

#include <algorithm>
#include <memory>

#include "core/tensor_view.h"

struct CUstream_st;

namespace deploydcn::gpu {

using Stream = CUstream_st*;

struct OutputView {
  void* data;
  Layout layout;
};

// What the user allows beyond the op's own attributes.
struct GpuOptions {
  bool allow_tf32 = false;  // float32 products in TF32: 10 bits of mantissa, on tensor cores
};

// One node's kernel. Immutable after construction: `launch` may run on several threads and streams at once.
class GpuKernel {
 public:
  virtual ~GpuKernel() = default;
  // Bytes of scratch memory that `launch` needs for these shapes (data is not read). Does not grow with the batch.
  virtual std::size_t workspace_bytes(Span<const TensorView> inputs) const = 0;
  // Enqueues the work on `stream`; neither synchronises nor allocates. All pointers are device pointers, 16-byte
  // aligned. Throws InvalidArgument on shapes the op does not accept, DeviceError when the launch fails.
  virtual void launch(Span<const TensorView> inputs, Span<const OutputView> outputs, void* workspace,
                      Stream stream) const = 0;
};

// An op as the GPU runtimes see it. `channels_last`: inputs and outputs that the kernels want in Layout::kChannelsLast8
// when their type has 16 bits and the runtime can choose; every kernel also takes Layout::kLinear.
struct GpuOp {
  const OpSpec* spec;
  Span<const int> channels_last_inputs;
  Span<const int> channels_last_outputs;
  std::unique_ptr<GpuKernel> (*create)(const Attributes&, const GpuOptions&);
};

// The GPU has no float64 kernels: such nodes stay on the CPU.
inline bool runs_on_gpu(Span<const DType> type_row) {
  return std::none_of(type_row.begin(), type_row.end(), [](DType type) { return type == DType::kFloat64; });
}

inline bool contains(Span<const int> indices, std::size_t index) {
  return std::find(indices.begin(), indices.end(), static_cast<int>(index)) != indices.end();
}

}  // namespace deploydcn::gpu
