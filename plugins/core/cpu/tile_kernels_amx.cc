// Sapphire Rapids onwards: AVX-512, and matrix tiles for products; compiled with -mamx-tile and -mamx-bf16.
#define DEPLOYDCN_ISA amx
#define DEPLOYDCN_VECTOR_BYTES 64
#define DEPLOYDCN_MAX_ROWS 14
#include "core/cpu/tile_kernels.inl"
