#include "tensorrt/shapes.h"

namespace deploydcn::trt {
namespace {

using nvinfer1::DimensionOperation;
using nvinfer1::DimsExprs;
using nvinfer1::IDimensionExpr;
using nvinfer1::IExprBuilder;

// A size: a constant, folded with overflow checks, or an expression of TensorRT's. A default one is unknown.
class Size {
 public:
  Size() = default;
  explicit Size(int64_t value) : known_(true), value_(value) {}
  Size(const IDimensionExpr& expression, IExprBuilder& builder) : expression_(&expression), builder_(&builder) {
    if (expression.isConstant()) *this = Size(expression.getConstantValue());
  }

  bool is_constant() const { return known_; }
  int64_t value() const { return value_; }
  const IDimensionExpr* expression(IExprBuilder& builder) const {
    return known_ ? builder.constant(value_) : expression_;
  }

  friend Size operator+(const Size& a, const Size& b) {
    return combine(a, b, DimensionOperation::kSUM, [](Checked x, Checked y) { return x + y; });
  }
  friend Size operator-(const Size& a, const Size& b) {
    return combine(a, b, DimensionOperation::kSUB, [](Checked x, Checked y) { return x - y; });
  }
  friend Size operator*(const Size& a, const Size& b) {
    return combine(a, b, DimensionOperation::kPROD, [](Checked x, Checked y) { return x * y; });
  }
  friend Size floor_div(const Size& a, const Size& b) {
    return combine(a, b, DimensionOperation::kFLOOR_DIV, [](Checked x, Checked y) { return floor_div(x, y); });
  }

 private:
  template <class Fold>
  static Size combine(const Size& a, const Size& b, DimensionOperation operation, Fold&& fold) {
    if (a.known_ && b.known_) return Size(fold(Checked(a.value_), Checked(b.value_)).value());
    IExprBuilder* builder = a.builder_ ? a.builder_ : b.builder_;
    if (!builder) return {};
    const IDimensionExpr *left = a.expression(*builder), *right = b.expression(*builder);
    if (!left || !right) return {};
    const IDimensionExpr* result = builder->operation(operation, *left, *right);
    return result ? Size(*result, *builder) : Size();
  }

  bool known_ = false;
  int64_t value_ = 0;
  const IDimensionExpr* expression_ = nullptr;
  IExprBuilder* builder_ = nullptr;
};

using Sizes = std::vector<Size>;

Sizes known_axes(const OpSpec& spec, const Attributes& attributes, const std::vector<std::size_t>& mapping,
                 const DimsExprs* inputs, IExprBuilder& builder) {
  Sizes axes(spec.axis_names.size());
  std::vector<bool> known(axes.size()), computed(axes.size());
  for (const SizeSpec& size : spec.sizes) computed[size.axis] = true;
  for (std::size_t i = 0; i < spec.attributes.size(); ++i) {
    const AttrSpec& attr = spec.attributes[i];
    for (std::size_t j = 0; attributes[i].ints && j < attr.axes.size(); ++j) {
      axes[attr.axes[j]] = Size((*attributes[i].ints)[j]);
      known[attr.axes[j]] = true;
    }
  }
  for (std::size_t i = 0; i < mapping.size(); ++i) {
    const TensorSpec& tensor = spec.inputs[mapping[i]];
    for (std::size_t d = 0; d < tensor.axes.size(); ++d) {
      const Expression& axis = tensor.axes[d];
      if (!axis.is_axis() || computed[axis.axis()]) continue;
      const Size size(*inputs[i].d[d], builder);
      // A constant says more than an expression: a later input may know what an earlier one leaves open.
      if (known[axis.axis()] && (axes[axis.axis()].is_constant() || !size.is_constant())) continue;
      axes[axis.axis()] = size;
      known[axis.axis()] = true;
    }
  }
  for (const SizeSpec& size : spec.sizes) {
    axes[size.axis] = evaluate<Size>(size.value, [&](int axis) { return axes[axis]; });
  }
  return axes;
}

void check_constants(const OpSpec& spec, const std::vector<std::size_t>& mapping, const DimsExprs* inputs,
                     const Sizes& axes) {
  Axes values{};
  for (std::size_t axis = 0; axis < axes.size(); ++axis) values[axis] = axes[axis].value();
  for (std::size_t i = 0; i < mapping.size(); ++i) {
    const TensorSpec& tensor = spec.inputs[mapping[i]];
    for (std::size_t d = 0; d < tensor.axes.size(); ++d) {
      const Size wanted = evaluate<Size>(tensor.axes[d], [&](int axis) { return axes[axis]; });
      if (!wanted.is_constant() || !inputs[i].d[d]->isConstant()) continue;
      require_size(spec, tensor, d, inputs[i].d[d]->getConstantValue(), wanted.value(), values);
    }
  }
}

std::string list_ranks(const std::vector<int32_t>& ranks) {
  std::string text;
  for (int32_t rank : ranks) text += (text.empty() ? "" : ", ") + std::to_string(rank);
  return text;
}

}  // namespace

std::vector<std::size_t> map_inputs(const OpSpec& spec, const std::vector<int32_t>& ranks, std::size_t count) {
  std::vector<std::size_t> mapping;
  const bool complete = count == spec.inputs.size();
  for (std::size_t i = 0; i < spec.inputs.size() && mapping.size() < ranks.size(); ++i) {
    const TensorSpec& tensor = spec.inputs[i];
    const bool fits = static_cast<std::size_t>(ranks[mapping.size()]) == tensor.axes.size();
    if (fits) {
      mapping.push_back(i);
    } else if (complete || !tensor.optional) {
      throw InvalidArgument(std::string(spec.name) + " input " + tensor.name + " has " +
                            std::to_string(ranks[mapping.size()]) + " dimensions; wanted " +
                            std::to_string(tensor.axes.size()));
    }
  }
  std::size_t required = 0;
  for (const TensorSpec& tensor : spec.inputs) required += tensor.optional ? 0 : 1;
  if (mapping.size() < ranks.size() || count < required) {
    std::string names;
    for (const TensorSpec& tensor : spec.inputs) {
      names += (names.empty() ? "" : ", ") + std::string(tensor.name) + (tensor.optional ? "?" : "");
    }
    throw InvalidArgument(std::string(spec.name) + " has " + std::to_string(ranks.size()) + " inputs of ranks (" +
                          list_ranks(ranks) + "); wanted " + names);
  }
  return mapping;
}

std::vector<DimsExprs> output_shapes(const OpSpec& spec, const Attributes& attributes,
                                     const std::vector<std::size_t>& mapping, const DimsExprs* inputs,
                                     IExprBuilder& builder) {
  const Sizes axes = known_axes(spec, attributes, mapping, inputs, builder);
  check_constants(spec, mapping, inputs, axes);
  std::vector<DimsExprs> shapes;
  for (const TensorSpec& tensor : spec.outputs) {
    DimsExprs shape{};
    shape.nbDims = static_cast<int32_t>(tensor.axes.size());
    for (std::size_t d = 0; d < tensor.axes.size(); ++d) {
      const Size size = evaluate<Size>(tensor.axes[d], [&](int axis) { return axes[axis]; });
      shape.d[d] = size.expression(builder);
      if (!shape.d[d]) throw InternalError(std::string(spec.name) + ": TensorRT made no expression for an output size");
    }
    shapes.push_back(shape);
  }
  return shapes;
}

Shape shape_of(const nvinfer1::Dims& dims) { return Shape(dims.d, dims.d + dims.nbDims); }

}  // namespace deploydcn::trt
