// Op specifications as data: the C++ side of deploydcn/spec.py. Generated tables (spec.gen.h) fill these structs; the
// functions here interpret them, once for every op and every runtime.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/checked.h"
#include "core/dtype.h"
#include "core/span.h"

namespace deploydcn {

inline constexpr int kMaxAxes = 32;

// One step of an expression in postfix order: 'i' pushes `value`, 'a' pushes axis number `value`, + - * / combine (/
// floors).
struct Token {
  char kind;
  int64_t value;
};

struct Expression {
  const char* text;
  Span<const Token> tokens;
  bool is_axis() const { return tokens.size() == 1 && tokens[0].kind == 'a'; }
  int axis() const { return static_cast<int>(tokens[0].value); }
};

enum class AttrKind { kInt, kInts, kFloat, kString };

struct AttrSpec {
  const char* name;
  AttrKind kind;
  Span<const int> axes;  // axis numbers its elements bear
  bool has_default;      // false: the axes are read from the inputs when the attribute is absent
  Span<const int64_t> default_ints;
  double default_float;
  const char* default_string;
  int64_t minimum, maximum;  // of every element
  Span<const char* const> choices;
};

struct TensorSpec {
  const char* name;
  Span<const Expression> axes;
  int type_param;  // index into a type row
  bool optional;
};

struct SizeSpec {
  int axis;
  Expression value;
};
struct DivisibleSpec {
  int axis, divisor;
};
struct AtLeastSpec {
  int axis;
  int64_t least;
};

struct OpSpec {
  const char* name;
  int since_version;
  Span<const char* const> axis_names;
  Span<const AttrSpec> attributes;
  Span<const TensorSpec> inputs;
  Span<const TensorSpec> outputs;
  int type_params;
  Span<const DType> type_rows;  // rows of `type_params` entries
  Span<const SizeSpec> sizes;
  Span<const DivisibleSpec> divisible;
  Span<const AtLeastSpec> at_least;
};

using Shape = std::vector<int64_t>;

// Where a runtime keeps a node's attributes. Each getter returns nothing when the attribute is absent and throws
// InvalidArgument when it has another type.
class AttributeSource {
 public:
  virtual ~AttributeSource() = default;
  virtual std::optional<std::vector<int64_t>> ints(const char* name, AttrKind kind) const = 0;
  virtual std::optional<double> number(const char* name) const = 0;
  virtual std::optional<std::string> string(const char* name) const = 0;
};

// A node's attributes, checked and completed with defaults. Values are indexed like OpSpec::attributes.
class Attributes {
 public:
  struct Value {
    std::optional<std::vector<int64_t>> ints;
    double number = 0;
    std::string string;
  };

  static Attributes read(const OpSpec& spec, const AttributeSource& source);

  const Value& operator[](std::size_t index) const { return values_[index]; }
  const Value& named(const OpSpec& spec, const char* name) const;

 private:
  std::vector<Value> values_;
};

using Axes = std::array<int64_t, kMaxAxes>;

// Sizes of all axes of `spec` for concrete input shapes (nullptr: an absent optional input, or one past the last).
// Throws InvalidArgument on any mismatch, naming what, got, wanted and fix.
Axes bind(const OpSpec& spec, const Attributes& attributes, Span<const Shape* const> inputs);

// Throws InvalidArgument, explained by the values in `axes`, unless dimension `dimension` of `tensor` is as wanted.
void require_size(const OpSpec& spec, const TensorSpec& tensor, std::size_t dimension, int64_t got, int64_t wanted,
                  const Axes& axes);

// The shape of an output for bound axes.
Shape output_shape(const OpSpec& spec, const Axes& axes, std::size_t output);

// Number of elements; throws InvalidArgument when the product overflows.
int64_t element_count(const Shape& shape);

// Evaluates an expression over any integer-like type with + - * and floor_div. `axis(i)` yields axis i.
template <class Int, class AxisOf>
Int evaluate(const Expression& expression, AxisOf&& axis) {
  std::vector<Int> stack;
  for (const Token& token : expression.tokens) {
    if (token.kind == 'i') {
      stack.push_back(Int(token.value));
    } else if (token.kind == 'a') {
      stack.push_back(axis(static_cast<int>(token.value)));
    } else {
      const Int right = stack.back();
      stack.pop_back();
      const Int left = stack.back();
      stack.back() = token.kind == '+'   ? left + right
                     : token.kind == '-' ? left - right
                     : token.kind == '*' ? left * right
                                         : floor_div(left, right);
    }
  }
  return stack.back();
}

}  // namespace deploydcn
