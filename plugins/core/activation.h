// The activations a convolution may fuse, in the order of the specs' `choices`.
#pragma once

#include <string>

#include "core/error.h"

namespace deploydcn {

enum class Activation { kNone, kRelu, kRelu6, kSilu };

inline Activation activation_named(const std::string& name) {
  if (name.empty()) return Activation::kNone;
  if (name == "relu") return Activation::kRelu;
  if (name == "relu6") return Activation::kRelu6;
  if (name == "silu") return Activation::kSilu;
  throw InternalError("unknown activation " + name);
}

}  // namespace deploydcn
