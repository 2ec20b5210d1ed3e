// Generated from deploydcn/ops/qlinear_deform_conv2d/spec.py by `python -m deploydcn.codegen`; do not edit.
#pragma once

#include "core/op_spec.h"

namespace deploydcn::qlinear_deform_conv2d {

enum Axis : int { KH, KW, SH, SW, PT, PL, PB, PR, DH, DW, G, OG, N, C, H, W, M, OH, OW };

inline constexpr int kKernelShapeAxes[] = {KH, KW};
inline constexpr int kStridesAxes[] = {SH, SW};
inline constexpr int64_t kStridesDefault[] = {1, 1};
inline constexpr int kPadsAxes[] = {PT, PL, PB, PR};
inline constexpr int64_t kPadsDefault[] = {0, 0, 0, 0};
inline constexpr int kDilationsAxes[] = {DH, DW};
inline constexpr int64_t kDilationsDefault[] = {1, 1};
inline constexpr int kGroupAxes[] = {G};
inline constexpr int64_t kGroupDefault[] = {1};
inline constexpr int kOffsetGroupAxes[] = {OG};
inline constexpr int64_t kOffsetGroupDefault[] = {1};
inline constexpr const char* kActivationChoices[] = {"", "relu", "relu6", "silu"};
inline constexpr AttrSpec kAttributes[] = {
    {"kernel_shape", AttrKind::kInts, kKernelShapeAxes, false, {}, 0, "", 1, INT64_MAX, {}},
    {"strides", AttrKind::kInts, kStridesAxes, true, kStridesDefault, 0, "", 1, INT64_MAX, {}},
    {"pads", AttrKind::kInts, kPadsAxes, true, kPadsDefault, 0, "", 0, INT64_MAX, {}},
    {"dilations", AttrKind::kInts, kDilationsAxes, true, kDilationsDefault, 0, "", 1, INT64_MAX, {}},
    {"group", AttrKind::kInt, kGroupAxes, true, kGroupDefault, 0, "", 1, INT64_MAX, {}},
    {"offset_group", AttrKind::kInt, kOffsetGroupAxes, true, kOffsetGroupDefault, 0, "", 1, INT64_MAX, {}},
    {"activation", AttrKind::kString, {}, true, {}, 0, "", INT64_MIN, INT64_MAX, kActivationChoices},
};
inline constexpr Token kXDim0[] = {{'a', N}};
inline constexpr Token kXDim1[] = {{'a', C}};
inline constexpr Token kXDim2[] = {{'a', H}};
inline constexpr Token kXDim3[] = {{'a', W}};
inline constexpr Expression kXDims[] = {{"N", kXDim0}, {"C", kXDim1}, {"H", kXDim2}, {"W", kXDim3}};
inline constexpr Token kWDim0[] = {{'a', M}};
inline constexpr Token kWDim1[] = {{'a', C}, {'a', G}, {'/', 0}};
inline constexpr Token kWDim2[] = {{'a', KH}};
inline constexpr Token kWDim3[] = {{'a', KW}};
inline constexpr Expression kWDims[] = {{"M", kWDim0}, {"C//G", kWDim1}, {"KH", kWDim2}, {"KW", kWDim3}};
inline constexpr Token kWScaleDim0[] = {{'a', M}};
inline constexpr Expression kWScaleDims[] = {{"M", kWScaleDim0}};
inline constexpr Token kOffsetDim0[] = {{'a', N}};
inline constexpr Token kOffsetDim1[] = {{'i', 2}, {'a', OG}, {'*', 0}, {'a', KH}, {'*', 0}, {'a', KW}, {'*', 0}};
inline constexpr Token kOffsetDim2[] = {{'a', OH}};
inline constexpr Token kOffsetDim3[] = {{'a', OW}};
inline constexpr Expression kOffsetDims[] = {
    {"N", kOffsetDim0},
    {"2*OG*KH*KW", kOffsetDim1},
    {"OH", kOffsetDim2},
    {"OW", kOffsetDim3},
};
inline constexpr Token kBDim0[] = {{'a', M}};
inline constexpr Expression kBDims[] = {{"M", kBDim0}};
inline constexpr Token kMaskDim0[] = {{'a', N}};
inline constexpr Token kMaskDim1[] = {{'a', OG}, {'a', KH}, {'*', 0}, {'a', KW}, {'*', 0}};
inline constexpr Token kMaskDim2[] = {{'a', OH}};
inline constexpr Token kMaskDim3[] = {{'a', OW}};
inline constexpr Expression kMaskDims[] = {
    {"N", kMaskDim0},
    {"OG*KH*KW", kMaskDim1},
    {"OH", kMaskDim2},
    {"OW", kMaskDim3},
};
inline constexpr TensorSpec kInputs[] = {
    {"X", kXDims, 0, false},
    {"x_scale", {}, 1, false},
    {"x_zero_point", {}, 0, false},
    {"W", kWDims, 2, false},
    {"w_scale", kWScaleDims, 1, false},
    {"y_scale", {}, 1, false},
    {"y_zero_point", {}, 0, false},
    {"offset", kOffsetDims, 1, false},
    {"B", kBDims, 3, true},
    {"mask", kMaskDims, 1, true},
};
inline constexpr Token kYDim0[] = {{'a', N}};
inline constexpr Token kYDim1[] = {{'a', M}};
inline constexpr Token kYDim2[] = {{'a', OH}};
inline constexpr Token kYDim3[] = {{'a', OW}};
inline constexpr Expression kYDims[] = {{"N", kYDim0}, {"M", kYDim1}, {"OH", kYDim2}, {"OW", kYDim3}};
inline constexpr TensorSpec kOutputs[] = {{"Y", kYDims, 0, false}};
inline constexpr DType kTypeRows[] = {
    DType::kUInt8,
    DType::kFloat32,
    DType::kInt8,
    DType::kInt32,
    DType::kInt8,
    DType::kFloat32,
    DType::kInt8,
    DType::kInt32,
};
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
    {OH, {"(H + PT + PB - DH*(KH - 1) - 1)//SH + 1", kOHSize}},
    {OW, {"(W + PL + PR - DW*(KW - 1) - 1)//SW + 1", kOWSize}},
};
inline constexpr DivisibleSpec kDivisible[] = {{C, G}, {M, G}, {C, OG}};
inline constexpr AtLeastSpec kAtLeast[] = {{C, 1}, {H, 1}, {W, 1}, {M, 1}, {KH, 1}, {KW, 1}, {OH, 1}, {OW, 1}};
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
    "OG",
    "N",
    "C",
    "H",
    "W",
    "M",
    "OH",
    "OW",
};

inline constexpr OpSpec kSpec = {"QLinearDeformConv2d", 1, kAxisNames, kAttributes, kInputs, kOutputs, 4, kTypeRows, kSizes, kDivisible, kAtLeast};

}  // namespace deploydcn::qlinear_deform_conv2d
