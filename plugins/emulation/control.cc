#include "emulation/control.h"

#include <cuda_runtime_api.h>

#include <charconv>
#include <cstring>
#include <functional>
#include <map>
#include <string>

#include "emulation/device_memory.h"
#include "emulation/failures.h"
#include "emulation/streams.h"

namespace deploydcn::emulation {

Options& options() {
  static Options values;
  return values;
}
deploydcn_emulation_stats& stats() {
  static deploydcn_emulation_stats values{};
  return values;
}

namespace {

bool parse(const std::string& text, uint64_t least, uint64_t most, uint64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= least && value <= most;
}

template <class T>
auto number(T Options::* field, uint64_t least, uint64_t most) {
  return [=](const std::string& text) {
    uint64_t value;
    const bool parsed = parse(text, least, most, value);
    if (parsed) options().*field = static_cast<T>(value);
    return parsed;
  };
}

template <class T>
auto choice(T Options::* field, std::map<std::string, T> values) {
  return [=](const std::string& text) {
    const auto found = values.find(text);
    if (found == values.end()) return false;
    options().*field = found->second;
    return true;
  };
}

bool set_engine(const std::string& text) {
  static const auto set =
      choice(&Options::engine, {{"source", Engine::kSource}, {"ptx75", Engine::kPtx75}, {"ptx80", Engine::kPtx80}});
  if (!set(text)) return false;
  options().compute_capability = options().engine == Engine::kPtx75 ? 75 : 90;
  return true;
}

bool set_compute_capability(const std::string& text) {
  const size_t dot = text.find('.');
  uint64_t major, minor;
  if (dot == std::string::npos || !parse(text.substr(0, dot), 5, 99, major) ||
      !parse(text.substr(dot + 1), 0, 9, minor))
    return false;
  options().compute_capability = static_cast<int>(10 * major + minor);
  return true;
}

const std::map<std::string, std::function<bool(const std::string&)>>& setters() {
  static const std::map<std::string, std::function<bool(const std::string&)>> table = {
      {"schedule", choice(&Options::schedule,
                          {{"seq", Schedule::kSequential}, {"rev", Schedule::kReverse}, {"rand", Schedule::kRandom}})},
      {"seed", number(&Options::seed, 0, ~uint64_t{0})},
      {"poison", number(&Options::poison, 0, 255)},
      {"strict_exit", number(&Options::strict_exit, 0, 1)},
      {"inside_enqueue", number(&Options::inside_enqueue, 0, 1)},
      {"deferred", number(&Options::deferred, 0, 1)},
      {"engine", set_engine},
      {"compute_capability", set_compute_capability},
      {"multiprocessors", number(&Options::multiprocessors, 1, 1024)},
  };
  return table;
}

}  // namespace
}  // namespace deploydcn::emulation

using namespace deploydcn::emulation;

int deploydcn_emulation_set(const char* name, const char* value) {
  const std::lock_guard<std::recursive_mutex> lock(runtime_mutex());
  const auto found = setters().find(name);
  if (found != setters().end() && found->second(value)) return 0;
  record_failure(std::string("emulation option ") + name + "=" + value +
                 (found == setters().end() ? ": no such option" : ": no such value"));
  return 1;
}

const char* deploydcn_emulation_error(void) { return failure_text().c_str(); }

void deploydcn_emulation_reset(void) {
  const std::lock_guard<std::recursive_mutex> lock(runtime_mutex());
  drop_enqueued();
  forget_failures();
}

void deploydcn_emulation_read_stats(deploydcn_emulation_stats* values, int clear) {
  *values = stats();
  if (clear) stats() = {};
}

void* deploydcn_emulation_malloc(size_t bytes) {
  void* memory = nullptr;
  return cudaMalloc(&memory, bytes) == cudaSuccess ? memory : nullptr;
}
int deploydcn_emulation_free(void* device) { return cudaFree(device); }
int deploydcn_emulation_upload(void* device, const void* host, size_t bytes) {
  return cudaMemcpy(device, host, bytes, cudaMemcpyHostToDevice);
}
int deploydcn_emulation_download(void* host, const void* device, size_t bytes) {
  return cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost);
}
void* deploydcn_emulation_stream_create(void) {
  cudaStream_t stream = nullptr;
  return cudaStreamCreate(&stream) == cudaSuccess ? stream : nullptr;
}
int deploydcn_emulation_stream_destroy(void* stream) { return cudaStreamDestroy(static_cast<cudaStream_t>(stream)); }
int deploydcn_emulation_synchronize(void) { return cudaDeviceSynchronize(); }
