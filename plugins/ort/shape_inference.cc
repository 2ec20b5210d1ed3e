#include "ort/shape_inference.h"

#include <algorithm>
#include <atomic>
#include <cstring>

namespace deploydcn::ort {
namespace {

// A size that may be unknown; `symbol` is the runtime's name for an unknown one.
struct Dimension {
  bool known = false;
  int64_t size = 0;
  std::string symbol;

  Dimension() = default;
  explicit Dimension(int64_t value) : known(true), size(value) {}

  template <class Combine>
  static Dimension combine(const Dimension& a, const Dimension& b, Combine&& operation) {
    return a.known && b.known ? Dimension(operation(Checked(a.size), Checked(b.size)).value()) : Dimension();
  }
  friend Dimension operator+(const Dimension& a, const Dimension& b) {
    return combine(a, b, [](Checked x, Checked y) { return x + y; });
  }
  friend Dimension operator-(const Dimension& a, const Dimension& b) {
    return combine(a, b, [](Checked x, Checked y) { return x - y; });
  }
  friend Dimension operator*(const Dimension& a, const Dimension& b) {
    return combine(a, b, [](Checked x, Checked y) { return x * y; });
  }
  friend Dimension floor_div(const Dimension& a, const Dimension& b) {
    return combine(a, b, [](Checked x, Checked y) { return floor_div(x, y); });
  }
  bool informative() const { return known || !symbol.empty(); }
};
using Dimensions = std::vector<Dimension>;

class InferredAttributes : public AttributeSource {
 public:
  explicit InferredAttributes(const ShapeInferContext* context) : context_(context) {}

  std::optional<std::vector<int64_t>> ints(const char* name, AttrKind kind) const override {
    const OpAttr* attribute = find(name);
    if (!attribute) return std::nullopt;
    std::vector<int64_t> values(kMaxAxes);
    std::size_t used = 0;
    const OpAttrType type = kind == AttrKind::kInt ? kAttrInt : kAttrInts;
    check(api().ReadOpAttr(attribute, type, values.data(), values.size() * sizeof(int64_t), &used));
    values.resize(used / sizeof(int64_t));
    return values;
  }
  std::optional<double> number(const char* name) const override {
    const OpAttr* attribute = find(name);
    if (!attribute) return std::nullopt;
    float value = 0;
    std::size_t used = 0;
    check(api().ReadOpAttr(attribute, kAttrFloat, &value, sizeof value, &used));
    return value;
  }
  std::optional<std::string> string(const char* name) const override {
    const OpAttr* attribute = find(name);
    if (!attribute) return std::nullopt;
    std::string value(256, '\0');
    std::size_t used = 0;
    check(api().ReadOpAttr(attribute, kAttrString, value.data(), value.size(), &used));
    value.resize(std::strlen(value.c_str()));
    return value;
  }

 private:
  const OpAttr* find(const char* name) const {
    const OpAttr* attribute = nullptr;
    return succeeded(api().ShapeInferContext_GetAttribute(context_, name, &attribute)) ? attribute : nullptr;
  }
  const ShapeInferContext* context_;
};

// The element type that type parameter `param` takes at this node. The runtime merges the ops of one name and calls the
// shape function of any of them, so the op's own types would be wrong: only the node's inputs tell.
ElementType type_of(const OpSpec& spec, const ShapeInferContext* context, std::size_t inputs, int param) {
  for (std::size_t i = 0; i < inputs; ++i) {
    TensorTypeAndShapeInfo* info = nullptr;
    if (spec.inputs[i].type_param != param || spec.inputs[i].optional) continue;
    check(api().ShapeInferContext_GetInputTypeShape(context, i, &info));
    ElementType type = kUndefined;
    check(api().GetTensorElementType(info, &type));
    return type;
  }
  throw InternalError("an output's type parameter is borne by no required input");
}

// The shape of input `index`; nothing where the input is absent or its rank unknown.
std::optional<Dimensions> input_shape(const ShapeInferContext* context, std::size_t index, std::size_t rank_wanted) {
  TensorTypeAndShapeInfo* info = nullptr;
  if (!succeeded(api().ShapeInferContext_GetInputTypeShape(context, index, &info)) || !info) return std::nullopt;
  // The context owns `info`.
  std::size_t rank = 0;
  check(api().GetDimensionsCount(info, &rank));
  if (rank == 0 && rank_wanted != 0) return std::nullopt;  // an unknown rank is reported as zero dimensions
  std::vector<int64_t> sizes(rank);
  std::vector<const char*> symbols(rank, nullptr);
  check(api().GetDimensions(info, sizes.data(), rank));
  check(api().GetSymbolicDimensions(info, symbols.data(), rank));
  Dimensions dimensions(rank);
  for (std::size_t i = 0; i < rank; ++i) {
    if (sizes[i] >= 0) {
      dimensions[i] = Dimension(sizes[i]);
    } else if (symbols[i]) {
      dimensions[i].symbol = symbols[i];
    }
  }
  return dimensions;
}

bool all_known(const Dimensions& dimensions) {
  return std::all_of(dimensions.begin(), dimensions.end(), [](const Dimension& d) { return d.known; });
}

// Every axis as far as the inputs tell.
std::vector<Dimension> infer_axes(const OpSpec& spec, const Attributes& attributes,
                                  const std::vector<std::optional<Dimensions>>& shapes) {
  std::vector<Dimension> axes(spec.axis_names.size());
  for (std::size_t i = 0; i < spec.attributes.size(); ++i) {
    const AttrSpec& attr = spec.attributes[i];
    for (std::size_t j = 0; attributes[i].ints && j < attr.axes.size(); ++j) {
      axes[attr.axes[j]] = Dimension((*attributes[i].ints)[j]);
    }
  }
  const auto read_inputs = [&] {
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      if (!shapes[i] || shapes[i]->size() != spec.inputs[i].axes.size()) continue;
      for (std::size_t d = 0; d < shapes[i]->size(); ++d) {
        const Expression& axis = spec.inputs[i].axes[d];
        const Dimension& seen = (*shapes[i])[d];
        if (axis.is_axis() && !axes[axis.axis()].known && seen.informative()) axes[axis.axis()] = seen;
      }
    }
  };
  read_inputs();
  for (const SizeSpec& size : spec.sizes) {
    const Dimension value = evaluate<Dimension>(size.value, [&](int axis) { return axes[axis]; });
    if (value.known) axes[size.axis] = value;
  }
  return axes;
}

// A name no other dimension bears: two unknown sizes must never look equal to the memory planner.
std::string fresh_symbol() {
  static std::atomic<int> counter{0};
  return "deploydcn_" + std::to_string(counter++);
}

}  // namespace

void infer_output_shapes(const OpSpec& spec, ShapeInferContext* context) {
  const Attributes attributes = Attributes::read(spec, InferredAttributes(context));
  std::size_t count = 0;
  check(api().ShapeInferContext_GetInputCount(context, &count));
  std::vector<std::optional<Dimensions>> shapes;
  std::vector<Shape> sizes(std::min(count, spec.inputs.size()));
  std::vector<const Shape*> concrete;
  bool complete = true;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    shapes.push_back(input_shape(context, i, spec.inputs[i].axes.size()));
    complete = complete && (spec.inputs[i].optional || shapes[i]) && (!shapes[i] || all_known(*shapes[i]));
    for (const Dimension& dimension : shapes[i].value_or(Dimensions())) sizes[i].push_back(dimension.size);
    concrete.push_back(shapes[i] ? &sizes[i] : nullptr);
  }
  if (complete) bind(spec, attributes, Span<const Shape* const>(concrete.data(), concrete.size()));

  const std::vector<Dimension> axes = infer_axes(spec, attributes, shapes);
  for (std::size_t output = 0; output < spec.outputs.size(); ++output) {
    const TensorSpec& tensor = spec.outputs[output];
    std::vector<int64_t> dimensions;
    std::vector<std::string> symbols;
    for (const Expression& axis : tensor.axes) {
      const Dimension value = evaluate<Dimension>(axis, [&](int i) { return axes[i]; });
      const bool known = value.known && value.size >= 0;  // a negative size is refused when the other inputs are known
      dimensions.push_back(known ? value.size : -1);
      symbols.push_back(known ? "" : value.symbol.empty() ? fresh_symbol() : value.symbol);
    }
    std::vector<const char*> names;
    for (const std::string& symbol : symbols) names.push_back(symbol.c_str());
    TensorTypeAndShapeInfo* raw = nullptr;
    check(api().CreateTensorTypeAndShapeInfo(&raw));
    const InfoPtr info(raw);
    check(api().SetTensorElementType(raw, type_of(spec, context, shapes.size(), tensor.type_param)));
    check(api().SetDimensions(raw, dimensions.data(), dimensions.size()));
    check(api().SetSymbolicDimensions(raw, names.data(), names.size()));
    check(api().ShapeInferContext_SetOutputTypeShape(context, output, raw));
  }
}

}  // namespace deploydcn::ort
