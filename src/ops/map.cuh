// Elementwise kernels: a thread takes kVec consecutive elements.
#pragma once

#include "core/launch.cuh"
#include "ops/vec.cuh"

namespace keen::ops {

constexpr int kMapThreads = 256;

// y[i] = f({x[i]...}), rounded once. y may be any x.
template <class F, int kVec, class To, class... From>
__global__ void map_kernel(F f, int64_t count, To* y, const From*... x) {
  constexpr int kInputs = sizeof...(From);
  const int64_t begin = (static_cast<int64_t>(blockIdx.x) * kMapThreads + threadIdx.x) * kVec;
  const auto apply = [&]<int kCount>(int64_t at) {
    float in[kInputs][kCount], out[kCount];
    int k = 0;
    (load<kCount>(in[k++], x + at), ...);
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      float element[kInputs];
#pragma unroll
      for (int j = 0; j < kInputs; ++j) element[j] = in[j][i];
      out[i] = f(element);
    }
    store<kCount>(y + at, out);
  };
  if (begin + kVec <= count)
    apply.template operator()<kVec>(begin);
  else
    for (int64_t i = begin; i < count; ++i) apply.template operator()<1>(i);
}

template <class F, class To, class... From>
void map(Context& ctx, const F& f, int64_t count, To* y, const From*... x) {
  constexpr int kVec = std::max({cuda::Pack<To>::kSize, cuda::Pack<From>::kSize...});
  if (count == 0) return;
  const auto run = [&]<int kWidth>() {
    cuda::launch(ctx, map_kernel<F, kWidth, To, From...>,
                 cuda::grid_of(cuda::ceil_div(count, kMapThreads * kWidth)), kMapThreads, 0, f, count, y,
                 x...);
  };
  if (cuda::packable<To>(0, y, x...))
    run.template operator()<kVec>();
  else
    run.template operator()<1>();
}

}  // namespace keen::ops
