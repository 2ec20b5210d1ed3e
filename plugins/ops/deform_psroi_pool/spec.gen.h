// Generated from deploydcn/ops/deform_psroi_pool/spec.py by `python -m deploydcn.codegen`; do not edit.
#pragma once

#include "core/op_spec.h"

namespace deploydcn::deform_psroi_pool {

enum Axis : int { OD, GS, PS, PT, CLS, N, H, W, R };

inline constexpr int kOutputDimAxes[] = {OD};
inline constexpr int64_t kOutputDimDefault[] = {1};
inline constexpr int kGroupSizeAxes[] = {GS};
inline constexpr int64_t kGroupSizeDefault[] = {1};
inline constexpr int kPooledSizeAxes[] = {PS};
inline constexpr int64_t kPooledSizeDefault[] = {1};
inline constexpr int kPartSizeAxes[] = {PT};
inline constexpr int64_t kPartSizeDefault[] = {1};
inline constexpr int64_t kSamplePerPartDefault[] = {4};
inline constexpr int kClassesAxes[] = {CLS};
inline constexpr int64_t kClassesDefault[] = {1};
inline constexpr AttrSpec kAttributes[] = {
    {"spatial_scale", AttrKind::kFloat, {}, true, {}, 1.0, "", INT64_MIN, INT64_MAX, {}},
    {"output_dim", AttrKind::kInt, kOutputDimAxes, true, kOutputDimDefault, 0, "", 1, INT64_MAX, {}},
    {"group_size", AttrKind::kInt, kGroupSizeAxes, true, kGroupSizeDefault, 0, "", 1, 32768, {}},
    {"pooled_size", AttrKind::kInt, kPooledSizeAxes, true, kPooledSizeDefault, 0, "", 1, 32768, {}},
    {"part_size", AttrKind::kInt, kPartSizeAxes, true, kPartSizeDefault, 0, "", 1, 32768, {}},
    {"sample_per_part", AttrKind::kInt, {}, true, kSamplePerPartDefault, 0, "", 1, 255, {}},
    {"trans_std", AttrKind::kFloat, {}, true, {}, 0.0, "", INT64_MIN, INT64_MAX, {}},
    {"classes", AttrKind::kInt, kClassesAxes, true, kClassesDefault, 0, "", 1, INT64_MAX, {}},
};
inline constexpr Token kInputDim0[] = {{'a', N}};
inline constexpr Token kInputDim1[] = {{'a', OD}, {'a', GS}, {'*', 0}, {'a', GS}, {'*', 0}};
inline constexpr Token kInputDim2[] = {{'a', H}};
inline constexpr Token kInputDim3[] = {{'a', W}};
inline constexpr Expression kInputDims[] = {
    {"N", kInputDim0},
    {"OD*GS*GS", kInputDim1},
    {"H", kInputDim2},
    {"W", kInputDim3},
};
inline constexpr Token kRoisDim0[] = {{'a', R}};
inline constexpr Token kRoisDim1[] = {{'i', 5}};
inline constexpr Expression kRoisDims[] = {{"R", kRoisDim0}, {"5", kRoisDim1}};
inline constexpr Token kOffsetDim0[] = {{'a', R}};
inline constexpr Token kOffsetDim1[] = {{'i', 2}, {'a', CLS}, {'*', 0}};
inline constexpr Token kOffsetDim2[] = {{'a', PT}};
inline constexpr Token kOffsetDim3[] = {{'a', PT}};
inline constexpr Expression kOffsetDims[] = {
    {"R", kOffsetDim0},
    {"2*CLS", kOffsetDim1},
    {"PT", kOffsetDim2},
    {"PT", kOffsetDim3},
};
inline constexpr TensorSpec kInputs[] = {
    {"input", kInputDims, 0, false},
    {"rois", kRoisDims, 1, false},
    {"offset", kOffsetDims, 1, true},
};
inline constexpr Token kOutputDim0[] = {{'a', R}};
inline constexpr Token kOutputDim1[] = {{'a', OD}};
inline constexpr Token kOutputDim2[] = {{'a', PS}};
inline constexpr Token kOutputDim3[] = {{'a', PS}};
inline constexpr Expression kOutputDims[] = {
    {"R", kOutputDim0},
    {"OD", kOutputDim1},
    {"PS", kOutputDim2},
    {"PS", kOutputDim3},
};
inline constexpr Token kCountDim0[] = {{'a', R}};
inline constexpr Token kCountDim1[] = {{'a', OD}};
inline constexpr Token kCountDim2[] = {{'a', PS}};
inline constexpr Token kCountDim3[] = {{'a', PS}};
inline constexpr Expression kCountDims[] = {
    {"R", kCountDim0},
    {"OD", kCountDim1},
    {"PS", kCountDim2},
    {"PS", kCountDim3},
};
inline constexpr TensorSpec kOutputs[] = {{"output", kOutputDims, 0, false}, {"count", kCountDims, 0, false}};
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
inline constexpr DivisibleSpec kDivisible[] = {{OD, CLS}};
inline constexpr AtLeastSpec kAtLeast[] = {{H, 1}, {W, 1}};
inline constexpr const char* kAxisNames[] = {"OD", "GS", "PS", "PT", "CLS", "N", "H", "W", "R"};

inline constexpr OpSpec kSpec = {"DeformPSRoIPool", 1, kAxisNames, kAttributes, kInputs, kOutputs, 2, kTypeRows, {}, kDivisible, kAtLeast};

}  // namespace deploydcn::deform_psroi_pool
