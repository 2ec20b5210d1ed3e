// Haswell and Zen onwards; compiled with -mavx2 -mfma.
#define DEPLOYDCN_ISA avx2
#define DEPLOYDCN_VECTOR_BYTES 32
#define DEPLOYDCN_MAX_ROWS 6
#include "core/cpu/tile_kernels.inl"
