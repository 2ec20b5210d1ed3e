// Device functions of CUDA, each once: what the emulator's headers compute must be what nvcc's PTX computes.
#pragma once

#include "emulation/cuda_headers.h"

constexpr int kFunctionThreads = 32, kFunctionResults = 48;

// Thread i takes elements i and i + 32 of x and writes up to kFunctionResults results to its row of y; unused ones
// stay.
cudaError_t call_functions(const float* x, float* y, cudaStream_t stream);
cudaError_t call_functions(const __half* x, __half* y, cudaStream_t stream);
cudaError_t call_functions(const __nv_bfloat16* x, __nv_bfloat16* y, cudaStream_t stream);  // from compute_80 on
cudaError_t call_functions(const long long* x, long long* y, cudaStream_t stream);
