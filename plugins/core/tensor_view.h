// A tensor of a running node, as runtimes hand it over.
#pragma once

#include <vector>

#include "core/op_spec.h"

namespace deploydcn {

// How the elements of a tensor lie in memory.
enum class Layout : uint8_t {
  kLinear,         // row-major, as the shape says
  kChannelsLast8,  // (N, C, H, W) stored as (N, H, W, C rounded up to a multiple of 8); padding holds anything on
                   // input, zeros on output
};

struct TensorView {
  const void* data = nullptr;
  DType dtype = DType::kFloat32;
  Shape shape;
  bool present = false;
  Layout layout = Layout::kLinear;
};

// Input `index`, or an absent one where the list ends before it.
inline TensorView input_at(Span<const TensorView> inputs, std::size_t index) {
  return index < inputs.size() ? inputs[index] : TensorView{};
}

// Sizes of all axes for a node's inputs; throws InvalidArgument (see op_spec.h).
inline Axes bind(const OpSpec& spec, const Attributes& attributes, Span<const TensorView> inputs) {
  std::vector<const Shape*> shapes;
  for (const TensorView& input : inputs) shapes.push_back(input.present ? &input.shape : nullptr);
  return bind(spec, attributes, Span<const Shape* const>(shapes.data(), shapes.size()));
}

}  // namespace deploydcn
