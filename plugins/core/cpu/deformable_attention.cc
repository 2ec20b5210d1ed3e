#include "core/cpu/deformable_attention.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/cpu/thread_arena.h"
#include "core/cpu/tile_kernels.h"

namespace deploydcn::cpu {
namespace {

constexpr int64_t kPointsPerTask = 4096;
constexpr int64_t kElementsPerCopy = 64 * 1024;
constexpr int64_t kPadding = 8;  // points: a multiple of every number of lanes

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The points of all heads of a query, as the kernel wants them; those that fill the last vector have height 0.
class Table {
 public:
  Table(const std::vector<Point>& points, int64_t heads, int64_t padded) : padded_(padded) {
    columns_.resize(static_cast<std::size_t>(7 * padded));
    const auto count = static_cast<int64_t>(points.size());
    for (int64_t i = 0; i < heads * count; ++i) {
      const Point& point = points[static_cast<std::size_t>(i % count)];
      const double row[] = {point.scale_y,
                            point.scale_x,
                            point.shift_y,
                            point.shift_x,
                            static_cast<double>(point.level.start),
                            static_cast<double>(point.level.height),
                            static_cast<double>(point.level.width)};
      for (int64_t column = 0; column < 7; ++column) {
        columns_[static_cast<std::size_t>(column * padded + i)] = row[column];
      }
    }
  }
  PointTable view() const { return {column(0), column(1), column(2), column(3), column(4), column(5), column(6)}; }

 private:
  const double* column(int64_t index) const { return columns_.data() + index * padded_; }

  int64_t padded_;
  std::vector<double> columns_;
};

template <class F>
void softmax(F* values, int64_t count) {
  const F largest = *std::max_element(values, values + count);
  F sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += values[i] = std::exp(values[i] - largest);
  for (int64_t i = 0; i < count; ++i) values[i] /= sum;
}

template <class F>
class Attention {
 public:
  Attention(const DeformableAttention& call, CpuContext& context)
      : call_(call),
        context_(context),
        kernels_(tile_kernels<F>()),
        points_(static_cast<int64_t>(call.points.size())),
        padded_(ceil_div(call.heads * points_, kPadding) * kPadding),
        row_(call.heads * call.channels),
        converts_(call.value.dtype != kTypeOf<F>),
        table_(call.points, call.heads, padded_),
        copy_(context, converts_ ? element_count(call.value.shape) : 0),
        zeros_(context, row_) {
    std::fill(zeros_.data(), zeros_.data() + row_, F{0});
  }

  void run() {
    if (converts_) copy_value();
    const int64_t block = std::max<int64_t>(1, kPointsPerTask / (call_.heads * points_));
    const int64_t blocks = ceil_div(call_.queries, block);
    parallel_for(context_, call_.batch * blocks, [&](int64_t task) {
      const int64_t first = task % blocks * block;
      run_queries(task / blocks, first, std::min(call_.queries, first + block));
    });
  }

 private:
  struct Workspace {
    F *positions, *weights;
    Corners<F> corners;
    F* out;
  };

  void copy_value() {
    const int64_t count = element_count(call_.value.shape);
    parallel_for(context_, ceil_div(count, kElementsPerCopy), [&](int64_t task) {
      const int64_t first = task * kElementsPerCopy, size = std::min(kElementsPerCopy, count - first);
      load_as<F>(call_.value.data, call_.value.dtype, first, size, copy_.data() + first);
    });
  }

  Workspace workspace(const F* value) const {
    ThreadArena& arena = thread_arena();
    arena.reset(ThreadArena::bytes_for<F>(2 * padded_) + ThreadArena::bytes_for<F>(padded_) +
                ThreadArena::bytes_for<F>(4 * padded_) + ThreadArena::bytes_for<int64_t>(4 * padded_) +
                ThreadArena::bytes_for<F>(row_));
    F* positions = arena.take<F>(2 * padded_);
    F* weights = arena.take<F>(padded_);
    std::fill(positions, positions + 2 * padded_, F{0});
    std::fill(weights, weights + padded_, F{0});
    const auto outside =
        static_cast<int64_t>(reinterpret_cast<std::uintptr_t>(zeros_.data()) - reinterpret_cast<std::uintptr_t>(value));
    const Corners<F> corners{arena.take<int64_t>(4 * padded_), arena.take<F>(4 * padded_), padded_,
                             row_ * static_cast<int64_t>(sizeof(F)), outside};
    return {positions, weights, corners, arena.take<F>(row_)};
  }

  void run_queries(int64_t n, int64_t first, int64_t last) {
    const F* all = converts_ ? copy_.data() : static_cast<const F*>(call_.value.data);
    const F* value = all + n * call_.pixels * row_;
    const Workspace w = workspace(value);
    const QueryGrid& grid = call_.grid;
    for (int64_t q = first; q < last; ++q) {
      const int64_t query = n * call_.queries + q;
      const F* positions = numbers(call_.positions, query, 2 * points_, w.positions);
      const F* weights = call_.softmax ? shares(query, w.weights) : numbers(call_.weights, query, points_, w.weights);
      kernels_.locate_points(table_.view(), grid.first_y + static_cast<double>(q / grid.width) * grid.step_y,
                             grid.first_x + static_cast<double>(q % grid.width) * grid.step_x, positions, weights,
                             w.corners);
      F* out = converts_ ? w.out : static_cast<F*>(call_.output) + query * row_;
      for (int64_t m = 0; m < call_.heads; ++m) {
        kernels_.sum_points(value + m * call_.channels, w.corners, m * points_, points_, call_.channels,
                            out + m * call_.channels);
      }
      if (converts_) store_as<F>(out, row_, call_.output, call_.value.dtype, query * row_);
    }
  }

  // `count` numbers of every head of a query, one head behind the other, and whatever fills the last vector of points:
  // in place where they lie so and as many queries follow, each of which has a point.
  const F* numbers(const PointData& from, int64_t query, int64_t count, F* buffer) const {
    const bool follow = query + kPadding <= call_.batch * call_.queries;
    if (follow && from.head_stride == count && from.dtype == kTypeOf<F>) {
      return static_cast<const F*>(from.data) + from.first + query * from.query_stride;
    }
    load(from, query, count, buffer);
    return buffer;
  }
  const F* shares(int64_t query, F* buffer) const {
    load(call_.weights, query, points_, buffer);
    for (int64_t m = 0; m < call_.heads; ++m) softmax(buffer + m * points_, points_);
    return buffer;
  }
  void load(const PointData& from, int64_t query, int64_t count, F* to) const {
    const int64_t first = from.first + query * from.query_stride;
    if (from.head_stride == count) return load_as<F>(from.data, from.dtype, first, call_.heads * count, to);
    for (int64_t m = 0; m < call_.heads; ++m) {
      load_as<F>(from.data, from.dtype, first + m * from.head_stride, count, to + m * count);
    }
  }

  const DeformableAttention& call_;
  CpuContext& context_;
  const TileKernels<F>& kernels_;
  const int64_t points_;  // of a head
  const int64_t padded_;  // points of a query, rounded up to whole vectors
  const int64_t row_;     // elements of a pixel of the value, and of a query's output
  const bool converts_;   // half precision: the value is read from a copy in F
  const Table table_;
  const ScratchBuffer<F> copy_, zeros_;
};

}  // namespace

std::vector<Point> points_of(const DeformableWindow& window) {
  const Level image{0, window.height, window.width};
  const double scale = window.offset_scale;
  std::vector<Point> points;
  for (int64_t j = 0; j < window.kernel_w; ++j) {
    for (int64_t i = 0; i < window.kernel_h; ++i) {
      if (window.remove_center && i == window.kernel_h / 2 && j == window.kernel_w / 2) continue;
      const auto tap_y = static_cast<double>(i * window.dilation_h - window.reach_h());
      const auto tap_x = static_cast<double>(j * window.dilation_w - window.reach_w());
      points.push_back({image, scale, scale, tap_y * scale, tap_x * scale});
    }
  }
  return points;
}

QueryGrid grid_of(const DeformableWindow& window) {
  return {window.out_width, static_cast<double>(window.reach_h() - window.pad_top),
          static_cast<double>(window.reach_w() - window.pad_left), static_cast<double>(window.stride_h),
          static_cast<double>(window.stride_w)};
}

void attend(const DeformableAttention& call, CpuContext& context) {
  if (call.pixels > INT32_MAX) {
    throw InvalidArgument("the value has " + std::to_string(call.pixels) + " pixels; the CPU kernel takes at most " +
                          std::to_string(INT32_MAX) + "; split the input");
  }
  if (call.batch * call.queries == 0) return;
  if (call.value.dtype == DType::kFloat64) {
    Attention<double>(call, context).run();
  } else {
    Attention<float>(call, context).run();
  }
}

}  // namespace deploydcn::cpu
