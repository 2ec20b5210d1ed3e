#include "ort/custom_op.h"

#include "ort/runtime.h"
#include "ort/shape_inference.h"

namespace deploydcn::ort {
namespace {

struct Op : CustomOp {
  const OpSpec* spec;
  Provider provider;
  std::string name;
  std::vector<DType> dtypes;  // one per type parameter
};

const Op& self(const CustomOp* base) { return *static_cast<const Op*>(base); }

std::string node_name(const KernelInfo* info) {
  std::size_t size = 0;
  succeeded(api().KernelInfo_GetNodeName(info, nullptr, &size));
  std::string name(size, '\0');
  if (size == 0 || !succeeded(api().KernelInfo_GetNodeName(info, name.data(), &size))) return "";
  return name.c_str();
}

class NodeAttributes : public AttributeSource {
 public:
  explicit NodeAttributes(const KernelInfo* info) : info_(info) {}

  std::optional<std::vector<int64_t>> ints(const char* name, AttrKind kind) const override {
    if (kind == AttrKind::kInt) {
      int64_t value = 0;
      if (succeeded(api().KernelInfoGetAttribute_int64(info_, name, &value))) return std::vector<int64_t>{value};
    } else {
      std::size_t size = 0;
      if (succeeded(api().KernelInfoGetAttributeArray_int64(info_, name, nullptr, &size))) {
        std::vector<int64_t> values(size);
        check(api().KernelInfoGetAttributeArray_int64(info_, name, values.data(), &size));
        return values;
      }
    }
    require_absent(name, kind == AttrKind::kInt ? "an integer" : "a list of integers");
    return std::nullopt;
  }
  std::optional<double> number(const char* name) const override {
    float value = 0;
    if (succeeded(api().KernelInfoGetAttribute_float(info_, name, &value))) return value;
    require_absent(name, "a number");
    return std::nullopt;
  }
  std::optional<std::string> string(const char* name) const override {
    std::size_t size = 0;
    if (succeeded(api().KernelInfoGetAttribute_string(info_, name, nullptr, &size))) {
      std::string value(size, '\0');
      check(api().KernelInfoGetAttribute_string(info_, name, value.data(), &size));
      return std::string(value.c_str());
    }
    require_absent(name, "a string");
    return std::nullopt;
  }

 private:
  // The runtime does not tell a missing attribute from one of another type: an attribute that reads as another type is
  // there.
  void require_absent(const char* name, const char* wanted) const {
    int64_t integer = 0;
    float number = 0;
    std::size_t size = 0;
    if (succeeded(api().KernelInfoGetAttribute_int64(info_, name, &integer)) ||
        succeeded(api().KernelInfoGetAttribute_float(info_, name, &number)) ||
        succeeded(api().KernelInfoGetAttribute_string(info_, name, nullptr, &size)) ||
        succeeded(api().KernelInfoGetAttributeArray_int64(info_, name, nullptr, &size))) {
      throw InvalidArgument(std::string("attribute ") + name + " has another type; wanted " + wanted);
    }
  }
  const KernelInfo* info_;
};

struct Kernel {
  std::unique_ptr<NodeKernel> kernel;
  std::size_t inputs;
  std::string where;  // "DeformConv2d node 'backbone.conv': "
};

Status* create_kernel(const CustomOp* base, const void*, const KernelInfo* info, void** out) {
  const Op& op = self(base);
  const auto where = [&] { return op.name + " node '" + node_name(info) + "': "; };
  return guarded(where, [&] {
    std::size_t count = 0;
    check(api().KernelInfo_GetInputCount(info, &count));
    std::vector<TensorView> constants(op.spec->inputs.size());
    for (std::size_t i = 0; op.provider.reads_constants && i < count && i < constants.size(); ++i) {
      int is_constant = 0;
      const Value* value = nullptr;
      if (succeeded(api().KernelInfoGetConstantInput_tensor(info, i, &is_constant, &value)) && is_constant) {
        constants[i] = view(value);
      }
    }
    *out = new Kernel{op.provider.create(NodeAttributes(info), op.dtypes, constants), constants.size(), where()};
  });
}

Status* compute(void* opaque, KernelContext* context) {
  const Kernel& kernel = *static_cast<const Kernel*>(opaque);
  return guarded([&] { return kernel.where; },
                 [&] {
                   std::size_t count = 0;
                   check(api().KernelContext_GetInputCount(context, &count));
                   std::vector<TensorView> inputs(kernel.inputs);
                   for (std::size_t i = 0; i < count && i < inputs.size(); ++i) {
                     const Value* value = nullptr;
                     check(api().KernelContext_GetInput(context, i, &value));
                     inputs[i] = view(value);
                   }
                   kernel.kernel->compute(inputs, context);
                 });
}

Characteristic characteristic(bool optional) { return optional ? kOptional : kRequired; }

}  // namespace

std::unique_ptr<CustomOp> make_custom_op(const OpSpec& spec, Provider provider, std::string name, std::size_t row,
                                         bool infer_shapes) {
  auto op = std::make_unique<Op>();
  static_cast<CustomOp&>(*op) = CustomOp{};
  op->spec = &spec;
  op->provider = std::move(provider);
  op->name = std::move(name);
  for (int i = 0; i < spec.type_params; ++i) op->dtypes.push_back(spec.type_rows[row * spec.type_params + i]);

  op->version = kCustomOpVersion;
  op->GetName = [](const CustomOp* op) { return self(op).name.c_str(); };
  op->GetExecutionProviderType = [](const CustomOp* op) { return self(op).provider.name; };
  op->GetInputTypeCount = [](const CustomOp* op) { return self(op).spec->inputs.size(); };
  op->GetInputType = [](const CustomOp* op, size_t i) {
    return element_type(self(op).dtypes[self(op).spec->inputs[i].type_param]);
  };
  op->GetOutputTypeCount = [](const CustomOp* op) { return self(op).spec->outputs.size(); };
  op->GetOutputType = [](const CustomOp* op, size_t i) {
    return element_type(self(op).dtypes[self(op).spec->outputs[i].type_param]);
  };
  op->GetInputCharacteristic = [](const CustomOp* op, size_t i) {
    return characteristic(self(op).spec->inputs[i].optional);
  };
  op->GetOutputCharacteristic = [](const CustomOp* op, size_t i) {
    return characteristic(self(op).spec->outputs[i].optional);
  };
  op->GetInputMemoryType = [](const CustomOp*, size_t) { return kMemTypeDefault; };
  op->GetVariadicInputMinArity = [](const CustomOp*) { return 1; };
  op->GetVariadicInputHomogeneity = [](const CustomOp*) { return 1; };
  op->GetVariadicOutputMinArity = [](const CustomOp*) { return 1; };
  op->GetVariadicOutputHomogeneity = [](const CustomOp*) { return 1; };
  op->CreateKernelV2 = create_kernel;
  op->KernelComputeV2 = compute;
  op->KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  if (infer_shapes) {
    op->InferOutputShapeFn = [](const CustomOp* op, ShapeInferContext* context) {
      return guarded([&] { return self(op).name + ": "; }, [&] { infer_output_shapes(*self(op).spec, context); });
    };
  }
  op->GetStartVersion = [](const CustomOp* op) { return self(op).spec->since_version; };
  op->GetEndVersion = [](const CustomOp*) { return INT32_MAX; };
  return op;
}

}  // namespace deploydcn::ort
