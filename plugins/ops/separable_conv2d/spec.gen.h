// Generated from deploydcn/ops/separable_conv2d/spec.py by `python -m deploydcn.codegen`; do not edit.
#pragma once

#include "core/op_spec.h"

namespace deploydcn::separable_conv2d {

enum Axis : int { KH, KW, SH, SW, PT, PL, PB, PR, DH, DW, N, C, H, W, D, M, OH, OW };

inline constexpr int kKernelShapeAxes[] = {KH, KW};
inline constexpr int kStridesAxes[] = {SH, SW};
inline constexpr int64_t kStridesDefault[] = {1, 1};
inline constexpr int kPadsAxes[] = {PT, PL, PB, PR};
inline constexpr int64_t kPadsDefault[] = {0, 0, 0, 0};
inline constexpr int kDilationsAxes[] = {DH, DW};
inline constexpr int64_t kDilationsDefault[] = {1, 1};
inline constexpr const char* kDepthwiseActivationChoices[] = {"", "relu", "relu6", "silu"};
inline constexpr const char* kActivationChoices[] = {"", "relu", "relu6", "silu"};
inline constexpr AttrSpec kAttributes[] = {
    {"kernel_shape", AttrKind::kInts, kKernelShapeAxes, false, {}, 0, "", 1, INT64_MAX, {}},
    {"strides", AttrKind::kInts, kStridesAxes, true, kStridesDefault, 0, "", 1, INT64_MAX, {}},
    {"pads", AttrKind::kInts, kPadsAxes, true, kPadsDefault, 0, "", 0, INT64_MAX, {}},
    {"dilations", AttrKind::kInts, kDilationsAxes, true, kDilationsDefault, 0, "", 1, INT64_MAX, {}},
    {"depthwise_activation", AttrKind::kString, {}, true, {}, 0, "", INT64_MIN, INT64_MAX, kDepthwiseActivationChoices},
    {"activation", AttrKind::kString, {}, true, {}, 0, "", INT64_MIN, INT64_MAX, kActivationChoices},
};
inline constexpr Token kXDim0[] = {{'a', N}};
inline constexpr Token kXDim1[] = {{'a', C}};
inline constexpr Token kXDim2[] = {{'a', H}};
inline constexpr Token kXDim3[] = {{'a', W}};
inline constexpr Expression kXDims[] = {{"N", kXDim0}, {"C", kXDim1}, {"H", kXDim2}, {"W", kXDim3}};
inline constexpr Token kDepthwiseWDim0[] = {{'a', D}};
inline constexpr Token kDepthwiseWDim1[] = {{'i', 1}};
inline constexpr Token kDepthwiseWDim2[] = {{'a', KH}};
inline constexpr Token kDepthwiseWDim3[] = {{'a', KW}};
inline constexpr Expression kDepthwiseWDims[] = {
    {"D", kDepthwiseWDim0},
    {"1", kDepthwiseWDim1},
    {"KH", kDepthwiseWDim2},
    {"KW", kDepthwiseWDim3},
};
inline constexpr Token kPointwiseWDim0[] = {{'a', M}};
inline constexpr Token kPointwiseWDim1[] = {{'a', D}};
inline constexpr Token kPointwiseWDim2[] = {{'i', 1}};
inline constexpr Token kPointwiseWDim3[] = {{'i', 1}};
inline constexpr Expression kPointwiseWDims[] = {
    {"M", kPointwiseWDim0},
    {"D", kPointwiseWDim1},
    {"1", kPointwiseWDim2},
    {"1", kPointwiseWDim3},
};
inline constexpr Token kDepthwiseBDim0[] = {{'a', D}};
inline constexpr Expression kDepthwiseBDims[] = {{"D", kDepthwiseBDim0}};
inline constexpr Token kPointwiseBDim0[] = {{'a', M}};
inline constexpr Expression kPointwiseBDims[] = {{"M", kPointwiseBDim0}};
inline constexpr TensorSpec kInputs[] = {
    {"X", kXDims, 0, false},
    {"depthwise_W", kDepthwiseWDims, 0, false},
    {"pointwise_W", kPointwiseWDims, 0, false},
    {"depthwise_B", kDepthwiseBDims, 0, true},
    {"pointwise_B", kPointwiseBDims, 0, true},
};
inline constexpr Token kYDim0[] = {{'a', N}};
inline constexpr Token kYDim1[] = {{'a', M}};
inline constexpr Token kYDim2[] = {{'a', OH}};
inline constexpr Token kYDim3[] = {{'a', OW}};
inline constexpr Expression kYDims[] = {{"N", kYDim0}, {"M", kYDim1}, {"OH", kYDim2}, {"OW", kYDim3}};
inline constexpr TensorSpec kOutputs[] = {{"Y", kYDims, 0, false}};
inline constexpr DType kTypeRows[] = {DType::kFloat32, DType::kFloat64, DType::kFloat16, DType::kBFloat16};
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
inline constexpr DivisibleSpec kDivisible[] = {{D, C}};
inline constexpr AtLeastSpec kAtLeast[] = {
    {C, 1},
    {H, 1},
    {W, 1},
    {D, 1},
    {M, 1},
    {KH, 1},
    {KW, 1},
    {OH, 1},
    {OW, 1},
};
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
    "N",
    "C",
    "H",
    "W",
    "D",
    "M",
    "OH",
    "OW",
};

inline constexpr OpSpec kSpec = {"SeparableConv2d", 1, kAxisNames, kAttributes, kInputs, kOutputs, 1, kTypeRows, kSizes, kDivisible, kAtLeast};

}  // namespace deploydcn::separable_conv2d
