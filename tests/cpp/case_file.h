// Cases that Python wrote (tests/cpp/driver.py), read from standard input; results, written to standard output. Inputs
// are kept in allocations of their exact size, so that AddressSanitizer sees any access beyond.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/tensor_view.h"

namespace case_file {

inline void read_bytes(void* to, std::size_t size) {
  if (size != 0 && std::fread(to, 1, size, stdin) != size) {
    std::fputs("truncated case file\n", stderr);
    std::exit(2);
  }
}
template <class T>
T read_value() {
  T value;
  read_bytes(&value, sizeof value);
  return value;
}
inline std::string read_string() {
  std::string text(read_value<uint32_t>(), '\0');
  read_bytes(text.data(), text.size());
  return text;
}

struct CaseAttributes : deploydcn::AttributeSource {
  std::map<std::string, std::vector<int64_t>> integers;
  std::map<std::string, double> numbers;
  std::map<std::string, std::string> strings;

  template <class Map>
  static auto find(const Map& map, const char* name) {
    const auto at = map.find(name);
    return at == map.end() ? std::nullopt : std::make_optional(at->second);
  }
  std::optional<std::vector<int64_t>> ints(const char* name, deploydcn::AttrKind) const override {
    return find(integers, name);
  }
  std::optional<double> number(const char* name) const override { return find(numbers, name); }
  std::optional<std::string> string(const char* name) const override { return find(strings, name); }
};

struct Case {
  std::string op;
  CaseAttributes attributes;
  std::vector<deploydcn::DType> dtypes;  // one per type parameter
  std::vector<deploydcn::TensorView> inputs, constants;
  std::vector<std::unique_ptr<unsigned char[]>> storage;
};

inline Case read_case() {
  Case one{};
  one.op = read_string();
  for (uint32_t count = read_value<uint32_t>(); count > 0; --count) {
    const std::string attribute = read_string();
    const char kind = read_value<char>();
    if (kind == 's') {
      one.attributes.strings[attribute] = read_string();
    } else if (kind == 'f') {
      one.attributes.numbers[attribute] = read_value<double>();
    } else {
      std::vector<int64_t> values(read_value<uint32_t>());
      for (int64_t& value : values) value = read_value<int64_t>();
      one.attributes.integers[attribute] = values;
    }
  }
  for (uint32_t count = read_value<uint32_t>(); count > 0; --count) {
    one.dtypes.push_back(static_cast<deploydcn::DType>(read_value<uint8_t>()));
  }
  for (uint32_t count = read_value<uint32_t>(); count > 0; --count) {
    deploydcn::TensorView view;
    view.present = read_value<uint8_t>() != 0;
    const bool constant = read_value<uint8_t>() != 0;
    if (view.present) {
      view.dtype = static_cast<deploydcn::DType>(read_value<uint8_t>());
      view.shape.resize(read_value<uint32_t>());
      for (int64_t& size : view.shape) size = read_value<int64_t>();
      const auto bytes = read_value<uint64_t>();
      one.storage.emplace_back(new unsigned char[bytes]);
      read_bytes(one.storage.back().get(), bytes);
      view.data = one.storage.back().get();
    }
    one.inputs.push_back(view);
    one.constants.push_back(constant ? view : deploydcn::TensorView{});
  }
  return one;
}

template <class T>
void write_value(T value) {
  std::fwrite(&value, sizeof value, 1, stdout);
}

inline void write_error(const char* message) {
  write_value<uint8_t>(1);
  write_value(static_cast<uint32_t>(std::strlen(message)));
  std::fputs(message, stdout);
}

inline void write_success(std::size_t outputs) {
  write_value<uint8_t>(0);
  write_value(static_cast<uint32_t>(outputs));
}

inline void write_output(const int64_t* dims, std::size_t rank, const void* data, std::size_t bytes) {
  write_value(static_cast<uint32_t>(rank));
  for (std::size_t i = 0; i < rank; ++i) write_value(dims[i]);
  if (bytes != 0) std::fwrite(data, 1, bytes, stdout);
}

}  // namespace case_file
