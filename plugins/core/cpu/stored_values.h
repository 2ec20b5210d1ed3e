// Between what tensors hold and what convolutions compute in: in place where that is the same, converted where it is
// another floating-point type, counted from the zero point where it is whole numbers of 8 bits.
#pragma once

#include <vector>

#include "core/cpu/tiled_convolution.h"

namespace deploydcn::cpu {

// Whether a tensor holds F, so that it is read and written in place.
template <class F>
bool stored_as(const TensorView& view) {
  return view.dtype == kTypeOf<F>;
}

// Smallest and largest numbers of 8 bits.
inline int32_t lowest_of(DType dtype) { return dtype == DType::kInt8 ? -128 : 0; }
inline int32_t highest_of(DType dtype) { return dtype == DType::kInt8 ? 127 : 255; }

// Elements [begin, begin + count) of the input.
template <class F>
void load_input(const ConvolutionArguments& arguments, int64_t begin, int64_t count, F* out) {
  const TensorView& input = arguments.input;
  if (!arguments.quantization) return load_as<F>(input.data, input.dtype, begin, count, out);
  const auto zero = static_cast<F>(arguments.quantization->input_zero);
  const auto load = [&](const auto* in) {
    for (int64_t i = 0; i < count; ++i) out[i] = static_cast<F>(in[begin + i]) - zero;
  };
  if (input.dtype == DType::kInt8) return load(static_cast<const int8_t*>(input.data));
  load(static_cast<const uint8_t*>(input.data));
}

// Writes `count` finished values of the output from element `begin` on.
template <class F>
void store_output(const ConvolutionArguments& arguments, const F* values, int64_t count, int64_t begin) {
  const DType dtype = arguments.input.dtype;
  if (!arguments.quantization) return store_as<F>(values, count, arguments.output, dtype, begin);
  const Quantization& quantization = *arguments.quantization;
  const auto low = static_cast<F>(lowest_of(dtype) - quantization.output_zero);
  const auto high = static_cast<F>(highest_of(dtype) - quantization.output_zero);
  tile_kernels<F>().round_to_bytes(values, count, F{1} / static_cast<F>(quantization.output_scale), low, high,
                                   quantization.output_zero, static_cast<unsigned char*>(arguments.output) + begin);
}

// The bias of every output, in units of the output; 0 where there is none.
template <class F>
std::vector<F> load_bias(const ConvolutionArguments& arguments, int64_t outputs) {
  std::vector<F> bias(static_cast<std::size_t>(outputs), F{0});
  if (!arguments.bias.present) return bias;
  if (!arguments.quantization) {
    load_as<F>(arguments.bias.data, arguments.bias.dtype, 0, outputs, bias.data());
    return bias;
  }
  const auto* given = static_cast<const int32_t*>(arguments.bias.data);
  for (int64_t m = 0; m < outputs; ++m) {
    bias[m] = static_cast<F>(static_cast<double>(given[m]) * arguments.quantization->scale[m]);
  }
  return bias;
}

}  // namespace deploydcn::cpu
