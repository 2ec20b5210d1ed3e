// Skylake-SP and Zen 4 onwards; compiled with -mavx512f and its companions.
#define DEPLOYDCN_ISA avx512
#define DEPLOYDCN_VECTOR_BYTES 64
#define DEPLOYDCN_MAX_ROWS 14
#include "core/cpu/tile_kernels.inl"
