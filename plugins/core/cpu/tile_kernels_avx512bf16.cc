// Cooper Lake and Zen 4 onwards: AVX-512, products of 8-bit integers and of bfloat16; compiled with -mavx512bf16.
#define DEPLOYDCN_ISA avx512bf16
#define DEPLOYDCN_VECTOR_BYTES 64
#define DEPLOYDCN_MAX_ROWS 14
#include "core/cpu/tile_kernels.inl"
