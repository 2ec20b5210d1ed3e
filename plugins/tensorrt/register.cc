// What TensorRT finds in this library: the list of creators, and where to log.
#include "ops/dcnv3/dcnv3_cuda.h"
#include "ops/dcnv4/dcnv4_cuda.h"
#include "ops/deform_conv2d/deform_conv2d_cuda.h"
#include "ops/deform_psroi_pool/deform_psroi_pool_cuda.h"
#include "ops/deform_roi_pool/deform_roi_pool_cuda.h"
#include "ops/grouped_conv2d/grouped_conv2d_cuda.h"
#include "ops/ms_deform_attn/ms_deform_attn_cuda.h"
#include "ops/separable_conv2d/separable_conv2d_cuda.h"
// new-gpu-op: include above
#include "tensorrt/logger.h"
#include "tensorrt/plugin.h"

#define DEPLOYDCN_EXPORT extern "C" __attribute__((visibility("default")))

DEPLOYDCN_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { deploydcn::trt::set_logger_finder(finder); }

DEPLOYDCN_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  using namespace deploydcn;
  static trt::Creator creators[] = {
      {deform_conv2d::kGpuOp, "DeformConv2d", "deploydcn"},
      {grouped_conv2d::kGpuOp, "GroupedConv2d", "deploydcn"},
      // The standard operator, which TensorRT-RTX does not have: PyTorch's own export builds unmodified.
      {deform_conv2d::kGpuOp, "DeformConv", ""},
      {deform_roi_pool::kGpuOp, "DeformRoIPool", "deploydcn"},
      {deform_psroi_pool::kGpuOp, "DeformPSRoIPool", "deploydcn"},
      {dcnv3::kGpuOp, "DCNv3", "deploydcn"},
      {dcnv4::kGpuOp, "DCNv4", "deploydcn"},
      {ms_deform_attn::kGpuOp, "MSDeformAttn", "deploydcn"},
      {separable_conv2d::kGpuOp, "SeparableConv2d", "deploydcn"},
      // new-gpu-op: insert above
  };
  constexpr int32_t kCount = sizeof creators / sizeof creators[0];
  static nvinfer1::IPluginCreatorInterface* list[kCount];
  for (int32_t i = 0; i < kCount; ++i) list[i] = &creators[i];
  count = kCount;
  return list;
}
