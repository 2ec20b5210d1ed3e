// Drives real plugin objects on emulated memory, as TensorRT would: C names for ctypes (deploydcn/testing). Test only.
#pragma once

#include <cstdint>

#define DEPLOYDCN_HARNESS_API extern "C" __attribute__((visibility("default")))

// type: 'i' int32 (data: int32_t*), 'l' int64, 'f' float, 's' characters.
struct HarnessField {
  const char* name;
  char type;
  int32_t length;
  const void* data;
};

// dtype: 0 float32, 2 float16, 3 bfloat16 (as deploydcn::DType). data: row-major, host memory.
struct HarnessTensor {
  int32_t dtype, rank;
  int64_t dims[8];
  const void* data;
};

struct HarnessRun;  // what a run produced

// Creates the plugin that TensorRT's parser would choose for op type `name` in domain `name_space`, takes it through
// its life up to enqueue, and returns the outputs. Never null; `harness_error` tells whether it worked.
// inputs: in the order of the node, without absent ones. versioned_logger: which of TensorRT's two logger interfaces.
DEPLOYDCN_HARNESS_API HarnessRun* harness_run_plugin(const char* name, const char* name_space,
                                                     const HarnessField* fields, int32_t field_count,
                                                     const HarnessTensor* inputs, int32_t input_count,
                                                     int32_t versioned_logger);

// Creates a plugin from the fields of an engine.
DEPLOYDCN_HARNESS_API HarnessRun* harness_restore_plugin(const char* name, const char* name_space,
                                                         const HarnessField* fields, int32_t field_count);

// The op's kernel alone, in linear layout. naive: the oracle kernel instead. inputs: as in the op's spec; absent ones
// have no data.
DEPLOYDCN_HARNESS_API HarnessRun* harness_run_kernel(const char* name, int32_t naive, const HarnessField* fields,
                                                     int32_t field_count, const HarnessTensor* inputs,
                                                     int32_t input_count);

// The op as ONNX Runtime's CUDA execution provider runs it. inputs: as for harness_run_kernel.
DEPLOYDCN_HARNESS_API HarnessRun* harness_run_ort_op(const char* name, const HarnessField* fields, int32_t field_count,
                                                     const HarnessTensor* inputs, int32_t input_count);

// "" when all went well. Otherwise which step failed, followed by what the plugin logged and the emulator found.
DEPLOYDCN_HARNESS_API const char* harness_error(const HarnessRun* run);
// What the plugin decided on the way, one line each: formats, workspace, serialised fields.
DEPLOYDCN_HARNESS_API const char* harness_report(const HarnessRun* run);
DEPLOYDCN_HARNESS_API int32_t harness_output_count(const HarnessRun* run);
DEPLOYDCN_HARNESS_API HarnessTensor harness_output(const HarnessRun* run, int32_t index);
DEPLOYDCN_HARNESS_API void harness_free(HarnessRun* run);
