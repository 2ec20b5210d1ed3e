#include "harness/tensorrt_host.h"

#include <algorithm>
#include <utility>

#include "core/checked.h"

namespace {

int32_t g_version = 101401;

}  // namespace

// A plugin library asks the library that holds the finder for its version.
extern "C" __attribute__((visibility("default"))) int32_t getInferLibVersion() noexcept { return g_version; }
extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* finder);

namespace deploydcn::harness {
namespace {

std::string g_log;

class PlainLogger final : public nvinfer1::ILogger {
 public:
  void log(Severity, const char* message) noexcept override { g_log += std::string(message) + "\n"; }
};
class PlainFinder final : public nvinfer1::ILoggerFinder {
 public:
  nvinfer1::ILogger* findLogger() override { return &logger_; }

 private:
  PlainLogger logger_;
};

// The layout since TensorRT 11.0: IVersionedInterface's virtual functions come first.
class VersionedLogger {
 public:
  virtual int32_t getAPILanguage() const noexcept { return 0; }
  virtual nvinfer1::InterfaceInfo getInterfaceInfo() const noexcept { return {"Logger", 2, 0}; }
  virtual ~VersionedLogger() = default;
  virtual void log(int32_t, const char* message) noexcept { g_log += std::string(message) + "\n"; }
};
class VersionedFinder {
 public:
  virtual int32_t getAPILanguage() const noexcept { return 0; }
  virtual nvinfer1::InterfaceInfo getInterfaceInfo() const noexcept { return {"LoggerFinder", 2, 0}; }
  virtual ~VersionedFinder() = default;
  virtual void* findLogger() { return &logger_; }

 private:
  VersionedLogger logger_;
};

int64_t apply(nvinfer1::DimensionOperation operation, int64_t a, int64_t b) {
  switch (operation) {
    case nvinfer1::DimensionOperation::kSUM: return a + b;
    case nvinfer1::DimensionOperation::kSUB: return a - b;
    case nvinfer1::DimensionOperation::kPROD: return a * b;
    case nvinfer1::DimensionOperation::kMAX: return std::max(a, b);
    case nvinfer1::DimensionOperation::kMIN: return std::min(a, b);
    case nvinfer1::DimensionOperation::kEQUAL: return a == b;
    case nvinfer1::DimensionOperation::kLESS: return a < b;
    case nvinfer1::DimensionOperation::kFLOOR_DIV: return floor_div(Checked(a), Checked(b)).value();
    case nvinfer1::DimensionOperation::kCEIL_DIV: return -floor_div(Checked(-a), Checked(b)).value();
  }
  throw InternalError("unknown dimension operation");
}

const SizeExpression& own(const nvinfer1::IDimensionExpr& expression) {
  return static_cast<const SizeExpression&>(expression);
}

}  // namespace

void install_logger(bool versioned) {
  static PlainFinder plain;
  static VersionedFinder with_version;
  g_version = versioned ? 110400 : 101401;
  setLoggerFinder(versioned ? reinterpret_cast<nvinfer1::ILoggerFinder*>(&with_version) : &plain);
}

std::string take_log() { return std::exchange(g_log, {}); }

SizeExpression::SizeExpression(const Node& node) {
  implementation_.node = node;
  mImpl = &implementation_;
}

int64_t SizeExpression::evaluate() const {
  const Node& n = node();
  return n.kind == Kind::kOperation ? apply(n.operation, n.left->evaluate(), n.right->evaluate()) : n.value;
}

int64_t evaluate(const nvinfer1::IDimensionExpr& expression) { return own(expression).evaluate(); }

const SizeExpression* ExpressionBuilder::Implementation::add(const SizeExpression::Node& node) {
  return &expressions.emplace_back(node);
}
const nvinfer1::IDimensionExpr* ExpressionBuilder::Implementation::constant(int64_t value) {
  return add({SizeExpression::Kind::kConstant, value, {}, nullptr, nullptr});
}
const nvinfer1::IDimensionExpr* ExpressionBuilder::Implementation::operation(nvinfer1::DimensionOperation operation,
                                                                             const nvinfer1::IDimensionExpr& left,
                                                                             const nvinfer1::IDimensionExpr& right) {
  const SizeExpression &a = own(left), &b = own(right);
  if (a.isConstant() && b.isConstant()) return constant(apply(operation, a.evaluate(), b.evaluate()));
  return add({SizeExpression::Kind::kOperation, 0, operation, &a, &b});
}
const SizeExpression* ExpressionBuilder::constant_size(int64_t value) { return &own(*implementation_.constant(value)); }
const SizeExpression* ExpressionBuilder::symbol(int64_t value) {
  return implementation_.add({SizeExpression::Kind::kSymbol, value, {}, nullptr, nullptr});
}

}  // namespace deploydcn::harness
