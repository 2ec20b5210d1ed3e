// Runs on every processor of the architecture: SSE2 on x86-64, NEON on aarch64.
#define DEPLOYDCN_ISA baseline
#define DEPLOYDCN_VECTOR_BYTES 16
#if defined(__aarch64__)
#define DEPLOYDCN_MAX_ROWS 12
#else
#define DEPLOYDCN_MAX_ROWS 6
#endif
#include "core/cpu/tile_kernels.inl"
