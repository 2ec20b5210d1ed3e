// Rows of an image as planes of what one stride phase of a window reads, so that a tap is a constant distance and
// consecutive outputs read consecutive elements, whatever stride and dilation. Zeros are where the padding is.
#pragma once

#include <algorithm>
#include <vector>

#include "core/cpu/stored_values.h"
#include "core/cpu/tile_sizes.h"

namespace deploydcn::cpu {

// One axis of the window: a tap that reaches `reach` pixels from the window's first reads plane `phase` at a distance
// of `shift`.
struct PlaneAxis {
  PlaneAxis(int64_t outputs, int64_t kernel, int64_t dilation, int64_t plane_stride) : stride(plane_stride) {
    for (int64_t reach = 0; reach < kernel * dilation; reach += dilation) {
      const auto known = std::find(remainders.begin(), remainders.end(), reach % stride);
      phase.push_back(known - remainders.begin());
      shift.push_back(reach / stride);
      if (known == remainders.end()) remainders.push_back(reach % stride);
      length = std::max(length, outputs + shift.back());
    }
  }
  int64_t phases() const { return static_cast<int64_t>(remainders.size()); }
  int64_t stride;                     // of the image's pixels in a plane
  std::vector<int64_t> phase, shift;  // by tap
  std::vector<int64_t> remainders;    // of a phase's positions, by stride
  int64_t length = 0;                 // of a plane that serves `outputs` outputs
};

// planes[row phase][column phase][row][pitch] of a band of rows: the same places of them for every channel.
template <class F>
class PaddedPlanes {
 public:
  PaddedPlanes(const ConvolutionShape& shape, const TensorView& input, const PlaneAxis& rows, const PlaneAxis& columns,
               int64_t pitch)
      : shape_(shape),
        input_(input),
        rows_(rows),
        columns_(columns),
        pitch_(pitch),
        plane_((Checked(rows.length) * Checked(pitch)).value()) {}

  int64_t pitch() const { return pitch_; }
  // Elements of a plane, and of all those of a channel.
  int64_t plane() const { return plane_; }
  int64_t size() const { return rows_.phases() * columns_.phases() * plane_; }
  // Elements that `copy` needs to convert the input.
  int64_t buffer() const { return stored_as<F>(input_) ? 0 : shape_.width; }

  // Copies channel `image` of the batch, whose planes' first row has position y in the image. Of `planes` only what
  // lies inside the image is written: the rest is to be 0.
  void copy(int64_t image, int64_t y, F* planes, F* buffer) const {
    for (const int64_t row : rows_.remainders) {
      const Inside rows(y + row, rows_.stride, shape_.height, rows_.length);
      for (const int64_t column : columns_.remainders) {
        const Inside columns(column - shape_.pad_left, columns_.stride, shape_.width, columns_.length);
        if (rows.count > 0 && columns.count > 0) {
          copy_inside(image * shape_.pixels() + rows.from * shape_.width, rows, columns,
                      planes + rows.first * pitch_ + columns.first, buffer);
        }
        planes += plane_;
      }
    }
  }

 private:
  // Which of `length` positions, `stride` apart from `begin` on, lie inside an image.
  struct Inside {
    Inside(int64_t begin, int64_t stride, int64_t size, int64_t length) {
      const auto positions = [&](int64_t pixels) { return stride == 1 ? pixels : ceil_div(pixels, stride); };
      first = begin < 0 ? positions(-begin) : 0;
      from = begin + first * stride;
      count = std::min(length - first, positions(std::max<int64_t>(0, size - from)));
    }
    int64_t first, from, count;  // the first, where it lies, and how many: none if not positive
  };

  void copy_inside(int64_t begin, const Inside& rows, const Inside& columns, F* to, F* buffer) const {
    const auto copy_rows = tile_kernels<F>().copy_rows;
    const int64_t pitch = rows_.stride * shape_.width;
    if (stored_as<F>(input_)) {
      const F* from = static_cast<const F*>(input_.data) + begin + columns.from;
      return copy_rows(from, pitch, rows.count, columns_.stride, columns.count, to, pitch_);
    }
    for (int64_t row = 0; row < rows.count; ++row) {
      load_as<F>(input_.data, input_.dtype, begin + row * pitch, shape_.width, buffer);
      copy_rows(buffer + columns.from, 0, 1, columns_.stride, columns.count, to + row * pitch_, pitch_);
    }
  }

  const ConvolutionShape& shape_;
  const TensorView& input_;
  const PlaneAxis &rows_, &columns_;
  const int64_t pitch_, plane_;
};

}  // namespace deploydcn::cpu
