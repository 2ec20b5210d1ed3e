// Its PTX has an instruction that the translator does not know: the build must fail and name it.
#include "gpu/gpu.cuh"

__global__ void sleep_a_little() {
#if defined(__CUDACC__)
  asm volatile("nanosleep.u32 20;");
#endif
}
