// Runs TensorRT plugins, or GPU kernels alone, on the emulator for cases that Python wrote, outside Python, so that
// sanitizers see everything:
//
//   plugin_driver plugin|kernel|naive ENGINE SCHEDULE SEED < cases > results
#include "case_file.h"
#include "core/dtype.h"
#include "emulation/control.h"
#include "harness/harness.h"

namespace {

HarnessTensor tensor_of(const deploydcn::TensorView& view) {
  HarnessTensor tensor{};
  tensor.dtype = static_cast<int32_t>(view.dtype);
  tensor.rank = static_cast<int32_t>(view.shape.size());
  for (std::size_t i = 0; i < view.shape.size(); ++i) tensor.dims[i] = view.shape[i];
  tensor.data = view.data;
  return tensor;
}

// `storage` holds what the fields point at and the attributes do not.
std::vector<HarnessField> fields_of(const case_file::CaseAttributes& attributes, std::vector<float>& storage) {
  std::vector<HarnessField> fields;
  for (const auto& [name, values] : attributes.integers) {
    fields.push_back({name.c_str(), 'l', static_cast<int32_t>(values.size()), values.data()});
  }
  storage.reserve(attributes.numbers.size());
  for (const auto& [name, value] : attributes.numbers) {
    storage.push_back(static_cast<float>(value));
    fields.push_back({name.c_str(), 'f', 1, &storage.back()});
  }
  for (const auto& [name, text] : attributes.strings) {
    fields.push_back({name.c_str(), 's', static_cast<int32_t>(text.size()), text.data()});
  }
  return fields;
}

void run_case(const std::string& mode) {
  const case_file::Case one = case_file::read_case();
  std::vector<float> numbers;
  const std::vector<HarnessField> fields = fields_of(one.attributes, numbers);
  std::vector<HarnessTensor> inputs;
  for (const deploydcn::TensorView& view : one.inputs) {
    if (mode != "plugin" || view.present) inputs.push_back(tensor_of(view));
  }
  const auto field_count = static_cast<int32_t>(fields.size()), input_count = static_cast<int32_t>(inputs.size());
  HarnessRun* run =
      mode == "plugin"
          ? harness_run_plugin(one.op.c_str(), "deploydcn", fields.data(), field_count, inputs.data(), input_count, 0)
          : harness_run_kernel(one.op.c_str(), mode == "naive", fields.data(), field_count, inputs.data(), input_count);
  if (*harness_error(run)) {
    case_file::write_error(harness_error(run));
  } else {
    case_file::write_success(static_cast<std::size_t>(harness_output_count(run)));
    for (int32_t index = 0; index < harness_output_count(run); ++index) {
      const HarnessTensor output = harness_output(run, index);
      std::size_t bytes = deploydcn::size_of(static_cast<deploydcn::DType>(output.dtype));
      for (int32_t i = 0; i < output.rank; ++i) bytes *= static_cast<std::size_t>(output.dims[i]);
      case_file::write_output(output.dims, static_cast<std::size_t>(output.rank), output.data, bytes);
    }
  }
  harness_free(run);
}

}  // namespace

int main(int argc, char** argv) {
  const char* const options[] = {"engine", "schedule", "seed"};
  if (argc != 5) {
    std::fputs("usage: plugin_driver plugin|kernel|naive ENGINE SCHEDULE SEED < cases > results\n", stderr);
    return 2;
  }
  for (int i = 0; i < 3; ++i) {
    if (deploydcn_emulation_set(options[i], argv[2 + i]) != 0) {
      std::fprintf(stderr, "%s\n", deploydcn_emulation_error());
      return 2;
    }
  }
  for (uint32_t count = case_file::read_value<uint32_t>(); count > 0; --count) run_case(argv[1]);
  return 0;
}
