// The list of ops this library offers to ONNX Runtime, and its entry point.
//
// Session config entry "deploydcn.replace_standard" = "1", set before registering, also puts our kernel in the place of
// the standard DeformConv, for files that carry it and for runtimes that have no kernel for it (before 1.25).
// "deploydcn.bfloat16" = "1" lets convolutions on the CPU round the factors of their products to bfloat16;
// "deploydcn.precise" = "1" has them multiply by fused multiply-add alone.
#include <cstdio>
#include <cstring>
#include <mutex>
#include <vector>

#include "ort/providers.h"
#include "ort/runtime.h"

namespace deploydcn::ort {
namespace {

// Runtimes before 1.24 dereference a null type when a custom op with a shape function leaves out an optional input, as
// DeformConv2d with a mask and no bias does. There, output shapes stay unknown until the first run.
bool g_infer_shapes = true;
bool infers_shapes_safely(const char* version) {
  int major = 0, minor = 0;
  return std::sscanf(version, "%d.%d", &major, &minor) == 2 && (major > 1 || minor >= 24);
}

// A domain and the ops in it; both live until the process ends, as sessions refer to them.
class Domain {
 public:
  explicit Domain(const char* name) { check(api().CreateCustomOpDomain(name, &domain_)); }
  // Adds an op under a name, for every row of its types that the provider takes and `wanted` admits.
  template <class Wanted>
  void add(const ProvidedOp& op, const char* name, Wanted&& wanted) {
    const auto width = static_cast<std::size_t>(op.spec->type_params);
    for (std::size_t row = 0; row * width < op.spec->type_rows.size(); ++row) {
      const Span<const DType> types(op.spec->type_rows.data() + row * width, width);
      if (!op.takes(types) || !wanted(types)) continue;
      ops_.push_back(make_custom_op(*op.spec, op.provider, name, row, g_infer_shapes));
      check(api().CustomOpDomain_Add(domain_, ops_.back().get()));
    }
  }
  CustomOpDomain* get() const { return domain_; }

 private:
  CustomOpDomain* domain_ = nullptr;
  std::vector<std::unique_ptr<CustomOp>> ops_;
};

std::vector<ProvidedOp> all_ops(Products products) {
  std::vector<ProvidedOp> ops = cpu_ops(products);
  for (ProvidedOp& op : cuda_ops()) ops.push_back(std::move(op));
  return ops;
}

// Sessions of all kinds of products may live side by side: each has its domains.
constexpr int kKinds = 3;
Domain& own_domain(Products products) {
  static Domain* domains[kKinds] = {};
  Domain*& domain = domains[static_cast<int>(products)];
  if (!domain) {
    auto made = std::make_unique<Domain>("deploydcn");
    for (const ProvidedOp& op : all_ops(products)) made->add(op, op.spec->name, [](Span<const DType>) { return true; });
    domain = made.release();
  }
  return *domain;
}

// The standard operator has one type parameter: only rows whose types are all equal exist there.
Domain& standard_domain(Products products) {
  static Domain* domains[kKinds] = {};
  Domain*& domain = domains[static_cast<int>(products)];
  if (!domain) {
    auto made = std::make_unique<Domain>("");
    for (const ProvidedOp& op : all_ops(products)) {
      if (std::strcmp(op.spec->name, "DeformConv2d") != 0) continue;
      made->add(op, "DeformConv", [](Span<const DType> types) { return types[0] == types[1]; });
    }
    domain = made.release();
  }
  return *domain;
}

// Whether a session config entry is "1"; absent is "0".
bool is_set(const SessionOptions* options, const char* key) {
  int present = 0;
  check(api().HasSessionConfigEntry(options, key, &present));
  if (!present) return false;
  std::size_t size = 0;
  succeeded(api().GetSessionConfigEntry(options, key, nullptr, &size));
  std::string value(size, '\0');
  check(api().GetSessionConfigEntry(options, key, value.data(), &size));
  value = value.c_str();
  if (value != "0" && value != "1") {
    throw InvalidArgument(std::string("session config entry ") + key + " is '" + value + "'; wanted 0 or 1");
  }
  return value == "1";
}

Products wanted_products(const SessionOptions* options) {
  const bool bfloat16 = is_set(options, "deploydcn.bfloat16"), precise = is_set(options, "deploydcn.precise");
  if (bfloat16 && precise) {
    throw InvalidArgument("session config has both deploydcn.bfloat16 and deploydcn.precise; wanted one of them");
  }
  if (bfloat16) return Products::kBFloat16;
  return precise ? Products::kFused : Products::kFloat32;
}

}  // namespace
}  // namespace deploydcn::ort

extern "C" __attribute__((visibility("default"))) deploydcn::ort::Status* RegisterCustomOps(
    deploydcn::ort::SessionOptions* options, const deploydcn::ort::ApiBase* base) {
  using namespace deploydcn::ort;
  const void* table = base->GetApi(kApiVersion);
  if (!table) {
    // Slot 0, CreateStatus, exists in every version; the others may lie beyond an old runtime's table.
    const auto create_status =
        reinterpret_cast<Status* (*)(ErrorCode, const char*)>(*static_cast<void* const*>(base->GetApi(1)));
    return create_status(kFail, "deploydcn needs onnxruntime 1.18 or newer; pip install -U onnxruntime");
  }
  static std::mutex mutex;
  const std::lock_guard<std::mutex> lock(mutex);
  if (!bind_api(table)) {
    return Api(table).CreateStatus(kFail,
                                   "deploydcn is already in use by another onnxruntime in this process; "
                                   "load one onnxruntime per process");
  }
  g_infer_shapes = infers_shapes_safely(base->GetVersionString());
  return guarded([] { return std::string("deploydcn: "); },
                 [&] {
                   const deploydcn::Products products = wanted_products(options);
                   check(api().AddCustomOpDomain(options, own_domain(products).get()));
                   if (is_set(options, "deploydcn.replace_standard")) {
                     check(api().AddCustomOpDomain(options, standard_domain(products).get()));
                   }
                 });
}
