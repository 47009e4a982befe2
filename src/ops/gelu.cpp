#include "ops/gelu.h"

#include "core/parallel.h"
#include "core/simd.h"

namespace keen::ops {

namespace {

// Calls body(begin, end) for every row of x in parallel: the vector loop and its remainder, whose roundings
// may differ, then always compute the same columns, for any number of rows and threads.
template <class F> void for_rows(const ConstTensor& x, const F& body) {
  const int64_t columns = std::max<int64_t>(x.shape[x.shape.rank - 1], 1);
  parallel_for(x.count() / columns, std::max<int64_t>(4096 / columns, 1), [=](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) body(row * columns, (row + 1) * columns);
  });
}

constexpr double kSqrtTwoOverPi = 0.79788456080286535588, kCubic = 0.044715;

// z in (1 + tanh(z / 2)) / 2 = sigmoid(z): one exponential, and no cancellation where the tanh is near -1.
template <class W> W gate_input(W x) { return W(2 * kSqrtTwoOverPi) * (x + W(kCubic) * x * x * x); }

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
    for_rows(x, [=](int64_t begin, int64_t end) {
      KEEN_INDEPENDENT
      for (int64_t i = begin; i < end; ++i) py[i] = T(W(px[i]) * simd::sigmoid(gate_input(W(px[i]))).value);
    });
  });
}

template <> void gelu_backward_on<Device::cpu>(Context&, Tensor dx, ConstTensor dy, ConstTensor x) {
  with_float_type(x.dtype, [&]<class T>() {
    using W = Wide<T>;
    T* pdx = dx.as<T>();
    const T *pdy = dy.as<T>(), *px = x.as<T>();
    for_rows(x, [=](int64_t begin, int64_t end) {
      KEEN_INDEPENDENT
      for (int64_t i = begin; i < end; ++i) {
        const W v = W(px[i]);
        const simd::Sigmoid<W> gate = simd::sigmoid(gate_input(v));
        const W slope = W(2 * kSqrtTwoOverPi) * (W(1) + W(3 * kCubic) * v * v);
        pdx[i] = T(W(pdy[i]) * (gate.value + v * gate.value * gate.complement * slope));
      }
    });
  });
}

}  // namespace keen::ops
