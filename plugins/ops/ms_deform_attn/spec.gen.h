// Generated from deploydcn/ops/ms_deform_attn/spec.py by `python -m deploydcn.codegen`; do not edit.
#pragma once

#include "core/op_spec.h"

namespace deploydcn::ms_deform_attn {

enum Axis : int { N, S, M, D, L, Q, P };

inline constexpr Token kValueDim0[] = {{'a', N}};
inline constexpr Token kValueDim1[] = {{'a', S}};
inline constexpr Token kValueDim2[] = {{'a', M}};
inline constexpr Token kValueDim3[] = {{'a', D}};
inline constexpr Expression kValueDims[] = {
    {"N", kValueDim0},
    {"S", kValueDim1},
    {"M", kValueDim2},
    {"D", kValueDim3},
};
inline constexpr Token kSpatialShapesDim0[] = {{'a', L}};
inline constexpr Token kSpatialShapesDim1[] = {{'i', 2}};
inline constexpr Expression kSpatialShapesDims[] = {{"L", kSpatialShapesDim0}, {"2", kSpatialShapesDim1}};
inline constexpr Token kLevelStartIndexDim0[] = {{'a', L}};
inline constexpr Expression kLevelStartIndexDims[] = {{"L", kLevelStartIndexDim0}};
inline constexpr Token kSamplingLocationsDim0[] = {{'a', N}};
inline constexpr Token kSamplingLocationsDim1[] = {{'a', Q}};
inline constexpr Token kSamplingLocationsDim2[] = {{'a', M}};
inline constexpr Token kSamplingLocationsDim3[] = {{'a', L}};
inline constexpr Token kSamplingLocationsDim4[] = {{'a', P}};
inline constexpr Token kSamplingLocationsDim5[] = {{'i', 2}};
inline constexpr Expression kSamplingLocationsDims[] = {
    {"N", kSamplingLocationsDim0},
    {"Q", kSamplingLocationsDim1},
    {"M", kSamplingLocationsDim2},
    {"L", kSamplingLocationsDim3},
    {"P", kSamplingLocationsDim4},
    {"2", kSamplingLocationsDim5},
};
inline constexpr Token kAttentionWeightsDim0[] = {{'a', N}};
inline constexpr Token kAttentionWeightsDim1[] = {{'a', Q}};
inline constexpr Token kAttentionWeightsDim2[] = {{'a', M}};
inline constexpr Token kAttentionWeightsDim3[] = {{'a', L}};
inline constexpr Token kAttentionWeightsDim4[] = {{'a', P}};
inline constexpr Expression kAttentionWeightsDims[] = {
    {"N", kAttentionWeightsDim0},
    {"Q", kAttentionWeightsDim1},
    {"M", kAttentionWeightsDim2},
    {"L", kAttentionWeightsDim3},
    {"P", kAttentionWeightsDim4},
};
inline constexpr TensorSpec kInputs[] = {
    {"value", kValueDims, 0, false},
    {"spatial_shapes", kSpatialShapesDims, 2, false},
    {"level_start_index", kLevelStartIndexDims, 2, false},
    {"sampling_locations", kSamplingLocationsDims, 1, false},
    {"attention_weights", kAttentionWeightsDims, 0, false},
};
inline constexpr Token kOutputDim0[] = {{'a', N}};
inline constexpr Token kOutputDim1[] = {{'a', Q}};
inline constexpr Token kOutputDim2[] = {{'a', M}, {'a', D}, {'*', 0}};
inline constexpr Expression kOutputDims[] = {{"N", kOutputDim0}, {"Q", kOutputDim1}, {"M*D", kOutputDim2}};
inline constexpr TensorSpec kOutputs[] = {{"output", kOutputDims, 0, false}};
inline constexpr DType kTypeRows[] = {
    DType::kFloat32,
    DType::kFloat32,
    DType::kInt64,
    DType::kFloat64,
    DType::kFloat64,
    DType::kInt64,
    DType::kFloat64,
    DType::kFloat32,
    DType::kInt64,
    DType::kFloat16,
    DType::kFloat16,
    DType::kInt64,
    DType::kFloat16,
    DType::kFloat32,
    DType::kInt64,
    DType::kBFloat16,
    DType::kBFloat16,
    DType::kInt64,
    DType::kBFloat16,
    DType::kFloat32,
    DType::kInt64,
};
inline constexpr AtLeastSpec kAtLeast[] = {{S, 1}, {M, 1}, {D, 1}, {L, 1}, {P, 1}};
inline constexpr const char* kAxisNames[] = {"N", "S", "M", "D", "L", "Q", "P"};

inline constexpr OpSpec kSpec = {"MSDeformAttn", 1, kAxisNames, {}, kInputs, kOutputs, 3, kTypeRows, {}, {}, kAtLeast};

}  // namespace deploydcn::ms_deform_attn
