// One thread takes 16 bytes of elements.
#include "ops/exp.cuh"
#include "ops/gelu.h"
#include "ops/map.cuh"

namespace keen::ops {

namespace {

constexpr float kSqrtTwoOverPi = 0.79788456f, kCubic = 0.044715f;

// z in (1 + tanh(z / 2)) / 2 = sigmoid(z), as on the CPU.
__device__ __forceinline__ float gate_input(float x) { return 2 * kSqrtTwoOverPi * (x + kCubic * x * x * x); }

struct Gelu {
  __device__ float operator()(const float (&x)[1]) const { return x[0] * sigmoid_approx(gate_input(x[0])); }
};

struct GeluBackward {
  __device__ float operator()(const float (&dy_x)[2]) const {
    // gate (1 - gate) = e / (1 + e)^2 with e = exp(-|z|): 1 - gate would cancel.
    const float x = dy_x[1], z = gate_input(x);
    const float e = exp_approx(-fabsf(z)), r = divide_approx(1.0f, 1.0f + e);
    const float gate = z < 0 ? e * r : r;
    const float slope = 2 * kSqrtTwoOverPi * (1 + 3 * kCubic * x * x);
    return dy_x[0] * (gate + x * (e * r * r) * slope);
  }
};

}  // namespace

template <> void gelu_on<Device::cuda>(Context& ctx, Tensor y, ConstTensor x) {
  cuda::with_device_float_type(x.dtype,
                               [&]<class T>() { map(ctx, Gelu{}, y.count(), y.as<T>(), x.as<T>()); });
}

template <> void gelu_backward_on<Device::cuda>(Context& ctx, Tensor dx, ConstTensor dy, ConstTensor x) {
  cuda::with_device_float_type(
      x.dtype, [&]<class T>() { map(ctx, GeluBackward{}, dx.count(), dx.as<T>(), dy.as<T>(), x.as<T>()); });
}

}  // namespace keen::ops
