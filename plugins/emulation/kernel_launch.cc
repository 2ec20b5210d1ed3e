// From GPU_LAUNCH to blocks.
#include <algorithm>
#include <deque>
#include <map>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "emulation/device_memory.h"
#include "emulation/failures.h"
#include "emulation/ptx_registry.h"
#include "emulation/scheduler.h"
#include "emulation/streams.h"

namespace deploydcn::emulation {
namespace {

constexpr size_t kSharedWithoutOptIn = 48 * 1024;

std::deque<std::function<void()>> queue;
std::map<const void*, size_t> dynamic_limits;  // by kernel, where the launcher asked for more than 48 KiB

std::vector<size_t> block_order(size_t blocks) {
  std::vector<size_t> order(blocks);
  std::iota(order.begin(), order.end(), size_t{0});
  if (options().schedule == Schedule::kReverse) std::reverse(order.begin(), order.end());
  if (options().schedule == Schedule::kRandom) {
    for (size_t i = blocks; i > 1; --i) std::swap(order[i - 1], order[random_number() % i]);
  }
  return order;
}

void run_kernel(const Launch& launch, const std::function<void()>& body) {
  install_fault_handler();
  const DeviceAccess access;
  ++stats().launches;
  begin_kernel(launch);
  const dim3 grid = launch.grid;
  for (const size_t i : block_order(size_t{grid.x} * grid.y * grid.z)) {
    const uint3 index{static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                      static_cast<unsigned>(i / grid.x / grid.y)};
    reset_shared_memory(launch.shared_bytes, shared_memory_opt_in());
    if (!run_block(launch, index, body) || !red_zones_intact(launch, index)) break;
  }
  end_kernel();
  const std::string overwritten = overwritten_allocation();
  if (!overwritten.empty())
    record_failure(std::string("kernel ") + launch.name + " " + overwritten, cudaErrorIllegalAddress);
}

// A launch the device refuses at once.
cudaError_t check(const Launch& launch) {
  const dim3 grid = launch.grid, threads = launch.block;
  const size_t count = size_t{threads.x} * threads.y * threads.z;
  const bool grid_fits = grid.x && grid.y && grid.z && grid.x <= 0x7fffffff && grid.y <= 65535 && grid.z <= 65535;
  const std::string kernel = std::string("kernel ") + launch.name + ": ";
  if (!grid_fits || !count || count > kMaxThreads || threads.z > 64) {
    const auto size = [](dim3 d) {
      return std::to_string(d.x) + " x " + std::to_string(d.y) + " x " + std::to_string(d.z);
    };
    record_failure(kernel + "no device runs a grid of " + size(grid) + " blocks of " + size(threads) + " threads");
    return cudaErrorInvalidConfiguration;
  }
  const auto limit = dynamic_limits.find(launch.kernel);
  const size_t allowed = limit == dynamic_limits.end() ? kSharedWithoutOptIn : limit->second;
  if (launch.shared_bytes > allowed) {
    record_failure(kernel + std::to_string(launch.shared_bytes) +
                   " bytes of dynamic shared memory; the launcher may use " + std::to_string(allowed) +
                   " (cudaFuncSetAttribute raises it)");
    return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

}  // namespace

std::recursive_mutex& runtime_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

void enqueue(std::function<void()> work) {
  queue.push_back(std::move(work));
  if (!options().deferred) run_enqueued();
}
void run_enqueued() {
  while (!queue.empty()) {
    const std::function<void()> work = std::move(queue.front());
    queue.pop_front();
    if (sticky_error() == cudaSuccess) work();
  }
}
void drop_enqueued() { queue.clear(); }

bool is_default_stream(cudaStream_t stream) {
  return !stream || stream == cudaStreamLegacy || stream == cudaStreamPerThread;
}

cudaError_t refuse_inside_enqueue(const char* what) {
  if (!options().inside_enqueue) return cudaSuccess;
  record_failure(std::string(what) + " inside enqueue; it may run while a CUDA graph is captured");
  return returned(cudaErrorStreamCaptureUnsupported);
}

size_t shared_memory_opt_in() {  // CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"
  switch (options().compute_capability) {
    case 75: return 64 * 1024;
    case 80:
    case 87: return 163 * 1024;
    case 86:
    case 89:
    case 120:
    case 121: return 99 * 1024;
    default: return 227 * 1024;
  }
}

void allow_dynamic_shared_memory(const void* kernel, size_t bytes) { dynamic_limits[kernel] = bytes; }

void check_pointer_argument(const void* pointer, int argument, const char* kernel) {
  const std::lock_guard<std::recursive_mutex> lock(runtime_mutex());
  if (!pointer || is_device_memory(pointer)) return;
  record_failure(std::string("kernel ") + kernel + ": argument " + std::to_string(argument) +
                     " holds a pointer that is not device memory",
                 cudaErrorIllegalAddress);
}

cudaError_t submit(const Launch& launch, std::function<void(PtxKernel)> body) {
  const std::lock_guard<std::recursive_mutex> lock(runtime_mutex());
  if (sticky_error() != cudaSuccess) return returned(sticky_error());
  cudaError_t error = check(launch);
  if (error == cudaSuccess && is_default_stream(launch.stream))
    error = refuse_inside_enqueue("launch on the default stream");
  PtxKernel ptx = nullptr;
  if (error == cudaSuccess && options().engine != Engine::kSource) {
    const PtxEntry* const entry = find_ptx_kernel(options().engine, launch.kernel);
    if (!entry) {
      record_failure(std::string("kernel ") + launch.name + " has no translated PTX for this engine");
      error = cudaErrorNoKernelImageForDevice;
    } else if (entry->max_threads && launch.block.x * launch.block.y * launch.block.z > entry->max_threads) {
      record_failure(std::string("kernel ") + launch.name + ": more threads than its __launch_bounds__");
      error = cudaErrorLaunchOutOfResources;
    } else {
      ptx = entry->function;
    }
  }
  if (error != cudaSuccess) return returned(error);
  enqueue([launch, ptx, body = std::move(body)] { run_kernel(launch, [&] { body(ptx); }); });
  return cudaSuccess;
}

}  // namespace deploydcn::emulation
