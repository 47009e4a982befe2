// One thread takes 16 bytes of a row's gate, of its up, and of y.
#include "core/launch.cuh"
#include "ops/exp.cuh"
#include "ops/swiglu.h"
#include "ops/vec.cuh"

namespace keen::ops {

namespace {

constexpr int kThreads = 256;

// Where thread `item` of the N F / kVec threads works: in y and dy, and in the gates; up lies F further on.
struct Place {
  int64_t y, gate;
};
template <int kVec> __device__ __forceinline__ Place place_of(int64_t item, int64_t F) {
  const int64_t row = item / (F / kVec);
  return {item * kVec, item * kVec + row * F};
}

template <class T, int kVec>
__global__ void __launch_bounds__(kThreads) swiglu_kernel(T* y, const T* gate_up, int64_t items, int64_t F) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= items) return;
  const Place at = place_of<kVec>(item, F);
  float gate[kVec], up[kVec], out[kVec];
  load<kVec>(gate, gate_up + at.gate);
  load<kVec>(up, gate_up + at.gate + F);
#pragma unroll
  for (int i = 0; i < kVec; ++i) out[i] = gate[i] * sigmoid_approx(gate[i]) * up[i];
  store<kVec>(y + at.y, out);
}

template <class T, int kVec>
__global__ void __launch_bounds__(kThreads)
    swiglu_backward_kernel(T* dgate_up, const T* dy, const T* gate_up, int64_t items, int64_t F) {
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (item >= items) return;
  const Place at = place_of<kVec>(item, F);
  float gate[kVec], up[kVec], d[kVec], dgate[kVec], dup[kVec];
  load<kVec>(gate, gate_up + at.gate);
  load<kVec>(up, gate_up + at.gate + F);
  load<kVec>(d, dy + at.y);
#pragma unroll
  for (int i = 0; i < kVec; ++i) {
    const float sigma = sigmoid_approx(gate[i]);
    dgate[i] = d[i] * up[i] * sigma * (1 + gate[i] * (1 - sigma));
    dup[i] = d[i] * gate[i] * sigma;
  }
  store<kVec>(dgate_up + at.gate, dgate);
  store<kVec>(dgate_up + at.gate + F, dup);
}

}  // namespace

template <> void swiglu_on<Device::cuda>(Context& ctx, Tensor y, ConstTensor gate_up) {
  cuda::with_device_float_type(y.dtype, [&]<class T>() {
    const int64_t F = y.shape[1];
    with_vec<T>(cuda::packable<T>(F, y.data, gate_up.data), [&]<int kVec>() {
      const int64_t items = y.count() / kVec;
      if (items == 0) return;
      cuda::launch(ctx, swiglu_kernel<T, kVec>, cuda::grid_of(cuda::ceil_div(items, kThreads)), kThreads, 0,
                   y.as<T>(), gate_up.as<T>(), items, F);
    });
  });
}

template <>
void swiglu_backward_on<Device::cuda>(Context& ctx, Tensor dgate_up, ConstTensor dy, ConstTensor gate_up) {
  cuda::with_device_float_type(dy.dtype, [&]<class T>() {
    const int64_t F = dy.shape[1];
    with_vec<T>(cuda::packable<T>(F, dgate_up.data, dy.data, gate_up.data), [&]<int kVec>() {
      const int64_t items = dy.count() / kVec;
      if (items == 0) return;
      cuda::launch(ctx, swiglu_backward_kernel<T, kVec>, cuda::grid_of(cuda::ceil_div(items, kThreads)),
                   kThreads, 0, dgate_up.as<T>(), dy.as<T>(), gate_up.as<T>(), items, F);
    });
  });
}

}  // namespace keen::ops
