#include "tensorrt/fields.h"

#include <cstring>
#include <limits>

namespace deploydcn::trt {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;

// Counts the ways we have stored a node in an engine; an engine of another count is refused.
constexpr int32_t kFormat = 1;
constexpr const char* kFormatField = "deploydcn_format";
constexpr const char* kTf32Field = "allow_tf32";

const PluginField* find(const PluginFieldCollection* fields, const char* name) {
  for (int32_t i = 0; fields && i < fields->nbFields; ++i) {
    const PluginField& field = fields->fields[i];
    if (field.name && std::strcmp(field.name, name) == 0) return &field;
  }
  return nullptr;
}

class FieldAttributes : public AttributeSource {
 public:
  FieldAttributes(const OpSpec& spec, const PluginFieldCollection* fields) : spec_(spec), fields_(fields) {}

  std::optional<std::vector<int64_t>> ints(const char* name, AttrKind kind) const override {
    const PluginField* field = present(name);
    if (!field) return std::nullopt;
    if (kind == AttrKind::kInt && field->length != 1) {
      throw wrong(name, std::to_string(field->length) + " elements", "1");
    }
    switch (field->type) {
      case PluginFieldType::kINT32: return copy<int32_t>(*field);
      case PluginFieldType::kINT64: return copy<int64_t>(*field);
      default: throw wrong(name, type_text(*field), "integers");
    }
  }
  std::optional<double> number(const char* name) const override {
    const PluginField* field = present(name);
    if (!field) return std::nullopt;
    if (field->length != 1) throw wrong(name, std::to_string(field->length) + " elements", "1");
    switch (field->type) {
      case PluginFieldType::kFLOAT32: return *static_cast<const float*>(field->data);
      case PluginFieldType::kFLOAT64: return *static_cast<const double*>(field->data);
      default: throw wrong(name, type_text(*field), "a floating-point number");
    }
  }
  std::optional<std::string> string(const char* name) const override {
    const PluginField* field = find(fields_, name);
    if (!field || field->length == 0) return std::nullopt;  // an empty string arrives without data
    if (field->type != PluginFieldType::kCHAR || !field->data || field->length < 0) {
      throw wrong(name, type_text(*field), "a string");
    }
    const auto* text = static_cast<const char*>(field->data);
    return std::string(text, strnlen(text, static_cast<std::size_t>(field->length)));
  }

 private:
  const PluginField* present(const char* name) const {
    const PluginField* field = find(fields_, name);
    if (field && (!field->data || field->length < 1)) throw wrong(name, "no data", "at least one element");
    return field;
  }
  template <class T>
  static std::vector<int64_t> copy(const PluginField& field) {
    const auto* items = static_cast<const T*>(field.data);
    return {items, items + field.length};
  }
  static std::string type_text(const PluginField& field) {
    return "plugin field type " + std::to_string(static_cast<int>(field.type));
  }
  InvalidArgument wrong(const char* name, const std::string& got, const std::string& wanted) const {
    return InvalidArgument(std::string(spec_.name) + " attribute " + name + " has " + got + "; wanted " + wanted);
  }

  const OpSpec& spec_;
  const PluginFieldCollection* fields_;
};

int32_t as_int32(const OpSpec& spec, const char* name, int64_t value) {
  if (value < std::numeric_limits<int32_t>::min() || value > std::numeric_limits<int32_t>::max()) {
    throw InvalidArgument(std::string(spec.name) + " attribute " + name + " is " + std::to_string(value) +
                          "; wanted a value that fits 32 bits, as TensorRT stores no more");
  }
  return static_cast<int32_t>(value);
}

PluginFieldType type_of(AttrKind kind) {
  switch (kind) {
    case AttrKind::kInt:
    case AttrKind::kInts: return PluginFieldType::kINT32;
    case AttrKind::kFloat: return PluginFieldType::kFLOAT32;
    case AttrKind::kString: return PluginFieldType::kCHAR;
  }
  throw InternalError("unknown attribute kind");
}

}  // namespace

FieldNames::FieldNames(const OpSpec& spec) {
  for (const AttrSpec& attr : spec.attributes) {
    const auto length = static_cast<int32_t>(attr.kind == AttrKind::kInts ? attr.axes.size() : 1);
    fields_.emplace_back(attr.name, nullptr, type_of(attr.kind), length);
  }
  fields_.emplace_back(kTf32Field, nullptr, PluginFieldType::kINT32, 1);
  collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
}

NodeFields read_fields(const OpSpec& spec, const PluginFieldCollection* fields, bool from_engine) {
  const FieldAttributes source(spec, fields);
  if (from_engine) {
    const auto format = source.ints(kFormatField, AttrKind::kInt);
    if (!format || (*format)[0] != kFormat) {
      throw InvalidArgument("the engine stores this " + std::string(spec.name) + " in format " +
                            (format ? std::to_string((*format)[0]) : "0") + "; this plugin library reads format " +
                            std::to_string(kFormat) + "; rebuild the engine, or load the deploydcn it was built with");
    }
  }
  NodeFields node{Attributes::read(spec, source), {}};
  for (std::size_t i = 0; i < spec.attributes.size(); ++i) {
    for (int64_t item : node.attributes[i].ints.value_or(std::vector<int64_t>())) {
      as_int32(spec, spec.attributes[i].name, item);
    }
  }
  const auto tf32 = source.ints(kTf32Field, AttrKind::kInt);
  if (tf32 && (*tf32)[0] != 0 && (*tf32)[0] != 1) {
    throw InvalidArgument(std::string(spec.name) + " attribute " + kTf32Field + " is " + std::to_string((*tf32)[0]) +
                          "; wanted 0 or 1");
  }
  node.options.allow_tf32 = tf32 && (*tf32)[0] == 1;
  return node;
}

SerializedFields::SerializedFields(const OpSpec& spec, const NodeFields& node) {
  for (std::size_t i = 0; i < spec.attributes.size(); ++i) {
    const AttrSpec& attr = spec.attributes[i];
    const Attributes::Value& value = node.attributes[i];
    if (attr.kind == AttrKind::kString) {
      strings_.push_back(value.string);
      if (!value.string.empty()) {
        fields_.emplace_back(attr.name, strings_.back().data(), PluginFieldType::kCHAR,
                             static_cast<int32_t>(strings_.back().size()));
      }
    } else if (attr.kind == AttrKind::kFloat) {
      numbers_.push_back(static_cast<float>(value.number));
      fields_.emplace_back(attr.name, &numbers_.back(), PluginFieldType::kFLOAT32, 1);
    } else if (value.ints) {
      std::vector<int32_t> items;
      for (int64_t item : *value.ints) items.push_back(as_int32(spec, attr.name, item));
      add(attr.name, std::move(items));
    }
  }
  add(kTf32Field, {node.options.allow_tf32 ? 1 : 0});
  add(kFormatField, {kFormat});
  collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
}

void SerializedFields::add(const char* name, std::vector<int32_t> values) {
  ints_.push_back(std::move(values));
  fields_.emplace_back(name, ints_.back().data(), PluginFieldType::kINT32, static_cast<int32_t>(ints_.back().size()));
}

}  // namespace deploydcn::trt
