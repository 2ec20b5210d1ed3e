// Runs CPU kernels on cases that Python wrote (tests/cpp/driver.py), outside any runtime:
//
//   kernel_driver THREADS CALLERS [share-output] < cases > results
//
// THREADS: workers of the kernel's own pool. CALLERS: threads that call one kernel at the same time; all must get the
// same bytes. share-output plants a race: all callers write one buffer.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

#include "ops/dcnv3/dcnv3_cpu.h"
#include "ops/dcnv4/dcnv4_cpu.h"
#include "ops/deform_conv2d/deform_conv2d_cpu.h"
#include "ops/deform_psroi_pool/deform_psroi_pool_cpu.h"
#include "ops/deform_roi_pool/deform_roi_pool_cpu.h"
#include "ops/grouped_conv2d/grouped_conv2d_cpu.h"
#include "ops/ms_deform_attn/ms_deform_attn_cpu.h"
#include "ops/qlinear_deform_conv2d/qlinear_deform_conv2d_cpu.h"
#include "ops/separable_conv2d/separable_conv2d_cpu.h"
// new-op: include above
#include "case_file.h"

using namespace deploydcn;

namespace {

const CpuOp* const kOps[] = {
    &deform_conv2d::kCpuOp,
    &grouped_conv2d::kCpuOp,
    &deform_roi_pool::kCpuOp,
    &deform_psroi_pool::kCpuOp,
    &dcnv3::kCpuOp,
    &dcnv4::kCpuOp,
    &ms_deform_attn::kCpuOp,
    &separable_conv2d::kCpuOp,
    &qlinear_deform_conv2d::kCpuOp,
    // new-op: insert above
};

const CpuOp& op_named(const std::string& name) {
  for (const CpuOp* op : kOps) {
    if (name == op->spec->name) return *op;
  }
  std::fprintf(stderr, "no operator %s\n", name.c_str());
  std::exit(2);
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
  void* output(std::size_t index, const Shape& shape) override {
    if (outputs.size() <= index) outputs.resize(index + 1);
    Output& output = outputs[index];
    output.shape = shape;
    output.bytes = static_cast<std::size_t>(element_count(shape)) * size_of(dtype_);
    if (!output.data) output.data.reset(new unsigned char[output.bytes]);
    return output.data.get();
  }

  struct Output {
    Shape shape;
    std::size_t bytes = 0;
    std::unique_ptr<unsigned char[]> data;
  };
  std::vector<Output> outputs;

 private:
  int threads_;
  DType dtype_;
};

void run_case(int threads, int callers, bool share_output, Products products) {
  const case_file::Case one = case_file::read_case();
  const CpuOp& op = op_named(one.op);
  const OpSpec& spec = *op.spec;
  try {
    const Attributes attributes = Attributes::read(spec, one.attributes);
    const auto kernel = op.create({attributes, one.dtypes, one.constants, products});
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
    const auto& first = contexts[0]->outputs;
    for (const auto& context : contexts) {
      for (std::size_t i = 0; i < first.size(); ++i) {
        if (std::memcmp(context->outputs[i].data.get(), first[i].data.get(), first[i].bytes) != 0) {
          return case_file::write_error("callers disagree");
        }
      }
    }
    case_file::write_success(first.size());
    for (const auto& output : first) {
      case_file::write_output(output.shape.data(), output.shape.size(), output.data.get(), output.bytes);
    }
  } catch (const InvalidArgument& error) {
    case_file::write_error(error.what());
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fputs("usage: kernel_driver THREADS CALLERS [share-output] [bfloat16 | precise] < cases > results\n", stderr);
    return 2;
  }
  const auto given = [&](const char* flag) {
    return std::any_of(argv + 3, argv + argc, [&](const char* text) { return std::strcmp(text, flag) == 0; });
  };
  const Products products = given("bfloat16")  ? Products::kBFloat16
                            : given("precise") ? Products::kFused
                                               : Products::kFloat32;
  for (uint32_t count = case_file::read_value<uint32_t>(); count > 0; --count) {
    run_case(std::atoi(argv[1]), std::atoi(argv[2]), given("share-output"), products);
  }
  return 0;
}
