// Where DeformRoIPool samples a bin, along one axis: float32 as in the spec, for CPU and GPU.
#pragma once

#include <cmath>

#include "core/roi.h"

namespace deploydcn::deform_roi_pool {

// One axis of a box, in pixels of the input.
struct BoxSide {
  float start, length, bin;  // bin: length of one of its bins
  int samples;               // of a bin; at most kMostSamples unless sampling_ratio says so

  DEPLOYDCN_ANYWHERE BoxSide(float first, float last, float scale, int bins, int sampling_ratio) {
    constexpr float kMostSamples = 65536.f;
    start = roi::plus(roi::times(first, scale), -0.5f);
    length = roi::plus(roi::plus(roi::times(last, scale), -0.5f), -start);
    bin = roi::over(length, static_cast<float>(bins));
    samples = sampling_ratio;
    if (samples == 0 && bin > 0.f) samples = static_cast<int>(ceilf(bin < kMostSamples ? bin : kMostSamples));
  }
};

// The samples of one bin along one axis. Those of [begin, end) lie on the image, edge included: positions rise or fall
// with the sample, so that of a grid of any size only these cost time. A bin without finite positions has none.
struct BinSamples {
  float start, bin, grid;
  int begin, end;

  // offset: how far the bin is moved, in units of gamma * length of its box. size: of the image.
  DEPLOYDCN_ANYWHERE BinSamples(const BoxSide& side, int index, float gamma, float offset, int size) {
    const float shift = roi::times(roi::times(gamma, side.length), offset);
    start = roi::plus(roi::plus(side.start, shift), roi::times(static_cast<float>(index), side.bin));
    bin = side.bin;
    grid = static_cast<float>(side.samples);
    const bool rising = !(bin < 0.f);
    const auto edge = static_cast<float>(size);
    begin = first(side.samples, [&](float at) { return rising ? at >= -1.f : at <= edge; });
    end = first(side.samples, [&](float at) { return rising ? !(at <= edge) : !(at >= -1.f); });
  }

  DEPLOYDCN_ANYWHERE float position(int sample) const {
    return roi::plus(start, roi::over(roi::times(static_cast<float>(sample) + 0.5f, bin), grid));
  }
  // Whether neighbouring samples mostly share a pixel.
  DEPLOYDCN_ANYWHERE bool close() const { return fabsf(bin) < 0.75f * grid; }

 private:
  // The first sample whose position passes, given that all behind it do; `count` if none does.
  template <class Passes>
  DEPLOYDCN_ANYWHERE int first(int count, Passes passes) const {
    int low = 0;
    while (low < count) {
      const int middle = (low + count) / 2;
      if (passes(position(middle))) {
        count = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }
};

}  // namespace deploydcn::deform_roi_pool
