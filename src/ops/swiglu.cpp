#include "ops/swiglu.h"

#include "core/parallel.h"
#include "core/simd.h"

namespace keen::ops {

namespace {

constexpr int64_t kGrain = 1 << 12;  // elements worth a thread of their own; each costs an exponential

void check_shapes(const ConstTensor& y, const ConstTensor& gate_up, const char* what) {
  const auto [N, F] = dims<2>(y);
  expect(gate_up, {N, 2 * F}, y.dtype, what);
}

}  // namespace

void swiglu(Context& ctx, Tensor y, ConstTensor gate_up) {
  check_shapes(y, gate_up, "swiglu: gate_up (N, 2F) beside y (N, F)");
  on_device(ctx, [&]<Device D>() { swiglu_on<D>(ctx, y, gate_up); });
}

void swiglu_backward(Context& ctx, Tensor dgate_up, ConstTensor dy, ConstTensor gate_up) {
  check_shapes(dy, gate_up, "swiglu_backward: gate_up (N, 2F) beside dy (N, F)");
  check_shapes(dy, dgate_up, "swiglu_backward: dgate_up (N, 2F) beside dy (N, F)");
  on_device(ctx, [&]<Device D>() { swiglu_backward_on<D>(ctx, dgate_up, dy, gate_up); });
}

template <> void swiglu_on<Device::cpu>(Context&, Tensor y, ConstTensor gate_up) {
  with_float_type(y.dtype, [&]<class T>() {
    using W = Wide<T>;
    const int64_t F = y.shape[1];
    T* py = y.as<T>();
    const T* pgate_up = gate_up.as<T>();
    parallel_for(y.shape[0], kGrain / std::max<int64_t>(F, 1) + 1, [=](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        T* out = py + row * F;
        const T *gate = pgate_up + row * 2 * F, *up = gate + F;
        KEEN_INDEPENDENT
        for (int64_t f = 0; f < F; ++f) {
          const W g = W(gate[f]);
          out[f] = T(g * simd::sigmoid(g).value * W(up[f]));
        }
      }
    });
  });
}

template <>
void swiglu_backward_on<Device::cpu>(Context&, Tensor dgate_up, ConstTensor dy, ConstTensor gate_up) {
  with_float_type(dy.dtype, [&]<class T>() {
    using W = Wide<T>;
    const int64_t F = dy.shape[1];
    T* pdgate_up = dgate_up.as<T>();
    const T *pdy = dy.as<T>(), *pgate_up = gate_up.as<T>();
    parallel_for(dy.shape[0], kGrain / std::max<int64_t>(F, 1) + 1, [=](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const T *gate = pgate_up + row * 2 * F, *up = gate + F, *d = pdy + row * F;
        T *dgate = pdgate_up + row * 2 * F, *dup = dgate + F;
        KEEN_INDEPENDENT
        for (int64_t f = 0; f < F; ++f) {
          const W g = W(gate[f]), u = W(up[f]), grad = W(d[f]);
          const simd::Sigmoid<W> sigma = simd::sigmoid(g);
          dgate[f] = T(grad * u * sigma.value * (W(1) + g * sigma.complement));
          dup[f] = T(grad * g * sigma.value);
        }
      }
    });
  });
}

}  // namespace keen::ops
