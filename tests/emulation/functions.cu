#include "functions.h"

#include "gpu/gpu.cuh"

namespace {

// Writes one result after the other.
template <class T>
struct Results {
  T* next;
  __device__ Results& operator<<(T value) {
    *next++ = value;
    return *this;
  }
};

}  // namespace

template <class T>
struct Operands {
  T a, b;
  Results<T> y;
  __device__ Operands(const T* x, T* results)
      : a(x[threadIdx.x]), b(x[threadIdx.x + kFunctionThreads]), y{results + threadIdx.x * kFunctionResults} {}
};

__global__ void float_functions(const float* x, float* results) {
  Operands<float> o(x, results);
  const float a = o.a, b = o.b, positive = fabsf(o.a) + 0.1f;
  o.y << a + b << a * b << a / b << fmaf(a, b, a) << fminf(a, b) << fmaxf(a, b) << copysignf(a, b) << floorf(a)
      << ceilf(a);
  o.y << rintf(a) << truncf(a) << roundf(a) << __saturatef(a) << fmodf(a, b) << sqrtf(positive) << rsqrtf(positive);
  o.y << expf(a) << exp2f(a) << __expf(a) << expm1f(a) << logf(positive) << log2f(positive) << log1pf(positive)
      << __logf(positive);
  o.y << tanhf(a) << erff(a) << sinf(a) << cosf(a) << atan2f(a, b) << powf(positive, b) << cbrtf(a) << hypotf(a, b);
  o.y << 1.f / (1.f + expf(-a)) << __fdividef(a, b) << static_cast<float>(static_cast<int>(a))
      << static_cast<float>(__float2int_rn(a));
  o.y << static_cast<float>(__float2int_rd(a)) << static_cast<float>(static_cast<unsigned>(positive));
  o.y << (isnan(a / (b - b)) ? 1.f : 2.f) << (isinf(a / (b - b)) ? 1.f : 2.f);
}

__global__ void half_functions(const __half* x, __half* results) {
  Operands<__half> o(x, results);
  const __half a = o.a, b = o.b;
  o.y << a + b << a - b << a * b << a / b << __hfma(a, b, a) << __hmax(a, b) << __hmin(a, b) << __hmax_nan(a, b)
      << __hneg(a);
  o.y << hexp(a) << hrcp(b) << hsqrt(__habs(a)) << (a < b ? a : b) << (a == b ? a : b) << (__hgtu(a, b) ? a : b)
      << __hadd_sat(a, b);
  o.y << __float2half_rn(__half2float(a) * 3.1f) << __float2half_rz(__half2float(a) * 3.1f)
      << __int2half_rn(__half2int_rz(a) * 1000);
  const __half2 both = __halves2half2(a, b), constant = __float2half2_rn(1.5f);
  const float2 wide = __half22float2(both);
  for (const __half2& pair : {__hfma2(both, constant, both), __hmul2(both, constant), __hadd2(both, constant),
                              __hmax2(both, constant), __floats2half2_rn(wide.x * 1.1f, wide.y * 1.2f)}) {
    o.y << __low2half(pair) << __high2half(pair);
  }
}

__global__ void bfloat16_functions(const __nv_bfloat16* x, __nv_bfloat16* results) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
  Operands<__nv_bfloat16> o(x, results);
  const __nv_bfloat16 a = o.a, b = o.b;
  o.y << a + b << a - b << a * b << a / b << __hfma(a, b, a) << __hmax(a, b) << __hmin(a, b) << __hneg(a) << hexp(a)
      << hrcp(b);
  o.y << hsqrt(__habs(a)) << (a < b ? a : b) << (a == b ? a : b) << __float2bfloat16_rz(__bfloat162float(a) * 3.1f);
  const __nv_bfloat162 both = __halves2bfloat162(a, b), constant = __float2bfloat162_rn(1.5f);
  for (const __nv_bfloat162& pair : {__hfma2(both, constant, both), __hmul2(both, constant), __hadd2(both, constant),
                                     __hmax2(both, constant), __floats2bfloat162_rn(1.1f, __bfloat162float(a))}) {
    o.y << __low2bfloat16(pair) << __high2bfloat16(pair);
  }
#endif
  // Conversions exist everywhere; compute_75 does them with integers.
  const int i = static_cast<int>(threadIdx.x);
  const float value = __bfloat162float(x[i]) * 1.7f;
  results[i * kFunctionResults + 40] = __float2bfloat16_rn(value);
  results[i * kFunctionResults + 41] = __floats2bfloat162_rn(value, -value).y;
}

__global__ void integer_functions(const long long* x, long long* results) {
  Operands<long long> o(x, results);
  const long long a = o.a, b = o.b | 1;
  const int m = static_cast<int>(a), n = static_cast<int>(b) | 1;
  const unsigned u = static_cast<unsigned>(m), v = static_cast<unsigned>(n);
  using Wide = unsigned long long;
  o.y << a / b << a % b << static_cast<long long>(static_cast<Wide>(a) / static_cast<Wide>(b)) << a / 11 << m / n
      << m % n << u / v;
  o.y << m / 7 << m % 9 << __umulhi(u, v) << __mulhi(m, n) << __popc(u) << __clz(m) << __ffs(m) << (u << (v & 31))
      << (m >> (v & 31));
  o.y << (a >> (v & 63)) << static_cast<short>(m) << static_cast<unsigned char>(m) << static_cast<signed char>(n)
      << min(m, n);
  o.y << max(a, b) << static_cast<long long>(static_cast<double>(a) * 0.25) << ((m ^ n) & ~(m | 5)) << ((u >> 7) & 63);
  o.y << static_cast<int>(u << 5) / (1 << 20) << static_cast<long long>(m) * n << static_cast<long long>(Wide{u} * v);
  o.y << static_cast<int>(u * v + threadIdx.x) << static_cast<long long>(static_cast<Wide>(a) * static_cast<Wide>(b));
  switch (u % 16) {
    case 0: o.y << 5; break;
    case 1: o.y << b; break;
    case 2: o.y << a; break;
    case 3: o.y << n; break;
    case 5: o.y << 77; break;
    case 6: o.y << (a ^ b); break;
    case 9: o.y << (a | b); break;
    default: o.y << 1;
  }
  int local[8];
  for (int i = 0; i < 8; ++i) local[i] = i * (m % 1000);
  static constexpr unsigned char kDigits[] = {3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3};
  o.y << local[v % 8] << kDigits[u % 16];
}

cudaError_t call_functions(const float* x, float* y, cudaStream_t stream) {
  return GPU_LAUNCH(float_functions, dim3(1), dim3(kFunctionThreads), 0, stream, x, y);
}
cudaError_t call_functions(const __half* x, __half* y, cudaStream_t stream) {
  return GPU_LAUNCH(half_functions, dim3(1), dim3(kFunctionThreads), 0, stream, x, y);
}
cudaError_t call_functions(const __nv_bfloat16* x, __nv_bfloat16* y, cudaStream_t stream) {
  return GPU_LAUNCH(bfloat16_functions, dim3(1), dim3(kFunctionThreads), 0, stream, x, y);
}
cudaError_t call_functions(const long long* x, long long* y, cudaStream_t stream) {
  return GPU_LAUNCH(integer_functions, dim3(1), dim3(kFunctionThreads), 0, stream, x, y);
}
