// One block; thread t adds x[t], x[t + 1024], ...
#include "core/launch.cuh"
#include "core/warp.cuh"
#include "ops/add_sum.h"

namespace keen::ops {

namespace {

constexpr int kThreads = 1024;

__global__ void __launch_bounds__(kThreads)
    add_sum_kernel(double* total, const float* x, int64_t count, double divisor) {
  double sum = 0;
#pragma unroll 8
  for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += static_cast<double>(x[i]);
  sum = cuda::block_sum(sum);
  if (threadIdx.x == 0) *total += sum / divisor;
}

}  // namespace

template <> void add_sum_on<Device::cuda>(Context& ctx, Tensor total, ConstTensor x, double divisor) {
  cuda::launch(ctx, add_sum_kernel, 1, kThreads, 0, total.as<double>(), x.as<float>(), x.count(), divisor);
}

}  // namespace keen::ops
