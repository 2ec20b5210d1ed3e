// CUDA's device language for g++: what a kernel finds when gpu/gpu.cuh is compiled without nvcc.
#pragma once

#include "emulation/atomics.h"
#include "emulation/cuda_headers.h"
#include "emulation/launch.h"
#include "emulation/runtime.h"
#include "emulation/scalar_intrinsics.h"
#include "emulation/warp_intrinsics.h"

#define threadIdx (::deploydcn::emulation::current_thread->thread_index)
#define blockIdx (::deploydcn::emulation::current_thread->block_index)
#define blockDim (::deploydcn::emulation::current_thread->block_dim)
#define gridDim (::deploydcn::emulation::current_thread->grid_dim)
inline constexpr int warpSize = 32;

#define GPU_SHARED(T, name, dims)                                                                     \
  typedef T name##_shared_type dims;                                                                  \
  static constexpr char name##_shared_key = 0;                                                        \
  name##_shared_type& name = *static_cast<name##_shared_type*>(::deploydcn::emulation::static_shared( \
      &name##_shared_key, sizeof(name##_shared_type), alignof(name##_shared_type), #name))
#define GPU_DYN_SMEM(name) unsigned char* name = static_cast<unsigned char*>(::deploydcn::emulation::dynamic_shared())
