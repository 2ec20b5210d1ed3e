// What a run of the harness produced, and how it ended.
#pragma once

#include <NvInferRuntime.h>

#include <sstream>
#include <string>
#include <vector>

#include "emulation/control.h"
#include "harness/harness.h"
#include "harness/tensorrt_host.h"
#include "tensorrt/fields.h"

struct HarnessRun {
  std::string error;
  std::ostringstream report;
  std::string report_text;
  std::vector<std::vector<unsigned char>> output_data;
  std::vector<HarnessTensor> outputs;

  void add_output(deploydcn::DType dtype, const deploydcn::Shape& shape, std::vector<unsigned char> data) {
    output_data.push_back(std::move(data));
    HarnessTensor output{};
    output.dtype = static_cast<int32_t>(dtype);
    output.rank = static_cast<int32_t>(shape.size());
    std::copy(shape.begin(), shape.end(), output.dims);
    outputs.push_back(output);
    for (std::size_t i = 0; i < outputs.size(); ++i) outputs[i].data = output_data[i].data();
  }

  // Runs body(run); afterwards `error` tells what went wrong: the exception, the log, what the emulator found.
  template <class Body>
  static HarnessRun* guarded(Body&& body) {
    auto* run = new HarnessRun;
    deploydcn::harness::take_log();
    deploydcn_emulation_reset();
    try {
      body(*run);
    } catch (const std::exception& error) {
      run->error = error.what();
    }
    deploydcn::emulation::options().inside_enqueue = false;
    const std::string log = deploydcn::harness::take_log(), found = deploydcn_emulation_error();
    if (!run->error.empty() || !log.empty() || !found.empty()) {
      run->error += (run->error.empty() ? "" : ": ") + log + (found.empty() ? "" : "emulator: " + found);
    }
    deploydcn_emulation_reset();
    run->report_text = run->report.str();
    return run;
  }
};

namespace deploydcn::harness {

std::vector<nvinfer1::PluginField> plugin_fields(const HarnessField* fields, int32_t count);

}  // namespace deploydcn::harness
