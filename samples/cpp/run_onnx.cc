// Runs an ONNX model that has deploydcn's operators, by the C API of ONNX Runtime 1.18 or newer.
#include <onnxruntime_c_api.h>

#include <memory>

#include "program.h"

namespace {

const char* const kUsage =
    "model.onnx libdeploydcn_ort.so [name=]input.npy... -o folder [--threads N] [--repeat N]\n"
    "Inputs without a name are taken in the model's order. Outputs become folder/name.npy.";

const OrtApi& api() {
  static const OrtApi* const table = OrtGetApiBase()->GetApi(18);
  if (!table) {
    throw std::runtime_error(std::string("libonnxruntime is version ") + OrtGetApiBase()->GetVersionString() +
                             "; wanted 1.18 or newer");
  }
  return *table;
}

void check(OrtStatus* status, const std::string& what = "ONNX Runtime") {
  if (!status) return;
  const std::string reason = api().GetErrorMessage(status);
  api().ReleaseStatus(status);
  throw std::runtime_error(what + ": " + reason);
}

// Objects of ONNX Runtime, released when they go out of scope.
struct Release {
  void operator()(OrtEnv* object) const { api().ReleaseEnv(object); }
  void operator()(OrtSessionOptions* object) const { api().ReleaseSessionOptions(object); }
  void operator()(OrtSession* object) const { api().ReleaseSession(object); }
  void operator()(OrtTypeInfo* object) const { api().ReleaseTypeInfo(object); }
  void operator()(OrtTensorTypeAndShapeInfo* object) const { api().ReleaseTensorTypeAndShapeInfo(object); }
  void operator()(OrtMemoryInfo* object) const { api().ReleaseMemoryInfo(object); }
  void operator()(OrtValue* object) const { api().ReleaseValue(object); }
};
template <class T>
using Owned = std::unique_ptr<T, Release>;

// The object that create(arguments..., &object) makes.
template <class T, class Create, class... Arguments>
Owned<T> make(Create create, Arguments... arguments) {
  T* made = nullptr;
  check(create(arguments..., &made));
  return Owned<T>(made);
}

struct Type {
  ONNXTensorElementDataType onnx;
  const char* name;
};
const Type kTypes[] = {
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, "bool"},     {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8, "int8"},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, "uint8"},   {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16, "int16"},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16, "uint16"}, {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, "int32"},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32, "uint32"}, {ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, "int64"},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64, "uint64"}, {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, "float16"},
    {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, "float32"}, {ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE, "float64"}};

// Element type and sizes: what a model declares, or what a value has.
program::TensorInfo describe(const std::string& name, const OrtTensorTypeAndShapeInfo* tensor) {
  ONNXTensorElementDataType onnx{};
  check(api().GetTensorElementType(tensor, &onnx));
  const auto* type = std::find_if(std::begin(kTypes), std::end(kTypes), [&](const Type& t) { return t.onnx == onnx; });
  if (type == std::end(kTypes)) {
    throw std::runtime_error("'" + name + "' has ONNX type " + std::to_string(onnx) +
                             "; wanted bool, an integer type, or float16, 32 or 64; put a Cast into the model");
  }
  std::size_t rank = 0;
  check(api().GetDimensionsCount(tensor, &rank));
  npy::Shape shape(rank);
  check(api().GetDimensions(tensor, shape.data(), rank));
  std::vector<const char*> axes(rank);
  check(api().GetSymbolicDimensions(tensor, axes.data(), rank));
  return {name, &npy::dtype(type->name), shape, {axes.begin(), axes.end()}};
}

using GetName = OrtStatus* (*)(const OrtSession*, std::size_t, OrtAllocator*, char**);
std::vector<std::string> names_of(const OrtSession* session, std::size_t count, GetName get) {
  OrtAllocator* allocator = nullptr;
  check(api().GetAllocatorWithDefaultOptions(&allocator));
  std::vector<std::string> names;
  for (std::size_t i = 0; i < count; ++i) {
    char* name = nullptr;
    check(get(session, i, allocator, &name));
    names.emplace_back(name);
    check(api().AllocatorFree(allocator, name));
  }
  return names;
}

std::vector<program::TensorInfo> inputs_of(const OrtSession* session) {
  std::size_t count = 0;
  check(api().SessionGetInputCount(session, &count));
  std::vector<program::TensorInfo> infos;
  for (const std::string& name : names_of(session, count, api().SessionGetInputName)) {
    const auto type = make<OrtTypeInfo>(api().SessionGetInputTypeInfo, session, infos.size());
    const OrtTensorTypeAndShapeInfo* tensor = nullptr;
    check(api().CastTypeInfoToTensorInfo(type.get(), &tensor));
    if (!tensor) throw std::runtime_error("input '" + name + "' is no tensor; wanted inputs that are tensors");
    infos.push_back(describe(name, tensor));
  }
  return infos;
}

std::vector<std::string> outputs_of(const OrtSession* session) {
  std::size_t count = 0;
  check(api().SessionGetOutputCount(session, &count));
  return names_of(session, count, api().SessionGetOutputName);
}

// A value that reads the array's memory.
Owned<OrtValue> value_of(npy::Array& array, const OrtMemoryInfo* memory) {
  const auto* type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                  [&](const Type& t) { return std::string(t.name) == array.dtype->name; });
  return make<OrtValue>(api().CreateTensorWithDataAsOrtValue, memory, array.bytes.data(), array.bytes.size(),
                        array.shape.data(), array.shape.size(), type->onnx);
}

npy::Array array_of(const std::string& name, OrtValue* value) {
  int is_tensor = 0;
  check(api().IsTensor(value, &is_tensor));
  if (!is_tensor) throw std::runtime_error("output '" + name + "' is no tensor; wanted outputs that are tensors");
  const auto info = describe(name, make<OrtTensorTypeAndShapeInfo>(api().GetTensorTypeAndShape, value).get());
  void* data = nullptr;
  check(api().GetTensorMutableData(value, &data));
  const auto* begin = static_cast<const std::byte*>(data);
  return {info.dtype, info.shape, {begin, begin + npy::byte_count(*info.dtype, info.shape)}};
}

void run(const program::Arguments& arguments) {
  const std::string model = program::existing_file(arguments.model, "an ONNX model");
  const std::string library =
      program::existing_file(arguments.library, "the library that deploydcn.ort_library_path() names");

  std::printf("onnxruntime %s\n", OrtGetApiBase()->GetVersionString());
  const auto environment = make<OrtEnv>(api().CreateEnv, ORT_LOGGING_LEVEL_FATAL, "run_onnx");
  const auto options = make<OrtSessionOptions>(api().CreateSessionOptions);
  const int threads = arguments.numbers.at("--threads");
  if (threads > 0) check(api().SetIntraOpNumThreads(options.get(), threads));
  check(api().RegisterCustomOpsLibrary_V2(options.get(), library.c_str()), arguments.library);
  const auto session = make<OrtSession>(api().CreateSession, environment.get(), model.c_str(), options.get());

  const std::vector<program::TensorInfo> inputs = inputs_of(session.get());
  std::vector<npy::Array> arrays = program::read_inputs(arguments.inputs, inputs);
  const auto memory = make<OrtMemoryInfo>(api().CreateCpuMemoryInfo, OrtArenaAllocator, OrtMemTypeDefault);
  std::vector<Owned<OrtValue>> owned;
  for (npy::Array& array : arrays) owned.push_back(value_of(array, memory.get()));

  const std::vector<std::string> outputs = outputs_of(session.get());
  std::vector<const char*> input_names, output_names;
  std::vector<const OrtValue*> values;
  for (const program::TensorInfo& info : inputs) input_names.push_back(info.name.c_str());
  for (const Owned<OrtValue>& value : owned) values.push_back(value.get());
  for (const std::string& name : outputs) output_names.push_back(name.c_str());
  const auto run_once = [&] {
    std::vector<OrtValue*> made(outputs.size());
    check(api().Run(session.get(), nullptr, input_names.data(), values.data(), values.size(), output_names.data(),
                    made.size(), made.data()),
          "the run");
    return std::vector<Owned<OrtValue>>(made.begin(), made.end());
  };
  const std::vector<Owned<OrtValue>> results = run_once();
  program::print_median(arguments.numbers.at("--repeat"), run_once);

  std::vector<npy::Array> contents;
  for (std::size_t i = 0; i < outputs.size(); ++i) contents.push_back(array_of(outputs[i], results[i].get()));
  program::save(arguments.output_folder, outputs, contents);
}

}  // namespace

int main(int argc, char** argv) {
  return program::guarded("run_onnx", kUsage,
                          [&] { run(program::parse(argc, argv, {{"--threads", 0}, {"--repeat", 1}})); });
}
