#include "core/op_spec.h"

#include <algorithm>
#include <cstring>
#include <sstream>

namespace deploydcn {
namespace {

template <class Items>
std::string list(const Items& items) {
  std::ostringstream out;
  out << "[";
  const char* separator = "";
  for (const auto& item : items) {
    out << separator << item;
    separator = ", ";
  }
  out << "]";
  return out.str();
}

bool uses(const Expression& expression, int axis) {
  return std::any_of(expression.tokens.begin(), expression.tokens.end(),
                     [axis](const Token& token) { return token.kind == 'a' && token.value == axis; });
}

// An expression of one axis; `token` must outlive it.
Expression axis_expression(const OpSpec& spec, const Token& token) {
  return {spec.axis_names[token.value], Span<const Token>(&token, 1)};
}

// The rule a computed axis follows, or the axis itself.
const Expression* size_rule(const OpSpec& spec, int axis) {
  for (const SizeSpec& size : spec.sizes) {
    if (size.axis == axis) return &size.value;
  }
  return nullptr;
}

// "; check kernel_shape, offset_group": the attributes that bear axes of an expression.
std::string advice(const OpSpec& spec, const Expression& expression) {
  std::string names;
  for (const AttrSpec& attribute : spec.attributes) {
    if (std::any_of(attribute.axes.begin(), attribute.axes.end(), [&](int axis) { return uses(expression, axis); })) {
      names += (names.empty() ? "" : ", ") + std::string(attribute.name);
    }
  }
  return "; check " + (names.empty() ? "the input shapes" : names);
}

// " = 2*OG*KH*KW (OG=1, KH=3, KW=3); check kernel_shape, offset_group"
std::string explain(const OpSpec& spec, const Expression& expression, const Axes& axes) {
  const Expression* rule = expression.is_axis() ? size_rule(spec, expression.axis()) : nullptr;
  const Expression& shown = rule ? *rule : expression;
  const bool constant =
      !std::any_of(shown.tokens.begin(), shown.tokens.end(), [](Token token) { return token.kind == 'a'; });
  if (constant) return advice(spec, shown);
  std::ostringstream out;
  out << " = " << shown.text;
  if (!shown.is_axis()) {
    const char* separator = " (";
    std::array<bool, kMaxAxes> named{};
    for (const Token& token : shown.tokens) {
      if (token.kind != 'a' || named[token.value]) continue;
      named[token.value] = true;
      out << separator << spec.axis_names[token.value] << "=" << axes[token.value];
      separator = ", ";
    }
    out << ")";
  }
  return out.str() + advice(spec, shown);
}

Attributes::Value read_one(const OpSpec& spec, const AttrSpec& attr, const AttributeSource& source) {
  const std::string where = std::string(spec.name) + " attribute " + attr.name;
  Attributes::Value value;
  if (attr.kind == AttrKind::kString) {
    value.string = source.string(attr.name).value_or(attr.default_string);
    const bool known = std::any_of(attr.choices.begin(), attr.choices.end(),
                                   [&](const char* choice) { return value.string == choice; });
    if (!known) {
      std::string choices;
      for (const char* choice : attr.choices) choices += (choices.empty() ? "'" : ", '") + std::string(choice) + "'";
      throw InvalidArgument(where + " is '" + value.string + "'; wanted one of " + choices);
    }
    return value;
  }
  if (attr.kind == AttrKind::kFloat) {
    value.number = source.number(attr.name).value_or(attr.default_float);
    return value;
  }
  value.ints = source.ints(attr.name, attr.kind);
  if (!value.ints) {
    if (attr.has_default) value.ints.emplace(attr.default_ints.begin(), attr.default_ints.end());
    return value;
  }
  if (!attr.axes.empty() && value.ints->size() != attr.axes.size()) {
    std::ostringstream out;
    out << where << " has " << value.ints->size() << " elements; wanted " << attr.axes.size() << ": ";
    for (std::size_t i = 0; i < attr.axes.size(); ++i) out << (i ? ", " : "") << spec.axis_names[attr.axes[i]];
    throw InvalidArgument(out.str());
  }
  for (int64_t item : *value.ints) {
    if (item >= attr.minimum && item <= attr.maximum) continue;
    std::ostringstream out;
    out << where << " is " << (attr.kind == AttrKind::kInt ? std::to_string(item) : list(*value.ints))
        << "; wanted every element at " << (item < attr.minimum ? "least " : "most ")
        << (item < attr.minimum ? attr.minimum : attr.maximum);
    throw InvalidArgument(out.str());
  }
  return value;
}

}  // namespace

Attributes Attributes::read(const OpSpec& spec, const AttributeSource& source) {
  Attributes attributes;
  for (const AttrSpec& attr : spec.attributes) attributes.values_.push_back(read_one(spec, attr, source));
  return attributes;
}

const Attributes::Value& Attributes::named(const OpSpec& spec, const char* name) const {
  for (std::size_t i = 0; i < spec.attributes.size(); ++i) {
    if (std::strcmp(spec.attributes[i].name, name) == 0) return values_[i];
  }
  throw InternalError(std::string(spec.name) + " has no attribute " + name);
}

Axes bind(const OpSpec& spec, const Attributes& attributes, Span<const Shape* const> inputs) {
  Axes axes{};
  std::array<bool, kMaxAxes> known{}, computed{};
  for (const SizeSpec& size : spec.sizes) computed[size.axis] = true;
  for (std::size_t i = 0; i < spec.attributes.size(); ++i) {
    const AttrSpec& attr = spec.attributes[i];
    for (std::size_t j = 0; attributes[i].ints && j < attr.axes.size(); ++j) {
      axes[attr.axes[j]] = (*attributes[i].ints)[j];
      known[attr.axes[j]] = true;
    }
  }
  const auto shape_of = [&](std::size_t i) { return i < inputs.size() ? inputs[i] : nullptr; };

  for (std::size_t i = 0; i < spec.inputs.size(); ++i) {
    const TensorSpec& tensor = spec.inputs[i];
    const Shape* shape = shape_of(i);
    if (!shape) {
      if (tensor.optional) continue;
      throw InvalidArgument(std::string(spec.name) + " input " + tensor.name + " is missing; it is required");
    }
    if (shape->size() != tensor.axes.size()) {
      std::ostringstream out;
      out << spec.name << " input " << tensor.name << " has shape " << list(*shape) << "; wanted " << tensor.axes.size()
          << " dimensions (";
      for (std::size_t d = 0; d < tensor.axes.size(); ++d) out << (d ? ", " : "") << tensor.axes[d].text;
      out << ")";
      throw InvalidArgument(out.str());
    }
    element_count(*shape);
    for (std::size_t d = 0; d < tensor.axes.size(); ++d) {
      const Expression& axis = tensor.axes[d];
      if (!axis.is_axis() || computed[axis.axis()]) continue;
      if (!known[axis.axis()]) {
        axes[axis.axis()] = (*shape)[d];
        known[axis.axis()] = true;
      }
      require_size(spec, tensor, d, (*shape)[d], axes[axis.axis()], axes);
    }
  }

  for (const DivisibleSpec& rule : spec.divisible) {
    // A divisor of 0 is an empty input's, which is too small: refused below, by its own name.
    if (axes[rule.divisor] == 0 || axes[rule.axis] % axes[rule.divisor] == 0) continue;
    const Token divisor{'a', rule.divisor};
    std::ostringstream out;
    out << spec.name << ": " << spec.axis_names[rule.axis] << " is " << axes[rule.axis] << "; wanted a multiple of "
        << spec.axis_names[rule.divisor] << " = " << axes[rule.divisor] << advice(spec, axis_expression(spec, divisor));
    throw InvalidArgument(out.str());
  }
  const auto axis_value = [&](int axis) { return Checked(axes[axis]); };
  for (const SizeSpec& size : spec.sizes) axes[size.axis] = evaluate<Checked>(size.value, axis_value).value();
  for (const AtLeastSpec& rule : spec.at_least) {
    if (axes[rule.axis] >= rule.least) continue;
    const Token token{'a', rule.axis};
    std::ostringstream out;
    out << spec.name << ": " << spec.axis_names[rule.axis] << " is " << axes[rule.axis] << "; wanted at least "
        << rule.least << explain(spec, axis_expression(spec, token), axes);
    throw InvalidArgument(out.str());
  }
  for (std::size_t i = 0; i < spec.inputs.size(); ++i) {
    const Shape* shape = shape_of(i);
    if (!shape) continue;
    for (std::size_t d = 0; d < spec.inputs[i].axes.size(); ++d) {
      const int64_t wanted = evaluate<Checked>(spec.inputs[i].axes[d], axis_value).value();
      require_size(spec, spec.inputs[i], d, (*shape)[d], wanted, axes);
    }
  }
  for (std::size_t i = 0; i < spec.outputs.size(); ++i) element_count(output_shape(spec, axes, i));
  return axes;
}

void require_size(const OpSpec& spec, const TensorSpec& tensor, std::size_t dimension, int64_t got, int64_t wanted,
                  const Axes& axes) {
  if (got == wanted) return;
  std::ostringstream out;
  out << spec.name << " input " << tensor.name << ": dimension " << dimension << " is " << got << "; wanted " << wanted
      << explain(spec, tensor.axes[dimension], axes);
  throw InvalidArgument(out.str());
}

Shape output_shape(const OpSpec& spec, const Axes& axes, std::size_t output) {
  Shape shape;
  for (const Expression& axis : spec.outputs[output].axes) {
    shape.push_back(evaluate<Checked>(axis, [&](int i) { return Checked(axes[i]); }).value());
  }
  return shape;
}

int64_t element_count(const Shape& shape) {
  // Elements of at most 8 bytes: the byte count must fit too. A zero dimension does not excuse the others.
  Checked count(8);
  bool empty = false;
  for (int64_t size : shape) {
    if (size < 0) throw InvalidArgument("a dimension is negative: shape " + list(shape));
    empty = empty || size == 0;
    if (size != 0) count = count * Checked(size);
  }
  return empty ? 0 : count.value() / 8;
}

}  // namespace deploydcn
