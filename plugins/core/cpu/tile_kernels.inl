// Bodies of tile_kernels.h. Included by one file per instruction set, which defines DEPLOYDCN_ISA (a name),
// DEPLOYDCN_VECTOR_BYTES and DEPLOYDCN_MAX_ROWS (accumulator rows: rows * 2 vectors + 3 fit the register file).
//
// Everything here has internal linkage and calls no inline function of a library: a function that the linker shared
// with other files could otherwise end up compiled for an instruction set the machine lacks. A test inspects the
// objects.
//
// Accuracy: sums in F in the order tap, channel; positions are exact (see bilinear_taps).

#include "core/cpu/bfloat16.inl"
#include "core/cpu/blocked_pixels.inl"
#include "core/cpu/combined_products.inl"
#include "core/cpu/depthwise_kernels.inl"
#include "core/cpu/direct_kernels.inl"
#include "core/cpu/group_sums.inl"
#include "core/cpu/overlapped_products.inl"
#include "core/cpu/point_kernels.inl"
#include "core/cpu/simd.inl"
#include "core/cpu/tile_kernels.h"
#include "core/cpu/tile_layouts.inl"
#include "core/cpu/tile_matrices.inl"
#include "core/cpu/tile_products.inl"
#include "core/cpu/tile_samples.inl"
#include "core/cpu/whole_numbers.inl"
#include "core/cpu/word_products.inl"

namespace deploydcn::cpu {
namespace {

#define DEPLOYDCN_STRING_(x) #x
#define DEPLOYDCN_STRING(x) DEPLOYDCN_STRING_(x)
template <class F>
constexpr TileKernels<F> kTable = {
    DEPLOYDCN_STRING(DEPLOYDCN_ISA),
    Simd<F>::kLanes,
    kWidestBlock<F>,
    DEPLOYDCN_MAX_ROWS,
    block_pixels<F, PlainPixels>,
    bilinear_taps<F>,
    exact_taps<F>,
    kFused<F, Bilinear>,
    kFused<F, Rounded>,
    {kFast<F>, kSecond<F>},
    kOfBFloat16<F>,
    kWhole<F>,
    round_to_bytes<F>,
    group_sums<F, Bilinear>,
    group_sums<F, Rounded>,
    group_sums<F, Exact>,
    sum_shifted<F>,
    finish_rows<F>,
    copy_rows<F>,
    depthwise_rows<F>,
    locate_points<F>,
    sum_points<F>,
};

}  // namespace

namespace DEPLOYDCN_ISA {
extern const TileKernels<float> kFloat;
extern const TileKernels<double> kDouble;
const TileKernels<float> kFloat = kTable<float>;
const TileKernels<double> kDouble = kTable<double>;
}  // namespace DEPLOYDCN_ISA

}  // namespace deploydcn::cpu
