#include "ops/gelu.h"

#include "core/parallel.h"
#include "core/simd.h"

namespace keen::ops {

namespace {

constexpr int64_t kGrain = 1 << 12;  // elements worth a thread of their own; each costs an exponential

constexpr double kSqrtTwoOverPi = 0.79788456080286535588, kCubic = 0.044715;

// (1 + tanh u) / 2 = sigmoid(2u): one exponential, and no cancellation where the tanh is near -1.
template <class W> W gate_of(W x) {
  return simd::sigmoid(W(2 * kSqrtTwoOverPi) * (x + W(kCubic) * x * x * x));
}

}  // namespace

void gelu(Context& ctx, Tensor y, ConstTensor x) {
  expect(y, x.shape, x.dtype, "gelu: y");
  on_device(ctx, [&]<Device D>() { gelu_on<D>(ctx, y, x); });
}

void gelu_backward(Context& ctx, Tensor dx, ConstTensor dy, ConstTensor x) {
  expect(dx, x.shape, x.dtype, "gelu_backward: dx");
  expect(dy, x.shape, x.dtype, "gelu_backward: dy");
  on_device(ctx, [&]<Device D>() { gelu_backward_on<D>(ctx, dx, dy, x); });
}

template <> void gelu_on<Device::cpu>(Context&, Tensor y, ConstTensor x) {
  with_float_type(x.dtype, [&]<class T>() {
    using W = Wide<T>;
    T* py = y.as<T>();
    const T* px = x.as<T>();
    parallel_for(x.count(), kGrain, [=](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) py[i] = T(W(px[i]) * gate_of(W(px[i])));
    });
  });
}

template <> void gelu_backward_on<Device::cpu>(Context&, Tensor dx, ConstTensor dy, ConstTensor x) {
  with_float_type(x.dtype, [&]<class T>() {
    using W = Wide<T>;
    T* pdx = dx.as<T>();
    const T *pdy = dy.as<T>(), *px = x.as<T>();
    parallel_for(x.count(), kGrain, [=](int64_t begin, int64_t end) {
#pragma omp simd
      for (int64_t i = begin; i < end; ++i) {
        const W v = W(px[i]), gate = gate_of(v);
        const W slope = W(2 * kSqrtTwoOverPi) * (W(1) + W(3 * kCubic) * v * v);
        pdx[i] = T(W(pdy[i]) * (gate + v * gate * (W(1) - gate) * slope));
      }
    });
  });
}

}  // namespace keen::ops
