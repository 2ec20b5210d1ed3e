// The parts of TensorRT that a plugin meets, faked: the logger finder in both of its layouts, and symbolic shapes.
#pragma once

#include <NvInferRuntime.h>

#include <deque>
#include <string>
#include <vector>

namespace deploydcn::harness {

// Tells the plugin library where to log; `versioned`: with the layout of TensorRT 11 and TensorRT-RTX 1.5.
void install_logger(bool versioned);
std::string take_log();

// Symbolic sizes: constants fold, everything else is kept as a tree that `evaluate` computes.
class SizeExpression final : public nvinfer1::IDimensionExpr {
 public:
  enum class Kind { kConstant, kSymbol, kOperation };
  struct Node {
    Kind kind;
    int64_t value;  // the constant, or a symbol's value when evaluated
    nvinfer1::DimensionOperation operation;
    const SizeExpression *left, *right;
  };

  explicit SizeExpression(const Node& node);
  const Node& node() const { return implementation_.node; }
  int64_t evaluate() const;

 private:
  struct Implementation final : nvinfer1::apiv::VDimensionExpr {
    bool isConstant() const override { return node.kind == Kind::kConstant; }
    int64_t getConstantValue() const override { return isConstant() ? node.value : INT64_MIN; }
    bool isSizeTensor() const override { return false; }
    Node node{};
  };
  Implementation implementation_;
};

class ExpressionBuilder final : public nvinfer1::IExprBuilder {
 public:
  ExpressionBuilder() { mImpl = &implementation_; }
  const SizeExpression* constant_size(int64_t value);
  // A size unknown to the plugin; it evaluates to `value`.
  const SizeExpression* symbol(int64_t value);

 private:
  struct Implementation final : nvinfer1::apiv::VExprBuilder {
    const nvinfer1::IDimensionExpr* constant(int64_t value) override;
    const nvinfer1::IDimensionExpr* operation(nvinfer1::DimensionOperation operation,
                                              const nvinfer1::IDimensionExpr& left,
                                              const nvinfer1::IDimensionExpr& right) override;
    const nvinfer1::IDimensionExpr* declareSizeTensor(int32_t, const nvinfer1::IDimensionExpr&,
                                                      const nvinfer1::IDimensionExpr&) override {
      return nullptr;
    }
    const SizeExpression* add(const SizeExpression::Node& node);
    std::deque<SizeExpression> expressions;  // a deque: their addresses are kept
  };
  Implementation implementation_;
};

int64_t evaluate(const nvinfer1::IDimensionExpr& expression);

}  // namespace deploydcn::harness
