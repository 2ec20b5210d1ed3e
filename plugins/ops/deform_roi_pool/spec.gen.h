// Generated from deploydcn/ops/deform_roi_pool/spec.py by `python -m deploydcn.codegen`; do not edit.
#pragma once

#include "core/op_spec.h"

namespace deploydcn::deform_roi_pool {

enum Axis : int { PH, PW, N, C, H, W, R };

inline constexpr int kOutputHeightAxes[] = {PH};
inline constexpr int64_t kOutputHeightDefault[] = {1};
inline constexpr int kOutputWidthAxes[] = {PW};
inline constexpr int64_t kOutputWidthDefault[] = {1};
inline constexpr int64_t kSamplingRatioDefault[] = {0};
inline constexpr AttrSpec kAttributes[] = {
    {"output_height", AttrKind::kInt, kOutputHeightAxes, true, kOutputHeightDefault, 0, "", 1, 32768, {}},
    {"output_width", AttrKind::kInt, kOutputWidthAxes, true, kOutputWidthDefault, 0, "", 1, 32768, {}},
    {"spatial_scale", AttrKind::kFloat, {}, true, {}, 1.0, "", INT64_MIN, INT64_MAX, {}},
    {"sampling_ratio", AttrKind::kInt, {}, true, kSamplingRatioDefault, 0, "", 0, 1024, {}},
    {"gamma", AttrKind::kFloat, {}, true, {}, 0.1, "", INT64_MIN, INT64_MAX, {}},
};
inline constexpr Token kInputDim0[] = {{'a', N}};
inline constexpr Token kInputDim1[] = {{'a', C}};
inline constexpr Token kInputDim2[] = {{'a', H}};
inline constexpr Token kInputDim3[] = {{'a', W}};
inline constexpr Expression kInputDims[] = {
    {"N", kInputDim0},
    {"C", kInputDim1},
    {"H", kInputDim2},
    {"W", kInputDim3},
};
inline constexpr Token kRoisDim0[] = {{'a', R}};
inline constexpr Token kRoisDim1[] = {{'i', 5}};
inline constexpr Expression kRoisDims[] = {{"R", kRoisDim0}, {"5", kRoisDim1}};
inline constexpr Token kOffsetDim0[] = {{'a', R}};
inline constexpr Token kOffsetDim1[] = {{'i', 2}};
inline constexpr Token kOffsetDim2[] = {{'a', PH}};
inline constexpr Token kOffsetDim3[] = {{'a', PW}};
inline constexpr Expression kOffsetDims[] = {
    {"R", kOffsetDim0},
    {"2", kOffsetDim1},
    {"PH", kOffsetDim2},
    {"PW", kOffsetDim3},
};
inline constexpr TensorSpec kInputs[] = {
    {"input", kInputDims, 0, false},
    {"rois", kRoisDims, 1, false},
    {"offset", kOffsetDims, 1, true},
};
inline constexpr Token kOutputDim0[] = {{'a', R}};
inline constexpr Token kOutputDim1[] = {{'a', C}};
inline constexpr Token kOutputDim2[] = {{'a', PH}};
inline constexpr Token kOutputDim3[] = {{'a', PW}};
inline constexpr Expression kOutputDims[] = {
    {"R", kOutputDim0},
    {"C", kOutputDim1},
    {"PH", kOutputDim2},
    {"PW", kOutputDim3},
};
inline constexpr TensorSpec kOutputs[] = {{"output", kOutputDims, 0, false}};
inline constexpr DType kTypeRows[] = {
    DType::kFloat32,
    DType::kFloat32,
    DType::kFloat64,
    DType::kFloat64,
    DType::kFloat64,
    DType::kFloat32,
    DType::kFloat16,
    DType::kFloat16,
    DType::kFloat16,
    DType::kFloat32,
    DType::kBFloat16,
    DType::kBFloat16,
    DType::kBFloat16,
    DType::kFloat32,
};
inline constexpr AtLeastSpec kAtLeast[] = {{C, 1}, {H, 1}, {W, 1}};
inline constexpr const char* kAxisNames[] = {"PH", "PW", "N", "C", "H", "W", "R"};

inline constexpr OpSpec kSpec = {"DeformRoIPool", 1, kAxisNames, kAttributes, kInputs, kOutputs, 2, kTypeRows, {}, {}, kAtLeast};

}  // namespace deploydcn::deform_roi_pool
