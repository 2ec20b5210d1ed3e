#include "core/cpu/tile_kernels.h"

#include <cstdlib>
#include <cstring>

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
#endif

namespace {

enum class Isa { kBaseline, kAvx2, kAvx512 };

Isa best_isa() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    return Isa::kAvx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::kAvx2;
#endif
  return Isa::kBaseline;
}

Isa chosen_isa() {
  const Isa best = best_isa();
  const char* wanted = std::getenv("DEPLOYDCN_CPU_ISA");
  if (!wanted || !*wanted) return best;
  const Isa isa = std::strcmp(wanted, "avx512") == 0 ? Isa::kAvx512
                  : std::strcmp(wanted, "avx2") == 0 ? Isa::kAvx2
                  : std::strcmp(wanted, "baseline") == 0
                      ? Isa::kBaseline
                      : throw InvalidArgument(std::string("DEPLOYDCN_CPU_ISA is '") + wanted +
                                              "'; wanted baseline, avx2 or avx512");
  if (isa > best) {
    throw InvalidArgument(std::string("DEPLOYDCN_CPU_ISA is '") + wanted +
                          "', which this processor does not run; unset it to use the best there is");
  }
  return isa;
}

template <class F>
const TileKernels<F>& pick(const TileKernels<F>& base, [[maybe_unused]] const TileKernels<F>& avx2_table,
                           [[maybe_unused]] const TileKernels<F>& avx512_table) {
  static const Isa isa = chosen_isa();
  return isa == Isa::kAvx512 ? avx512_table : isa == Isa::kAvx2 ? avx2_table : base;
}

}  // namespace

#if defined(__x86_64__)
template <>
const TileKernels<float>& tile_kernels<float>() {
  return pick(baseline::kFloat, avx2::kFloat, avx512::kFloat);
}
template <>
const TileKernels<double>& tile_kernels<double>() {
  return pick(baseline::kDouble, avx2::kDouble, avx512::kDouble);
}
#else
template <>
const TileKernels<float>& tile_kernels<float>() {
  return pick(baseline::kFloat, baseline::kFloat, baseline::kFloat);
}
template <>
const TileKernels<double>& tile_kernels<double>() {
  return pick(baseline::kDouble, baseline::kDouble, baseline::kDouble);
}
#endif

}  // namespace deploydcn::cpu
