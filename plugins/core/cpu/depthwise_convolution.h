// Plain depthwise convolution: one result per channel.
//
//   per image, channel and band of output rows:                          (parallel)
//     copy         the rows a band reads, padded with zeros; every stride phase of the columns becomes a plane
//     sum          a few output rows at a time in registers, over the rows of the plane that they share; bias,
//     activation
//
// A row of the input is read once for all output rows in registers that it serves, and multiplied for no other. With
// dilation d and stride s, output rows that lie d / gcd(d, s) apart share rows of the input that lie d apart.
#pragma once

#include "core/cpu/tiled_convolution.h"

namespace deploydcn::cpu {

// Whether this is the fastest way.
bool runs_depthwise(const ConvolutionShape& shape);

// Runs one convolution without offsets. Thread-safe.
template <class F>
void convolve_depthwise(const ConvolutionShape& shape, const ConvolutionArguments& arguments, CpuContext& context);

}  // namespace deploydcn::cpu
