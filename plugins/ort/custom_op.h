// One generic adapter: makes an ONNX Runtime custom op of an op spec, one row of its types, and a kernel factory.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/tensor_view.h"
#include "ort/api.h"

namespace deploydcn::ort {

// One node's kernel, on the execution provider it was made for. Immutable: `compute` may run on several threads.
class NodeKernel {
 public:
  virtual ~NodeKernel() = default;
  // inputs: in the order of the spec, with pointers into the provider's memory.
  virtual void compute(Span<const TensorView> inputs, KernelContext* context) const = 0;
};

// What an op is on one execution provider. `create`: `constants` are the inputs known at creation, present only then.
struct Provider {
  const char* name;
  std::function<std::unique_ptr<NodeKernel>(const AttributeSource& node, Span<const DType> dtypes,
                                            Span<const TensorView> constants)>
      create;
  bool reads_constants;
};

// `name`: the op type it answers to. `row`: index into spec.type_rows. `infer_shapes`: whether the runtime may call its
// shape function. The runtime keeps pointers to the result.
std::unique_ptr<CustomOp> make_custom_op(const OpSpec& spec, Provider provider, std::string name, std::size_t row,
                                         bool infer_shapes);

}  // namespace deploydcn::ort
