#include "core/cpu/tile_kernels.h"

#include <cstdlib>
#include <cstring>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#include "core/error.h"

namespace deploydcn::cpu {

namespace baseline {
extern const TileKernels<float> kFloat;
extern const TileKernels<double> kDouble;
}  // namespace baseline
#if defined(__x86_64__)
namespace avx2 {
extern const TileKernels<float> kFloat;
extern const TileKernels<double> kDouble;
}  // namespace avx2
namespace avx512 {
extern const TileKernels<float> kFloat;
extern const TileKernels<double> kDouble;
}  // namespace avx512
namespace avx512vnni {
extern const TileKernels<float> kFloat;
extern const TileKernels<double> kDouble;
}  // namespace avx512vnni
namespace avx512bf16 {
extern const TileKernels<float> kFloat;
extern const TileKernels<double> kDouble;
}  // namespace avx512bf16
namespace amx {
extern const TileKernels<float> kFloat;
extern const TileKernels<double> kDouble;
}  // namespace amx
#endif

namespace {

struct Isa {
  const char* name;
  bool (*runs)();
  const TileKernels<float>& floats;
  const TileKernels<double>& doubles;
};

#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
bool has_avx512vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
bool has_avx512bf16() { return has_avx512vnni() && __builtin_cpu_supports("avx512bf16"); }
// Linux lends the tiles' registers on request, once for all threads of the process.
bool has_amx() {
#if defined(__linux__)
  constexpr unsigned kBFloat16 = 1u << 22, kTiles = 1u << 24, kInt8 = 1u << 25, kWanted = kBFloat16 | kTiles | kInt8;
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  unsigned a = 0, b = 0, c = 0, d = 0;
  return has_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kWanted) == kWanted &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

// From the best to the one that every processor runs.
const Isa kIsas[] = {
#if defined(__x86_64__)
    {"amx", has_amx, amx::kFloat, amx::kDouble},
    {"avx512bf16", has_avx512bf16, avx512bf16::kFloat, avx512bf16::kDouble},
    {"avx512vnni", has_avx512vnni, avx512vnni::kFloat, avx512vnni::kDouble},
    {"avx512", has_avx512, avx512::kFloat, avx512::kDouble},
    {"avx2", has_avx2, avx2::kFloat, avx2::kDouble},
#endif
    {"baseline", [] { return true; }, baseline::kFloat, baseline::kDouble},
};

const Isa& choose_isa() {
  const char* wanted = std::getenv("DEPLOYDCN_CPU_ISA");
  const bool any = !wanted || !*wanted;
  std::string names;
  for (const Isa& isa : kIsas) {
    names += (names.empty() ? "" : ", ") + std::string(isa.name);
    if (!any && std::strcmp(wanted, isa.name) != 0) continue;
    if (isa.runs()) return isa;
    if (!any) {
      throw InvalidArgument(std::string("DEPLOYDCN_CPU_ISA is '") + wanted +
                            "', which this processor does not run; unset it to use the best there is");
    }
  }
  throw InvalidArgument(std::string("DEPLOYDCN_CPU_ISA is '") + wanted + "'; wanted one of " + names);
}
const Isa& chosen_isa() {
  static const Isa& isa = choose_isa();
  return isa;
}

}  // namespace

template <>
const TileKernels<float>& tile_kernels<float>() {
  return chosen_isa().floats;
}
template <>
const TileKernels<double>& tile_kernels<double>() {
  return chosen_isa().doubles;
}

}  // namespace deploydcn::cpu
