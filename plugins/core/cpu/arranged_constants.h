// Biases, and the depthwise stage of a separable convolution, in the order in which tiles read them.
#pragma once

#include <algorithm>
#include <vector>

#include "core/cpu/tiled_convolution.h"

namespace deploydcn::cpu {

// Of `arrange_bias`. row: elements of a row of accumulators.
inline int64_t arranged_bias_count(const ConvolutionShape& shape, const ChannelPlan& plan, int64_t row) {
  // Small groups: and room for a vector from every lane on.
  return plan.small_group ? (static_cast<int64_t>(plan.blocks.size()) * plan.turns + 1) * plan.block_width
                          : shape.groups * plan.columns * row;
}

// Bias in the order of the accumulators: [group][column][row], or [block][turn][block width] for small groups.
template <class F>
void arrange_bias(const ConvolutionShape& shape, const ChannelPlan& plan, int64_t row, const std::vector<F>& given,
                  F* bias) {
  std::fill_n(bias, arranged_bias_count(shape, plan, row), F{0});
  const int64_t per_group = plan.outputs_per_group;
  if (!plan.small_group) {
    for (int64_t m = 0; m < shape.outputs; ++m) bias[m / per_group * plan.columns * row + m % per_group] = given[m];
    return;
  }
  for (const ChannelPlan::Block& block : plan.blocks) {
    for (int64_t turn = 0; turn < plan.turns; ++turn, bias += plan.block_width) {
      for (int c = 0; c < block.channels; ++c) {
        const int64_t output = plan.small_group_output(block, turn, c);
        if (output >= 0) bias[c] = given[static_cast<std::size_t>(output)];
      }
    }
  }
}

// The depthwise stage in the order of the blocks.
template <class F>
struct ArrangedStage {
  std::vector<F> weights;  // [block][tap][block width], of narrower blocks behind one another
  std::vector<F> bias;     // [block][block width]
};
template <class F>
ArrangedStage<F> arrange_stage(const ConvolutionShape& shape, const ChannelPlan& plan, const DepthwiseStage& stage) {
  const int64_t taps = shape.taps(), cb = plan.block_width, blocks = static_cast<int64_t>(plan.blocks.size());
  std::vector<F> given(static_cast<std::size_t>(shape.channels * taps)), bias(shape.channels, F{0});
  load_as<F>(stage.weight.data, stage.weight.dtype, 0, shape.channels * taps, given.data());
  if (stage.bias.present) load_as<F>(stage.bias.data, stage.bias.dtype, 0, shape.channels, bias.data());
  ArrangedStage<F> arranged{std::vector<F>(static_cast<std::size_t>(blocks * taps * cb), F{0}),
                            std::vector<F>(static_cast<std::size_t>(blocks * cb), F{0})};
  for (int64_t b = 0; b < blocks; ++b) {
    const ChannelPlan::Block& block = plan.blocks[static_cast<std::size_t>(b)];
    for (int c = 0; c < block.channels; ++c) {
      const int64_t channel = block.channel + c;
      arranged.bias[b * cb + c] = bias[channel];
      for (int64_t tap = 0; tap < taps; ++tap) {
        arranged.weights[b * taps * cb + tap * block.width + c] = given[channel * taps + tap];
      }
    }
  }
  return arranged;
}

}  // namespace deploydcn::cpu
