// Runs one of the small kernels: emulation_driver KERNEL BUG [option=value...]
//
// Prints "output HASH" and exits 0 when all CUDA calls succeeded, the emulator recorded nothing and the result is
// right. Otherwise says why on stderr and exits 1: "emulator: TEXT", "cuda: CALL: TEXT" or "wrong result". Sanitizers
// and host faults exit as they do.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "emulation/control.h"
#include "functions.h"
#include "small_kernels.h"

namespace {

bool failed = false;

void report(const std::string& what) {
  std::fprintf(stderr, "%s\n", what.c_str());
  failed = true;
}
void check(cudaError_t error, const char* call) {
  if (error != cudaSuccess) report(std::string("cuda: ") + call + ": " + cudaGetErrorString(error));
}

template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(const std::vector<T>& values) : size_(values.size()) {
    check(cudaMalloc(&data_, bytes()), "cudaMalloc");
    check(cudaMemcpy(data_, values.data(), bytes(), cudaMemcpyHostToDevice), "cudaMemcpy");
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  T* data() const { return data_; }
  size_t bytes() const { return size_ * sizeof(T); }
  std::vector<T> download() const {
    std::vector<T> values(size_);
    check(cudaMemcpy(values.data(), data_, bytes(), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t size_;
};

uint64_t hash = 1469598103934665603u;  // FNV-1a over all results
template <class T>
void compare(const std::vector<T>& got, const std::vector<T>& wanted, const char* what) {
  for (size_t i = 0; i < got.size() * sizeof(T); ++i) {
    hash = (hash ^ reinterpret_cast<const unsigned char*>(got.data())[i]) * 1099511628211u;
  }
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::memcmp(&got[i], &wanted[i], sizeof(T)))
      return report(std::string("wrong result: ") + what + " " + std::to_string(i));
  }
}

// What a plugin's enqueue does: launch, on the caller's stream, and nothing else.
void enqueue(Bug bug, cudaStream_t stream, const void* device_input,
             const std::function<cudaError_t(cudaStream_t)>& launch) {
  deploydcn_emulation_set("inside_enqueue", "1");
  if (bug == Bug::kAllocateInEnqueue) {
    float* scratch;
    check(cudaMalloc(&scratch, 4), "cudaMalloc");
  }
  check(launch(bug == Bug::kDefaultStreamInEnqueue ? nullptr : stream), "launch");
  if (bug == Bug::kHostReadsDeviceMemory && *static_cast<const volatile char*>(device_input) == 1) std::puts("one");
  if (bug == Bug::kSynchronizeInEnqueue) check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  deploydcn_emulation_set("inside_enqueue", "0");
}

void run_reduce(Bug bug, cudaStream_t stream) {
  constexpr int kBlocks = 3, kCount = kBlocks * kReduceThreads - 20;
  std::vector<float> x(kCount), mirrored(kCount, 0.f), sums(kBlocks, 0.f), total(1, 0.f);
  for (int i = 0; i < kCount; ++i) {
    x[i] = static_cast<float>(i * 37 % 101 - 50);
    sums[i / kReduceThreads] += x[i], total[0] += x[i];
  }
  for (int i = 0; i < kCount; ++i) {
    const int from = i / 32 * 32 + 31 - i % 32;
    mirrored[i] = from < kCount ? x[from] : 0.f;
  }
  const std::vector<float> zeros(kCount, 0.f);
  DeviceArray<float> device_x(x), device_sums({0.f, 0.f, 0.f}), device_total({0.f}), device_mirrored(zeros);
  ReduceArguments a{device_x.data(), kCount, device_sums.data(), device_total.data(), device_mirrored.data(), 0};
  dim3 block(kReduceThreads);
  size_t dynamic_bytes = 0;
  if (bug == Bug::kHostPointerInStruct) a.x = x.data();
  if (bug == Bug::kTooManyThreads) block = dim3(2048);
  if (bug == Bug::kBeyondLaunchBounds) block = dim3(128);
  if (bug == Bug::kTooMuchSharedMemory) dynamic_bytes = 100 * 1024;
  if (bug == Bug::kHostBufferDiesEarly) {
    deploydcn_emulation_set("deferred", "1");
    const std::vector<float> temporary = x;
    check(cudaMemcpyAsync(device_x.data(), temporary.data(), device_x.bytes(), cudaMemcpyHostToDevice, stream),
          "cudaMemcpyAsync");
  }
  enqueue(bug, stream, device_x.data(),
          [&](cudaStream_t on) { return reduce_blocks(bug, a, dim3(kBlocks), block, dynamic_bytes, on); });
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  if (failed) return;
  compare(device_sums.download(), sums, "sum");
  compare(device_total.download(), total, "total");
  compare(device_mirrored.download(), mirrored, "mirrored");
}

void run_multiply(Bug bug, cudaStream_t stream) {
  // 24 products: the tail lies in a stage that nothing has written before.
  const int kRows = 70, kColumns = 24, kDepth = bug == Bug::kTailNotWritten ? 24 : 40;
  std::vector<__half> x(kRows * kDepth), w(kColumns * kDepth);
  std::vector<float> y(kRows * kColumns, 0.f);
  // Small integers: every sum is exact in any order, on every engine.
  for (int i = 0; i < kRows * kDepth; ++i) x[i] = __float2half(static_cast<float>(i * 13 % 17 - 8));
  for (int i = 0; i < kColumns * kDepth; ++i) w[i] = __float2half(static_cast<float>(i * 7 % 19 - 9));
  for (int i = 0; i < kRows * kColumns; ++i) {
    for (int k = 0; k < kDepth; ++k) {
      y[i] += __half2float(x[i / kColumns * kDepth + k]) * __half2float(w[i % kColumns * kDepth + k]);
    }
  }
  DeviceArray<__half> device_x(x), device_w(w);
  DeviceArray<float> device_y(std::vector<float>(y.size(), -1.f));
  MultiplyArguments a{device_x.data(), device_w.data(), device_y.data(), kRows, kColumns, kDepth};
  enqueue(bug, stream, device_x.data(), [&](cudaStream_t on) { return multiply_tiles(bug, a, on); });
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  if (!failed) compare(device_y.download(), y, "element");
}

template <class T>
void run_fragments(Bug bug, cudaStream_t stream, int depth, float step, T (*convert)(float), float (*back)(T)) {
  std::vector<T> a(16 * depth), b(8 * depth);
  std::vector<float> c(16 * 8);
  for (int i = 0; i < 16 * depth; ++i) a[i] = convert(static_cast<float>(i * 29 % 31 - 15) * step);
  for (int i = 0; i < 8 * depth; ++i) b[i] = convert(static_cast<float>(i * 11 % 23 - 11));
  for (int i = 0; i < 16 * 8; ++i) {
    const int row = i / 8, column = i % 8;
    c[i] = static_cast<float>(1 + column % 2 + row / 8 * 2);  // as the kernel initialises them
    for (int k = 0; k < depth; ++k) c[i] += back(a[row * depth + k]) * back(b[column * depth + k]);
  }
  DeviceArray<T> device_a(a), device_b(b);
  DeviceArray<float> device_c(std::vector<float>(c.size(), 0.f));
  enqueue(bug, stream, device_a.data(), [&](cudaStream_t on) {
    return bug == Bug::kHostPointerArgument ? multiply_once(a.data(), device_b.data(), device_c.data(), on)
                                            : multiply_once(device_a.data(), device_b.data(), device_c.data(), on);
  });
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  if (!failed) compare(device_c.download(), c, "element");
}

// Prints all results' bits; the test compares engines.
template <class T>
void run_functions(Bug bug, cudaStream_t stream, T (*convert)(int)) {
  std::vector<T> x(2 * kFunctionThreads), y(kFunctionThreads * kFunctionResults);
  for (int i = 0; i < 2 * kFunctionThreads; ++i) x[i] = convert(i);
  DeviceArray<T> device_x(x), device_y(y);
  enqueue(bug, stream, device_x.data(),
          [&](cudaStream_t on) { return call_functions(device_x.data(), device_y.data(), on); });
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  if (failed) return;
  for (const T& value : device_y.download()) {
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    std::printf("%llx ", static_cast<unsigned long long>(bits));
  }
  std::puts("");
}
// Both signs, fractions, and for integers every magnitude.
float number(int i) { return static_cast<float>(i * 37 % 64 - 31) * 0.3125f; }
long long wide_number(int i) { return static_cast<long long>((i * 0x9e3779b97f4a7c15u) >> i % 60) * (i % 3 ? 1 : -1); }

void run_exit(Bug bug, cudaStream_t stream) {
  std::vector<int> y(64, -1);
  DeviceArray<int> device_y(y);
  enqueue(bug, stream, device_y.data(), [&](cudaStream_t on) { return leave_early(32, device_y.data(), 64, on); });
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  for (int i = 0; i < 32; ++i) y[i] = i;
  if (!failed) compare(device_y.download(), y, "element");
}

void run_collectives(Bug bug, cudaStream_t stream) {
  constexpr int kBlocks = 2, kThreads = 64;
  std::vector<int> x(kBlocks * kThreads);
  for (int i = 0; i < kBlocks * kThreads; ++i) x[i] = i * 11 % 7 - 2;
  DeviceArray<int> device_x(x), device_y(std::vector<int>(x.size() * 12));
  enqueue(bug, stream, device_x.data(),
          [&](cudaStream_t on) { return use_collectives(device_x.data(), device_y.data(), kBlocks, kThreads, on); });
  check(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  const std::vector<int> y = device_y.download();
  for (const int value : y) std::printf("%d ", value);  // the test computes what they must be
  std::puts("");
  compare(y, y, "");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const std::string kernel = argv[1];
  const Bug bug = static_cast<Bug>(std::atoi(argv[2]));
  for (int i = 3; i < argc; ++i) {
    const char* const equals = std::strchr(argv[i], '=');
    const std::string name(argv[i], equals ? static_cast<size_t>(equals - argv[i]) : std::strlen(argv[i]));
    if (!equals || deploydcn_emulation_set(name.c_str(), equals + 1)) {
      std::fprintf(stderr, "option: %s\n", deploydcn_emulation_error());
      return 2;
    }
  }
  cudaStream_t stream;
  check(cudaStreamCreate(&stream), "cudaStreamCreate");
  const std::map<std::string, std::function<void()>> kernels = {
      {"reduce", [&] { run_reduce(bug, stream); }},
      {"multiply", [&] { run_multiply(bug, stream); }},
      {"functions-f32", [&] { run_functions<float>(bug, stream, number); }},
      {"functions-f16", [&] { run_functions<__half>(bug, stream, [](int i) { return __float2half(number(i)); }); }},
      {"functions-bf16",
       [&] { run_functions<__nv_bfloat16>(bug, stream, [](int i) { return __float2bfloat16(number(i)); }); }},
      {"functions-s64", [&] { run_functions<long long>(bug, stream, wide_number); }},
      {"exit", [&] { run_exit(bug, stream); }},
      {"collectives", [&] { run_collectives(bug, stream); }},
      {"half", [&] { run_fragments<__half>(bug, stream, 16, 0.125f, __float2half, __half2float); }},
      {"bfloat16", [&] { run_fragments<__nv_bfloat16>(bug, stream, 16, 0.125f, __float2bfloat16, __bfloat162float); }},
      {"tf32",
       [&] {
         run_fragments<float>(
             bug, stream, 8, 0.125f, [](float value) { return value; }, [](float value) { return value; });
       }},
  };
  const auto run = kernels.find(kernel);
  if (run == kernels.end()) return 2;
  run->second();
  if (*deploydcn_emulation_error()) report(std::string("emulator: ") + deploydcn_emulation_error());
  cudaStreamDestroy(stream);
  if (!failed) std::printf("output %016llx\n", static_cast<unsigned long long>(hash));
  return failed ? 1 : 0;
}
