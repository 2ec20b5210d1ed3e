// The boxes of a RoI pooling node, read and checked before any work is done.
#pragma once

#include <sstream>
#include <string>
#include <vector>

#include "core/roi.h"
#include "core/tensor_view.h"

namespace deploydcn::cpu {

struct PlacedBox {
  roi::Box box;
  int64_t image;  // of the batch
};

// rois: (R, 5) of any floating-point type, rounded to float32. Throws InvalidArgument where one names no image.
inline std::vector<PlacedBox> read_boxes(const OpSpec& spec, const TensorView& rois, int64_t batch) {
  std::vector<PlacedBox> boxes(static_cast<std::size_t>(rois.shape[0]));
  for (std::size_t i = 0; i < boxes.size(); ++i) {
    float row[roi::kBoxSize];
    load_as<float>(rois.data, rois.dtype, static_cast<int64_t>(i) * roi::kBoxSize, roi::kBoxSize, row);
    const roi::Box box{row[0], row[1], row[2], row[3], row[4]};
    boxes[i] = {box, roi::image_of(box, batch)};
    if (boxes[i].image >= 0) continue;
    std::ostringstream out;
    out << spec.name << " input rois: box " << i << " has batch index " << box.image
        << "; wanted 0 or more and less than N = " << batch << "; check the boxes";
    throw InvalidArgument(out.str());
  }
  return boxes;
}

}  // namespace deploydcn::cpu
