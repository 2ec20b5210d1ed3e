// Runs CPU kernels on cases that Python wrote (tests/cpp/driver.py), outside any runtime:
//
//   kernel_driver THREADS CALLERS [share-output] < cases > results
//
// THREADS: workers of the kernel's own pool. CALLERS: threads that call one kernel at the same time; all must get the
// same bytes. share-output plants a race: all callers write one buffer. Inputs are copied to allocations of their exact
// size, so that AddressSanitizer sees any access beyond.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <thread>

#include "ops/deform_conv2d/deform_conv2d_cpu.h"
#include "ops/grouped_conv2d/grouped_conv2d_cpu.h"
// new-op: include above

using namespace deploydcn;

namespace {

const CpuOp* const kOps[] = {
    &deform_conv2d::kCpuOp,
    &grouped_conv2d::kCpuOp,
    // new-op: insert above
};

void read_bytes(void* to, std::size_t size) {
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
std::string read_string() {
  std::string text(read_value<uint32_t>(), '\0');
  read_bytes(text.data(), text.size());
  return text;
}

struct CaseAttributes : AttributeSource {
  std::map<std::string, std::vector<int64_t>> integers;
  std::map<std::string, double> numbers;
  std::map<std::string, std::string> strings;

  template <class Map>
  static auto find(const Map& map, const char* name) {
    const auto at = map.find(name);
    return at == map.end() ? std::nullopt : std::make_optional(at->second);
  }
  std::optional<std::vector<int64_t>> ints(const char* name, AttrKind) const override { return find(integers, name); }
  std::optional<double> number(const char* name) const override { return find(numbers, name); }
  std::optional<std::string> string(const char* name) const override { return find(strings, name); }
};

struct Case {
  const CpuOp* op;
  CaseAttributes attributes;
  std::vector<DType> dtypes;
  std::vector<TensorView> inputs, constants;
  std::vector<std::unique_ptr<unsigned char[]>> storage;
};

Case read_case() {
  Case one{};
  const std::string name = read_string();
  for (const CpuOp* op : kOps) {
    if (name == op->spec->name) one.op = op;
  }
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
  for (int i = 0; i < one.op->spec->type_params; ++i) one.dtypes.push_back(static_cast<DType>(read_value<uint8_t>()));
  for (uint32_t count = read_value<uint32_t>(); count > 0; --count) {
    TensorView view;
    view.present = read_value<uint8_t>() != 0;
    const bool constant = read_value<uint8_t>() != 0;
    if (view.present) {
      view.dtype = static_cast<DType>(read_value<uint8_t>());
      view.shape.resize(read_value<uint32_t>());
      for (int64_t& size : view.shape) size = read_value<int64_t>();
      const auto bytes = read_value<uint64_t>();
      one.storage.emplace_back(new unsigned char[bytes]);
      read_bytes(one.storage.back().get(), bytes);
      view.data = one.storage.back().get();
    }
    one.inputs.push_back(view);
    one.constants.push_back(constant ? view : TensorView{});
  }
  return one;
}

class DriverContext : public CpuContext {
 public:
  DriverContext(int threads, DType dtype) : threads_(threads), dtype_(dtype) {}
  void run(int64_t count, void (*task)(void*, std::size_t), void* state) override {
    std::atomic<int64_t> next{0};
    const auto work = [&] {
      for (int64_t i = next++; i < count; i = next++) task(state, static_cast<std::size_t>(i));
    };
    std::vector<std::thread> workers;
    for (int i = 1; i < threads_; ++i) workers.emplace_back(work);
    work();
    for (std::thread& worker : workers) worker.join();
  }
  void* allocate(std::size_t bytes) override { return std::malloc(bytes); }
  void release(void* memory) noexcept override { std::free(memory); }
  void* output(std::size_t, const Shape& wanted) override {
    shape = wanted;
    bytes = static_cast<std::size_t>(element_count(shape)) * size_of(dtype_);
    if (!data) data.reset(new unsigned char[bytes]);
    return data.get();
  }

  Shape shape;
  std::size_t bytes = 0;
  std::unique_ptr<unsigned char[]> data;

 private:
  int threads_;
  DType dtype_;
};

template <class T>
void write_value(T value) {
  std::fwrite(&value, sizeof value, 1, stdout);
}

void write_error(const char* message) {
  write_value<uint8_t>(1);
  write_value(static_cast<uint32_t>(std::strlen(message)));
  std::fputs(message, stdout);
}

void run_case(int threads, int callers, bool share_output) {
  const Case one = read_case();
  const OpSpec& spec = *one.op->spec;
  try {
    const Attributes attributes = Attributes::read(spec, one.attributes);
    const auto kernel = one.op->create(attributes, one.dtypes, one.constants);
    const DType output_type = one.dtypes[spec.outputs[0].type_param];
    std::vector<std::unique_ptr<DriverContext>> contexts;
    for (int i = 0; i < callers; ++i) contexts.push_back(std::make_unique<DriverContext>(threads, output_type));
    if (share_output) {
      contexts.resize(1);
      kernel->compute(one.inputs, *contexts[0]);  // allocates
    }
    std::vector<std::thread> workers;
    for (int i = 1; i < callers; ++i) {
      workers.emplace_back([&, i] { kernel->compute(one.inputs, *contexts[share_output ? 0 : i]); });
    }
    kernel->compute(one.inputs, *contexts[0]);
    for (std::thread& worker : workers) worker.join();
    const DriverContext& first = *contexts[0];
    for (const auto& context : contexts) {
      if (std::memcmp(context->data.get(), first.data.get(), first.bytes) != 0) {
        return write_error("callers disagree");
      }
    }
    write_value<uint8_t>(0);
    write_value(static_cast<uint32_t>(first.shape.size()));
    for (int64_t size : first.shape) write_value(size);
    std::fwrite(first.data.get(), 1, first.bytes, stdout);
  } catch (const InvalidArgument& error) {
    write_error(error.what());
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fputs("usage: kernel_driver THREADS CALLERS [share-output] < cases > results\n", stderr);
    return 2;
  }
  for (uint32_t count = read_value<uint32_t>(); count > 0; --count) {
    run_case(std::atoi(argv[1]), std::atoi(argv[2]), argc > 3 && std::strcmp(argv[3], "share-output") == 0);
  }
  return 0;
}
