// Where DeformPSRoIPool samples a bin, along one axis: float32 as in the spec, for CPU and GPU.
#pragma once

#include <cmath>

#include "core/roi.h"

namespace deploydcn::deform_psroi_pool {

// One axis of a box, in pixels of the input.
struct BoxSide {
  float start, length;

  DEPLOYDCN_ANYWHERE BoxSide(float first, float last, float scale) {
    start = roi::plus(roi::times(roundf(first), scale), -0.5f);
    length = roi::plus(roi::plus(roi::times(roi::plus(roundf(last), 1.f), scale), -0.5f), -start);
    if (length < 0.1f) length = 0.1f;
  }
};

// Which offset moves a bin: floor(bin / bins * parts), in float32 as published: for 23 bins and parts, bin 7 takes
// part 6.
DEPLOYDCN_ANYWHERE int part_of(int bin, int bins, int parts) {
  const float part =
      roi::times(roi::over(static_cast<float>(bin), static_cast<float>(bins)), static_cast<float>(parts));
  const int index = static_cast<int>(part);
  return index < parts ? index : parts - 1;
}

// Which group of input channels a bin reads.
DEPLOYDCN_ANYWHERE int group_of(int bin, int bins, int groups) {
  const float group =
      roi::over(roi::times(static_cast<float>(bin), static_cast<float>(groups)), static_cast<float>(bins));
  const int index = static_cast<int>(group);
  return index < groups ? index : groups - 1;
}

// The samples of one bin along one axis.
struct PartSamples {
  float start, part, edge;
  int size;  // of the image

  // offset: how far the bin is moved, in units of trans_std * length of its box.
  DEPLOYDCN_ANYWHERE PartSamples(const BoxSide& side, int bin, int bins, int samples, float trans_std, float offset,
                                 int image_size) {
    const float length = roi::over(side.length, static_cast<float>(bins));
    part = roi::over(length, static_cast<float>(samples));
    start = roi::plus(roi::times(static_cast<float>(bin), length), side.start);
    start = roi::plus(start, roi::times(roi::times(offset, trans_std), side.length));
    size = image_size;
    edge = static_cast<float>(size) - 0.5f;
  }

  // Whether sample i counts; `at`: the pixels it reads.
  DEPLOYDCN_ANYWHERE bool locate(int i, roi::Neighbours& at) const {
    const float position = roi::plus(start, roi::times(static_cast<float>(i), part));
    if (!(position >= -0.5f && position <= edge)) return false;  // NaN too
    at = roi::neighbours(position, size);
    return true;
  }
};

}  // namespace deploydcn::deform_psroi_pool
