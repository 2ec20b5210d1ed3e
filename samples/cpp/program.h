// What run_onnx and run_engine share: the command line, inputs from files, outputs to files, timing.
#pragma once

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "npy.h"

namespace program {

// A wrong command line.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Arguments {
  std::string model, library, output_folder;
  std::vector<std::string> inputs;     // "file.npy" or "name=file.npy"
  std::map<std::string, int> numbers;  // "--repeat" and its like
};

// numbers: options that take a whole number, with their defaults.
inline Arguments parse(int argc, char** argv, std::map<std::string, int> numbers) {
  Arguments arguments{{}, {}, {}, {}, std::move(numbers)};
  std::vector<std::string> rest;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.size() < 2 || argument[0] != '-') {
      rest.push_back(argument);
      continue;
    }
    const auto number = arguments.numbers.find(argument);
    if (argument != "-o" && number == arguments.numbers.end()) throw UsageError("unknown option " + argument);
    if (++i == argc) throw UsageError(argument + " needs a value");
    const std::string value = argv[i];
    if (argument == "-o") {
      arguments.output_folder = value;
      continue;
    }
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number->second);
    if (error != std::errc() || end != value.data() + value.size() || number->second < 1) {
      throw UsageError(argument + " is '" + value + "'; wanted a whole number, 1 or more");
    }
  }
  if (rest.size() < 2 || arguments.output_folder.empty()) throw UsageError("a model, a library and -o are needed");
  arguments.model = rest[0];
  arguments.library = rest[1];
  arguments.inputs.assign(rest.begin() + 2, rest.end());
  return arguments;
}

// An input or output of a model. shape: -1 where `axes` has a name for the size, or "?"; empty when nothing is known.
struct TensorInfo {
  std::string name;
  const npy::Dtype* dtype;
  npy::Shape shape;
  std::vector<std::string> axes;

  // "x: float32[nx3xhxw]"
  std::string text() const {
    std::string sizes;
    for (std::size_t i = 0; i < shape.size(); ++i) {
      sizes += (i ? "x" : "") + (shape[i] >= 0                     ? std::to_string(shape[i])
                                 : axes.empty() || axes[i].empty() ? "?"
                                                                   : axes[i]);
    }
    return name + ": " + dtype->name + "[" + sizes + "]";
  }
};

inline std::string listing(const std::vector<TensorInfo>& infos) {
  std::string result;
  for (const TensorInfo& info : infos) result += (result.empty() ? "" : ", ") + info.text();
  return result;
}

// Compares an array with what the model declares.
inline void check(const TensorInfo& info, const npy::Array& array, const std::string& path) {
  if (array.dtype != info.dtype) {
    throw std::runtime_error("input '" + info.name + "' (" + path + ") is " + array.dtype->name + "; wanted " +
                             info.dtype->name + "; save array.astype('" + info.dtype->name + "')");
  }
  bool fits = info.shape.empty() || array.shape.size() == info.shape.size();
  for (std::size_t i = 0; fits && i < info.shape.size(); ++i) {
    fits = info.shape[i] < 0 || array.shape[i] == info.shape[i];
  }
  if (!fits) {
    throw std::runtime_error("input '" + info.name + "' (" + path + ") has shape " + npy::text(array.shape) +
                             "; wanted " + info.text());
  }
}

// The arrays of the inputs, in the model's order. Files without a name go, in order, to the inputs that no name took.
inline std::vector<npy::Array> read_inputs(const std::vector<std::string>& arguments,
                                           const std::vector<TensorInfo>& infos) {
  std::map<std::string, std::string> paths;
  std::vector<std::string> unnamed;
  for (const std::string& argument : arguments) {
    const std::size_t split = argument.find('=');
    if (split == std::string::npos) {
      unnamed.push_back(argument);
      continue;
    }
    const std::string name = argument.substr(0, split);
    if (std::none_of(infos.begin(), infos.end(), [&](const TensorInfo& info) { return info.name == name; })) {
      throw std::runtime_error("no input named '" + name + "'; the model takes " + listing(infos));
    }
    if (!paths.emplace(name, argument.substr(split + 1)).second)
      throw std::runtime_error("input '" + name + "' is given twice");
  }
  auto next = unnamed.begin();
  for (const TensorInfo& info : infos) {
    if (paths.count(info.name)) continue;
    if (next == unnamed.end())
      throw std::runtime_error("input '" + info.name + "' is missing; the model takes " + listing(infos));
    paths[info.name] = *next++;
  }
  if (next != unnamed.end())
    throw std::runtime_error("'" + *next + "' is one input too many; the model takes " + listing(infos));

  std::vector<npy::Array> arrays;
  for (const TensorInfo& info : infos) {
    const std::string& path = paths[info.name];
    arrays.push_back(npy::read(path));
    check(info, arrays.back(), path);
    std::printf("input %s: %s%s\n", info.name.c_str(), arrays.back().dtype->name,
                npy::text(arrays.back().shape).c_str());
  }
  return arrays;
}

// A tensor's name as a file name: what may not or should not stand in one becomes %2F and the like.
inline std::string file_name(const std::string& name) {
  std::string result;
  for (const unsigned char c : name) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' ||
                       c == '-' || (c == '.' && !result.empty());
    char escaped[4];
    std::snprintf(escaped, sizeof escaped, "%%%02X", c);
    result += plain ? std::string(1, static_cast<char>(c)) : escaped;
  }
  return result + ".npy";
}

// A model, an engine or a library, before somebody else opens it and has less to say.
inline std::string existing_file(const std::string& path, const char* wanted) {
  if (!std::filesystem::exists(path)) throw std::runtime_error(path + " does not exist; wanted " + wanted);
  if (!std::filesystem::is_regular_file(path)) throw std::runtime_error(path + " is no file; wanted " + wanted);
  return std::filesystem::absolute(path).string();
}

// Writes name.npy for every output. Files get their names once all of them are complete.
inline void save(const std::filesystem::path& folder, const std::vector<std::string>& names,
                 const std::vector<npy::Array>& arrays) {
  std::filesystem::create_directories(folder);
  const auto partial = [&](std::size_t i) { return folder / (file_name(names[i]) + ".part"); };
  try {
    for (std::size_t i = 0; i < names.size(); ++i) npy::write(partial(i), arrays[i]);
    for (std::size_t i = 0; i < names.size(); ++i) {
      const std::filesystem::path path = folder / file_name(names[i]);
      std::filesystem::rename(partial(i), path);
      std::printf("output %s: %s%s in %s\n", names[i].c_str(), arrays[i].dtype->name,
                  npy::text(arrays[i].shape).c_str(), path.c_str());
    }
  } catch (...) {
    std::error_code ignored;
    for (std::size_t i = 0; i < names.size(); ++i) std::filesystem::remove(partial(i), ignored);
    throw;
  }
}

// Calls `run` that often and prints the median of its times. The first call of all should come before.
template <class Run>
void print_median(int repeat, Run&& run) {
  std::vector<double> times;
  for (int i = 0; i < repeat; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run();
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(times.begin(), times.end());
  const std::size_t count = times.size();
  std::printf("median of %zu runs: %.3f ms\n", count, (times[(count - 1) / 2] + times[count / 2]) / 2);
}

// Runs body() and returns the exit code: 0, 1 after an error, 2 after a wrong command line.
template <class Body>
int guarded(const char* name, const char* usage, Body&& body) {
  try {
    body();
    return 0;
  } catch (const UsageError& error) {
    std::fprintf(stderr, "%s: %s\nusage: %s %s\n", name, error.what(), name, usage);
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", name, error.what());
    return 1;
  }
}

}  // namespace program
