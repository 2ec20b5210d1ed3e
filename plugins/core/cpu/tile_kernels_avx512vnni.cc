// Cascade Lake onwards: AVX-512, and products of 8-bit integers; compiled with -mavx512vnni.
#define DEPLOYDCN_ISA avx512vnni
#define DEPLOYDCN_VECTOR_BYTES 64
#define DEPLOYDCN_MAX_ROWS 14
#include "core/cpu/tile_kernels.inl"
