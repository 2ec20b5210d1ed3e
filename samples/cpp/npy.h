// NumPy's .npy files, as np.save writes them: booleans, integers and floats, little-endian, in C order.
// Everything else is refused with what to do about it. The format: numpy.lib.format in NumPy's documentation.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace npy {

// name: NumPy's; code: as it stands in a file's header; size: bytes of an element.
struct Dtype {
  const char *name, *code;
  int64_t size;
};

inline constexpr Dtype kDtypes[] = {{"bool", "|b1", 1},    {"int8", "|i1", 1},    {"uint8", "|u1", 1},
                                    {"int16", "<i2", 2},   {"uint16", "<u2", 2},  {"int32", "<i4", 4},
                                    {"uint32", "<u4", 4},  {"int64", "<i8", 8},   {"uint64", "<u8", 8},
                                    {"float16", "<f2", 2}, {"float32", "<f4", 4}, {"float64", "<f8", 8}};

// The type called `name`.
inline const Dtype& dtype(const std::string& name) {
  for (const Dtype& known : kDtypes) {
    if (name == known.name) return known;
  }
  throw std::runtime_error(name + " is no type that .npy files of this program hold");
}

using Shape = std::vector<int64_t>;

// "[2, 3, 64, 64]"
inline std::string text(const Shape& shape) {
  std::string result;
  for (const int64_t size : shape) result += (result.empty() ? "" : ", ") + std::to_string(size);
  return "[" + result + "]";
}

// Bytes of an array; throws when there are more than an int64_t counts.
inline int64_t byte_count(const Dtype& dtype, const Shape& shape) {
  int64_t count = dtype.size;
  bool empty = false, overflow = false;
  for (const int64_t size : shape) {
    empty |= size == 0;
    overflow |= __builtin_mul_overflow(count, size == 0 ? 1 : size, &count);
  }
  if (overflow) throw std::runtime_error("an array of shape " + text(shape) + " is larger than any memory");
  return empty ? 0 : count;
}

struct Array {
  const Dtype* dtype;
  Shape shape;
  std::vector<std::byte> bytes;  // row-major
};

// The dictionary at the start of a file: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
class Header {
 public:
  explicit Header(const std::string& dictionary) : text_(dictionary) {
    expect('{');
    while (!next_is('}')) {
      const std::string key = quoted();
      expect(':');
      if (key == "descr") {
        read_dtype();
      } else if (key == "fortran_order") {
        read_order();
      } else if (key == "shape") {
        read_shape();
      } else {
        damaged();
      }
      if (!next_is(',') && text_[position_] != '}') damaged();
    }
    if (!dtype || !has_order_ || !has_shape_) damaged();
  }

  const Dtype* dtype = nullptr;
  Shape shape;

 private:
  [[noreturn]] static void damaged() { throw std::runtime_error("its header is damaged; write it anew with np.save"); }

  char peek() {
    while (position_ < text_.size() && std::strchr(" \t\n", text_[position_])) ++position_;
    if (position_ == text_.size()) damaged();
    return text_[position_];
  }
  bool next_is(char wanted) {
    const bool found = peek() == wanted;
    position_ += found;
    return found;
  }
  void expect(char wanted) {
    if (!next_is(wanted)) damaged();
  }
  std::string quoted() {
    const char quote = peek();
    const std::size_t end = text_.find(quote, ++position_);
    if ((quote != '\'' && quote != '"') || end == std::string::npos) damaged();
    const std::string result = text_.substr(position_, end - position_);
    for (const char c : result) {
      if (c < ' ' || c > '~') damaged();  // it may end up in a message
    }
    position_ = end + 1;
    return result;
  }

  void read_dtype() {
    if (peek() == '[') throw std::runtime_error("it holds records; wanted one number per element");
    const std::string code = quoted();
    for (const Dtype& known : kDtypes) {
      if (code == known.code) dtype = &known;
    }
    if (dtype) return;
    if (code.find('O') != std::string::npos) throw std::runtime_error("it holds Python objects; wanted numbers");
    if (code[0] == '>') throw std::runtime_error("it is big-endian; save array.astype(array.dtype.newbyteorder('<'))");
    throw std::runtime_error("its type is '" + code + "'; wanted bool, an integer type, or float16, 32 or 64");
  }
  void read_order() {
    has_order_ = true;
    if (next_is('F')) return expect_rest("alse");
    expect_rest("True");
    throw std::runtime_error("it is in Fortran order; save np.ascontiguousarray(array)");
  }
  void expect_rest(const std::string& word) {
    if (text_.compare(position_, word.size(), word) != 0) damaged();
    position_ += word.size();
  }
  void read_shape() {
    has_shape_ = true;
    expect('(');
    while (!next_is(')')) {
      shape.push_back(whole_number());
      if (!next_is(',') && text_[position_] != ')') damaged();
    }
  }
  int64_t whole_number() {
    if (peek() < '0' || peek() > '9') damaged();
    int64_t value = 0;
    for (; position_ < text_.size() && text_[position_] >= '0' && text_[position_] <= '9'; ++position_) {
      if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, text_[position_] - '0', &value)) {
        throw std::runtime_error("its shape has a size beyond 64 bits; write it anew with np.save");
      }
    }
    return value;
  }

  std::string text_;
  std::size_t position_ = 0;
  bool has_order_ = false, has_shape_ = false;
};

inline Array read_stream(std::ifstream& file, int64_t file_size) {
  unsigned char start[12] = {};
  if (!file.read(reinterpret_cast<char*>(start), 10) || std::memcmp(start, "\x93NUMPY", 6) != 0) {
    throw std::runtime_error("it is no .npy file; np.save writes one");
  }
  const bool is_long = start[6] > 1;  // versions 2 and 3 have four bytes for the header's length
  if (start[6] < 1 || start[6] > 3 || (is_long && !file.read(reinterpret_cast<char*>(start + 10), 2))) {
    throw std::runtime_error("its header is damaged or of an unknown version; write it anew with np.save");
  }
  const int64_t length = start[8] | start[9] << 8 | start[10] << 16 | int64_t{start[11]} << 24;
  const int64_t begin = (is_long ? 12 : 10) + length;
  if (begin > file_size) throw std::runtime_error("it is truncated: it ends within its header; copy it again");
  std::string dictionary(static_cast<std::size_t>(length), '\0');
  file.read(dictionary.data(), length);

  const Header header(dictionary);
  const int64_t wanted = byte_count(*header.dtype, header.shape), got = file_size - begin;
  if (wanted != got) {  // checked before memory is asked for
    throw std::runtime_error("it has " + std::to_string(got) + " bytes of data; " + header.dtype->name + " of shape " +
                             text(header.shape) + " needs " + std::to_string(wanted) +
                             (got < wanted ? ": it is truncated; copy it again" : "; save one array per file"));
  }
  Array array{header.dtype, header.shape, std::vector<std::byte>(static_cast<std::size_t>(wanted))};
  if (!file.read(reinterpret_cast<char*>(array.bytes.data()), wanted)) throw std::runtime_error("it cannot be read");
  return array;
}

inline Array read(const std::filesystem::path& path) {
  try {
    if (!std::filesystem::exists(path)) throw std::runtime_error("it does not exist; wanted a .npy file");
    if (!std::filesystem::is_regular_file(path)) throw std::runtime_error("it is no file; wanted a .npy file");
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("it cannot be opened: " + std::string(std::strerror(errno)));
    return read_stream(file, static_cast<int64_t>(std::filesystem::file_size(path)));
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(path.string() + ": " + error.what());
  }
}

inline void write(const std::filesystem::path& path, const Array& array) {
  std::string shape;
  for (const int64_t size : array.shape) shape += std::to_string(size) + ",";
  std::string header =
      "{'descr': '" + std::string(array.dtype->code) + "', 'fortran_order': False, 'shape': (" + shape + "), }";
  header.resize((10 + header.size() + 1 + 63) / 64 * 64 - 10, ' ');  // data begins at a multiple of 64
  header.back() = '\n';
  const auto low = static_cast<char>(header.size() & 0xff), high = static_cast<char>(header.size() >> 8);
  std::ofstream file(path, std::ios::binary);
  file.write("\x93NUMPY\x01\x00", 8).put(low).put(high) << header;
  file.write(reinterpret_cast<const char*>(array.bytes.data()), static_cast<std::streamsize>(array.bytes.size()));
  if (!file.flush()) throw std::runtime_error(path.string() + " cannot be written: " + std::strerror(errno));
}

}  // namespace npy
