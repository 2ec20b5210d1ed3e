// The channel plan, and weights in the order the tile loop reads them:
//   matrix        [block][tap block][segment][column] of [tap][depth][vectors * lanes], as MatrixKernels::pack has it;
//                 outputs beyond the last are 0
//   small groups  [block][turn][tap][channel of the group][block width]
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <sstream>

#include "core/cpu/tile_sizes.h"

namespace deploydcn::cpu {
namespace {

// Sizes that the weight and the groups determine.
ConvolutionShape weight_shape(const Shape& weight, int64_t groups, int64_t offset_groups) {
  ConvolutionShape shape{};
  shape.outputs = weight[0];
  shape.channels = (Checked(weight[1]) * Checked(groups)).value();
  shape.kernel_h = weight[2];
  shape.kernel_w = weight[3];
  shape.groups = groups;
  shape.offset_groups = offset_groups;
  return shape;
}

// Widths of blocks that there are kernels for.
class BlockWidths {
 public:
  BlockWidths(int lanes, int widest, int multiple) : lanes_(lanes), widest_(widest), multiple_(multiple) {}

  // The narrowest that holds so many channels, or else the widest.
  int narrowest(int64_t channels) const {
    for (int width = lanes_; width <= 4 * lanes_; width += lanes_) {
      if (width % multiple_ == 0 && width >= channels) return width;
    }
    return widest_;
  }
  // That which wastes least on padding; each block also costs about eight channels' worth of loop overhead.
  int choose(int64_t channels) const {
    int best = widest_;
    const auto cost = [&](int width) {
      const int64_t others = ceil_div(channels, width) - 1;
      return others * (width + 8) + narrowest(channels - others * width) + 8;
    };
    for (int width = 4 * lanes_; width > 0; width -= lanes_) {
      if (width % multiple_ == 0 && cost(width) <= cost(best)) best = width;
    }
    return best;
  }

 private:
  int lanes_, widest_, multiple_;
};

// As many offset groups as fill the widest block, where whole vectors or halves of them do and there is room for their
// positions; else 1.
int choose_offset_groups(const ConvolutionShape& shape, int lanes, int widest, int64_t position_bytes) {
  const int64_t channels = shape.channels / shape.offset_groups, groups = widest / channels;
  const bool fill = groups > 1 && widest % channels == 0 && 2 * channels >= lanes && shape.channels % widest == 0;
  return fill && shape.taps() * groups * lanes * position_bytes <= kTapBytes ? static_cast<int>(groups) : 1;
}

// Two vectors per row use the registers best.
int choose_vectors(int64_t outputs, int lanes) { return outputs <= lanes ? 1 : 2; }

// See ChannelPlan. Samples are taken anew for every turn, so that many outputs per channel are better multiplied.
int choose_small_group(const ConvolutionShape& shape, int lanes) {
  constexpr int64_t most_turns = 4;
  const int64_t channels = shape.channels / shape.groups, outputs = shape.outputs / shape.groups;
  for (int group : {1, 2, 4, 8}) {
    const bool within = channels == group && group <= lanes && shape.channels / shape.offset_groups % group == 0;
    if (within && shape.groups > 1 && outputs <= most_turns * group) return group;
  }
  return 0;
}

// See ChannelPlan.
int64_t choose_group_blocks(const ChannelPlan& plan, int64_t per_group) {
  const auto count = static_cast<int64_t>(plan.blocks.size());
  const auto begin_with_groups = [&](int64_t blocks) {
    for (int64_t b = blocks; b < count; b += blocks) {
      if (plan.blocks[static_cast<std::size_t>(b)].channel % per_group != 0) return false;
    }
    return count % blocks == 0;
  };
  int64_t blocks = 1;
  while (!begin_with_groups(blocks)) ++blocks;
  return blocks;
}

template <class F>
ChannelPlan make_plan(const ConvolutionShape& shape, const MatrixKernels<F>& matrix) {
  const int lanes = tile_kernels<F>().lanes;
  ChannelPlan plan{};
  const int64_t per_offset_group = shape.channels / shape.offset_groups, per_group = shape.channels / shape.groups;
  plan.outputs_per_group = shape.outputs / shape.groups;
  plan.small_group = choose_small_group(shape, lanes);
  plan.turns = ceil_div(plan.outputs_per_group, per_group);
  const int widest = tile_kernels<F>().vectors * lanes;
  const bool divisible = !plan.small_group && (!matrix.whole_blocks || per_group % widest == 0);
  plan.offset_groups = divisible ? choose_offset_groups(shape, lanes, widest, kPositionBytes<F>) : 1;
  // Channels that begin and end with blocks.
  const int64_t run = plan.offset_groups > 1 ? widest
                      : matrix.whole_blocks  ? std::gcd(per_offset_group, per_group)
                                             : per_offset_group;
  const BlockWidths widths(lanes, widest, matrix.channel_multiple);
  plan.block_width = plan.offset_groups > 1 ? widest : widths.choose(run);
  plan.vectors = matrix.vectors ? matrix.vectors : choose_vectors(plan.outputs_per_group, lanes);
  plan.columns = ceil_div(plan.outputs_per_group, plan.vectors * lanes);
  const int64_t last_outputs = plan.outputs_per_group - (plan.columns - 1) * plan.vectors * lanes;
  plan.last_vectors = matrix.last_multiple
                          ? static_cast<int>(round_up(ceil_div(last_outputs, lanes), matrix.last_multiple))
                          : plan.vectors;
  const int64_t most = matrix.most_values / plan.block_width;
  plan.tap_block = static_cast<int>(ceil_div(shape.taps(), ceil_div(shape.taps(), most)));

  for (int64_t first = 0; first < shape.channels; first += run) {
    for (int64_t channel = first, end = first + run; channel < end; channel += plan.block_width) {
      const auto channels = static_cast<int>(std::min<int64_t>(plan.block_width, end - channel));
      const int width = plan.small_group ? plan.block_width : widths.narrowest(channels);
      ChannelPlan::Block block{channel, channels, width, channel / per_offset_group, {}};
      for (int64_t c = channel; !plan.small_group && c < channel + block.channels;) {
        const int64_t group = c / per_group, in_group = c % per_group;
        const int64_t depth = std::min(per_group - in_group, channel + block.channels - c);
        block.segments.push_back(
            {group, static_cast<int>(c - channel), static_cast<int>(depth), static_cast<int>(in_group), in_group == 0});
        c += depth;
      }
      plan.blocks.push_back(std::move(block));
    }
  }
  plan.group_blocks = choose_group_blocks(plan, per_group);
  return plan;
}

// How long products take, of what they take by `fused`: what does not fill a block is multiplied in vain. Infinity
// where a convolution does not suit.
template <class F>
double cost_of(const ConvolutionShape& shape, const ChannelPlan& plan, const MatrixKernels<F>& matrix) {
  if (!matrix.whole_blocks) return 1;
  constexpr double narrow = 1.25;  // a column of fewer vectors: what combined samples cost is shared by fewer outputs
  constexpr double never = std::numeric_limits<double>::infinity();
  if (plan.small_group) return never;
  if (plan.tap_block * plan.block_width < matrix.fewest_values || shape.outputs > matrix.most_outputs) return never;
  const double last_vectors = plan.last_vectors < plan.vectors ? narrow * plan.last_vectors : plan.vectors;
  const double outputs =
      (static_cast<double>((plan.columns - 1) * plan.vectors) + last_vectors) * tile_kernels<F>().lanes;
  int64_t depth = 0;
  for (const ChannelPlan::Block& block : plan.blocks) {
    const auto padded = [&](int64_t taps) { return round_up(taps * block.width, matrix.value_multiple); };
    depth += shape.taps() / plan.tap_block * padded(plan.tap_block) + padded(shape.taps() % plan.tap_block);
  }
  return static_cast<double>(depth) * outputs /
         (matrix.speed * static_cast<double>(shape.channels * shape.taps() * plan.outputs_per_group));
}

}  // namespace

void check_limits(const ConvolutionShape& s) {
  constexpr int64_t limit = int64_t{1} << 29;
  const auto require = [](const char* what, int64_t got, int64_t wanted) {
    if (got < wanted) return;
    std::ostringstream out;
    out << what << " is " << got << "; wanted less than " << wanted << "; the CPU kernels index pixels with 32 bits";
    throw InvalidArgument(out.str());
  };
  const auto reach = [](int64_t out, int64_t stride, int64_t kernel, int64_t dilation) {
    return (Checked(out - 1) * Checked(stride) + Checked(kernel - 1) * Checked(dilation)).value();
  };
  require("the image height", s.height, limit);
  require("the image width", s.width, limit);
  require("(height + 2) * (width + 2)", (s.height + 2) * (s.width + 2), int64_t{1} << 31);
  require("the padding", std::max(s.pad_top, s.pad_left), limit);
  require("the vertical reach of the window", reach(s.out_height, s.stride_h, s.kernel_h, s.dilation_h), limit);
  require("the horizontal reach of the window", reach(s.out_width, s.stride_w, s.kernel_w, s.dilation_w), limit);
  require("the number of kernel taps", (Checked(s.kernel_h) * Checked(s.kernel_w)).value(), int64_t{1} << 20);
  require("the number of channels", std::max(s.channels, s.outputs), int64_t{1} << 30);
}

namespace {

// The last suits every convolution. Null: there is none.
template <class F>
std::vector<const MatrixKernels<F>*> candidates(Products products) {
  const TileKernels<F>& kernels = tile_kernels<F>();
  switch (products) {
    case Products::kFused: return {&kernels.fused};
    case Products::kFloat32: return {kernels.fast[0], kernels.fast[1], &kernels.fused};
    case Products::kBFloat16: return {kernels.bfloat16, kernels.fast[0], kernels.fast[1], &kernels.fused};
    case Products::kBytes: return {kernels.whole, &kernels.rounded};
  }
  throw InternalError("unknown products");
}

// By which numbers up to `largest` are divided to be at most 1, as far as neither the power of two nor its inverse
// overflows. The least for zeros: what sums that mix leave of others must not count as an output of theirs.
template <class F>
F power_of_two(double largest) {
  constexpr int most = std::numeric_limits<F>::max_exponent - 28;
  if (largest == 0) return std::ldexp(F{1}, -most);
  int exponent = 0;
  if (std::isfinite(largest)) std::frexp(largest, &exponent);
  return std::ldexp(F{1}, std::clamp(exponent, -most, most));
}

}  // namespace

template <class F>
PackedWeights<F>::PackedWeights(const TensorView& weight, int64_t groups, int64_t offset_groups, Products products,
                                Span<const float> scale) {
  const ConvolutionShape shape = weight_shape(weight.shape, groups, offset_groups);
  double least = std::numeric_limits<double>::infinity();
  for (const MatrixKernels<F>* matrix : candidates<F>(products)) {
    if (!matrix) continue;
    ChannelPlan plan = make_plan(shape, *matrix);
    const double cost = cost_of<F>(shape, plan, *matrix);
    if (cost >= least) continue;
    least = cost;
    matrix_ = matrix;
    plan_ = std::move(plan);
  }
  const int64_t count = element_count(weight.shape);
  std::vector<F> converted(static_cast<std::size_t>(count));
  if (products == Products::kBytes) {
    std::copy_n(static_cast<const int8_t*>(weight.data), count, converted.begin());
  } else {
    load_as<F>(weight.data, weight.dtype, 0, count, converted.data());
  }
  if (matrix_->sums != Sums::kPlain) {
    scale_.resize(static_cast<std::size_t>(groups * plan_.columns * plan_.vectors * tile_kernels<F>().lanes));
  }
  if (matrix_->sums == Sums::kWhole) {
    sum_weights(shape, converted.data(), scale);
  } else if (matrix_->sums == Sums::kBalanced) {
    balance_weights(shape, converted.data());
  } else if (products == Products::kBytes) {  // sums are numbers like any other: in units of the output at once
    for (int64_t i = 0; i < count; ++i) converted[i] *= static_cast<F>(scale[i / (count / shape.outputs)]);
  }
  if (plan_.small_group) {
    pack_small_groups(shape, converted.data());
  } else {
    pack_matrix(shape, converted.data());
  }
}

template <class F>
int64_t PackedWeights<F>::place(int64_t output) const {
  const int64_t group = plan_.columns * plan_.vectors * tile_kernels<F>().lanes;
  return output / plan_.outputs_per_group * group + output % plan_.outputs_per_group;
}

template <class F>
template <class Body>
void PackedWeights<F>::each_weight(const ConvolutionShape& shape, F* weight, const Body& body) const {
  const int64_t taps = shape.taps(), per_group = shape.channels / shape.groups;
  for (int64_t m = 0; m < shape.outputs; ++m) {
    const int64_t at = place(m), first = m / plan_.outputs_per_group * per_group;
    for (int64_t k = 0; k < per_group; ++k) {
      for (int64_t tap = 0; tap < taps; ++tap) body(at, first + k, *weight++);
    }
  }
}

template <class F>
void PackedWeights<F>::sum_weights(const ConvolutionShape& shape, F* weight, Span<const float> scale) {
  weight_sums_.resize(scale_.size());
  each_weight(shape, weight, [&](int64_t at, int64_t, F w) { weight_sums_[at] += static_cast<int32_t>(w); });
  for (int64_t m = 0; m < shape.outputs; ++m) scale_[place(m)] = static_cast<F>(scale[m]);
}

template <class F>
void PackedWeights<F>::balance_weights(const ConvolutionShape& shape, F* weight) {
  // Of each, the largest weight.
  std::vector<double> outputs(scale_.size()), channels(static_cast<std::size_t>(shape.channels));
  each_weight(shape, weight, [&](int64_t at, int64_t, double w) { outputs[at] = std::max(outputs[at], std::abs(w)); });
  for (std::size_t i = 0; i < outputs.size(); ++i) scale_[i] = power_of_two<F>(outputs[i]);
  each_weight(shape, weight, [&](int64_t at, int64_t channel, double w) {
    channels[channel] = std::max(channels[channel], std::abs(w) / scale_[at]);
  });
  for (const double largest : channels) channel_scale_.push_back(power_of_two<F>(largest));
  each_weight(shape, weight, [&](int64_t at, int64_t channel, F& w) {
    w = static_cast<F>(static_cast<double>(w) / scale_[at] / channel_scale_[channel]);
  });
}

template <class F>
void PackedWeights<F>::pack_matrix(const ConvolutionShape& shape, const F* weight) {
  const int64_t taps = shape.taps(), per_group = shape.channels / shape.groups;
  const int lanes = tile_kernels<F>().lanes;
  std::vector<F> rows;  // of one product
  for (const ChannelPlan::Block& block : plan_.blocks) {
    begin_.push_back(packed_.size());
    for (int64_t tap_begin = 0; tap_begin < taps; tap_begin += plan_.tap_block) {
      const int64_t tap_end = std::min<int64_t>(taps, tap_begin + plan_.tap_block);
      for (const ChannelPlan::Segment& segment : block.segments) {
        const int64_t depth = matrix_->whole_blocks ? block.width : segment.depth;
        for (int64_t column = 0; column < plan_.columns; ++column) {
          const int row = plan_.vectors_of(column) * lanes;
          rows.clear();
          for (int64_t tap = tap_begin; tap < tap_end; ++tap) {
            for (int64_t k = 0; k < depth; ++k) {
              for (int64_t r = 0; r < row; ++r) {
                const int64_t output = column * plan_.vectors * lanes + r;
                const int64_t m = segment.group * plan_.outputs_per_group + output;
                const bool exists = k < segment.depth && output < plan_.outputs_per_group;
                rows.push_back(exists ? weight[(m * per_group + segment.channel_in_group + k) * taps + tap] : F{0});
              }
            }
          }
          const int64_t count = (tap_end - tap_begin) * depth;
          const std::size_t used = packed_.size();
          packed_.resize(used + static_cast<std::size_t>(matrix_->pack(rows.data(), count, row, nullptr)));
          matrix_->pack(rows.data(), count, row, packed_.data() + used);
        }
      }
    }
  }
}

template <class F>
void PackedWeights<F>::pack_small_groups(const ConvolutionShape& shape, const F* weight) {
  const int64_t taps = shape.taps(), group = plan_.small_group;
  for (const ChannelPlan::Block& block : plan_.blocks) {
    for (int64_t turn = 0; turn < plan_.turns; ++turn) {
      for (int64_t tap = 0; tap < taps; ++tap) {
        for (int64_t k = 0; k < group; ++k) {
          for (int c = 0; c < plan_.block_width; ++c) {
            const int64_t output = plan_.small_group_output(block, turn, c);
            values_.push_back(output < 0 ? F{0} : weight[(output * group + k) * taps + tap]);
          }
        }
      }
    }
  }
}

template class PackedWeights<float>;
template class PackedWeights<double>;

}  // namespace deploydcn::cpu
