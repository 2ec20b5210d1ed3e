// Plain convolution of few channels per group, without im2col and without another layout.
//
//   per image, group and band of output rows:                            (parallel)
//     copy         the rows a band reads, padded with zeros; every stride phase becomes a plane of its own
//     multiply     sums over channels and taps of shifted planes: all loads are contiguous, whatever the stride
//     finish       bias, activation, the columns between two rows left out
//
// Rows of a plane are as wide as the output plus the window's reach, so that one run of pixels covers the whole band:
// a tap is a constant distance. The columns in between are computed too and thrown away.
#pragma once

#include "core/cpu/tiled_convolution.h"

namespace deploydcn::cpu {

// Whether this is the faster way where `runs_depthwise` is not: the tiled product would leave most of its vectors
// empty.
bool runs_directly(const ConvolutionShape& shape);

// Runs one convolution without offsets. Thread-safe.
template <class F>
void convolve_directly(const ConvolutionShape& shape, const ConvolutionArguments& arguments, CpuContext& context);

}  // namespace deploydcn::cpu
