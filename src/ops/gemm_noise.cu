// One thread an element.
#include "core/warp.cuh"
#include "ops/gemm_product.cuh"

namespace keen::ops {

namespace {

constexpr int kThreads = 256;

template <class T> __global__ void noise_kernel(T* x, int64_t count, uint32_t seed) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + static_cast<int64_t>(threadIdx.x);
  if (i >= count) return;
  uint32_t bits = static_cast<uint32_t>(i) * 0x9E3779B9u + seed;
  bits = (bits ^ (bits >> 16)) * 0x85EBCA6Bu;
  bits = (bits ^ (bits >> 13)) * 0xC2B2AE35u;
  x[i] = cuda::from_float<T>(static_cast<float>(bits >> 8) * 0x1p-23f - 1.0f);
}

}  // namespace

void fill_with_noise(Context& ctx, Tensor x, uint32_t seed) {
  cuda::with_device_float_type(x.dtype, [&]<class T>() {
    cuda::launch(ctx, noise_kernel<T>, cuda::grid_of(cuda::ceil_div(x.count(), kThreads)), kThreads, 0,
                 x.as<T>(), x.count(), seed);
  });
}

}  // namespace keen::ops
