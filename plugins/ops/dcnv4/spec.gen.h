// Generated from deploydcn/ops/dcnv4/spec.py by `python -m deploydcn.codegen`; do not edit.
#pragma once

#include "core/op_spec.h"

namespace deploydcn::dcnv4 {

enum Axis : int { KH, KW, SH, SW, PT, PL, PB, PR, DH, DW, G, RC, N, H, W, C, OH, OW, P };

inline constexpr int kKernelShapeAxes[] = {KH, KW};
inline constexpr int64_t kKernelShapeDefault[] = {3, 3};
inline constexpr int kStridesAxes[] = {SH, SW};
inline constexpr int64_t kStridesDefault[] = {1, 1};
inline constexpr int kPadsAxes[] = {PT, PL, PB, PR};
inline constexpr int64_t kPadsDefault[] = {0, 0, 0, 0};
inline constexpr int kDilationsAxes[] = {DH, DW};
inline constexpr int64_t kDilationsDefault[] = {1, 1};
inline constexpr int kGroupAxes[] = {G};
inline constexpr int64_t kGroupDefault[] = {1};
inline constexpr int kRemoveCenterAxes[] = {RC};
inline constexpr int64_t kRemoveCenterDefault[] = {0};
inline constexpr int64_t kSoftmaxDefault[] = {0};
inline constexpr AttrSpec kAttributes[] = {
    {"kernel_shape", AttrKind::kInts, kKernelShapeAxes, true, kKernelShapeDefault, 0, "", 1, INT64_MAX, {}},
    {"strides", AttrKind::kInts, kStridesAxes, true, kStridesDefault, 0, "", 1, INT64_MAX, {}},
    {"pads", AttrKind::kInts, kPadsAxes, true, kPadsDefault, 0, "", 0, INT64_MAX, {}},
    {"dilations", AttrKind::kInts, kDilationsAxes, true, kDilationsDefault, 0, "", 1, INT64_MAX, {}},
    {"group", AttrKind::kInt, kGroupAxes, true, kGroupDefault, 0, "", 1, INT64_MAX, {}},
    {"offset_scale", AttrKind::kFloat, {}, true, {}, 1.0, "", INT64_MIN, INT64_MAX, {}},
    {"remove_center", AttrKind::kInt, kRemoveCenterAxes, true, kRemoveCenterDefault, 0, "", 0, 1, {}},
    {"softmax", AttrKind::kInt, {}, true, kSoftmaxDefault, 0, "", 0, 1, {}},
};
inline constexpr Token kInputDim0[] = {{'a', N}};
inline constexpr Token kInputDim1[] = {{'a', H}};
inline constexpr Token kInputDim2[] = {{'a', W}};
inline constexpr Token kInputDim3[] = {{'a', C}};
inline constexpr Expression kInputDims[] = {
    {"N", kInputDim0},
    {"H", kInputDim1},
    {"W", kInputDim2},
    {"C", kInputDim3},
};
inline constexpr Token kOffsetMaskDim0[] = {{'a', N}};
inline constexpr Token kOffsetMaskDim1[] = {{'a', OH}};
inline constexpr Token kOffsetMaskDim2[] = {{'a', OW}};
inline constexpr Token kOffsetMaskDim3[] = {
    {'i', 3},
    {'a', G},
    {'*', 0},
    {'a', P},
    {'*', 0},
    {'i', 7},
    {'+', 0},
    {'i', 8},
    {'/', 0},
    {'i', 8},
    {'*', 0},
};
inline constexpr Expression kOffsetMaskDims[] = {
    {"N", kOffsetMaskDim0},
    {"OH", kOffsetMaskDim1},
    {"OW", kOffsetMaskDim2},
    {"(3*G*P + 7)//8*8", kOffsetMaskDim3},
};
inline constexpr TensorSpec kInputs[] = {
    {"input", kInputDims, 0, false},
    {"offset_mask", kOffsetMaskDims, 1, false},
};
inline constexpr Token kOutputDim0[] = {{'a', N}};
inline constexpr Token kOutputDim1[] = {{'a', OH}};
inline constexpr Token kOutputDim2[] = {{'a', OW}};
inline constexpr Token kOutputDim3[] = {{'a', C}};
inline constexpr Expression kOutputDims[] = {
    {"N", kOutputDim0},
    {"OH", kOutputDim1},
    {"OW", kOutputDim2},
    {"C", kOutputDim3},
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
inline constexpr Token kPSize[] = {{'a', KH}, {'a', KW}, {'*', 0}, {'a', RC}, {'-', 0}};
inline constexpr Token kOHSize[] = {
    {'a', H},
    {'a', PT},
    {'+', 0},
    {'a', PB},
    {'+', 0},
    {'a', DH},
    {'a', KH},
    {'i', 1},
    {'-', 0},
    {'*', 0},
    {'-', 0},
    {'i', 1},
    {'-', 0},
    {'a', SH},
    {'/', 0},
    {'i', 1},
    {'+', 0},
};
inline constexpr Token kOWSize[] = {
    {'a', W},
    {'a', PL},
    {'+', 0},
    {'a', PR},
    {'+', 0},
    {'a', DW},
    {'a', KW},
    {'i', 1},
    {'-', 0},
    {'*', 0},
    {'-', 0},
    {'i', 1},
    {'-', 0},
    {'a', SW},
    {'/', 0},
    {'i', 1},
    {'+', 0},
};
inline constexpr SizeSpec kSizes[] = {
    {P, {"KH*KW - RC", kPSize}},
    {OH, {"(H + PT + PB - DH*(KH - 1) - 1)//SH + 1", kOHSize}},
    {OW, {"(W + PL + PR - DW*(KW - 1) - 1)//SW + 1", kOWSize}},
};
inline constexpr DivisibleSpec kDivisible[] = {{C, G}};
inline constexpr AtLeastSpec kAtLeast[] = {{C, 1}, {H, 1}, {W, 1}, {KH, 1}, {KW, 1}, {P, 1}, {OH, 1}, {OW, 1}};
inline constexpr const char* kAxisNames[] = {
    "KH",
    "KW",
    "SH",
    "SW",
    "PT",
    "PL",
    "PB",
    "PR",
    "DH",
    "DW",
    "G",
    "RC",
    "N",
    "H",
    "W",
    "C",
    "OH",
    "OW",
    "P",
};

inline constexpr OpSpec kSpec = {"DCNv4", 1, kAxisNames, kAttributes, kInputs, kOutputs, 2, kTypeRows, kSizes, kDivisible, kAtLeast};

}  // namespace deploydcn::dcnv4
